// RUN: moe-opt %s --moe-expert-parallel=ranks=2 | FileCheck %s

// Three parts: which tokens go where, the experts of a rank, the sums at home.
// CHECK:       moe.programs
// CHECK-LABEL: func.func @layer.part0(
// CHECK:         moe.partition
// CHECK-LABEL: func.func @layer.part1(
// CHECK:         moe.expert
// CHECK-LABEL: func.func @layer.part2(
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
