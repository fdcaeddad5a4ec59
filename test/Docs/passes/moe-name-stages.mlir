// RUN: moe-opt %s --moe-name-stages --mlir-print-debuginfo --mlir-print-local-scope | FileCheck %s

// CHECK-LABEL: func.func @layer(
// CHECK:         moe.gate {{.*}} loc(fused<{moe.stage = "gate"}>[
func.func @layer(%logits: tensor<?x8xf32>) -> tensor<?x2xi32>
    attributes {moe.signature = #moe.signature<arguments = []>} {
  %weights, %ids = moe.gate %logits top_k(2) : tensor<?x8xf32>
  return %ids : tensor<?x2xi32>
}
