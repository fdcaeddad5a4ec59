// RUN: moe-opt %s --moe-differentiate="arguments=x,w1,w2 accumulate=w1,w2 f32-gradients=w2" --canonicalize --cse | FileCheck %s
// RUN: moe-opt %s --moe-differentiate="accumulate=all f32-gradients=all" --moe-export --canonicalize --cse | FileCheck %s --check-prefix=EXPORT

// The gradients start from what their memory has: each part from its own, and a
// bias, whose gradient is no product of its own type, by an addition.

// CHECK-LABEL: func.func @layer_backward(
// CHECK-SAME:    %[[W1:[a-z0-9]+]]: tensor<8x16x64xbf16> {moe.accumulates = "w1_gradient", moe.name = "w1_gradient_sum"}
// CHECK-SAME:    %[[W2:[a-z0-9]+]]: tensor<8x32x16xf32> {moe.accumulates = "w2_gradient", moe.name = "w2_gradient_sum"}
// CHECK-SAME:    -> (tensor<?x16xbf16> {moe.name = "x_gradient"}, tensor<8x16x64xbf16> {moe.name = "w1_gradient"}, tensor<8x32x16xf32> {moe.name = "w2_gradient"})
// CHECK:         %[[SECOND:.*]] = moe.grouped_contract {{.*}} accumulate outs(%[[W2]] : tensor<8x32x16xf32>)
// CHECK:         %[[PART:.*]] = tensor.extract_slice %[[W1]][0, 0, [[A:[0-9]+]]] [8, 16, 32]
// CHECK:         %[[SUM:.*]] = moe.grouped_contract {{.*}} accumulate outs(%[[PART]] : tensor<8x16x32xbf16>)
// CHECK:         %[[ONE:.*]] = tensor.insert_slice %[[SUM]] into %[[W1]][0, 0, [[A]]]
// CHECK:         %[[REST:.*]] = tensor.extract_slice %[[ONE]][0, 0, [[B:[0-9]+]]]
// CHECK:         %[[SUM:.*]] = moe.grouped_contract {{.*}} accumulate outs(%[[REST]] :
// CHECK:         %[[FIRST:.*]] = tensor.insert_slice %[[SUM]] into %[[ONE]][0, 0, [[B]]]
// CHECK:         return %{{.*}}, %[[FIRST]], %[[SECOND]] :

// The result and its argument are one; only weights have one.
// EXPORT-LABEL: func.func @layer_backward(
// EXPORT-NOT:     moe.accumulates
// EXPORT-SAME:    %[[X:[a-z0-9]+]]: memref<?x16xbf16>, %[[W1:[a-z0-9]+]]: memref<8x16x64xf32>, %[[W2:[a-z0-9]+]]: memref<8x32x16xf32>
// EXPORT-SAME:    moe.accumulates = ["w1_gradient", "w2_gradient"]
// EXPORT:         bufferization.to_tensor %[[W1]] restrict writable
func.func @layer(%x: tensor<?x16xbf16> {moe.name = "x"}, %ids: tensor<?x2xi32> {moe.name = "ids"},
                 %w1: tensor<8x16x64xbf16> {moe.name = "w1", moe.role = "weight"},
                 %w2: tensor<8x32x16xbf16> {moe.name = "w2", moe.role = "weight"}) -> tensor<?x16xbf16> {
  %c0 = arith.constant 0 : index
  %c2 = arith.constant 2 : index
  %t = tensor.dim %x, %c0 : tensor<?x16xbf16>
  %r = arith.muli %t, %c2 : index
  %gate = tensor.extract_slice %w1[0, 0, 0] [8, 16, 32] [1, 1, 1] : tensor<8x16x64xbf16> to tensor<8x16x32xbf16>
  %up = tensor.extract_slice %w1[0, 0, 32] [8, 16, 32] [1, 1, 1] : tensor<8x16x64xbf16> to tensor<8x16x32xbf16>
  %tokens, %offsets, %positions = moe.route %ids experts(8) : tensor<?x2xi32>
  %i0 = tensor.empty(%r) : tensor<?x32xbf16>
  %h = moe.grouped_matmul %x gather(%tokens : tensor<?xi32>) offsets(%offsets : tensor<9xi32>)
      weights(%gate, %up : tensor<8x16x32xbf16>, tensor<8x16x32xbf16>) outs(%i0 : tensor<?x32xbf16>) {
  ^bb0(%a: f32, %b: f32):
    %p = arith.mulf %a, %b : f32
    %q = arith.truncf %p : f32 to bf16
    moe.yield %q : bf16
  } : tensor<?x16xbf16> -> tensor<?x32xbf16>
  %i1 = tensor.empty(%r) : tensor<?x16xbf16>
  %y = moe.grouped_matmul %h offsets(%offsets : tensor<9xi32>) weights(%w2 : tensor<8x32x16xbf16>)
      outs(%i1 : tensor<?x16xbf16>) {
  ^bb0(%a: f32):
    %q = arith.truncf %a : f32 to bf16
    moe.yield %q : bf16
  } : tensor<?x32xbf16> -> tensor<?x16xbf16>
  %i2 = tensor.empty(%t) : tensor<?x16xbf16>
  %z = moe.gather_sum %y, %positions outs(%i2 : tensor<?x16xbf16>) : tensor<?x16xbf16>, tensor<?x2xi32> -> tensor<?x16xbf16>
  return %z : tensor<?x16xbf16>
}
