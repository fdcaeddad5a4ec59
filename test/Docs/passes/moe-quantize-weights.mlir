// RUN: moe-opt %s --moe-quantize-weights | FileCheck %s

// Groups of 32 along the dimension of the sum, which is the first of each matrix.
// CHECK:         %[[Q:.*]], %[[S:.*]] = moe.quantize %[[W:.*]] transposed {{.*}} : tensor<8x64x48xbf16> -> tensor<8x48x32xi8>, tensor<8x48x2xf16>
// CHECK:         %[[D:.*]] = moe.dequantize %[[Q]], %[[S]] {{.*}} -> tensor<8x48x64xbf16>
// CHECK:         moe.grouped_matmul {{.*}} weights(%[[D]] : tensor<8x48x64xbf16>) transposed
func.func @layer(%x: tensor<?x64xbf16>, %o: tensor<9xi32>, %w: tensor<8x64x48xbf16> {moe.role = "weight"}, %init: tensor<?x48xf32>) -> tensor<?x48xf32>
    attributes {moe.weight_format = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4>]>, offset = 8,
                                                scales = [#moe.field<element = f16, operand = 1, block = [1, 32]>]>} {
  %y = moe.grouped_matmul %x offsets(%o : tensor<9xi32>) weights(%w : tensor<8x64x48xbf16>) outs(%init : tensor<?x48xf32>) {
  ^bb0(%sum: f32):
    moe.yield %sum : f32
  } : tensor<?x64xbf16> -> tensor<?x48xf32>
  return %y : tensor<?x48xf32>
}
