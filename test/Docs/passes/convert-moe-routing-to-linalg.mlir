// RUN: moe-opt %s --convert-moe-routing-to-linalg | FileCheck %s

// The route becomes linalg and loops; the grouped matmul is left to a kernel.
// CHECK-LABEL: func.func @routed(
// CHECK-NOT:     moe.route
// CHECK:         moe.grouped_matmul
func.func @routed(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>, %w: tensor<8x16x32xf32>, %init: tensor<?x32xf32>) -> tensor<?x32xf32> {
  %tokens, %offsets, %positions = moe.route %ids experts(8) : tensor<?x2xi32>
  %y = moe.grouped_matmul %x gather(%tokens : tensor<?xi32>) offsets(%offsets : tensor<9xi32>) weights(%w : tensor<8x16x32xf32>) outs(%init : tensor<?x32xf32>) {
  ^bb0(%sum: f32):
    moe.yield %sum : f32
  } : tensor<?x16xf32> -> tensor<?x32xf32>
  return %y : tensor<?x32xf32>
}
