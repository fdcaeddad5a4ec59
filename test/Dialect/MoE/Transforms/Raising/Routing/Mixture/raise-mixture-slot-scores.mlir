// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-routing --moe-raise-grouped | FileCheck %s

// Places from 1 on.
// RUN: sed 's/dense<1> : tensor<i32>/dense<0> : tensor<i32>/' %s | moe-opt - --split-input-file --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// NONE-NOT: moe.dispatch

// The scores of all experts times masks of slots combine: Flaxformer, with groups of tokens.

// CHECK-LABEL: func.func @groups(
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate %{{.*}} top_k(1) score(none)
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}} capacity(<fixed = 5>)
// CHECK-COUNT-2: moe.grouped_matmul
// CHECK:         moe.combine %{{.*}}, %[[PLACES]] weights(%[[W]] :
"func.func"() <{function_type = (tensor<2x12x16xf32>, tensor<16x4xf32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>) -> tensor<2x12x16xf32>, sym_name = "groups"}> ({
^bb0(%arg0: tensor<2x12x16xf32>, %arg1: tensor<16x4xf32>, %arg2: tensor<4x16x24xf32>, %arg3: tensor<4x24x16xf32>):
  %0 = "stablehlo.reshape"(%arg0) : (tensor<2x12x16xf32>) -> tensor<24x16xf32>
  %1 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %2 = "stablehlo.constant"() <{value = dense<1.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %3 = "stablehlo.constant"() <{value = dense<1> : tensor<i32>}> : () -> tensor<i32>
  %4 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %5 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %6 = "stablehlo.dot_general"(%0, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<24x16xf32>, tensor<16x4xf32>) -> tensor<24x4xf32>
  %7 = "stablehlo.reduce"(%6, %5) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg8: tensor<f32>, %arg9: tensor<f32>):
    %63 = "stablehlo.maximum"(%arg8, %arg9) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%63) : (tensor<f32>) -> ()
  }) : (tensor<24x4xf32>, tensor<f32>) -> tensor<24xf32>
  %8 = "stablehlo.broadcast_in_dim"(%5) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<24xf32>
  %9 = "stablehlo.maximum"(%8, %7) : (tensor<24xf32>, tensor<24xf32>) -> tensor<24xf32>
  %10 = "stablehlo.broadcast_in_dim"(%9) <{broadcast_dimensions = array<i64: 0>}> : (tensor<24xf32>) -> tensor<24x1xf32>
  %11 = "stablehlo.broadcast_in_dim"(%10) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<24x1xf32>) -> tensor<24x4xf32>
  %12 = "stablehlo.subtract"(%6, %11) : (tensor<24x4xf32>, tensor<24x4xf32>) -> tensor<24x4xf32>
  %13 = "stablehlo.exponential"(%12) : (tensor<24x4xf32>) -> tensor<24x4xf32>
  %14 = "stablehlo.reduce"(%13, %4) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg6: tensor<f32>, %arg7: tensor<f32>):
    %62 = "stablehlo.add"(%arg6, %arg7) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%62) : (tensor<f32>) -> ()
  }) : (tensor<24x4xf32>, tensor<f32>) -> tensor<24xf32>
  %15 = "stablehlo.broadcast_in_dim"(%14) <{broadcast_dimensions = array<i64: 0>}> : (tensor<24xf32>) -> tensor<24x1xf32>
  %16 = "stablehlo.broadcast_in_dim"(%15) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<24x1xf32>) -> tensor<24x4xf32>
  %17 = "stablehlo.divide"(%13, %16) : (tensor<24x4xf32>, tensor<24x4xf32>) -> tensor<24x4xf32>
  %18:2 = "chlo.top_k"(%17) <{k = 1 : i64}> : (tensor<24x4xf32>) -> (tensor<24x1xf32>, tensor<24x1xi32>)
  %19 = "stablehlo.reshape"(%18#1) : (tensor<24x1xi32>) -> tensor<2x12xi32>
  %20 = "stablehlo.broadcast_in_dim"(%19) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<2x12xi32>) -> tensor<2x12x1xi32>
  %21 = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<1x1x4xi32>
  %22 = "stablehlo.broadcast_in_dim"(%20) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<2x12x1xi32>) -> tensor<2x12x4xi32>
  %23 = "stablehlo.reshape"(%21) : (tensor<1x1x4xi32>) -> tensor<1x4xi32>
  %24 = "stablehlo.broadcast_in_dim"(%23) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<1x4xi32>) -> tensor<24x4xi32>
  %25 = "stablehlo.reshape"(%22) : (tensor<2x12x4xi32>) -> tensor<24x4xi32>
  %26 = "stablehlo.compare"(%25, %24) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<24x4xi32>, tensor<24x4xi32>) -> tensor<24x4xi1>
  %27 = "stablehlo.convert"(%26) : (tensor<24x4xi1>) -> tensor<24x4xi32>
  %28 = "stablehlo.reshape"(%27) : (tensor<24x4xi32>) -> tensor<2x12x4xi32>
  %29 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<i32>
  %30 = "stablehlo.reduce_window"(%28, %29) <{padding = dense<[[0, 0], [11, 0], [0, 0]]> : tensor<3x2xi64>, window_dimensions = array<i64: 1, 12, 1>}> ({
  ^bb0(%arg4: tensor<i32>, %arg5: tensor<i32>):
    %61 = "stablehlo.add"(%arg4, %arg5) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%61) : (tensor<i32>) -> ()
  }) : (tensor<2x12x4xi32>, tensor<i32>) -> tensor<2x12x4xi32>
  %31 = "stablehlo.reshape"(%30) : (tensor<2x12x4xi32>) -> tensor<24x4xi32>
  %32 = "stablehlo.multiply"(%31, %27) : (tensor<24x4xi32>, tensor<24x4xi32>) -> tensor<24x4xi32>
  %33 = "stablehlo.broadcast_in_dim"(%3) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<24x4xi32>
  %34 = "stablehlo.subtract"(%32, %33) : (tensor<24x4xi32>, tensor<24x4xi32>) -> tensor<24x4xi32>
  %35 = "stablehlo.convert"(%34) : (tensor<24x4xi32>) -> tensor<24x4xf32>
  %36 = "stablehlo.broadcast_in_dim"(%2) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<24x4xf32>
  %37 = "stablehlo.multiply"(%35, %36) : (tensor<24x4xf32>, tensor<24x4xf32>) -> tensor<24x4xf32>
  %38 = "stablehlo.broadcast_in_dim"(%37) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<24x4xf32>) -> tensor<24x4x1xf32>
  %39 = "stablehlo.iota"() <{iota_dimension = 3 : i64}> : () -> tensor<1x1x1x5xf32>
  %40 = "stablehlo.convert"(%38) : (tensor<24x4x1xf32>) -> tensor<24x4x1xf32>
  %41 = "stablehlo.broadcast_in_dim"(%40) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<24x4x1xf32>) -> tensor<24x4x5xf32>
  %42 = "stablehlo.reshape"(%39) : (tensor<1x1x1x5xf32>) -> tensor<1x1x5xf32>
  %43 = "stablehlo.broadcast_in_dim"(%42) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x1x5xf32>) -> tensor<24x4x5xf32>
  %44 = "stablehlo.compare"(%41, %43) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<24x4x5xf32>, tensor<24x4x5xf32>) -> tensor<24x4x5xi1>
  %45 = "stablehlo.convert"(%17) : (tensor<24x4xf32>) -> tensor<24x4xf32>
  %46 = "stablehlo.convert"(%44) : (tensor<24x4x5xi1>) -> tensor<24x4x5xf32>
  %47 = "stablehlo.reshape"(%46) : (tensor<24x4x5xf32>) -> tensor<2x12x4x5xf32>
  %48 = "stablehlo.dot_general"(%45, %46) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0, 1], rhs_batching_dimensions = [0, 1]>}> : (tensor<24x4xf32>, tensor<24x4x5xf32>) -> tensor<24x4x5xf32>
  %49 = "stablehlo.reshape"(%48) : (tensor<24x4x5xf32>) -> tensor<2x12x4x5xf32>
  %50 = "stablehlo.convert"(%0) : (tensor<24x16xf32>) -> tensor<24x16xf32>
  %51 = "stablehlo.reshape"(%50) : (tensor<24x16xf32>) -> tensor<2x12x16xf32>
  %52 = "stablehlo.dot_general"(%47, %51) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<2x12x4x5xf32>, tensor<2x12x16xf32>) -> tensor<2x4x5x16xf32>
  %53 = "stablehlo.transpose"(%52) <{permutation = array<i64: 1, 0, 2, 3>}> : (tensor<2x4x5x16xf32>) -> tensor<4x2x5x16xf32>
  %54 = "stablehlo.reshape"(%53) : (tensor<4x2x5x16xf32>) -> tensor<4x10x16xf32>
  %55 = "stablehlo.dot_general"(%54, %arg2) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<4x10x16xf32>, tensor<4x16x24xf32>) -> tensor<4x10x24xf32>
  %56 = "stablehlo.tanh"(%55) : (tensor<4x10x24xf32>) -> tensor<4x10x24xf32>
  %57 = "stablehlo.dot_general"(%56, %arg3) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<4x10x24xf32>, tensor<4x24x16xf32>) -> tensor<4x10x16xf32>
  %58 = "stablehlo.reshape"(%57) : (tensor<4x10x16xf32>) -> tensor<4x2x5x16xf32>
  %59 = "stablehlo.transpose"(%58) <{permutation = array<i64: 1, 0, 2, 3>}> : (tensor<4x2x5x16xf32>) -> tensor<2x4x5x16xf32>
  %60 = "stablehlo.dot_general"(%49, %59) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [3, 2], rhs_contracting_dimensions = [2, 1]>}> : (tensor<2x12x4x5xf32>, tensor<2x4x5x16xf32>) -> tensor<2x12x16xf32>
  "func.return"(%60) : (tensor<2x12x16xf32>) -> ()
}) : () -> ()

// -----

// As a product of broadcast arrays.

// CHECK-LABEL: func.func @products(
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate %{{.*}} top_k(1) score(none)
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}} capacity(<fixed = 5>)
// CHECK-COUNT-2: moe.grouped_matmul
// CHECK:         moe.combine %{{.*}}, %[[PLACES]] weights(%[[W]] :
"func.func"() <{function_type = (tensor<12x16xf32>, tensor<16x4xf32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>) -> tensor<12x16xf32>, sym_name = "products"}> ({
^bb0(%arg0: tensor<12x16xf32>, %arg1: tensor<16x4xf32>, %arg2: tensor<4x16x24xf32>, %arg3: tensor<4x24x16xf32>):
  %0 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %1 = "stablehlo.constant"() <{value = dense<1> : tensor<i32>}> : () -> tensor<i32>
  %2 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %3 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %4 = "stablehlo.dot_general"(%arg0, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<12x16xf32>, tensor<16x4xf32>) -> tensor<12x4xf32>
  %5 = "stablehlo.reduce"(%4, %3) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg8: tensor<f32>, %arg9: tensor<f32>):
    %45 = "stablehlo.maximum"(%arg8, %arg9) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%45) : (tensor<f32>) -> ()
  }) : (tensor<12x4xf32>, tensor<f32>) -> tensor<12xf32>
  %6 = "stablehlo.broadcast_in_dim"(%3) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<12xf32>
  %7 = "stablehlo.maximum"(%6, %5) : (tensor<12xf32>, tensor<12xf32>) -> tensor<12xf32>
  %8 = "stablehlo.broadcast_in_dim"(%7) <{broadcast_dimensions = array<i64: 0>}> : (tensor<12xf32>) -> tensor<12x1xf32>
  %9 = "stablehlo.broadcast_in_dim"(%8) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<12x1xf32>) -> tensor<12x4xf32>
  %10 = "stablehlo.subtract"(%4, %9) : (tensor<12x4xf32>, tensor<12x4xf32>) -> tensor<12x4xf32>
  %11 = "stablehlo.exponential"(%10) : (tensor<12x4xf32>) -> tensor<12x4xf32>
  %12 = "stablehlo.reduce"(%11, %2) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg6: tensor<f32>, %arg7: tensor<f32>):
    %44 = "stablehlo.add"(%arg6, %arg7) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%44) : (tensor<f32>) -> ()
  }) : (tensor<12x4xf32>, tensor<f32>) -> tensor<12xf32>
  %13 = "stablehlo.broadcast_in_dim"(%12) <{broadcast_dimensions = array<i64: 0>}> : (tensor<12xf32>) -> tensor<12x1xf32>
  %14 = "stablehlo.broadcast_in_dim"(%13) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<12x1xf32>) -> tensor<12x4xf32>
  %15 = "stablehlo.divide"(%11, %14) : (tensor<12x4xf32>, tensor<12x4xf32>) -> tensor<12x4xf32>
  %16:2 = "stablehlo.composite"(%15) <{composite_attributes = {k = 1 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<12x4xf32>) -> (tensor<12x1xf32>, tensor<12x1xi32>)
  %17 = "stablehlo.reshape"(%16#1) : (tensor<12x1xi32>) -> tensor<12xi32>
  %18 = "stablehlo.broadcast_in_dim"(%17) <{broadcast_dimensions = array<i64: 0>}> : (tensor<12xi32>) -> tensor<12x1xi32>
  %19 = "stablehlo.iota"() <{iota_dimension = 1 : i64}> : () -> tensor<1x4xi32>
  %20 = "stablehlo.broadcast_in_dim"(%18) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<12x1xi32>) -> tensor<12x4xi32>
  %21 = "stablehlo.broadcast_in_dim"(%19) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<1x4xi32>) -> tensor<12x4xi32>
  %22 = "stablehlo.compare"(%20, %21) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<12x4xi32>, tensor<12x4xi32>) -> tensor<12x4xi1>
  %23 = "stablehlo.convert"(%22) : (tensor<12x4xi1>) -> tensor<12x4xi32>
  %24 = "stablehlo.broadcast_in_dim"(%0) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<i32>
  %25 = "stablehlo.reduce_window"(%23, %24) <{padding = dense<[[11, 0], [0, 0]]> : tensor<2x2xi64>, window_dimensions = array<i64: 12, 1>}> ({
  ^bb0(%arg4: tensor<i32>, %arg5: tensor<i32>):
    %43 = "stablehlo.add"(%arg4, %arg5) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%43) : (tensor<i32>) -> ()
  }) : (tensor<12x4xi32>, tensor<i32>) -> tensor<12x4xi32>
  %26 = "stablehlo.multiply"(%25, %23) : (tensor<12x4xi32>, tensor<12x4xi32>) -> tensor<12x4xi32>
  %27 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<12x4xi32>
  %28 = "stablehlo.subtract"(%26, %27) : (tensor<12x4xi32>, tensor<12x4xi32>) -> tensor<12x4xi32>
  %29 = "stablehlo.broadcast_in_dim"(%28) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<12x4xi32>) -> tensor<12x4x1xi32>
  %30 = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<1x1x5xi32>
  %31 = "stablehlo.broadcast_in_dim"(%29) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<12x4x1xi32>) -> tensor<12x4x5xi32>
  %32 = "stablehlo.broadcast_in_dim"(%30) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x1x5xi32>) -> tensor<12x4x5xi32>
  %33 = "stablehlo.compare"(%31, %32) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<12x4x5xi32>, tensor<12x4x5xi32>) -> tensor<12x4x5xi1>
  %34 = "stablehlo.convert"(%33) : (tensor<12x4x5xi1>) -> tensor<12x4x5xf32>
  %35 = "stablehlo.dot_general"(%34, %arg0) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [0], rhs_contracting_dimensions = [0]>}> : (tensor<12x4x5xf32>, tensor<12x16xf32>) -> tensor<4x5x16xf32>
  %36 = "stablehlo.dot_general"(%35, %arg2) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<4x5x16xf32>, tensor<4x16x24xf32>) -> tensor<4x5x24xf32>
  %37 = "stablehlo.tanh"(%36) : (tensor<4x5x24xf32>) -> tensor<4x5x24xf32>
  %38 = "stablehlo.dot_general"(%37, %arg3) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<4x5x24xf32>, tensor<4x24x16xf32>) -> tensor<4x5x16xf32>
  %39 = "stablehlo.broadcast_in_dim"(%15) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<12x4xf32>) -> tensor<12x4x1xf32>
  %40 = "stablehlo.broadcast_in_dim"(%39) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<12x4x1xf32>) -> tensor<12x4x5xf32>
  %41 = "stablehlo.multiply"(%40, %34) : (tensor<12x4x5xf32>, tensor<12x4x5xf32>) -> tensor<12x4x5xf32>
  %42 = "stablehlo.dot_general"(%41, %38) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [2, 1], rhs_contracting_dimensions = [1, 0]>}> : (tensor<12x4x5xf32>, tensor<4x5x16xf32>) -> tensor<12x16xf32>
  "func.return"(%42) : (tensor<12x16xf32>) -> ()
}) : () -> ()
