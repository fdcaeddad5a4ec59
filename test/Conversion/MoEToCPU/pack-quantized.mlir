// RUN: moe-opt %s -moe-export -moe-pack-weights="vector-bits=512 vector-registers=32 bf16-dot=true" -canonicalize | FileCheck %s
// RUN: moe-opt %s -moe-export -moe-pack-weights="vector-bits=128" -canonicalize | FileCheck %s --check-prefix=DECODED

// Codes of 4 bits stay as they are, next to their scales: 2 groups of 64 columns x (16 + 2) bytes. Rows
// are sliced as fields.
// CHECK-LABEL: func.func @layer(
// CHECK-SAME:    %[[PACKED:[a-z0-9]+]]: tensor<2x1x2304xi8> {bufferization.writable = false})
// CHECK:         moe.grouped_matmul %{{.*}} weights(%[[PACKED]] : tensor<2x1x2304xi8>) panels(<matmuls = 2, columns = 64, depth = 8, format = <codes = <element = ui4,
// CHECK:       func.func @layer__prepare0(
// CHECK-SAME:    %[[W:.*]]: tensor<?x40x32xi8> {moe.name = "w"}, %[[S:.*]]: tensor<?x40x2xf16> {moe.name = "s"})
// CHECK-DAG:     %[[W0:.*]] = tensor.extract_slice %[[W]][0, 0, 0] [%{{.*}}, 20, 32] [1, 2, 1]
// CHECK-DAG:     %[[S0:.*]] = tensor.extract_slice %[[S]][0, 0, 0] [%{{.*}}, 20, 2] [1, 2, 1]
// CHECK-DAG:     %[[W1:.*]] = tensor.extract_slice %[[W]][0, 1, 0] [%{{.*}}, 20, 32] [1, 2, 1]
// CHECK-DAG:     %[[S1:.*]] = tensor.extract_slice %[[S]][0, 1, 0] [%{{.*}}, 20, 2] [1, 2, 1]
// CHECK:         moe.pack %[[W0]], %[[S0]], %[[W1]], %[[S1]] transposed panels({{.*}}) extents([64, 20])
// Without table lookups they are decoded.
// DECODED-LABEL: func.func @layer(
// DECODED-SAME:    tensor<2x5x64x8x1xf32>
// DECODED:       func.func @layer__prepare0(
// DECODED:         moe.dequantize
func.func @layer(%x: tensor<?x64xf32>, %o: tensor<3xi32>, %w: tensor<2x40x32xi8> {moe.role = "weight", moe.name = "w"},
                 %s: tensor<2x40x2xf16> {moe.role = "weight", moe.name = "s"}) -> tensor<?x20xf32> {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x64xf32>
  %e = tensor.empty(%n) : tensor<?x20xf32>
  %d = moe.dequantize %w, %s format(<codes = <element = ui4, bits = [#moe.bits<width = 4>]>, offset = 8,
      scales = [#moe.field<element = f16, operand = 1, block = [1, 32]>]>)
    : tensor<2x40x32xi8>, tensor<2x40x2xf16> -> tensor<2x40x64xf32>
  %g = tensor.extract_slice %d[0, 0, 0] [2, 20, 64] [1, 2, 1] : tensor<2x40x64xf32> to tensor<2x20x64xf32>
  %u = tensor.extract_slice %d[0, 1, 0] [2, 20, 64] [1, 2, 1] : tensor<2x40x64xf32> to tensor<2x20x64xf32>
  %y = moe.grouped_matmul %x offsets(%o : tensor<3xi32>) weights(%g, %u : tensor<2x20x64xf32>, tensor<2x20x64xf32>) transposed outs(%e : tensor<?x20xf32>) {
  ^bb0(%a: f32, %b: f32):
    %m = arith.mulf %a, %b : f32
    moe.yield %m : f32
  } : tensor<?x64xf32> -> tensor<?x20xf32>
  return %y : tensor<?x20xf32>
}

// Zero points stay, as do blocks of rows: the scale of each column follows its codes.
// CHECK-LABEL: func.func @zeros(
// CHECK-SAME:    tensor<1x1x768xi8>
// CHECK-LABEL: func.func @zeros__prepare0(
// CHECK:         moe.pack
func.func @zeros(%x: tensor<?x64xf32>, %w: tensor<8x32xi8> {moe.role = "weight", moe.name = "w"},
                 %s: tensor<4x2xf32> {moe.role = "weight", moe.name = "s"}) -> tensor<?x8xf32> {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x64xf32>
  %e = tensor.empty(%n) : tensor<?x8xf32>
  %d = moe.dequantize %w, %s format(<codes = <element = ui4, bits = [#moe.bits<width = 4>]>,
      scales = [#moe.field<element = f32, operand = 1, block = [2, 32]>],
      zero = <element = f32, operand = 1, block = [2, 32]>>)
    : tensor<8x32xi8>, tensor<4x2xf32> -> tensor<8x64xf32>
  %m = tensor.expand_shape %d [[0, 1], [2]] output_shape [1, 8, 64] : tensor<8x64xf32> into tensor<1x8x64xf32>
  %y = moe.grouped_matmul %x weights(%m : tensor<1x8x64xf32>) transposed outs(%e : tensor<?x8xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : tensor<?x64xf32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// Scales that divide, and a k without whole steps: decoded.
// CHECK-LABEL: func.func @divisors(
// CHECK-SAME:    tensor<1x1x64x16x1xf32>
// CHECK:         moe.dequantize
func.func @divisors(%x: tensor<?x64xf32>, %w: tensor<8x32xi8> {moe.role = "weight", moe.name = "w"},
                 %s: tensor<8x2xf32> {moe.role = "weight", moe.name = "s"}) -> tensor<?x8xf32> {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x64xf32>
  %e = tensor.empty(%n) : tensor<?x8xf32>
  %d = moe.dequantize %w, %s format(<codes = <element = ui4, bits = [#moe.bits<width = 4>]>,
      scales = [#moe.field<element = f32, operand = 1, block = [1, 32], divide = true>]>)
    : tensor<8x32xi8>, tensor<8x2xf32> -> tensor<8x64xf32>
  %m = tensor.expand_shape %d [[0, 1], [2]] output_shape [1, 8, 64] : tensor<8x64xf32> into tensor<1x8x64xf32>
  %y = moe.grouped_matmul %x weights(%m : tensor<1x8x64xf32>) transposed outs(%e : tensor<?x8xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : tensor<?x64xf32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// CHECK-LABEL: func.func @odd_k(
// CHECK:         moe.dequantize
func.func @odd_k(%x: tensor<?x36xf32>, %w: tensor<8x18xi8> {moe.role = "weight", moe.name = "w"},
                 %s: tensor<8x2xf32> {moe.role = "weight", moe.name = "s"}) -> tensor<?x8xf32> {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x36xf32>
  %e = tensor.empty(%n) : tensor<?x8xf32>
  %d = moe.dequantize %w, %s format(<codes = <element = ui4, bits = [#moe.bits<width = 4>]>,
      scales = [#moe.field<element = f32, operand = 1, block = [1, 32]>]>)
    : tensor<8x18xi8>, tensor<8x2xf32> -> tensor<8x36xf32>
  %m = tensor.expand_shape %d [[0, 1], [2]] output_shape [1, 8, 36] : tensor<8x36xf32> into tensor<1x8x36xf32>
  %y = moe.grouped_matmul %x weights(%m : tensor<1x8x36xf32>) transposed outs(%e : tensor<?x8xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : tensor<?x36xf32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// Scales of blocks of rows are sliced with them.
// CHECK-LABEL: func.func @second_half__prepare0(
// CHECK-SAME:    %[[W:[a-z0-9]+]]: tensor<?x256x64xf8E4M3FN>{{.*}}, %[[S:[a-z0-9]+]]: tensor<?x2x2xf32>
// CHECK-DAG:     %[[CODES:.*]] = tensor.extract_slice %[[W]][0, 128, 0] [%{{.*}}, 128, 64] [1, 1, 1]
// CHECK-DAG:     %[[SCALES:.*]] = tensor.extract_slice %[[S]][0, 1, 0] [%{{.*}}, 1, 2] [1, 1, 1]
// CHECK:         moe.pack %[[CODES]], %[[SCALES]] transposed
func.func @second_half(%x: tensor<?x64xf32>, %o: tensor<3xi32>,
                 %w: tensor<2x256x64xf8E4M3FN> {moe.role = "weight", moe.name = "w"},
                 %s: tensor<2x2x2xf32> {moe.role = "weight", moe.name = "s"}) -> tensor<?x128xf32> {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x64xf32>
  %e = tensor.empty(%n) : tensor<?x128xf32>
  %d = moe.dequantize %w, %s format(<codes = <element = f8E4M3FN>,
      scales = [#moe.field<element = f32, operand = 1, block = [128, 32]>]>)
    : tensor<2x256x64xf8E4M3FN>, tensor<2x2x2xf32> -> tensor<2x256x64xf32>
  %u = tensor.extract_slice %d[0, 128, 0] [2, 128, 64] [1, 1, 1] : tensor<2x256x64xf32> to tensor<2x128x64xf32>
  %y = moe.grouped_matmul %x offsets(%o : tensor<3xi32>) weights(%u : tensor<2x128x64xf32>) transposed outs(%e : tensor<?x128xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : tensor<?x64xf32> -> tensor<?x128xf32>
  return %y : tensor<?x128xf32>
}

// A slice that begins within a block is decoded.
// CHECK-LABEL: func.func @within_blocks__prepare0(
// CHECK:         moe.dequantize
// CHECK:         tensor.extract_slice %{{.*}}[0, 64, 0]
func.func @within_blocks(%x: tensor<?x64xf32>, %o: tensor<3xi32>,
                 %w: tensor<2x256x64xf8E4M3FN> {moe.role = "weight", moe.name = "w"},
                 %s: tensor<2x2x2xf32> {moe.role = "weight", moe.name = "s"}) -> tensor<?x128xf32> {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x64xf32>
  %e = tensor.empty(%n) : tensor<?x128xf32>
  %d = moe.dequantize %w, %s format(<codes = <element = f8E4M3FN>,
      scales = [#moe.field<element = f32, operand = 1, block = [128, 32]>]>)
    : tensor<2x256x64xf8E4M3FN>, tensor<2x2x2xf32> -> tensor<2x256x64xf32>
  %u = tensor.extract_slice %d[0, 64, 0] [2, 128, 64] [1, 1, 1] : tensor<2x256x64xf32> to tensor<2x128x64xf32>
  %y = moe.grouped_matmul %x offsets(%o : tensor<3xi32>) weights(%u : tensor<2x128x64xf32>) transposed outs(%e : tensor<?x128xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : tensor<?x64xf32> -> tensor<?x128xf32>
  return %y : tensor<?x128xf32>
}
