// RUN: moe-opt %s --moe-fuse-router | FileCheck %s

// The matmul of the logits and the gate are one kernel on a GPU.
// CHECK-LABEL: func.func @router(
// CHECK:         %[[R:.*]]:2 = moe.fused {
// CHECK:           %[[LOGITS:.*]] = moe.grouped_matmul
// CHECK:           %[[WEIGHTS:.*]], %[[IDS:.*]] = moe.gate %[[LOGITS]]
// CHECK:           moe.yield %[[WEIGHTS]], %[[IDS]]
// CHECK:         return %[[R]]#0, %[[R]]#1
func.func @router(%x: tensor<?x64xbf16>, %w: tensor<1x8x64xbf16>, %init: tensor<?x8xf32>)
    -> (tensor<?x2xf32>, tensor<?x2xi32>) {
  %logits = moe.grouped_matmul %x weights(%w : tensor<1x8x64xbf16>) transposed
      outs(%init : tensor<?x8xf32>) {
  ^bb0(%accumulator: f32):
    moe.yield %accumulator : f32
  } : tensor<?x64xbf16> -> tensor<?x8xf32>
  %weights, %ids = moe.gate %logits top_k(2) : tensor<?x8xf32>
  return %weights, %ids : tensor<?x2xf32>, tensor<?x2xi32>
}
