// RUN: moe-opt %s --allow-unregistered-dialect --moe-raise-routing | FileCheck %s

// An unrolled loop over two experts whose first product has a bias: slices of the
// biases of all.

// CHECK-DAG:   #[[BIAS:.*]] = affine_map<(d0, d1, d2) -> (d0, d2)>
// CHECK-LABEL: func.func public @biases(
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}} experts(2)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<3xi32>) weights(%{{.*}} : tensor<2x4x6xf32>) operands(%{{.*}} : tensor<2x6xf32>) maps([#[[BIAS]]])
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<3xi32>) weights(%{{.*}} : tensor<2x6x4xf32>)
// CHECK:         moe.combine %[[Y]], %[[PLACES]] weights(

// The second expert has the first one's weights, in the first or the second
// product, or a bias of a tensor of three; both have the second one's.
// RUN: sed 's/(%36, %39)/(%36, %19)/; s/, %39)/, %19)/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/limit_indices = array<i64: 2, 4, 6>, start_indices = array<i64: 1, 0, 0>/limit_indices = array<i64: 1, 4, 6>, start_indices = array<i64: 0, 0, 0>/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/, %48)/, %28)/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/tensor<2x6xf32>/tensor<3x6xf32>/g' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/limit_indices = array<i64: 1, 6>, start_indices = array<i64: 0, 0>/limit_indices = array<i64: 2, 6>, start_indices = array<i64: 1, 0>/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE

// NONE:     moe.gate
// NONE-NOT: moe.{{dispatch|grouped_matmul|combine}}

"func.func"() <{function_type = (tensor<5x4xf32>, tensor<4x2xf32>, tensor<2x4x6xf32>, tensor<2x6xf32>, tensor<2x6x4xf32>) -> tensor<5x4xf32>, res_attrs = [{jax.result_info = "result"}], sym_name = "biases", sym_visibility = "public"}> ({
^bb0(%arg5: tensor<5x4xf32>, %arg6: tensor<4x2xf32>, %arg7: tensor<2x4x6xf32>, %arg8: tensor<2x6xf32>, %arg9: tensor<2x6x4xf32>):
  %5 = "stablehlo.constant"() <{value = dense<1> : tensor<i32>}> : () -> tensor<i32>
  %6 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %7 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %8 = "stablehlo.dot_general"(%arg5, %arg6) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<5x4xf32>, tensor<4x2xf32>) -> tensor<5x2xf32>
  %9:2 = "stablehlo.composite"(%8) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<5x2xf32>) -> (tensor<5x2xf32>, tensor<5x2xi32>)
  %10 = "stablehlo.broadcast_in_dim"(%7) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<5x4xf32>
  %11 = "stablehlo.broadcast_in_dim"(%6) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<5x2xi32>
  %12 = "stablehlo.compare"(%9#1, %11) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<5x2xi32>, tensor<5x2xi32>) -> tensor<5x2xi1>
  %13 = "stablehlo.convert"(%6) : (tensor<i32>) -> tensor<f32>
  %14 = "stablehlo.broadcast_in_dim"(%13) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<5x2xf32>
  %15 = "stablehlo.select"(%12, %9#0, %14) : (tensor<5x2xi1>, tensor<5x2xf32>, tensor<5x2xf32>) -> tensor<5x2xf32>
  %16 = "stablehlo.reduce"(%15, %7) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg12: tensor<f32>, %arg13: tensor<f32>):
    %54 = "stablehlo.add"(%arg12, %arg13) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%54) : (tensor<f32>) -> ()
  }) : (tensor<5x2xf32>, tensor<f32>) -> tensor<5xf32>
  %17 = "stablehlo.broadcast_in_dim"(%16) <{broadcast_dimensions = array<i64: 0>}> : (tensor<5xf32>) -> tensor<5x1xf32>
  %18 = "stablehlo.slice"(%arg7) <{limit_indices = array<i64: 1, 4, 6>, start_indices = array<i64: 0, 0, 0>, strides = array<i64: 1, 1, 1>}> : (tensor<2x4x6xf32>) -> tensor<1x4x6xf32>
  %19 = "stablehlo.reshape"(%18) : (tensor<1x4x6xf32>) -> tensor<4x6xf32>
  %20 = "stablehlo.dot_general"(%arg5, %19) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<5x4xf32>, tensor<4x6xf32>) -> tensor<5x6xf32>
  %21 = "stablehlo.slice"(%arg8) <{limit_indices = array<i64: 1, 6>, start_indices = array<i64: 0, 0>, strides = array<i64: 1, 1>}> : (tensor<2x6xf32>) -> tensor<1x6xf32>
  %22 = "stablehlo.reshape"(%21) : (tensor<1x6xf32>) -> tensor<6xf32>
  %23 = "stablehlo.broadcast_in_dim"(%22) <{broadcast_dimensions = array<i64: 1>}> : (tensor<6xf32>) -> tensor<1x6xf32>
  %24 = "stablehlo.broadcast_in_dim"(%23) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<1x6xf32>) -> tensor<5x6xf32>
  %25 = "stablehlo.add"(%20, %24) : (tensor<5x6xf32>, tensor<5x6xf32>) -> tensor<5x6xf32>
  %26 = "stablehlo.tanh"(%25) : (tensor<5x6xf32>) -> tensor<5x6xf32>
  %27 = "stablehlo.slice"(%arg9) <{limit_indices = array<i64: 1, 6, 4>, start_indices = array<i64: 0, 0, 0>, strides = array<i64: 1, 1, 1>}> : (tensor<2x6x4xf32>) -> tensor<1x6x4xf32>
  %28 = "stablehlo.reshape"(%27) : (tensor<1x6x4xf32>) -> tensor<6x4xf32>
  %29 = "stablehlo.dot_general"(%26, %28) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<5x6xf32>, tensor<6x4xf32>) -> tensor<5x4xf32>
  %30 = "stablehlo.broadcast_in_dim"(%17) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<5x1xf32>) -> tensor<5x4xf32>
  %31 = "stablehlo.multiply"(%30, %29) : (tensor<5x4xf32>, tensor<5x4xf32>) -> tensor<5x4xf32>
  %32 = "stablehlo.add"(%10, %31) : (tensor<5x4xf32>, tensor<5x4xf32>) -> tensor<5x4xf32>
  %33 = "stablehlo.broadcast_in_dim"(%5) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<5x2xi32>
  %34 = "stablehlo.compare"(%9#1, %33) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<5x2xi32>, tensor<5x2xi32>) -> tensor<5x2xi1>
  %35 = "stablehlo.select"(%34, %9#0, %14) : (tensor<5x2xi1>, tensor<5x2xf32>, tensor<5x2xf32>) -> tensor<5x2xf32>
  %36 = "stablehlo.reduce"(%35, %7) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg10: tensor<f32>, %arg11: tensor<f32>):
    %53 = "stablehlo.add"(%arg10, %arg11) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%53) : (tensor<f32>) -> ()
  }) : (tensor<5x2xf32>, tensor<f32>) -> tensor<5xf32>
  %37 = "stablehlo.broadcast_in_dim"(%36) <{broadcast_dimensions = array<i64: 0>}> : (tensor<5xf32>) -> tensor<5x1xf32>
  %38 = "stablehlo.slice"(%arg7) <{limit_indices = array<i64: 2, 4, 6>, start_indices = array<i64: 1, 0, 0>, strides = array<i64: 1, 1, 1>}> : (tensor<2x4x6xf32>) -> tensor<1x4x6xf32>
  %39 = "stablehlo.reshape"(%38) : (tensor<1x4x6xf32>) -> tensor<4x6xf32>
  %40 = "stablehlo.dot_general"(%arg5, %39) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<5x4xf32>, tensor<4x6xf32>) -> tensor<5x6xf32>
  %41 = "stablehlo.slice"(%arg8) <{limit_indices = array<i64: 2, 6>, start_indices = array<i64: 1, 0>, strides = array<i64: 1, 1>}> : (tensor<2x6xf32>) -> tensor<1x6xf32>
  %42 = "stablehlo.reshape"(%41) : (tensor<1x6xf32>) -> tensor<6xf32>
  %43 = "stablehlo.broadcast_in_dim"(%42) <{broadcast_dimensions = array<i64: 1>}> : (tensor<6xf32>) -> tensor<1x6xf32>
  %44 = "stablehlo.broadcast_in_dim"(%43) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<1x6xf32>) -> tensor<5x6xf32>
  %45 = "stablehlo.add"(%40, %44) : (tensor<5x6xf32>, tensor<5x6xf32>) -> tensor<5x6xf32>
  %46 = "stablehlo.tanh"(%45) : (tensor<5x6xf32>) -> tensor<5x6xf32>
  %47 = "stablehlo.slice"(%arg9) <{limit_indices = array<i64: 2, 6, 4>, start_indices = array<i64: 1, 0, 0>, strides = array<i64: 1, 1, 1>}> : (tensor<2x6x4xf32>) -> tensor<1x6x4xf32>
  %48 = "stablehlo.reshape"(%47) : (tensor<1x6x4xf32>) -> tensor<6x4xf32>
  %49 = "stablehlo.dot_general"(%46, %48) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<5x6xf32>, tensor<6x4xf32>) -> tensor<5x4xf32>
  %50 = "stablehlo.broadcast_in_dim"(%37) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<5x1xf32>) -> tensor<5x4xf32>
  %51 = "stablehlo.multiply"(%50, %49) : (tensor<5x4xf32>, tensor<5x4xf32>) -> tensor<5x4xf32>
  %52 = "stablehlo.add"(%32, %51) : (tensor<5x4xf32>, tensor<5x4xf32>) -> tensor<5x4xf32>
  "func.return"(%52) : (tensor<5x4xf32>) -> ()
}) : () -> ()
