// RUN: moe-opt %s --moe-dense-to-grouped | FileCheck %s

// A router's product: one group, so no offsets.
// CHECK-LABEL: func.func @router(
// CHECK-NOT:     linalg.matmul
// CHECK:         moe.grouped_matmul %{{.*}} weights(%{{.*}} : tensor<1x64x8xf32>)
func.func @router(%x: tensor<4x64xf32>, %w: tensor<64x8xf32>) -> tensor<4x8xf32> {
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<4x8xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<4x8xf32>) -> tensor<4x8xf32>
  %y = linalg.matmul ins(%x, %w : tensor<4x64xf32>, tensor<64x8xf32>) outs(%f : tensor<4x8xf32>) -> tensor<4x8xf32>
  return %y : tensor<4x8xf32>
}
