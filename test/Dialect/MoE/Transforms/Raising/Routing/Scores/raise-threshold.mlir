// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-routing --moe-raise-grouped | FileCheck %s

// Experts that are not among the best: the other side of the comparison.
// RUN: sed 's/comparison_direction GE/comparison_direction LT_/; s/comparison_direction LT>/comparison_direction GE>/; s/LT_/LT/' %s | moe-opt - --split-input-file --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// Others weigh something, too: 0.5.
// RUN: sed '/-----/q; s/dense<0.000000e+00>/dense<5.000000e-01>/' %s | moe-opt - --split-input-file --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// NONE-NOT: moe.dispatch

// Experts whose score is at least the second largest one of the token. Where
// scores are equal they are more than two: each expert is a choice, or none.

// CHECK-LABEL: func.func public @where(
// CHECK:         %[[MASK:.*]] = "stablehlo.compare"(%[[SCORES:.*]], %{{.*}}) {{.*}}tensor<[[T:12|\?]]x4xi1>
// CHECK:         %[[GIVEN:.*]] = linalg.generic {{.*}} ins(%[[MASK]] : tensor<[[T]]x4xi1>)
// CHECK:         %{{.*}}, %[[IDS:.*]] = moe.gate %[[SCORES]] ids(%[[GIVEN]] : tensor<[[T]]x4xi32>) top_k(4) score(none)
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}}, %[[IDS]]{{.*}} experts(4)
// CHECK:         moe.grouped_matmul %[[ROWS]]
// CHECK:         moe.combine %{{.*}}, %[[PLACES]] weights(
// CHECK-NOT:     stablehlo.dot_general"(%{{.*}}tensor<4x
"func.func"() <{function_type = (tensor<12x16xf32>, tensor<4x24xf32>, tensor<4x16xf32>, tensor<16x4xf32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>) -> tensor<12x16xf32>, sym_name = "where", sym_visibility = "public"}> ({
^bb0(%arg5: tensor<12x16xf32>, %arg6: tensor<4x24xf32>, %arg7: tensor<4x16xf32>, %arg8: tensor<16x4xf32>, %arg9: tensor<4x16x24xf32>, %arg10: tensor<4x24x16xf32>):
  %5 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %6 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %7 = "stablehlo.dot_general"(%arg5, %arg8) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<12x16xf32>, tensor<16x4xf32>) -> tensor<12x4xf32>
  %8 = "stablehlo.reduce"(%7, %6) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg15: tensor<f32>, %arg16: tensor<f32>):
    %43 = "stablehlo.maximum"(%arg15, %arg16) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%43) : (tensor<f32>) -> ()
  }) : (tensor<12x4xf32>, tensor<f32>) -> tensor<12xf32>
  %9 = "stablehlo.broadcast_in_dim"(%6) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<12xf32>
  %10 = "stablehlo.maximum"(%9, %8) : (tensor<12xf32>, tensor<12xf32>) -> tensor<12xf32>
  %11 = "stablehlo.broadcast_in_dim"(%10) <{broadcast_dimensions = array<i64: 0>}> : (tensor<12xf32>) -> tensor<12x1xf32>
  %12 = "stablehlo.broadcast_in_dim"(%11) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<12x1xf32>) -> tensor<12x4xf32>
  %13 = "stablehlo.subtract"(%7, %12) : (tensor<12x4xf32>, tensor<12x4xf32>) -> tensor<12x4xf32>
  %14 = "stablehlo.exponential"(%13) : (tensor<12x4xf32>) -> tensor<12x4xf32>
  %15 = "stablehlo.reduce"(%14, %5) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg13: tensor<f32>, %arg14: tensor<f32>):
    %42 = "stablehlo.add"(%arg13, %arg14) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%42) : (tensor<f32>) -> ()
  }) : (tensor<12x4xf32>, tensor<f32>) -> tensor<12xf32>
  %16 = "stablehlo.broadcast_in_dim"(%15) <{broadcast_dimensions = array<i64: 0>}> : (tensor<12xf32>) -> tensor<12x1xf32>
  %17 = "stablehlo.broadcast_in_dim"(%16) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<12x1xf32>) -> tensor<12x4xf32>
  %18 = "stablehlo.divide"(%14, %17) : (tensor<12x4xf32>, tensor<12x4xf32>) -> tensor<12x4xf32>
  %19:2 = "stablehlo.composite"(%18) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<12x4xf32>) -> (tensor<12x2xf32>, tensor<12x2xi32>)
  %20 = "stablehlo.slice"(%19#0) <{limit_indices = array<i64: 12, 2>, start_indices = array<i64: 0, 1>, strides = array<i64: 1, 1>}> : (tensor<12x2xf32>) -> tensor<12x1xf32>
  %21 = "stablehlo.broadcast_in_dim"(%20) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<12x1xf32>) -> tensor<12x4xf32>
  %22 = "stablehlo.compare"(%18, %21) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction GE>}> : (tensor<12x4xf32>, tensor<12x4xf32>) -> tensor<12x4xi1>
  %23 = "stablehlo.convert"(%5) : (tensor<f32>) -> tensor<f32>
  %24 = "stablehlo.broadcast_in_dim"(%23) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<12x4xf32>
  %25 = "stablehlo.select"(%22, %18, %24) : (tensor<12x4xi1>, tensor<12x4xf32>, tensor<12x4xf32>) -> tensor<12x4xf32>
  %26 = "stablehlo.reduce"(%25, %5) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg11: tensor<f32>, %arg12: tensor<f32>):
    %41 = "stablehlo.add"(%arg11, %arg12) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%41) : (tensor<f32>) -> ()
  }) : (tensor<12x4xf32>, tensor<f32>) -> tensor<12xf32>
  %27 = "stablehlo.broadcast_in_dim"(%26) <{broadcast_dimensions = array<i64: 0>}> : (tensor<12xf32>) -> tensor<12x1xf32>
  %28 = "stablehlo.broadcast_in_dim"(%27) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<12x1xf32>) -> tensor<12x4xf32>
  %29 = "stablehlo.divide"(%25, %28) : (tensor<12x4xf32>, tensor<12x4xf32>) -> tensor<12x4xf32>
  %30 = "stablehlo.dot_general"(%arg5, %arg9) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<12x16xf32>, tensor<4x16x24xf32>) -> tensor<12x4x24xf32>
  %31 = "stablehlo.broadcast_in_dim"(%arg6) <{broadcast_dimensions = array<i64: 1, 2>}> : (tensor<4x24xf32>) -> tensor<1x4x24xf32>
  %32 = "stablehlo.broadcast_in_dim"(%31) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x4x24xf32>) -> tensor<12x4x24xf32>
  %33 = "stablehlo.add"(%30, %32) : (tensor<12x4x24xf32>, tensor<12x4x24xf32>) -> tensor<12x4x24xf32>
  %34 = "stablehlo.tanh"(%33) : (tensor<12x4x24xf32>) -> tensor<12x4x24xf32>
  %35 = "stablehlo.dot_general"(%arg10, %34) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [1], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [2]>}> : (tensor<4x24x16xf32>, tensor<12x4x24xf32>) -> tensor<4x16x12xf32>
  %36 = "stablehlo.transpose"(%35) <{permutation = array<i64: 2, 0, 1>}> : (tensor<4x16x12xf32>) -> tensor<12x4x16xf32>
  %37 = "stablehlo.broadcast_in_dim"(%arg7) <{broadcast_dimensions = array<i64: 1, 2>}> : (tensor<4x16xf32>) -> tensor<1x4x16xf32>
  %38 = "stablehlo.broadcast_in_dim"(%37) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x4x16xf32>) -> tensor<12x4x16xf32>
  %39 = "stablehlo.add"(%36, %38) : (tensor<12x4x16xf32>, tensor<12x4x16xf32>) -> tensor<12x4x16xf32>
  %40 = "stablehlo.dot_general"(%29, %39) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<12x4xf32>, tensor<12x4x16xf32>) -> tensor<12x16xf32>
  "func.return"(%40) : (tensor<12x16xf32>) -> ()
}) : () -> ()

// -----

// Of a sort, and those below are 0.

// CHECK-LABEL: func.func public @less(
// CHECK:         %[[MASK:.*]] = "stablehlo.compare"(%[[SCORES:.*]], %{{.*}}) {{.*}}tensor<[[T:12|\?]]x4xi1>
// CHECK:         %[[GIVEN:.*]] = linalg.generic {{.*}} ins(%[[MASK]] : tensor<[[T]]x4xi1>)
// CHECK:         %{{.*}}, %[[IDS:.*]] = moe.gate %[[SCORES]] ids(%[[GIVEN]] : tensor<[[T]]x4xi32>) top_k(4) score(none)
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}}, %[[IDS]]{{.*}} experts(4)
// CHECK:         moe.grouped_matmul %[[ROWS]]
// CHECK:         moe.combine %{{.*}}, %[[PLACES]] weights(
// CHECK-NOT:     stablehlo.dot_general"(%{{.*}}tensor<4x
"func.func"() <{function_type = (tensor<12x16xf32>, tensor<4x24xf32>, tensor<4x16xf32>, tensor<16x4xf32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>) -> tensor<12x16xf32>, sym_name = "less", sym_visibility = "public"}> ({
^bb0(%arg0: tensor<12x16xf32>, %arg1: tensor<4x24xf32>, %arg2: tensor<4x16xf32>, %arg3: tensor<16x4xf32>, %arg4: tensor<4x16x24xf32>, %arg5: tensor<4x24x16xf32>):
  %0 = "stablehlo.constant"() <{value = dense<0x7FC00000> : tensor<f32>}> : () -> tensor<f32>
  %1 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %2 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %3 = "stablehlo.dot_general"(%arg0, %arg3) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<12x16xf32>, tensor<16x4xf32>) -> tensor<12x4xf32>
  %4 = "stablehlo.reduce"(%3, %2) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg10: tensor<f32>, %arg11: tensor<f32>):
    %45 = "stablehlo.maximum"(%arg10, %arg11) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%45) : (tensor<f32>) -> ()
  }) : (tensor<12x4xf32>, tensor<f32>) -> tensor<12xf32>
  %5 = "stablehlo.broadcast_in_dim"(%2) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<12xf32>
  %6 = "stablehlo.maximum"(%5, %4) : (tensor<12xf32>, tensor<12xf32>) -> tensor<12xf32>
  %7 = "stablehlo.broadcast_in_dim"(%6) <{broadcast_dimensions = array<i64: 0>}> : (tensor<12xf32>) -> tensor<12x1xf32>
  %8 = "stablehlo.broadcast_in_dim"(%7) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<12x1xf32>) -> tensor<12x4xf32>
  %9 = "stablehlo.subtract"(%3, %8) : (tensor<12x4xf32>, tensor<12x4xf32>) -> tensor<12x4xf32>
  %10 = "stablehlo.exponential"(%9) : (tensor<12x4xf32>) -> tensor<12x4xf32>
  %11 = "stablehlo.reduce"(%10, %1) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg8: tensor<f32>, %arg9: tensor<f32>):
    %44 = "stablehlo.add"(%arg8, %arg9) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%44) : (tensor<f32>) -> ()
  }) : (tensor<12x4xf32>, tensor<f32>) -> tensor<12xf32>
  %12 = "stablehlo.broadcast_in_dim"(%11) <{broadcast_dimensions = array<i64: 0>}> : (tensor<12xf32>) -> tensor<12x1xf32>
  %13 = "stablehlo.broadcast_in_dim"(%12) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<12x1xf32>) -> tensor<12x4xf32>
  %14 = "stablehlo.divide"(%10, %13) : (tensor<12x4xf32>, tensor<12x4xf32>) -> tensor<12x4xf32>
  %15 = "stablehlo.sort"(%14) <{dimension = 1 : i64, is_stable = true}> ({
  ^bb0(%arg6: tensor<f32>, %arg7: tensor<f32>):
    %35 = "stablehlo.compare"(%arg6, %1) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<f32>, tensor<f32>) -> tensor<i1>
    %36 = "stablehlo.select"(%35, %1, %arg6) : (tensor<i1>, tensor<f32>, tensor<f32>) -> tensor<f32>
    %37 = "stablehlo.compare"(%arg6, %arg6) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<f32>, tensor<f32>) -> tensor<i1>
    %38 = "stablehlo.select"(%37, %0, %36) : (tensor<i1>, tensor<f32>, tensor<f32>) -> tensor<f32>
    %39 = "stablehlo.compare"(%arg7, %1) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<f32>, tensor<f32>) -> tensor<i1>
    %40 = "stablehlo.select"(%39, %1, %arg7) : (tensor<i1>, tensor<f32>, tensor<f32>) -> tensor<f32>
    %41 = "stablehlo.compare"(%arg7, %arg7) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<f32>, tensor<f32>) -> tensor<i1>
    %42 = "stablehlo.select"(%41, %0, %40) : (tensor<i1>, tensor<f32>, tensor<f32>) -> tensor<f32>
    %43 = "stablehlo.compare"(%38, %42) <{compare_type = #stablehlo<comparison_type TOTALORDER>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<f32>, tensor<f32>) -> tensor<i1>
    "stablehlo.return"(%43) : (tensor<i1>) -> ()
  }) : (tensor<12x4xf32>) -> tensor<12x4xf32>
  %16 = "stablehlo.slice"(%15) <{limit_indices = array<i64: 12, 3>, start_indices = array<i64: 0, 2>, strides = array<i64: 1, 1>}> : (tensor<12x4xf32>) -> tensor<12x1xf32>
  %17 = "stablehlo.reshape"(%16) : (tensor<12x1xf32>) -> tensor<12xf32>
  %18 = "stablehlo.broadcast_in_dim"(%17) <{broadcast_dimensions = array<i64: 0>}> : (tensor<12xf32>) -> tensor<12x1xf32>
  %19 = "stablehlo.broadcast_in_dim"(%18) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<12x1xf32>) -> tensor<12x4xf32>
  %20 = "stablehlo.compare"(%14, %19) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<12x4xf32>, tensor<12x4xf32>) -> tensor<12x4xi1>
  %21 = "stablehlo.convert"(%1) : (tensor<f32>) -> tensor<f32>
  %22 = "stablehlo.broadcast_in_dim"(%21) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<12x4xf32>
  %23 = "stablehlo.select"(%20, %22, %14) : (tensor<12x4xi1>, tensor<12x4xf32>, tensor<12x4xf32>) -> tensor<12x4xf32>
  %24 = "stablehlo.dot_general"(%arg0, %arg4) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<12x16xf32>, tensor<4x16x24xf32>) -> tensor<12x4x24xf32>
  %25 = "stablehlo.broadcast_in_dim"(%arg1) <{broadcast_dimensions = array<i64: 1, 2>}> : (tensor<4x24xf32>) -> tensor<1x4x24xf32>
  %26 = "stablehlo.broadcast_in_dim"(%25) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x4x24xf32>) -> tensor<12x4x24xf32>
  %27 = "stablehlo.add"(%24, %26) : (tensor<12x4x24xf32>, tensor<12x4x24xf32>) -> tensor<12x4x24xf32>
  %28 = "stablehlo.tanh"(%27) : (tensor<12x4x24xf32>) -> tensor<12x4x24xf32>
  %29 = "stablehlo.dot_general"(%arg5, %28) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [1], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [2]>}> : (tensor<4x24x16xf32>, tensor<12x4x24xf32>) -> tensor<4x16x12xf32>
  %30 = "stablehlo.transpose"(%29) <{permutation = array<i64: 2, 0, 1>}> : (tensor<4x16x12xf32>) -> tensor<12x4x16xf32>
  %31 = "stablehlo.broadcast_in_dim"(%arg2) <{broadcast_dimensions = array<i64: 1, 2>}> : (tensor<4x16xf32>) -> tensor<1x4x16xf32>
  %32 = "stablehlo.broadcast_in_dim"(%31) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x4x16xf32>) -> tensor<12x4x16xf32>
  %33 = "stablehlo.add"(%30, %32) : (tensor<12x4x16xf32>, tensor<12x4x16xf32>) -> tensor<12x4x16xf32>
  %34 = "stablehlo.dot_general"(%23, %33) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<12x4xf32>, tensor<12x4x16xf32>) -> tensor<12x16xf32>
  "func.return"(%34) : (tensor<12x16xf32>) -> ()
}) : () -> ()

// -----

// The least of a top-k; any number of tokens.

// CHECK-LABEL: func.func public @any(
// CHECK:         %[[MASK:.*]] = "stablehlo.compare"(%[[SCORES:.*]], %{{.*}}) {{.*}}tensor<[[T:12|\?]]x4xi1>
// CHECK:         %[[GIVEN:.*]] = linalg.generic {{.*}} ins(%[[MASK]] : tensor<[[T]]x4xi1>)
// CHECK:         %{{.*}}, %[[IDS:.*]] = moe.gate %[[SCORES]] ids(%[[GIVEN]] : tensor<[[T]]x4xi32>) top_k(4) score(none)
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}}, %[[IDS]]{{.*}} experts(4)
// CHECK:         moe.grouped_matmul %[[ROWS]]
// CHECK:         moe.combine %{{.*}}, %[[PLACES]] weights(
// CHECK-NOT:     stablehlo.dot_general"(%{{.*}}tensor<4x
"func.func"() <{function_type = (tensor<?x16xf32>, tensor<4x24xf32>, tensor<4x16xf32>, tensor<16x4xf32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>) -> tensor<?x16xf32>, sym_name = "any", sym_visibility = "public"}> ({
^bb0(%arg5: tensor<?x16xf32>, %arg6: tensor<4x24xf32>, %arg7: tensor<4x16xf32>, %arg8: tensor<16x4xf32>, %arg9: tensor<4x16x24xf32>, %arg10: tensor<4x24x16xf32>):
  %16 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %17 = "stablehlo.constant"() <{value = dense<1> : tensor<1xi32>}> : () -> tensor<1xi32>
  %18 = "stablehlo.constant"() <{value = dense<4> : tensor<1xi32>}> : () -> tensor<1xi32>
  %19 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %20 = "stablehlo.constant"() <{value = dense<0x7F800000> : tensor<f32>}> : () -> tensor<f32>
  %21 = "stablehlo.constant"() <{value = dense<24> : tensor<1xi32>}> : () -> tensor<1xi32>
  %22 = "stablehlo.constant"() <{value = dense<16> : tensor<1xi32>}> : () -> tensor<1xi32>
  %23 = "stablehlo.get_dimension_size"(%arg5) <{dimension = 0 : i64}> : (tensor<?x16xf32>) -> tensor<i32>
  %24 = "stablehlo.dot_general"(%arg5, %arg8) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<?x16xf32>, tensor<16x4xf32>) -> tensor<?x4xf32>
  %25 = "stablehlo.reduce"(%24, %16) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg17: tensor<f32>, %arg18: tensor<f32>):
    %66 = "stablehlo.maximum"(%arg17, %arg18) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%66) : (tensor<f32>) -> ()
  }) : (tensor<?x4xf32>, tensor<f32>) -> tensor<?xf32>
  %26 = "stablehlo.reshape"(%23) : (tensor<i32>) -> tensor<1xi32>
  %27 = "stablehlo.dynamic_broadcast_in_dim"(%16, %26) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<1xi32>) -> tensor<?xf32>
  %28 = "stablehlo.maximum"(%27, %25) : (tensor<?xf32>, tensor<?xf32>) -> tensor<?xf32>
  %29 = "stablehlo.concatenate"(%26, %17) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %30 = "stablehlo.dynamic_broadcast_in_dim"(%28, %29) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xf32>, tensor<2xi32>) -> tensor<?x1xf32>
  %31 = "stablehlo.concatenate"(%26, %18) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %32 = "stablehlo.dynamic_broadcast_in_dim"(%30, %31) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x4xf32>
  %33 = "stablehlo.subtract"(%24, %32) : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %34 = "stablehlo.exponential"(%33) : (tensor<?x4xf32>) -> tensor<?x4xf32>
  %35 = "stablehlo.reduce"(%34, %19) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg15: tensor<f32>, %arg16: tensor<f32>):
    %65 = "stablehlo.add"(%arg15, %arg16) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%65) : (tensor<f32>) -> ()
  }) : (tensor<?x4xf32>, tensor<f32>) -> tensor<?xf32>
  %36 = "stablehlo.dynamic_broadcast_in_dim"(%35, %29) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xf32>, tensor<2xi32>) -> tensor<?x1xf32>
  %37 = "stablehlo.dynamic_broadcast_in_dim"(%36, %31) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x4xf32>
  %38 = "stablehlo.divide"(%34, %37) : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %39:2 = "stablehlo.composite"(%38) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<?x4xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>)
  %40 = "stablehlo.reduce"(%39#0, %20) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg13: tensor<f32>, %arg14: tensor<f32>):
    %64 = "stablehlo.minimum"(%arg13, %arg14) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%64) : (tensor<f32>) -> ()
  }) : (tensor<?x2xf32>, tensor<f32>) -> tensor<?xf32>
  %41 = "stablehlo.dynamic_broadcast_in_dim"(%40, %29) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xf32>, tensor<2xi32>) -> tensor<?x1xf32>
  %42 = "stablehlo.dynamic_broadcast_in_dim"(%41, %31) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x4xf32>
  %43 = "stablehlo.compare"(%38, %42) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction GE>}> : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xi1>
  %44 = "stablehlo.convert"(%43) : (tensor<?x4xi1>) -> tensor<?x4xf32>
  %45 = "stablehlo.multiply"(%38, %44) : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %46 = "stablehlo.reduce"(%45, %19) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg11: tensor<f32>, %arg12: tensor<f32>):
    %63 = "stablehlo.add"(%arg11, %arg12) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%63) : (tensor<f32>) -> ()
  }) : (tensor<?x4xf32>, tensor<f32>) -> tensor<?xf32>
  %47 = "stablehlo.dynamic_broadcast_in_dim"(%46, %29) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xf32>, tensor<2xi32>) -> tensor<?x1xf32>
  %48 = "stablehlo.dynamic_broadcast_in_dim"(%47, %31) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x4xf32>
  %49 = "stablehlo.divide"(%45, %48) : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %50 = "stablehlo.dot_general"(%arg5, %arg9) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<?x16xf32>, tensor<4x16x24xf32>) -> tensor<?x4x24xf32>
  %51 = "stablehlo.broadcast_in_dim"(%arg6) <{broadcast_dimensions = array<i64: 1, 2>}> : (tensor<4x24xf32>) -> tensor<1x4x24xf32>
  %52 = "stablehlo.concatenate"(%26, %18, %21) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>, tensor<1xi32>) -> tensor<3xi32>
  %53 = "stablehlo.dynamic_broadcast_in_dim"(%51, %52) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x4x24xf32>, tensor<3xi32>) -> tensor<?x4x24xf32>
  %54 = "stablehlo.add"(%50, %53) : (tensor<?x4x24xf32>, tensor<?x4x24xf32>) -> tensor<?x4x24xf32>
  %55 = "stablehlo.tanh"(%54) : (tensor<?x4x24xf32>) -> tensor<?x4x24xf32>
  %56 = "stablehlo.dot_general"(%arg10, %55) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [1], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [2]>}> : (tensor<4x24x16xf32>, tensor<?x4x24xf32>) -> tensor<4x16x?xf32>
  %57 = "stablehlo.transpose"(%56) <{permutation = array<i64: 2, 0, 1>}> : (tensor<4x16x?xf32>) -> tensor<?x4x16xf32>
  %58 = "stablehlo.broadcast_in_dim"(%arg7) <{broadcast_dimensions = array<i64: 1, 2>}> : (tensor<4x16xf32>) -> tensor<1x4x16xf32>
  %59 = "stablehlo.concatenate"(%26, %18, %22) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>, tensor<1xi32>) -> tensor<3xi32>
  %60 = "stablehlo.dynamic_broadcast_in_dim"(%58, %59) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x4x16xf32>, tensor<3xi32>) -> tensor<?x4x16xf32>
  %61 = "stablehlo.add"(%57, %60) : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  %62 = "stablehlo.dot_general"(%49, %61) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<?x4xf32>, tensor<?x4x16xf32>) -> tensor<?x16xf32>
  "func.return"(%62) : (tensor<?x16xf32>) -> ()
}) : () -> ()
