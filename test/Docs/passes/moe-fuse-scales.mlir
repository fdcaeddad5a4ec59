// RUN: moe-opt %s --moe-fuse-scales | FileCheck %s

// The product reads the 8-bit weights, with one scale for each block of 128 by 128.
// CHECK-LABEL: func.func @dequantized(
// CHECK-NOT:     linalg.generic
// CHECK:         moe.grouped_matmul {{.*}} weights(%{{.*}} : tensor<2x256x128xf8E4M3FN>) weight_scales(%{{.*}} : tensor<2x2x1xf32>) blocks([128, 128])
#whole = affine_map<(e, k, n) -> (e, k, n)>
#block = affine_map<(e, k, n) -> (e, k floordiv 128, n floordiv 128)>
func.func @dequantized(%x: tensor<?x256xf32>, %o: tensor<3xi32>, %q: tensor<2x256x128xf8E4M3FN>,
                       %s: tensor<2x2x1xf32>, %init: tensor<?x128xf32>) -> tensor<?x128xf32> {
  %e = tensor.empty() : tensor<2x256x128xf32>
  %w = linalg.generic {indexing_maps = [#whole, #block, #whole], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%q, %s : tensor<2x256x128xf8E4M3FN>, tensor<2x2x1xf32>) outs(%e : tensor<2x256x128xf32>) {
  ^bb0(%a: f8E4M3FN, %scale: f32, %old: f32):
    %b = arith.extf %a : f8E4M3FN to f32
    %c = arith.mulf %b, %scale : f32
    linalg.yield %c : f32
  } -> tensor<2x256x128xf32>
  %y = moe.grouped_matmul %x offsets(%o : tensor<3xi32>) weights(%w : tensor<2x256x128xf32>) outs(%init : tensor<?x128xf32>) {
  ^bb0(%sum: f32):
    moe.yield %sum : f32
  } : tensor<?x256xf32> -> tensor<?x128xf32>
  return %y : tensor<?x128xf32>
}
