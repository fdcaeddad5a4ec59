// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-routing --moe-raise-grouped | FileCheck %s

// A mask of all experts but those chosen.
// RUN: sed 's/comparison_direction EQ/comparison_direction NE/' %s | moe-opt - --split-input-file --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// NONE-NOT: moe.dispatch

// A batch of sequences, [B, S, E], all experts on all tokens.

// CHECK-LABEL: func.func public @batch(
// CHECK-SAME:      %[[X:[^ ]*]]: tensor<3x5x16xf32>, %{{[^ ]*}}: tensor<16x4xf32>, %[[UP:[^ ]*]]: tensor<4x16x24xf32>, %[[DOWN:[^ ]*]]: tensor<4x24x16xf32>
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate %{{.*}} top_k(2) score(none)
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}}, %[[IDS]] experts(4)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[UP]] : tensor<4x16x24xf32>)
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[DOWN]] : tensor<4x24x16xf32>)
// CHECK:         moe.combine %[[Y]], %[[PLACES]] weights(%[[W]] :
// CHECK-NOT:     stablehlo.dot_general"(%{{.*}}tensor<4x
"func.func"() <{function_type = (tensor<3x5x16xf32>, tensor<16x4xf32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>) -> tensor<3x5x16xf32>, res_attrs = [{}], sym_name = "batch", sym_visibility = "public"}> ({
^bb0(%arg0: tensor<3x5x16xf32>, %arg1: tensor<16x4xf32>, %arg2: tensor<4x16x24xf32>, %arg3: tensor<4x24x16xf32>):
  %0 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %1 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %2 = "stablehlo.dot_general"(%arg0, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [0]>}> : (tensor<3x5x16xf32>, tensor<16x4xf32>) -> tensor<3x5x4xf32>
  %3 = "stablehlo.reduce"(%2, %1) <{dimensions = array<i64: 2>}> ({
  ^bb0(%arg10: tensor<f32>, %arg11: tensor<f32>):
    %36 = "stablehlo.maximum"(%arg10, %arg11) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%36) : (tensor<f32>) -> ()
  }) : (tensor<3x5x4xf32>, tensor<f32>) -> tensor<3x5xf32>
  %4 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<3x5xf32>
  %5 = "stablehlo.maximum"(%4, %3) : (tensor<3x5xf32>, tensor<3x5xf32>) -> tensor<3x5xf32>
  %6 = "stablehlo.broadcast_in_dim"(%5) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<3x5xf32>) -> tensor<3x5x1xf32>
  %7 = "stablehlo.broadcast_in_dim"(%6) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<3x5x1xf32>) -> tensor<3x5x4xf32>
  %8 = "stablehlo.subtract"(%2, %7) : (tensor<3x5x4xf32>, tensor<3x5x4xf32>) -> tensor<3x5x4xf32>
  %9 = "stablehlo.exponential"(%8) : (tensor<3x5x4xf32>) -> tensor<3x5x4xf32>
  %10 = "stablehlo.reduce"(%9, %0) <{dimensions = array<i64: 2>}> ({
  ^bb0(%arg8: tensor<f32>, %arg9: tensor<f32>):
    %35 = "stablehlo.add"(%arg8, %arg9) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%35) : (tensor<f32>) -> ()
  }) : (tensor<3x5x4xf32>, tensor<f32>) -> tensor<3x5xf32>
  %11 = "stablehlo.broadcast_in_dim"(%10) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<3x5xf32>) -> tensor<3x5x1xf32>
  %12 = "stablehlo.broadcast_in_dim"(%11) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<3x5x1xf32>) -> tensor<3x5x4xf32>
  %13 = "stablehlo.divide"(%9, %12) : (tensor<3x5x4xf32>, tensor<3x5x4xf32>) -> tensor<3x5x4xf32>
  %14:2 = "stablehlo.composite"(%13) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<3x5x4xf32>) -> (tensor<3x5x2xf32>, tensor<3x5x2xi32>)
  %15 = "stablehlo.broadcast_in_dim"(%14#1) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<3x5x2xi32>) -> tensor<3x5x2x1xi32>
  %16 = "stablehlo.iota"() <{iota_dimension = 3 : i64}> : () -> tensor<1x1x1x4xi32>
  %17 = "stablehlo.broadcast_in_dim"(%15) <{broadcast_dimensions = array<i64: 0, 1, 2, 3>}> : (tensor<3x5x2x1xi32>) -> tensor<3x5x2x4xi32>
  %18 = "stablehlo.broadcast_in_dim"(%16) <{broadcast_dimensions = array<i64: 0, 1, 2, 3>}> : (tensor<1x1x1x4xi32>) -> tensor<3x5x2x4xi32>
  %19 = "stablehlo.compare"(%17, %18) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<3x5x2x4xi32>, tensor<3x5x2x4xi32>) -> tensor<3x5x2x4xi1>
  %20 = "stablehlo.convert"(%19) : (tensor<3x5x2x4xi1>) -> tensor<3x5x2x4xf32>
  %21 = "stablehlo.broadcast_in_dim"(%14#0) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<3x5x2xf32>) -> tensor<3x5x2x1xf32>
  %22 = "stablehlo.broadcast_in_dim"(%21) <{broadcast_dimensions = array<i64: 0, 1, 2, 3>}> : (tensor<3x5x2x1xf32>) -> tensor<3x5x2x4xf32>
  %23 = "stablehlo.multiply"(%20, %22) : (tensor<3x5x2x4xf32>, tensor<3x5x2x4xf32>) -> tensor<3x5x2x4xf32>
  %24 = "stablehlo.reduce"(%23, %0) <{dimensions = array<i64: 2>}> ({
  ^bb0(%arg6: tensor<f32>, %arg7: tensor<f32>):
    %34 = "stablehlo.add"(%arg6, %arg7) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%34) : (tensor<f32>) -> ()
  }) : (tensor<3x5x2x4xf32>, tensor<f32>) -> tensor<3x5x4xf32>
  %25 = "stablehlo.dot_general"(%arg0, %arg2) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<3x5x16xf32>, tensor<4x16x24xf32>) -> tensor<3x5x4x24xf32>
  %26 = "stablehlo.tanh"(%25) : (tensor<3x5x4x24xf32>) -> tensor<3x5x4x24xf32>
  %27 = "stablehlo.dot_general"(%arg3, %26) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [2], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [3]>}> : (tensor<4x24x16xf32>, tensor<3x5x4x24xf32>) -> tensor<4x16x3x5xf32>
  %28 = "stablehlo.transpose"(%27) <{permutation = array<i64: 2, 3, 0, 1>}> : (tensor<4x16x3x5xf32>) -> tensor<3x5x4x16xf32>
  %29 = "stablehlo.broadcast_in_dim"(%24) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<3x5x4xf32>) -> tensor<3x5x4x1xf32>
  %30 = "stablehlo.broadcast_in_dim"(%29) <{broadcast_dimensions = array<i64: 0, 1, 2, 3>}> : (tensor<3x5x4x1xf32>) -> tensor<3x5x4x16xf32>
  %31 = "stablehlo.multiply"(%28, %30) : (tensor<3x5x4x16xf32>, tensor<3x5x4x16xf32>) -> tensor<3x5x4x16xf32>
  %32 = "stablehlo.reduce"(%31, %0) <{dimensions = array<i64: 2>}> ({
  ^bb0(%arg4: tensor<f32>, %arg5: tensor<f32>):
    %33 = "stablehlo.add"(%arg4, %arg5) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%33) : (tensor<f32>) -> ()
  }) : (tensor<3x5x4x16xf32>, tensor<f32>) -> tensor<3x5x16xf32>
  "func.return"(%32) : (tensor<3x5x16xf32>) -> ()
}) : () -> ()
