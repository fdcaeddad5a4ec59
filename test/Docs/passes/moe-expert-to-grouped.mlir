// RUN: moe-opt %s --moe-expert-to-grouped | FileCheck %s

// One product of the rows of all experts with the weights of all experts.
// CHECK-LABEL: func.func @expert(
// CHECK-NOT:     moe.expert
// CHECK:         moe.grouped_matmul %{{.*}} offsets(%{{.*}} : tensor<9xi32>) weights(%{{.*}} : tensor<8x16x32xf32>)
func.func @expert(%x: tensor<?x16xf32>, %offsets: tensor<9xi32>, %w: tensor<8x16x32xf32>) -> tensor<?x32xf32> {
  %y = moe.expert %x, %offsets params(%w : tensor<8x16x32xf32>) {
  ^bb0(%rows: tensor<?x16xf32>, %v: tensor<16x32xf32>):
    %c0 = arith.constant 0 : index
    %zero = arith.constant 0.0 : f32
    %n = tensor.dim %rows, %c0 : tensor<?x16xf32>
    %e = tensor.empty(%n) : tensor<?x32xf32>
    %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x32xf32>) -> tensor<?x32xf32>
    %p = linalg.matmul ins(%rows, %v : tensor<?x16xf32>, tensor<16x32xf32>) outs(%f : tensor<?x32xf32>) -> tensor<?x32xf32>
    moe.yield %p : tensor<?x32xf32>
  } : tensor<?x16xf32>, tensor<9xi32> -> tensor<?x32xf32>
  return %y : tensor<?x32xf32>
}
