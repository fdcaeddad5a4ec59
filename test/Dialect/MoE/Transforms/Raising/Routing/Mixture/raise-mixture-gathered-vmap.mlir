// RUN: moe-opt %s --allow-unregistered-dialect --moe-raise-routing | FileCheck %s

// A function of one token that jax.vmap repeats for any number of them, with one
// of each choice that it repeats, too: w[e] has a dimension of extent 1, which a
// reshape of dynamic extents drops.

// CHECK-LABEL: func.func @vmapped(
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}}, %[[IDS]] experts(3)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<4xi32>) weights(%{{.*}} : tensor<3x16x24xf32>)
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<4xi32>) weights(%{{.*}} : tensor<3x24x16xf32>)
// CHECK:         moe.combine %[[Y]], %[[PLACES]] weights(%[[W]] :

// The reshape is one of the matrices, too.
// RUN: sed 's/-> tensor<?x2x16x24xf32>/-> tensor<?x2x24x16xf32>/; /%50 = "stablehlo.dot/s/rhs_contracting_dimensions = \[2\]/rhs_contracting_dimensions = [3]/; /%50 = "stablehlo.dot/s/tensor<?x2x16x24xf32>)/tensor<?x2x24x16xf32>)/; /%47 = /s/tensor<?x2x24x16xf32>/tensor<?x2x16x24xf32>/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE

// NONE:     moe.gate
// NONE-NOT: moe.dispatch

"func.func"() <{function_type = (tensor<?x16xf32>, tensor<3x24x16xf32>, tensor<16x3xf32>, tensor<3x16x24xf32>) -> tensor<?x16xf32>, sym_name = "vmapped"}> ({
^bb0(%arg5: tensor<?x16xf32>, %arg6: tensor<3x24x16xf32>, %arg7: tensor<16x3xf32>, %arg8: tensor<3x16x24xf32>):
  %16 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %17 = "stablehlo.constant"() <{value = dense<2> : tensor<1xi32>}> : () -> tensor<1xi32>
  %18 = "stablehlo.constant"() <{value = dense<3> : tensor<i32>}> : () -> tensor<i32>
  %19 = "stablehlo.constant"() <{value = dense<16> : tensor<i32>}> : () -> tensor<i32>
  %20 = "stablehlo.constant"() <{value = dense<24> : tensor<i32>}> : () -> tensor<i32>
  %21 = "stablehlo.constant"() <{value = dense<1> : tensor<1xi32>}> : () -> tensor<1xi32>
  %22 = "stablehlo.constant"() <{value = dense<16> : tensor<1xi32>}> : () -> tensor<1xi32>
  %23 = "stablehlo.constant"() <{value = dense<24> : tensor<1xi32>}> : () -> tensor<1xi32>
  %24 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %25 = "stablehlo.get_dimension_size"(%arg5) <{dimension = 0 : i64}> : (tensor<?x16xf32>) -> tensor<i32>
  %26 = "stablehlo.dot_general"(%arg5, %arg7) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<?x16xf32>, tensor<16x3xf32>) -> tensor<?x3xf32>
  %27:2 = "stablehlo.composite"(%26) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<?x3xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>)
  %28 = "stablehlo.reshape"(%25) : (tensor<i32>) -> tensor<1xi32>
  %29 = "stablehlo.concatenate"(%28, %17) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %30 = "stablehlo.dynamic_broadcast_in_dim"(%16, %29) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<2xi32>) -> tensor<?x2xi32>
  %31 = "stablehlo.compare"(%27#1, %30) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<?x2xi32>, tensor<?x2xi32>) -> tensor<?x2xi1>
  %32 = "stablehlo.dynamic_broadcast_in_dim"(%18, %29) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<2xi32>) -> tensor<?x2xi32>
  %33 = "stablehlo.add"(%27#1, %32) : (tensor<?x2xi32>, tensor<?x2xi32>) -> tensor<?x2xi32>
  %34 = "stablehlo.select"(%31, %33, %27#1) : (tensor<?x2xi1>, tensor<?x2xi32>, tensor<?x2xi32>) -> tensor<?x2xi32>
  %35 = "stablehlo.compare"(%16, %16) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
  %36 = "stablehlo.add"(%16, %19) : (tensor<i32>, tensor<i32>) -> tensor<i32>
  %37 = "stablehlo.select"(%35, %36, %16) : (tensor<i1>, tensor<i32>, tensor<i32>) -> tensor<i32>
  %38 = "stablehlo.add"(%16, %20) : (tensor<i32>, tensor<i32>) -> tensor<i32>
  %39 = "stablehlo.select"(%35, %38, %16) : (tensor<i1>, tensor<i32>, tensor<i32>) -> tensor<i32>
  %40 = "stablehlo.concatenate"(%28, %17, %21) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>, tensor<1xi32>) -> tensor<3xi32>
  %41 = "stablehlo.dynamic_broadcast_in_dim"(%34, %40) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x2xi32>, tensor<3xi32>) -> tensor<?x2x1xi32>
  %42 = "stablehlo.broadcast_in_dim"(%37) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<2x1xi32>
  %43 = "stablehlo.broadcast_in_dim"(%39) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<2x1xi32>
  %44 = "stablehlo.dynamic_broadcast_in_dim"(%42, %40) <{broadcast_dimensions = array<i64: 1, 2>}> : (tensor<2x1xi32>, tensor<3xi32>) -> tensor<?x2x1xi32>
  %45 = "stablehlo.dynamic_broadcast_in_dim"(%43, %40) <{broadcast_dimensions = array<i64: 1, 2>}> : (tensor<2x1xi32>, tensor<3xi32>) -> tensor<?x2x1xi32>
  %46 = "stablehlo.concatenate"(%41, %44, %45) <{dimension = 2 : i64}> : (tensor<?x2x1xi32>, tensor<?x2x1xi32>, tensor<?x2x1xi32>) -> tensor<?x2x3xi32>
  %47 = "stablehlo.gather"(%arg8, %46) <{dimension_numbers = #stablehlo.gather<offset_dims = [2, 3, 4], start_index_map = [0, 1, 2], index_vector_dim = 2>, slice_sizes = array<i64: 1, 16, 24>}> : (tensor<3x16x24xf32>, tensor<?x2x3xi32>) -> tensor<?x2x1x16x24xf32>
  %48 = "stablehlo.concatenate"(%28, %17, %22, %23) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>, tensor<1xi32>, tensor<1xi32>) -> tensor<4xi32>
  %49 = "stablehlo.dynamic_reshape"(%47, %48) : (tensor<?x2x1x16x24xf32>, tensor<4xi32>) -> tensor<?x2x16x24xf32>
  %50 = "stablehlo.dot_general"(%arg5, %49) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [2]>}> : (tensor<?x16xf32>, tensor<?x2x16x24xf32>) -> tensor<?x2x24xf32>
  %51 = "stablehlo.tanh"(%50) : (tensor<?x2x24xf32>) -> tensor<?x2x24xf32>
  %52 = "stablehlo.concatenate"(%41, %45, %44) <{dimension = 2 : i64}> : (tensor<?x2x1xi32>, tensor<?x2x1xi32>, tensor<?x2x1xi32>) -> tensor<?x2x3xi32>
  %53 = "stablehlo.gather"(%arg6, %52) <{dimension_numbers = #stablehlo.gather<offset_dims = [2, 3, 4], start_index_map = [0, 1, 2], index_vector_dim = 2>, slice_sizes = array<i64: 1, 24, 16>}> : (tensor<3x24x16xf32>, tensor<?x2x3xi32>) -> tensor<?x2x1x24x16xf32>
  %54 = "stablehlo.concatenate"(%28, %17, %23, %22) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>, tensor<1xi32>, tensor<1xi32>) -> tensor<4xi32>
  %55 = "stablehlo.dynamic_reshape"(%53, %54) : (tensor<?x2x1x24x16xf32>, tensor<4xi32>) -> tensor<?x2x24x16xf32>
  %56 = "stablehlo.dot_general"(%51, %55) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0, 1], rhs_batching_dimensions = [0, 1], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [2]>}> : (tensor<?x2x24xf32>, tensor<?x2x24x16xf32>) -> tensor<?x2x16xf32>
  %57 = "stablehlo.dynamic_broadcast_in_dim"(%27#0, %40) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x2xf32>, tensor<3xi32>) -> tensor<?x2x1xf32>
  %58 = "stablehlo.concatenate"(%28, %17, %22) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>, tensor<1xi32>) -> tensor<3xi32>
  %59 = "stablehlo.dynamic_broadcast_in_dim"(%57, %58) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<?x2x1xf32>, tensor<3xi32>) -> tensor<?x2x16xf32>
  %60 = "stablehlo.multiply"(%59, %56) : (tensor<?x2x16xf32>, tensor<?x2x16xf32>) -> tensor<?x2x16xf32>
  %61 = "stablehlo.reduce"(%60, %24) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg9: tensor<f32>, %arg10: tensor<f32>):
    %62 = "stablehlo.add"(%arg9, %arg10) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%62) : (tensor<f32>) -> ()
  }) : (tensor<?x2x16xf32>, tensor<f32>) -> tensor<?x16xf32>
  "func.return"(%61) : (tensor<?x16xf32>) -> ()
}) : () -> ()
