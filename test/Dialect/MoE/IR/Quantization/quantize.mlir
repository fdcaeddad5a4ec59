// RUN: moe-opt %s | moe-opt | FileCheck %s
// RUN: moe-opt %s -resolve-shaped-type-result-dims -canonicalize | FileCheck %s --check-prefix=DIMS

#f8 = #moe.format<codes = <element = f8E4M3FN>, scales = [#moe.field<element = f32, operand = 1, block = [1, 128]>]>
#int4 = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4>]>, offset = 8, scales = [#moe.field<element = f16, operand = 1, block = [1, 32]>]>
#mxfp4 = #moe.format<codes = <element = f4E2M1FN, bits = [#moe.bits<width = 4>]>, scales = [#moe.field<element = f8E8M0FNU, operand = 1, block = [1, 32]>]>
#blocks = #moe.format<codes = <element = f8E4M3FN>, scales = [#moe.field<element = f32, operand = 1, block = [128, 128]>]>

// CHECK-LABEL: func.func @rows(
// CHECK:         %[[Q:quantized]], %[[S:scales]] = moe.quantize %{{.*}} format(<codes = <element = f8E4M3FN>, scales = [#moe.field<element = f32, operand = 1, block = [1, 128]>]>) : tensor<?x320xbf16> -> tensor<?x320xf8E4M3FN>, tensor<?x3xf32>
// CHECK:         return %[[Q]], %[[S]]
func.func @rows(%x: tensor<?x320xbf16>) -> (tensor<?x320xf8E4M3FN>, tensor<?x3xf32>) {
  %q, %s = moe.quantize %x format(#f8) : tensor<?x320xbf16> -> tensor<?x320xf8E4M3FN>, tensor<?x3xf32>
  return %q, %s : tensor<?x320xf8E4M3FN>, tensor<?x3xf32>
}

// Nibbles and scales of the transposed matrices, the last ones of partial blocks.
// CHECK-LABEL: func.func @transposed(
// CHECK:         moe.quantize %{{.*}} transposed format(<{{.*}}>) : tensor<?x75x10xf32> -> tensor<?x10x38xi8>, tensor<?x10x3xf16>
func.func @transposed(%w: tensor<?x75x10xf32>) -> tensor<?x10x38xi8> {
  %q, %s = moe.quantize %w transposed format(#int4) : tensor<?x75x10xf32> -> tensor<?x10x38xi8>, tensor<?x10x3xf16>
  return %q : tensor<?x10x38xi8>
}

// CHECK-LABEL: func.func @exponents(
// CHECK:         -> tensor<4x8x32xi8>, tensor<4x8x2xf8E8M0FNU>
func.func @exponents(%w: tensor<4x8x64xbf16>) {
  %q, %s = moe.quantize %w format(#mxfp4) : tensor<4x8x64xbf16> -> tensor<4x8x32xi8>, tensor<4x8x2xf8E8M0FNU>
  return
}

// CHECK-LABEL: func.func @blocks(
// CHECK:         -> tensor<4x320x192xf8E4M3FN>, tensor<4x3x2xf32>
func.func @blocks(%w: tensor<4x320x192xbf16>) {
  %q, %s = moe.quantize %w format(#blocks) : tensor<4x320x192xbf16> -> tensor<4x320x192xf8E4M3FN>, tensor<4x3x2xf32>
  return
}

// DIMS-LABEL: func.func @dims(
// DIMS-SAME:    %[[X:[^:]*]]: tensor<?x320xf32>, %[[W:.*]]: tensor<3x256x?xf32>)
// DIMS:         %[[DIM:.*]] = tensor.dim %[[X]], %c0
// DIMS:         %[[ROWS:.*]] = tensor.dim %[[W]], %c2
// DIMS:         return %[[DIM]], %[[ROWS]] : index, index
func.func @dims(%x: tensor<?x320xf32>, %w: tensor<3x256x?xf32>) -> (index, index) {
  %q, %s = moe.quantize %x format(#f8) : tensor<?x320xf32> -> tensor<?x320xf8E4M3FN>, tensor<?x3xf32>
  %r, %t = moe.quantize %w transposed format(#f8) : tensor<3x256x?xf32> -> tensor<3x?x256xf8E4M3FN>, tensor<3x?x2xf32>
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %d = tensor.dim %s, %c0 : tensor<?x3xf32>
  %e = tensor.dim %t, %c1 : tensor<3x?x2xf32>
  return %d, %e : index, index
}
