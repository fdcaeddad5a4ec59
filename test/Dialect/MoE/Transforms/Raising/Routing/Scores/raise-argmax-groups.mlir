// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-routing --moe-raise-grouped | FileCheck %s

// The smallest score, and the last index of the largest one.
// RUN: sed 's/comparison_direction GT/comparison_direction LT/; s/"stablehlo.minimum"/"stablehlo.maximum"/' %s | moe-opt - --split-input-file --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// Places among the choices up to the token, as the first slot: those of one expert and those before it.
// RUN: sed 's/comparison_direction LT>}> : (tensor<3x4x4xf32>/comparison_direction GT>}> : (tensor<3x4x4xf32>/' %s | moe-opt - --split-input-file --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// NONE-NOT: moe.dispatch

// One choice by an argmax of groups of tokens with slots of their own (praxis,
// GShard): its score and its place by an einsum with the mask.

// CHECK-LABEL: func.func public @switch(
// CHECK:         %{{.*}}, %[[CHOSEN:.*]] = moe.gate %{{.*}} top_k(1) score(none)
// CHECK:         %[[IDS:.*]] = linalg.generic {{.*}} ins(%[[CHOSEN]] :
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}}, %[[IDS]]{{.*}} experts(12)
// CHECK:         moe.grouped_matmul %[[ROWS]]
// CHECK:         moe.combine %{{.*}}, %[[PLACES]] weights(
// CHECK-NOT:     stablehlo.dot_general"(%{{.*}}tensor<4x
"func.func"() <{function_type = (tensor<12x16xf32>, tensor<16x4xf32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>) -> tensor<12x16xf32>, sym_name = "switch", sym_visibility = "public"}> ({
^bb0(%arg0: tensor<12x16xf32>, %arg1: tensor<16x4xf32>, %arg2: tensor<4x16x24xf32>, %arg3: tensor<4x24x16xf32>):
  %0 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %1 = "stablehlo.constant"() <{value = dense<2.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %2 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %3 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %4 = "stablehlo.reshape"(%arg0) : (tensor<12x16xf32>) -> tensor<3x4x16xf32>
  %5 = "stablehlo.dot_general"(%4, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [0]>}> : (tensor<3x4x16xf32>, tensor<16x4xf32>) -> tensor<3x4x4xf32>
  %6 = "stablehlo.reduce"(%5, %3) <{dimensions = array<i64: 2>}> ({
  ^bb0(%arg14: tensor<f32>, %arg15: tensor<f32>):
    %71 = "stablehlo.maximum"(%arg14, %arg15) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%71) : (tensor<f32>) -> ()
  }) : (tensor<3x4x4xf32>, tensor<f32>) -> tensor<3x4xf32>
  %7 = "stablehlo.broadcast_in_dim"(%3) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<3x4xf32>
  %8 = "stablehlo.maximum"(%7, %6) : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
  %9 = "stablehlo.broadcast_in_dim"(%8) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<3x4xf32>) -> tensor<3x4x1xf32>
  %10 = "stablehlo.broadcast_in_dim"(%9) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<3x4x1xf32>) -> tensor<3x4x4xf32>
  %11 = "stablehlo.subtract"(%5, %10) : (tensor<3x4x4xf32>, tensor<3x4x4xf32>) -> tensor<3x4x4xf32>
  %12 = "stablehlo.exponential"(%11) : (tensor<3x4x4xf32>) -> tensor<3x4x4xf32>
  %13 = "stablehlo.reduce"(%12, %2) <{dimensions = array<i64: 2>}> ({
  ^bb0(%arg12: tensor<f32>, %arg13: tensor<f32>):
    %70 = "stablehlo.add"(%arg12, %arg13) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%70) : (tensor<f32>) -> ()
  }) : (tensor<3x4x4xf32>, tensor<f32>) -> tensor<3x4xf32>
  %14 = "stablehlo.broadcast_in_dim"(%13) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<3x4xf32>) -> tensor<3x4x1xf32>
  %15 = "stablehlo.broadcast_in_dim"(%14) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<3x4x1xf32>) -> tensor<3x4x4xf32>
  %16 = "stablehlo.divide"(%12, %15) : (tensor<3x4x4xf32>, tensor<3x4x4xf32>) -> tensor<3x4x4xf32>
  %17 = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<3x4x4xi32>
  %18:2 = "stablehlo.reduce"(%16, %17, %3, %0) <{dimensions = array<i64: 2>}> ({
  ^bb0(%arg8: tensor<f32>, %arg9: tensor<i32>, %arg10: tensor<f32>, %arg11: tensor<i32>):
    %61 = "stablehlo.compare"(%arg8, %arg10) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction GT>}> : (tensor<f32>, tensor<f32>) -> tensor<i1>
    %62 = "stablehlo.compare"(%arg8, %arg8) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<f32>, tensor<f32>) -> tensor<i1>
    %63 = "stablehlo.or"(%61, %62) : (tensor<i1>, tensor<i1>) -> tensor<i1>
    %64 = "stablehlo.compare"(%arg8, %arg10) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<f32>, tensor<f32>) -> tensor<i1>
    %65 = "stablehlo.compare"(%arg9, %arg11) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    %66 = "stablehlo.and"(%64, %65) : (tensor<i1>, tensor<i1>) -> tensor<i1>
    %67 = "stablehlo.or"(%63, %66) : (tensor<i1>, tensor<i1>) -> tensor<i1>
    %68 = "stablehlo.select"(%63, %arg8, %arg10) : (tensor<i1>, tensor<f32>, tensor<f32>) -> tensor<f32>
    %69 = "stablehlo.select"(%67, %arg9, %arg11) : (tensor<i1>, tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%68, %69) : (tensor<f32>, tensor<i32>) -> ()
  }) : (tensor<3x4x4xf32>, tensor<3x4x4xi32>, tensor<f32>, tensor<i32>) -> (tensor<3x4xf32>, tensor<3x4xi32>)
  %19 = "stablehlo.broadcast_in_dim"(%18#1) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<3x4xi32>) -> tensor<3x4x1xi32>
  %20 = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<1x1x4xi32>
  %21 = "stablehlo.broadcast_in_dim"(%19) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<3x4x1xi32>) -> tensor<3x4x4xi32>
  %22 = "stablehlo.broadcast_in_dim"(%20) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x1x4xi32>) -> tensor<3x4x4xi32>
  %23 = "stablehlo.compare"(%21, %22) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<3x4x4xi32>, tensor<3x4x4xi32>) -> tensor<3x4x4xi1>
  %24 = "stablehlo.convert"(%23) : (tensor<3x4x4xi1>) -> tensor<3x4x4xf32>
  %25 = "stablehlo.dot_general"(%16, %24) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0, 1], rhs_batching_dimensions = [0, 1], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [2]>}> : (tensor<3x4x4xf32>, tensor<3x4x4xf32>) -> tensor<3x4xf32>
  %26 = "stablehlo.broadcast_in_dim"(%2) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<f32>
  %27 = "stablehlo.reduce_window"(%24, %26) <{padding = dense<[[0, 0], [3, 0], [0, 0]]> : tensor<3x2xi64>, window_dimensions = array<i64: 1, 4, 1>}> ({
  ^bb0(%arg6: tensor<f32>, %arg7: tensor<f32>):
    %60 = "stablehlo.add"(%arg6, %arg7) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%60) : (tensor<f32>) -> ()
  }) : (tensor<3x4x4xf32>, tensor<f32>) -> tensor<3x4x4xf32>
  %28 = "stablehlo.subtract"(%27, %24) : (tensor<3x4x4xf32>, tensor<3x4x4xf32>) -> tensor<3x4x4xf32>
  %29 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<3x4x4xf32>
  %30 = "stablehlo.compare"(%28, %29) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<3x4x4xf32>, tensor<3x4x4xf32>) -> tensor<3x4x4xi1>
  %31 = "stablehlo.convert"(%30) : (tensor<3x4x4xi1>) -> tensor<3x4x4xf32>
  %32 = "stablehlo.multiply"(%24, %31) : (tensor<3x4x4xf32>, tensor<3x4x4xf32>) -> tensor<3x4x4xf32>
  %33 = "stablehlo.dot_general"(%28, %32) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0, 1], rhs_batching_dimensions = [0, 1], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [2]>}> : (tensor<3x4x4xf32>, tensor<3x4x4xf32>) -> tensor<3x4xf32>
  %34 = "stablehlo.reduce"(%32, %2) <{dimensions = array<i64: 2>}> ({
  ^bb0(%arg4: tensor<f32>, %arg5: tensor<f32>):
    %59 = "stablehlo.add"(%arg4, %arg5) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%59) : (tensor<f32>) -> ()
  }) : (tensor<3x4x4xf32>, tensor<f32>) -> tensor<3x4xf32>
  %35 = "stablehlo.multiply"(%25, %34) : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
  %36 = "stablehlo.broadcast_in_dim"(%35) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<3x4xf32>) -> tensor<3x4x1xf32>
  %37 = "stablehlo.broadcast_in_dim"(%36) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<3x4x1xf32>) -> tensor<3x4x4xf32>
  %38 = "stablehlo.multiply"(%37, %24) : (tensor<3x4x4xf32>, tensor<3x4x4xf32>) -> tensor<3x4x4xf32>
  %39 = "stablehlo.convert"(%33) : (tensor<3x4xf32>) -> tensor<3x4xi32>
  %40 = "stablehlo.broadcast_in_dim"(%39) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<3x4xi32>) -> tensor<3x4x1xi32>
  %41 = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<1x1x2xi32>
  %42 = "stablehlo.broadcast_in_dim"(%40) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<3x4x1xi32>) -> tensor<3x4x2xi32>
  %43 = "stablehlo.broadcast_in_dim"(%41) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x1x2xi32>) -> tensor<3x4x2xi32>
  %44 = "stablehlo.compare"(%42, %43) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<3x4x2xi32>, tensor<3x4x2xi32>) -> tensor<3x4x2xi1>
  %45 = "stablehlo.convert"(%44) : (tensor<3x4x2xi1>) -> tensor<3x4x2xf32>
  %46 = "stablehlo.dot_general"(%38, %45) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0, 1], rhs_batching_dimensions = [0, 1]>}> : (tensor<3x4x4xf32>, tensor<3x4x2xf32>) -> tensor<3x4x4x2xf32>
  %47 = "stablehlo.broadcast_in_dim"(%2) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<3x4x4x2xf32>
  %48 = "stablehlo.compare"(%46, %47) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<3x4x4x2xf32>, tensor<3x4x4x2xf32>) -> tensor<3x4x4x2xi1>
  %49 = "stablehlo.convert"(%48) : (tensor<3x4x4x2xi1>) -> tensor<3x4x4x2xi1>
  %50 = "stablehlo.convert"(%49) : (tensor<3x4x4x2xi1>) -> tensor<3x4x4x2xf32>
  %51 = "stablehlo.dot_general"(%4, %50) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<3x4x16xf32>, tensor<3x4x4x2xf32>) -> tensor<3x16x4x2xf32>
  %52 = "stablehlo.transpose"(%51) <{permutation = array<i64: 2, 0, 3, 1>}> : (tensor<3x16x4x2xf32>) -> tensor<4x3x2x16xf32>
  %53 = "stablehlo.dot_general"(%52, %arg2) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [3], rhs_contracting_dimensions = [1]>}> : (tensor<4x3x2x16xf32>, tensor<4x16x24xf32>) -> tensor<4x3x2x24xf32>
  %54 = "stablehlo.tanh"(%53) : (tensor<4x3x2x24xf32>) -> tensor<4x3x2x24xf32>
  %55 = "stablehlo.dot_general"(%54, %arg3) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [3], rhs_contracting_dimensions = [1]>}> : (tensor<4x3x2x24xf32>, tensor<4x24x16xf32>) -> tensor<4x3x2x16xf32>
  %56 = "stablehlo.transpose"(%55) <{permutation = array<i64: 1, 0, 2, 3>}> : (tensor<4x3x2x16xf32>) -> tensor<3x4x2x16xf32>
  %57 = "stablehlo.dot_general"(%46, %56) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [3, 2], rhs_contracting_dimensions = [2, 1]>}> : (tensor<3x4x4x2xf32>, tensor<3x4x2x16xf32>) -> tensor<3x4x16xf32>
  %58 = "stablehlo.reshape"(%57) : (tensor<3x4x16xf32>) -> tensor<12x16xf32>
  "func.return"(%58) : (tensor<12x16xf32>) -> ()
}) : () -> ()

// -----

// The same by sums of products.

// CHECK-LABEL: func.func public @switch_sum(
// CHECK:         %{{.*}}, %[[CHOSEN:.*]] = moe.gate %{{.*}} top_k(1) score(none)
// CHECK:         %[[IDS:.*]] = linalg.generic {{.*}} ins(%[[CHOSEN]] :
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}}, %[[IDS]]{{.*}} experts(12)
// CHECK:         moe.grouped_matmul %[[ROWS]]
// CHECK:         moe.combine %{{.*}}, %[[PLACES]] weights(
// CHECK-NOT:     stablehlo.dot_general"(%{{.*}}tensor<4x
"func.func"() <{function_type = (tensor<12x16xf32>, tensor<16x4xf32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>) -> tensor<12x16xf32>, sym_name = "switch_sum", sym_visibility = "public"}> ({
^bb0(%arg0: tensor<12x16xf32>, %arg1: tensor<16x4xf32>, %arg2: tensor<4x16x24xf32>, %arg3: tensor<4x24x16xf32>):
  %0 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %1 = "stablehlo.constant"() <{value = dense<2.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %2 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %3 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %4 = "stablehlo.reshape"(%arg0) : (tensor<12x16xf32>) -> tensor<3x4x16xf32>
  %5 = "stablehlo.dot_general"(%4, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [0]>}> : (tensor<3x4x16xf32>, tensor<16x4xf32>) -> tensor<3x4x4xf32>
  %6 = "stablehlo.reduce"(%5, %3) <{dimensions = array<i64: 2>}> ({
  ^bb0(%arg18: tensor<f32>, %arg19: tensor<f32>):
    %75 = "stablehlo.maximum"(%arg18, %arg19) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%75) : (tensor<f32>) -> ()
  }) : (tensor<3x4x4xf32>, tensor<f32>) -> tensor<3x4xf32>
  %7 = "stablehlo.broadcast_in_dim"(%3) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<3x4xf32>
  %8 = "stablehlo.maximum"(%7, %6) : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
  %9 = "stablehlo.broadcast_in_dim"(%8) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<3x4xf32>) -> tensor<3x4x1xf32>
  %10 = "stablehlo.broadcast_in_dim"(%9) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<3x4x1xf32>) -> tensor<3x4x4xf32>
  %11 = "stablehlo.subtract"(%5, %10) : (tensor<3x4x4xf32>, tensor<3x4x4xf32>) -> tensor<3x4x4xf32>
  %12 = "stablehlo.exponential"(%11) : (tensor<3x4x4xf32>) -> tensor<3x4x4xf32>
  %13 = "stablehlo.reduce"(%12, %2) <{dimensions = array<i64: 2>}> ({
  ^bb0(%arg16: tensor<f32>, %arg17: tensor<f32>):
    %74 = "stablehlo.add"(%arg16, %arg17) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%74) : (tensor<f32>) -> ()
  }) : (tensor<3x4x4xf32>, tensor<f32>) -> tensor<3x4xf32>
  %14 = "stablehlo.broadcast_in_dim"(%13) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<3x4xf32>) -> tensor<3x4x1xf32>
  %15 = "stablehlo.broadcast_in_dim"(%14) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<3x4x1xf32>) -> tensor<3x4x4xf32>
  %16 = "stablehlo.divide"(%12, %15) : (tensor<3x4x4xf32>, tensor<3x4x4xf32>) -> tensor<3x4x4xf32>
  %17 = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<3x4x4xi32>
  %18:2 = "stablehlo.reduce"(%16, %17, %3, %0) <{dimensions = array<i64: 2>}> ({
  ^bb0(%arg12: tensor<f32>, %arg13: tensor<i32>, %arg14: tensor<f32>, %arg15: tensor<i32>):
    %65 = "stablehlo.compare"(%arg12, %arg14) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction GT>}> : (tensor<f32>, tensor<f32>) -> tensor<i1>
    %66 = "stablehlo.compare"(%arg12, %arg12) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<f32>, tensor<f32>) -> tensor<i1>
    %67 = "stablehlo.or"(%65, %66) : (tensor<i1>, tensor<i1>) -> tensor<i1>
    %68 = "stablehlo.compare"(%arg12, %arg14) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<f32>, tensor<f32>) -> tensor<i1>
    %69 = "stablehlo.compare"(%arg13, %arg15) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    %70 = "stablehlo.and"(%68, %69) : (tensor<i1>, tensor<i1>) -> tensor<i1>
    %71 = "stablehlo.or"(%67, %70) : (tensor<i1>, tensor<i1>) -> tensor<i1>
    %72 = "stablehlo.select"(%67, %arg12, %arg14) : (tensor<i1>, tensor<f32>, tensor<f32>) -> tensor<f32>
    %73 = "stablehlo.select"(%71, %arg13, %arg15) : (tensor<i1>, tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%72, %73) : (tensor<f32>, tensor<i32>) -> ()
  }) : (tensor<3x4x4xf32>, tensor<3x4x4xi32>, tensor<f32>, tensor<i32>) -> (tensor<3x4xf32>, tensor<3x4xi32>)
  %19 = "stablehlo.broadcast_in_dim"(%18#1) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<3x4xi32>) -> tensor<3x4x1xi32>
  %20 = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<1x1x4xi32>
  %21 = "stablehlo.broadcast_in_dim"(%19) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<3x4x1xi32>) -> tensor<3x4x4xi32>
  %22 = "stablehlo.broadcast_in_dim"(%20) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x1x4xi32>) -> tensor<3x4x4xi32>
  %23 = "stablehlo.compare"(%21, %22) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<3x4x4xi32>, tensor<3x4x4xi32>) -> tensor<3x4x4xi1>
  %24 = "stablehlo.convert"(%23) : (tensor<3x4x4xi1>) -> tensor<3x4x4xf32>
  %25 = "stablehlo.multiply"(%16, %24) : (tensor<3x4x4xf32>, tensor<3x4x4xf32>) -> tensor<3x4x4xf32>
  %26 = "stablehlo.reduce"(%25, %2) <{dimensions = array<i64: 2>}> ({
  ^bb0(%arg10: tensor<f32>, %arg11: tensor<f32>):
    %64 = "stablehlo.add"(%arg10, %arg11) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%64) : (tensor<f32>) -> ()
  }) : (tensor<3x4x4xf32>, tensor<f32>) -> tensor<3x4xf32>
  %27 = "stablehlo.broadcast_in_dim"(%2) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<f32>
  %28 = "stablehlo.reduce_window"(%24, %27) <{padding = dense<[[0, 0], [3, 0], [0, 0]]> : tensor<3x2xi64>, window_dimensions = array<i64: 1, 4, 1>}> ({
  ^bb0(%arg8: tensor<f32>, %arg9: tensor<f32>):
    %63 = "stablehlo.add"(%arg8, %arg9) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%63) : (tensor<f32>) -> ()
  }) : (tensor<3x4x4xf32>, tensor<f32>) -> tensor<3x4x4xf32>
  %29 = "stablehlo.subtract"(%28, %24) : (tensor<3x4x4xf32>, tensor<3x4x4xf32>) -> tensor<3x4x4xf32>
  %30 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<3x4x4xf32>
  %31 = "stablehlo.compare"(%29, %30) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<3x4x4xf32>, tensor<3x4x4xf32>) -> tensor<3x4x4xi1>
  %32 = "stablehlo.convert"(%31) : (tensor<3x4x4xi1>) -> tensor<3x4x4xf32>
  %33 = "stablehlo.multiply"(%24, %32) : (tensor<3x4x4xf32>, tensor<3x4x4xf32>) -> tensor<3x4x4xf32>
  %34 = "stablehlo.multiply"(%29, %33) : (tensor<3x4x4xf32>, tensor<3x4x4xf32>) -> tensor<3x4x4xf32>
  %35 = "stablehlo.reduce"(%34, %2) <{dimensions = array<i64: 2>}> ({
  ^bb0(%arg6: tensor<f32>, %arg7: tensor<f32>):
    %62 = "stablehlo.add"(%arg6, %arg7) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%62) : (tensor<f32>) -> ()
  }) : (tensor<3x4x4xf32>, tensor<f32>) -> tensor<3x4xf32>
  %36 = "stablehlo.reduce"(%33, %2) <{dimensions = array<i64: 2>}> ({
  ^bb0(%arg4: tensor<f32>, %arg5: tensor<f32>):
    %61 = "stablehlo.add"(%arg4, %arg5) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%61) : (tensor<f32>) -> ()
  }) : (tensor<3x4x4xf32>, tensor<f32>) -> tensor<3x4xf32>
  %37 = "stablehlo.multiply"(%26, %36) : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
  %38 = "stablehlo.broadcast_in_dim"(%37) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<3x4xf32>) -> tensor<3x4x1xf32>
  %39 = "stablehlo.broadcast_in_dim"(%38) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<3x4x1xf32>) -> tensor<3x4x4xf32>
  %40 = "stablehlo.multiply"(%39, %24) : (tensor<3x4x4xf32>, tensor<3x4x4xf32>) -> tensor<3x4x4xf32>
  %41 = "stablehlo.convert"(%35) : (tensor<3x4xf32>) -> tensor<3x4xi32>
  %42 = "stablehlo.broadcast_in_dim"(%41) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<3x4xi32>) -> tensor<3x4x1xi32>
  %43 = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<1x1x2xi32>
  %44 = "stablehlo.broadcast_in_dim"(%42) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<3x4x1xi32>) -> tensor<3x4x2xi32>
  %45 = "stablehlo.broadcast_in_dim"(%43) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x1x2xi32>) -> tensor<3x4x2xi32>
  %46 = "stablehlo.compare"(%44, %45) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<3x4x2xi32>, tensor<3x4x2xi32>) -> tensor<3x4x2xi1>
  %47 = "stablehlo.convert"(%46) : (tensor<3x4x2xi1>) -> tensor<3x4x2xf32>
  %48 = "stablehlo.dot_general"(%40, %47) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0, 1], rhs_batching_dimensions = [0, 1]>}> : (tensor<3x4x4xf32>, tensor<3x4x2xf32>) -> tensor<3x4x4x2xf32>
  %49 = "stablehlo.broadcast_in_dim"(%2) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<3x4x4x2xf32>
  %50 = "stablehlo.compare"(%48, %49) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<3x4x4x2xf32>, tensor<3x4x4x2xf32>) -> tensor<3x4x4x2xi1>
  %51 = "stablehlo.convert"(%50) : (tensor<3x4x4x2xi1>) -> tensor<3x4x4x2xi1>
  %52 = "stablehlo.convert"(%51) : (tensor<3x4x4x2xi1>) -> tensor<3x4x4x2xf32>
  %53 = "stablehlo.dot_general"(%4, %52) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<3x4x16xf32>, tensor<3x4x4x2xf32>) -> tensor<3x16x4x2xf32>
  %54 = "stablehlo.transpose"(%53) <{permutation = array<i64: 2, 0, 3, 1>}> : (tensor<3x16x4x2xf32>) -> tensor<4x3x2x16xf32>
  %55 = "stablehlo.dot_general"(%54, %arg2) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [3], rhs_contracting_dimensions = [1]>}> : (tensor<4x3x2x16xf32>, tensor<4x16x24xf32>) -> tensor<4x3x2x24xf32>
  %56 = "stablehlo.tanh"(%55) : (tensor<4x3x2x24xf32>) -> tensor<4x3x2x24xf32>
  %57 = "stablehlo.dot_general"(%56, %arg3) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [3], rhs_contracting_dimensions = [1]>}> : (tensor<4x3x2x24xf32>, tensor<4x24x16xf32>) -> tensor<4x3x2x16xf32>
  %58 = "stablehlo.transpose"(%57) <{permutation = array<i64: 1, 0, 2, 3>}> : (tensor<4x3x2x16xf32>) -> tensor<3x4x2x16xf32>
  %59 = "stablehlo.dot_general"(%48, %58) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [3, 2], rhs_contracting_dimensions = [2, 1]>}> : (tensor<3x4x4x2xf32>, tensor<3x4x2x16xf32>) -> tensor<3x4x16xf32>
  %60 = "stablehlo.reshape"(%59) : (tensor<3x4x16xf32>) -> tensor<12x16xf32>
  "func.return"(%60) : (tensor<12x16xf32>) -> ()
}) : () -> ()

// -----

// The smallest index among the scores that are equal to their maximum.

// CHECK-LABEL: func.func public @first(
// CHECK:         %{{.*}}, %[[CHOSEN:.*]] = moe.gate %{{.*}} top_k(1) score(none)
// CHECK:         %[[IDS:.*]] = linalg.generic {{.*}} ins(%[[CHOSEN]] :
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}}, %[[IDS]]{{.*}} experts(12)
// CHECK:         moe.grouped_matmul %[[ROWS]]
// CHECK:         moe.combine %{{.*}}, %[[PLACES]] weights(
// CHECK-NOT:     stablehlo.dot_general"(%{{.*}}tensor<4x
"func.func"() <{function_type = (tensor<12x16xf32>, tensor<16x4xf32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>) -> tensor<12x16xf32>, sym_name = "first", sym_visibility = "public"}> ({
^bb0(%arg0: tensor<12x16xf32>, %arg1: tensor<16x4xf32>, %arg2: tensor<4x16x24xf32>, %arg3: tensor<4x24x16xf32>):
  %0 = "stablehlo.constant"() <{value = dense<2.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %1 = "stablehlo.constant"() <{value = dense<2147483647> : tensor<i32>}> : () -> tensor<i32>
  %2 = "stablehlo.constant"() <{value = dense<4> : tensor<i32>}> : () -> tensor<i32>
  %3 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %4 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %5 = "stablehlo.reshape"(%arg0) : (tensor<12x16xf32>) -> tensor<3x4x16xf32>
  %6 = "stablehlo.dot_general"(%5, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [0]>}> : (tensor<3x4x16xf32>, tensor<16x4xf32>) -> tensor<3x4x4xf32>
  %7 = "stablehlo.reduce"(%6, %4) <{dimensions = array<i64: 2>}> ({
  ^bb0(%arg14: tensor<f32>, %arg15: tensor<f32>):
    %73 = "stablehlo.maximum"(%arg14, %arg15) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%73) : (tensor<f32>) -> ()
  }) : (tensor<3x4x4xf32>, tensor<f32>) -> tensor<3x4xf32>
  %8 = "stablehlo.broadcast_in_dim"(%4) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<3x4xf32>
  %9 = "stablehlo.maximum"(%8, %7) : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
  %10 = "stablehlo.broadcast_in_dim"(%9) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<3x4xf32>) -> tensor<3x4x1xf32>
  %11 = "stablehlo.broadcast_in_dim"(%10) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<3x4x1xf32>) -> tensor<3x4x4xf32>
  %12 = "stablehlo.subtract"(%6, %11) : (tensor<3x4x4xf32>, tensor<3x4x4xf32>) -> tensor<3x4x4xf32>
  %13 = "stablehlo.exponential"(%12) : (tensor<3x4x4xf32>) -> tensor<3x4x4xf32>
  %14 = "stablehlo.reduce"(%13, %3) <{dimensions = array<i64: 2>}> ({
  ^bb0(%arg12: tensor<f32>, %arg13: tensor<f32>):
    %72 = "stablehlo.add"(%arg12, %arg13) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%72) : (tensor<f32>) -> ()
  }) : (tensor<3x4x4xf32>, tensor<f32>) -> tensor<3x4xf32>
  %15 = "stablehlo.broadcast_in_dim"(%14) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<3x4xf32>) -> tensor<3x4x1xf32>
  %16 = "stablehlo.broadcast_in_dim"(%15) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<3x4x1xf32>) -> tensor<3x4x4xf32>
  %17 = "stablehlo.divide"(%13, %16) : (tensor<3x4x4xf32>, tensor<3x4x4xf32>) -> tensor<3x4x4xf32>
  %18 = "stablehlo.reduce"(%17, %4) <{dimensions = array<i64: 2>}> ({
  ^bb0(%arg10: tensor<f32>, %arg11: tensor<f32>):
    %71 = "stablehlo.maximum"(%arg10, %arg11) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%71) : (tensor<f32>) -> ()
  }) : (tensor<3x4x4xf32>, tensor<f32>) -> tensor<3x4xf32>
  %19 = "stablehlo.broadcast_in_dim"(%18) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<3x4xf32>) -> tensor<3x4x1xf32>
  %20 = "stablehlo.broadcast_in_dim"(%19) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<3x4x1xf32>) -> tensor<3x4x4xf32>
  %21 = "stablehlo.compare"(%17, %20) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<3x4x4xf32>, tensor<3x4x4xf32>) -> tensor<3x4x4xi1>
  %22 = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<4xi32>
  %23 = "stablehlo.convert"(%2) : (tensor<i32>) -> tensor<i32>
  %24 = "stablehlo.broadcast_in_dim"(%22) <{broadcast_dimensions = array<i64: 2>}> : (tensor<4xi32>) -> tensor<3x4x4xi32>
  %25 = "stablehlo.broadcast_in_dim"(%23) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<3x4x4xi32>
  %26 = "stablehlo.select"(%21, %24, %25) : (tensor<3x4x4xi1>, tensor<3x4x4xi32>, tensor<3x4x4xi32>) -> tensor<3x4x4xi32>
  %27 = "stablehlo.reduce"(%26, %1) <{dimensions = array<i64: 2>}> ({
  ^bb0(%arg8: tensor<i32>, %arg9: tensor<i32>):
    %70 = "stablehlo.minimum"(%arg8, %arg9) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%70) : (tensor<i32>) -> ()
  }) : (tensor<3x4x4xi32>, tensor<i32>) -> tensor<3x4xi32>
  %28 = "stablehlo.broadcast_in_dim"(%27) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<3x4xi32>) -> tensor<3x4x1xi32>
  %29 = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<1x1x4xi32>
  %30 = "stablehlo.broadcast_in_dim"(%28) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<3x4x1xi32>) -> tensor<3x4x4xi32>
  %31 = "stablehlo.broadcast_in_dim"(%29) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x1x4xi32>) -> tensor<3x4x4xi32>
  %32 = "stablehlo.compare"(%30, %31) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<3x4x4xi32>, tensor<3x4x4xi32>) -> tensor<3x4x4xi1>
  %33 = "stablehlo.convert"(%32) : (tensor<3x4x4xi1>) -> tensor<3x4x4xf32>
  %34 = "stablehlo.dot_general"(%17, %33) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0, 1], rhs_batching_dimensions = [0, 1], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [2]>}> : (tensor<3x4x4xf32>, tensor<3x4x4xf32>) -> tensor<3x4xf32>
  %35 = "stablehlo.broadcast_in_dim"(%3) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<f32>
  %36 = "stablehlo.reduce_window"(%33, %35) <{padding = dense<[[0, 0], [3, 0], [0, 0]]> : tensor<3x2xi64>, window_dimensions = array<i64: 1, 4, 1>}> ({
  ^bb0(%arg6: tensor<f32>, %arg7: tensor<f32>):
    %69 = "stablehlo.add"(%arg6, %arg7) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%69) : (tensor<f32>) -> ()
  }) : (tensor<3x4x4xf32>, tensor<f32>) -> tensor<3x4x4xf32>
  %37 = "stablehlo.subtract"(%36, %33) : (tensor<3x4x4xf32>, tensor<3x4x4xf32>) -> tensor<3x4x4xf32>
  %38 = "stablehlo.broadcast_in_dim"(%0) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<3x4x4xf32>
  %39 = "stablehlo.compare"(%37, %38) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<3x4x4xf32>, tensor<3x4x4xf32>) -> tensor<3x4x4xi1>
  %40 = "stablehlo.convert"(%39) : (tensor<3x4x4xi1>) -> tensor<3x4x4xf32>
  %41 = "stablehlo.multiply"(%33, %40) : (tensor<3x4x4xf32>, tensor<3x4x4xf32>) -> tensor<3x4x4xf32>
  %42 = "stablehlo.dot_general"(%37, %41) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0, 1], rhs_batching_dimensions = [0, 1], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [2]>}> : (tensor<3x4x4xf32>, tensor<3x4x4xf32>) -> tensor<3x4xf32>
  %43 = "stablehlo.reduce"(%41, %3) <{dimensions = array<i64: 2>}> ({
  ^bb0(%arg4: tensor<f32>, %arg5: tensor<f32>):
    %68 = "stablehlo.add"(%arg4, %arg5) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%68) : (tensor<f32>) -> ()
  }) : (tensor<3x4x4xf32>, tensor<f32>) -> tensor<3x4xf32>
  %44 = "stablehlo.multiply"(%34, %43) : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
  %45 = "stablehlo.broadcast_in_dim"(%44) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<3x4xf32>) -> tensor<3x4x1xf32>
  %46 = "stablehlo.broadcast_in_dim"(%45) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<3x4x1xf32>) -> tensor<3x4x4xf32>
  %47 = "stablehlo.multiply"(%46, %33) : (tensor<3x4x4xf32>, tensor<3x4x4xf32>) -> tensor<3x4x4xf32>
  %48 = "stablehlo.convert"(%42) : (tensor<3x4xf32>) -> tensor<3x4xi32>
  %49 = "stablehlo.broadcast_in_dim"(%48) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<3x4xi32>) -> tensor<3x4x1xi32>
  %50 = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<1x1x2xi32>
  %51 = "stablehlo.broadcast_in_dim"(%49) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<3x4x1xi32>) -> tensor<3x4x2xi32>
  %52 = "stablehlo.broadcast_in_dim"(%50) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x1x2xi32>) -> tensor<3x4x2xi32>
  %53 = "stablehlo.compare"(%51, %52) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<3x4x2xi32>, tensor<3x4x2xi32>) -> tensor<3x4x2xi1>
  %54 = "stablehlo.convert"(%53) : (tensor<3x4x2xi1>) -> tensor<3x4x2xf32>
  %55 = "stablehlo.dot_general"(%47, %54) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0, 1], rhs_batching_dimensions = [0, 1]>}> : (tensor<3x4x4xf32>, tensor<3x4x2xf32>) -> tensor<3x4x4x2xf32>
  %56 = "stablehlo.broadcast_in_dim"(%3) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<3x4x4x2xf32>
  %57 = "stablehlo.compare"(%55, %56) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<3x4x4x2xf32>, tensor<3x4x4x2xf32>) -> tensor<3x4x4x2xi1>
  %58 = "stablehlo.convert"(%57) : (tensor<3x4x4x2xi1>) -> tensor<3x4x4x2xi1>
  %59 = "stablehlo.convert"(%58) : (tensor<3x4x4x2xi1>) -> tensor<3x4x4x2xf32>
  %60 = "stablehlo.dot_general"(%5, %59) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<3x4x16xf32>, tensor<3x4x4x2xf32>) -> tensor<3x16x4x2xf32>
  %61 = "stablehlo.transpose"(%60) <{permutation = array<i64: 2, 0, 3, 1>}> : (tensor<3x16x4x2xf32>) -> tensor<4x3x2x16xf32>
  %62 = "stablehlo.dot_general"(%61, %arg2) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [3], rhs_contracting_dimensions = [1]>}> : (tensor<4x3x2x16xf32>, tensor<4x16x24xf32>) -> tensor<4x3x2x24xf32>
  %63 = "stablehlo.tanh"(%62) : (tensor<4x3x2x24xf32>) -> tensor<4x3x2x24xf32>
  %64 = "stablehlo.dot_general"(%63, %arg3) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [3], rhs_contracting_dimensions = [1]>}> : (tensor<4x3x2x24xf32>, tensor<4x24x16xf32>) -> tensor<4x3x2x16xf32>
  %65 = "stablehlo.transpose"(%64) <{permutation = array<i64: 1, 0, 2, 3>}> : (tensor<4x3x2x16xf32>) -> tensor<3x4x2x16xf32>
  %66 = "stablehlo.dot_general"(%55, %65) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [3, 2], rhs_contracting_dimensions = [2, 1]>}> : (tensor<3x4x4x2xf32>, tensor<3x4x2x16xf32>) -> tensor<3x4x16xf32>
  %67 = "stablehlo.reshape"(%66) : (tensor<3x4x16xf32>) -> tensor<12x16xf32>
  "func.return"(%67) : (tensor<12x16xf32>) -> ()
}) : () -> ()
