// RUN: moe-opt %s --allow-unregistered-dialect --moe-raise-routing | FileCheck %s

// V-MoE's dispatcher by indices, vmapped over two groups of tokens with slots of
// their own: the expert and the place of each choice as one vector, all first
// choices before all second ones; those beyond the capacity are dropped by the
// scatter and filled with 0 by the gather.

// CHECK-LABEL: func.func @groups(
// CHECK-SAME:      %[[X:.*]]: tensor<14x16xf32>, %[[DOWN:.*]]: tensor<3x24x16xf32>, %{{.*}}: tensor<16x3xf32>, %[[UP:.*]]: tensor<3x16x24xf32>)
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate
// CHECK:         %[[PARTS:.*]] = linalg.generic {{.*}} ins(%[[IDS]] : tensor<14x2xi32>)
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %[[X]], %[[PARTS]] experts(6) capacity(<fixed = 4>) priority(choice)
// CHECK:         %[[OF:.*]] = tensor.extract_slice %[[OFFSETS]][0] [4] [2]
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OF]] : tensor<4xi32>) weights(%[[UP]] :
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OF]] : tensor<4xi32>) weights(%[[DOWN]] :
// CHECK:         %[[SUM:.*]] = moe.combine %[[Y]], %[[PLACES]] weights(%[[W]] :
// CHECK:         return %[[SUM]]

// A test of fewer slots, or of fewer experts; another fill; places that are not
// counted from 0; slots of the batch in another order.
// RUN: sed 's/dense<\[2, 3\]>/dense<[2, 2]>/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/dense<\[2, 3\]>/dense<[1, 3]>/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/%86 = "stablehlo.broadcast_in_dim"(%[0-9]*)/%86 = "stablehlo.broadcast_in_dim"(%13)/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/%42 = "stablehlo.subtract"/%42 = "stablehlo.add"/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/scatter_indices_batching_dims = \[0\], scatter_dims_to_operand_dims = \[1, 2\]/scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [2, 1]/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE

// NONE:     moe.gate
// NONE-NOT: moe.dispatch

"func.func"() <{function_type = (tensor<14x16xf32>, tensor<3x24x16xf32>, tensor<16x3xf32>, tensor<3x16x24xf32>) -> tensor<14x16xf32>, sym_name = "groups"}> ({
^bb0(%arg5: tensor<14x16xf32>, %arg6: tensor<3x24x16xf32>, %arg7: tensor<16x3xf32>, %arg8: tensor<3x16x24xf32>):
  %5 = "stablehlo.constant"() <{value = dense<true> : tensor<i1>}> : () -> tensor<i1>
  %6 = "stablehlo.constant"() <{value = dense<[2, 3]> : tensor<2xi32>}> : () -> tensor<2xi32>
  %7 = "stablehlo.constant"() <{value = dense<4> : tensor<i32>}> : () -> tensor<i32>
  %8 = "stablehlo.constant"() <{value = dense<3> : tensor<i32>}> : () -> tensor<i32>
  %9 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %10 = "stablehlo.constant"() <{value = dense<-2147483648> : tensor<i32>}> : () -> tensor<i32>
  %11 = "stablehlo.constant"() <{value = dense<1> : tensor<i32>}> : () -> tensor<i32>
  %12 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %13 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %14 = "stablehlo.dot_general"(%arg5, %arg7) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<14x16xf32>, tensor<16x3xf32>) -> tensor<14x3xf32>
  %15 = "stablehlo.reduce"(%14, %13) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg19: tensor<f32>, %arg20: tensor<f32>):
    %95 = "stablehlo.maximum"(%arg19, %arg20) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%95) : (tensor<f32>) -> ()
  }) : (tensor<14x3xf32>, tensor<f32>) -> tensor<14xf32>
  %16 = "stablehlo.broadcast_in_dim"(%13) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<14xf32>
  %17 = "stablehlo.maximum"(%16, %15) : (tensor<14xf32>, tensor<14xf32>) -> tensor<14xf32>
  %18 = "stablehlo.broadcast_in_dim"(%17) <{broadcast_dimensions = array<i64: 0>}> : (tensor<14xf32>) -> tensor<14x1xf32>
  %19 = "stablehlo.broadcast_in_dim"(%18) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<14x1xf32>) -> tensor<14x3xf32>
  %20 = "stablehlo.subtract"(%14, %19) : (tensor<14x3xf32>, tensor<14x3xf32>) -> tensor<14x3xf32>
  %21 = "stablehlo.exponential"(%20) : (tensor<14x3xf32>) -> tensor<14x3xf32>
  %22 = "stablehlo.reduce"(%21, %12) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg17: tensor<f32>, %arg18: tensor<f32>):
    %94 = "stablehlo.add"(%arg17, %arg18) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%94) : (tensor<f32>) -> ()
  }) : (tensor<14x3xf32>, tensor<f32>) -> tensor<14xf32>
  %23 = "stablehlo.broadcast_in_dim"(%22) <{broadcast_dimensions = array<i64: 0>}> : (tensor<14xf32>) -> tensor<14x1xf32>
  %24 = "stablehlo.broadcast_in_dim"(%23) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<14x1xf32>) -> tensor<14x3xf32>
  %25 = "stablehlo.divide"(%21, %24) : (tensor<14x3xf32>, tensor<14x3xf32>) -> tensor<14x3xf32>
  %26:2 = "stablehlo.composite"(%25) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<14x3xf32>) -> (tensor<14x2xf32>, tensor<14x2xi32>)
  %27 = "stablehlo.reshape"(%26#1) : (tensor<14x2xi32>) -> tensor<2x7x2xi32>
  %28 = "stablehlo.reshape"(%arg5) : (tensor<14x16xf32>) -> tensor<2x7x16xf32>
  %29 = "stablehlo.transpose"(%27) <{permutation = array<i64: 0, 2, 1>}> : (tensor<2x7x2xi32>) -> tensor<2x2x7xi32>
  %30 = "stablehlo.reshape"(%29) : (tensor<2x2x7xi32>) -> tensor<2x14xi32>
  %31 = "stablehlo.broadcast_in_dim"(%30) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<2x14xi32>) -> tensor<2x14x1xi32>
  %32 = "stablehlo.iota"() <{iota_dimension = 1 : i64}> : () -> tensor<1x3xi32>
  %33 = "stablehlo.broadcast_in_dim"(%32) <{broadcast_dimensions = array<i64: 1, 2>}> : (tensor<1x3xi32>) -> tensor<1x1x3xi32>
  %34 = "stablehlo.broadcast_in_dim"(%31) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<2x14x1xi32>) -> tensor<2x14x3xi32>
  %35 = "stablehlo.broadcast_in_dim"(%33) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x1x3xi32>) -> tensor<2x14x3xi32>
  %36 = "stablehlo.compare"(%34, %35) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<2x14x3xi32>, tensor<2x14x3xi32>) -> tensor<2x14x3xi1>
  %37 = "stablehlo.convert"(%36) : (tensor<2x14x3xi1>) -> tensor<2x14x3xi32>
  %38 = "stablehlo.broadcast_in_dim"(%9) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<i32>
  %39 = "stablehlo.reduce_window"(%37, %38) <{padding = dense<[[0, 0], [13, 0], [0, 0]]> : tensor<3x2xi64>, window_dimensions = array<i64: 1, 14, 1>}> ({
  ^bb0(%arg15: tensor<i32>, %arg16: tensor<i32>):
    %93 = "stablehlo.add"(%arg15, %arg16) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%93) : (tensor<i32>) -> ()
  }) : (tensor<2x14x3xi32>, tensor<i32>) -> tensor<2x14x3xi32>
  %40 = "stablehlo.multiply"(%39, %37) : (tensor<2x14x3xi32>, tensor<2x14x3xi32>) -> tensor<2x14x3xi32>
  %41 = "stablehlo.broadcast_in_dim"(%11) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<2x14x3xi32>
  %42 = "stablehlo.subtract"(%40, %41) : (tensor<2x14x3xi32>, tensor<2x14x3xi32>) -> tensor<2x14x3xi32>
  %43 = "stablehlo.reduce"(%42, %10) <{dimensions = array<i64: 2>}> ({
  ^bb0(%arg13: tensor<i32>, %arg14: tensor<i32>):
    %92 = "stablehlo.maximum"(%arg13, %arg14) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%92) : (tensor<i32>) -> ()
  }) : (tensor<2x14x3xi32>, tensor<i32>) -> tensor<2x14xi32>
  %44 = "stablehlo.reshape"(%43) : (tensor<2x14xi32>) -> tensor<2x2x7xi32>
  %45 = "stablehlo.transpose"(%44) <{permutation = array<i64: 0, 2, 1>}> : (tensor<2x2x7xi32>) -> tensor<2x7x2xi32>
  %46 = "stablehlo.broadcast_in_dim"(%27) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<2x7x2xi32>) -> tensor<2x7x2x1xi32>
  %47 = "stablehlo.broadcast_in_dim"(%45) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<2x7x2xi32>) -> tensor<2x7x2x1xi32>
  %48 = "stablehlo.concatenate"(%46, %47) <{dimension = 3 : i64}> : (tensor<2x7x2x1xi32>, tensor<2x7x2x1xi32>) -> tensor<2x7x2x2xi32>
  %49 = "stablehlo.broadcast_in_dim"(%12) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<3x4x16xf32>
  %50 = "stablehlo.slice"(%48) <{limit_indices = array<i64: 2, 7, 2, 1>, start_indices = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1, 1, 1>}> : (tensor<2x7x2x2xi32>) -> tensor<2x7x2x1xi32>
  %51 = "stablehlo.reshape"(%50) : (tensor<2x7x2x1xi32>) -> tensor<2x7x2xi32>
  %52 = "stablehlo.slice"(%48) <{limit_indices = array<i64: 2, 7, 2, 2>, start_indices = array<i64: 0, 0, 0, 1>, strides = array<i64: 1, 1, 1, 1>}> : (tensor<2x7x2x2xi32>) -> tensor<2x7x2x1xi32>
  %53 = "stablehlo.reshape"(%52) : (tensor<2x7x2x1xi32>) -> tensor<2x7x2xi32>
  %54 = "stablehlo.broadcast_in_dim"(%28) <{broadcast_dimensions = array<i64: 0, 1, 3>}> : (tensor<2x7x16xf32>) -> tensor<2x7x1x16xf32>
  %55 = "stablehlo.broadcast_in_dim"(%54) <{broadcast_dimensions = array<i64: 0, 1, 2, 3>}> : (tensor<2x7x1x16xf32>) -> tensor<2x7x2x16xf32>
  %56 = "stablehlo.broadcast_in_dim"(%9) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<2x7x2xi32>
  %57 = "stablehlo.compare"(%51, %56) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<2x7x2xi32>, tensor<2x7x2xi32>) -> tensor<2x7x2xi1>
  %58 = "stablehlo.broadcast_in_dim"(%8) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<2x7x2xi32>
  %59 = "stablehlo.add"(%51, %58) : (tensor<2x7x2xi32>, tensor<2x7x2xi32>) -> tensor<2x7x2xi32>
  %60 = "stablehlo.select"(%57, %59, %51) : (tensor<2x7x2xi1>, tensor<2x7x2xi32>, tensor<2x7x2xi32>) -> tensor<2x7x2xi32>
  %61 = "stablehlo.compare"(%53, %56) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<2x7x2xi32>, tensor<2x7x2xi32>) -> tensor<2x7x2xi1>
  %62 = "stablehlo.broadcast_in_dim"(%7) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<2x7x2xi32>
  %63 = "stablehlo.add"(%53, %62) : (tensor<2x7x2xi32>, tensor<2x7x2xi32>) -> tensor<2x7x2xi32>
  %64 = "stablehlo.select"(%61, %63, %53) : (tensor<2x7x2xi1>, tensor<2x7x2xi32>, tensor<2x7x2xi32>) -> tensor<2x7x2xi32>
  %65 = "stablehlo.broadcast_in_dim"(%60) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<2x7x2xi32>) -> tensor<2x7x2x1xi32>
  %66 = "stablehlo.broadcast_in_dim"(%64) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<2x7x2xi32>) -> tensor<2x7x2x1xi32>
  %67 = "stablehlo.concatenate"(%65, %66) <{dimension = 3 : i64}> : (tensor<2x7x2x1xi32>, tensor<2x7x2x1xi32>) -> tensor<2x7x2x2xi32>
  %68 = "stablehlo.broadcast_in_dim"(%49) <{broadcast_dimensions = array<i64: 1, 2, 3>}> : (tensor<3x4x16xf32>) -> tensor<2x3x4x16xf32>
  %69 = "stablehlo.scatter"(%68, %67, %55) <{scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [3], inserted_window_dims = [1, 2], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1, 2], index_vector_dim = 3>}> ({
  ^bb0(%arg11: tensor<f32>, %arg12: tensor<f32>):
    %91 = "stablehlo.add"(%arg11, %arg12) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%91) : (tensor<f32>) -> ()
  }) : (tensor<2x3x4x16xf32>, tensor<2x7x2x2xi32>, tensor<2x7x2x16xf32>) -> tensor<2x3x4x16xf32>
  %70 = "stablehlo.transpose"(%69) <{permutation = array<i64: 1, 0, 2, 3>}> : (tensor<2x3x4x16xf32>) -> tensor<3x2x4x16xf32>
  %71 = "stablehlo.reshape"(%70) : (tensor<3x2x4x16xf32>) -> tensor<3x8x16xf32>
  %72 = "stablehlo.dot_general"(%71, %arg8) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<3x8x16xf32>, tensor<3x16x24xf32>) -> tensor<3x8x24xf32>
  %73 = "stablehlo.tanh"(%72) : (tensor<3x8x24xf32>) -> tensor<3x8x24xf32>
  %74 = "stablehlo.dot_general"(%73, %arg6) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<3x8x24xf32>, tensor<3x24x16xf32>) -> tensor<3x8x16xf32>
  %75 = "stablehlo.reshape"(%74) : (tensor<3x8x16xf32>) -> tensor<3x2x4x16xf32>
  %76 = "stablehlo.transpose"(%75) <{permutation = array<i64: 1, 0, 2, 3>}> : (tensor<3x2x4x16xf32>) -> tensor<2x3x4x16xf32>
  %77 = "stablehlo.broadcast_in_dim"(%9) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<2x7x2x2xi32>
  %78 = "stablehlo.compare"(%67, %77) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction GE>}> : (tensor<2x7x2x2xi32>, tensor<2x7x2x2xi32>) -> tensor<2x7x2x2xi1>
  %79 = "stablehlo.broadcast_in_dim"(%6) <{broadcast_dimensions = array<i64: 3>}> : (tensor<2xi32>) -> tensor<1x1x1x2xi32>
  %80 = "stablehlo.broadcast_in_dim"(%79) <{broadcast_dimensions = array<i64: 0, 1, 2, 3>}> : (tensor<1x1x1x2xi32>) -> tensor<2x7x2x2xi32>
  %81 = "stablehlo.compare"(%67, %80) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LE>}> : (tensor<2x7x2x2xi32>, tensor<2x7x2x2xi32>) -> tensor<2x7x2x2xi1>
  %82 = "stablehlo.and"(%78, %81) : (tensor<2x7x2x2xi1>, tensor<2x7x2x2xi1>) -> tensor<2x7x2x2xi1>
  %83 = "stablehlo.reduce"(%82, %5) <{dimensions = array<i64: 3>}> ({
  ^bb0(%arg9: tensor<i1>, %arg10: tensor<i1>):
    %90 = "stablehlo.and"(%arg9, %arg10) : (tensor<i1>, tensor<i1>) -> tensor<i1>
    "stablehlo.return"(%90) : (tensor<i1>) -> ()
  }) : (tensor<2x7x2x2xi1>, tensor<i1>) -> tensor<2x7x2xi1>
  %84 = "stablehlo.gather"(%76, %67) <{dimension_numbers = #stablehlo.gather<offset_dims = [3], collapsed_slice_dims = [1, 2], operand_batching_dims = [0], start_indices_batching_dims = [0], start_index_map = [1, 2], index_vector_dim = 3>, slice_sizes = array<i64: 1, 1, 1, 16>}> : (tensor<2x3x4x16xf32>, tensor<2x7x2x2xi32>) -> tensor<2x7x2x16xf32>
  %85 = "stablehlo.broadcast_in_dim"(%83) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<2x7x2xi1>) -> tensor<2x7x2x16xi1>
  %86 = "stablehlo.broadcast_in_dim"(%12) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<2x7x2x16xf32>
  %87 = "stablehlo.select"(%85, %84, %86) : (tensor<2x7x2x16xi1>, tensor<2x7x2x16xf32>, tensor<2x7x2x16xf32>) -> tensor<2x7x2x16xf32>
  %88 = "stablehlo.reshape"(%87) : (tensor<2x7x2x16xf32>) -> tensor<14x2x16xf32>
  %89 = "stablehlo.dot_general"(%88, %26#0) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<14x2x16xf32>, tensor<14x2xf32>) -> tensor<14x16xf32>
  "func.return"(%89) : (tensor<14x16xf32>) -> ()
}) : () -> ()
