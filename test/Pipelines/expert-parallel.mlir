// RUN: moe-opt %s --moe-expert-parallel=slots=4 --moe-fuse | FileCheck %s

// What runs between two exchanges is fused as on one rank: received rows are
// gathered by the first product, the activation is its epilogue, and home adds
// the rows that come.
// CHECK-LABEL: func.func @layer.part0(
// CHECK:         moe.partition
// CHECK-LABEL: func.func @layer.part1(
// CHECK-SAME:    %[[W:[a-z0-9]+]]: tensor<4x32x16xf32>
// CHECK-SAME:    %[[ROWS:[a-z0-9]+]]: tensor<?x16xf32>
// CHECK-SAME:    %[[IDS:[a-z0-9]+]]: tensor<?x2xi32>
// CHECK:         %[[TOKENS:.*]], %[[OFFSETS:.*]], %[[POSITIONS:.*]] = moe.route %[[IDS]] experts(4)
// CHECK:         moe.grouped_matmul %[[ROWS]] gather(%[[TOKENS]] : tensor<?xi32>) offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[W]] : tensor<4x32x16xf32>)
// CHECK:           math.exp
// CHECK:         moe.grouped_matmul
// CHECK-NOT:     linalg
// CHECK:         moe.collect %[[POSITIONS]]
// CHECK-LABEL: func.func @layer.part2(
// CHECK:         moe.gather_sum
// CHECK-NOT:     moe.combine

#lhs = affine_map<(m, n, k) -> (m, k)>
#rhs_t = affine_map<(m, n, k) -> (n, k)>
#out = affine_map<(m, n, k) -> (m, n)>
func.func @layer(%x: tensor<?x16xf32>, %l: tensor<?x8xf32>, %w: tensor<8x32x16xf32> {moe.role = "weight"}, %v: tensor<8x16x32xf32> {moe.role = "weight"}) -> tensor<?x16xf32> {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %weights, %ids = moe.gate %l top_k(2) : tensor<?x8xf32>
  %rows, %offsets, %positions = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x2xi32>
  %y = moe.expert %rows, %offsets params(%w, %v : tensor<8x32x16xf32>, tensor<8x16x32xf32>) {
  ^bb0(%r: tensor<?x16xf32>, %a: tensor<32x16xf32>, %b: tensor<16x32xf32>):
    %n = tensor.dim %r, %c0 : tensor<?x16xf32>
    %e = tensor.empty(%n) : tensor<?x32xf32>
    %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x32xf32>) -> tensor<?x32xf32>
    %p = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out] ins(%r, %a : tensor<?x16xf32>, tensor<32x16xf32>) outs(%f : tensor<?x32xf32>) -> tensor<?x32xf32>
    %g = linalg.elementwise kind=#linalg.elementwise_kind<exp> ins(%p : tensor<?x32xf32>) outs(%e : tensor<?x32xf32>) -> tensor<?x32xf32>
    %e1 = tensor.empty(%n) : tensor<?x16xf32>
    %f1 = linalg.fill ins(%zero : f32) outs(%e1 : tensor<?x16xf32>) -> tensor<?x16xf32>
    %q = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out] ins(%g, %b : tensor<?x32xf32>, tensor<16x32xf32>) outs(%f1 : tensor<?x16xf32>) -> tensor<?x16xf32>
    moe.yield %q : tensor<?x16xf32>
  } : tensor<?x16xf32>, tensor<9xi32> -> tensor<?x16xf32>
  %o = moe.combine %y, %positions weights(%weights : tensor<?x2xf32>) : tensor<?x16xf32>, tensor<?x2xi32>
  return %o : tensor<?x16xf32>
}
