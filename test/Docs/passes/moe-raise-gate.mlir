// RUN: moe-opt %s --moe-raise-gate --canonicalize | FileCheck %s

// A softmax before the top-k is the score of the gate.
// CHECK-LABEL: func.func @router(
// CHECK-NEXT:    moe.gate %arg0 top_k(2) : tensor<4x8xf32>
func.func @router(%logits: tensor<4x8xf32>) -> (tensor<4x2xf32>, tensor<4x2xi32>) {
  %init = tensor.empty() : tensor<4x8xf32>
  %scores = linalg.softmax dimension(1) ins(%logits : tensor<4x8xf32>) outs(%init : tensor<4x8xf32>) -> tensor<4x8xf32>
  %weights, %ids = moe.gate %scores top_k(2) score(none) : tensor<4x8xf32>
  return %weights, %ids : tensor<4x2xf32>, tensor<4x2xi32>
}
