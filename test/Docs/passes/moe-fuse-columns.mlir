// RUN: moe-opt %s --moe-fuse-columns | FileCheck %s

// Half the columns are read: the product has half the weights.
// CHECK-LABEL: func.func @gate_up(
// CHECK:         %[[W:.*]] = tensor.extract_slice %{{.*}}[0, 0, 0] [8, 16, 32] [1, 1, 1]
// CHECK:         moe.grouped_matmul {{.*}} weights(%[[W]] : tensor<8x16x32xf32>)
func.func @gate_up(%x: tensor<4x16xf32>, %o: tensor<9xi32>, %w: tensor<8x16x64xf32>, %init: tensor<4x64xf32>) -> tensor<4x32xf32> {
  %y = moe.grouped_matmul %x offsets(%o : tensor<9xi32>) weights(%w : tensor<8x16x64xf32>) outs(%init : tensor<4x64xf32>) {
  ^bb0(%sum: f32):
    moe.yield %sum : f32
  } : tensor<4x16xf32> -> tensor<4x64xf32>
  %gate = tensor.extract_slice %y[0, 0] [4, 32] [1, 1] : tensor<4x64xf32> to tensor<4x32xf32>
  return %gate : tensor<4x32xf32>
}
