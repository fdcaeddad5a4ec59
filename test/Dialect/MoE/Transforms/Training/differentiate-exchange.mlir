// RUN: moe-opt %s -split-input-file --moe-differentiate -verify-diagnostics | FileCheck %s

// Gradients go where the tokens went: once to each rank with one of their
// experts, with the weights of their choices. A row for each choice comes home,
// and the dot products for the gradient of the weights.
// CHECK-LABEL: func.func @layer(
// CHECK-SAME:    {moe.name = "saved0", moe.role = "saved"}
// CHECK:         %[[TOKENS:.*]], %{{.*}}, %[[SEND:.*]], %[[HOME:.*]], %[[RETURNS:.*]] = moe.partition
// CHECK:         return {{.*}}%[[SEND]]
// CHECK-LABEL: func.func @layer_backward(
// CHECK-SAME:    attributes {moe.forward = @layer
// CHECK-NOT:     moe.partition
// CHECK:         %[[WEIGHTS:.*]] = linalg.generic
// CHECK:         %[[ROWS:.*]]:2, %{{.*}} = moe.exchange %{{.*}}, %[[WEIGHTS]] gather(%{{.*}}) send(%{{.*}}) : tensor<?x16xf32>, tensor<?x2x2xf32> -> tensor<?x16xf32>, tensor<?x2xf32> received
// CHECK:         moe.exchange {{.*}} expect({{.*}} tensor<?x2x1xf32> -> tensor<?x2x1xf32>
// CHECK:         moe.grouped_contract
// CHECK:         moe.exchange {{.*}} expect({{.*}} tensor<?x2x16xf32> -> tensor<?x2x16xf32>
// CHECK:         moe.gather_sum
func.func @layer(%x: tensor<?x16xf32>, %w: tensor<?x2xf32>, %ids: tensor<?x2xi32>, %v: tensor<4x16x16xf32>,
    %placement: tensor<8x1xi32>) -> tensor<?x16xf32> {
  %c0 = arith.constant 0 : index
  %slots = moe.place %ids, %placement : tensor<?x2xi32>, tensor<8x1xi32>
  %tokens, %local, %send, %home, %returns = moe.partition %slots slots(4) ranks(8) : tensor<?x2xi32>
  %rows:2, %received = moe.exchange %x, %local gather(%tokens : tensor<?x2xi32>) send(%send : tensor<8xi32>)
    : tensor<?x16xf32>, tensor<?x2x2xi32> -> tensor<?x16xf32>, tensor<?x2xi32> received tensor<8xi32>
  %t, %offsets, %positions = moe.route %rows#1 experts(4) : tensor<?x2xi32>
  %n = tensor.dim %t, %c0 : tensor<?xi32>
  %e = tensor.empty(%n) : tensor<?x16xf32>
  %y = moe.grouped_matmul %rows#0 gather(%t : tensor<?xi32>) offsets(%offsets : tensor<5xi32>)
      weights(%v : tensor<4x16x16xf32>) outs(%e : tensor<?x16xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x16xf32> -> tensor<?x16xf32>
  %order, %back = moe.collect %positions, %received : tensor<?x2xi32>, tensor<8xi32>
  %r = tensor.dim %rows#1, %c0 : tensor<?x2xi32>
  %split = tensor.expand_shape %y [[0, 1], [2]] output_shape [%r, 2, 16] : tensor<?x16xf32> into tensor<?x2x16xf32>
  %came = moe.exchange %split gather(%order : tensor<?x2xi32>) send(%back : tensor<8xi32>) expect(%returns : tensor<8xi32>)
    : tensor<?x2x16xf32> -> tensor<?x2x16xf32>
  %flat = tensor.collapse_shape %came [[0, 1], [2]] : tensor<?x2x16xf32> into tensor<?x16xf32>
  %m = tensor.dim %x, %c0 : tensor<?x16xf32>
  %o = tensor.empty(%m) : tensor<?x16xf32>
  %sum = moe.gather_sum %flat, %home weights(%w : tensor<?x2xf32>) outs(%o : tensor<?x16xf32>) : tensor<?x16xf32>, tensor<?x2xi32> -> tensor<?x16xf32>
  return %sum : tensor<?x16xf32>
}

// -----

// All ranks compute the same from what is gathered: its gradient has those of
// the rows of every rank.
// CHECK-LABEL: func.func @gate_backward(
// CHECK-SAME:    %[[G:[a-z0-9]+]]: tensor<?x2xf32>
// CHECK:         %[[ALL:.*]] = moe.all_gather %[[G]]
// CHECK:         %[[LOGITS:.*]] = moe.gate_gradient %{{.*}}, %{{.*}}, %[[ALL]]
// CHECK:         moe.own_rows %[[LOGITS]]
func.func @gate(%logits: tensor<?x8xf32>) -> tensor<?x2xf32> {
  %all = moe.all_gather %logits : tensor<?x8xf32>
  %w, %ids = moe.gate %all top_k(2) : tensor<?x8xf32>
  %own = moe.own_rows %w : tensor<?x2xf32>
  return %own : tensor<?x2xf32>
}

// -----

func.func @no_trip(%x: tensor<?x4xf32>, %n: tensor<8xi32>) -> tensor<?x4xf32> {
  // expected-error@+1 {{'moe.exchange' op has no gradient: its rows do not come home by a moe.collect to a moe.gather_sum}}
  %rows, %received = moe.exchange %x send(%n : tensor<8xi32>) : tensor<?x4xf32> -> tensor<?x4xf32> received tensor<8xi32>
  return %rows : tensor<?x4xf32>
}
