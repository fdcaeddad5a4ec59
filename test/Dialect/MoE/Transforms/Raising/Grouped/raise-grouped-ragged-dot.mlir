// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-grouped | FileCheck %s
// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-grouped --remarks-filter-missed=moe-raise -o /dev/null 2>&1 | FileCheck %s --check-prefix=REMARK

// jax.jit(lambda x, w, s: jax.lax.ragged_dot(x, w, s)), lowered for CUDA. Rows
// after the last group are 0.

// CHECK-LABEL: func.func @sizes(
// CHECK-SAME:      %[[X:.*]]: tensor<?x4xf32>, %[[W:.*]]: tensor<3x4x5xf32>, %[[S:.*]]: tensor<3xi32>
// CHECK:         %[[LOOP:.*]]:2 = scf.for %{{.*}} = %{{.*}} to %{{.*}} step %{{.*}} iter_args
// CHECK:           tensor.extract %[[S]]
// CHECK:         %[[INIT:.*]] = linalg.fill ins(%{{.*}} : f32) outs(%{{.*}} : tensor<?x5xf32>)
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %[[X]] offsets(%[[LOOP]]#0 : tensor<4xi32>)
// CHECK-SAME:        weights(%[[W]] : tensor<3x4x5xf32>) outs(%[[INIT]] : tensor<?x5xf32>)
// CHECK:         %[[CAST:.*]] = tensor.cast %[[Y]]
// CHECK:         return %[[CAST]]
func.func @sizes(%x: tensor<?x4xf32>, %w: tensor<3x4x5xf32>, %s: tensor<3xi32>)
    -> tensor<10x5xf32> {
  %y = "chlo.ragged_dot"(%x, %w, %s) <{precision_config = [#chlo<precision DEFAULT>, #chlo<precision DEFAULT>], ragged_dot_dimension_numbers = #chlo.ragged_dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1], lhs_ragged_dimensions = [0], rhs_group_dimensions = [0]>}> : (tensor<?x4xf32>, tensor<3x4x5xf32>, tensor<3xi32>) -> tensor<10x5xf32>
  return %y : tensor<10x5xf32>
}

// -----

// The layout is that of the dimension numbers, also where both would fit; two
// products of one argument have the same offsets.

// CHECK-LABEL: func.func @layouts(
// CHECK:         %[[LOOP:.*]]:2 = scf.for
// CHECK-NOT:     scf.for
// CHECK:         moe.grouped_matmul {{.*}}weights(%arg1 : tensor<3x4x4xbf16>) outs
// CHECK-NEXT:    ^bb0(%[[SUM:.*]]: f32):
// CHECK-NEXT:      %[[R:.*]] = arith.truncf %[[SUM]] : f32 to bf16
// CHECK:         moe.grouped_matmul {{.*}}weights(%arg1 : tensor<3x4x4xbf16>) transposed outs
func.func @layouts(%x: tensor<?x4xbf16>, %w: tensor<3x4x4xbf16>, %s: tensor<3xi64>)
    -> (tensor<?x4xbf16>, tensor<?x4xf32>) {
  %y = "chlo.ragged_dot"(%x, %w, %s) <{ragged_dot_dimension_numbers = #chlo.ragged_dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1], lhs_ragged_dimensions = [0], rhs_group_dimensions = [0]>}> : (tensor<?x4xbf16>, tensor<3x4x4xbf16>, tensor<3xi64>) -> tensor<?x4xbf16>
  %z = "chlo.ragged_dot"(%x, %w, %s) <{ragged_dot_dimension_numbers = #chlo.ragged_dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [2], lhs_ragged_dimensions = [0], rhs_group_dimensions = [0]>}> : (tensor<?x4xbf16>, tensor<3x4x4xbf16>, tensor<3xi64>) -> tensor<?x4xf32>
  return %y, %z : tensor<?x4xbf16>, tensor<?x4xf32>
}

// -----

// A transpose of the weights is folded into their layout.

// CHECK-LABEL: func.func @transposed(
// CHECK:         moe.grouped_matmul {{.*}}weights(%arg1 : tensor<3x5x4xf32>) transposed outs
func.func @transposed(%x: tensor<?x4xf32>, %w: tensor<3x5x4xf32>, %s: tensor<3xi32>)
    -> tensor<?x5xf32> {
  %t = "stablehlo.transpose"(%w) <{permutation = array<i64: 0, 2, 1>}> : (tensor<3x5x4xf32>) -> tensor<3x4x5xf32>
  %y = "chlo.ragged_dot"(%x, %t, %s) <{ragged_dot_dimension_numbers = #chlo.ragged_dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1], lhs_ragged_dimensions = [0], rhs_group_dimensions = [0]>}> : (tensor<?x4xf32>, tensor<3x4x5xf32>, tensor<3xi32>) -> tensor<?x5xf32>
  return %y : tensor<?x5xf32>
}

// -----

// An exported program has a composite.

// CHECK-LABEL: func.func @composite(
// CHECK:         moe.grouped_matmul %arg0 offsets({{.*}}) weights(%arg1 : tensor<3x4x5xf32>) outs
func.func @composite(%x: tensor<?x4xf32>, %w: tensor<3x4x5xf32>, %s: tensor<3xi32>)
    -> tensor<?x5xf32> {
  %y = "stablehlo.composite"(%x, %w, %s) <{composite_attributes = {precision_config = ["DEFAULT", "DEFAULT"], ragged_dot_dimension_numbers = [dense<> : tensor<0xi64>, dense<> : tensor<0xi64>, dense<1> : tensor<1xi64>, dense<1> : tensor<1xi64>, dense<0> : tensor<1xi64>, dense<0> : tensor<1xi64>]}, decomposition = @chlo.ragged_dot.impl, name = "chlo.ragged_dot", version = 1 : i32}> : (tensor<?x4xf32>, tensor<3x4x5xf32>, tensor<3xi32>) -> tensor<?x5xf32>
  return %y : tensor<?x5xf32>
}

// -----

// Ragged along the contraction: the gradient of the weights.

// CHECK-LABEL: func.func @gradient(
// CHECK:         %[[OFFSETS:.*]]:2 = scf.for
// CHECK:         %[[INIT:.*]] = tensor.empty() : tensor<3x4x5xf32>
// CHECK:         moe.grouped_contract %arg0, %arg1 offsets(%[[OFFSETS]]#0 : tensor<4xi32>) outs(%[[INIT]] : tensor<3x4x5xf32>) : tensor<?x4xf32>, tensor<?x5xf32> -> tensor<3x4x5xf32>
func.func @gradient(%x: tensor<?x4xf32>, %dy: tensor<?x5xf32>, %s: tensor<3xi32>)
    -> tensor<3x4x5xf32> {
  %dw = "chlo.ragged_dot"(%x, %dy, %s) <{ragged_dot_dimension_numbers = #chlo.ragged_dot<lhs_contracting_dimensions = [0], rhs_contracting_dimensions = [0], lhs_ragged_dimensions = [0]>}> : (tensor<?x4xf32>, tensor<?x5xf32>, tensor<3xi32>) -> tensor<3x4x5xf32>
  return %dw : tensor<3x4x5xf32>
}

// -----

// Rows in columns are transposed; the result may have another type.

// CHECK-LABEL: func.func @gradient_of_columns(
// CHECK:         %[[ROWS:.*]] = linalg.transpose ins(%arg0 : tensor<4x?xbf16>) outs(%{{.*}} : tensor<?x4xbf16>) permutation = [1, 0]
// CHECK:         moe.grouped_contract %[[ROWS]], %arg1 offsets({{.*}} : tensor<?x4xbf16>, tensor<?x5xbf16> -> tensor<3x4x5xf32>
func.func @gradient_of_columns(%x: tensor<4x?xbf16>, %dy: tensor<?x5xbf16>, %s: tensor<3xi32>)
    -> tensor<3x4x5xf32> {
  %dw = "chlo.ragged_dot"(%x, %dy, %s) <{ragged_dot_dimension_numbers = #chlo.ragged_dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0], lhs_ragged_dimensions = [1]>}> : (tensor<4x?xbf16>, tensor<?x5xbf16>, tensor<3xi32>) -> tensor<3x4x5xf32>
  return %dw : tensor<3x4x5xf32>
}

// -----

// What is left, with the reason.

// CHECK-LABEL: func.func @left(
// CHECK-NOT:     moe.grouped_matmul
// REMARK-DAG:  'chlo.ragged_dot': the ragged dimension is not the rows of both operands
// REMARK-DAG:  'chlo.ragged_dot': the left operand is not [rows, k]
// REMARK-DAG:  'chlo.ragged_dot': the right operand is neither [g, k, n] nor [g, n, k]
// REMARK-DAG:  'chlo.ragged_dot': its dimension numbers are not understood
// REMARK-DAG:  'chlo.ragged_dot': expected rows and weights of one float type of 16 or 32 bits, got tensor<?x4xi32> and tensor<3x4x4xi32>
// REMARK-DAG:  'chlo.ragged_dot': the extents do not fit: tensor<?x4xf32>, tensor<3x5x4xf32> and tensor<?x4xf32>
// REMARK-DAG:  'chlo.ragged_dot': expected 3 groups, got tensor<4xi32>
// REMARK-DAG:  'chlo.ragged_dot': expected a vector of i32 or i64 for the groups, got tensor<1x3xi32>
func.func @left(%b: tensor<2x?x4xf32>, %x: tensor<?x4xf32>, %w: tensor<3x4x4xf32>, %w5: tensor<3x5x4xf32>,
                %s: tensor<3xi32>, %s4: tensor<4xi32>, %s2: tensor<1x3xi32>,
                %xi: tensor<?x4xi32>, %wi: tensor<3x4x4xi32>) {
  %1 = "chlo.ragged_dot"(%b, %b, %s) <{ragged_dot_dimension_numbers = #chlo.ragged_dot<lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [2], lhs_ragged_dimensions = [0]>}> : (tensor<2x?x4xf32>, tensor<2x?x4xf32>, tensor<3xi32>) -> tensor<2x?x?xf32>
  %2 = "chlo.ragged_dot"(%x, %w, %s) <{ragged_dot_dimension_numbers = #chlo.ragged_dot<lhs_contracting_dimensions = [0], rhs_contracting_dimensions = [1], lhs_ragged_dimensions = [1], rhs_group_dimensions = [0]>}> : (tensor<?x4xf32>, tensor<3x4x4xf32>, tensor<3xi32>) -> tensor<?x4xf32>
  %3 = "chlo.ragged_dot"(%x, %w, %s) <{ragged_dot_dimension_numbers = #chlo.ragged_dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0], lhs_ragged_dimensions = [0], rhs_group_dimensions = [1]>}> : (tensor<?x4xf32>, tensor<3x4x4xf32>, tensor<3xi32>) -> tensor<?x4xf32>
  %4 = "chlo.ragged_dot"(%x, %w, %s) : (tensor<?x4xf32>, tensor<3x4x4xf32>, tensor<3xi32>) -> tensor<?x4xf32>
  %5 = "chlo.ragged_dot"(%xi, %wi, %s) <{ragged_dot_dimension_numbers = #chlo.ragged_dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1], lhs_ragged_dimensions = [0], rhs_group_dimensions = [0]>}> : (tensor<?x4xi32>, tensor<3x4x4xi32>, tensor<3xi32>) -> tensor<?x4xi32>
  %6 = "chlo.ragged_dot"(%x, %w5, %s) <{ragged_dot_dimension_numbers = #chlo.ragged_dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1], lhs_ragged_dimensions = [0], rhs_group_dimensions = [0]>}> : (tensor<?x4xf32>, tensor<3x5x4xf32>, tensor<3xi32>) -> tensor<?x4xf32>
  %7 = "chlo.ragged_dot"(%x, %w, %s4) <{ragged_dot_dimension_numbers = #chlo.ragged_dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1], lhs_ragged_dimensions = [0], rhs_group_dimensions = [0]>}> : (tensor<?x4xf32>, tensor<3x4x4xf32>, tensor<4xi32>) -> tensor<?x4xf32>
  %8 = "chlo.ragged_dot"(%x, %w, %s2) <{ragged_dot_dimension_numbers = #chlo.ragged_dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1], lhs_ragged_dimensions = [0], rhs_group_dimensions = [0]>}> : (tensor<?x4xf32>, tensor<3x4x4xf32>, tensor<1x3xi32>) -> tensor<?x4xf32>
  // Another composite, and an operation of a dialect that has only the name.
  %9 = "stablehlo.composite"(%x) <{name = "chlo.top_k"}> : (tensor<?x4xf32>) -> tensor<?x4xf32>
  %10 = "other.ragged_dot"(%x, %w, %s) : (tensor<?x4xf32>, tensor<3x4x4xf32>, tensor<3xi32>) -> tensor<?x4xf32>
  return
}

// -----

// Sizes of 64 bits may be larger than offsets are: they and their sums are
// clamped, not cut off.

// CHECK-LABEL: func.func @large_sizes(
// CHECK:         scf.for {{.*}} iter_args(%{{.*}} = %{{.*}}, %[[SUM:.*]] = %{{.*}}) -> (tensor<4xi32>, i64)
// CHECK:           %[[SIZE:.*]] = tensor.extract %arg2
// CHECK:           %[[LOW:.*]] = arith.maxsi %[[SIZE]], %{{.*}} : i64
// CHECK:           %[[HIGH:.*]] = arith.minsi %[[LOW]], %{{.*}} : i64
// CHECK:           %[[END:.*]] = arith.addi %[[SUM]], %[[HIGH]] : i64
// CHECK:           arith.trunci %{{.*}} : i64 to i32
func.func @large_sizes(%x: tensor<?x4xf32>, %w: tensor<3x4x5xf32>, %s: tensor<3xi64>) -> tensor<?x5xf32> {
  %y = "chlo.ragged_dot"(%x, %w, %s) <{ragged_dot_dimension_numbers = #chlo.ragged_dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1], lhs_ragged_dimensions = [0], rhs_group_dimensions = [0]>}> : (tensor<?x4xf32>, tensor<3x4x5xf32>, tensor<3xi64>) -> tensor<?x5xf32>
  return %y : tensor<?x5xf32>
}
