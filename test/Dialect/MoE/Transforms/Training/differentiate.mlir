// RUN: moe-opt %s --moe-differentiate --canonicalize --cse | FileCheck %s
// RUN: moe-opt %s --moe-differentiate="recompute" --canonicalize --cse | FileCheck %s --check-prefix=AGAIN
// RUN: moe-opt %s --moe-differentiate="arguments=w2" --canonicalize --cse | FileCheck %s --check-prefix=LAST

#rn = affine_map<(e, r, n) -> (r, n)>

// The layer returns what the backward function takes: weights and logits of the
// gate, accumulators and routes, with rows of choices as [T, K, ...].
// CHECK-LABEL: func.func @layer(
// CHECK-SAME:    -> (tensor<?x16xf32>
// CHECK:         %[[H:.*]]:3 = moe.grouped_matmul {{.*}} outs({{.*}} : tensor<?x32xf32>, tensor<?x32xf32>, tensor<?x32xf32>)
// CHECK:         moe.grouped_matmul %[[H]]#0
// CHECK:         tensor.expand_shape %[[H]]#1 {{.*}} into tensor<?x2x32xf32>

// One matmul with transposed weights gathers the gradient of the tokens and has
// the derivative of the activation, the rows for the gradient of its weights and
// the products of the router's gradient.
// CHECK-LABEL: func.func @layer_backward(
// CHECK-SAME:    %[[X:.*]]: tensor<?x16xf32> {moe.name = "x"}
// CHECK-SAME:    %[[DY:[a-z0-9]+]]: tensor<?x16xf32> {moe.name = "result0_gradient"}
// CHECK-SAME:    -> (tensor<?x16xf32> {moe.name = "x_gradient"}, tensor<?x8xf32> {moe.name = "logits_gradient"}
// CHECK-NOT:     moe.gate %
// CHECK:         %[[D:.*]]:4 = moe.grouped_matmul %[[DY]] gather(
// CHECK-SAME:      weights(%{{.*}} : tensor<8x32x16xf32>) transposed
// CHECK:           moe.yield %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} : f32, f32, f32, f32
// CHECK:         moe.grouped_contract %[[D]]#2, %[[DY]] gather(
// CHECK-SAME:      -> tensor<8x32x16xf32>
// CHECK:         moe.grouped_contract %[[X]] gather({{.*}}), %[[D]]#0
// CHECK:         moe.grouped_contract %[[X]] gather({{.*}}), %[[D]]#1
// CHECK:         %[[FIRST:.*]] = moe.grouped_matmul %[[D]]#0 {{.*}} transposed
// CHECK:         %[[ROWS:.*]] = moe.grouped_matmul %[[D]]#1 {{.*}} transposed operands(%[[FIRST]] :
// CHECK:         moe.gather_sum %[[ROWS]]
// CHECK:         moe.gate_gradient {{.*}} normalize(<sum>)

// Only the gate and the route are saved: the products come first in the backward
// function.
// AGAIN-LABEL: func.func @layer(
// AGAIN-NOT:     tensor<?x2x32xf32>
// AGAIN-LABEL: func.func @layer_backward(
// AGAIN:         %[[SUMS:.*]]:2 = moe.grouped_matmul %{{.*}} gather({{.*}}) {{.*}} weights({{.*}} : tensor<8x16x32xf32>, tensor<8x16x32xf32>)
// AGAIN:           moe.yield %{{.*}}, %{{.*}} : f32, f32
// AGAIN:         moe.grouped_matmul {{.*}} operands({{.*}}%[[SUMS]]#0, %[[SUMS]]#1 :

// Only what the gradient of w2 needs.
// LAST-LABEL: func.func @layer_backward(
// LAST-SAME:    -> (tensor<8x32x16xf32> {moe.name = "w2_gradient"})
// LAST-NOT:     moe.grouped_matmul
// LAST:         moe.grouped_contract
// LAST-NOT:     moe.grouped_contract
// LAST-NOT:     moe.gate_gradient
func.func @layer(%x: tensor<?x16xf32> {moe.name = "x"}, %logits: tensor<?x8xf32> {moe.name = "logits"},
                 %w1: tensor<8x16x32xf32> {moe.name = "w1", moe.role = "weight"},
                 %w3: tensor<8x16x32xf32> {moe.name = "w3", moe.role = "weight"},
                 %w2: tensor<8x32x16xf32> {moe.name = "w2", moe.role = "weight"}) -> tensor<?x16xf32> {
  %c0 = arith.constant 0 : index
  %c2 = arith.constant 2 : index
  %t = tensor.dim %x, %c0 : tensor<?x16xf32>
  %r = arith.muli %t, %c2 : index
  %weights, %ids = moe.gate %logits top_k(2) normalize(<sum>) : tensor<?x8xf32>
  %tokens, %offsets, %positions = moe.route %ids experts(8) : tensor<?x2xi32>
  %e0 = tensor.empty(%r) : tensor<?x32xf32>
  %h = moe.grouped_matmul %x gather(%tokens : tensor<?xi32>) offsets(%offsets : tensor<9xi32>)
      weights(%w1, %w3 : tensor<8x16x32xf32>, tensor<8x16x32xf32>) outs(%e0 : tensor<?x32xf32>) {
  ^bb0(%a: f32, %b: f32):
    %th = math.tanh %a : f32
    %p = arith.mulf %th, %b : f32
    moe.yield %p : f32
  } : tensor<?x16xf32> -> tensor<?x32xf32>
  %e1 = tensor.empty(%r) : tensor<?x16xf32>
  %y = moe.grouped_matmul %h offsets(%offsets : tensor<9xi32>) weights(%w2 : tensor<8x32x16xf32>) outs(%e1 : tensor<?x16xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x32xf32> -> tensor<?x16xf32>
  %e2 = tensor.empty(%t) : tensor<?x16xf32>
  %z = moe.gather_sum %y, %positions weights(%weights : tensor<?x2xf32>) outs(%e2 : tensor<?x16xf32>) : tensor<?x16xf32>, tensor<?x2xi32> -> tensor<?x16xf32>
  return %z : tensor<?x16xf32>
}
