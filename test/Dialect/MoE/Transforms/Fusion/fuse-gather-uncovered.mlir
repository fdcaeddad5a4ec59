// RUN: moe-opt %s -moe-fuse-gather | FileCheck %s
// RUN: moe-opt %s -moe-fuse-gather --remarks-filter-missed=moe-fuse -o /dev/null 2>&1 | FileCheck %s --check-prefix=MISSED

// MISSED: [Missed] GatherNotFused | Category:moe-fuse | Function=without_offsets | Remark="not fused: a matmul reads rows that no expert covers"
// MISSED: [Missed] GatherNotFused | Category:moe-fuse | Function=other_offsets | Remark="not fused: a matmul reads rows that no expert covers"

// A product that reads rows of no expert, which are zero, needs them: their number
// is -1, held to the first token.

// CHECK-LABEL: func.func @without_offsets(
// CHECK:         moe.dispatch
// CHECK-NOT:     gather(
func.func @without_offsets(%x: tensor<6x4xf32>, %ids: tensor<6x1xi32>, %w: tensor<1x4x8xf32>, %e: tensor<6x8xf32>) -> tensor<6x8xf32> {
  %g, %o, %pos = moe.dispatch %x, %ids experts(2) uncovered(zero) : tensor<6x4xf32>, tensor<6x1xi32>
  %a = moe.grouped_matmul %g weights(%w : tensor<1x4x8xf32>) outs(%e : tensor<6x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<6x4xf32> -> tensor<6x8xf32>
  return %a : tensor<6x8xf32>
}

// CHECK-LABEL: func.func @other_offsets(
// CHECK:         moe.dispatch
// CHECK-NOT:     gather(
func.func @other_offsets(%x: tensor<6x4xf32>, %ids: tensor<6x1xi32>, %q: tensor<3xi32>, %w: tensor<2x4x8xf32>, %e: tensor<6x8xf32>) -> tensor<6x8xf32> {
  %g, %o, %pos = moe.dispatch %x, %ids experts(2) uncovered(zero) : tensor<6x4xf32>, tensor<6x1xi32>
  %a = moe.grouped_matmul %g offsets(%q : tensor<3xi32>) weights(%w : tensor<2x4x8xf32>) outs(%e : tensor<6x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<6x4xf32> -> tensor<6x8xf32>
  return %a : tensor<6x8xf32>
}
