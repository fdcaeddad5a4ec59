// RUN: moe-opt %s --moe-parallelize=slots=4 | FileCheck %s

// A rank holds four of the eight experts, so that the weights have four slots.
// CHECK-LABEL: func.func @layer(
// CHECK-SAME:    %[[W:[a-z0-9]+]]: tensor<4x16x16xf32> {moe.experts = 8 : i64, moe.role = "weight"}
// CHECK-SAME:    %[[PLACEMENT:[a-z0-9]+]]: tensor<8x1xi32> {moe.name = "placement", moe.role = "placement"}
// CHECK:         moe.place %{{.*}}, %[[PLACEMENT]]
// CHECK:         moe.partition %{{.*}} slots(4) ranks(8)
// CHECK:         %[[ROWS:.*]]:2, %[[RECEIVED:.*]] = moe.exchange
// CHECK:         moe.dispatch %[[ROWS]]#0, %[[ROWS]]#1 experts(4)
// CHECK:         moe.expert %{{.*}} params(%[[W]] : tensor<4x16x16xf32>)
// CHECK:         moe.collect %{{.*}}, %[[RECEIVED]]
// CHECK:         moe.exchange
// CHECK:         moe.combine
func.func @layer(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>, %w: tensor<8x16x16xf32> {moe.role = "weight"}) -> tensor<?x16xf32> {
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
  %o = moe.combine %y, %positions : tensor<?x16xf32>, tensor<?x2xi32>
  return %o : tensor<?x16xf32>
}
