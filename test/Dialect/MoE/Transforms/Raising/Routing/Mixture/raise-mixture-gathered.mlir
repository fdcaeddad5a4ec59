// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-routing | FileCheck %s

// jnp.einsum("th,tkhi->tki", x, w[ids]) and so on: weights gathered for each
// choice, with the check of indices below 0 that indexing writes.

// CHECK-LABEL: func.func @choices(
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[POSITIONS:.*]] = moe.dispatch %arg0, %[[IDS]] experts(4) : tensor<6x8xf32>
// CHECK-NOT:     stablehlo.gather
// CHECK:         %[[H:.*]] = moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%arg2 : tensor<4x8x16xf32>) operands(%arg3 : tensor<4x16xf32>) maps
// CHECK:         %[[ZERO:.*]] = linalg.fill ins(%{{.*}} : f32) outs(%{{.*}} : tensor<12x16xf32>)
// CHECK:         %[[A:.*]] = "stablehlo.maximum"(%[[H]], %[[ZERO]])
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %[[A]] offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%arg4 : tensor<4x16x8xf32>) outs
// CHECK:         moe.combine %[[Y]], %[[POSITIONS]] weights(%[[W]] : tensor<6x2xf32>)
func.func @choices(%x: tensor<6x8xf32>, %logits: tensor<6x4xf32>, %up: tensor<4x8x16xf32>, %bias: tensor<4x16xf32>, %down: tensor<4x16x8xf32>) -> tensor<6x8xf32> {
  %zeros = "stablehlo.constant"() <{value = dense<0> : tensor<6x2xi32>}> : () -> tensor<6x2xi32>
  %fours = "stablehlo.constant"() <{value = dense<4> : tensor<6x2xi32>}> : () -> tensor<6x2xi32>
  %zero = "stablehlo.constant"() <{value = dense<0.0> : tensor<f32>}> : () -> tensor<f32>
  %w, %ids = moe.gate %logits top_k(2) score(none) : tensor<6x4xf32>
  %below = "stablehlo.compare"(%ids, %zeros) <{comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<6x2xi32>, tensor<6x2xi32>) -> tensor<6x2xi1>
  %wrapped = "stablehlo.add"(%ids, %fours) : (tensor<6x2xi32>, tensor<6x2xi32>) -> tensor<6x2xi32>
  %i = "stablehlo.select"(%below, %wrapped, %ids) : (tensor<6x2xi1>, tensor<6x2xi32>, tensor<6x2xi32>) -> tensor<6x2xi32>
  %at = "stablehlo.broadcast_in_dim"(%i) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<6x2xi32>) -> tensor<6x2x1xi32>
  %up_of = "stablehlo.gather"(%up, %at) <{dimension_numbers = #stablehlo.gather<offset_dims = [2, 3], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 2>, slice_sizes = array<i64: 1, 8, 16>}> : (tensor<4x8x16xf32>, tensor<6x2x1xi32>) -> tensor<6x2x8x16xf32>
  %bias_of = "stablehlo.gather"(%bias, %at) <{dimension_numbers = #stablehlo.gather<offset_dims = [2], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 2>, slice_sizes = array<i64: 1, 16>}> : (tensor<4x16xf32>, tensor<6x2x1xi32>) -> tensor<6x2x16xf32>
  %down_of = "stablehlo.gather"(%down, %at) <{dimension_numbers = #stablehlo.gather<offset_dims = [2, 3], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 2>, slice_sizes = array<i64: 1, 16, 8>}> : (tensor<4x16x8xf32>, tensor<6x2x1xi32>) -> tensor<6x2x16x8xf32>
  %h = "stablehlo.dot_general"(%x, %up_of) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [2]>}> : (tensor<6x8xf32>, tensor<6x2x8x16xf32>) -> tensor<6x2x16xf32>
  %biased = "stablehlo.add"(%h, %bias_of) : (tensor<6x2x16xf32>, tensor<6x2x16xf32>) -> tensor<6x2x16xf32>
  %splat = "stablehlo.broadcast_in_dim"(%zero) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<6x2x16xf32>
  %act = "stablehlo.maximum"(%biased, %splat) : (tensor<6x2x16xf32>, tensor<6x2x16xf32>) -> tensor<6x2x16xf32>
  %y = "stablehlo.dot_general"(%act, %down_of) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0, 1], rhs_batching_dimensions = [0, 1], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [2]>}> : (tensor<6x2x16xf32>, tensor<6x2x16x8xf32>) -> tensor<6x2x8xf32>
  %out = "stablehlo.dot_general"(%y, %w) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<6x2x8xf32>, tensor<6x2xf32>) -> tensor<6x8xf32>
  return %out : tensor<6x8xf32>
}

// -----

// One choice of each token, without a dimension for it.

// CHECK-LABEL: func.func @one_choice(
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[POSITIONS:.*]] = moe.dispatch %arg0, %[[IDS]] experts(4) : tensor<6x8xf32>
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%arg2 : tensor<4x8x8xf32>) outs
// CHECK:         moe.combine %[[Y]], %[[POSITIONS]] weights(%[[W]] : tensor<6x1xf32>)
func.func @one_choice(%x: tensor<6x8xf32>, %logits: tensor<6x4xf32>, %up: tensor<4x8x8xf32>) -> tensor<6x8xf32> {
  %zero = "stablehlo.constant"() <{value = dense<0.0> : tensor<f32>}> : () -> tensor<f32>
  %w, %ids = moe.gate %logits top_k(1) score(none) : tensor<6x4xf32>
  %up_of = "stablehlo.gather"(%up, %ids) <{dimension_numbers = #stablehlo.gather<offset_dims = [1, 2], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 8, 8>}> : (tensor<4x8x8xf32>, tensor<6x1xi32>) -> tensor<6x8x8xf32>
  %y = "stablehlo.dot_general"(%x, %up_of) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<6x8xf32>, tensor<6x8x8xf32>) -> tensor<6x8xf32>
  %slots = "stablehlo.reshape"(%y) : (tensor<6x8xf32>) -> tensor<6x1x8xf32>
  %wide = "stablehlo.broadcast_in_dim"(%w) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<6x1xf32>) -> tensor<6x1x8xf32>
  %p = "stablehlo.multiply"(%slots, %wide) : (tensor<6x1x8xf32>, tensor<6x1x8xf32>) -> tensor<6x1x8xf32>
  %out = "stablehlo.reduce"(%p, %zero) <{dimensions = array<i64: 1>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %s = "stablehlo.add"(%a, %b) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%s) : (tensor<f32>) -> ()
  }) : (tensor<6x1x8xf32>, tensor<f32>) -> tensor<6x8xf32>
  return %out : tensor<6x8xf32>
}
