// RUN: moe-opt %s | moe-opt | FileCheck %s
// RUN: moe-opt %s -resolve-shaped-type-result-dims -canonicalize | FileCheck %s --check-prefix=DIMS

// Parameters with their defaults are not printed.
// CHECK-LABEL: func.func @grouped(
// CHECK:         moe.dequantize %{{.*}}, %{{.*}} format(<codes = <element = f4E2M1FN, bits = [#moe.bits<width = 4>]>, scales = [#moe.field<element = f8E8M0FNU, operand = 1, block = [1, 32]>]>) : tensor<?x96x2x16xi8>, tensor<?x96x2xi8> -> tensor<?x96x64xbf16>
func.func @grouped(%codes: tensor<?x96x2x16xi8>, %scales: tensor<?x96x2xi8>) -> tensor<?x96x64xbf16> {
  %w = moe.dequantize %codes, %scales format(<
      codes = <element = f4E2M1FN, operand = 0, bits = [#moe.bits<width = 4, run = 1>]>, offset = 0,
      scales = [#moe.field<element = f8E8M0FNU, operand = 1, block = [1, 32]>]>)
    : tensor<?x96x2x16xi8>, tensor<?x96x2xi8> -> tensor<?x96x64xbf16>
  return %w : tensor<?x96x64xbf16>
}

// One row of blocks of 128 x 128 is partial, and a matrix has no leading dimension.
// CHECK-LABEL: func.func @blocks(
// CHECK:         block = [128, 128]
func.func @blocks(%codes: tensor<192x320xf8E4M3FN>, %scales: tensor<2x3xf32>) -> tensor<192x320xf32> {
  %w = moe.dequantize %codes, %scales format(<codes = <element = f8E4M3FN>,
      scales = [#moe.field<element = f32, operand = 1, block = [128, 128]>]>)
    : tensor<192x320xf8E4M3FN>, tensor<2x3xf32> -> tensor<192x320xf32>
  return %w : tensor<192x320xf32>
}

// Records, scales and mins of 6 bits in pieces, as GGUF's q4_K.
// CHECK-LABEL: func.func @record(
// CHECK:         record = [256, 144], scales = [{{.*}}mins = [
func.func @record(%w: tensor<3x288xi8>) -> tensor<3x512xf16> {
  %d = moe.dequantize %w format(<
      codes = <element = ui4, bits = [#moe.bits<width = 4, byte = 16, run = 32>]>,
      record = [256, 144],
      scales = [#moe.field<element = f16, block = [1, 256], bits = [#moe.bits<width = 16>]>,
                #moe.field<element = ui6, block = [1, 32],
                           bits = [#moe.bits<width = 6, byte = 4, run = 4, count = 4>,
                                   #moe.bits<width = 4, byte = 12, run = 4, first = 4, count = 4>,
                                   #moe.bits<width = 2, byte = 4, bit = 6, run = 4, first = 4, count = 4, shift = 4>]>],
      mins = [#moe.field<element = f16, block = [1, 256], bits = [#moe.bits<width = 16, byte = 2>]>]>)
    : tensor<3x288xi8> -> tensor<3x512xf16>
  return %d : tensor<3x512xf16>
}

// Zero points that share words along the rows, and a table of values.
// CHECK-LABEL: func.func @zeros(
// CHECK:         zero = <element = ui4, operand = 2, block = [1, 8], bits = [#moe.bits<width = 4>], axis = 0>
func.func @zeros(%w: tensor<12x2xi32>, %s: tensor<12x2xbf16>, %z: tensor<2x2xi32>) -> tensor<12x16xbf16> {
  %d = moe.dequantize %w, %s, %z format(<
      codes = <element = ui4, bits = [#moe.bits<width = 4>]>,
      scales = [#moe.field<element = bf16, operand = 1, block = [1, 8], divide = true>],
      zero = <element = ui4, operand = 2, block = [1, 8], bits = [#moe.bits<width = 4>], axis = 0>>)
    : tensor<12x2xi32>, tensor<12x2xbf16>, tensor<2x2xi32> -> tensor<12x16xbf16>
  return %d : tensor<12x16xbf16>
}

// DIMS-LABEL: func.func @dims(
// DIMS-SAME:    %[[CODES:.*]]: tensor<?x4x8xi8>
// DIMS:         %[[DIM:.*]] = tensor.dim %[[CODES]], %c0
// DIMS:         return %[[DIM]] : index
func.func @dims(%codes: tensor<?x4x8xi8>) -> index {
  %w = moe.dequantize %codes format(<codes = <element = si8>>) : tensor<?x4x8xi8> -> tensor<?x4x8xf32>
  %c0 = arith.constant 0 : index
  %d = tensor.dim %w, %c0 : tensor<?x4x8xf32>
  return %d : index
}
