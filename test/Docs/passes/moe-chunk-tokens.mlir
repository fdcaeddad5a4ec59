// RUN: moe-opt %s --moe-export --moe-chunk-tokens='chunk=256' | FileCheck %s

// A loop over chunks of 256 tokens; the last one may have fewer.
// CHECK-LABEL: func.func @layer(
// CHECK:         scf.for {{.*}} step %c256
// CHECK:           arith.minsi
// CHECK:           %[[X:.*]] = tensor.extract_slice
// CHECK:           moe.gate %[[X]]
func.func @layer(%logits: tensor<?x8xf32>) -> tensor<?x2xf32> {
  %weights, %ids = moe.gate %logits top_k(2) : tensor<?x8xf32>
  return %weights : tensor<?x2xf32>
}
