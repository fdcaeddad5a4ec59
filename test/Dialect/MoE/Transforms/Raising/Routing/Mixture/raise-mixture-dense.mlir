// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-routing | FileCheck %s

// All experts on all tokens, weighted by a matrix that is 0 but for the
// choices: jnp.einsum("th,ehi->tei"), "tei,eih->teh" and "te,teh->th", the
// matrix a sum of one_hot times the weights.

// CHECK-LABEL: func.func @one_hot(
// CHECK-SAME:      %[[X:[^ ]*]]: tensor<?x8xf32>, %[[UP:[^ ]*]]: tensor<4x8x16xf32>, %[[BIAS:[^ ]*]]: tensor<4x16xf32>, %[[DOWN:[^ ]*]]: tensor<4x16x8xf32>
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[POSITIONS:.*]] = moe.dispatch %[[X]], %[[IDS]] experts(4) : tensor<?x8xf32>
// CHECK-NOT:     stablehlo.dot_general
// CHECK:         %[[H:.*]] = moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[UP]] : tensor<4x8x16xf32>) operands(%[[BIAS]] : tensor<4x16xf32>)
// CHECK-NEXT:    ^bb0(%[[SUM:.*]]: f32, %[[B:.*]]: f32):
// CHECK-NEXT:      %[[ADDED:.*]] = arith.addf %[[SUM]], %[[B]]
// CHECK-NEXT:      moe.yield %[[ADDED]]
// CHECK:         %[[A:.*]] = "stablehlo.tanh"(%[[H]]) : (tensor<?x16xf32>) -> tensor<?x16xf32>
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %[[A]] offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[DOWN]] : tensor<4x16x8xf32>) outs
// CHECK:         %[[SUM:.*]] = moe.combine %[[Y]], %[[POSITIONS]] weights(%[[W]] : tensor<?x2xf32>)
// CHECK-NOT:     stablehlo
// CHECK:         return %[[SUM]]
func.func @one_hot(%x: tensor<?x8xf32>, %up: tensor<4x8x16xf32>, %bias: tensor<4x16xf32>, %down: tensor<4x16x8xf32>, %s1: tensor<3xi32>, %s2: tensor<3xi32>, %s3: tensor<3xi32>) -> tensor<?x8xf32> {
  %zero = "stablehlo.constant"() <{value = dense<0.0> : tensor<f32>}> : () -> tensor<f32>
  // The tokens of the logits are those of the rows.
  %router = "stablehlo.constant"() <{value = dense<1.0> : tensor<8x4xf32>}> : () -> tensor<8x4xf32>
  %l = "stablehlo.dot_general"(%x, %router) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<?x8xf32>, tensor<8x4xf32>) -> tensor<?x4xf32>
  %w, %ids = moe.gate %l top_k(2) score(none) : tensor<?x4xf32>
  %i1 = "stablehlo.dynamic_broadcast_in_dim"(%ids, %s1) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x2xi32>, tensor<3xi32>) -> tensor<?x2x1xi32>
  %i2 = "stablehlo.dynamic_broadcast_in_dim"(%i1, %s2) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<?x2x1xi32>, tensor<3xi32>) -> tensor<?x2x4xi32>
  %e1 = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<1x1x4xi32>
  %e2 = "stablehlo.dynamic_broadcast_in_dim"(%e1, %s2) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x1x4xi32>, tensor<3xi32>) -> tensor<?x2x4xi32>
  %hot = "stablehlo.compare"(%i2, %e2) <{comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<?x2x4xi32>, tensor<?x2x4xi32>) -> tensor<?x2x4xi1>
  %one = "stablehlo.convert"(%hot) : (tensor<?x2x4xi1>) -> tensor<?x2x4xf32>
  %w1 = "stablehlo.dynamic_broadcast_in_dim"(%w, %s1) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x2xf32>, tensor<3xi32>) -> tensor<?x2x1xf32>
  %w2 = "stablehlo.dynamic_broadcast_in_dim"(%w1, %s2) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<?x2x1xf32>, tensor<3xi32>) -> tensor<?x2x4xf32>
  %product = "stablehlo.multiply"(%one, %w2) : (tensor<?x2x4xf32>, tensor<?x2x4xf32>) -> tensor<?x2x4xf32>
  %dense = "stablehlo.reduce"(%product, %zero) <{dimensions = array<i64: 1>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %s = "stablehlo.add"(%a, %b) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%s) : (tensor<f32>) -> ()
  }) : (tensor<?x2x4xf32>, tensor<f32>) -> tensor<?x4xf32>
  %h = "stablehlo.dot_general"(%x, %up) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<?x8xf32>, tensor<4x8x16xf32>) -> tensor<?x4x16xf32>
  %b1 = "stablehlo.broadcast_in_dim"(%bias) <{broadcast_dimensions = array<i64: 1, 2>}> : (tensor<4x16xf32>) -> tensor<1x4x16xf32>
  %b2 = "stablehlo.dynamic_broadcast_in_dim"(%b1, %s3) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x4x16xf32>, tensor<3xi32>) -> tensor<?x4x16xf32>
  %biased = "stablehlo.add"(%h, %b2) : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  %act = "stablehlo.tanh"(%biased) : (tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  %y = "stablehlo.dot_general"(%down, %act) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [1], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [2]>}> : (tensor<4x16x8xf32>, tensor<?x4x16xf32>) -> tensor<4x8x?xf32>
  %t = "stablehlo.transpose"(%y) <{permutation = array<i64: 2, 0, 1>}> : (tensor<4x8x?xf32>) -> tensor<?x4x8xf32>
  %out = "stablehlo.dot_general"(%dense, %t) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<?x4xf32>, tensor<?x4x8xf32>) -> tensor<?x8xf32>
  return %out : tensor<?x8xf32>
}

// -----

// The matrix by a scatter of the weights at (token, id), experts before tokens,
// and a sum of the product; weights [E, n, k].

// CHECK-LABEL: func.func @scatter(
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[POSITIONS:.*]] = moe.dispatch %arg0, %[[IDS]] experts(4)
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%arg2 : tensor<4x8x8xf32>) transposed outs
// CHECK:         %[[SUM:.*]] = moe.combine %[[Y]], %[[POSITIONS]] weights(%[[W]] : tensor<6x2xf32>)
// CHECK:         return %[[SUM]]
func.func @scatter(%x: tensor<6x8xf32>, %logits: tensor<6x4xf32>, %up: tensor<4x8x8xf32>) -> tensor<6x8xf32> {
  %zero = "stablehlo.constant"() <{value = dense<0.0> : tensor<f32>}> : () -> tensor<f32>
  %zeros = "stablehlo.constant"() <{value = dense<0.0> : tensor<6x4xf32>}> : () -> tensor<6x4xf32>
  %w, %ids = moe.gate %logits top_k(2) score(none) : tensor<6x4xf32>
  %i = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<6xi32>
  %t = "stablehlo.broadcast_in_dim"(%i) <{broadcast_dimensions = array<i64: 0>}> : (tensor<6xi32>) -> tensor<6x2x1xi32>
  %e = "stablehlo.reshape"(%ids) : (tensor<6x2xi32>) -> tensor<6x2x1xi32>
  %at = "stablehlo.concatenate"(%t, %e) <{dimension = 2 : i64}> : (tensor<6x2x1xi32>, tensor<6x2x1xi32>) -> tensor<6x2x2xi32>
  %dense = "stablehlo.scatter"(%zeros, %at, %w) <{scatter_dimension_numbers = #stablehlo.scatter<inserted_window_dims = [0, 1], scatter_dims_to_operand_dims = [0, 1], index_vector_dim = 2>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    "stablehlo.return"(%b) : (tensor<f32>) -> ()
  }) : (tensor<6x4xf32>, tensor<6x2x2xi32>, tensor<6x2xf32>) -> tensor<6x4xf32>
  %y = "stablehlo.dot_general"(%up, %x) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<4x8x8xf32>, tensor<6x8xf32>) -> tensor<4x8x6xf32>
  %rows = "stablehlo.transpose"(%y) <{permutation = array<i64: 0, 2, 1>}> : (tensor<4x8x6xf32>) -> tensor<4x6x8xf32>
  %mask = "stablehlo.transpose"(%dense) <{permutation = array<i64: 1, 0>}> : (tensor<6x4xf32>) -> tensor<4x6xf32>
  %wide = "stablehlo.broadcast_in_dim"(%mask) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<4x6xf32>) -> tensor<4x6x8xf32>
  %p = "stablehlo.multiply"(%rows, %wide) : (tensor<4x6x8xf32>, tensor<4x6x8xf32>) -> tensor<4x6x8xf32>
  %out = "stablehlo.reduce"(%p, %zero) <{dimensions = array<i64: 0>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %s = "stablehlo.add"(%a, %b) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%s) : (tensor<f32>) -> ()
  }) : (tensor<4x6x8xf32>, tensor<f32>) -> tensor<6x8xf32>
  return %out : tensor<6x8xf32>
}
