// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-routing --moe-raise-grouped --remarks-filter-missed=moe-raise -o /dev/null 2>&1 | FileCheck %s

// Where StableHLO is not registered, nothing verifies its operations.

// CHECK: RoutingNotRaised
// CHECK-SAME: not raised: 'stablehlo.reshape': it lacks operands or results, or they are no ranked tensors
func.func @no_operand() {
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
func.func @unranked(%c: tensor<*xi1>, %x: tensor<*xf32>) {
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
