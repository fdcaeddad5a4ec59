// RUN: moe-opt %s --moe-export | FileCheck %s

// The result becomes an output that the caller provides.
// CHECK-LABEL: func.func @layer(
// CHECK-SAME:    memref<?x2xf32>) attributes
// CHECK-SAME:    name = "logits", role = input
// CHECK-SAME:    name = "weights", role = output
// CHECK-SAME:    moe.tokens = [0, 4096]
func.func @layer(%logits: tensor<?x8xf32> {moe.name = "logits"})
    -> (tensor<?x2xf32> {moe.name = "weights"}) attributes {moe.tokens = [0, 4096]} {
  %weights, %ids = moe.gate %logits top_k(2) : tensor<?x8xf32>
  return %weights : tensor<?x2xf32>
}
