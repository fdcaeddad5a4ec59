// RUN: moe-opt %s -convert-moe-to-linalg | FileCheck %s
// RUN: moe-opt %s -convert-moe-routing-to-linalg | FileCheck %s

// The region is inlined.
// CHECK-LABEL: func.func @fused(
// CHECK-NOT:     moe.
// CHECK:         linalg.generic
// CHECK-NOT:     moe.
// CHECK:         return
func.func @fused(%logits: tensor<?x8xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>) {
  %results:2 = moe.fused {
    %weights, %ids = moe.gate %logits top_k(2) : tensor<?x8xf32>
    moe.yield %weights, %ids : tensor<?x2xf32>, tensor<?x2xi32>
  } -> tensor<?x2xf32>, tensor<?x2xi32>
  return %results#0, %results#1 : tensor<?x2xf32>, tensor<?x2xi32>
}
