// RUN: moe-opt %s --moe-export --moe-measure-quantization | FileCheck %s

// The layer gets the error of each expert, which no operation reads.
// CHECK-LABEL: func.func @layer(
// CHECK-SAME:    #moe.argument<name = "error0", role = prepared, type = tensor<8xf32>, {{.*}}measures = "w">
// CHECK-LABEL: func.func @layer__prepare0(
// CHECK:         moe.round_matrices
func.func @layer(%x: tensor<?x64xf32>, %w: tensor<8x48x64xf32> {moe.role = "weight", moe.name = "w"}) -> tensor<8x48x64xf32> {
  %q, %s = moe.quantize %w format(<codes = <element = si8>, scales = [#moe.field<element = f32, operand = 1, block = [1, 64]>]>)
    : tensor<8x48x64xf32> -> tensor<8x48x64xi8>, tensor<8x48x1xf32>
  %d = moe.dequantize %q, %s format(<codes = <element = si8>, scales = [#moe.field<element = f32, operand = 1, block = [1, 64]>]>)
    : tensor<8x48x64xi8>, tensor<8x48x1xf32> -> tensor<8x48x64xf32>
  return %d : tensor<8x48x64xf32>
}
