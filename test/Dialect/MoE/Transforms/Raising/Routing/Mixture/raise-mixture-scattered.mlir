// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-routing --moe-raise-grouped | FileCheck %s

// Fewer places are kept than there are slots.
// RUN: sed 's/dense<3> : tensor<i32>/dense<2> : tensor<i32>/' %s | moe-opt - --split-input-file --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// NONE-NOT: moe.dispatch

// Rows are scattered to slots of the experts, and gathered from there.

// CHECK-LABEL: func.func public @slots(
// CHECK-SAME:      %[[X:[^ ]*]]: tensor<10x16xf32>, %{{[^ ]*}}: tensor<16x4xf32>, %[[UP:[^ ]*]]: tensor<4x16x24xf32>, %[[DOWN:[^ ]*]]: tensor<4x24x16xf32>
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate %{{.*}} top_k(2) score(none)
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}}, %[[IDS]] experts(4) capacity(<fixed = 3>)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[UP]] : tensor<4x16x24xf32>)
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[DOWN]] : tensor<4x24x16xf32>)
// CHECK:         moe.combine %[[Y]], %[[PLACES]] weights(%[[W]] :
// CHECK-NOT:     stablehlo.scatter
"func.func"() <{function_type = (tensor<10x16xf32>, tensor<16x4xf32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>) -> tensor<10x16xf32>, res_attrs = [{}], sym_name = "slots", sym_visibility = "public"}> ({
^bb0(%arg0: tensor<10x16xf32>, %arg1: tensor<16x4xf32>, %arg2: tensor<4x16x24xf32>, %arg3: tensor<4x24x16xf32>):
  %0 = "stablehlo.constant"() <{value = dense<2> : tensor<i32>}> : () -> tensor<i32>
  %1 = "stablehlo.constant"() <{value = dense<3> : tensor<i32>}> : () -> tensor<i32>
  %2 = "stablehlo.constant"() <{value = dense<4> : tensor<i32>}> : () -> tensor<i32>
  %3 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %4 = "stablehlo.constant"() <{value = dense<1> : tensor<i32>}> : () -> tensor<i32>
  %5 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %6 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %7 = "stablehlo.dot_general"(%arg0, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<10x16xf32>, tensor<16x4xf32>) -> tensor<10x4xf32>
  %8 = "stablehlo.reduce"(%7, %6) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg14: tensor<f32>, %arg15: tensor<f32>):
    %74 = "stablehlo.maximum"(%arg14, %arg15) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%74) : (tensor<f32>) -> ()
  }) : (tensor<10x4xf32>, tensor<f32>) -> tensor<10xf32>
  %9 = "stablehlo.broadcast_in_dim"(%6) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<10xf32>
  %10 = "stablehlo.maximum"(%9, %8) : (tensor<10xf32>, tensor<10xf32>) -> tensor<10xf32>
  %11 = "stablehlo.broadcast_in_dim"(%10) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xf32>) -> tensor<10x1xf32>
  %12 = "stablehlo.broadcast_in_dim"(%11) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xf32>) -> tensor<10x4xf32>
  %13 = "stablehlo.subtract"(%7, %12) : (tensor<10x4xf32>, tensor<10x4xf32>) -> tensor<10x4xf32>
  %14 = "stablehlo.exponential"(%13) : (tensor<10x4xf32>) -> tensor<10x4xf32>
  %15 = "stablehlo.reduce"(%14, %5) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg12: tensor<f32>, %arg13: tensor<f32>):
    %73 = "stablehlo.add"(%arg12, %arg13) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%73) : (tensor<f32>) -> ()
  }) : (tensor<10x4xf32>, tensor<f32>) -> tensor<10xf32>
  %16 = "stablehlo.broadcast_in_dim"(%15) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xf32>) -> tensor<10x1xf32>
  %17 = "stablehlo.broadcast_in_dim"(%16) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xf32>) -> tensor<10x4xf32>
  %18 = "stablehlo.divide"(%14, %17) : (tensor<10x4xf32>, tensor<10x4xf32>) -> tensor<10x4xf32>
  %19:2 = "stablehlo.composite"(%18) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<10x4xf32>) -> (tensor<10x2xf32>, tensor<10x2xi32>)
  %20 = "stablehlo.reshape"(%19#1) : (tensor<10x2xi32>) -> tensor<20xi32>
  %21 = "stablehlo.broadcast_in_dim"(%20) <{broadcast_dimensions = array<i64: 0>}> : (tensor<20xi32>) -> tensor<20x1xi32>
  %22 = "stablehlo.iota"() <{iota_dimension = 1 : i64}> : () -> tensor<1x4xi32>
  %23 = "stablehlo.broadcast_in_dim"(%21) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<20x1xi32>) -> tensor<20x4xi32>
  %24 = "stablehlo.broadcast_in_dim"(%22) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<1x4xi32>) -> tensor<20x4xi32>
  %25 = "stablehlo.compare"(%23, %24) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<20x4xi32>, tensor<20x4xi32>) -> tensor<20x4xi1>
  %26 = "stablehlo.convert"(%25) : (tensor<20x4xi1>) -> tensor<20x4xi32>
  %27 = "stablehlo.broadcast_in_dim"(%3) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<i32>
  %28 = "stablehlo.reduce_window"(%26, %27) <{padding = dense<[[19, 0], [0, 0]]> : tensor<2x2xi64>, window_dimensions = array<i64: 20, 1>}> ({
  ^bb0(%arg10: tensor<i32>, %arg11: tensor<i32>):
    %72 = "stablehlo.add"(%arg10, %arg11) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%72) : (tensor<i32>) -> ()
  }) : (tensor<20x4xi32>, tensor<i32>) -> tensor<20x4xi32>
  %29 = "stablehlo.broadcast_in_dim"(%4) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<20x4xi32>
  %30 = "stablehlo.subtract"(%28, %29) : (tensor<20x4xi32>, tensor<20x4xi32>) -> tensor<20x4xi32>
  %31 = "stablehlo.multiply"(%30, %26) : (tensor<20x4xi32>, tensor<20x4xi32>) -> tensor<20x4xi32>
  %32 = "stablehlo.reduce"(%31, %3) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg8: tensor<i32>, %arg9: tensor<i32>):
    %71 = "stablehlo.add"(%arg8, %arg9) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%71) : (tensor<i32>) -> ()
  }) : (tensor<20x4xi32>, tensor<i32>) -> tensor<20xi32>
  %33 = "stablehlo.broadcast_in_dim"(%5) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<4x3x16xf32>
  %34 = "stablehlo.broadcast_in_dim"(%arg0) <{broadcast_dimensions = array<i64: 0, 2>}> : (tensor<10x16xf32>) -> tensor<10x2x16xf32>
  %35 = "stablehlo.reshape"(%34) : (tensor<10x2x16xf32>) -> tensor<20x16xf32>
  %36 = "stablehlo.broadcast_in_dim"(%3) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<20xi32>
  %37 = "stablehlo.compare"(%20, %36) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<20xi32>, tensor<20xi32>) -> tensor<20xi1>
  %38 = "stablehlo.broadcast_in_dim"(%2) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<20xi32>
  %39 = "stablehlo.add"(%20, %38) : (tensor<20xi32>, tensor<20xi32>) -> tensor<20xi32>
  %40 = "stablehlo.select"(%37, %39, %20) : (tensor<20xi1>, tensor<20xi32>, tensor<20xi32>) -> tensor<20xi32>
  %41 = "stablehlo.compare"(%32, %36) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<20xi32>, tensor<20xi32>) -> tensor<20xi1>
  %42 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<20xi32>
  %43 = "stablehlo.add"(%32, %42) : (tensor<20xi32>, tensor<20xi32>) -> tensor<20xi32>
  %44 = "stablehlo.select"(%41, %43, %32) : (tensor<20xi1>, tensor<20xi32>, tensor<20xi32>) -> tensor<20xi32>
  %45 = "stablehlo.broadcast_in_dim"(%40) <{broadcast_dimensions = array<i64: 0>}> : (tensor<20xi32>) -> tensor<20x1xi32>
  %46 = "stablehlo.broadcast_in_dim"(%44) <{broadcast_dimensions = array<i64: 0>}> : (tensor<20xi32>) -> tensor<20x1xi32>
  %47 = "stablehlo.concatenate"(%45, %46) <{dimension = 1 : i64}> : (tensor<20x1xi32>, tensor<20x1xi32>) -> tensor<20x2xi32>
  %48 = "stablehlo.scatter"(%33, %47, %35) <{scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1], inserted_window_dims = [0, 1], scatter_dims_to_operand_dims = [0, 1], index_vector_dim = 1>}> ({
  ^bb0(%arg6: tensor<f32>, %arg7: tensor<f32>):
    "stablehlo.return"(%arg7) : (tensor<f32>) -> ()
  }) : (tensor<4x3x16xf32>, tensor<20x2xi32>, tensor<20x16xf32>) -> tensor<4x3x16xf32>
  %49 = "stablehlo.dot_general"(%48, %arg2) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<4x3x16xf32>, tensor<4x16x24xf32>) -> tensor<4x3x24xf32>
  %50 = "stablehlo.tanh"(%49) : (tensor<4x3x24xf32>) -> tensor<4x3x24xf32>
  %51 = "stablehlo.dot_general"(%50, %arg3) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<4x3x24xf32>, tensor<4x24x16xf32>) -> tensor<4x3x16xf32>
  %52 = "stablehlo.broadcast_in_dim"(%0) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<20xi32>
  %53 = "stablehlo.minimum"(%32, %52) : (tensor<20xi32>, tensor<20xi32>) -> tensor<20xi32>
  %54 = "stablehlo.compare"(%53, %36) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<20xi32>, tensor<20xi32>) -> tensor<20xi1>
  %55 = "stablehlo.add"(%53, %42) : (tensor<20xi32>, tensor<20xi32>) -> tensor<20xi32>
  %56 = "stablehlo.select"(%54, %55, %53) : (tensor<20xi1>, tensor<20xi32>, tensor<20xi32>) -> tensor<20xi32>
  %57 = "stablehlo.broadcast_in_dim"(%56) <{broadcast_dimensions = array<i64: 0>}> : (tensor<20xi32>) -> tensor<20x1xi32>
  %58 = "stablehlo.concatenate"(%45, %57) <{dimension = 1 : i64}> : (tensor<20x1xi32>, tensor<20x1xi32>) -> tensor<20x2xi32>
  %59 = "stablehlo.gather"(%51, %58) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0, 1], start_index_map = [0, 1], index_vector_dim = 1>, slice_sizes = array<i64: 1, 1, 16>}> : (tensor<4x3x16xf32>, tensor<20x2xi32>) -> tensor<20x16xf32>
  %60 = "stablehlo.compare"(%32, %42) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<20xi32>, tensor<20xi32>) -> tensor<20xi1>
  %61 = "stablehlo.broadcast_in_dim"(%60) <{broadcast_dimensions = array<i64: 0>}> : (tensor<20xi1>) -> tensor<20x1xi1>
  %62 = "stablehlo.convert"(%61) : (tensor<20x1xi1>) -> tensor<20x1xf32>
  %63 = "stablehlo.broadcast_in_dim"(%62) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<20x1xf32>) -> tensor<20x16xf32>
  %64 = "stablehlo.multiply"(%59, %63) : (tensor<20x16xf32>, tensor<20x16xf32>) -> tensor<20x16xf32>
  %65 = "stablehlo.reshape"(%64) : (tensor<20x16xf32>) -> tensor<10x2x16xf32>
  %66 = "stablehlo.broadcast_in_dim"(%19#0) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x2xf32>) -> tensor<10x2x1xf32>
  %67 = "stablehlo.broadcast_in_dim"(%66) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<10x2x1xf32>) -> tensor<10x2x16xf32>
  %68 = "stablehlo.multiply"(%65, %67) : (tensor<10x2x16xf32>, tensor<10x2x16xf32>) -> tensor<10x2x16xf32>
  %69 = "stablehlo.reduce"(%68, %5) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg4: tensor<f32>, %arg5: tensor<f32>):
    %70 = "stablehlo.add"(%arg4, %arg5) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%70) : (tensor<f32>) -> ()
  }) : (tensor<10x2x16xf32>, tensor<f32>) -> tensor<10x16xf32>
  "func.return"(%69) : (tensor<10x16xf32>) -> ()
}) : () -> ()
