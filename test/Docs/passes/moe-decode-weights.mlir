// RUN: moe-opt %s --moe-export --moe-decode-weights | FileCheck %s

// The layer takes decoded weights; a function of its own decodes them, once.
// CHECK-LABEL: func.func @layer(
// CHECK-NOT:     moe.dequantize
// CHECK-LABEL: func.func @layer__prepare0(
// CHECK:         moe.dequantize
func.func @layer(%x: tensor<?x16xbf16>, %o: tensor<9xi32>, %w: tensor<8x32x16xi8> {moe.role = "weight"}) -> tensor<?x32xbf16> {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x16xbf16>
  %e = tensor.empty(%n) : tensor<?x32xbf16>
  %d = moe.dequantize %w format(<codes = <element = si8>>) : tensor<8x32x16xi8> -> tensor<8x32x16xbf16>
  %y = moe.grouped_matmul %x offsets(%o : tensor<9xi32>) weights(%d : tensor<8x32x16xbf16>) transposed outs(%e : tensor<?x32xbf16>) {
  ^bb0(%sum: f32):
    %r = arith.truncf %sum : f32 to bf16
    moe.yield %r : bf16
  } : tensor<?x16xbf16> -> tensor<?x32xbf16>
  return %y : tensor<?x32xbf16>
}
