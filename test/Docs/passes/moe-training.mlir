// RUN: moe-opt %s --moe-training | FileCheck %s

// The layer returns what its backward function takes.
// CHECK-LABEL: func.func @layer(
// CHECK-LABEL: func.func @layer_backward(
// CHECK:         moe.grouped_contract
// CHECK:         moe.gate_gradient
func.func @layer(%x: tensor<?x16xf32>, %logits: tensor<?x8xf32>, %w: tensor<8x16x16xf32> {moe.role = "weight"}) -> tensor<?x16xf32> {
  %weights, %ids = moe.gate %logits top_k(2) : tensor<?x8xf32>
  %rows, %offsets, %positions = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x2xi32>
  %y = moe.expert %rows, %offsets params(%w : tensor<8x16x16xf32>) {
  ^bb0(%r: tensor<?x16xf32>, %v: tensor<16x16xf32>):
    %c0 = arith.constant 0 : index
    %zero = arith.constant 0.0 : f32
    %n = tensor.dim %r, %c0 : tensor<?x16xf32>
    %e = tensor.empty(%n) : tensor<?x16xf32>
    %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x16xf32>) -> tensor<?x16xf32>
    %p = linalg.matmul ins(%r, %v : tensor<?x16xf32>, tensor<16x16xf32>) outs(%f : tensor<?x16xf32>) -> tensor<?x16xf32>
    moe.yield %p : tensor<?x16xf32>
  } : tensor<?x16xf32>, tensor<9xi32> -> tensor<?x16xf32>
  %z = moe.combine %y, %positions weights(%weights : tensor<?x2xf32>) : tensor<?x16xf32>, tensor<?x2xi32>
  return %z : tensor<?x16xf32>
}
