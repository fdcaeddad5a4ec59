// RUN: moe-opt %s --moe-raise-gate | FileCheck %s

// The number of tokens is taken from the logits, so that the weights have no
// other use than their softmax.

// CHECK-LABEL: func.func @extent(
// CHECK-NOT:     linalg.softmax
// CHECK:         %[[W:.*]], %{{.*}} = moe.gate %arg0 top_k(2) order(select_then_score) : tensor<?x8xf32>
// CHECK:         tensor.dim %arg0
// CHECK:         return %[[W]]
func.func @extent(%logits: tensor<?x8xf32>) -> (tensor<?x2xf32>, index) {
  %c0 = arith.constant 0 : index
  %weights, %ids = moe.gate %logits top_k(2) score(none) : tensor<?x8xf32>
  %tokens = tensor.dim %weights, %c0 : tensor<?x2xf32>
  %init = tensor.empty(%tokens) : tensor<?x2xf32>
  %scores = linalg.softmax dimension(1) ins(%weights : tensor<?x2xf32>)
      outs(%init : tensor<?x2xf32>) -> tensor<?x2xf32>
  return %scores, %tokens : tensor<?x2xf32>, index
}
