// RUN: moe-opt %s --allow-unregistered-dialect --moe-raise-grouped | FileCheck %s

// jax.lax.ragged_dot: the sizes of the groups become their offsets.
// CHECK-LABEL: func.func @ragged_dot(
// CHECK:         scf.for
// CHECK:         moe.grouped_matmul %arg0 offsets(%{{.*}} : tensor<9xi32>) weights(%arg1 : tensor<8x64x32xf32>)
func.func @ragged_dot(%x: tensor<?x64xf32>, %w: tensor<8x64x32xf32>, %sizes: tensor<8xi32>) -> tensor<?x32xf32> {
  %y = "chlo.ragged_dot"(%x, %w, %sizes) <{ragged_dot_dimension_numbers = #chlo.ragged_dot<
      lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1],
      lhs_ragged_dimensions = [0], rhs_group_dimensions = [0]>}>
    : (tensor<?x64xf32>, tensor<8x64x32xf32>, tensor<8xi32>) -> tensor<?x32xf32>
  return %y : tensor<?x32xf32>
}
