// RUN: moe-opt %s --allow-unregistered-dialect --moe-raise-routing | FileCheck %s

// A loop over the experts that JAX unrolls: each computes all tokens, times the
// weight of those that chose it.

// CHECK-LABEL: func.func public @loop(
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}}, %[[IDS]] experts(3)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<4xi32>) weights(%{{.*}} : tensor<3x16x24xf32>) outs
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<4xi32>) weights(%{{.*}} : tensor<3x24x16xf32>) outs
// CHECK:         %[[SUM:.*]] = moe.combine %[[Y]], %[[PLACES]] weights(%[[W]] :
// CHECK:         return %[[SUM]]

// The second expert has the third one's weights; another function; other
// weights of the tokens; the mask of the first expert; no last expert.
// RUN: sed 's/start_indices = array<i64: 1, 0, 0>/start_indices = array<i64: 2, 0, 0>/; s/limit_indices = array<i64: 2, 16, 24>/limit_indices = array<i64: 3, 16, 24>/; s/limit_indices = array<i64: 2, 24, 16>/limit_indices = array<i64: 3, 24, 16>/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/%37 = "stablehlo.tanh"/%37 = "stablehlo.logistic"/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/"stablehlo.multiply"(%30, %10#0)/"stablehlo.multiply"(%30, %15)/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/"stablehlo.compare"(%10#1, %28)/"stablehlo.compare"(%10#1, %12)/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/"stablehlo.add"(%43, %58)/"stablehlo.add"(%43, %42)/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// The third expert has the first one's weights; a factor of all has them, too.
// RUN: sed 's/"stablehlo.dot_general"(%arg5, %51)/"stablehlo.dot_general"(%arg5, %19)/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/%37 = "stablehlo.tanh"(%36)/%37 = "stablehlo.multiply"(%36, %20)/; s/%53 = "stablehlo.tanh"(%52)/%53 = "stablehlo.multiply"(%52, %20)/; s/%21 = "stablehlo.tanh"(%20)/%21 = "stablehlo.multiply"(%20, %20)/; /multiply"(%\(36\|52\|20\), %20)/s/: (tensor<5x24xf32>)/: (tensor<5x24xf32>, tensor<5x24xf32>)/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE

// NONE:     moe.gate
// NONE-NOT: moe.dispatch

"func.func"() <{function_type = (tensor<5x16xf32>, tensor<16x3xf32>, tensor<3x16x24xf32>, tensor<3x24x16xf32>) -> tensor<5x16xf32>, sym_name = "loop", sym_visibility = "public"}> ({
^bb0(%arg5: tensor<5x16xf32>, %arg6: tensor<16x3xf32>, %arg7: tensor<3x16x24xf32>, %arg8: tensor<3x24x16xf32>):
  %5 = "stablehlo.constant"() <{value = dense<2> : tensor<i32>}> : () -> tensor<i32>
  %6 = "stablehlo.constant"() <{value = dense<1> : tensor<i32>}> : () -> tensor<i32>
  %7 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %8 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %9 = "stablehlo.dot_general"(%arg5, %arg6) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<5x16xf32>, tensor<16x3xf32>) -> tensor<5x3xf32>
  %10:2 = "stablehlo.composite"(%9) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<5x3xf32>) -> (tensor<5x2xf32>, tensor<5x2xi32>)
  %11 = "stablehlo.broadcast_in_dim"(%8) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<5x16xf32>
  %12 = "stablehlo.broadcast_in_dim"(%7) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<5x2xi32>
  %13 = "stablehlo.compare"(%10#1, %12) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<5x2xi32>, tensor<5x2xi32>) -> tensor<5x2xi1>
  %14 = "stablehlo.convert"(%13) : (tensor<5x2xi1>) -> tensor<5x2xf32>
  %15 = "stablehlo.multiply"(%14, %10#0) : (tensor<5x2xf32>, tensor<5x2xf32>) -> tensor<5x2xf32>
  %16 = "stablehlo.reduce"(%15, %8) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg13: tensor<f32>, %arg14: tensor<f32>):
    %62 = "stablehlo.add"(%arg13, %arg14) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%62) : (tensor<f32>) -> ()
  }) : (tensor<5x2xf32>, tensor<f32>) -> tensor<5xf32>
  %17 = "stablehlo.broadcast_in_dim"(%16) <{broadcast_dimensions = array<i64: 0>}> : (tensor<5xf32>) -> tensor<5x1xf32>
  %18 = "stablehlo.slice"(%arg7) <{limit_indices = array<i64: 1, 16, 24>, start_indices = array<i64: 0, 0, 0>, strides = array<i64: 1, 1, 1>}> : (tensor<3x16x24xf32>) -> tensor<1x16x24xf32>
  %19 = "stablehlo.reshape"(%18) : (tensor<1x16x24xf32>) -> tensor<16x24xf32>
  %20 = "stablehlo.dot_general"(%arg5, %19) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<5x16xf32>, tensor<16x24xf32>) -> tensor<5x24xf32>
  %21 = "stablehlo.tanh"(%20) : (tensor<5x24xf32>) -> tensor<5x24xf32>
  %22 = "stablehlo.slice"(%arg8) <{limit_indices = array<i64: 1, 24, 16>, start_indices = array<i64: 0, 0, 0>, strides = array<i64: 1, 1, 1>}> : (tensor<3x24x16xf32>) -> tensor<1x24x16xf32>
  %23 = "stablehlo.reshape"(%22) : (tensor<1x24x16xf32>) -> tensor<24x16xf32>
  %24 = "stablehlo.dot_general"(%21, %23) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<5x24xf32>, tensor<24x16xf32>) -> tensor<5x16xf32>
  %25 = "stablehlo.broadcast_in_dim"(%17) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<5x1xf32>) -> tensor<5x16xf32>
  %26 = "stablehlo.multiply"(%25, %24) : (tensor<5x16xf32>, tensor<5x16xf32>) -> tensor<5x16xf32>
  %27 = "stablehlo.add"(%11, %26) : (tensor<5x16xf32>, tensor<5x16xf32>) -> tensor<5x16xf32>
  %28 = "stablehlo.broadcast_in_dim"(%6) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<5x2xi32>
  %29 = "stablehlo.compare"(%10#1, %28) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<5x2xi32>, tensor<5x2xi32>) -> tensor<5x2xi1>
  %30 = "stablehlo.convert"(%29) : (tensor<5x2xi1>) -> tensor<5x2xf32>
  %31 = "stablehlo.multiply"(%30, %10#0) : (tensor<5x2xf32>, tensor<5x2xf32>) -> tensor<5x2xf32>
  %32 = "stablehlo.reduce"(%31, %8) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg11: tensor<f32>, %arg12: tensor<f32>):
    %61 = "stablehlo.add"(%arg11, %arg12) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%61) : (tensor<f32>) -> ()
  }) : (tensor<5x2xf32>, tensor<f32>) -> tensor<5xf32>
  %33 = "stablehlo.broadcast_in_dim"(%32) <{broadcast_dimensions = array<i64: 0>}> : (tensor<5xf32>) -> tensor<5x1xf32>
  %34 = "stablehlo.slice"(%arg7) <{limit_indices = array<i64: 2, 16, 24>, start_indices = array<i64: 1, 0, 0>, strides = array<i64: 1, 1, 1>}> : (tensor<3x16x24xf32>) -> tensor<1x16x24xf32>
  %35 = "stablehlo.reshape"(%34) : (tensor<1x16x24xf32>) -> tensor<16x24xf32>
  %36 = "stablehlo.dot_general"(%arg5, %35) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<5x16xf32>, tensor<16x24xf32>) -> tensor<5x24xf32>
  %37 = "stablehlo.tanh"(%36) : (tensor<5x24xf32>) -> tensor<5x24xf32>
  %38 = "stablehlo.slice"(%arg8) <{limit_indices = array<i64: 2, 24, 16>, start_indices = array<i64: 1, 0, 0>, strides = array<i64: 1, 1, 1>}> : (tensor<3x24x16xf32>) -> tensor<1x24x16xf32>
  %39 = "stablehlo.reshape"(%38) : (tensor<1x24x16xf32>) -> tensor<24x16xf32>
  %40 = "stablehlo.dot_general"(%37, %39) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<5x24xf32>, tensor<24x16xf32>) -> tensor<5x16xf32>
  %41 = "stablehlo.broadcast_in_dim"(%33) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<5x1xf32>) -> tensor<5x16xf32>
  %42 = "stablehlo.multiply"(%41, %40) : (tensor<5x16xf32>, tensor<5x16xf32>) -> tensor<5x16xf32>
  %43 = "stablehlo.add"(%27, %42) : (tensor<5x16xf32>, tensor<5x16xf32>) -> tensor<5x16xf32>
  %44 = "stablehlo.broadcast_in_dim"(%5) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<5x2xi32>
  %45 = "stablehlo.compare"(%10#1, %44) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<5x2xi32>, tensor<5x2xi32>) -> tensor<5x2xi1>
  %46 = "stablehlo.convert"(%45) : (tensor<5x2xi1>) -> tensor<5x2xf32>
  %47 = "stablehlo.multiply"(%46, %10#0) : (tensor<5x2xf32>, tensor<5x2xf32>) -> tensor<5x2xf32>
  %48 = "stablehlo.reduce"(%47, %8) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg9: tensor<f32>, %arg10: tensor<f32>):
    %60 = "stablehlo.add"(%arg9, %arg10) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%60) : (tensor<f32>) -> ()
  }) : (tensor<5x2xf32>, tensor<f32>) -> tensor<5xf32>
  %49 = "stablehlo.broadcast_in_dim"(%48) <{broadcast_dimensions = array<i64: 0>}> : (tensor<5xf32>) -> tensor<5x1xf32>
  %50 = "stablehlo.slice"(%arg7) <{limit_indices = array<i64: 3, 16, 24>, start_indices = array<i64: 2, 0, 0>, strides = array<i64: 1, 1, 1>}> : (tensor<3x16x24xf32>) -> tensor<1x16x24xf32>
  %51 = "stablehlo.reshape"(%50) : (tensor<1x16x24xf32>) -> tensor<16x24xf32>
  %52 = "stablehlo.dot_general"(%arg5, %51) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<5x16xf32>, tensor<16x24xf32>) -> tensor<5x24xf32>
  %53 = "stablehlo.tanh"(%52) : (tensor<5x24xf32>) -> tensor<5x24xf32>
  %54 = "stablehlo.slice"(%arg8) <{limit_indices = array<i64: 3, 24, 16>, start_indices = array<i64: 2, 0, 0>, strides = array<i64: 1, 1, 1>}> : (tensor<3x24x16xf32>) -> tensor<1x24x16xf32>
  %55 = "stablehlo.reshape"(%54) : (tensor<1x24x16xf32>) -> tensor<24x16xf32>
  %56 = "stablehlo.dot_general"(%53, %55) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<5x24xf32>, tensor<24x16xf32>) -> tensor<5x16xf32>
  %57 = "stablehlo.broadcast_in_dim"(%49) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<5x1xf32>) -> tensor<5x16xf32>
  %58 = "stablehlo.multiply"(%57, %56) : (tensor<5x16xf32>, tensor<5x16xf32>) -> tensor<5x16xf32>
  %59 = "stablehlo.add"(%43, %58) : (tensor<5x16xf32>, tensor<5x16xf32>) -> tensor<5x16xf32>
  "func.return"(%59) : (tensor<5x16xf32>) -> ()
}) : () -> ()
