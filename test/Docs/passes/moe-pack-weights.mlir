// RUN: moe-opt %s --moe-export --moe-pack-weights='vector-bits=256' | FileCheck %s

// The layer takes packed weights; a function of its own packs them, once.
// CHECK-LABEL: func.func @layer(
// CHECK:         moe.grouped_matmul {{.*}} panels(
// CHECK-LABEL: func.func @layer__prepare0(
// CHECK:         moe.pack
func.func @layer(%x: tensor<?x16xf32>, %o: tensor<9xi32>, %w: tensor<8x16x32xf32> {moe.role = "weight"}) -> tensor<?x32xf32> {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x16xf32>
  %e = tensor.empty(%n) : tensor<?x32xf32>
  %y = moe.grouped_matmul %x offsets(%o : tensor<9xi32>) weights(%w : tensor<8x16x32xf32>) outs(%e : tensor<?x32xf32>) {
  ^bb0(%sum: f32):
    moe.yield %sum : f32
  } : tensor<?x16xf32> -> tensor<?x32xf32>
  return %y : tensor<?x32xf32>
}
