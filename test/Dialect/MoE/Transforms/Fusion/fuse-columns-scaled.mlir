// RUN: moe-opt %s -moe-fuse-columns | FileCheck %s
// RUN: moe-opt %s -moe-fuse-columns --remarks-filter-missed=moe-fuse -o /dev/null 2>&1 | FileCheck %s --check-prefix=REMARK

// Columns take their blocks of scales along.
// CHECK-LABEL: func.func @halves(
// CHECK-SAME:    %{{[^:]*}}: {{[^,]*}}, %[[W:[^:]*]]: {{[^,]*}}, %[[S:[^:]*]]: tensor<2x3x2xf32>
// CHECK:         %[[U:.*]] = tensor.extract_slice %[[W]][0, 64, 0] [2, 32, 200] [1, 1, 1]
// CHECK:         %[[T:.*]] = tensor.extract_slice %[[S]][0, 2, 0] [2, 1, 2] [1, 1, 1] : tensor<2x3x2xf32> to tensor<2x1x2xf32>
// CHECK:         moe.grouped_matmul %{{.*}} weights(%[[U]] : tensor<2x32x200xf8E4M3FN>) transposed
// CHECK-SAME:      weight_scales(%[[T]] : tensor<2x1x2xf32>) blocks([128, 32])
func.func @halves(%x: tensor<8x200xbf16>, %w: tensor<2x96x200xf8E4M3FN>, %s: tensor<2x3x2xf32>,
                  %offsets: tensor<3xi32>, %init: tensor<8x96xf32>) -> tensor<8x32xf32> {
  %y = moe.grouped_matmul %x offsets(%offsets : tensor<3xi32>) weights(%w : tensor<2x96x200xf8E4M3FN>) transposed
      weight_scales(%s : tensor<2x3x2xf32>) blocks([128, 32]) outs(%init : tensor<8x96xf32>) {
  ^bb0(%sum: f32):
    moe.yield %sum : f32
  } : tensor<8x200xbf16> -> tensor<8x96xf32>
  %u = tensor.extract_slice %y[0, 64] [8, 32] [1, 1] : tensor<8x96xf32> to tensor<8x32xf32>
  return %u : tensor<8x32xf32>
}

// REMARK: ColumnsNotFused | Category:moe-fuse | Function=within | Remark="not fused: a slice of columns begins inside a block of one scale"
// CHECK-LABEL: func.func @within(
// CHECK:         moe.grouped_matmul
// CHECK:         tensor.extract_slice
func.func @within(%x: tensor<8x200xbf16>, %w: tensor<2x96x200xf8E4M3FN>, %s: tensor<2x3x2xf32>,
                  %offsets: tensor<3xi32>, %init: tensor<8x96xf32>) -> tensor<8x32xf32> {
  %y = moe.grouped_matmul %x offsets(%offsets : tensor<3xi32>) weights(%w : tensor<2x96x200xf8E4M3FN>) transposed
      weight_scales(%s : tensor<2x3x2xf32>) blocks([128, 32]) outs(%init : tensor<8x96xf32>) {
  ^bb0(%sum: f32):
    moe.yield %sum : f32
  } : tensor<8x200xbf16> -> tensor<8x96xf32>
  %u = tensor.extract_slice %y[0, 48] [8, 32] [1, 1] : tensor<8x96xf32> to tensor<8x32xf32>
  return %u : tensor<8x32xf32>
}
