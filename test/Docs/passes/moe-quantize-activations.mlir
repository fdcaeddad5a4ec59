// RUN: moe-opt %s --moe-quantize-activations='vector-bits=256' | FileCheck %s

// The rows become groups of 32 integers, a scale and six sums: 48 bytes.
// CHECK-LABEL: func.func @layer(
// CHECK:         %[[Q:.*]] = moe.quantize_rows {{.*}} tensor<?x64xf32> -> tensor<?x96xi8>
// CHECK:         moe.grouped_matmul %[[Q]]
func.func @layer(%x: tensor<?x64xf32>, %w: tensor<1x2x1152xi8>, %init: tensor<?x50xf32>) -> tensor<?x50xf32>
    attributes {moe.activations = "int8"} {
  %y = moe.grouped_matmul %x weights(%w : tensor<1x2x1152xi8>)
      panels(<matmuls = 1, columns = 32, depth = 8, format = <
        codes = <element = ui4, bits = [#moe.bits<width = 4>]>, offset = 8,
        scales = [#moe.field<element = f16, operand = 1, block = [1, 32]>]>>)
      outs(%init : tensor<?x50xf32>) {
  ^bb0(%sum: f32):
    moe.yield %sum : f32
  } : tensor<?x64xf32> -> tensor<?x50xf32>
  return %y : tensor<?x50xf32>
}
