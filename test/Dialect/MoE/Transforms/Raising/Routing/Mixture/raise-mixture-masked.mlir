// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-routing --moe-raise-grouped | FileCheck %s

// A mask of all experts but those chosen.
// RUN: sed 's/comparison_direction EQ/comparison_direction NE/' %s | moe-opt - --split-input-file --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// NONE-NOT: moe.dispatch

// Weights are the scores of all experts under a mask, over their sum.

// CHECK-LABEL: func.func public @masked(
// CHECK-SAME:      %[[X:[^ ]*]]: tensor<10x16xf32>, %{{[^ ]*}}: tensor<16x4xf32>, %[[UP:[^ ]*]]: tensor<4x16x24xf32>, %[[DOWN:[^ ]*]]: tensor<4x24x16xf32>
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate %{{.*}} top_k(2) score(none)
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}}, %[[IDS]] experts(4)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[UP]] : tensor<4x16x24xf32>)
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[DOWN]] : tensor<4x24x16xf32>)
// CHECK:         moe.combine %[[Y]], %[[PLACES]] weights(%{{.*}} :
// CHECK-NOT:     stablehlo.dot_general"(%{{.*}}tensor<4x
"func.func"() <{function_type = (tensor<10x16xf32>, tensor<16x4xf32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>) -> tensor<10x16xf32>, res_attrs = [{}], sym_name = "masked", sym_visibility = "public"}> ({
^bb0(%arg0: tensor<10x16xf32>, %arg1: tensor<16x4xf32>, %arg2: tensor<4x16x24xf32>, %arg3: tensor<4x24x16xf32>):
  %0 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %1 = "stablehlo.constant"() <{value = dense<false> : tensor<i1>}> : () -> tensor<i1>
  %2 = "stablehlo.constant"() <{value = dense<1.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %3 = "stablehlo.dot_general"(%arg0, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<10x16xf32>, tensor<16x4xf32>) -> tensor<10x4xf32>
  %4 = "stablehlo.negate"(%3) : (tensor<10x4xf32>) -> tensor<10x4xf32>
  %5 = "stablehlo.exponential"(%4) : (tensor<10x4xf32>) -> tensor<10x4xf32>
  %6 = "stablehlo.broadcast_in_dim"(%2) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<10x4xf32>
  %7 = "stablehlo.add"(%6, %5) : (tensor<10x4xf32>, tensor<10x4xf32>) -> tensor<10x4xf32>
  %8 = "stablehlo.divide"(%6, %7) : (tensor<10x4xf32>, tensor<10x4xf32>) -> tensor<10x4xf32>
  %9:2 = "stablehlo.composite"(%8) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<10x4xf32>) -> (tensor<10x2xf32>, tensor<10x2xi32>)
  %10 = "stablehlo.broadcast_in_dim"(%9#1) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x2xi32>) -> tensor<10x2x1xi32>
  %11 = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<1x1x4xi32>
  %12 = "stablehlo.broadcast_in_dim"(%10) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<10x2x1xi32>) -> tensor<10x2x4xi32>
  %13 = "stablehlo.broadcast_in_dim"(%11) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x1x4xi32>) -> tensor<10x2x4xi32>
  %14 = "stablehlo.compare"(%12, %13) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<10x2x4xi32>, tensor<10x2x4xi32>) -> tensor<10x2x4xi1>
  %15 = "stablehlo.reduce"(%14, %1) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg6: tensor<i1>, %arg7: tensor<i1>):
    %29 = "stablehlo.or"(%arg6, %arg7) : (tensor<i1>, tensor<i1>) -> tensor<i1>
    "stablehlo.return"(%29) : (tensor<i1>) -> ()
  }) : (tensor<10x2x4xi1>, tensor<i1>) -> tensor<10x4xi1>
  %16 = "stablehlo.convert"(%0) : (tensor<f32>) -> tensor<f32>
  %17 = "stablehlo.broadcast_in_dim"(%16) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<10x4xf32>
  %18 = "stablehlo.select"(%15, %8, %17) : (tensor<10x4xi1>, tensor<10x4xf32>, tensor<10x4xf32>) -> tensor<10x4xf32>
  %19 = "stablehlo.reduce"(%18, %0) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg4: tensor<f32>, %arg5: tensor<f32>):
    %28 = "stablehlo.add"(%arg4, %arg5) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%28) : (tensor<f32>) -> ()
  }) : (tensor<10x4xf32>, tensor<f32>) -> tensor<10xf32>
  %20 = "stablehlo.broadcast_in_dim"(%19) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xf32>) -> tensor<10x1xf32>
  %21 = "stablehlo.broadcast_in_dim"(%20) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xf32>) -> tensor<10x4xf32>
  %22 = "stablehlo.divide"(%18, %21) : (tensor<10x4xf32>, tensor<10x4xf32>) -> tensor<10x4xf32>
  %23 = "stablehlo.dot_general"(%arg0, %arg2) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<10x16xf32>, tensor<4x16x24xf32>) -> tensor<10x4x24xf32>
  %24 = "stablehlo.tanh"(%23) : (tensor<10x4x24xf32>) -> tensor<10x4x24xf32>
  %25 = "stablehlo.dot_general"(%arg3, %24) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [1], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [2]>}> : (tensor<4x24x16xf32>, tensor<10x4x24xf32>) -> tensor<4x16x10xf32>
  %26 = "stablehlo.transpose"(%25) <{permutation = array<i64: 2, 0, 1>}> : (tensor<4x16x10xf32>) -> tensor<10x4x16xf32>
  %27 = "stablehlo.dot_general"(%22, %26) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<10x4xf32>, tensor<10x4x16xf32>) -> tensor<10x16xf32>
  "func.return"(%27) : (tensor<10x16xf32>) -> ()
}) : () -> ()

// -----

// CHECK-LABEL: func.func public @masked_any(
// CHECK-SAME:      %[[X:[^ ]*]]: tensor<?x16xf32>, %{{[^ ]*}}: tensor<16x4xf32>, %[[UP:[^ ]*]]: tensor<4x16x24xf32>, %[[DOWN:[^ ]*]]: tensor<4x24x16xf32>
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate %{{.*}} top_k(2) score(none)
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}}, %[[IDS]] experts(4)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[UP]] : tensor<4x16x24xf32>)
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[DOWN]] : tensor<4x24x16xf32>)
// CHECK:         moe.combine %[[Y]], %[[PLACES]] weights(%{{.*}} :
// CHECK-NOT:     stablehlo.dot_general"(%{{.*}}tensor<4x
"func.func"() <{function_type = (tensor<?x16xf32>, tensor<16x4xf32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>) -> tensor<?x16xf32>, res_attrs = [{}], sym_name = "masked_any", sym_visibility = "public"}> ({
^bb0(%arg0: tensor<?x16xf32>, %arg1: tensor<16x4xf32>, %arg2: tensor<4x16x24xf32>, %arg3: tensor<4x24x16xf32>):
  %0 = "stablehlo.constant"() <{value = dense<2> : tensor<1xi32>}> : () -> tensor<1xi32>
  %1 = "stablehlo.constant"() <{value = dense<1.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %2 = "stablehlo.constant"() <{value = dense<4> : tensor<1xi32>}> : () -> tensor<1xi32>
  %3 = "stablehlo.constant"() <{value = dense<false> : tensor<i1>}> : () -> tensor<i1>
  %4 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %5 = "stablehlo.constant"() <{value = dense<1> : tensor<1xi32>}> : () -> tensor<1xi32>
  %6 = "stablehlo.get_dimension_size"(%arg0) <{dimension = 0 : i64}> : (tensor<?x16xf32>) -> tensor<i32>
  %7 = "stablehlo.dot_general"(%arg0, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<?x16xf32>, tensor<16x4xf32>) -> tensor<?x4xf32>
  %8 = "stablehlo.negate"(%7) : (tensor<?x4xf32>) -> tensor<?x4xf32>
  %9 = "stablehlo.exponential"(%8) : (tensor<?x4xf32>) -> tensor<?x4xf32>
  %10 = "stablehlo.reshape"(%6) : (tensor<i32>) -> tensor<1xi32>
  %11 = "stablehlo.concatenate"(%10, %2) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %12 = "stablehlo.dynamic_broadcast_in_dim"(%1, %11) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<2xi32>) -> tensor<?x4xf32>
  %13 = "stablehlo.add"(%12, %9) : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %14 = "stablehlo.divide"(%12, %13) : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %15:2 = "stablehlo.composite"(%14) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<?x4xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>)
  %16 = "stablehlo.concatenate"(%10, %0, %5) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>, tensor<1xi32>) -> tensor<3xi32>
  %17 = "stablehlo.dynamic_broadcast_in_dim"(%15#1, %16) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x2xi32>, tensor<3xi32>) -> tensor<?x2x1xi32>
  %18 = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<1x1x4xi32>
  %19 = "stablehlo.concatenate"(%10, %0, %2) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>, tensor<1xi32>) -> tensor<3xi32>
  %20 = "stablehlo.dynamic_broadcast_in_dim"(%17, %19) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<?x2x1xi32>, tensor<3xi32>) -> tensor<?x2x4xi32>
  %21 = "stablehlo.dynamic_broadcast_in_dim"(%18, %19) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x1x4xi32>, tensor<3xi32>) -> tensor<?x2x4xi32>
  %22 = "stablehlo.compare"(%20, %21) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<?x2x4xi32>, tensor<?x2x4xi32>) -> tensor<?x2x4xi1>
  %23 = "stablehlo.reduce"(%22, %3) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg6: tensor<i1>, %arg7: tensor<i1>):
    %38 = "stablehlo.or"(%arg6, %arg7) : (tensor<i1>, tensor<i1>) -> tensor<i1>
    "stablehlo.return"(%38) : (tensor<i1>) -> ()
  }) : (tensor<?x2x4xi1>, tensor<i1>) -> tensor<?x4xi1>
  %24 = "stablehlo.convert"(%4) : (tensor<f32>) -> tensor<f32>
  %25 = "stablehlo.dynamic_broadcast_in_dim"(%24, %11) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<2xi32>) -> tensor<?x4xf32>
  %26 = "stablehlo.select"(%23, %14, %25) : (tensor<?x4xi1>, tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %27 = "stablehlo.reduce"(%26, %4) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg4: tensor<f32>, %arg5: tensor<f32>):
    %37 = "stablehlo.add"(%arg4, %arg5) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%37) : (tensor<f32>) -> ()
  }) : (tensor<?x4xf32>, tensor<f32>) -> tensor<?xf32>
  %28 = "stablehlo.concatenate"(%10, %5) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %29 = "stablehlo.dynamic_broadcast_in_dim"(%27, %28) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xf32>, tensor<2xi32>) -> tensor<?x1xf32>
  %30 = "stablehlo.dynamic_broadcast_in_dim"(%29, %11) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x4xf32>
  %31 = "stablehlo.divide"(%26, %30) : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %32 = "stablehlo.dot_general"(%arg0, %arg2) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<?x16xf32>, tensor<4x16x24xf32>) -> tensor<?x4x24xf32>
  %33 = "stablehlo.tanh"(%32) : (tensor<?x4x24xf32>) -> tensor<?x4x24xf32>
  %34 = "stablehlo.dot_general"(%arg3, %33) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [1], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [2]>}> : (tensor<4x24x16xf32>, tensor<?x4x24xf32>) -> tensor<4x16x?xf32>
  %35 = "stablehlo.transpose"(%34) <{permutation = array<i64: 2, 0, 1>}> : (tensor<4x16x?xf32>) -> tensor<?x4x16xf32>
  %36 = "stablehlo.dot_general"(%31, %35) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<?x4xf32>, tensor<?x4x16xf32>) -> tensor<?x16xf32>
  "func.return"(%36) : (tensor<?x16xf32>) -> ()
}) : () -> ()
