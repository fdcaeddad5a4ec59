// Where nothing is of the moe dialect yet.
// RUN: moe-opt %s -moe-dense-to-grouped | FileCheck %s

// CHECK-LABEL: func.func @product(
// CHECK:         moe.grouped_matmul
func.func @product(%x: tensor<?x4xf32>, %w: tensor<4x8xf32>, %e: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %z = arith.constant 0.0 : f32
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
  %y = linalg.matmul ins(%x, %w : tensor<?x4xf32>, tensor<4x8xf32>) outs(%f : tensor<?x8xf32>) -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}
