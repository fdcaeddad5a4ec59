// REQUIRES: target-nvptx
// RUN: moe-opt %s -convert-moe-to-gpu --remarks-filter-missed=moe-gpu 2>&1 | FileCheck %s

// A warp computes a token: one launch, of four tokens a block.
// CHECK-LABEL: llvm.func @gate_gradient(
// CHECK-SAME:    moe.work = {bytes = 0 : i64, bytes_per_row = 0 : i64, bytes_per_token = 1088 : i64
// CHECK-SAME:    nvvm.maxntid = array<i32: 128, 1, 1>
// CHECK-LABEL: func.func @mixtral(
// CHECK-NOT:     moe.gate_gradient
// CHECK:         moe_rt.launch @kernels::@gate_gradient
// CHECK-NOT:     moe_rt.launch
func.func @mixtral(%logits: tensor<?x128xf32>, %ids: tensor<?x8xi32>,
                   %gradient: tensor<?x8xf32>) -> tensor<?x128xf32> {
  %d = moe.gate_gradient %logits, %ids, %gradient normalize(<sum>)
    : tensor<?x128xf32>, tensor<?x8xi32>, tensor<?x8xf32>
  return %d : tensor<?x128xf32>
}

// The rest stays as it is, for loops.
// CHECK-LABEL: func.func @tokens(
// CHECK:         moe.gate_gradient {{.*}} score_axis(tokens)
func.func @tokens(%logits: tensor<?x8xf32>, %ids: tensor<?x2xi32>,
                  %gradient: tensor<?x2xf32>) -> tensor<?x8xf32> {
  %d = moe.gate_gradient %logits, %ids, %gradient score_axis(tokens)
    : tensor<?x8xf32>, tensor<?x2xi32>, tensor<?x2xf32>
  return %d : tensor<?x8xf32>
}
