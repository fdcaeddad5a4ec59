// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-routing --moe-raise-grouped | FileCheck %s

// Rows from the second one on.
// RUN: sed 's/dense<0> : tensor<1xi32>/dense<1> : tensor<1xi32>/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// NONE-NOT: moe.dispatch

// A loop over the experts with any number of tokens, whose gate and up are the columns of one product.

// CHECK-LABEL: func.func @scan(
// CHECK-SAME:      %[[X:[^ ]*]]: tensor<?x16xf32>, %{{[^ ]*}}: tensor<16x4xf32>, %[[UP:[^ ]*]]: tensor<4x16x48xf32>, %[[DOWN:[^ ]*]]: tensor<4x24x16xf32>
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate %{{.*}} top_k(2) score(none)
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %[[X]], %[[IDS]] experts(4)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[UP]] :
// CHECK:         tensor.extract_slice %{{.*}}[0, 0] [%{{.*}}, 24] [1, 1]
// CHECK:         tensor.extract_slice %{{.*}}[0, 24] [%{{.*}}, 24] [1, 1]
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[DOWN]] :
// CHECK:         moe.combine %[[Y]], %[[PLACES]] weights(%[[W]] :
"func.func"() <{function_type = (tensor<?x16xf32>, tensor<16x4xf32>, tensor<4x16x48xf32>, tensor<4x24x16xf32>) -> tensor<?x16xf32>, sym_name = "scan"}> ({
^bb0(%arg0: tensor<?x16xf32>, %arg1: tensor<16x4xf32>, %arg2: tensor<4x16x48xf32>, %arg3: tensor<4x24x16xf32>):
  %0 = "stablehlo.constant"() <{value = dense<0> : tensor<1xi32>}> : () -> tensor<1xi32>
  %1 = "stablehlo.constant"() <{value = dense<24> : tensor<1xi32>}> : () -> tensor<1xi32>
  %2 = "stablehlo.constant"() <{value = dense<48> : tensor<1xi32>}> : () -> tensor<1xi32>
  %3 = "stablehlo.constant"() <{value = dense<2> : tensor<1xi32>}> : () -> tensor<1xi32>
  %4 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %5 = "stablehlo.constant"() <{value = dense<1> : tensor<1xi32>}> : () -> tensor<1xi32>
  %6 = "stablehlo.constant"() <{value = dense<4> : tensor<i32>}> : () -> tensor<i32>
  %7 = "stablehlo.constant"() <{value = dense<4> : tensor<1xi32>}> : () -> tensor<1xi32>
  %8 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %9 = "stablehlo.constant"() <{value = dense<16> : tensor<1xi32>}> : () -> tensor<1xi32>
  %10 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %11 = "stablehlo.constant"() <{value = dense<1> : tensor<i32>}> : () -> tensor<i32>
  %12 = "stablehlo.get_dimension_size"(%arg0) <{dimension = 0 : i64}> : (tensor<?x16xf32>) -> tensor<i32>
  %13 = "stablehlo.dot_general"(%arg0, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<?x16xf32>, tensor<16x4xf32>) -> tensor<?x4xf32>
  %14 = "stablehlo.reduce"(%13, %4) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg24: tensor<f32>, %arg25: tensor<f32>):
    %65 = "stablehlo.maximum"(%arg24, %arg25) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%65) : (tensor<f32>) -> ()
  }) : (tensor<?x4xf32>, tensor<f32>) -> tensor<?xf32>
  %15 = "stablehlo.reshape"(%12) : (tensor<i32>) -> tensor<1xi32>
  %16 = "stablehlo.dynamic_broadcast_in_dim"(%4, %15) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<1xi32>) -> tensor<?xf32>
  %17 = "stablehlo.maximum"(%16, %14) : (tensor<?xf32>, tensor<?xf32>) -> tensor<?xf32>
  %18 = "stablehlo.concatenate"(%15, %5) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %19 = "stablehlo.dynamic_broadcast_in_dim"(%17, %18) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xf32>, tensor<2xi32>) -> tensor<?x1xf32>
  %20 = "stablehlo.concatenate"(%15, %7) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %21 = "stablehlo.dynamic_broadcast_in_dim"(%19, %20) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x4xf32>
  %22 = "stablehlo.subtract"(%13, %21) : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %23 = "stablehlo.exponential"(%22) : (tensor<?x4xf32>) -> tensor<?x4xf32>
  %24 = "stablehlo.reduce"(%23, %8) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg22: tensor<f32>, %arg23: tensor<f32>):
    %64 = "stablehlo.add"(%arg22, %arg23) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%64) : (tensor<f32>) -> ()
  }) : (tensor<?x4xf32>, tensor<f32>) -> tensor<?xf32>
  %25 = "stablehlo.dynamic_broadcast_in_dim"(%24, %18) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xf32>, tensor<2xi32>) -> tensor<?x1xf32>
  %26 = "stablehlo.dynamic_broadcast_in_dim"(%25, %20) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x4xf32>
  %27 = "stablehlo.divide"(%23, %26) : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %28:2 = "stablehlo.composite"(%27) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<?x4xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>)
  %29 = "stablehlo.concatenate"(%15, %9) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %30 = "stablehlo.dynamic_broadcast_in_dim"(%8, %29) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<2xi32>) -> tensor<?x16xf32>
  %31 = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<4xi32>
  %32:8 = "stablehlo.while"(%31, %arg2, %arg3, %arg0, %28#1, %28#0, %10, %30) ({
  ^bb0(%arg14: tensor<4xi32>, %arg15: tensor<4x16x48xf32>, %arg16: tensor<4x24x16xf32>, %arg17: tensor<?x16xf32>, %arg18: tensor<?x2xi32>, %arg19: tensor<?x2xf32>, %arg20: tensor<i32>, %arg21: tensor<?x16xf32>):
    %63 = "stablehlo.compare"(%arg20, %6) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%63) : (tensor<i1>) -> ()
  }, {
  ^bb0(%arg4: tensor<4xi32>, %arg5: tensor<4x16x48xf32>, %arg6: tensor<4x24x16xf32>, %arg7: tensor<?x16xf32>, %arg8: tensor<?x2xi32>, %arg9: tensor<?x2xf32>, %arg10: tensor<i32>, %arg11: tensor<?x16xf32>):
    %33 = "stablehlo.dynamic_slice"(%arg4, %arg10) <{slice_sizes = array<i64: 1>}> : (tensor<4xi32>, tensor<i32>) -> tensor<1xi32>
    %34 = "stablehlo.reshape"(%33) : (tensor<1xi32>) -> tensor<i32>
    %35 = "stablehlo.dynamic_slice"(%arg5, %arg10, %10, %10) <{slice_sizes = array<i64: 1, 16, 48>}> : (tensor<4x16x48xf32>, tensor<i32>, tensor<i32>, tensor<i32>) -> tensor<1x16x48xf32>
    %36 = "stablehlo.reshape"(%35) : (tensor<1x16x48xf32>) -> tensor<16x48xf32>
    %37 = "stablehlo.dynamic_slice"(%arg6, %arg10, %10, %10) <{slice_sizes = array<i64: 1, 24, 16>}> : (tensor<4x24x16xf32>, tensor<i32>, tensor<i32>, tensor<i32>) -> tensor<1x24x16xf32>
    %38 = "stablehlo.reshape"(%37) : (tensor<1x24x16xf32>) -> tensor<24x16xf32>
    %39 = "stablehlo.dot_general"(%arg7, %36) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<?x16xf32>, tensor<16x48xf32>) -> tensor<?x48xf32>
    %40 = "stablehlo.concatenate"(%0, %0) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
    %41 = "stablehlo.concatenate"(%15, %1) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
    %42 = "stablehlo.concatenate"(%5, %5) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
    %43 = "stablehlo.real_dynamic_slice"(%39, %40, %41, %42) : (tensor<?x48xf32>, tensor<2xi32>, tensor<2xi32>, tensor<2xi32>) -> tensor<?x24xf32>
    %44 = "stablehlo.concatenate"(%0, %1) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
    %45 = "stablehlo.concatenate"(%15, %2) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
    %46 = "stablehlo.real_dynamic_slice"(%39, %44, %45, %42) : (tensor<?x48xf32>, tensor<2xi32>, tensor<2xi32>, tensor<2xi32>) -> tensor<?x24xf32>
    %47 = "stablehlo.concatenate"(%15, %3) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
    %48 = "stablehlo.dynamic_broadcast_in_dim"(%34, %47) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<2xi32>) -> tensor<?x2xi32>
    %49 = "stablehlo.compare"(%arg8, %48) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<?x2xi32>, tensor<?x2xi32>) -> tensor<?x2xi1>
    %50 = "stablehlo.convert"(%8) : (tensor<f32>) -> tensor<f32>
    %51 = "stablehlo.dynamic_broadcast_in_dim"(%50, %47) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<2xi32>) -> tensor<?x2xf32>
    %52 = "stablehlo.select"(%49, %arg9, %51) : (tensor<?x2xi1>, tensor<?x2xf32>, tensor<?x2xf32>) -> tensor<?x2xf32>
    %53 = "stablehlo.reduce"(%52, %8) <{dimensions = array<i64: 1>}> ({
    ^bb0(%arg12: tensor<f32>, %arg13: tensor<f32>):
      %62 = "stablehlo.add"(%arg12, %arg13) : (tensor<f32>, tensor<f32>) -> tensor<f32>
      "stablehlo.return"(%62) : (tensor<f32>) -> ()
    }) : (tensor<?x2xf32>, tensor<f32>) -> tensor<?xf32>
    %54 = "stablehlo.dynamic_broadcast_in_dim"(%53, %18) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xf32>, tensor<2xi32>) -> tensor<?x1xf32>
    %55 = "stablehlo.tanh"(%43) : (tensor<?x24xf32>) -> tensor<?x24xf32>
    %56 = "stablehlo.multiply"(%55, %46) : (tensor<?x24xf32>, tensor<?x24xf32>) -> tensor<?x24xf32>
    %57 = "stablehlo.dot_general"(%56, %38) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<?x24xf32>, tensor<24x16xf32>) -> tensor<?x16xf32>
    %58 = "stablehlo.dynamic_broadcast_in_dim"(%54, %29) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x16xf32>
    %59 = "stablehlo.multiply"(%58, %57) : (tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x16xf32>
    %60 = "stablehlo.add"(%arg11, %59) : (tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x16xf32>
    %61 = "stablehlo.add"(%arg10, %11) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%arg4, %arg5, %arg6, %arg7, %arg8, %arg9, %61, %60) : (tensor<4xi32>, tensor<4x16x48xf32>, tensor<4x24x16xf32>, tensor<?x16xf32>, tensor<?x2xi32>, tensor<?x2xf32>, tensor<i32>, tensor<?x16xf32>) -> ()
  }) : (tensor<4xi32>, tensor<4x16x48xf32>, tensor<4x24x16xf32>, tensor<?x16xf32>, tensor<?x2xi32>, tensor<?x2xf32>, tensor<i32>, tensor<?x16xf32>) -> (tensor<4xi32>, tensor<4x16x48xf32>, tensor<4x24x16xf32>, tensor<?x16xf32>, tensor<?x2xi32>, tensor<?x2xf32>, tensor<i32>, tensor<?x16xf32>)
  "func.return"(%32#7) : (tensor<?x16xf32>) -> ()
}) : () -> ()
