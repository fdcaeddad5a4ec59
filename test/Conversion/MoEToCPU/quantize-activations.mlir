// RUN: moe-opt %s -moe-quantize-activations="vector-bits=256" | FileCheck %s
// RUN: moe-opt %s -moe-quantize-activations="vector-bits=256" --remarks-filter-missed=moe-quantize-activations -o /dev/null 2>&1 | FileCheck %s --check-prefix=REMARK
// RUN: moe-opt %s -moe-quantize-activations="vector-bits=128" | FileCheck %s --check-prefix=SSE

// SSE-NOT: moe.quantize_rows

#q4 = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4>]>, offset = 8,
                  scales = [#moe.field<element = f16, operand = 1, block = [1, 32]>]>
#thirds = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4>]>,
                      table = [0.0, 0.3, 0.6, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0],
                      scales = [#moe.field<element = f16, operand = 1, block = [1, 32]>]>

// CHECK-LABEL: func.func @layer(
// CHECK-SAME:    %[[X:[a-z0-9]+]]: tensor<?x64xf32>
// CHECK:         %[[T:.*]] = tensor.dim %[[X]], %c0
// CHECK:         %[[INIT:.*]] = tensor.empty(%[[T]]) : tensor<?x96xi8>
// CHECK:         %[[Q:.*]] = moe.quantize_rows %[[X]] outs(%[[INIT]] : tensor<?x96xi8>) : tensor<?x64xf32> -> tensor<?x96xi8>
// CHECK:         moe.grouped_matmul %[[Q]] weights
func.func @layer(%x: tensor<?x64xf32>, %w: tensor<1x2x1152xi8>, %i: tensor<?x50xf32>) -> tensor<?x50xf32>
    attributes {moe.activations = "int8"} {
  %y = moe.grouped_matmul %x weights(%w : tensor<1x2x1152xi8>) panels(<matmuls = 1, columns = 32, depth = 8, format = #q4>)
      outs(%i : tensor<?x50xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : tensor<?x64xf32> -> tensor<?x50xf32>
  return %y : tensor<?x50xf32>
}

// Values that are no multiples of 1/2.
// CHECK-LABEL: func.func @table(
// CHECK-NOT:     moe.quantize_rows
// REMARK: [Missed] ExactRows | Category:moe-quantize-activations | Function=table | Remark="rows stay exact: no kernel of this processor multiplies this format with integers"
func.func @table(%x: tensor<?x64xf32>, %w: tensor<1x2x1152xi8>, %i: tensor<?x50xf32>) -> tensor<?x50xf32>
    attributes {moe.activations = "int8"} {
  %y = moe.grouped_matmul %x weights(%w : tensor<1x2x1152xi8>) panels(<matmuls = 1, columns = 32, depth = 8, format = #thirds>)
      outs(%i : tensor<?x50xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : tensor<?x64xf32> -> tensor<?x50xf32>
  return %y : tensor<?x50xf32>
}

// CHECK-LABEL: func.func @columns(
// CHECK-NOT:     moe.quantize_rows
// REMARK: Function=columns | Remark="rows stay exact: a row has no whole groups of 32"
func.func @columns(%x: tensor<?x40xf32>, %w: tensor<1x2x768xi8>, %i: tensor<?x50xf32>) -> tensor<?x50xf32>
    attributes {moe.activations = "int8"} {
  %y = moe.grouped_matmul %x weights(%w : tensor<1x2x768xi8>) panels(<matmuls = 1, columns = 32, depth = 8, format = #q4>)
      outs(%i : tensor<?x50xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : tensor<?x40xf32> -> tensor<?x50xf32>
  return %y : tensor<?x50xf32>
}

// CHECK-LABEL: func.func @floats(
// CHECK-NOT:     moe.quantize_rows
// REMARK: Function=floats | Remark="rows stay exact: the weights are not packed with a format"
func.func @floats(%x: tensor<?x4xf32>, %w: tensor<1x1x4x8x1xf32>, %i: tensor<?x8xf32>) -> tensor<?x8xf32>
    attributes {moe.activations = "int8"} {
  %y = moe.grouped_matmul %x weights(%w : tensor<1x1x4x8x1xf32>) panels(<matmuls = 1, columns = 8, depth = 1>)
      outs(%i : tensor<?x8xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// CHECK-LABEL: func.func @exact(
// CHECK-NOT:     moe.quantize_rows
// REMARK-NOT:  Function=exact
func.func @exact(%x: tensor<?x64xf32>, %w: tensor<1x2x1152xi8>, %i: tensor<?x50xf32>) -> tensor<?x50xf32>
    attributes {moe.activations = "exact"} {
  %y = moe.grouped_matmul %x weights(%w : tensor<1x2x1152xi8>) panels(<matmuls = 1, columns = 32, depth = 8, format = #q4>)
      outs(%i : tensor<?x50xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : tensor<?x64xf32> -> tensor<?x50xf32>
  return %y : tensor<?x50xf32>
}

// Outside of a function nothing asks for integers.
// CHECK-LABEL: module @constants
// CHECK-NOT:     moe.quantize_rows
// CHECK:         moe.grouped_matmul
module @constants {
  %x = tensor.empty() : tensor<4x64xf32>
  %w = tensor.empty() : tensor<1x2x1152xi8>
  %i = tensor.empty() : tensor<4x50xf32>
  %y = moe.grouped_matmul %x weights(%w : tensor<1x2x1152xi8>) panels(<matmuls = 1, columns = 32, depth = 8, format = #q4>)
      outs(%i : tensor<4x50xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : tensor<4x64xf32> -> tensor<4x50xf32>
}
