// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-routing --moe-raise-grouped | FileCheck %s

// The smallest score.
// RUN: sed 's/comparison_direction GT/comparison_direction LT/' %s | moe-opt - --split-input-file --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// NONE-NOT: moe.dispatch

// One choice by an argmax, and its probability by a maximum: rows are sorted by it.

// CHECK-LABEL: func.func public @argmax(
// CHECK-SAME:      %[[X:[^ ]*]]: tensor<10x16xf32>, %{{[^ ]*}}: tensor<16x4xf32>, %[[UP:[^ ]*]]: tensor<4x16x24xf32>, %[[DOWN:[^ ]*]]: tensor<4x24x16xf32>
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate %{{.*}} top_k(1) score(none)
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}}, %[[IDS]] experts(4)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[UP]] : tensor<4x16x24xf32>)
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[DOWN]] : tensor<4x24x16xf32>)
// CHECK:         moe.combine %[[Y]], %[[PLACES]] weights(%{{.*}} :
// CHECK-NOT:     stablehlo.sort
"func.func"() <{function_type = (tensor<10x16xf32>, tensor<16x4xf32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>) -> tensor<10x16xf32>, res_attrs = [{}], sym_name = "argmax", sym_visibility = "public"}> ({
^bb0(%arg0: tensor<10x16xf32>, %arg1: tensor<16x4xf32>, %arg2: tensor<4x16x24xf32>, %arg3: tensor<4x24x16xf32>):
  %0 = "stablehlo.constant"() <{value = dense<10> : tensor<i32>}> : () -> tensor<i32>
  %1 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %2 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %3 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %4 = "stablehlo.dot_general"(%arg0, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<10x16xf32>, tensor<16x4xf32>) -> tensor<10x4xf32>
  %5 = "stablehlo.reduce"(%4, %3) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg22: tensor<f32>, %arg23: tensor<f32>):
    %61 = "stablehlo.maximum"(%arg22, %arg23) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%61) : (tensor<f32>) -> ()
  }) : (tensor<10x4xf32>, tensor<f32>) -> tensor<10xf32>
  %6 = "stablehlo.broadcast_in_dim"(%3) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<10xf32>
  %7 = "stablehlo.maximum"(%6, %5) : (tensor<10xf32>, tensor<10xf32>) -> tensor<10xf32>
  %8 = "stablehlo.broadcast_in_dim"(%7) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xf32>) -> tensor<10x1xf32>
  %9 = "stablehlo.broadcast_in_dim"(%8) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xf32>) -> tensor<10x4xf32>
  %10 = "stablehlo.subtract"(%4, %9) : (tensor<10x4xf32>, tensor<10x4xf32>) -> tensor<10x4xf32>
  %11 = "stablehlo.exponential"(%10) : (tensor<10x4xf32>) -> tensor<10x4xf32>
  %12 = "stablehlo.reduce"(%11, %2) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg20: tensor<f32>, %arg21: tensor<f32>):
    %60 = "stablehlo.add"(%arg20, %arg21) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%60) : (tensor<f32>) -> ()
  }) : (tensor<10x4xf32>, tensor<f32>) -> tensor<10xf32>
  %13 = "stablehlo.broadcast_in_dim"(%12) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xf32>) -> tensor<10x1xf32>
  %14 = "stablehlo.broadcast_in_dim"(%13) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xf32>) -> tensor<10x4xf32>
  %15 = "stablehlo.divide"(%11, %14) : (tensor<10x4xf32>, tensor<10x4xf32>) -> tensor<10x4xf32>
  %16 = "stablehlo.iota"() <{iota_dimension = 1 : i64}> : () -> tensor<10x4xi32>
  %17:2 = "stablehlo.reduce"(%15, %16, %3, %1) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg16: tensor<f32>, %arg17: tensor<i32>, %arg18: tensor<f32>, %arg19: tensor<i32>):
    %51 = "stablehlo.compare"(%arg16, %arg18) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction GT>}> : (tensor<f32>, tensor<f32>) -> tensor<i1>
    %52 = "stablehlo.compare"(%arg16, %arg16) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<f32>, tensor<f32>) -> tensor<i1>
    %53 = "stablehlo.or"(%51, %52) : (tensor<i1>, tensor<i1>) -> tensor<i1>
    %54 = "stablehlo.compare"(%arg16, %arg18) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<f32>, tensor<f32>) -> tensor<i1>
    %55 = "stablehlo.compare"(%arg17, %arg19) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    %56 = "stablehlo.and"(%54, %55) : (tensor<i1>, tensor<i1>) -> tensor<i1>
    %57 = "stablehlo.or"(%53, %56) : (tensor<i1>, tensor<i1>) -> tensor<i1>
    %58 = "stablehlo.select"(%53, %arg16, %arg18) : (tensor<i1>, tensor<f32>, tensor<f32>) -> tensor<f32>
    %59 = "stablehlo.select"(%57, %arg17, %arg19) : (tensor<i1>, tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%58, %59) : (tensor<f32>, tensor<i32>) -> ()
  }) : (tensor<10x4xf32>, tensor<10x4xi32>, tensor<f32>, tensor<i32>) -> (tensor<10xf32>, tensor<10xi32>)
  %18 = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<10xi32>
  %19:2 = "stablehlo.sort"(%17#1, %18) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%arg12: tensor<i32>, %arg13: tensor<i32>, %arg14: tensor<i32>, %arg15: tensor<i32>):
    %50 = "stablehlo.compare"(%arg12, %arg13) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%50) : (tensor<i1>) -> ()
  }) : (tensor<10xi32>, tensor<10xi32>) -> (tensor<10xi32>, tensor<10xi32>)
  %20 = "stablehlo.broadcast_in_dim"(%17#1) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xi32>) -> tensor<10x1xi32>
  %21 = "stablehlo.iota"() <{iota_dimension = 1 : i64}> : () -> tensor<1x4xi32>
  %22 = "stablehlo.broadcast_in_dim"(%20) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xi32>) -> tensor<10x4xi32>
  %23 = "stablehlo.broadcast_in_dim"(%21) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<1x4xi32>) -> tensor<10x4xi32>
  %24 = "stablehlo.compare"(%22, %23) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<10x4xi32>, tensor<10x4xi32>) -> tensor<10x4xi1>
  %25 = "stablehlo.convert"(%24) : (tensor<10x4xi1>) -> tensor<10x4xi32>
  %26 = "stablehlo.reduce"(%25, %1) <{dimensions = array<i64: 0>}> ({
  ^bb0(%arg10: tensor<i32>, %arg11: tensor<i32>):
    %49 = "stablehlo.add"(%arg10, %arg11) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%49) : (tensor<i32>) -> ()
  }) : (tensor<10x4xi32>, tensor<i32>) -> tensor<4xi32>
  %27 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10xi32>
  %28 = "stablehlo.compare"(%19#1, %27) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi1>
  %29 = "stablehlo.broadcast_in_dim"(%0) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10xi32>
  %30 = "stablehlo.add"(%19#1, %29) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %31 = "stablehlo.select"(%28, %30, %19#1) : (tensor<10xi1>, tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %32 = "stablehlo.broadcast_in_dim"(%31) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xi32>) -> tensor<10x1xi32>
  %33 = "stablehlo.gather"(%arg0, %32) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<10x16xf32>, tensor<10x1xi32>) -> tensor<10x16xf32>
  %34 = "stablehlo.composite"(%33, %arg2, %26) <{composite_attributes = {precision_config = ["DEFAULT", "DEFAULT"], ragged_dot_dimension_numbers = [dense<> : tensor<0xi64>, dense<> : tensor<0xi64>, dense<1> : tensor<1xi64>, dense<1> : tensor<1xi64>, dense<0> : tensor<1xi64>, dense<0> : tensor<1xi64>]}, decomposition = @chlo.ragged_dot.impl, name = "chlo.ragged_dot", version = 1 : i32}> : (tensor<10x16xf32>, tensor<4x16x24xf32>, tensor<4xi32>) -> tensor<10x24xf32>
  %35 = "stablehlo.tanh"(%34) : (tensor<10x24xf32>) -> tensor<10x24xf32>
  %36 = "stablehlo.composite"(%35, %arg3, %26) <{composite_attributes = {precision_config = ["DEFAULT", "DEFAULT"], ragged_dot_dimension_numbers = [dense<> : tensor<0xi64>, dense<> : tensor<0xi64>, dense<1> : tensor<1xi64>, dense<1> : tensor<1xi64>, dense<0> : tensor<1xi64>, dense<0> : tensor<1xi64>]}, decomposition = @chlo.ragged_dot.impl_0, name = "chlo.ragged_dot", version = 1 : i32}> : (tensor<10x24xf32>, tensor<4x24x16xf32>, tensor<4xi32>) -> tensor<10x16xf32>
  %37:2 = "stablehlo.sort"(%19#1, %18) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%arg6: tensor<i32>, %arg7: tensor<i32>, %arg8: tensor<i32>, %arg9: tensor<i32>):
    %48 = "stablehlo.compare"(%arg6, %arg7) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%48) : (tensor<i1>) -> ()
  }) : (tensor<10xi32>, tensor<10xi32>) -> (tensor<10xi32>, tensor<10xi32>)
  %38 = "stablehlo.compare"(%37#1, %27) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi1>
  %39 = "stablehlo.add"(%37#1, %29) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %40 = "stablehlo.select"(%38, %39, %37#1) : (tensor<10xi1>, tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %41 = "stablehlo.broadcast_in_dim"(%40) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xi32>) -> tensor<10x1xi32>
  %42 = "stablehlo.gather"(%36, %41) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<10x16xf32>, tensor<10x1xi32>) -> tensor<10x16xf32>
  %43 = "stablehlo.reduce"(%15, %3) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg4: tensor<f32>, %arg5: tensor<f32>):
    %47 = "stablehlo.maximum"(%arg4, %arg5) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%47) : (tensor<f32>) -> ()
  }) : (tensor<10x4xf32>, tensor<f32>) -> tensor<10xf32>
  %44 = "stablehlo.broadcast_in_dim"(%43) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xf32>) -> tensor<10x1xf32>
  %45 = "stablehlo.broadcast_in_dim"(%44) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xf32>) -> tensor<10x16xf32>
  %46 = "stablehlo.multiply"(%42, %45) : (tensor<10x16xf32>, tensor<10x16xf32>) -> tensor<10x16xf32>
  "func.return"(%46) : (tensor<10x16xf32>) -> ()
}) : () -> ()

// -----

// CHECK-LABEL: func.func public @argmax_any(
// CHECK-SAME:      %[[X:[^ ]*]]: tensor<?x16xf32>, %{{[^ ]*}}: tensor<16x4xf32>, %[[UP:[^ ]*]]: tensor<4x16x24xf32>, %[[DOWN:[^ ]*]]: tensor<4x24x16xf32>
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate %{{.*}} top_k(1) score(none)
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}}, %[[IDS]] experts(4)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[UP]] : tensor<4x16x24xf32>)
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[DOWN]] : tensor<4x24x16xf32>)
// CHECK:         moe.combine %[[Y]], %[[PLACES]] weights(%{{.*}} :
// CHECK-NOT:     stablehlo.sort
"func.func"() <{function_type = (tensor<?x16xf32>, tensor<16x4xf32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>) -> tensor<?x16xf32>, res_attrs = [{}], sym_name = "argmax_any", sym_visibility = "public"}> ({
^bb0(%arg0: tensor<?x16xf32>, %arg1: tensor<16x4xf32>, %arg2: tensor<4x16x24xf32>, %arg3: tensor<4x24x16xf32>):
  %0 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %1 = "stablehlo.constant"() <{value = dense<1> : tensor<1xi32>}> : () -> tensor<1xi32>
  %2 = "stablehlo.constant"() <{value = dense<4> : tensor<1xi32>}> : () -> tensor<1xi32>
  %3 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %4 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %5 = "stablehlo.constant"() <{value = dense<16> : tensor<1xi32>}> : () -> tensor<1xi32>
  %6 = "stablehlo.get_dimension_size"(%arg0) <{dimension = 0 : i64}> : (tensor<?x16xf32>) -> tensor<i32>
  %7 = "stablehlo.dot_general"(%arg0, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<?x16xf32>, tensor<16x4xf32>) -> tensor<?x4xf32>
  %8 = "stablehlo.reduce"(%7, %0) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg22: tensor<f32>, %arg23: tensor<f32>):
    %69 = "stablehlo.maximum"(%arg22, %arg23) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%69) : (tensor<f32>) -> ()
  }) : (tensor<?x4xf32>, tensor<f32>) -> tensor<?xf32>
  %9 = "stablehlo.reshape"(%6) : (tensor<i32>) -> tensor<1xi32>
  %10 = "stablehlo.dynamic_broadcast_in_dim"(%0, %9) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<1xi32>) -> tensor<?xf32>
  %11 = "stablehlo.maximum"(%10, %8) : (tensor<?xf32>, tensor<?xf32>) -> tensor<?xf32>
  %12 = "stablehlo.concatenate"(%9, %1) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %13 = "stablehlo.dynamic_broadcast_in_dim"(%11, %12) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xf32>, tensor<2xi32>) -> tensor<?x1xf32>
  %14 = "stablehlo.concatenate"(%9, %2) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %15 = "stablehlo.dynamic_broadcast_in_dim"(%13, %14) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x4xf32>
  %16 = "stablehlo.subtract"(%7, %15) : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %17 = "stablehlo.exponential"(%16) : (tensor<?x4xf32>) -> tensor<?x4xf32>
  %18 = "stablehlo.reduce"(%17, %3) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg20: tensor<f32>, %arg21: tensor<f32>):
    %68 = "stablehlo.add"(%arg20, %arg21) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%68) : (tensor<f32>) -> ()
  }) : (tensor<?x4xf32>, tensor<f32>) -> tensor<?xf32>
  %19 = "stablehlo.dynamic_broadcast_in_dim"(%18, %12) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xf32>, tensor<2xi32>) -> tensor<?x1xf32>
  %20 = "stablehlo.dynamic_broadcast_in_dim"(%19, %14) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x4xf32>
  %21 = "stablehlo.divide"(%17, %20) : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %22 = "stablehlo.dynamic_iota"(%14) <{iota_dimension = 1 : i64}> : (tensor<2xi32>) -> tensor<?x4xi32>
  %23:2 = "stablehlo.reduce"(%21, %22, %0, %4) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg16: tensor<f32>, %arg17: tensor<i32>, %arg18: tensor<f32>, %arg19: tensor<i32>):
    %59 = "stablehlo.compare"(%arg16, %arg18) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction GT>}> : (tensor<f32>, tensor<f32>) -> tensor<i1>
    %60 = "stablehlo.compare"(%arg16, %arg16) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<f32>, tensor<f32>) -> tensor<i1>
    %61 = "stablehlo.or"(%59, %60) : (tensor<i1>, tensor<i1>) -> tensor<i1>
    %62 = "stablehlo.compare"(%arg16, %arg18) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<f32>, tensor<f32>) -> tensor<i1>
    %63 = "stablehlo.compare"(%arg17, %arg19) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    %64 = "stablehlo.and"(%62, %63) : (tensor<i1>, tensor<i1>) -> tensor<i1>
    %65 = "stablehlo.or"(%61, %64) : (tensor<i1>, tensor<i1>) -> tensor<i1>
    %66 = "stablehlo.select"(%61, %arg16, %arg18) : (tensor<i1>, tensor<f32>, tensor<f32>) -> tensor<f32>
    %67 = "stablehlo.select"(%65, %arg17, %arg19) : (tensor<i1>, tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%66, %67) : (tensor<f32>, tensor<i32>) -> ()
  }) : (tensor<?x4xf32>, tensor<?x4xi32>, tensor<f32>, tensor<i32>) -> (tensor<?xf32>, tensor<?xi32>)
  %24 = "stablehlo.dynamic_iota"(%9) <{iota_dimension = 0 : i64}> : (tensor<1xi32>) -> tensor<?xi32>
  %25:2 = "stablehlo.sort"(%23#1, %24) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%arg12: tensor<i32>, %arg13: tensor<i32>, %arg14: tensor<i32>, %arg15: tensor<i32>):
    %58 = "stablehlo.compare"(%arg12, %arg13) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%58) : (tensor<i1>) -> ()
  }) : (tensor<?xi32>, tensor<?xi32>) -> (tensor<?xi32>, tensor<?xi32>)
  %26 = "stablehlo.dynamic_broadcast_in_dim"(%23#1, %12) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xi32>, tensor<2xi32>) -> tensor<?x1xi32>
  %27 = "stablehlo.iota"() <{iota_dimension = 1 : i64}> : () -> tensor<1x4xi32>
  %28 = "stablehlo.dynamic_broadcast_in_dim"(%26, %14) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xi32>, tensor<2xi32>) -> tensor<?x4xi32>
  %29 = "stablehlo.dynamic_broadcast_in_dim"(%27, %14) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<1x4xi32>, tensor<2xi32>) -> tensor<?x4xi32>
  %30 = "stablehlo.compare"(%28, %29) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<?x4xi32>, tensor<?x4xi32>) -> tensor<?x4xi1>
  %31 = "stablehlo.convert"(%30) : (tensor<?x4xi1>) -> tensor<?x4xi32>
  %32 = "stablehlo.reduce"(%31, %4) <{dimensions = array<i64: 0>}> ({
  ^bb0(%arg10: tensor<i32>, %arg11: tensor<i32>):
    %57 = "stablehlo.add"(%arg10, %arg11) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%57) : (tensor<i32>) -> ()
  }) : (tensor<?x4xi32>, tensor<i32>) -> tensor<4xi32>
  %33 = "stablehlo.convert"(%6) : (tensor<i32>) -> tensor<i32>
  %34 = "stablehlo.dynamic_broadcast_in_dim"(%4, %9) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %35 = "stablehlo.compare"(%25#1, %34) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi1>
  %36 = "stablehlo.dynamic_broadcast_in_dim"(%33, %9) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %37 = "stablehlo.add"(%25#1, %36) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %38 = "stablehlo.select"(%35, %37, %25#1) : (tensor<?xi1>, tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %39 = "stablehlo.dynamic_broadcast_in_dim"(%38, %12) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xi32>, tensor<2xi32>) -> tensor<?x1xi32>
  %40 = "stablehlo.gather"(%arg0, %39) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<?x16xf32>, tensor<?x1xi32>) -> tensor<?x16xf32>
  %41 = "stablehlo.composite"(%40, %arg2, %32) <{composite_attributes = {precision_config = ["DEFAULT", "DEFAULT"], ragged_dot_dimension_numbers = [dense<> : tensor<0xi64>, dense<> : tensor<0xi64>, dense<1> : tensor<1xi64>, dense<1> : tensor<1xi64>, dense<0> : tensor<1xi64>, dense<0> : tensor<1xi64>]}, decomposition = @chlo.ragged_dot.impl, name = "chlo.ragged_dot", version = 1 : i32}> : (tensor<?x16xf32>, tensor<4x16x24xf32>, tensor<4xi32>) -> tensor<?x24xf32>
  %42 = "stablehlo.tanh"(%41) : (tensor<?x24xf32>) -> tensor<?x24xf32>
  %43 = "stablehlo.composite"(%42, %arg3, %32) <{composite_attributes = {precision_config = ["DEFAULT", "DEFAULT"], ragged_dot_dimension_numbers = [dense<> : tensor<0xi64>, dense<> : tensor<0xi64>, dense<1> : tensor<1xi64>, dense<1> : tensor<1xi64>, dense<0> : tensor<1xi64>, dense<0> : tensor<1xi64>]}, decomposition = @chlo.ragged_dot.impl_0, name = "chlo.ragged_dot", version = 1 : i32}> : (tensor<?x24xf32>, tensor<4x24x16xf32>, tensor<4xi32>) -> tensor<?x16xf32>
  %44:2 = "stablehlo.sort"(%25#1, %24) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%arg6: tensor<i32>, %arg7: tensor<i32>, %arg8: tensor<i32>, %arg9: tensor<i32>):
    %56 = "stablehlo.compare"(%arg6, %arg7) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%56) : (tensor<i1>) -> ()
  }) : (tensor<?xi32>, tensor<?xi32>) -> (tensor<?xi32>, tensor<?xi32>)
  %45 = "stablehlo.compare"(%44#1, %34) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi1>
  %46 = "stablehlo.add"(%44#1, %36) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %47 = "stablehlo.select"(%45, %46, %44#1) : (tensor<?xi1>, tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %48 = "stablehlo.dynamic_broadcast_in_dim"(%47, %12) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xi32>, tensor<2xi32>) -> tensor<?x1xi32>
  %49 = "stablehlo.gather"(%43, %48) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<?x16xf32>, tensor<?x1xi32>) -> tensor<?x16xf32>
  %50 = "stablehlo.reduce"(%21, %0) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg4: tensor<f32>, %arg5: tensor<f32>):
    %55 = "stablehlo.maximum"(%arg4, %arg5) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%55) : (tensor<f32>) -> ()
  }) : (tensor<?x4xf32>, tensor<f32>) -> tensor<?xf32>
  %51 = "stablehlo.dynamic_broadcast_in_dim"(%50, %12) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xf32>, tensor<2xi32>) -> tensor<?x1xf32>
  %52 = "stablehlo.concatenate"(%9, %5) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %53 = "stablehlo.dynamic_broadcast_in_dim"(%51, %52) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x16xf32>
  %54 = "stablehlo.multiply"(%49, %53) : (tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x16xf32>
  "func.return"(%54) : (tensor<?x16xf32>) -> ()
}) : () -> ()

// -----

// Without experts an argmax stays as it is, and so does all else.

// CHECK-LABEL: func.func @alone(
// CHECK-NOT:     moe.
// CHECK:         "stablehlo.reduce"(%{{.*}}, %{{.*}}, %{{.*}}, %{{.*}})
// CHECK-NOT:     moe.
func.func @alone(%x: tensor<10x4xf32>) -> tensor<10xi32> {
  %first = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %none = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %at = "stablehlo.iota"() <{iota_dimension = 1 : i64}> : () -> tensor<10x4xi32>
  %r:2 = "stablehlo.reduce"(%x, %at, %none, %first) <{dimensions = array<i64: 1>}> ({
  ^bb0(%a: tensor<f32>, %i: tensor<i32>, %b: tensor<f32>, %j: tensor<i32>):
    %gt = "stablehlo.compare"(%a, %b) <{comparison_direction = #stablehlo<comparison_direction GT>}> : (tensor<f32>, tensor<f32>) -> tensor<i1>
    %eq = "stablehlo.compare"(%a, %b) <{comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<f32>, tensor<f32>) -> tensor<i1>
    %lt = "stablehlo.compare"(%i, %j) <{comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    %and = "stablehlo.and"(%eq, %lt) : (tensor<i1>, tensor<i1>) -> tensor<i1>
    %or = "stablehlo.or"(%gt, %and) : (tensor<i1>, tensor<i1>) -> tensor<i1>
    %v = "stablehlo.select"(%gt, %a, %b) : (tensor<i1>, tensor<f32>, tensor<f32>) -> tensor<f32>
    %k = "stablehlo.select"(%or, %i, %j) : (tensor<i1>, tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%v, %k) : (tensor<f32>, tensor<i32>) -> ()
  }) : (tensor<10x4xf32>, tensor<10x4xi32>, tensor<f32>, tensor<i32>) -> (tensor<10xf32>, tensor<10xi32>)
  return %r#1 : tensor<10xi32>
}
