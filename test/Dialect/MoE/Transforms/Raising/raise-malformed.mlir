// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-routing --moe-raise-grouped --remarks-filter-missed=moe-raise -o /dev/null 2>&1 | FileCheck %s

// Where StableHLO is not registered, nothing verifies its operations.

// CHECK: RoutingNotRaised
// CHECK-SAME: not raised: 'stablehlo.reshape': it lacks operands or results, or they are no ranked tensors
func.func @no_operand(%x: tensor<5x8xf32>) {
  %values, %top = "chlo.top_k"(%x) <{k = 2 : i64}> : (tensor<5x8xf32>) -> (tensor<5x2xf32>, tensor<5x2xi32>)
  %0 = "stablehlo.reshape"() : () -> tensor<?xf32>
  return
}

// -----

// CHECK: not raised: 'stablehlo.compare'
func.func @no_result(%x: tensor<5x8xf32>) {
  %values, %top = "chlo.top_k"(%x) <{k = 2 : i64}> : (tensor<5x8xf32>) -> (tensor<5x2xf32>, tensor<5x2xi32>)
  %flat = "stablehlo.reshape"(%top) : (tensor<5x2xi32>) -> tensor<10xi32>
  "stablehlo.sort"(%flat, %flat) <{dimension = 0 : i64}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>):
    "stablehlo.compare"() : () -> ()
    "stablehlo.return"() : () -> ()
  }) : (tensor<10xi32>, tensor<10xi32>) -> (tensor<10xi32>, tensor<10xi32>)
  return
}

// -----

// CHECK: not raised: 'stablehlo.select'
func.func @unranked(%c: tensor<*xi1>, %x: tensor<*xf32>, %r: tensor<5x8xf32>) {
  %values, %top = "chlo.top_k"(%r) <{k = 2 : i64}> : (tensor<5x8xf32>) -> (tensor<5x2xf32>, tensor<5x2xi32>)
  %0 = "stablehlo.select"(%c, %x, %x) : (tensor<*xi1>, tensor<*xf32>, tensor<*xf32>) -> tensor<*xf32>
  return
}

// -----

// Attributes that are absent or not as expected.

// CHECK: not raised: 'torch.operator': expected the operands self, mat2 and offs
func.func @attributes(%x: tensor<5x8xf32>, %i: tensor<5xi32>) {
  %0:2 = "stablehlo.sort"(%i, %i) : (tensor<5xi32>, tensor<5xi32>) -> (tensor<5xi32>, tensor<5xi32>)
  %1 = "stablehlo.gather"(%x, %i) : (tensor<5x8xf32>, tensor<5xi32>) -> tensor<5x8xf32>
  %2 = "stablehlo.dot_general"(%x, %x) <{dot_dimension_numbers = 3 : i64}> : (tensor<5x8xf32>, tensor<5x8xf32>) -> tensor<5x5xf32>
  %3 = "chlo.top_k"(%x) : (tensor<5x8xf32>) -> (tensor<5x2xf32>)
  %4 = "stablehlo.reduce"(%x, %x) <{dimensions = "0"}> : (tensor<5x8xf32>, tensor<5x8xf32>) -> tensor<f32>
  %5 = "stablehlo.composite"() : () -> tensor<f32>
  %6 = "torch.operator"() <{name = "torch.aten._grouped_mm"}> : () -> tensor<f32>
  %7 = "stablehlo.iota"() <{iota_dimension = 7 : i64}> : () -> tensor<5xi32>
  %8 = "stablehlo.broadcast_in_dim"(%i) <{broadcast_dimensions = array<i64: 9>}> : (tensor<5xi32>) -> tensor<5x8xi32>
  return
}

// -----

// Among masks and weights of choices.

// CHECK-NOT: not raised
func.func @masks(%x: tensor<6x8xf32>, %l: tensor<6x4xf32>, %u: tensor<3xi1>, %i: tensor<6xi32>, %w: tensor<4x8x8xf32>) {
  %z = "stablehlo.constant"() <{value = dense<0.0> : tensor<f32>}> : () -> tensor<f32>
  %weights, %ids = moe.gate %l top_k(2) score(none) : tensor<6x4xf32>
  %0 = "stablehlo.broadcast_in_dim"(%ids) <{broadcast_dimensions = array<i64: 0, 7>}> : (tensor<6x2xi32>) -> tensor<6x2x4xi32>
  %1 = "stablehlo.broadcast_in_dim"(%ids) : (tensor<6x2xi32>) -> tensor<6x2x4xi32>
  %2 = "stablehlo.transpose"(%ids) <{permutation = array<i64: 5, -1>}> : (tensor<6x2xi32>) -> tensor<2x6xi32>
  %3 = "stablehlo.iota"() <{iota_dimension = -1 : i64}> : () -> tensor<6x2x4xi32>
  %4 = "stablehlo.compare"(%ids, %ids) : (tensor<6x2xi32>, tensor<6x2xi32>) -> tensor<6x2xi1>
  %5 = "stablehlo.reshape"(%ids) : (tensor<6x2xi32>) -> tensor<13xi32>
  %b = "stablehlo.broadcast_in_dim"(%ids) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<6x2xi32>) -> tensor<6x2x4xi32>
  %e = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<6x2x4xi32>
  %hot = "stablehlo.compare"(%b, %e) <{comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<6x2x4xi32>, tensor<6x2x4xi32>) -> tensor<6x2x4xi1>
  %6 = "stablehlo.reduce"(%hot, %z) <{dimensions = array<i64: 9>}> ({
  ^bb0(%a: tensor<f32>, %c: tensor<f32>):
    %s = "stablehlo.add"(%a, %c) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%s) : (tensor<f32>) -> ()
  }) : (tensor<6x2x4xi1>, tensor<f32>) -> tensor<6x2xf32>
  %7 = "stablehlo.reduce_window"(%hot) : (tensor<6x2x4xi1>) -> tensor<6x2x4xi1>
  %8 = "stablehlo.reduce_window"(%hot, %z) <{window_dimensions = array<i64: 1>, padding = dense<0> : tensor<1x2xi64>}> ({
  ^bb0(%a: tensor<f32>, %c: tensor<f32>):
    %s = "stablehlo.add"(%a, %c) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%s) : (tensor<f32>) -> ()
  }) : (tensor<6x2x4xi1>, tensor<f32>) -> tensor<6x2x4xi32>
  %9 = "stablehlo.dot_general"(%hot, %weights) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0, 8], rhs_batching_dimensions = [0, 1]>}> : (tensor<6x2x4xi1>, tensor<6x2xf32>) -> tensor<6x2x4xf32>
  %10 = "stablehlo.dot_general"(%x, %weights) : (tensor<6x8xf32>, tensor<6x2xf32>) -> tensor<6x2xf32>
  %11 = "stablehlo.scatter"(%l, %ids, %weights) : (tensor<6x4xf32>, tensor<6x2xi32>, tensor<6x2xf32>) -> tensor<6x4xf32>
  %12 = "stablehlo.gather"(%w, %ids) <{dimension_numbers = #stablehlo.gather<offset_dims = [1, 2, 3], start_index_map = [0, 1], index_vector_dim = 1>, slice_sizes = array<i64: 1, 8, 8>}> : (tensor<4x8x8xf32>, tensor<6x2xi32>) -> tensor<6x8xf32>
  %13 = "stablehlo.dot_general"(%x, %12) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<6x8xf32>, tensor<6x8xf32>) -> tensor<6xf32>
  %14 = "stablehlo.select"(%u, %ids, %ids) : (tensor<3xi1>, tensor<6x2xi32>, tensor<6x2xi32>) -> tensor<6x2xi32>
  return
}
