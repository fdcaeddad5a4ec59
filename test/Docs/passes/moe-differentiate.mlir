// RUN: moe-opt %s --moe-differentiate | FileCheck %s

// The gradient of the rows is a matmul with transposed weights, that of the
// weights a contraction over the rows.
// CHECK-LABEL: func.func @matmul_backward(
// CHECK-SAME:    %[[X:[a-z0-9]+]]: tensor<?x4xf32> {moe.name = "arg0"}, %[[W:[a-z0-9]+]]: tensor<1x4x8xf32> {moe.name = "arg1"}
// CHECK-SAME:    %[[G:[a-z0-9]+]]: tensor<?x8xf32> {moe.name = "result0_gradient"})
// CHECK:         moe.grouped_matmul %[[G]] weights(%[[W]] : tensor<1x4x8xf32>) transposed
// CHECK:         moe.grouped_contract %[[X]], %[[G]]
func.func @matmul(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>) -> tensor<?x8xf32> {
  %c0 = arith.constant 0 : index
  %t = tensor.dim %x, %c0 : tensor<?x4xf32>
  %o = tensor.empty(%t) : tensor<?x8xf32>
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}
