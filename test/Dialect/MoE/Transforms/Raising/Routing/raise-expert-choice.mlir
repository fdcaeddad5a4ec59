// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-routing --moe-raise-grouped | FileCheck %s

// Each expert takes its best three tokens.

// CHECK-LABEL: func.func @expert_choice(
// CHECK-SAME:      %[[X:[^ ]*]]: tensor<10x16xf32>
// CHECK:         %[[SCORES:.*]] = linalg.softmax dimension(1)
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate %[[SCORES]] top_k(4) score(none) select(expert_choice) capacity(<fixed = 3>) : tensor<10x4xf32>
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %[[X]], %[[IDS]] experts(4)
// CHECK-COUNT-2: moe.grouped_matmul
// CHECK:         moe.combine %{{.*}}, %[[PLACES]] weights(%[[W]] :
"func.func"() <{function_type = (tensor<10x16xf32>, tensor<16x4xf32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>) -> tensor<10x16xf32>, sym_name = "expert_choice"}> ({
^bb0(%arg0: tensor<10x16xf32>, %arg1: tensor<16x4xf32>, %arg2: tensor<4x16x24xf32>, %arg3: tensor<4x24x16xf32>):
  %0 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %1 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %2 = "stablehlo.dot_general"(%arg0, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<10x16xf32>, tensor<16x4xf32>) -> tensor<10x4xf32>
  %3 = "stablehlo.reduce"(%2, %1) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg6: tensor<f32>, %arg7: tensor<f32>):
    %29 = "stablehlo.maximum"(%arg6, %arg7) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%29) : (tensor<f32>) -> ()
  }) : (tensor<10x4xf32>, tensor<f32>) -> tensor<10xf32>
  %4 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<10xf32>
  %5 = "stablehlo.maximum"(%4, %3) : (tensor<10xf32>, tensor<10xf32>) -> tensor<10xf32>
  %6 = "stablehlo.broadcast_in_dim"(%5) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xf32>) -> tensor<10x1xf32>
  %7 = "stablehlo.broadcast_in_dim"(%6) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xf32>) -> tensor<10x4xf32>
  %8 = "stablehlo.subtract"(%2, %7) : (tensor<10x4xf32>, tensor<10x4xf32>) -> tensor<10x4xf32>
  %9 = "stablehlo.exponential"(%8) : (tensor<10x4xf32>) -> tensor<10x4xf32>
  %10 = "stablehlo.reduce"(%9, %0) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg4: tensor<f32>, %arg5: tensor<f32>):
    %28 = "stablehlo.add"(%arg4, %arg5) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%28) : (tensor<f32>) -> ()
  }) : (tensor<10x4xf32>, tensor<f32>) -> tensor<10xf32>
  %11 = "stablehlo.broadcast_in_dim"(%10) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xf32>) -> tensor<10x1xf32>
  %12 = "stablehlo.broadcast_in_dim"(%11) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xf32>) -> tensor<10x4xf32>
  %13 = "stablehlo.divide"(%9, %12) : (tensor<10x4xf32>, tensor<10x4xf32>) -> tensor<10x4xf32>
  %14 = "stablehlo.transpose"(%13) <{permutation = array<i64: 1, 0>}> : (tensor<10x4xf32>) -> tensor<4x10xf32>
  %15:2 = "stablehlo.composite"(%14) <{composite_attributes = {k = 3 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<4x10xf32>) -> (tensor<4x3xf32>, tensor<4x3xi32>)
  %16 = "stablehlo.broadcast_in_dim"(%15#1) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<4x3xi32>) -> tensor<4x3x1xi32>
  %17 = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<1x1x10xi32>
  %18 = "stablehlo.broadcast_in_dim"(%16) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<4x3x1xi32>) -> tensor<4x3x10xi32>
  %19 = "stablehlo.broadcast_in_dim"(%17) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x1x10xi32>) -> tensor<4x3x10xi32>
  %20 = "stablehlo.compare"(%18, %19) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<4x3x10xi32>, tensor<4x3x10xi32>) -> tensor<4x3x10xi1>
  %21 = "stablehlo.convert"(%20) : (tensor<4x3x10xi1>) -> tensor<4x3x10xf32>
  %22 = "stablehlo.dot_general"(%21, %arg0) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [0]>}> : (tensor<4x3x10xf32>, tensor<10x16xf32>) -> tensor<4x3x16xf32>
  %23 = "stablehlo.dot_general"(%22, %arg2) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<4x3x16xf32>, tensor<4x16x24xf32>) -> tensor<4x3x24xf32>
  %24 = "stablehlo.tanh"(%23) : (tensor<4x3x24xf32>) -> tensor<4x3x24xf32>
  %25 = "stablehlo.dot_general"(%24, %arg3) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<4x3x24xf32>, tensor<4x24x16xf32>) -> tensor<4x3x16xf32>
  %26 = "stablehlo.dot_general"(%15#0, %21) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0, 1], rhs_batching_dimensions = [0, 1]>}> : (tensor<4x3xf32>, tensor<4x3x10xf32>) -> tensor<4x3x10xf32>
  %27 = "stablehlo.dot_general"(%26, %25) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1, 0], rhs_contracting_dimensions = [1, 0]>}> : (tensor<4x3x10xf32>, tensor<4x3x16xf32>) -> tensor<10x16xf32>
  "func.return"(%27) : (tensor<10x16xf32>) -> ()
}) : () -> ()

// -----

// Weights that depend on the rank of a choice, which no gate has.

// CHECK-LABEL: func.func @by_rank(
// CHECK-NOT:     select(expert_choice)
// CHECK-NOT:     moe.dispatch
"func.func"() <{function_type = (tensor<10x16xf32>, tensor<16x4xf32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>) -> tensor<10x16xf32>, sym_name = "by_rank"}> ({
^bb0(%arg0: tensor<10x16xf32>, %arg1: tensor<16x4xf32>, %arg2: tensor<4x16x24xf32>, %arg3: tensor<4x24x16xf32>):
  %0 = "stablehlo.constant"() <{value = dense<1.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %1 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %2 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %3 = "stablehlo.dot_general"(%arg0, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<10x16xf32>, tensor<16x4xf32>) -> tensor<10x4xf32>
  %4 = "stablehlo.reduce"(%3, %2) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg6: tensor<f32>, %arg7: tensor<f32>):
    %36 = "stablehlo.maximum"(%arg6, %arg7) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%36) : (tensor<f32>) -> ()
  }) : (tensor<10x4xf32>, tensor<f32>) -> tensor<10xf32>
  %5 = "stablehlo.broadcast_in_dim"(%2) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<10xf32>
  %6 = "stablehlo.maximum"(%5, %4) : (tensor<10xf32>, tensor<10xf32>) -> tensor<10xf32>
  %7 = "stablehlo.broadcast_in_dim"(%6) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xf32>) -> tensor<10x1xf32>
  %8 = "stablehlo.broadcast_in_dim"(%7) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xf32>) -> tensor<10x4xf32>
  %9 = "stablehlo.subtract"(%3, %8) : (tensor<10x4xf32>, tensor<10x4xf32>) -> tensor<10x4xf32>
  %10 = "stablehlo.exponential"(%9) : (tensor<10x4xf32>) -> tensor<10x4xf32>
  %11 = "stablehlo.reduce"(%10, %1) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg4: tensor<f32>, %arg5: tensor<f32>):
    %35 = "stablehlo.add"(%arg4, %arg5) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%35) : (tensor<f32>) -> ()
  }) : (tensor<10x4xf32>, tensor<f32>) -> tensor<10xf32>
  %12 = "stablehlo.broadcast_in_dim"(%11) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xf32>) -> tensor<10x1xf32>
  %13 = "stablehlo.broadcast_in_dim"(%12) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xf32>) -> tensor<10x4xf32>
  %14 = "stablehlo.divide"(%10, %13) : (tensor<10x4xf32>, tensor<10x4xf32>) -> tensor<10x4xf32>
  %15 = "stablehlo.transpose"(%14) <{permutation = array<i64: 1, 0>}> : (tensor<10x4xf32>) -> tensor<4x10xf32>
  %16:2 = "stablehlo.composite"(%15) <{composite_attributes = {k = 3 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<4x10xf32>) -> (tensor<4x3xf32>, tensor<4x3xi32>)
  %17 = "stablehlo.broadcast_in_dim"(%16#1) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<4x3xi32>) -> tensor<4x3x1xi32>
  %18 = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<1x1x10xi32>
  %19 = "stablehlo.broadcast_in_dim"(%17) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<4x3x1xi32>) -> tensor<4x3x10xi32>
  %20 = "stablehlo.broadcast_in_dim"(%18) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x1x10xi32>) -> tensor<4x3x10xi32>
  %21 = "stablehlo.compare"(%19, %20) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<4x3x10xi32>, tensor<4x3x10xi32>) -> tensor<4x3x10xi1>
  %22 = "stablehlo.convert"(%21) : (tensor<4x3x10xi1>) -> tensor<4x3x10xf32>
  %23 = "stablehlo.dot_general"(%22, %arg0) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [0]>}> : (tensor<4x3x10xf32>, tensor<10x16xf32>) -> tensor<4x3x16xf32>
  %24 = "stablehlo.dot_general"(%23, %arg2) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<4x3x16xf32>, tensor<4x16x24xf32>) -> tensor<4x3x24xf32>
  %25 = "stablehlo.tanh"(%24) : (tensor<4x3x24xf32>) -> tensor<4x3x24xf32>
  %26 = "stablehlo.dot_general"(%25, %arg3) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<4x3x24xf32>, tensor<4x24x16xf32>) -> tensor<4x3x16xf32>
  %27 = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<3xf32>
  %28 = "stablehlo.broadcast_in_dim"(%0) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<3xf32>
  %29 = "stablehlo.add"(%28, %27) : (tensor<3xf32>, tensor<3xf32>) -> tensor<3xf32>
  %30 = "stablehlo.broadcast_in_dim"(%29) <{broadcast_dimensions = array<i64: 1>}> : (tensor<3xf32>) -> tensor<1x3xf32>
  %31 = "stablehlo.broadcast_in_dim"(%30) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<1x3xf32>) -> tensor<4x3xf32>
  %32 = "stablehlo.divide"(%16#0, %31) : (tensor<4x3xf32>, tensor<4x3xf32>) -> tensor<4x3xf32>
  %33 = "stablehlo.dot_general"(%32, %22) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0, 1], rhs_batching_dimensions = [0, 1]>}> : (tensor<4x3xf32>, tensor<4x3x10xf32>) -> tensor<4x3x10xf32>
  %34 = "stablehlo.dot_general"(%33, %26) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1, 0], rhs_contracting_dimensions = [1, 0]>}> : (tensor<4x3x10xf32>, tensor<4x3x16xf32>) -> tensor<10x16xf32>
  "func.return"(%34) : (tensor<10x16xf32>) -> ()
}) : () -> ()
