// RUN: not moe-opt %s --moe-verify-shapes 2>&1 | FileCheck %s

// The rows have 17 columns and the weights 32 rows: this product is an error.
// CHECK: error: 'linalg.matmul' op expected dimension 0 of operand #1 to have the extent 17 that operand #0 has, got 32
func.func @product(%x: tensor<?x17xf32>, %w: tensor<32x8xf32>, %y: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %z = linalg.matmul ins(%x, %w : tensor<?x17xf32>, tensor<32x8xf32>)
                     outs(%y : tensor<?x8xf32>) -> tensor<?x8xf32>
  return %z : tensor<?x8xf32>
}
