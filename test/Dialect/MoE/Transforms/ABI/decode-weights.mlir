// RUN: moe-opt %s -moe-export -moe-decode-weights -canonicalize | FileCheck %s
// RUN: moe-opt %s -moe-export -moe-decode-weights --remarks-filter-missed=moe-decode-weights -o /dev/null 2>&1 | FileCheck %s --check-prefix=REMARK

// 2 x 40 x 4 elements of two bytes.
// REMARK-DAG: WeightsDecoded | Category:moe-decode-weights | Function=experts | Remark="no kernel reads this format: the decoded weights take 1 MiB"
// REMARK-DAG: WeightsDecoded | Category:moe-decode-weights | Function=one
// REMARK-DAG: WeightsNotPrepacked | Category:moe-decode-weights | Function=computed | Remark="decoded in every call: the function computes these weights"
// REMARK-DAG: WeightsNotPrepacked | Category:moe-decode-weights | Function=inputs

// CHECK-LABEL: func.func @experts(
// CHECK-SAME:    %[[DECODED:[a-z0-9]+]]: tensor<2x40x4xbf16> {bufferization.writable = false})
// CHECK-SAME:    #moe.argument<name = "w", role = weight, type = tensor<2x40x4xi8>, retained = false>
// CHECK-SAME:    #moe.argument<name = "s", role = weight, type = tensor<2x40x1xf32>>
// CHECK-SAME:    #moe.argument<name = "decoded0", role = prepared, type = tensor<2x40x4xbf16>, prepare = "experts__prepare0", sources = ["w", "s"]>
// CHECK-NOT:     moe.dequantize
// CHECK:       func.func @experts__prepare0(
// CHECK-SAME:    %[[W:.*]]: tensor<?x40x4xi8> {moe.name = "w"}, %[[S:.*]]: tensor<?x40x1xf32> {moe.name = "s"})
// CHECK-SAME:    -> (tensor<?x40x4xbf16> {moe.name = "decoded0"}) attributes {moe.prepares = @experts, moe.tokens = [0, 2]}
// CHECK:         %[[D:.*]] = moe.dequantize %[[W]], %[[S]] format(
// CHECK:         return %[[D]]
func.func @experts(%x: tensor<?x4xbf16>, %w: tensor<2x40x4xi8> {moe.role = "weight", moe.name = "w"},
                   %s: tensor<2x40x1xf32> {moe.role = "weight", moe.name = "s"}) -> (tensor<2x40x4xbf16>, tensor<2x40x1xf32>) {
  %d = moe.dequantize %w, %s format(<codes = <element = si8>, scales = [#moe.field<element = f32, operand = 1, block = [1, 4]>]>)
    : tensor<2x40x4xi8>, tensor<2x40x1xf32> -> tensor<2x40x4xbf16>
  return %d, %s : tensor<2x40x4xbf16>, tensor<2x40x1xf32>
}

// A matrix without a dimension of experts is that of one.
// CHECK-LABEL: func.func @one(
// CHECK-SAME:    %[[DECODED:[a-z0-9]+]]: tensor<1x8x4xbf16>
// CHECK:         tensor.collapse_shape %[[DECODED]] {{\[\[}}0, 1], [2]] : tensor<1x8x4xbf16> into tensor<8x4xbf16>
// CHECK:       func.func @one__prepare0(
// CHECK-SAME:    tensor<?x8x4xi8>
func.func @one(%x: tensor<?x4xbf16>, %w: tensor<8x4xi8> {moe.role = "weight", moe.name = "w"}) -> tensor<8x4xbf16> {
  %d = moe.dequantize %w format(<codes = <element = si8>>) : tensor<8x4xi8> -> tensor<8x4xbf16>
  return %d : tensor<8x4xbf16>
}

// CHECK-LABEL: func.func @computed(
// CHECK:         moe.dequantize
// CHECK-NOT:   func.func @computed__prepare
func.func @computed(%x: tensor<?x4xbf16>, %w: tensor<8x4xi8> {moe.role = "weight", moe.name = "w"}) -> tensor<8x4xbf16> {
  %v = arith.addi %w, %w : tensor<8x4xi8>
  %d = moe.dequantize %v format(<codes = <element = si8>>) : tensor<8x4xi8> -> tensor<8x4xbf16>
  return %d : tensor<8x4xbf16>
}

// CHECK-LABEL: func.func @inputs(
// CHECK:         moe.dequantize
func.func @inputs(%x: tensor<?x4xbf16>, %w: tensor<8x4xi8>) -> tensor<8x4xbf16> {
  %d = moe.dequantize %w format(<codes = <element = si8>>) : tensor<8x4xi8> -> tensor<8x4xbf16>
  return %d : tensor<8x4xbf16>
}
