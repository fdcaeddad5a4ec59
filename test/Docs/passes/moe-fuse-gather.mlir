// RUN: moe-opt %s --moe-fuse-gather | FileCheck %s

// The grouped rows are never in memory: the product gathers them.
// CHECK-LABEL: func.func @gathered(
// CHECK-SAME:    %[[X:[a-z0-9]+]]: tensor<?x16xf32>
// CHECK:         %[[TOKENS:.*]], %[[OFFSETS:.*]], %{{.*}} = moe.route
// CHECK:         moe.grouped_matmul %[[X]] gather(%[[TOKENS]] : tensor<?xi32>) offsets(%[[OFFSETS]]
func.func @gathered(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>, %w: tensor<8x16x32xf32>, %init: tensor<?x32xf32>) -> tensor<?x32xf32> {
  %rows, %offsets, %positions = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x2xi32>
  %y = moe.grouped_matmul %rows offsets(%offsets : tensor<9xi32>) weights(%w : tensor<8x16x32xf32>) outs(%init : tensor<?x32xf32>) {
  ^bb0(%sum: f32):
    moe.yield %sum : f32
  } : tensor<?x16xf32> -> tensor<?x32xf32>
  return %y : tensor<?x32xf32>
}
