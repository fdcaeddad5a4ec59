// RUN: moe-opt %s --allow-unregistered-dialect --moe-raise-routing | FileCheck %s

// Tunix: weights by a scatter in each row, all experts on all tokens, and an
// einsum of three operands, which sums over the experts in its last product.

// CHECK-LABEL: func.func public @tunix(
// CHECK:         %{{.*}}, %[[IDS:.*]] = moe.gate
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}}, %[[IDS]] experts(8)
// CHECK-COUNT-2: moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]]
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<9xi32>) weights(%{{.*}} : tensor<8x80x48xf32>) outs
// CHECK:         moe.combine %[[Y]], %[[PLACES]] weights(
// CHECK-NOT:     stablehlo.{{scatter|dot_general}}
// CHECK:         return

// Weights of the tokens as experts; a sum over all tokens' rows alike; rows of
// ids that are batched along the experts.
// RUN: sed 's/rhs_batching_dimensions = \[0, 1\]/rhs_batching_dimensions = [1, 0]/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/lhs_contracting_dimensions = \[1, 2\]/lhs_contracting_dimensions = [0, 2]/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/input_batching_dims = \[0\]/input_batching_dims = [1]/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE

// NONE:     moe.gate
// NONE-NOT: moe.dispatch

"func.func"() <{function_type = (tensor<12x48xf32>, tensor<8x80x48xf32>, tensor<8x48x80xf32>, tensor<48x8xf32>, tensor<8x48x80xf32>) -> tensor<12x48xf32>, sym_name = "tunix", sym_visibility = "public"}> ({
^bb0(%arg5: tensor<12x48xf32>, %arg6: tensor<8x80x48xf32>, %arg7: tensor<8x48x80xf32>, %arg8: tensor<48x8xf32>, %arg9: tensor<8x48x80xf32>):
  %5 = "stablehlo.constant"() <{value = dense<1.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %6 = "stablehlo.constant"() <{value = dense<8> : tensor<i32>}> : () -> tensor<i32>
  %7 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %8 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %9 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %10 = "stablehlo.dot_general"(%arg5, %arg8) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<12x48xf32>, tensor<48x8xf32>) -> tensor<12x8xf32>
  %11:2 = "stablehlo.composite"(%10) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<12x8xf32>) -> (tensor<12x2xf32>, tensor<12x2xi32>)
  %12 = "stablehlo.reduce"(%11#0, %9) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg14: tensor<f32>, %arg15: tensor<f32>):
    %43 = "stablehlo.maximum"(%arg14, %arg15) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%43) : (tensor<f32>) -> ()
  }) : (tensor<12x2xf32>, tensor<f32>) -> tensor<12xf32>
  %13 = "stablehlo.broadcast_in_dim"(%9) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<12xf32>
  %14 = "stablehlo.maximum"(%13, %12) : (tensor<12xf32>, tensor<12xf32>) -> tensor<12xf32>
  %15 = "stablehlo.broadcast_in_dim"(%14) <{broadcast_dimensions = array<i64: 0>}> : (tensor<12xf32>) -> tensor<12x1xf32>
  %16 = "stablehlo.broadcast_in_dim"(%15) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<12x1xf32>) -> tensor<12x2xf32>
  %17 = "stablehlo.subtract"(%11#0, %16) : (tensor<12x2xf32>, tensor<12x2xf32>) -> tensor<12x2xf32>
  %18 = "stablehlo.exponential"(%17) : (tensor<12x2xf32>) -> tensor<12x2xf32>
  %19 = "stablehlo.reduce"(%18, %8) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg12: tensor<f32>, %arg13: tensor<f32>):
    %42 = "stablehlo.add"(%arg12, %arg13) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%42) : (tensor<f32>) -> ()
  }) : (tensor<12x2xf32>, tensor<f32>) -> tensor<12xf32>
  %20 = "stablehlo.broadcast_in_dim"(%19) <{broadcast_dimensions = array<i64: 0>}> : (tensor<12xf32>) -> tensor<12x1xf32>
  %21 = "stablehlo.broadcast_in_dim"(%20) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<12x1xf32>) -> tensor<12x2xf32>
  %22 = "stablehlo.divide"(%18, %21) : (tensor<12x2xf32>, tensor<12x2xf32>) -> tensor<12x2xf32>
  %23 = "stablehlo.broadcast_in_dim"(%8) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<12x8xf32>
  %24 = "stablehlo.broadcast_in_dim"(%7) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<12x2xi32>
  %25 = "stablehlo.compare"(%11#1, %24) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<12x2xi32>, tensor<12x2xi32>) -> tensor<12x2xi1>
  %26 = "stablehlo.broadcast_in_dim"(%6) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<12x2xi32>
  %27 = "stablehlo.add"(%11#1, %26) : (tensor<12x2xi32>, tensor<12x2xi32>) -> tensor<12x2xi32>
  %28 = "stablehlo.select"(%25, %27, %11#1) : (tensor<12x2xi1>, tensor<12x2xi32>, tensor<12x2xi32>) -> tensor<12x2xi32>
  %29 = "stablehlo.broadcast_in_dim"(%28) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<12x2xi32>) -> tensor<12x2x1xi32>
  %30 = "stablehlo.scatter"(%23, %29, %22) <{scatter_dimension_numbers = #stablehlo.scatter<inserted_window_dims = [1], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1], index_vector_dim = 2>}> ({
  ^bb0(%arg10: tensor<f32>, %arg11: tensor<f32>):
    "stablehlo.return"(%arg11) : (tensor<f32>) -> ()
  }) : (tensor<12x8xf32>, tensor<12x2x1xi32>, tensor<12x2xf32>) -> tensor<12x8xf32>
  %31 = "stablehlo.dot_general"(%arg5, %arg7) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<12x48xf32>, tensor<8x48x80xf32>) -> tensor<12x8x80xf32>
  %32 = "stablehlo.negate"(%31) : (tensor<12x8x80xf32>) -> tensor<12x8x80xf32>
  %33 = "stablehlo.exponential"(%32) : (tensor<12x8x80xf32>) -> tensor<12x8x80xf32>
  %34 = "stablehlo.broadcast_in_dim"(%5) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<12x8x80xf32>
  %35 = "stablehlo.add"(%34, %33) : (tensor<12x8x80xf32>, tensor<12x8x80xf32>) -> tensor<12x8x80xf32>
  %36 = "stablehlo.divide"(%34, %35) : (tensor<12x8x80xf32>, tensor<12x8x80xf32>) -> tensor<12x8x80xf32>
  %37 = "stablehlo.multiply"(%31, %36) : (tensor<12x8x80xf32>, tensor<12x8x80xf32>) -> tensor<12x8x80xf32>
  %38 = "stablehlo.dot_general"(%arg5, %arg9) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<12x48xf32>, tensor<8x48x80xf32>) -> tensor<12x8x80xf32>
  %39 = "stablehlo.multiply"(%37, %38) : (tensor<12x8x80xf32>, tensor<12x8x80xf32>) -> tensor<12x8x80xf32>
  %40 = "stablehlo.dot_general"(%39, %30) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0, 1], rhs_batching_dimensions = [0, 1]>}> : (tensor<12x8x80xf32>, tensor<12x8xf32>) -> tensor<12x8x80xf32>
  %41 = "stablehlo.dot_general"(%40, %arg6) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1, 2], rhs_contracting_dimensions = [0, 1]>}> : (tensor<12x8x80xf32>, tensor<8x80x48xf32>) -> tensor<12x48xf32>
  "func.return"(%41) : (tensor<12x48xf32>) -> ()
}) : () -> ()
