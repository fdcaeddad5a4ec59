// RUN: moe-opt %s --allow-unregistered-dialect --moe-raise-routing | FileCheck %s

// A loop over a list of experts, whose weights and biases are arguments of each:
// they are stacked.

// CHECK-LABEL: func.func @separate(
// CHECK-SAME:      %[[X:.*]]: tensor<5x16xf32>, %[[B0:.*]]: tensor<24xf32>, %[[D0:.*]]: tensor<24x16xf32>, %[[U0:.*]]: tensor<16x24xf32>, %[[B1:.*]]: tensor<24xf32>, %[[D1:.*]]: tensor<24x16xf32>, %[[U1:.*]]: tensor<16x24xf32>, %[[B2:.*]]: tensor<24xf32>, %[[D2:.*]]: tensor<24x16xf32>, %[[U2:.*]]: tensor<16x24xf32>, %{{.*}}: tensor<16x3xf32>)
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate
// CHECK-DAG:     %[[DA:.*]] = tensor.insert_slice %[[D0]] into %{{.*}}[0, 0, 0] [1, 24, 16] [1, 1, 1]
// CHECK-DAG:     %[[DB:.*]] = tensor.insert_slice %[[D1]] into %[[DA]][1, 0, 0] [1, 24, 16] [1, 1, 1]
// CHECK-DAG:     %[[DOWN:.*]] = tensor.insert_slice %[[D2]] into %[[DB]][2, 0, 0] [1, 24, 16] [1, 1, 1]
// CHECK-DAG:     %[[BA:.*]] = tensor.insert_slice %[[B0]] into %{{.*}}[0, 0] [1, 24] [1, 1]
// CHECK-DAG:     %[[BB:.*]] = tensor.insert_slice %[[B1]] into %[[BA]][1, 0] [1, 24] [1, 1]
// CHECK-DAG:     %[[BIAS:.*]] = tensor.insert_slice %[[B2]] into %[[BB]][2, 0] [1, 24] [1, 1]
// CHECK-DAG:     %[[UA:.*]] = tensor.insert_slice %[[U0]] into %{{.*}}[0, 0, 0] [1, 16, 24] [1, 1, 1]
// CHECK-DAG:     %[[UB:.*]] = tensor.insert_slice %[[U1]] into %[[UA]][1, 0, 0] [1, 16, 24] [1, 1, 1]
// CHECK-DAG:     %[[UP:.*]] = tensor.insert_slice %[[U2]] into %[[UB]][2, 0, 0] [1, 16, 24] [1, 1, 1]
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %[[X]], %[[IDS]] experts(3)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<4xi32>) weights(%[[UP]] : tensor<3x16x24xf32>) operands(%[[BIAS]] :
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<4xi32>) weights(%[[DOWN]] : tensor<3x24x16xf32>)
// CHECK:         %[[SUM:.*]] = moe.combine %[[Y]], %[[PLACES]] weights(%[[W]] :
// CHECK:         return %[[SUM]]

// Another function; the first one's weights in all; the first one's bias as a
// factor of all; the mask of another expert; no last expert.
// RUN: sed 's/%37 = "stablehlo.tanh"/%37 = "stablehlo.logistic"/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/"stablehlo.dot_general"(%arg5, %arg1[14])/"stablehlo.dot_general"(%arg5, %arg8)/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/"stablehlo.dot_general"(%51, %arg13)/"stablehlo.dot_general"(%51, %arg7)/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/"stablehlo.compare"(%10#1, %28)/"stablehlo.compare"(%10#1, %12)/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/%28 = "stablehlo.broadcast_in_dim"(%6)/%28 = "stablehlo.broadcast_in_dim"(%5)/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE

// NONE:     moe.gate
// NONE-NOT: moe.dispatch

"func.func"() <{function_type = (tensor<5x16xf32>, tensor<24xf32>, tensor<24x16xf32>, tensor<16x24xf32>, tensor<24xf32>, tensor<24x16xf32>, tensor<16x24xf32>, tensor<24xf32>, tensor<24x16xf32>, tensor<16x24xf32>, tensor<16x3xf32>) -> tensor<5x16xf32>, sym_name = "separate"}> ({
^bb0(%arg5: tensor<5x16xf32>, %arg6: tensor<24xf32>, %arg7: tensor<24x16xf32>, %arg8: tensor<16x24xf32>, %arg9: tensor<24xf32>, %arg10: tensor<24x16xf32>, %arg11: tensor<16x24xf32>, %arg12: tensor<24xf32>, %arg13: tensor<24x16xf32>, %arg14: tensor<16x24xf32>, %arg15: tensor<16x3xf32>):
  %5 = "stablehlo.constant"() <{value = dense<2> : tensor<i32>}> : () -> tensor<i32>
  %6 = "stablehlo.constant"() <{value = dense<1> : tensor<i32>}> : () -> tensor<i32>
  %7 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %8 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %9 = "stablehlo.dot_general"(%arg5, %arg15) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<5x16xf32>, tensor<16x3xf32>) -> tensor<5x3xf32>
  %10:2 = "stablehlo.composite"(%9) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<5x3xf32>) -> (tensor<5x2xf32>, tensor<5x2xi32>)
  %11 = "stablehlo.broadcast_in_dim"(%8) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<5x16xf32>
  %12 = "stablehlo.broadcast_in_dim"(%7) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<5x2xi32>
  %13 = "stablehlo.compare"(%10#1, %12) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<5x2xi32>, tensor<5x2xi32>) -> tensor<5x2xi1>
  %14 = "stablehlo.convert"(%7) : (tensor<i32>) -> tensor<f32>
  %15 = "stablehlo.broadcast_in_dim"(%14) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<5x2xf32>
  %16 = "stablehlo.select"(%13, %10#0, %15) : (tensor<5x2xi1>, tensor<5x2xf32>, tensor<5x2xf32>) -> tensor<5x2xf32>
  %17 = "stablehlo.reduce"(%16, %8) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg20: tensor<f32>, %arg21: tensor<f32>):
    %58 = "stablehlo.add"(%arg20, %arg21) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%58) : (tensor<f32>) -> ()
  }) : (tensor<5x2xf32>, tensor<f32>) -> tensor<5xf32>
  %18 = "stablehlo.broadcast_in_dim"(%17) <{broadcast_dimensions = array<i64: 0>}> : (tensor<5xf32>) -> tensor<5x1xf32>
  %19 = "stablehlo.dot_general"(%arg5, %arg8) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<5x16xf32>, tensor<16x24xf32>) -> tensor<5x24xf32>
  %20 = "stablehlo.broadcast_in_dim"(%arg6) <{broadcast_dimensions = array<i64: 1>}> : (tensor<24xf32>) -> tensor<1x24xf32>
  %21 = "stablehlo.broadcast_in_dim"(%20) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<1x24xf32>) -> tensor<5x24xf32>
  %22 = "stablehlo.add"(%19, %21) : (tensor<5x24xf32>, tensor<5x24xf32>) -> tensor<5x24xf32>
  %23 = "stablehlo.tanh"(%22) : (tensor<5x24xf32>) -> tensor<5x24xf32>
  %24 = "stablehlo.dot_general"(%23, %arg7) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<5x24xf32>, tensor<24x16xf32>) -> tensor<5x16xf32>
  %25 = "stablehlo.broadcast_in_dim"(%18) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<5x1xf32>) -> tensor<5x16xf32>
  %26 = "stablehlo.multiply"(%25, %24) : (tensor<5x16xf32>, tensor<5x16xf32>) -> tensor<5x16xf32>
  %27 = "stablehlo.add"(%11, %26) : (tensor<5x16xf32>, tensor<5x16xf32>) -> tensor<5x16xf32>
  %28 = "stablehlo.broadcast_in_dim"(%6) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<5x2xi32>
  %29 = "stablehlo.compare"(%10#1, %28) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<5x2xi32>, tensor<5x2xi32>) -> tensor<5x2xi1>
  %30 = "stablehlo.select"(%29, %10#0, %15) : (tensor<5x2xi1>, tensor<5x2xf32>, tensor<5x2xf32>) -> tensor<5x2xf32>
  %31 = "stablehlo.reduce"(%30, %8) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg18: tensor<f32>, %arg19: tensor<f32>):
    %57 = "stablehlo.add"(%arg18, %arg19) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%57) : (tensor<f32>) -> ()
  }) : (tensor<5x2xf32>, tensor<f32>) -> tensor<5xf32>
  %32 = "stablehlo.broadcast_in_dim"(%31) <{broadcast_dimensions = array<i64: 0>}> : (tensor<5xf32>) -> tensor<5x1xf32>
  %33 = "stablehlo.dot_general"(%arg5, %arg11) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<5x16xf32>, tensor<16x24xf32>) -> tensor<5x24xf32>
  %34 = "stablehlo.broadcast_in_dim"(%arg9) <{broadcast_dimensions = array<i64: 1>}> : (tensor<24xf32>) -> tensor<1x24xf32>
  %35 = "stablehlo.broadcast_in_dim"(%34) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<1x24xf32>) -> tensor<5x24xf32>
  %36 = "stablehlo.add"(%33, %35) : (tensor<5x24xf32>, tensor<5x24xf32>) -> tensor<5x24xf32>
  %37 = "stablehlo.tanh"(%36) : (tensor<5x24xf32>) -> tensor<5x24xf32>
  %38 = "stablehlo.dot_general"(%37, %arg10) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<5x24xf32>, tensor<24x16xf32>) -> tensor<5x16xf32>
  %39 = "stablehlo.broadcast_in_dim"(%32) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<5x1xf32>) -> tensor<5x16xf32>
  %40 = "stablehlo.multiply"(%39, %38) : (tensor<5x16xf32>, tensor<5x16xf32>) -> tensor<5x16xf32>
  %41 = "stablehlo.add"(%27, %40) : (tensor<5x16xf32>, tensor<5x16xf32>) -> tensor<5x16xf32>
  %42 = "stablehlo.broadcast_in_dim"(%5) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<5x2xi32>
  %43 = "stablehlo.compare"(%10#1, %42) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<5x2xi32>, tensor<5x2xi32>) -> tensor<5x2xi1>
  %44 = "stablehlo.select"(%43, %10#0, %15) : (tensor<5x2xi1>, tensor<5x2xf32>, tensor<5x2xf32>) -> tensor<5x2xf32>
  %45 = "stablehlo.reduce"(%44, %8) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg16: tensor<f32>, %arg17: tensor<f32>):
    %56 = "stablehlo.add"(%arg16, %arg17) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%56) : (tensor<f32>) -> ()
  }) : (tensor<5x2xf32>, tensor<f32>) -> tensor<5xf32>
  %46 = "stablehlo.broadcast_in_dim"(%45) <{broadcast_dimensions = array<i64: 0>}> : (tensor<5xf32>) -> tensor<5x1xf32>
  %47 = "stablehlo.dot_general"(%arg5, %arg14) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<5x16xf32>, tensor<16x24xf32>) -> tensor<5x24xf32>
  %48 = "stablehlo.broadcast_in_dim"(%arg12) <{broadcast_dimensions = array<i64: 1>}> : (tensor<24xf32>) -> tensor<1x24xf32>
  %49 = "stablehlo.broadcast_in_dim"(%48) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<1x24xf32>) -> tensor<5x24xf32>
  %50 = "stablehlo.add"(%47, %49) : (tensor<5x24xf32>, tensor<5x24xf32>) -> tensor<5x24xf32>
  %51 = "stablehlo.tanh"(%50) : (tensor<5x24xf32>) -> tensor<5x24xf32>
  %52 = "stablehlo.dot_general"(%51, %arg13) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<5x24xf32>, tensor<24x16xf32>) -> tensor<5x16xf32>
  %53 = "stablehlo.broadcast_in_dim"(%46) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<5x1xf32>) -> tensor<5x16xf32>
  %54 = "stablehlo.multiply"(%53, %52) : (tensor<5x16xf32>, tensor<5x16xf32>) -> tensor<5x16xf32>
  %55 = "stablehlo.add"(%41, %54) : (tensor<5x16xf32>, tensor<5x16xf32>) -> tensor<5x16xf32>
  "func.return"(%55) : (tensor<5x16xf32>) -> ()
}) : () -> ()
