// RUN: moe-opt %s --moe-fuse-router --moe-tile-for-gpu='arch=sm_90a' --moe-fuse-combine | FileCheck %s

// The router clears the counters of the kernel that multiplies and combines.
// CHECK-LABEL: func.func @layer(
// CHECK:         %[[R:.*]]:6 = moe.fused {
// CHECK:         %[[Y:.*]] = moe.fused counters(%[[R]]#5 : tensor<?xi32>) {
// CHECK:           %[[ROWS:.*]] = moe.grouped_matmul
// CHECK:           moe.gather_sum %[[ROWS]], %[[R]]#4 weights(%[[R]]#0
// CHECK:         return %[[Y]]
func.func @layer(%x: tensor<?x64xbf16>, %w: tensor<1x8x64xbf16>, %down: tensor<8x64x64xbf16>,
                 %e0: tensor<?x8xf32>, %e1: tensor<?x64xbf16>, %e2: tensor<?x64xbf16>)
    -> tensor<?x64xbf16> {
  %logits = moe.grouped_matmul %x weights(%w : tensor<1x8x64xbf16>) transposed
      outs(%e0 : tensor<?x8xf32>) {
  ^bb0(%accumulator: f32):
    moe.yield %accumulator : f32
  } : tensor<?x64xbf16> -> tensor<?x8xf32>
  %weights, %ids = moe.gate %logits top_k(2) : tensor<?x8xf32>
  %tokens, %offsets, %positions = moe.route %ids experts(8) : tensor<?x2xi32>
  %rows = moe.grouped_matmul %x gather(%tokens : tensor<?xi32>) offsets(%offsets : tensor<9xi32>)
      weights(%down : tensor<8x64x64xbf16>) transposed outs(%e1 : tensor<?x64xbf16>) {
  ^bb0(%accumulator: f32):
    %element = arith.truncf %accumulator : f32 to bf16
    moe.yield %element : bf16
  } : tensor<?x64xbf16> -> tensor<?x64xbf16>
  %y = moe.gather_sum %rows, %positions weights(%weights : tensor<?x2xf32>)
      outs(%e2 : tensor<?x64xbf16>) : tensor<?x64xbf16>, tensor<?x2xi32> -> tensor<?x64xbf16>
  return %y : tensor<?x64xbf16>
}
