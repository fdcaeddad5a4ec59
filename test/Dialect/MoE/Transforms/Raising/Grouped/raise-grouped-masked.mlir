// RUN: moe-opt %s --allow-unregistered-dialect --moe-raise-grouped | FileCheck %s

// jax.jit(lambda x, w, s: jax.lax.ragged_dot(x, w, s)), lowered for CPUs: the sum
// over the groups of products of all rows, those of other groups 0.

// CHECK-LABEL: func.func @masked(
// CHECK:         %[[ENDS:.*]] = "stablehlo.reduce_window"(%arg2
// CHECK:         %[[OFFSETS:.*]] = tensor.insert_slice %[[ENDS]] into %{{.*}}[1] [3] [1]
// CHECK:         %[[INIT:.*]] = linalg.fill
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %arg0 offsets(%[[OFFSETS]] : tensor<4xi32>) weights(%arg1 : tensor<3x4x5xf32>) outs(%[[INIT]]
// CHECK:         return %[[Y]]
func.func @masked(%arg0: tensor<10x4xf32>, %arg1: tensor<3x4x5xf32>, %arg2: tensor<3xi32>) -> tensor<10x5xf32> {
  %0 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %1 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %2 = "stablehlo.broadcast_in_dim"(%arg0) <{broadcast_dimensions = array<i64: 1, 2>}> : (tensor<10x4xf32>) -> tensor<3x10x4xf32>
  %3 = "stablehlo.iota"() <{iota_dimension = 1 : i64}> : () -> tensor<3x10x4xi32>
  %4 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<i32>
  %5 = "stablehlo.reduce_window"(%arg2, %4) <{padding = dense<[[2, 0]]> : tensor<1x2xi64>, window_dimensions = array<i64: 3>}> ({
  ^bb0(%arg3: tensor<i32>, %arg4: tensor<i32>):
    %18 = "stablehlo.add"(%arg3, %arg4) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%18) : (tensor<i32>) -> ()
  }) : (tensor<3xi32>, tensor<i32>) -> tensor<3xi32>
  %6 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<3xi32>
  %7 = "stablehlo.slice"(%6) <{limit_indices = array<i64: 1>, start_indices = array<i64: 0>, strides = array<i64: 1>}> : (tensor<3xi32>) -> tensor<1xi32>
  %8 = "stablehlo.slice"(%5) <{limit_indices = array<i64: 2>, start_indices = array<i64: 0>, strides = array<i64: 1>}> : (tensor<3xi32>) -> tensor<2xi32>
  %9 = "stablehlo.concatenate"(%7, %8) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<2xi32>) -> tensor<3xi32>
  %10 = "stablehlo.broadcast_in_dim"(%5) <{broadcast_dimensions = array<i64: 0>}> : (tensor<3xi32>) -> tensor<3x10x4xi32>
  %11 = "stablehlo.broadcast_in_dim"(%9) <{broadcast_dimensions = array<i64: 0>}> : (tensor<3xi32>) -> tensor<3x10x4xi32>
  %12 = "stablehlo.compare"(%11, %3) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LE>}> : (tensor<3x10x4xi32>, tensor<3x10x4xi32>) -> tensor<3x10x4xi1>
  %13 = "stablehlo.compare"(%3, %10) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<3x10x4xi32>, tensor<3x10x4xi32>) -> tensor<3x10x4xi1>
  %14 = "stablehlo.and"(%12, %13) : (tensor<3x10x4xi1>, tensor<3x10x4xi1>) -> tensor<3x10x4xi1>
  %15 = "stablehlo.broadcast_in_dim"(%0) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<3x10x4xf32>
  %16 = "stablehlo.select"(%14, %2, %15) : (tensor<3x10x4xi1>, tensor<3x10x4xf32>, tensor<3x10x4xf32>) -> tensor<3x10x4xf32>
  %17 = "stablehlo.dot_general"(%16, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [2, 0], rhs_contracting_dimensions = [1, 0]>}> : (tensor<3x10x4xf32>, tensor<3x4x5xf32>) -> tensor<10x5xf32>
  return %17 : tensor<10x5xf32>
}

// A mask that leaves out the first row of each group.

// CHECK-LABEL: func.func @without_first(
// CHECK-NOT:     moe.grouped_matmul
// CHECK:         {{^ +return}}
func.func @without_first(%arg0: tensor<10x4xf32>, %arg1: tensor<3x4x5xf32>, %arg2: tensor<3xi32>) -> tensor<10x5xf32> {
  %0 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %1 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %2 = "stablehlo.broadcast_in_dim"(%arg0) <{broadcast_dimensions = array<i64: 1, 2>}> : (tensor<10x4xf32>) -> tensor<3x10x4xf32>
  %3 = "stablehlo.iota"() <{iota_dimension = 1 : i64}> : () -> tensor<3x10x4xi32>
  %4 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<i32>
  %5 = "stablehlo.reduce_window"(%arg2, %4) <{padding = dense<[[2, 0]]> : tensor<1x2xi64>, window_dimensions = array<i64: 3>}> ({
  ^bb0(%arg3: tensor<i32>, %arg4: tensor<i32>):
    %18 = "stablehlo.add"(%arg3, %arg4) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%18) : (tensor<i32>) -> ()
  }) : (tensor<3xi32>, tensor<i32>) -> tensor<3xi32>
  %6 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<3xi32>
  %7 = "stablehlo.slice"(%6) <{limit_indices = array<i64: 1>, start_indices = array<i64: 0>, strides = array<i64: 1>}> : (tensor<3xi32>) -> tensor<1xi32>
  %8 = "stablehlo.slice"(%5) <{limit_indices = array<i64: 2>, start_indices = array<i64: 0>, strides = array<i64: 1>}> : (tensor<3xi32>) -> tensor<2xi32>
  %9 = "stablehlo.concatenate"(%7, %8) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<2xi32>) -> tensor<3xi32>
  %10 = "stablehlo.broadcast_in_dim"(%5) <{broadcast_dimensions = array<i64: 0>}> : (tensor<3xi32>) -> tensor<3x10x4xi32>
  %11 = "stablehlo.broadcast_in_dim"(%9) <{broadcast_dimensions = array<i64: 0>}> : (tensor<3xi32>) -> tensor<3x10x4xi32>
  %12 = "stablehlo.compare"(%11, %3) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<3x10x4xi32>, tensor<3x10x4xi32>) -> tensor<3x10x4xi1>
  %13 = "stablehlo.compare"(%3, %10) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<3x10x4xi32>, tensor<3x10x4xi32>) -> tensor<3x10x4xi1>
  %14 = "stablehlo.and"(%12, %13) : (tensor<3x10x4xi1>, tensor<3x10x4xi1>) -> tensor<3x10x4xi1>
  %15 = "stablehlo.broadcast_in_dim"(%0) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<3x10x4xf32>
  %16 = "stablehlo.select"(%14, %2, %15) : (tensor<3x10x4xi1>, tensor<3x10x4xf32>, tensor<3x10x4xf32>) -> tensor<3x10x4xf32>
  %17 = "stablehlo.dot_general"(%16, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [2, 0], rhs_contracting_dimensions = [1, 0]>}> : (tensor<3x10x4xf32>, tensor<3x4x5xf32>) -> tensor<10x5xf32>
  return %17 : tensor<10x5xf32>
}

// A mask with the last row of the group before.

// CHECK-LABEL: func.func @with_last(
// CHECK-NOT:     moe.grouped_matmul
// CHECK:         {{^ +return}}
func.func @with_last(%arg0: tensor<10x4xf32>, %arg1: tensor<3x4x5xf32>, %arg2: tensor<3xi32>) -> tensor<10x5xf32> {
  %0 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %1 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %2 = "stablehlo.broadcast_in_dim"(%arg0) <{broadcast_dimensions = array<i64: 1, 2>}> : (tensor<10x4xf32>) -> tensor<3x10x4xf32>
  %3 = "stablehlo.iota"() <{iota_dimension = 1 : i64}> : () -> tensor<3x10x4xi32>
  %4 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<i32>
  %5 = "stablehlo.reduce_window"(%arg2, %4) <{padding = dense<[[2, 0]]> : tensor<1x2xi64>, window_dimensions = array<i64: 3>}> ({
  ^bb0(%arg3: tensor<i32>, %arg4: tensor<i32>):
    %18 = "stablehlo.add"(%arg3, %arg4) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%18) : (tensor<i32>) -> ()
  }) : (tensor<3xi32>, tensor<i32>) -> tensor<3xi32>
  %6 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<3xi32>
  %7 = "stablehlo.slice"(%6) <{limit_indices = array<i64: 1>, start_indices = array<i64: 0>, strides = array<i64: 1>}> : (tensor<3xi32>) -> tensor<1xi32>
  %8 = "stablehlo.slice"(%5) <{limit_indices = array<i64: 2>, start_indices = array<i64: 0>, strides = array<i64: 1>}> : (tensor<3xi32>) -> tensor<2xi32>
  %9 = "stablehlo.concatenate"(%7, %8) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<2xi32>) -> tensor<3xi32>
  %10 = "stablehlo.broadcast_in_dim"(%5) <{broadcast_dimensions = array<i64: 0>}> : (tensor<3xi32>) -> tensor<3x10x4xi32>
  %11 = "stablehlo.broadcast_in_dim"(%9) <{broadcast_dimensions = array<i64: 0>}> : (tensor<3xi32>) -> tensor<3x10x4xi32>
  %12 = "stablehlo.compare"(%11, %3) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LE>}> : (tensor<3x10x4xi32>, tensor<3x10x4xi32>) -> tensor<3x10x4xi1>
  %13 = "stablehlo.compare"(%3, %10) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LE>}> : (tensor<3x10x4xi32>, tensor<3x10x4xi32>) -> tensor<3x10x4xi1>
  %14 = "stablehlo.and"(%12, %13) : (tensor<3x10x4xi1>, tensor<3x10x4xi1>) -> tensor<3x10x4xi1>
  %15 = "stablehlo.broadcast_in_dim"(%0) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<3x10x4xf32>
  %16 = "stablehlo.select"(%14, %2, %15) : (tensor<3x10x4xi1>, tensor<3x10x4xf32>, tensor<3x10x4xf32>) -> tensor<3x10x4xf32>
  %17 = "stablehlo.dot_general"(%16, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [2, 0], rhs_contracting_dimensions = [1, 0]>}> : (tensor<3x10x4xf32>, tensor<3x4x5xf32>) -> tensor<10x5xf32>
  return %17 : tensor<10x5xf32>
}

// Starts that are sizes.

// CHECK-LABEL: func.func @sizes_as_starts(
// CHECK-NOT:     moe.grouped_matmul
// CHECK:         {{^ +return}}
func.func @sizes_as_starts(%arg0: tensor<10x4xf32>, %arg1: tensor<3x4x5xf32>, %arg2: tensor<3xi32>) -> tensor<10x5xf32> {
  %0 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %1 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %2 = "stablehlo.broadcast_in_dim"(%arg0) <{broadcast_dimensions = array<i64: 1, 2>}> : (tensor<10x4xf32>) -> tensor<3x10x4xf32>
  %3 = "stablehlo.iota"() <{iota_dimension = 1 : i64}> : () -> tensor<3x10x4xi32>
  %4 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<i32>
  %5 = "stablehlo.reduce_window"(%arg2, %4) <{padding = dense<[[2, 0]]> : tensor<1x2xi64>, window_dimensions = array<i64: 3>}> ({
  ^bb0(%arg3: tensor<i32>, %arg4: tensor<i32>):
    %18 = "stablehlo.add"(%arg3, %arg4) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%18) : (tensor<i32>) -> ()
  }) : (tensor<3xi32>, tensor<i32>) -> tensor<3xi32>
  %6 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<3xi32>
  %7 = "stablehlo.slice"(%6) <{limit_indices = array<i64: 1>, start_indices = array<i64: 0>, strides = array<i64: 1>}> : (tensor<3xi32>) -> tensor<1xi32>
  %8 = "stablehlo.slice"(%arg2) <{limit_indices = array<i64: 2>, start_indices = array<i64: 0>, strides = array<i64: 1>}> : (tensor<3xi32>) -> tensor<2xi32>
  %9 = "stablehlo.concatenate"(%7, %8) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<2xi32>) -> tensor<3xi32>
  %10 = "stablehlo.broadcast_in_dim"(%5) <{broadcast_dimensions = array<i64: 0>}> : (tensor<3xi32>) -> tensor<3x10x4xi32>
  %11 = "stablehlo.broadcast_in_dim"(%9) <{broadcast_dimensions = array<i64: 0>}> : (tensor<3xi32>) -> tensor<3x10x4xi32>
  %12 = "stablehlo.compare"(%11, %3) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LE>}> : (tensor<3x10x4xi32>, tensor<3x10x4xi32>) -> tensor<3x10x4xi1>
  %13 = "stablehlo.compare"(%3, %10) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<3x10x4xi32>, tensor<3x10x4xi32>) -> tensor<3x10x4xi1>
  %14 = "stablehlo.and"(%12, %13) : (tensor<3x10x4xi1>, tensor<3x10x4xi1>) -> tensor<3x10x4xi1>
  %15 = "stablehlo.broadcast_in_dim"(%0) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<3x10x4xf32>
  %16 = "stablehlo.select"(%14, %2, %15) : (tensor<3x10x4xi1>, tensor<3x10x4xf32>, tensor<3x10x4xf32>) -> tensor<3x10x4xf32>
  %17 = "stablehlo.dot_general"(%16, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [2, 0], rhs_contracting_dimensions = [1, 0]>}> : (tensor<3x10x4xf32>, tensor<3x4x5xf32>) -> tensor<10x5xf32>
  return %17 : tensor<10x5xf32>
}

// Rows that are not masked by 0.

// CHECK-LABEL: func.func @other_fill(
// CHECK-NOT:     moe.grouped_matmul
// CHECK:         {{^ +return}}
func.func @other_fill(%arg0: tensor<10x4xf32>, %arg1: tensor<3x4x5xf32>, %arg2: tensor<3xi32>) -> tensor<10x5xf32> {
  %0 = "stablehlo.constant"() <{value = dense<1.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %1 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %2 = "stablehlo.broadcast_in_dim"(%arg0) <{broadcast_dimensions = array<i64: 1, 2>}> : (tensor<10x4xf32>) -> tensor<3x10x4xf32>
  %3 = "stablehlo.iota"() <{iota_dimension = 1 : i64}> : () -> tensor<3x10x4xi32>
  %4 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<i32>
  %5 = "stablehlo.reduce_window"(%arg2, %4) <{padding = dense<[[2, 0]]> : tensor<1x2xi64>, window_dimensions = array<i64: 3>}> ({
  ^bb0(%arg3: tensor<i32>, %arg4: tensor<i32>):
    %18 = "stablehlo.add"(%arg3, %arg4) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%18) : (tensor<i32>) -> ()
  }) : (tensor<3xi32>, tensor<i32>) -> tensor<3xi32>
  %6 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<3xi32>
  %7 = "stablehlo.slice"(%6) <{limit_indices = array<i64: 1>, start_indices = array<i64: 0>, strides = array<i64: 1>}> : (tensor<3xi32>) -> tensor<1xi32>
  %8 = "stablehlo.slice"(%5) <{limit_indices = array<i64: 2>, start_indices = array<i64: 0>, strides = array<i64: 1>}> : (tensor<3xi32>) -> tensor<2xi32>
  %9 = "stablehlo.concatenate"(%7, %8) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<2xi32>) -> tensor<3xi32>
  %10 = "stablehlo.broadcast_in_dim"(%5) <{broadcast_dimensions = array<i64: 0>}> : (tensor<3xi32>) -> tensor<3x10x4xi32>
  %11 = "stablehlo.broadcast_in_dim"(%9) <{broadcast_dimensions = array<i64: 0>}> : (tensor<3xi32>) -> tensor<3x10x4xi32>
  %12 = "stablehlo.compare"(%11, %3) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LE>}> : (tensor<3x10x4xi32>, tensor<3x10x4xi32>) -> tensor<3x10x4xi1>
  %13 = "stablehlo.compare"(%3, %10) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<3x10x4xi32>, tensor<3x10x4xi32>) -> tensor<3x10x4xi1>
  %14 = "stablehlo.and"(%12, %13) : (tensor<3x10x4xi1>, tensor<3x10x4xi1>) -> tensor<3x10x4xi1>
  %15 = "stablehlo.broadcast_in_dim"(%0) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<3x10x4xf32>
  %16 = "stablehlo.select"(%14, %2, %15) : (tensor<3x10x4xi1>, tensor<3x10x4xf32>, tensor<3x10x4xf32>) -> tensor<3x10x4xf32>
  %17 = "stablehlo.dot_general"(%16, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [2, 0], rhs_contracting_dimensions = [1, 0]>}> : (tensor<3x10x4xf32>, tensor<3x4x5xf32>) -> tensor<10x5xf32>
  return %17 : tensor<10x5xf32>
}

// A mask of columns.

// CHECK-LABEL: func.func @columns(
// CHECK-NOT:     moe.grouped_matmul
// CHECK:         {{^ +return}}
func.func @columns(%arg0: tensor<10x4xf32>, %arg1: tensor<3x4x5xf32>, %arg2: tensor<3xi32>) -> tensor<10x5xf32> {
  %0 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %1 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %2 = "stablehlo.broadcast_in_dim"(%arg0) <{broadcast_dimensions = array<i64: 1, 2>}> : (tensor<10x4xf32>) -> tensor<3x10x4xf32>
  %3 = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<3x10x4xi32>
  %4 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<i32>
  %5 = "stablehlo.reduce_window"(%arg2, %4) <{padding = dense<[[2, 0]]> : tensor<1x2xi64>, window_dimensions = array<i64: 3>}> ({
  ^bb0(%arg3: tensor<i32>, %arg4: tensor<i32>):
    %18 = "stablehlo.add"(%arg3, %arg4) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%18) : (tensor<i32>) -> ()
  }) : (tensor<3xi32>, tensor<i32>) -> tensor<3xi32>
  %6 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<3xi32>
  %7 = "stablehlo.slice"(%6) <{limit_indices = array<i64: 1>, start_indices = array<i64: 0>, strides = array<i64: 1>}> : (tensor<3xi32>) -> tensor<1xi32>
  %8 = "stablehlo.slice"(%5) <{limit_indices = array<i64: 2>, start_indices = array<i64: 0>, strides = array<i64: 1>}> : (tensor<3xi32>) -> tensor<2xi32>
  %9 = "stablehlo.concatenate"(%7, %8) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<2xi32>) -> tensor<3xi32>
  %10 = "stablehlo.broadcast_in_dim"(%5) <{broadcast_dimensions = array<i64: 0>}> : (tensor<3xi32>) -> tensor<3x10x4xi32>
  %11 = "stablehlo.broadcast_in_dim"(%9) <{broadcast_dimensions = array<i64: 0>}> : (tensor<3xi32>) -> tensor<3x10x4xi32>
  %12 = "stablehlo.compare"(%11, %3) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LE>}> : (tensor<3x10x4xi32>, tensor<3x10x4xi32>) -> tensor<3x10x4xi1>
  %13 = "stablehlo.compare"(%3, %10) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<3x10x4xi32>, tensor<3x10x4xi32>) -> tensor<3x10x4xi1>
  %14 = "stablehlo.and"(%12, %13) : (tensor<3x10x4xi1>, tensor<3x10x4xi1>) -> tensor<3x10x4xi1>
  %15 = "stablehlo.broadcast_in_dim"(%0) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<3x10x4xf32>
  %16 = "stablehlo.select"(%14, %2, %15) : (tensor<3x10x4xi1>, tensor<3x10x4xf32>, tensor<3x10x4xf32>) -> tensor<3x10x4xf32>
  %17 = "stablehlo.dot_general"(%16, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [2, 0], rhs_contracting_dimensions = [1, 0]>}> : (tensor<3x10x4xf32>, tensor<3x4x5xf32>) -> tensor<10x5xf32>
  return %17 : tensor<10x5xf32>
}

// A product that keeps the groups apart.

// CHECK-LABEL: func.func @batched(
// CHECK-NOT:     moe.grouped_matmul
// CHECK:         {{^ +return}}
func.func @batched(%arg0: tensor<10x4xf32>, %arg1: tensor<3x4x5xf32>, %arg2: tensor<3xi32>) -> tensor<3x10x5xf32> {
  %0 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %1 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %2 = "stablehlo.broadcast_in_dim"(%arg0) <{broadcast_dimensions = array<i64: 1, 2>}> : (tensor<10x4xf32>) -> tensor<3x10x4xf32>
  %3 = "stablehlo.iota"() <{iota_dimension = 1 : i64}> : () -> tensor<3x10x4xi32>
  %4 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<i32>
  %5 = "stablehlo.reduce_window"(%arg2, %4) <{padding = dense<[[2, 0]]> : tensor<1x2xi64>, window_dimensions = array<i64: 3>}> ({
  ^bb0(%arg3: tensor<i32>, %arg4: tensor<i32>):
    %18 = "stablehlo.add"(%arg3, %arg4) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%18) : (tensor<i32>) -> ()
  }) : (tensor<3xi32>, tensor<i32>) -> tensor<3xi32>
  %6 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<3xi32>
  %7 = "stablehlo.slice"(%6) <{limit_indices = array<i64: 1>, start_indices = array<i64: 0>, strides = array<i64: 1>}> : (tensor<3xi32>) -> tensor<1xi32>
  %8 = "stablehlo.slice"(%5) <{limit_indices = array<i64: 2>, start_indices = array<i64: 0>, strides = array<i64: 1>}> : (tensor<3xi32>) -> tensor<2xi32>
  %9 = "stablehlo.concatenate"(%7, %8) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<2xi32>) -> tensor<3xi32>
  %10 = "stablehlo.broadcast_in_dim"(%5) <{broadcast_dimensions = array<i64: 0>}> : (tensor<3xi32>) -> tensor<3x10x4xi32>
  %11 = "stablehlo.broadcast_in_dim"(%9) <{broadcast_dimensions = array<i64: 0>}> : (tensor<3xi32>) -> tensor<3x10x4xi32>
  %12 = "stablehlo.compare"(%11, %3) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LE>}> : (tensor<3x10x4xi32>, tensor<3x10x4xi32>) -> tensor<3x10x4xi1>
  %13 = "stablehlo.compare"(%3, %10) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<3x10x4xi32>, tensor<3x10x4xi32>) -> tensor<3x10x4xi1>
  %14 = "stablehlo.and"(%12, %13) : (tensor<3x10x4xi1>, tensor<3x10x4xi1>) -> tensor<3x10x4xi1>
  %15 = "stablehlo.broadcast_in_dim"(%0) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<3x10x4xf32>
  %16 = "stablehlo.select"(%14, %2, %15) : (tensor<3x10x4xi1>, tensor<3x10x4xf32>, tensor<3x10x4xf32>) -> tensor<3x10x4xf32>
  %17 = "stablehlo.dot_general"(%16, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<3x10x4xf32>, tensor<3x4x5xf32>) -> tensor<3x10x5xf32>
  return %17 : tensor<3x10x5xf32>
}
