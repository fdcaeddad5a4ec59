// RUN: moe-opt %s --moe-place-results | FileCheck %s

// The sum is computed in the buffer %y instead of a tensor of its own.
// CHECK-LABEL: func.func @placed(
// CHECK-SAME:    %[[Y:[a-z0-9]+]]: memref<2x4xf32>)
// CHECK:         %[[PLACE:.*]] = bufferization.to_tensor %[[Y]] restrict writable
// CHECK:         linalg.add {{.*}} outs(%[[PLACE]]
func.func @placed(%x: tensor<2x4xf32>, %y: memref<2x4xf32>) {
  %e = tensor.empty() : tensor<2x4xf32>
  %r = linalg.add ins(%x, %x : tensor<2x4xf32>, tensor<2x4xf32>) outs(%e : tensor<2x4xf32>) -> tensor<2x4xf32>
  bufferization.materialize_in_destination %r in restrict writable %y : (tensor<2x4xf32>, memref<2x4xf32>) -> ()
  return
}
