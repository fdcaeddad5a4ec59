// RUN: moe-opt %s -moe-export -moe-measure-quantization | FileCheck %s

#int8 = #moe.format<codes = <element = si8>, scales = [#moe.field<element = f32, operand = 1, block = [1, 64]>]>

// CHECK-LABEL: func.func @layer(
// CHECK-SAME:    %[[ERROR:[^:,]*]]: tensor<4xf32> {bufferization.writable = false})
// CHECK-SAME:    #moe.argument<name = "error0", role = prepared, type = tensor<4xf32>, prepare = "layer__prepare0", sources = ["w"], measures = "w">
// CHECK-LABEL: func.func @layer__prepare0(
// CHECK-SAME:    %[[W:.*]]: tensor<?x64x48xbf16>
// CHECK:         %[[INIT:.*]] = tensor.empty(%{{.*}}) : tensor<?xf32>
// CHECK:         %[[E:.*]] = moe.round_matrices %[[W]] transposed format({{.*}}) outs(%[[INIT]] : tensor<?xf32>)
// CHECK:         return %[[E]] : tensor<?xf32>
func.func @layer(%x: tensor<?x64xbf16>, %w: tensor<4x64x48xbf16> {moe.name = "w", moe.role = "weight"}) -> tensor<4x48x64xbf16> {
  %q, %s = moe.quantize %w transposed format(#int8) : tensor<4x64x48xbf16> -> tensor<4x48x64xi8>, tensor<4x48x1xf32>
  %d = moe.dequantize %q, %s format(#int8) : tensor<4x48x64xi8>, tensor<4x48x1xf32> -> tensor<4x48x64xbf16>
  return %d : tensor<4x48x64xbf16>
}

// Not rows of a call.
// CHECK-LABEL: func.func @rows(
// CHECK-NOT:   @rows__prepare
func.func @rows(%x: tensor<?x64xbf16>) -> tensor<?x64xi8> {
  %q, %s = moe.quantize %x format(#int8) : tensor<?x64xbf16> -> tensor<?x64xi8>, tensor<?x1xf32>
  return %q : tensor<?x64xi8>
}
