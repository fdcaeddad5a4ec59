// RUN: moe-opt %s --moe-fuse-epilogue | FileCheck %s

// The negation becomes the epilogue of the product.
// CHECK-LABEL: func.func @negated(
// CHECK:         moe.grouped_matmul
// CHECK:           %[[N:.*]] = arith.negf
// CHECK:           moe.yield %[[N]] : f32
// CHECK-NOT:     linalg.generic
#id = affine_map<(r, n) -> (r, n)>
func.func @negated(%x: tensor<4x16xf32>, %o: tensor<9xi32>, %w: tensor<8x16x32xf32>) -> tensor<4x32xf32> {
  %e = tensor.empty() : tensor<4x32xf32>
  %y = moe.grouped_matmul %x offsets(%o : tensor<9xi32>) weights(%w : tensor<8x16x32xf32>) outs(%e : tensor<4x32xf32>) {
  ^bb0(%sum: f32):
    moe.yield %sum : f32
  } : tensor<4x16xf32> -> tensor<4x32xf32>
  %z = linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel", "parallel"]}
      ins(%y : tensor<4x32xf32>) outs(%e : tensor<4x32xf32>) {
  ^bb0(%a: f32, %old: f32):
    %n = arith.negf %a : f32
    linalg.yield %n : f32
  } -> tensor<4x32xf32>
  return %z : tensor<4x32xf32>
}
