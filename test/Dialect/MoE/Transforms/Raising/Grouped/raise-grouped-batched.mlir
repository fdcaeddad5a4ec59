// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-grouped | FileCheck %s
// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-grouped --remarks-filter-missed=moe-raise -o /dev/null 2>&1 | FileCheck %s --check-prefix=REMARK

// jax.vmap of jax.lax.ragged_dot: each batch has sizes of its own.

// CHECK-LABEL: func.func @batches(
// CHECK:         %[[X0:.*]] = tensor.extract_slice %arg0[0, 0, 0] [1, 7, 4] [1, 1, 1] : tensor<2x7x4xf32> to tensor<7x4xf32>
// CHECK:         %[[W0:.*]] = tensor.extract_slice %arg1[0, 0, 0, 0] [3, 1, 4, 5] [1, 1, 1, 1] : tensor<3x2x4x5xf32> to tensor<3x4x5xf32>
// CHECK:         %[[S0:.*]] = tensor.extract_slice %arg2[0, 0] [1, 3] [1, 1] : tensor<2x3xi32> to tensor<3xi32>
// CHECK:         %[[OFFSETS:.*]]:2 = scf.for
// CHECK:           tensor.extract %[[S0]]
// CHECK:         %[[Y0:.*]] = moe.grouped_matmul %[[X0]] offsets(%[[OFFSETS]]#0 : tensor<4xi32>) weights(%[[W0]] : tensor<3x4x5xf32>) outs
// CHECK:         %[[PART:.*]] = tensor.insert_slice %[[Y0]] into %{{.*}}[0, 0, 0] [1, 7, 5] [1, 1, 1]
// CHECK:         tensor.extract_slice %arg0[1, 0, 0] [1, 7, 4]
// CHECK:         %[[Y1:.*]] = moe.grouped_matmul
// CHECK:         tensor.insert_slice %[[Y1]] into %[[PART]][1, 0, 0] [1, 7, 5] [1, 1, 1]
func.func @batches(%x: tensor<2x7x4xf32>, %w: tensor<3x2x4x5xf32>, %s: tensor<2x3xi32>) -> tensor<2x7x5xf32> {
  %y = "chlo.ragged_dot"(%x, %w, %s) <{ragged_dot_dimension_numbers = #chlo.ragged_dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [1], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [2], lhs_ragged_dimensions = [1], rhs_group_dimensions = [0]>}> : (tensor<2x7x4xf32>, tensor<3x2x4x5xf32>, tensor<2x3xi32>) -> tensor<2x7x5xf32>
  return %y : tensor<2x7x5xf32>
}

// -----

// One vector of sizes is that of all batches, and has one vector of offsets.

// CHECK-LABEL: func.func @same_sizes(
// CHECK-COUNT-1: scf.for
// CHECK-NOT:     scf.for
// CHECK-COUNT-2: moe.grouped_matmul {{.*}} transposed outs
func.func @same_sizes(%x: tensor<7x2x4xf32>, %w: tensor<3x5x4x2xf32>, %s: tensor<3xi32>) -> tensor<2x7x5xf32> {
  %y = "chlo.ragged_dot"(%x, %w, %s) <{ragged_dot_dimension_numbers = #chlo.ragged_dot<lhs_batching_dimensions = [1], rhs_batching_dimensions = [3], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [2], lhs_ragged_dimensions = [0], rhs_group_dimensions = [0]>}> : (tensor<7x2x4xf32>, tensor<3x5x4x2xf32>, tensor<3xi32>) -> tensor<2x7x5xf32>
  return %y : tensor<2x7x5xf32>
}

// -----

// Any number of rows.

// CHECK-LABEL: func.func @any_rows(
// CHECK:         %[[INIT:.*]] = tensor.empty(%{{.*}}) : tensor<2x?x5xf32>
// CHECK:         moe.grouped_matmul
// CHECK:         tensor.insert_slice %{{.*}} into %[[INIT]][0, 0, 0] [1, %{{.*}}, 5] [1, 1, 1] : tensor<?x5xf32> into tensor<2x?x5xf32>
func.func @any_rows(%x: tensor<2x?x4xf32>, %w: tensor<3x2x4x5xf32>, %s: tensor<2x3xi32>) -> tensor<2x?x5xf32> {
  %y = "chlo.ragged_dot"(%x, %w, %s) <{ragged_dot_dimension_numbers = #chlo.ragged_dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [1], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [2], lhs_ragged_dimensions = [1], rhs_group_dimensions = [0]>}> : (tensor<2x?x4xf32>, tensor<3x2x4x5xf32>, tensor<2x3xi32>) -> tensor<2x?x5xf32>
  return %y : tensor<2x?x5xf32>
}

// -----

// The gradient of the weights has the groups before the batches.

// CHECK-LABEL: func.func @gradient(
// CHECK:         moe.grouped_contract %{{.*}}, %{{.*}} offsets({{.*}}) outs({{.*}}) : tensor<7x4xf32>, tensor<7x5xf32> -> tensor<3x4x5xf32>
// CHECK:         tensor.insert_slice %{{.*}} into %{{.*}}[0, 1, 0, 0] [3, 1, 4, 5] [1, 1, 1, 1] : tensor<3x4x5xf32> into tensor<3x2x4x5xf32>
func.func @gradient(%x: tensor<2x7x4xf32>, %dy: tensor<2x7x5xf32>, %s: tensor<2x3xi32>) -> tensor<3x2x4x5xf32> {
  %dw = "chlo.ragged_dot"(%x, %dy, %s) <{ragged_dot_dimension_numbers = #chlo.ragged_dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1], lhs_ragged_dimensions = [1]>}> : (tensor<2x7x4xf32>, tensor<2x7x5xf32>, tensor<2x3xi32>) -> tensor<3x2x4x5xf32>
  return %dw : tensor<3x2x4x5xf32>
}

// -----

// Groups of batches have no effect.

// CHECK: #[[LHS:.*]] = affine_map<(d0, d1, d2, d3) -> (d0, d1, d3)>
// CHECK: #[[RHS:.*]] = affine_map<(d0, d1, d2, d3) -> (d0, d3, d2)>
// CHECK: #[[OUT:.*]] = affine_map<(d0, d1, d2, d3) -> (d0, d1, d2)>
// CHECK-LABEL: func.func @ragged_batch(
// CHECK-NOT:     scf.for
// CHECK:         %[[SUM:.*]] = linalg.generic {indexing_maps = [#[[LHS]], #[[RHS]], #[[OUT]]], iterator_types = ["parallel", "parallel", "parallel", "reduction"]} ins(%arg0, %arg1
// CHECK:         arith.truncf %[[SUM]] : tensor<6x?x5xf32> to tensor<6x?x5xbf16>
func.func @ragged_batch(%x: tensor<6x?x4xbf16>, %w: tensor<6x4x5xbf16>, %s: tensor<3xi32>) -> tensor<6x?x5xbf16> {
  %y = "chlo.ragged_dot"(%x, %w, %s) <{ragged_dot_dimension_numbers = #chlo.ragged_dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1], lhs_ragged_dimensions = [0]>}> : (tensor<6x?x4xbf16>, tensor<6x4x5xbf16>, tensor<3xi32>) -> tensor<6x?x5xbf16>
  return %y : tensor<6x?x5xbf16>
}

// -----

// CHECK-LABEL: func.func @left(
// CHECK-NOT:     moe.
// CHECK-NOT:     tensor.extract_slice
// REMARK-DAG:  'chlo.ragged_dot': more than 64 batches, or a dynamic number of them
// REMARK-DAG:  'chlo.ragged_dot': expected rows and weights of one float type of 16 or 32 bits
// REMARK-DAG:  'chlo.ragged_dot': without batching dimensions it is not [rows, k]
// REMARK-DAG:  'chlo.ragged_dot': its dimension numbers are not understood
// REMARK-DAG:  'chlo.ragged_dot': the extents do not fit
func.func @left(%x: tensor<65x7x4xf32>, %w: tensor<3x65x4x5xf32>, %s: tensor<3xi32>, %xd: tensor<2x7x4xf64>, %wd: tensor<3x2x4x5xf64>,
                %xt: tensor<2x4x7xf32>, %w2: tensor<3x2x4x5xf32>, %x2: tensor<2x7x4xf32>, %sb: tensor<5x3xi32>, %w6: tensor<6x4x5xf32>, %x6: tensor<5x7x4xf32>) {
  %0 = "chlo.ragged_dot"(%x, %w, %s) <{ragged_dot_dimension_numbers = #chlo.ragged_dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [1], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [2], lhs_ragged_dimensions = [1], rhs_group_dimensions = [0]>}> : (tensor<65x7x4xf32>, tensor<3x65x4x5xf32>, tensor<3xi32>) -> tensor<65x7x5xf32>
  %1 = "chlo.ragged_dot"(%xd, %wd, %s) <{ragged_dot_dimension_numbers = #chlo.ragged_dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [1], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [2], lhs_ragged_dimensions = [1], rhs_group_dimensions = [0]>}> : (tensor<2x7x4xf64>, tensor<3x2x4x5xf64>, tensor<3xi32>) -> tensor<2x7x5xf64>
  %2 = "chlo.ragged_dot"(%xt, %w2, %s) <{ragged_dot_dimension_numbers = #chlo.ragged_dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [1], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [2], lhs_ragged_dimensions = [2], rhs_group_dimensions = [0]>}> : (tensor<2x4x7xf32>, tensor<3x2x4x5xf32>, tensor<3xi32>) -> tensor<2x7x5xf32>
  %3 = "chlo.ragged_dot"(%x2, %w2, %s) <{ragged_dot_dimension_numbers = #chlo.ragged_dot<lhs_batching_dimensions = [0, 0], rhs_batching_dimensions = [1, 1], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [2], lhs_ragged_dimensions = [1], rhs_group_dimensions = [0]>}> : (tensor<2x7x4xf32>, tensor<3x2x4x5xf32>, tensor<3xi32>) -> tensor<2x7x5xf32>
  // Sizes of another number of batches; batches of another number.
  %4 = "chlo.ragged_dot"(%x2, %w2, %sb) <{ragged_dot_dimension_numbers = #chlo.ragged_dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [1], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [2], lhs_ragged_dimensions = [1], rhs_group_dimensions = [0]>}> : (tensor<2x7x4xf32>, tensor<3x2x4x5xf32>, tensor<5x3xi32>) -> tensor<2x7x5xf32>
  %5 = "chlo.ragged_dot"(%x6, %w6, %s) <{ragged_dot_dimension_numbers = #chlo.ragged_dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1], lhs_ragged_dimensions = [0]>}> : (tensor<5x7x4xf32>, tensor<6x4x5xf32>, tensor<3xi32>) -> tensor<5x7x5xf32>
  return
}
