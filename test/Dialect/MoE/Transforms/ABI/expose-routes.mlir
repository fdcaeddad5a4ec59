// RUN: moe-opt %s --moe-expose-routes | FileCheck %s --check-prefix=RECORD
// RUN: moe-opt %s --moe-expose-routes=mode=replay | FileCheck %s --check-prefix=REPLAY
// RUN: moe-opt %s --moe-expose-routes=mode=replay-ids | FileCheck %s --check-prefix=GIVEN

// The choice of DeepSeek-V3: of bias and groups, only the selection knows.
// RECORD-LABEL: func @layer(
// RECORD-SAME:    -> (tensor<?x16xf32> {moe.name = "y"}, tensor<?x2xi32> {moe.name = "route_ids"}, tensor<?x2xf32> {moe.name = "route_weights"})
// RECORD:         %[[W:.*]], %[[IDS:.*]] = moe.gate
// RECORD:         %[[Y:.*]] = moe.combine
// RECORD:         return %[[Y]], %[[IDS]], %[[W]]

// REPLAY-LABEL: func @layer(
// REPLAY-SAME:    %[[IDS:[a-z0-9_]*]]: tensor<?x2xi32> {moe.name = "route_ids", moe.role = "input"},
// REPLAY-SAME:    %[[W:[a-z0-9_]*]]: tensor<?x2xf32> {moe.name = "route_weights", moe.role = "input"}) -> tensor<?x16xf32> {
// REPLAY:         moe.dispatch %{{.*}}, %[[IDS]] experts(8)
// REPLAY:         moe.combine %{{.*}} weights(%[[W]] : tensor<?x2xf32>)

// GIVEN-LABEL:  func @layer(
// GIVEN-SAME:     %[[IDS:[a-z0-9_]*]]: tensor<?x2xi32> {moe.name = "route_ids", moe.role = "input"}) -> tensor<?x16xf32> {
// GIVEN:          %[[W:.*]], %{{.*}} = moe.gate %{{[a-z0-9_]*}} ids(%[[IDS]] : tensor<?x2xi32>) top_k(2) score(sigmoid) normalize(<sum>) scale(2.500000e+00) : tensor<?x8xf32>
// GIVEN:          moe.dispatch %{{.*}}, %[[IDS]] experts(8)
// GIVEN:          moe.combine %{{.*}} weights(%[[W]] : tensor<?x2xf32>)
func.func @layer(%x: tensor<?x16xf32>, %logits: tensor<?x8xf32>, %bias: tensor<8xf32>) -> tensor<?x16xf32> {
  %w, %ids = moe.gate %logits bias(%bias : tensor<8xf32>) top_k(2) score(sigmoid)
    groups(<count = 4, keep = 2, score = top2_sum>) normalize(<sum>) scale(2.5) : tensor<?x8xf32>
  %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x2xi32>
  %y = moe.combine %g, %p weights(%w : tensor<?x2xf32>) : tensor<?x16xf32>, tensor<?x2xi32>
  return %y : tensor<?x16xf32>
}

// Experts that choose, and scores with a threshold: -1 is part of the ids. Two dispatches with
// weights of their own, of which one orders by them. Named results keep their names.
// RECORD-LABEL: func @two(
// RECORD-SAME:    -> (tensor<?x16xf32> {moe.name = "first"}, tensor<?x16xf32> {moe.name = "y1"},
// RECORD-SAME:        tensor<?x8xi32> {moe.name = "route_ids0"}, tensor<?x8xi32> {moe.name = "route_ids1"},
// RECORD-SAME:        tensor<?x8xf32> {moe.name = "route_weights0"}, tensor<?x8xbf16> {moe.name = "route_weights1"})
// REPLAY-LABEL: func @two(
// REPLAY-SAME:    %[[I0:[a-z0-9_]*]]: tensor<?x8xi32> {moe.name = "route_ids0", moe.role = "input"},
// REPLAY-SAME:    %[[I1:[a-z0-9_]*]]: tensor<?x8xi32> {moe.name = "route_ids1", moe.role = "input"},
// REPLAY-SAME:    %[[W0:[a-z0-9_]*]]: tensor<?x8xf32> {moe.name = "route_weights0", moe.role = "input"},
// REPLAY-SAME:    %[[W1:[a-z0-9_]*]]: tensor<?x8xbf16> {moe.name = "route_weights1", moe.role = "input"})
// REPLAY:         moe.dispatch %{{.*}}, %[[I0]] experts(8)
// REPLAY:         moe.combine %{{.*}} weights(%[[W0]] : tensor<?x8xf32>)
// REPLAY:         moe.dispatch %{{.*}}, %[[I1]] weights(%[[W1]] : tensor<?x8xbf16>)
// REPLAY:         moe.combine %{{.*}} weights(%[[W1]] : tensor<?x8xbf16>)
// GIVEN-LABEL:  func @two(
// GIVEN:          moe.gate %{{[a-z0-9_]*}} ids(%{{.*}} : tensor<?x8xi32>) top_k(8) : tensor<?x8xf32>
// GIVEN:          moe.gate %{{[a-z0-9_]*}} ids(%{{.*}} : tensor<?x8xi32>) top_k(8) score(relu) score_type(bf16) : tensor<?x8xf32>
func.func @two(%x: tensor<?x16xf32>, %logits: tensor<?x8xf32>)
    -> (tensor<?x16xf32> {moe.name = "first"}, tensor<?x16xf32>) {
  %w0, %ids0 = moe.gate %logits top_k(8) select(expert_choice) capacity(<factor = 2.0>) : tensor<?x8xf32>
  %g0, %o0, %p0 = moe.dispatch %x, %ids0 experts(8) : tensor<?x16xf32>, tensor<?x8xi32>
  %y0 = moe.combine %g0, %p0 weights(%w0 : tensor<?x8xf32>) : tensor<?x16xf32>, tensor<?x8xi32>
  %w1, %ids1 = moe.gate %logits top_k(8) score(relu) threshold(0.0) score_type(bf16) : tensor<?x8xf32>
  %g1, %o1, %p1 = moe.dispatch %x, %ids1 weights(%w1 : tensor<?x8xbf16>) experts(8)
    capacity(<fixed = 4>) priority(probability) : tensor<?x16xf32>, tensor<?x8xi32>
  %y1 = moe.combine %g1, %p1 weights(%w1 : tensor<?x8xbf16>) : tensor<?x16xf32>, tensor<?x8xi32>
  return %y0, %y1 : tensor<?x16xf32>, tensor<?x16xf32>
}

// A choice that is scored among those that are left.
// GIVEN-LABEL:  func @sparse_mixer(
// GIVEN-SAME:     %[[IDS:[a-z0-9_]*]]: tensor<?x2xi32> {moe.name = "route_ids", moe.role = "input"}) -> tensor<?x16xf32> {
// GIVEN:          moe.gate %{{[a-z0-9_]*}} ids(%[[IDS]] : tensor<?x2xi32>) top_k(2) order(score_each_choice) margin(1.000000e-02) : tensor<?x8xf32>
func.func @sparse_mixer(%x: tensor<?x16xf32>, %logits: tensor<?x8xf32>) -> tensor<?x16xf32> {
  %w, %ids = moe.gate %logits top_k(2) order(score_each_choice) margin(0.01) : tensor<?x8xf32>
  %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x2xi32>
  %y = moe.combine %g, %p weights(%w : tensor<?x2xf32>) : tensor<?x16xf32>, tensor<?x2xi32>
  return %y : tensor<?x16xf32>
}

// What no gate computes: ids that are arguments stay arguments, weights become one.
// RECORD-LABEL: func @given(
// RECORD-SAME:    -> (tensor<?x16xf32> {moe.name = "y"}, tensor<?x2xf32> {moe.name = "route_weights"})
// REPLAY-LABEL: func @given(
// REPLAY-SAME:    %[[IDS:.*]]: tensor<?x2xi32>, %{{.*}}: tensor<?x2xf32>, %[[W:.*]]: tensor<?x2xf32> {moe.name = "route_weights", moe.role = "input"})
// REPLAY:         moe.combine %{{.*}} weights(%[[W]] : tensor<?x2xf32>)
// GIVEN-LABEL:  func @given(
// GIVEN-SAME:     %{{.*}}: tensor<?x2xi32>, %{{[a-z0-9_]*}}: tensor<?x2xf32>) -> tensor<?x16xf32> {
func.func @given(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>, %w: tensor<?x2xf32>) -> tensor<?x16xf32> {
  %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x2xi32>
  %scaled = linalg.exp ins(%w : tensor<?x2xf32>) outs(%w : tensor<?x2xf32>) -> tensor<?x2xf32>
  %y = moe.combine %g, %p weights(%scaled : tensor<?x2xf32>) : tensor<?x16xf32>, tensor<?x2xi32>
  return %y : tensor<?x16xf32>
}

// No dispatch, no route; private functions have no signature.
// RECORD-LABEL: func @dense(
// RECORD-SAME:    -> tensor<?x2xf32> {
// RECORD-LABEL: func private @inner(
// RECORD-SAME:    -> tensor<?x16xf32> {
func.func @dense(%x: tensor<?x2xf32>) -> tensor<?x2xf32> {
  return %x : tensor<?x2xf32>
}
func.func private @inner(%x: tensor<?x16xf32>, %logits: tensor<?x8xf32>) -> tensor<?x16xf32> {
  %w, %ids = moe.gate %logits top_k(2) : tensor<?x8xf32>
  %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x2xi32>
  %y = moe.combine %g, %p weights(%w : tensor<?x2xf32>) : tensor<?x16xf32>, tensor<?x2xi32>
  return %y : tensor<?x16xf32>
}

// A dispatch of grouped rows: its route by token.
// RECORD-LABEL: func @nested(
// RECORD-SAME:    tensor<?x2xi32> {moe.name = "route_ids0"}, tensor<?x2xi32> {moe.name = "route_ids1"},
// RECORD-SAME:    tensor<?x2xf32> {moe.name = "route_weights0"}, tensor<?x2xf32> {moe.name = "route_weights1"})
// RECORD:         %{{.*}}, %[[IDS:.*]] = moe.gate %{{.*}} top_k(1)
// RECORD:         %[[ROWS:.*]] = linalg.generic {{.*}} ins(%[[IDS]] : tensor<?x1xi32>)
// RECORD:           arith.sitofp
// RECORD:         moe.combine %[[ROWS]], %{{.*}} : tensor<?x1xf32>, tensor<?x1xi32>
// RECORD:           arith.fptosi
// RECORD:         tensor.expand_shape %{{.*}} {{\[\[}}0, 1], [2]] output_shape [%{{.*}}, 2, 1]
// REPLAY-LABEL: func @nested(
// REPLAY-SAME:    %[[I0:[a-z0-9_]*]]: tensor<?x2xi32> {moe.name = "route_ids0", moe.role = "input"},
// REPLAY-SAME:    %[[I1:[a-z0-9_]*]]: tensor<?x2xi32> {moe.name = "route_ids1", moe.role = "input"},
// REPLAY:         moe.dispatch %{{.*}}, %[[I0]] experts(4)
// REPLAY:         tensor.expand_shape %[[I1]] {{\[\[}}0], [1, 2]]
// REPLAY:         moe.dispatch %{{.*}} experts(4) : tensor<?x1xf32>, tensor<?x1xi32>
// GIVEN-LABEL:  func @nested(
// GIVEN:          moe.gate %{{.*}} ids(%[[I:.*]] : tensor<?x1xi32>) top_k(1)
// GIVEN-NEXT:     moe.dispatch %{{.*}}, %[[I]] experts(8)
func.func @nested(%x: tensor<?x16xf32>, %logits: tensor<?x4xf32>, %router: tensor<16x8xf32>) -> tensor<?x16xf32> {
  %c0 = arith.constant 0 : index
  %w, %ids = moe.gate %logits top_k(2) : tensor<?x4xf32>
  %g, %o, %p = moe.dispatch %x, %ids experts(4) : tensor<?x16xf32>, tensor<?x2xi32>
  %n = tensor.dim %g, %c0 : tensor<?x16xf32>
  %e = tensor.empty(%n) : tensor<?x8xf32>
  %l = linalg.matmul ins(%g, %router : tensor<?x16xf32>, tensor<16x8xf32>) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
  %w1, %ids1 = moe.gate %l top_k(1) : tensor<?x8xf32>
  %g1, %o1, %p1 = moe.dispatch %g, %ids1 experts(8) : tensor<?x16xf32>, tensor<?x1xi32>
  %y1 = moe.combine %g1, %p1 weights(%w1 : tensor<?x1xf32>) : tensor<?x16xf32>, tensor<?x1xi32>
  %y = moe.combine %y1, %p weights(%w : tensor<?x2xf32>) : tensor<?x16xf32>, tensor<?x2xi32>
  return %y : tensor<?x16xf32>
}
