// RUN: moe-opt %s --allow-unregistered-dialect --moe-raise-routing | FileCheck %s

// Masks of MaxText: each of three sequences of five tokens has two slots for each
// of three experts. Places count from 1, so that slot 0 is cut off.

// CHECK-LABEL: func.func public @groups(
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate
// CHECK:         %[[ROWS:.*]] = tensor.collapse_shape %arg0
// CHECK:         %[[PARTS:.*]] = linalg.generic {{.*}} ins(%[[IDS]] : tensor<15x2xi32>)
// CHECK:           linalg.index 0
// CHECK:           arith.constant 5 : index
// CHECK:           arith.divui
// CHECK:           arith.constant 3 : i32
// CHECK:           arith.muli
// CHECK:           arith.addi
// CHECK:         %[[GROUPED:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %[[ROWS]], %[[PARTS]] experts(9) capacity(<fixed = 2>)
// CHECK:         %[[STARTS:.*]] = tensor.extract_slice %[[OFFSETS]][0] [4] [3] : tensor<10xi32> to tensor<4xi32>
// CHECK:         moe.grouped_matmul %[[GROUPED]] offsets(%[[STARTS]] : tensor<4xi32>) weights(%arg2 : tensor<3x4x6xf32>)
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[STARTS]] : tensor<4xi32>) weights(%arg3 : tensor<3x6x4xf32>)
// CHECK:         %[[SUM:.*]] = moe.combine %[[Y]], %[[PLACES]] weights(%[[W]] :
// CHECK:         tensor.expand_shape %[[SUM]] {{\[}}[0, 1], [2]]
// CHECK-NOT:     stablehlo.scatter

// One slot fewer than places that are kept; sums over the sequences; slot 0 is
// not cut off; results return from the experts that have the numbers of the
// sequences; rows of the sequences as those of the experts.
// RUN: sed 's/comparison_direction LE/comparison_direction LT/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/\[9, 0\], \[0, 0\]/[0, 0], [0, 0]/; s/dense<\[\[0, 0\]/dense<[[2, 0]/; s/1, 10, 1/3, 1, 1/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/start_indices = array<i64: 0, 0, 0, 1>/start_indices = array<i64: 0, 0, 0, 0>/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/rhs_batching_dimensions = \[1\]/rhs_batching_dimensions = [0]/; s/= \[2, 0\]/= [2, 1]/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/array<i64: 2, 0, 3, 1>/array<i64: 0, 2, 3, 1>/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE

// NONE:     moe.gate
// NONE-NOT: moe.{{dispatch|grouped_matmul|combine}}

"func.func"() <{function_type = (tensor<3x5x4xf32>, tensor<4x3xf32>, tensor<3x4x6xf32>, tensor<3x6x4xf32>) -> tensor<3x5x4xf32>, res_attrs = [{jax.result_info = "result"}], sym_name = "groups", sym_visibility = "public"}> ({
^bb0(%arg0: tensor<3x5x4xf32>, %arg1: tensor<4x3xf32>, %arg2: tensor<3x4x6xf32>, %arg3: tensor<3x6x4xf32>):
  %0 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %1 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %2 = "stablehlo.constant"() <{value = dense<3> : tensor<i32>}> : () -> tensor<i32>
  %3 = "stablehlo.constant"() <{value = dense<5> : tensor<i32>}> : () -> tensor<i32>
  %4 = "stablehlo.constant"() <{value = dense<2> : tensor<i32>}> : () -> tensor<i32>
  %5 = "stablehlo.reshape"(%arg0) : (tensor<3x5x4xf32>) -> tensor<15x4xf32>
  %6 = "stablehlo.dot_general"(%5, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<15x4xf32>, tensor<4x3xf32>) -> tensor<15x3xf32>
  %7:2 = "chlo.top_k"(%6) <{k = 2 : i64}> : (tensor<15x3xf32>) -> (tensor<15x2xf32>, tensor<15x2xi32>)
  %8 = "stablehlo.reshape"(%7#0) : (tensor<15x2xf32>) -> tensor<3x5x2xf32>
  %9 = "stablehlo.broadcast_in_dim"(%0) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<15x3xf32>
  %10 = "stablehlo.reshape"(%9) : (tensor<15x3xf32>) -> tensor<3x5x3xf32>
  %11 = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<3xi32>
  %12 = "stablehlo.broadcast_in_dim"(%11) <{broadcast_dimensions = array<i64: 0>}> : (tensor<3xi32>) -> tensor<3x1x1xi32>
  %13 = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<5xi32>
  %14 = "stablehlo.broadcast_in_dim"(%13) <{broadcast_dimensions = array<i64: 0>}> : (tensor<5xi32>) -> tensor<5x1xi32>
  %15 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<3x1x1xi32>
  %16 = "stablehlo.compare"(%12, %15) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<3x1x1xi32>, tensor<3x1x1xi32>) -> tensor<3x1x1xi1>
  %17 = "stablehlo.broadcast_in_dim"(%2) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<3x1x1xi32>
  %18 = "stablehlo.add"(%12, %17) : (tensor<3x1x1xi32>, tensor<3x1x1xi32>) -> tensor<3x1x1xi32>
  %19 = "stablehlo.select"(%16, %18, %12) : (tensor<3x1x1xi1>, tensor<3x1x1xi32>, tensor<3x1x1xi32>) -> tensor<3x1x1xi32>
  %20 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<5x1xi32>
  %21 = "stablehlo.compare"(%14, %20) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<5x1xi32>, tensor<5x1xi32>) -> tensor<5x1xi1>
  %22 = "stablehlo.broadcast_in_dim"(%3) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<5x1xi32>
  %23 = "stablehlo.add"(%14, %22) : (tensor<5x1xi32>, tensor<5x1xi32>) -> tensor<5x1xi32>
  %24 = "stablehlo.select"(%21, %23, %14) : (tensor<5x1xi1>, tensor<5x1xi32>, tensor<5x1xi32>) -> tensor<5x1xi32>
  %25 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<15x2xi32>
  %26 = "stablehlo.compare"(%7#1, %25) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<15x2xi32>, tensor<15x2xi32>) -> tensor<15x2xi1>
  %27 = "stablehlo.broadcast_in_dim"(%2) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<15x2xi32>
  %28 = "stablehlo.add"(%7#1, %27) : (tensor<15x2xi32>, tensor<15x2xi32>) -> tensor<15x2xi32>
  %29 = "stablehlo.select"(%26, %28, %7#1) : (tensor<15x2xi1>, tensor<15x2xi32>, tensor<15x2xi32>) -> tensor<15x2xi32>
  %30 = "stablehlo.broadcast_in_dim"(%19) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<3x1x1xi32>) -> tensor<3x5x2xi32>
  %31 = "stablehlo.broadcast_in_dim"(%24) <{broadcast_dimensions = array<i64: 1, 2>}> : (tensor<5x1xi32>) -> tensor<3x5x2xi32>
  %32 = "stablehlo.broadcast_in_dim"(%30) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<3x5x2xi32>) -> tensor<3x5x2x1xi32>
  %33 = "stablehlo.broadcast_in_dim"(%31) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<3x5x2xi32>) -> tensor<3x5x2x1xi32>
  %34 = "stablehlo.broadcast_in_dim"(%29) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<15x2xi32>) -> tensor<15x2x1xi32>
  %35 = "stablehlo.reshape"(%34) : (tensor<15x2x1xi32>) -> tensor<3x5x2x1xi32>
  %36 = "stablehlo.concatenate"(%32, %33, %35) <{dimension = 3 : i64}> : (tensor<3x5x2x1xi32>, tensor<3x5x2x1xi32>, tensor<3x5x2x1xi32>) -> tensor<3x5x2x3xi32>
  %37 = "stablehlo.scatter"(%10, %36, %8) <{scatter_dimension_numbers = #stablehlo.scatter<inserted_window_dims = [0, 1, 2], scatter_dims_to_operand_dims = [0, 1, 2], index_vector_dim = 3>}> ({
  ^bb0(%arg10: tensor<f32>, %arg11: tensor<f32>):
    "stablehlo.return"(%arg11) : (tensor<f32>) -> ()
  }) : (tensor<3x5x3xf32>, tensor<3x5x2x3xi32>, tensor<3x5x2xf32>) -> tensor<3x5x3xf32>
  %38 = "stablehlo.broadcast_in_dim"(%7#1) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<15x2xi32>) -> tensor<15x2x1xi32>
  %39 = "stablehlo.iota"() <{iota_dimension = 3 : i64}> : () -> tensor<1x1x1x3xi32>
  %40 = "stablehlo.broadcast_in_dim"(%38) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<15x2x1xi32>) -> tensor<15x2x3xi32>
  %41 = "stablehlo.reshape"(%39) : (tensor<1x1x1x3xi32>) -> tensor<1x1x3xi32>
  %42 = "stablehlo.broadcast_in_dim"(%41) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x1x3xi32>) -> tensor<15x2x3xi32>
  %43 = "stablehlo.compare"(%40, %42) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<15x2x3xi32>, tensor<15x2x3xi32>) -> tensor<15x2x3xi1>
  %44 = "stablehlo.convert"(%43) : (tensor<15x2x3xi1>) -> tensor<15x2x3xi32>
  %45 = "stablehlo.reshape"(%44) : (tensor<15x2x3xi32>) -> tensor<3x10x3xi32>
  %46 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<i32>
  %47 = "stablehlo.reduce_window"(%45, %46) <{padding = dense<[[0, 0], [9, 0], [0, 0]]> : tensor<3x2xi64>, window_dimensions = array<i64: 1, 10, 1>}> ({
  ^bb0(%arg8: tensor<i32>, %arg9: tensor<i32>):
    %86 = "stablehlo.add"(%arg8, %arg9) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%86) : (tensor<i32>) -> ()
  }) : (tensor<3x10x3xi32>, tensor<i32>) -> tensor<3x10x3xi32>
  %48 = "stablehlo.reshape"(%47) : (tensor<3x10x3xi32>) -> tensor<15x2x3xi32>
  %49 = "stablehlo.broadcast_in_dim"(%4) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<15x2x3xi32>
  %50 = "stablehlo.compare"(%48, %49) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LE>}> : (tensor<15x2x3xi32>, tensor<15x2x3xi32>) -> tensor<15x2x3xi1>
  %51 = "stablehlo.convert"(%50) : (tensor<15x2x3xi1>) -> tensor<15x2x3xi32>
  %52 = "stablehlo.multiply"(%44, %51) : (tensor<15x2x3xi32>, tensor<15x2x3xi32>) -> tensor<15x2x3xi32>
  %53 = "stablehlo.reduce"(%52, %1) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg6: tensor<i32>, %arg7: tensor<i32>):
    %85 = "stablehlo.add"(%arg6, %arg7) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%85) : (tensor<i32>) -> ()
  }) : (tensor<15x2x3xi32>, tensor<i32>) -> tensor<15x3xi32>
  %54 = "stablehlo.multiply"(%45, %47) : (tensor<3x10x3xi32>, tensor<3x10x3xi32>) -> tensor<3x10x3xi32>
  %55 = "stablehlo.reshape"(%54) : (tensor<3x10x3xi32>) -> tensor<15x2x3xi32>
  %56 = "stablehlo.reduce"(%55, %1) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg4: tensor<i32>, %arg5: tensor<i32>):
    %84 = "stablehlo.add"(%arg4, %arg5) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%84) : (tensor<i32>) -> ()
  }) : (tensor<15x2x3xi32>, tensor<i32>) -> tensor<15x3xi32>
  %57 = "stablehlo.multiply"(%56, %53) : (tensor<15x3xi32>, tensor<15x3xi32>) -> tensor<15x3xi32>
  %58 = "stablehlo.broadcast_in_dim"(%57) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<15x3xi32>) -> tensor<15x3x1xi32>
  %59 = "stablehlo.broadcast_in_dim"(%58) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<15x3x1xi32>) -> tensor<15x3x3xi32>
  %60 = "stablehlo.broadcast_in_dim"(%41) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x1x3xi32>) -> tensor<15x3x3xi32>
  %61 = "stablehlo.compare"(%59, %60) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<15x3x3xi32>, tensor<15x3x3xi32>) -> tensor<15x3x3xi1>
  %62 = "stablehlo.convert"(%61) : (tensor<15x3x3xi1>) -> tensor<15x3x3xi32>
  %63 = "stablehlo.convert"(%53) : (tensor<15x3xi32>) -> tensor<15x3xf32>
  %64 = "stablehlo.reshape"(%37) : (tensor<3x5x3xf32>) -> tensor<15x3xf32>
  %65 = "stablehlo.multiply"(%64, %63) : (tensor<15x3xf32>, tensor<15x3xf32>) -> tensor<15x3xf32>
  %66 = "stablehlo.broadcast_in_dim"(%65) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<15x3xf32>) -> tensor<15x3x1xf32>
  %67 = "stablehlo.convert"(%62) : (tensor<15x3x3xi32>) -> tensor<15x3x3xf32>
  %68 = "stablehlo.broadcast_in_dim"(%66) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<15x3x1xf32>) -> tensor<15x3x3xf32>
  %69 = "stablehlo.multiply"(%68, %67) : (tensor<15x3x3xf32>, tensor<15x3x3xf32>) -> tensor<15x3x3xf32>
  %70 = "stablehlo.reshape"(%69) : (tensor<15x3x3xf32>) -> tensor<3x5x3x3xf32>
  %71 = "stablehlo.slice"(%70) <{limit_indices = array<i64: 3, 5, 3, 3>, start_indices = array<i64: 0, 0, 0, 1>, strides = array<i64: 1, 1, 1, 1>}> : (tensor<3x5x3x3xf32>) -> tensor<3x5x3x2xf32>
  %72 = "stablehlo.broadcast_in_dim"(%0) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<15x3x2xf32>
  %73 = "stablehlo.reshape"(%71) : (tensor<3x5x3x2xf32>) -> tensor<15x3x2xf32>
  %74 = "stablehlo.compare"(%73, %72) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<15x3x2xf32>, tensor<15x3x2xf32>) -> tensor<15x3x2xi1>
  %75 = "stablehlo.convert"(%74) : (tensor<15x3x2xi1>) -> tensor<15x3x2xi1>
  %76 = "stablehlo.convert"(%75) : (tensor<15x3x2xi1>) -> tensor<15x3x2xf32>
  %77 = "stablehlo.reshape"(%76) : (tensor<15x3x2xf32>) -> tensor<3x5x3x2xf32>
  %78 = "stablehlo.dot_general"(%arg0, %77) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<3x5x4xf32>, tensor<3x5x3x2xf32>) -> tensor<3x4x3x2xf32>
  %79 = "stablehlo.transpose"(%78) <{permutation = array<i64: 2, 0, 3, 1>}> : (tensor<3x4x3x2xf32>) -> tensor<3x3x2x4xf32>
  %80 = "stablehlo.dot_general"(%79, %arg2) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [3], rhs_contracting_dimensions = [1]>}> : (tensor<3x3x2x4xf32>, tensor<3x4x6xf32>) -> tensor<3x3x2x6xf32>
  %81 = "stablehlo.tanh"(%80) : (tensor<3x3x2x6xf32>) -> tensor<3x3x2x6xf32>
  %82 = "stablehlo.dot_general"(%81, %arg3) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [3], rhs_contracting_dimensions = [1]>}> : (tensor<3x3x2x6xf32>, tensor<3x6x4xf32>) -> tensor<3x3x2x4xf32>
  %83 = "stablehlo.dot_general"(%71, %82) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [1], lhs_contracting_dimensions = [3, 2], rhs_contracting_dimensions = [2, 0]>}> : (tensor<3x5x3x2xf32>, tensor<3x3x2x4xf32>) -> tensor<3x5x4xf32>
  "func.return"(%83) : (tensor<3x5x4xf32>) -> ()
}) : () -> ()
