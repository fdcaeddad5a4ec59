// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-routing --moe-raise-grouped | FileCheck %s

// The first expert is left out.
// RUN: sed 's/dense<0> : tensor<i32>/dense<1> : tensor<i32>/' %s | moe-opt - --split-input-file --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// NONE-NOT: moe.dispatch

// Or the last one.
// RUN: sed 's/dense<4> : tensor<i32>/dense<3> : tensor<i32>/' %s | moe-opt - --split-input-file --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE

// A loop over the experts, which adds what each computes, or stores it.

// CHECK-LABEL: func.func public @scan(
// CHECK-SAME:      %[[X:[^ ]*]]: tensor<10x16xf32>, %{{[^ ]*}}: tensor<16x4xf32>, %[[UP:[^ ]*]]: tensor<4x16x24xf32>, %[[DOWN:[^ ]*]]: tensor<4x24x16xf32>
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate %{{.*}} top_k(2) score(none)
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}}, %[[IDS]] experts(4)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[UP]] : tensor<4x16x24xf32>)
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[DOWN]] : tensor<4x24x16xf32>)
// CHECK:         moe.combine %[[Y]], %[[PLACES]] weights(%{{.*}} :
// CHECK-NOT:     stablehlo.while
"func.func"() <{function_type = (tensor<10x16xf32>, tensor<16x4xf32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>) -> tensor<10x16xf32>, res_attrs = [{}], sym_name = "scan", sym_visibility = "public"}> ({
^bb0(%arg0: tensor<10x16xf32>, %arg1: tensor<16x4xf32>, %arg2: tensor<4x16x24xf32>, %arg3: tensor<4x24x16xf32>):
  %0 = "stablehlo.constant"() <{value = dense<1> : tensor<i32>}> : () -> tensor<i32>
  %1 = "stablehlo.constant"() <{value = dense<4> : tensor<i32>}> : () -> tensor<i32>
  %2 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %3 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %4 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %5 = "stablehlo.dot_general"(%arg0, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<10x16xf32>, tensor<16x4xf32>) -> tensor<10x4xf32>
  %6 = "stablehlo.reduce"(%5, %4) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg24: tensor<f32>, %arg25: tensor<f32>):
    %44 = "stablehlo.maximum"(%arg24, %arg25) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%44) : (tensor<f32>) -> ()
  }) : (tensor<10x4xf32>, tensor<f32>) -> tensor<10xf32>
  %7 = "stablehlo.broadcast_in_dim"(%4) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<10xf32>
  %8 = "stablehlo.maximum"(%7, %6) : (tensor<10xf32>, tensor<10xf32>) -> tensor<10xf32>
  %9 = "stablehlo.broadcast_in_dim"(%8) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xf32>) -> tensor<10x1xf32>
  %10 = "stablehlo.broadcast_in_dim"(%9) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xf32>) -> tensor<10x4xf32>
  %11 = "stablehlo.subtract"(%5, %10) : (tensor<10x4xf32>, tensor<10x4xf32>) -> tensor<10x4xf32>
  %12 = "stablehlo.exponential"(%11) : (tensor<10x4xf32>) -> tensor<10x4xf32>
  %13 = "stablehlo.reduce"(%12, %3) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg22: tensor<f32>, %arg23: tensor<f32>):
    %43 = "stablehlo.add"(%arg22, %arg23) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%43) : (tensor<f32>) -> ()
  }) : (tensor<10x4xf32>, tensor<f32>) -> tensor<10xf32>
  %14 = "stablehlo.broadcast_in_dim"(%13) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xf32>) -> tensor<10x1xf32>
  %15 = "stablehlo.broadcast_in_dim"(%14) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xf32>) -> tensor<10x4xf32>
  %16 = "stablehlo.divide"(%12, %15) : (tensor<10x4xf32>, tensor<10x4xf32>) -> tensor<10x4xf32>
  %17:2 = "stablehlo.composite"(%16) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<10x4xf32>) -> (tensor<10x2xf32>, tensor<10x2xi32>)
  %18 = "stablehlo.broadcast_in_dim"(%3) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<10x16xf32>
  %19 = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<4xi32>
  %20:8 = "stablehlo.while"(%19, %arg2, %arg3, %17#1, %17#0, %arg0, %2, %18) ({
  ^bb0(%arg14: tensor<4xi32>, %arg15: tensor<4x16x24xf32>, %arg16: tensor<4x24x16xf32>, %arg17: tensor<10x2xi32>, %arg18: tensor<10x2xf32>, %arg19: tensor<10x16xf32>, %arg20: tensor<i32>, %arg21: tensor<10x16xf32>):
    %42 = "stablehlo.compare"(%arg20, %1) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%42) : (tensor<i1>) -> ()
  }, {
  ^bb0(%arg4: tensor<4xi32>, %arg5: tensor<4x16x24xf32>, %arg6: tensor<4x24x16xf32>, %arg7: tensor<10x2xi32>, %arg8: tensor<10x2xf32>, %arg9: tensor<10x16xf32>, %arg10: tensor<i32>, %arg11: tensor<10x16xf32>):
    %21 = "stablehlo.dynamic_slice"(%arg4, %arg10) <{slice_sizes = array<i64: 1>}> : (tensor<4xi32>, tensor<i32>) -> tensor<1xi32>
    %22 = "stablehlo.reshape"(%21) : (tensor<1xi32>) -> tensor<i32>
    %23 = "stablehlo.dynamic_slice"(%arg5, %arg10, %2, %2) <{slice_sizes = array<i64: 1, 16, 24>}> : (tensor<4x16x24xf32>, tensor<i32>, tensor<i32>, tensor<i32>) -> tensor<1x16x24xf32>
    %24 = "stablehlo.reshape"(%23) : (tensor<1x16x24xf32>) -> tensor<16x24xf32>
    %25 = "stablehlo.dynamic_slice"(%arg6, %arg10, %2, %2) <{slice_sizes = array<i64: 1, 24, 16>}> : (tensor<4x24x16xf32>, tensor<i32>, tensor<i32>, tensor<i32>) -> tensor<1x24x16xf32>
    %26 = "stablehlo.reshape"(%25) : (tensor<1x24x16xf32>) -> tensor<24x16xf32>
    %27 = "stablehlo.broadcast_in_dim"(%22) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10x2xi32>
    %28 = "stablehlo.compare"(%arg7, %27) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<10x2xi32>, tensor<10x2xi32>) -> tensor<10x2xi1>
    %29 = "stablehlo.convert"(%3) : (tensor<f32>) -> tensor<f32>
    %30 = "stablehlo.broadcast_in_dim"(%29) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<10x2xf32>
    %31 = "stablehlo.select"(%28, %arg8, %30) : (tensor<10x2xi1>, tensor<10x2xf32>, tensor<10x2xf32>) -> tensor<10x2xf32>
    %32 = "stablehlo.reduce"(%31, %3) <{dimensions = array<i64: 1>}> ({
    ^bb0(%arg12: tensor<f32>, %arg13: tensor<f32>):
      %41 = "stablehlo.add"(%arg12, %arg13) : (tensor<f32>, tensor<f32>) -> tensor<f32>
      "stablehlo.return"(%41) : (tensor<f32>) -> ()
    }) : (tensor<10x2xf32>, tensor<f32>) -> tensor<10xf32>
    %33 = "stablehlo.broadcast_in_dim"(%32) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xf32>) -> tensor<10x1xf32>
    %34 = "stablehlo.dot_general"(%arg9, %24) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<10x16xf32>, tensor<16x24xf32>) -> tensor<10x24xf32>
    %35 = "stablehlo.tanh"(%34) : (tensor<10x24xf32>) -> tensor<10x24xf32>
    %36 = "stablehlo.dot_general"(%35, %26) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<10x24xf32>, tensor<24x16xf32>) -> tensor<10x16xf32>
    %37 = "stablehlo.broadcast_in_dim"(%33) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xf32>) -> tensor<10x16xf32>
    %38 = "stablehlo.multiply"(%37, %36) : (tensor<10x16xf32>, tensor<10x16xf32>) -> tensor<10x16xf32>
    %39 = "stablehlo.add"(%arg11, %38) : (tensor<10x16xf32>, tensor<10x16xf32>) -> tensor<10x16xf32>
    %40 = "stablehlo.add"(%arg10, %0) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%arg4, %arg5, %arg6, %arg7, %arg8, %arg9, %40, %39) : (tensor<4xi32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>, tensor<10x2xi32>, tensor<10x2xf32>, tensor<10x16xf32>, tensor<i32>, tensor<10x16xf32>) -> ()
  }) : (tensor<4xi32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>, tensor<10x2xi32>, tensor<10x2xf32>, tensor<10x16xf32>, tensor<i32>, tensor<10x16xf32>) -> (tensor<4xi32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>, tensor<10x2xi32>, tensor<10x2xf32>, tensor<10x16xf32>, tensor<i32>, tensor<10x16xf32>)
  "func.return"(%20#7) : (tensor<10x16xf32>) -> ()
}) : () -> ()

// -----

// CHECK-LABEL: func.func public @scan_any(
// CHECK-SAME:      %[[X:[^ ]*]]: tensor<?x16xf32>, %{{[^ ]*}}: tensor<16x4xf32>, %[[UP:[^ ]*]]: tensor<4x16x24xf32>, %[[DOWN:[^ ]*]]: tensor<4x24x16xf32>
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate %{{.*}} top_k(2) score(none)
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}}, %[[IDS]] experts(4)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[UP]] : tensor<4x16x24xf32>)
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[DOWN]] : tensor<4x24x16xf32>)
// CHECK:         moe.combine %[[Y]], %[[PLACES]] weights(%{{.*}} :
// CHECK-NOT:     stablehlo.while
"func.func"() <{function_type = (tensor<?x16xf32>, tensor<16x4xf32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>) -> tensor<?x16xf32>, res_attrs = [{}], sym_name = "scan_any", sym_visibility = "public"}> ({
^bb0(%arg0: tensor<?x16xf32>, %arg1: tensor<16x4xf32>, %arg2: tensor<4x16x24xf32>, %arg3: tensor<4x24x16xf32>):
  %0 = "stablehlo.constant"() <{value = dense<2> : tensor<1xi32>}> : () -> tensor<1xi32>
  %1 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %2 = "stablehlo.constant"() <{value = dense<1> : tensor<1xi32>}> : () -> tensor<1xi32>
  %3 = "stablehlo.constant"() <{value = dense<4> : tensor<i32>}> : () -> tensor<i32>
  %4 = "stablehlo.constant"() <{value = dense<4> : tensor<1xi32>}> : () -> tensor<1xi32>
  %5 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %6 = "stablehlo.constant"() <{value = dense<16> : tensor<1xi32>}> : () -> tensor<1xi32>
  %7 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %8 = "stablehlo.constant"() <{value = dense<1> : tensor<i32>}> : () -> tensor<i32>
  %9 = "stablehlo.get_dimension_size"(%arg0) <{dimension = 0 : i64}> : (tensor<?x16xf32>) -> tensor<i32>
  %10 = "stablehlo.dot_general"(%arg0, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<?x16xf32>, tensor<16x4xf32>) -> tensor<?x4xf32>
  %11 = "stablehlo.reduce"(%10, %1) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg24: tensor<f32>, %arg25: tensor<f32>):
    %54 = "stablehlo.maximum"(%arg24, %arg25) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%54) : (tensor<f32>) -> ()
  }) : (tensor<?x4xf32>, tensor<f32>) -> tensor<?xf32>
  %12 = "stablehlo.reshape"(%9) : (tensor<i32>) -> tensor<1xi32>
  %13 = "stablehlo.dynamic_broadcast_in_dim"(%1, %12) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<1xi32>) -> tensor<?xf32>
  %14 = "stablehlo.maximum"(%13, %11) : (tensor<?xf32>, tensor<?xf32>) -> tensor<?xf32>
  %15 = "stablehlo.concatenate"(%12, %2) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %16 = "stablehlo.dynamic_broadcast_in_dim"(%14, %15) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xf32>, tensor<2xi32>) -> tensor<?x1xf32>
  %17 = "stablehlo.concatenate"(%12, %4) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %18 = "stablehlo.dynamic_broadcast_in_dim"(%16, %17) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x4xf32>
  %19 = "stablehlo.subtract"(%10, %18) : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %20 = "stablehlo.exponential"(%19) : (tensor<?x4xf32>) -> tensor<?x4xf32>
  %21 = "stablehlo.reduce"(%20, %5) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg22: tensor<f32>, %arg23: tensor<f32>):
    %53 = "stablehlo.add"(%arg22, %arg23) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%53) : (tensor<f32>) -> ()
  }) : (tensor<?x4xf32>, tensor<f32>) -> tensor<?xf32>
  %22 = "stablehlo.dynamic_broadcast_in_dim"(%21, %15) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xf32>, tensor<2xi32>) -> tensor<?x1xf32>
  %23 = "stablehlo.dynamic_broadcast_in_dim"(%22, %17) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x4xf32>
  %24 = "stablehlo.divide"(%20, %23) : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %25:2 = "stablehlo.composite"(%24) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<?x4xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>)
  %26 = "stablehlo.concatenate"(%12, %6) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %27 = "stablehlo.dynamic_broadcast_in_dim"(%5, %26) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<2xi32>) -> tensor<?x16xf32>
  %28 = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<4xi32>
  %29:8 = "stablehlo.while"(%28, %arg2, %arg3, %25#1, %25#0, %arg0, %7, %27) ({
  ^bb0(%arg14: tensor<4xi32>, %arg15: tensor<4x16x24xf32>, %arg16: tensor<4x24x16xf32>, %arg17: tensor<?x2xi32>, %arg18: tensor<?x2xf32>, %arg19: tensor<?x16xf32>, %arg20: tensor<i32>, %arg21: tensor<?x16xf32>):
    %52 = "stablehlo.compare"(%arg20, %3) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%52) : (tensor<i1>) -> ()
  }, {
  ^bb0(%arg4: tensor<4xi32>, %arg5: tensor<4x16x24xf32>, %arg6: tensor<4x24x16xf32>, %arg7: tensor<?x2xi32>, %arg8: tensor<?x2xf32>, %arg9: tensor<?x16xf32>, %arg10: tensor<i32>, %arg11: tensor<?x16xf32>):
    %30 = "stablehlo.dynamic_slice"(%arg4, %arg10) <{slice_sizes = array<i64: 1>}> : (tensor<4xi32>, tensor<i32>) -> tensor<1xi32>
    %31 = "stablehlo.reshape"(%30) : (tensor<1xi32>) -> tensor<i32>
    %32 = "stablehlo.dynamic_slice"(%arg5, %arg10, %7, %7) <{slice_sizes = array<i64: 1, 16, 24>}> : (tensor<4x16x24xf32>, tensor<i32>, tensor<i32>, tensor<i32>) -> tensor<1x16x24xf32>
    %33 = "stablehlo.reshape"(%32) : (tensor<1x16x24xf32>) -> tensor<16x24xf32>
    %34 = "stablehlo.dynamic_slice"(%arg6, %arg10, %7, %7) <{slice_sizes = array<i64: 1, 24, 16>}> : (tensor<4x24x16xf32>, tensor<i32>, tensor<i32>, tensor<i32>) -> tensor<1x24x16xf32>
    %35 = "stablehlo.reshape"(%34) : (tensor<1x24x16xf32>) -> tensor<24x16xf32>
    %36 = "stablehlo.concatenate"(%12, %0) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
    %37 = "stablehlo.dynamic_broadcast_in_dim"(%31, %36) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<2xi32>) -> tensor<?x2xi32>
    %38 = "stablehlo.compare"(%arg7, %37) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<?x2xi32>, tensor<?x2xi32>) -> tensor<?x2xi1>
    %39 = "stablehlo.convert"(%5) : (tensor<f32>) -> tensor<f32>
    %40 = "stablehlo.dynamic_broadcast_in_dim"(%39, %36) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<2xi32>) -> tensor<?x2xf32>
    %41 = "stablehlo.select"(%38, %arg8, %40) : (tensor<?x2xi1>, tensor<?x2xf32>, tensor<?x2xf32>) -> tensor<?x2xf32>
    %42 = "stablehlo.reduce"(%41, %5) <{dimensions = array<i64: 1>}> ({
    ^bb0(%arg12: tensor<f32>, %arg13: tensor<f32>):
      %51 = "stablehlo.add"(%arg12, %arg13) : (tensor<f32>, tensor<f32>) -> tensor<f32>
      "stablehlo.return"(%51) : (tensor<f32>) -> ()
    }) : (tensor<?x2xf32>, tensor<f32>) -> tensor<?xf32>
    %43 = "stablehlo.dynamic_broadcast_in_dim"(%42, %15) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xf32>, tensor<2xi32>) -> tensor<?x1xf32>
    %44 = "stablehlo.dot_general"(%arg9, %33) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<?x16xf32>, tensor<16x24xf32>) -> tensor<?x24xf32>
    %45 = "stablehlo.tanh"(%44) : (tensor<?x24xf32>) -> tensor<?x24xf32>
    %46 = "stablehlo.dot_general"(%45, %35) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<?x24xf32>, tensor<24x16xf32>) -> tensor<?x16xf32>
    %47 = "stablehlo.dynamic_broadcast_in_dim"(%43, %26) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x16xf32>
    %48 = "stablehlo.multiply"(%47, %46) : (tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x16xf32>
    %49 = "stablehlo.add"(%arg11, %48) : (tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x16xf32>
    %50 = "stablehlo.add"(%arg10, %8) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%arg4, %arg5, %arg6, %arg7, %arg8, %arg9, %50, %49) : (tensor<4xi32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>, tensor<?x2xi32>, tensor<?x2xf32>, tensor<?x16xf32>, tensor<i32>, tensor<?x16xf32>) -> ()
  }) : (tensor<4xi32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>, tensor<?x2xi32>, tensor<?x2xf32>, tensor<?x16xf32>, tensor<i32>, tensor<?x16xf32>) -> (tensor<4xi32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>, tensor<?x2xi32>, tensor<?x2xf32>, tensor<?x16xf32>, tensor<i32>, tensor<?x16xf32>)
  "func.return"(%29#7) : (tensor<?x16xf32>) -> ()
}) : () -> ()

// -----

// CHECK-LABEL: func.func public @map(
// CHECK-SAME:      %[[X:[^ ]*]]: tensor<10x16xf32>, %{{[^ ]*}}: tensor<16x4xf32>, %[[UP:[^ ]*]]: tensor<4x16x24xf32>, %[[DOWN:[^ ]*]]: tensor<4x24x16xf32>
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate %{{.*}} top_k(2) score(none)
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}}, %[[IDS]] experts(4)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[UP]] : tensor<4x16x24xf32>)
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[DOWN]] : tensor<4x24x16xf32>)
// CHECK:         moe.combine %[[Y]], %[[PLACES]] weights(%{{.*}} :
// CHECK-NOT:     stablehlo.while
"func.func"() <{function_type = (tensor<10x16xf32>, tensor<16x4xf32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>) -> tensor<10x16xf32>, res_attrs = [{}], sym_name = "map", sym_visibility = "public"}> ({
^bb0(%arg0: tensor<10x16xf32>, %arg1: tensor<16x4xf32>, %arg2: tensor<4x16x24xf32>, %arg3: tensor<4x24x16xf32>):
  %0 = "stablehlo.constant"() <{value = dense<1> : tensor<i32>}> : () -> tensor<i32>
  %1 = "stablehlo.constant"() <{value = dense<4> : tensor<i32>}> : () -> tensor<i32>
  %2 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %3 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %4 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %5 = "stablehlo.dot_general"(%arg0, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<10x16xf32>, tensor<16x4xf32>) -> tensor<10x4xf32>
  %6 = "stablehlo.reduce"(%5, %4) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg18: tensor<f32>, %arg19: tensor<f32>):
    %44 = "stablehlo.maximum"(%arg18, %arg19) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%44) : (tensor<f32>) -> ()
  }) : (tensor<10x4xf32>, tensor<f32>) -> tensor<10xf32>
  %7 = "stablehlo.broadcast_in_dim"(%4) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<10xf32>
  %8 = "stablehlo.maximum"(%7, %6) : (tensor<10xf32>, tensor<10xf32>) -> tensor<10xf32>
  %9 = "stablehlo.broadcast_in_dim"(%8) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xf32>) -> tensor<10x1xf32>
  %10 = "stablehlo.broadcast_in_dim"(%9) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xf32>) -> tensor<10x4xf32>
  %11 = "stablehlo.subtract"(%5, %10) : (tensor<10x4xf32>, tensor<10x4xf32>) -> tensor<10x4xf32>
  %12 = "stablehlo.exponential"(%11) : (tensor<10x4xf32>) -> tensor<10x4xf32>
  %13 = "stablehlo.reduce"(%12, %3) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg16: tensor<f32>, %arg17: tensor<f32>):
    %43 = "stablehlo.add"(%arg16, %arg17) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%43) : (tensor<f32>) -> ()
  }) : (tensor<10x4xf32>, tensor<f32>) -> tensor<10xf32>
  %14 = "stablehlo.broadcast_in_dim"(%13) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xf32>) -> tensor<10x1xf32>
  %15 = "stablehlo.broadcast_in_dim"(%14) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xf32>) -> tensor<10x4xf32>
  %16 = "stablehlo.divide"(%12, %15) : (tensor<10x4xf32>, tensor<10x4xf32>) -> tensor<10x4xf32>
  %17:2 = "stablehlo.composite"(%16) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<10x4xf32>) -> (tensor<10x2xf32>, tensor<10x2xi32>)
  %18 = "stablehlo.broadcast_in_dim"(%17#1) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x2xi32>) -> tensor<10x2x1xi32>
  %19 = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<1x1x4xi32>
  %20 = "stablehlo.broadcast_in_dim"(%18) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<10x2x1xi32>) -> tensor<10x2x4xi32>
  %21 = "stablehlo.broadcast_in_dim"(%19) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x1x4xi32>) -> tensor<10x2x4xi32>
  %22 = "stablehlo.compare"(%20, %21) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<10x2x4xi32>, tensor<10x2x4xi32>) -> tensor<10x2x4xi1>
  %23 = "stablehlo.convert"(%22) : (tensor<10x2x4xi1>) -> tensor<10x2x4xf32>
  %24 = "stablehlo.broadcast_in_dim"(%17#0) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x2xf32>) -> tensor<10x2x1xf32>
  %25 = "stablehlo.broadcast_in_dim"(%24) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<10x2x1xf32>) -> tensor<10x2x4xf32>
  %26 = "stablehlo.multiply"(%23, %25) : (tensor<10x2x4xf32>, tensor<10x2x4xf32>) -> tensor<10x2x4xf32>
  %27 = "stablehlo.reduce"(%26, %3) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg14: tensor<f32>, %arg15: tensor<f32>):
    %42 = "stablehlo.add"(%arg14, %arg15) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%42) : (tensor<f32>) -> ()
  }) : (tensor<10x2x4xf32>, tensor<f32>) -> tensor<10x4xf32>
  %28 = "stablehlo.broadcast_in_dim"(%3) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<4x10x16xf32>
  %29:5 = "stablehlo.while"(%arg2, %arg3, %arg0, %2, %28) ({
  ^bb0(%arg9: tensor<4x16x24xf32>, %arg10: tensor<4x24x16xf32>, %arg11: tensor<10x16xf32>, %arg12: tensor<i32>, %arg13: tensor<4x10x16xf32>):
    %41 = "stablehlo.compare"(%arg12, %1) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%41) : (tensor<i1>) -> ()
  }, {
  ^bb0(%arg4: tensor<4x16x24xf32>, %arg5: tensor<4x24x16xf32>, %arg6: tensor<10x16xf32>, %arg7: tensor<i32>, %arg8: tensor<4x10x16xf32>):
    %31 = "stablehlo.dynamic_slice"(%arg4, %arg7, %2, %2) <{slice_sizes = array<i64: 1, 16, 24>}> : (tensor<4x16x24xf32>, tensor<i32>, tensor<i32>, tensor<i32>) -> tensor<1x16x24xf32>
    %32 = "stablehlo.reshape"(%31) : (tensor<1x16x24xf32>) -> tensor<16x24xf32>
    %33 = "stablehlo.dynamic_slice"(%arg5, %arg7, %2, %2) <{slice_sizes = array<i64: 1, 24, 16>}> : (tensor<4x24x16xf32>, tensor<i32>, tensor<i32>, tensor<i32>) -> tensor<1x24x16xf32>
    %34 = "stablehlo.reshape"(%33) : (tensor<1x24x16xf32>) -> tensor<24x16xf32>
    %35 = "stablehlo.dot_general"(%arg6, %32) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<10x16xf32>, tensor<16x24xf32>) -> tensor<10x24xf32>
    %36 = "stablehlo.tanh"(%35) : (tensor<10x24xf32>) -> tensor<10x24xf32>
    %37 = "stablehlo.dot_general"(%36, %34) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<10x24xf32>, tensor<24x16xf32>) -> tensor<10x16xf32>
    %38 = "stablehlo.broadcast_in_dim"(%37) <{broadcast_dimensions = array<i64: 1, 2>}> : (tensor<10x16xf32>) -> tensor<1x10x16xf32>
    %39 = "stablehlo.dynamic_update_slice"(%arg8, %38, %arg7, %2, %2) : (tensor<4x10x16xf32>, tensor<1x10x16xf32>, tensor<i32>, tensor<i32>, tensor<i32>) -> tensor<4x10x16xf32>
    %40 = "stablehlo.add"(%arg7, %0) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%arg4, %arg5, %arg6, %40, %39) : (tensor<4x16x24xf32>, tensor<4x24x16xf32>, tensor<10x16xf32>, tensor<i32>, tensor<4x10x16xf32>) -> ()
  }) : (tensor<4x16x24xf32>, tensor<4x24x16xf32>, tensor<10x16xf32>, tensor<i32>, tensor<4x10x16xf32>) -> (tensor<4x16x24xf32>, tensor<4x24x16xf32>, tensor<10x16xf32>, tensor<i32>, tensor<4x10x16xf32>)
  %30 = "stablehlo.dot_general"(%27, %29#4) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [1], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<10x4xf32>, tensor<4x10x16xf32>) -> tensor<10x16xf32>
  "func.return"(%30) : (tensor<10x16xf32>) -> ()
}) : () -> ()
