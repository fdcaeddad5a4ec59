// RUN: moe-opt %s --allow-unregistered-dialect --moe-raise-routing | FileCheck %s

// GShard's masks of slots with any number of tokens: JAX exports the running
// sum as a window whose extents are tensors.

// CHECK-LABEL: func.func public @gshard(
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate
// CHECK-NOT:     stablehlo.custom_call
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}}, %[[IDS]] experts(8) capacity(<fixed = 20>)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]]
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]]
// CHECK:         moe.combine %[[Y]], %[[PLACES]] weights(

// Other windows: the largest, one element less, padding on the other side, and
// a step of two.
// RUN: sed 's/"stablehlo.add"(%arg5, %arg6)/"stablehlo.maximum"(%arg5, %arg6)/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/"stablehlo.add"(%57, %17)/"stablehlo.subtract"(%57, %17)/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/"stablehlo.concatenate"(%63, %18)/"stablehlo.concatenate"(%18, %63)/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/(%60, %61, %69, %70, %70, %70, %68)/(%60, %61, %69, %69, %70, %70, %68)/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE

// NONE:     moe.gate
// NONE-NOT: moe.dispatch
// NONE:     stablehlo.custom_call
// NONE-NOT: moe.dispatch

"func.func"() <{function_type = (tensor<?x48xf32>, tensor<8x80xf32>, tensor<8x48xf32>, tensor<48x8xf32>, tensor<8x48x80xf32>, tensor<8x48x80xf32>, tensor<8x80x48xf32>) -> tensor<?x48xf32>, sym_name = "gshard", sym_visibility = "public"}> ({
^bb0(%arg7: tensor<?x48xf32>, %arg8: tensor<8x80xf32>, %arg9: tensor<8x48xf32>, %arg10: tensor<48x8xf32>, %arg11: tensor<8x48x80xf32>, %arg12: tensor<8x48x80xf32>, %arg13: tensor<8x80x48xf32>):
  %17 = "stablehlo.constant"() <{value = dense<-1> : tensor<i32>}> : () -> tensor<i32>
  %18 = "stablehlo.constant"() <{value = dense<0> : tensor<1xi32>}> : () -> tensor<1xi32>
  %19 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %20 = "stablehlo.constant"() <{value = dense<1> : tensor<1xi32>}> : () -> tensor<1xi32>
  %21 = "stablehlo.constant"() <{value = dense<8> : tensor<1xi32>}> : () -> tensor<1xi32>
  %22 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %23 = "stablehlo.constant"() <{value = dense<2> : tensor<i32>}> : () -> tensor<i32>
  %24 = "stablehlo.constant"() <{value = dense<2> : tensor<1xi32>}> : () -> tensor<1xi32>
  %25 = "stablehlo.constant"() <{value = dense<20> : tensor<1xi32>}> : () -> tensor<1xi32>
  %26 = "stablehlo.get_dimension_size"(%arg7) <{dimension = 0 : i64}> : (tensor<?x48xf32>) -> tensor<i32>
  %27 = "stablehlo.dot_general"(%arg7, %arg10) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<?x48xf32>, tensor<48x8xf32>) -> tensor<?x8xf32>
  %28 = "stablehlo.reduce"(%27, %19) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg20: tensor<f32>, %arg21: tensor<f32>):
    %99 = "stablehlo.maximum"(%arg20, %arg21) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%99) : (tensor<f32>) -> ()
  }) : (tensor<?x8xf32>, tensor<f32>) -> tensor<?xf32>
  %29 = "stablehlo.reshape"(%26) : (tensor<i32>) -> tensor<1xi32>
  %30 = "stablehlo.dynamic_broadcast_in_dim"(%19, %29) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<1xi32>) -> tensor<?xf32>
  %31 = "stablehlo.maximum"(%30, %28) : (tensor<?xf32>, tensor<?xf32>) -> tensor<?xf32>
  %32 = "stablehlo.concatenate"(%29, %20) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %33 = "stablehlo.dynamic_broadcast_in_dim"(%31, %32) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xf32>, tensor<2xi32>) -> tensor<?x1xf32>
  %34 = "stablehlo.concatenate"(%29, %21) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %35 = "stablehlo.dynamic_broadcast_in_dim"(%33, %34) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x8xf32>
  %36 = "stablehlo.subtract"(%27, %35) : (tensor<?x8xf32>, tensor<?x8xf32>) -> tensor<?x8xf32>
  %37 = "stablehlo.exponential"(%36) : (tensor<?x8xf32>) -> tensor<?x8xf32>
  %38 = "stablehlo.reduce"(%37, %22) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg18: tensor<f32>, %arg19: tensor<f32>):
    %98 = "stablehlo.add"(%arg18, %arg19) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%98) : (tensor<f32>) -> ()
  }) : (tensor<?x8xf32>, tensor<f32>) -> tensor<?xf32>
  %39 = "stablehlo.dynamic_broadcast_in_dim"(%38, %32) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xf32>, tensor<2xi32>) -> tensor<?x1xf32>
  %40 = "stablehlo.dynamic_broadcast_in_dim"(%39, %34) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x8xf32>
  %41 = "stablehlo.divide"(%37, %40) : (tensor<?x8xf32>, tensor<?x8xf32>) -> tensor<?x8xf32>
  %42:2 = "stablehlo.composite"(%41) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<?x8xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>)
  %43 = "stablehlo.reduce"(%42#0, %22) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg16: tensor<f32>, %arg17: tensor<f32>):
    %97 = "stablehlo.add"(%arg16, %arg17) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%97) : (tensor<f32>) -> ()
  }) : (tensor<?x2xf32>, tensor<f32>) -> tensor<?xf32>
  %44 = "stablehlo.dynamic_broadcast_in_dim"(%43, %32) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xf32>, tensor<2xi32>) -> tensor<?x1xf32>
  %45 = "stablehlo.concatenate"(%29, %24) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %46 = "stablehlo.dynamic_broadcast_in_dim"(%44, %45) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x2xf32>
  %47 = "stablehlo.divide"(%42#0, %46) : (tensor<?x2xf32>, tensor<?x2xf32>) -> tensor<?x2xf32>
  %48 = "stablehlo.concatenate"(%29, %24, %20) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>, tensor<1xi32>) -> tensor<3xi32>
  %49 = "stablehlo.dynamic_broadcast_in_dim"(%42#1, %48) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x2xi32>, tensor<3xi32>) -> tensor<?x2x1xi32>
  %50 = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<1x1x8xi32>
  %51 = "stablehlo.concatenate"(%29, %24, %21) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>, tensor<1xi32>) -> tensor<3xi32>
  %52 = "stablehlo.dynamic_broadcast_in_dim"(%49, %51) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<?x2x1xi32>, tensor<3xi32>) -> tensor<?x2x8xi32>
  %53 = "stablehlo.dynamic_broadcast_in_dim"(%50, %51) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x1x8xi32>, tensor<3xi32>) -> tensor<?x2x8xi32>
  %54 = "stablehlo.compare"(%52, %53) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<?x2x8xi32>, tensor<?x2x8xi32>) -> tensor<?x2x8xi1>
  %55 = "stablehlo.convert"(%54) : (tensor<?x2x8xi1>) -> tensor<?x2x8xf32>
  %56 = "stablehlo.convert"(%26) : (tensor<i32>) -> tensor<i32>
  %57 = "stablehlo.multiply"(%56, %23) : (tensor<i32>, tensor<i32>) -> tensor<i32>
  %58 = "stablehlo.reshape"(%57) : (tensor<i32>) -> tensor<1xi32>
  %59 = "stablehlo.concatenate"(%58, %21) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %60 = "stablehlo.dynamic_reshape"(%55, %59) : (tensor<?x2x8xf32>, tensor<2xi32>) -> tensor<?x8xf32>
  %61 = "stablehlo.broadcast_in_dim"(%22) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<f32>
  %62 = "stablehlo.add"(%57, %17) : (tensor<i32>, tensor<i32>) -> tensor<i32>
  %63 = "stablehlo.reshape"(%62) : (tensor<i32>) -> tensor<1xi32>
  %64 = "stablehlo.concatenate"(%63, %18) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %65 = "stablehlo.reshape"(%64) : (tensor<2xi32>) -> tensor<1x2xi32>
  %66 = "stablehlo.concatenate"(%18, %18) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %67 = "stablehlo.reshape"(%66) : (tensor<2xi32>) -> tensor<1x2xi32>
  %68 = "stablehlo.concatenate"(%65, %67) <{dimension = 0 : i64}> : (tensor<1x2xi32>, tensor<1x2xi32>) -> tensor<2x2xi32>
  %69 = "stablehlo.concatenate"(%58, %20) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %70 = "stablehlo.concatenate"(%20, %20) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %71 = "stablehlo.custom_call"(%60, %61, %69, %70, %70, %70, %68) <{api_version = 2 : i32, call_target_name = "stablehlo.dynamic_reduce_window", called_computations = [@reduce_window_float32_reducer]}> : (tensor<?x8xf32>, tensor<f32>, tensor<2xi32>, tensor<2xi32>, tensor<2xi32>, tensor<2xi32>, tensor<2x2xi32>) -> tensor<?x8xf32>
  %72 = "stablehlo.dynamic_reshape"(%71, %51) : (tensor<?x8xf32>, tensor<3xi32>) -> tensor<?x2x8xf32>
  %73 = "stablehlo.subtract"(%72, %55) : (tensor<?x2x8xf32>, tensor<?x2x8xf32>) -> tensor<?x2x8xf32>
  %74 = "stablehlo.multiply"(%73, %55) : (tensor<?x2x8xf32>, tensor<?x2x8xf32>) -> tensor<?x2x8xf32>
  %75 = "stablehlo.reduce"(%74, %22) <{dimensions = array<i64: 2>}> ({
  ^bb0(%arg14: tensor<f32>, %arg15: tensor<f32>):
    %96 = "stablehlo.add"(%arg14, %arg15) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%96) : (tensor<f32>) -> ()
  }) : (tensor<?x2x8xf32>, tensor<f32>) -> tensor<?x2xf32>
  %76 = "stablehlo.convert"(%75) : (tensor<?x2xf32>) -> tensor<?x2xi32>
  %77 = "stablehlo.dynamic_broadcast_in_dim"(%76, %48) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x2xi32>, tensor<3xi32>) -> tensor<?x2x1xi32>
  %78 = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<1x1x20xi32>
  %79 = "stablehlo.concatenate"(%29, %24, %25) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>, tensor<1xi32>) -> tensor<3xi32>
  %80 = "stablehlo.dynamic_broadcast_in_dim"(%77, %79) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<?x2x1xi32>, tensor<3xi32>) -> tensor<?x2x20xi32>
  %81 = "stablehlo.dynamic_broadcast_in_dim"(%78, %79) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x1x20xi32>, tensor<3xi32>) -> tensor<?x2x20xi32>
  %82 = "stablehlo.compare"(%80, %81) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<?x2x20xi32>, tensor<?x2x20xi32>) -> tensor<?x2x20xi1>
  %83 = "stablehlo.convert"(%82) : (tensor<?x2x20xi1>) -> tensor<?x2x20xf32>
  %84 = "stablehlo.dot_general"(%47, %55) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0, 1], rhs_batching_dimensions = [0, 1]>}> : (tensor<?x2xf32>, tensor<?x2x8xf32>) -> tensor<?x2x8xf32>
  %85 = "stablehlo.dot_general"(%84, %83) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<?x2x8xf32>, tensor<?x2x20xf32>) -> tensor<?x8x20xf32>
  %86 = "stablehlo.concatenate"(%29, %21, %25) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>, tensor<1xi32>) -> tensor<3xi32>
  %87 = "stablehlo.dynamic_broadcast_in_dim"(%22, %86) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<3xi32>) -> tensor<?x8x20xf32>
  %88 = "stablehlo.compare"(%85, %87) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction GT>}> : (tensor<?x8x20xf32>, tensor<?x8x20xf32>) -> tensor<?x8x20xi1>
  %89 = "stablehlo.convert"(%88) : (tensor<?x8x20xi1>) -> tensor<?x8x20xf32>
  %90 = "stablehlo.dot_general"(%89, %arg7) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [0], rhs_contracting_dimensions = [0]>}> : (tensor<?x8x20xf32>, tensor<?x48xf32>) -> tensor<8x20x48xf32>
  %91 = "stablehlo.dot_general"(%90, %arg12) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<8x20x48xf32>, tensor<8x48x80xf32>) -> tensor<8x20x80xf32>
  %92 = "stablehlo.broadcast_in_dim"(%22) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<8x20x80xf32>
  %93 = "stablehlo.maximum"(%91, %92) : (tensor<8x20x80xf32>, tensor<8x20x80xf32>) -> tensor<8x20x80xf32>
  %94 = "stablehlo.dot_general"(%93, %arg13) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<8x20x80xf32>, tensor<8x80x48xf32>) -> tensor<8x20x48xf32>
  %95 = "stablehlo.dot_general"(%85, %94) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [2, 1], rhs_contracting_dimensions = [1, 0]>}> : (tensor<?x8x20xf32>, tensor<8x20x48xf32>) -> tensor<?x48xf32>
  "func.return"(%95) : (tensor<?x48xf32>) -> ()
}) : () -> ()
"func.func"() <{function_type = (tensor<f32>, tensor<f32>) -> tensor<f32>, sym_name = "reduce_window_float32_reducer"}> ({
^bb0(%arg5: tensor<f32>, %arg6: tensor<f32>):
  %16 = "stablehlo.add"(%arg5, %arg6) : (tensor<f32>, tensor<f32>) -> tensor<f32>
  "func.return"(%16) : (tensor<f32>) -> ()
}) : () -> ()
