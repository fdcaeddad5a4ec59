// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-routing --moe-raise-grouped | FileCheck %s

// All experts on all tokens, and then the results of the chosen ones.

// CHECK-LABEL: func.func @taken(
// CHECK-SAME:      %[[X:[^ ]*]]: tensor<?x16xf32>, %{{[^ ]*}}: tensor<16x4xf32>, %[[UP:[^ ]*]]: tensor<4x16x24xf32>, %[[DOWN:[^ ]*]]: tensor<4x24x16xf32>
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate %{{.*}} top_k(2) score(none)
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %[[X]], %[[IDS]] experts(4)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[UP]] :
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[DOWN]] :
// CHECK:         moe.combine %[[Y]], %[[PLACES]] weights(%[[W]] :
"func.func"() <{function_type = (tensor<?x16xf32>, tensor<16x4xf32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>) -> tensor<?x16xf32>, sym_name = "taken"}> ({
^bb0(%arg0: tensor<?x16xf32>, %arg1: tensor<16x4xf32>, %arg2: tensor<4x16x24xf32>, %arg3: tensor<4x24x16xf32>):
  %0 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %1 = "stablehlo.constant"() <{value = dense<4> : tensor<i32>}> : () -> tensor<i32>
  %2 = "stablehlo.constant"() <{value = dense<false> : tensor<1xi1>}> : () -> tensor<1xi1>
  %3 = "stablehlo.constant"() <{value = dense<16> : tensor<i32>}> : () -> tensor<i32>
  %4 = "stablehlo.constant"() <{value = dense<3> : tensor<i32>}> : () -> tensor<i32>
  %5 = "stablehlo.constant"() <{value = dense<true> : tensor<i1>}> : () -> tensor<i1>
  %6 = "stablehlo.constant"() <{value = dense<0x7FC00000> : tensor<f32>}> : () -> tensor<f32>
  %7 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %8 = "stablehlo.constant"() <{value = dense<1> : tensor<1xi32>}> : () -> tensor<1xi32>
  %9 = "stablehlo.constant"() <{value = dense<4> : tensor<1xi32>}> : () -> tensor<1xi32>
  %10 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %11 = "stablehlo.constant"() <{value = dense<2> : tensor<1xi32>}> : () -> tensor<1xi32>
  %12 = "stablehlo.constant"() <{value = dense<16> : tensor<1xi32>}> : () -> tensor<1xi32>
  %13 = "stablehlo.get_dimension_size"(%arg0) <{dimension = 0 : i64}> : (tensor<?x16xf32>) -> tensor<i32>
  %14 = "stablehlo.dot_general"(%arg0, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<?x16xf32>, tensor<16x4xf32>) -> tensor<?x4xf32>
  %15 = "stablehlo.reduce"(%14, %7) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg10: tensor<f32>, %arg11: tensor<f32>):
    %70 = "stablehlo.maximum"(%arg10, %arg11) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%70) : (tensor<f32>) -> ()
  }) : (tensor<?x4xf32>, tensor<f32>) -> tensor<?xf32>
  %16 = "stablehlo.reshape"(%13) : (tensor<i32>) -> tensor<1xi32>
  %17 = "stablehlo.dynamic_broadcast_in_dim"(%7, %16) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<1xi32>) -> tensor<?xf32>
  %18 = "stablehlo.maximum"(%17, %15) : (tensor<?xf32>, tensor<?xf32>) -> tensor<?xf32>
  %19 = "stablehlo.concatenate"(%16, %8) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %20 = "stablehlo.dynamic_broadcast_in_dim"(%18, %19) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xf32>, tensor<2xi32>) -> tensor<?x1xf32>
  %21 = "stablehlo.concatenate"(%16, %9) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %22 = "stablehlo.dynamic_broadcast_in_dim"(%20, %21) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x4xf32>
  %23 = "stablehlo.subtract"(%14, %22) : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %24 = "stablehlo.exponential"(%23) : (tensor<?x4xf32>) -> tensor<?x4xf32>
  %25 = "stablehlo.reduce"(%24, %10) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg8: tensor<f32>, %arg9: tensor<f32>):
    %69 = "stablehlo.add"(%arg8, %arg9) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%69) : (tensor<f32>) -> ()
  }) : (tensor<?x4xf32>, tensor<f32>) -> tensor<?xf32>
  %26 = "stablehlo.dynamic_broadcast_in_dim"(%25, %19) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xf32>, tensor<2xi32>) -> tensor<?x1xf32>
  %27 = "stablehlo.dynamic_broadcast_in_dim"(%26, %21) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x4xf32>
  %28 = "stablehlo.divide"(%24, %27) : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %29:2 = "stablehlo.composite"(%28) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<?x4xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>)
  %30 = "stablehlo.dot_general"(%arg0, %arg2) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<?x16xf32>, tensor<4x16x24xf32>) -> tensor<?x4x24xf32>
  %31 = "stablehlo.tanh"(%30) : (tensor<?x4x24xf32>) -> tensor<?x4x24xf32>
  %32 = "stablehlo.dot_general"(%arg3, %31) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [1], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [2]>}> : (tensor<4x24x16xf32>, tensor<?x4x24xf32>) -> tensor<4x16x?xf32>
  %33 = "stablehlo.transpose"(%32) <{permutation = array<i64: 2, 0, 1>}> : (tensor<4x16x?xf32>) -> tensor<?x4x16xf32>
  %34 = "stablehlo.concatenate"(%16, %11, %8) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>, tensor<1xi32>) -> tensor<3xi32>
  %35 = "stablehlo.dynamic_broadcast_in_dim"(%29#1, %34) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x2xi32>, tensor<3xi32>) -> tensor<?x2x1xi32>
  %36 = "stablehlo.dynamic_broadcast_in_dim"(%0, %34) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<3xi32>) -> tensor<?x2x1xi32>
  %37 = "stablehlo.compare"(%35, %36) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<?x2x1xi32>, tensor<?x2x1xi32>) -> tensor<?x2x1xi1>
  %38 = "stablehlo.dynamic_broadcast_in_dim"(%1, %34) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<3xi32>) -> tensor<?x2x1xi32>
  %39 = "stablehlo.add"(%35, %38) : (tensor<?x2x1xi32>, tensor<?x2x1xi32>) -> tensor<?x2x1xi32>
  %40 = "stablehlo.select"(%37, %39, %35) : (tensor<?x2x1xi1>, tensor<?x2x1xi32>, tensor<?x2x1xi32>) -> tensor<?x2x1xi32>
  %41 = "stablehlo.convert"(%13) : (tensor<i32>) -> tensor<i32>
  %42 = "stablehlo.broadcast_in_dim"(%41) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<1xi32>
  %43 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<1xi32>
  %44 = "stablehlo.broadcast_in_dim"(%3) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<1xi32>
  %45 = "stablehlo.concatenate"(%42, %43, %44) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>, tensor<1xi32>) -> tensor<3xi32>
  %46 = "stablehlo.broadcast_in_dim"(%4) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<1xi32>
  %47 = "stablehlo.add"(%8, %46) : (tensor<1xi32>, tensor<1xi32>) -> tensor<1xi32>
  %48 = "stablehlo.select"(%2, %47, %8) : (tensor<1xi1>, tensor<1xi32>, tensor<1xi32>) -> tensor<1xi32>
  %49 = "stablehlo.broadcast_in_dim"(%48) <{broadcast_dimensions = array<i64: 0>}> : (tensor<1xi32>) -> tensor<1x1xi32>
  %50 = "stablehlo.gather"(%45, %49) <{dimension_numbers = #stablehlo.gather<collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1>}> : (tensor<3xi32>, tensor<1x1xi32>) -> tensor<1xi32>
  %51 = "stablehlo.subtract"(%50, %8) : (tensor<1xi32>, tensor<1xi32>) -> tensor<1xi32>
  %52 = "stablehlo.compare"(%40, %36) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction GE>}> : (tensor<?x2x1xi32>, tensor<?x2x1xi32>) -> tensor<?x2x1xi1>
  %53 = "stablehlo.broadcast_in_dim"(%51) <{broadcast_dimensions = array<i64: 2>}> : (tensor<1xi32>) -> tensor<1x1x1xi32>
  %54 = "stablehlo.dynamic_broadcast_in_dim"(%53, %34) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x1x1xi32>, tensor<3xi32>) -> tensor<?x2x1xi32>
  %55 = "stablehlo.compare"(%40, %54) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LE>}> : (tensor<?x2x1xi32>, tensor<?x2x1xi32>) -> tensor<?x2x1xi1>
  %56 = "stablehlo.and"(%52, %55) : (tensor<?x2x1xi1>, tensor<?x2x1xi1>) -> tensor<?x2x1xi1>
  %57 = "stablehlo.reduce"(%56, %5) <{dimensions = array<i64: 2>}> ({
  ^bb0(%arg6: tensor<i1>, %arg7: tensor<i1>):
    %68 = "stablehlo.and"(%arg6, %arg7) : (tensor<i1>, tensor<i1>) -> tensor<i1>
    "stablehlo.return"(%68) : (tensor<i1>) -> ()
  }) : (tensor<?x2x1xi1>, tensor<i1>) -> tensor<?x2xi1>
  %58 = "stablehlo.gather"(%33, %40) <{dimension_numbers = #stablehlo.gather<offset_dims = [2], collapsed_slice_dims = [1], operand_batching_dims = [0], start_indices_batching_dims = [0], start_index_map = [1], index_vector_dim = 2>, slice_sizes = array<i64: 1, 1, 16>}> : (tensor<?x4x16xf32>, tensor<?x2x1xi32>) -> tensor<?x2x16xf32>
  %59 = "stablehlo.concatenate"(%16, %11, %12) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>, tensor<1xi32>) -> tensor<3xi32>
  %60 = "stablehlo.dynamic_broadcast_in_dim"(%57, %59) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x2xi1>, tensor<3xi32>) -> tensor<?x2x16xi1>
  %61 = "stablehlo.dynamic_broadcast_in_dim"(%6, %59) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<3xi32>) -> tensor<?x2x16xf32>
  %62 = "stablehlo.select"(%60, %58, %61) : (tensor<?x2x16xi1>, tensor<?x2x16xf32>, tensor<?x2x16xf32>) -> tensor<?x2x16xf32>
  %63 = "stablehlo.dynamic_broadcast_in_dim"(%29#0, %34) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x2xf32>, tensor<3xi32>) -> tensor<?x2x1xf32>
  %64 = "stablehlo.dynamic_broadcast_in_dim"(%63, %59) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<?x2x1xf32>, tensor<3xi32>) -> tensor<?x2x16xf32>
  %65 = "stablehlo.multiply"(%62, %64) : (tensor<?x2x16xf32>, tensor<?x2x16xf32>) -> tensor<?x2x16xf32>
  %66 = "stablehlo.reduce"(%65, %10) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg4: tensor<f32>, %arg5: tensor<f32>):
    %67 = "stablehlo.add"(%arg4, %arg5) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%67) : (tensor<f32>) -> ()
  }) : (tensor<?x2x16xf32>, tensor<f32>) -> tensor<?x16xf32>
  "func.return"(%66) : (tensor<?x16xf32>) -> ()
}) : () -> ()

// -----

// By two indices, of which one counts the tokens; the experts are first.

// CHECK-LABEL: func.func @indexed(
// CHECK-SAME:      %[[X:[^ ]*]]: tensor<10x16xf32>, %{{[^ ]*}}: tensor<16x4xf32>, %[[UP:[^ ]*]]: tensor<4x16x24xf32>, %[[DOWN:[^ ]*]]: tensor<4x24x16xf32>
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate %{{.*}} top_k(2) score(none)
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %[[X]], %[[IDS]] experts(4)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[UP]] :
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[DOWN]] :
// CHECK:         moe.combine %[[Y]], %[[PLACES]] weights(%[[W]] :
"func.func"() <{function_type = (tensor<10x16xf32>, tensor<16x4xf32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>) -> tensor<10x16xf32>, sym_name = "indexed"}> ({
^bb0(%arg0: tensor<10x16xf32>, %arg1: tensor<16x4xf32>, %arg2: tensor<4x16x24xf32>, %arg3: tensor<4x24x16xf32>):
  %0 = "stablehlo.constant"() <{value = dense<10> : tensor<i32>}> : () -> tensor<i32>
  %1 = "stablehlo.constant"() <{value = dense<4> : tensor<i32>}> : () -> tensor<i32>
  %2 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %3 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %4 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %5 = "stablehlo.dot_general"(%arg0, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<10x16xf32>, tensor<16x4xf32>) -> tensor<10x4xf32>
  %6 = "stablehlo.reduce"(%5, %4) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg6: tensor<f32>, %arg7: tensor<f32>):
    %40 = "stablehlo.maximum"(%arg6, %arg7) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%40) : (tensor<f32>) -> ()
  }) : (tensor<10x4xf32>, tensor<f32>) -> tensor<10xf32>
  %7 = "stablehlo.broadcast_in_dim"(%4) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<10xf32>
  %8 = "stablehlo.maximum"(%7, %6) : (tensor<10xf32>, tensor<10xf32>) -> tensor<10xf32>
  %9 = "stablehlo.broadcast_in_dim"(%8) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xf32>) -> tensor<10x1xf32>
  %10 = "stablehlo.broadcast_in_dim"(%9) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xf32>) -> tensor<10x4xf32>
  %11 = "stablehlo.subtract"(%5, %10) : (tensor<10x4xf32>, tensor<10x4xf32>) -> tensor<10x4xf32>
  %12 = "stablehlo.exponential"(%11) : (tensor<10x4xf32>) -> tensor<10x4xf32>
  %13 = "stablehlo.reduce"(%12, %3) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg4: tensor<f32>, %arg5: tensor<f32>):
    %39 = "stablehlo.add"(%arg4, %arg5) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%39) : (tensor<f32>) -> ()
  }) : (tensor<10x4xf32>, tensor<f32>) -> tensor<10xf32>
  %14 = "stablehlo.broadcast_in_dim"(%13) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xf32>) -> tensor<10x1xf32>
  %15 = "stablehlo.broadcast_in_dim"(%14) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xf32>) -> tensor<10x4xf32>
  %16 = "stablehlo.divide"(%12, %15) : (tensor<10x4xf32>, tensor<10x4xf32>) -> tensor<10x4xf32>
  %17:2 = "stablehlo.composite"(%16) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<10x4xf32>) -> (tensor<10x2xf32>, tensor<10x2xi32>)
  %18 = "stablehlo.dot_general"(%arg0, %arg2) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<10x16xf32>, tensor<4x16x24xf32>) -> tensor<10x4x24xf32>
  %19 = "stablehlo.tanh"(%18) : (tensor<10x4x24xf32>) -> tensor<10x4x24xf32>
  %20 = "stablehlo.dot_general"(%19, %arg3) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [1], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<10x4x24xf32>, tensor<4x24x16xf32>) -> tensor<4x10x16xf32>
  %21 = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<10xi32>
  %22 = "stablehlo.broadcast_in_dim"(%21) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xi32>) -> tensor<10x1xi32>
  %23 = "stablehlo.broadcast_in_dim"(%2) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10x2xi32>
  %24 = "stablehlo.compare"(%17#1, %23) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<10x2xi32>, tensor<10x2xi32>) -> tensor<10x2xi1>
  %25 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10x2xi32>
  %26 = "stablehlo.add"(%17#1, %25) : (tensor<10x2xi32>, tensor<10x2xi32>) -> tensor<10x2xi32>
  %27 = "stablehlo.select"(%24, %26, %17#1) : (tensor<10x2xi1>, tensor<10x2xi32>, tensor<10x2xi32>) -> tensor<10x2xi32>
  %28 = "stablehlo.broadcast_in_dim"(%2) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10x1xi32>
  %29 = "stablehlo.compare"(%22, %28) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<10x1xi32>, tensor<10x1xi32>) -> tensor<10x1xi1>
  %30 = "stablehlo.broadcast_in_dim"(%0) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10x1xi32>
  %31 = "stablehlo.add"(%22, %30) : (tensor<10x1xi32>, tensor<10x1xi32>) -> tensor<10x1xi32>
  %32 = "stablehlo.select"(%29, %31, %22) : (tensor<10x1xi1>, tensor<10x1xi32>, tensor<10x1xi32>) -> tensor<10x1xi32>
  %33 = "stablehlo.broadcast_in_dim"(%32) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xi32>) -> tensor<10x2xi32>
  %34 = "stablehlo.broadcast_in_dim"(%27) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x2xi32>) -> tensor<10x2x1xi32>
  %35 = "stablehlo.broadcast_in_dim"(%33) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x2xi32>) -> tensor<10x2x1xi32>
  %36 = "stablehlo.concatenate"(%34, %35) <{dimension = 2 : i64}> : (tensor<10x2x1xi32>, tensor<10x2x1xi32>) -> tensor<10x2x2xi32>
  %37 = "stablehlo.gather"(%20, %36) <{dimension_numbers = #stablehlo.gather<offset_dims = [2], collapsed_slice_dims = [0, 1], start_index_map = [0, 1], index_vector_dim = 2>, slice_sizes = array<i64: 1, 1, 16>}> : (tensor<4x10x16xf32>, tensor<10x2x2xi32>) -> tensor<10x2x16xf32>
  %38 = "stablehlo.dot_general"(%37, %17#0) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<10x2x16xf32>, tensor<10x2xf32>) -> tensor<10x16xf32>
  "func.return"(%38) : (tensor<10x16xf32>) -> ()
}) : () -> ()

// -----

// The results of other experts than those chosen.

// CHECK-LABEL: func.func @of_the_next(
// CHECK-NOT:     moe.dispatch
"func.func"() <{function_type = (tensor<10x16xf32>, tensor<16x4xf32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>) -> tensor<10x16xf32>, sym_name = "of_the_next"}> ({
^bb0(%arg0: tensor<10x16xf32>, %arg1: tensor<16x4xf32>, %arg2: tensor<4x16x24xf32>, %arg3: tensor<4x24x16xf32>):
  %0 = "stablehlo.constant"() <{value = dense<3> : tensor<1xi32>}> : () -> tensor<1xi32>
  %1 = "stablehlo.constant"() <{value = dense<true> : tensor<i1>}> : () -> tensor<i1>
  %2 = "stablehlo.constant"() <{value = dense<0x7FC00000> : tensor<f32>}> : () -> tensor<f32>
  %3 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %4 = "stablehlo.constant"() <{value = dense<4> : tensor<i32>}> : () -> tensor<i32>
  %5 = "stablehlo.constant"() <{value = dense<1> : tensor<i32>}> : () -> tensor<i32>
  %6 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %7 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %8 = "stablehlo.dot_general"(%arg0, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<10x16xf32>, tensor<16x4xf32>) -> tensor<10x4xf32>
  %9 = "stablehlo.reduce"(%8, %7) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg10: tensor<f32>, %arg11: tensor<f32>):
    %64 = "stablehlo.maximum"(%arg10, %arg11) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%64) : (tensor<f32>) -> ()
  }) : (tensor<10x4xf32>, tensor<f32>) -> tensor<10xf32>
  %10 = "stablehlo.broadcast_in_dim"(%7) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<10xf32>
  %11 = "stablehlo.maximum"(%10, %9) : (tensor<10xf32>, tensor<10xf32>) -> tensor<10xf32>
  %12 = "stablehlo.broadcast_in_dim"(%11) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xf32>) -> tensor<10x1xf32>
  %13 = "stablehlo.broadcast_in_dim"(%12) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xf32>) -> tensor<10x4xf32>
  %14 = "stablehlo.subtract"(%8, %13) : (tensor<10x4xf32>, tensor<10x4xf32>) -> tensor<10x4xf32>
  %15 = "stablehlo.exponential"(%14) : (tensor<10x4xf32>) -> tensor<10x4xf32>
  %16 = "stablehlo.reduce"(%15, %6) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg8: tensor<f32>, %arg9: tensor<f32>):
    %63 = "stablehlo.add"(%arg8, %arg9) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%63) : (tensor<f32>) -> ()
  }) : (tensor<10x4xf32>, tensor<f32>) -> tensor<10xf32>
  %17 = "stablehlo.broadcast_in_dim"(%16) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xf32>) -> tensor<10x1xf32>
  %18 = "stablehlo.broadcast_in_dim"(%17) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xf32>) -> tensor<10x4xf32>
  %19 = "stablehlo.divide"(%15, %18) : (tensor<10x4xf32>, tensor<10x4xf32>) -> tensor<10x4xf32>
  %20:2 = "stablehlo.composite"(%19) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<10x4xf32>) -> (tensor<10x2xf32>, tensor<10x2xi32>)
  %21 = "stablehlo.dot_general"(%arg0, %arg2) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<10x16xf32>, tensor<4x16x24xf32>) -> tensor<10x4x24xf32>
  %22 = "stablehlo.tanh"(%21) : (tensor<10x4x24xf32>) -> tensor<10x4x24xf32>
  %23 = "stablehlo.dot_general"(%arg3, %22) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [1], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [2]>}> : (tensor<4x24x16xf32>, tensor<10x4x24xf32>) -> tensor<4x16x10xf32>
  %24 = "stablehlo.transpose"(%23) <{permutation = array<i64: 2, 0, 1>}> : (tensor<4x16x10xf32>) -> tensor<10x4x16xf32>
  %25 = "stablehlo.broadcast_in_dim"(%5) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10x2xi32>
  %26 = "stablehlo.add"(%20#1, %25) : (tensor<10x2xi32>, tensor<10x2xi32>) -> tensor<10x2xi32>
  %27 = "stablehlo.convert"(%4) : (tensor<i32>) -> tensor<i32>
  %28 = "stablehlo.compare"(%27, %3) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
  %29 = "stablehlo.select"(%28, %5, %27) : (tensor<i1>, tensor<i32>, tensor<i32>) -> tensor<i32>
  %30 = "stablehlo.broadcast_in_dim"(%29) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10x2xi32>
  %31 = "stablehlo.remainder"(%26, %30) : (tensor<10x2xi32>, tensor<10x2xi32>) -> tensor<10x2xi32>
  %32 = "stablehlo.broadcast_in_dim"(%3) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10x2xi32>
  %33 = "stablehlo.compare"(%31, %32) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<10x2xi32>, tensor<10x2xi32>) -> tensor<10x2xi1>
  %34 = "stablehlo.compare"(%31, %32) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<10x2xi32>, tensor<10x2xi32>) -> tensor<10x2xi1>
  %35 = "stablehlo.compare"(%29, %3) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
  %36 = "stablehlo.broadcast_in_dim"(%35) <{broadcast_dimensions = array<i64>}> : (tensor<i1>) -> tensor<10x2xi1>
  %37 = "stablehlo.compare"(%34, %36) <{compare_type = #stablehlo<comparison_type UNSIGNED>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<10x2xi1>, tensor<10x2xi1>) -> tensor<10x2xi1>
  %38 = "stablehlo.and"(%37, %33) : (tensor<10x2xi1>, tensor<10x2xi1>) -> tensor<10x2xi1>
  %39 = "stablehlo.add"(%31, %30) : (tensor<10x2xi32>, tensor<10x2xi32>) -> tensor<10x2xi32>
  %40 = "stablehlo.select"(%38, %39, %31) : (tensor<10x2xi1>, tensor<10x2xi32>, tensor<10x2xi32>) -> tensor<10x2xi32>
  %41 = "stablehlo.broadcast_in_dim"(%40) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x2xi32>) -> tensor<10x2x1xi32>
  %42 = "stablehlo.broadcast_in_dim"(%3) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10x2x1xi32>
  %43 = "stablehlo.compare"(%41, %42) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<10x2x1xi32>, tensor<10x2x1xi32>) -> tensor<10x2x1xi1>
  %44 = "stablehlo.broadcast_in_dim"(%4) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10x2x1xi32>
  %45 = "stablehlo.add"(%41, %44) : (tensor<10x2x1xi32>, tensor<10x2x1xi32>) -> tensor<10x2x1xi32>
  %46 = "stablehlo.select"(%43, %45, %41) : (tensor<10x2x1xi1>, tensor<10x2x1xi32>, tensor<10x2x1xi32>) -> tensor<10x2x1xi32>
  %47 = "stablehlo.compare"(%46, %42) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction GE>}> : (tensor<10x2x1xi32>, tensor<10x2x1xi32>) -> tensor<10x2x1xi1>
  %48 = "stablehlo.broadcast_in_dim"(%0) <{broadcast_dimensions = array<i64: 2>}> : (tensor<1xi32>) -> tensor<1x1x1xi32>
  %49 = "stablehlo.broadcast_in_dim"(%48) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x1x1xi32>) -> tensor<10x2x1xi32>
  %50 = "stablehlo.compare"(%46, %49) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LE>}> : (tensor<10x2x1xi32>, tensor<10x2x1xi32>) -> tensor<10x2x1xi1>
  %51 = "stablehlo.and"(%47, %50) : (tensor<10x2x1xi1>, tensor<10x2x1xi1>) -> tensor<10x2x1xi1>
  %52 = "stablehlo.reduce"(%51, %1) <{dimensions = array<i64: 2>}> ({
  ^bb0(%arg6: tensor<i1>, %arg7: tensor<i1>):
    %62 = "stablehlo.and"(%arg6, %arg7) : (tensor<i1>, tensor<i1>) -> tensor<i1>
    "stablehlo.return"(%62) : (tensor<i1>) -> ()
  }) : (tensor<10x2x1xi1>, tensor<i1>) -> tensor<10x2xi1>
  %53 = "stablehlo.gather"(%24, %46) <{dimension_numbers = #stablehlo.gather<offset_dims = [2], collapsed_slice_dims = [1], operand_batching_dims = [0], start_indices_batching_dims = [0], start_index_map = [1], index_vector_dim = 2>, slice_sizes = array<i64: 1, 1, 16>}> : (tensor<10x4x16xf32>, tensor<10x2x1xi32>) -> tensor<10x2x16xf32>
  %54 = "stablehlo.broadcast_in_dim"(%52) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x2xi1>) -> tensor<10x2x16xi1>
  %55 = "stablehlo.broadcast_in_dim"(%2) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<10x2x16xf32>
  %56 = "stablehlo.select"(%54, %53, %55) : (tensor<10x2x16xi1>, tensor<10x2x16xf32>, tensor<10x2x16xf32>) -> tensor<10x2x16xf32>
  %57 = "stablehlo.broadcast_in_dim"(%20#0) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x2xf32>) -> tensor<10x2x1xf32>
  %58 = "stablehlo.broadcast_in_dim"(%57) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<10x2x1xf32>) -> tensor<10x2x16xf32>
  %59 = "stablehlo.multiply"(%56, %58) : (tensor<10x2x16xf32>, tensor<10x2x16xf32>) -> tensor<10x2x16xf32>
  %60 = "stablehlo.reduce"(%59, %6) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg4: tensor<f32>, %arg5: tensor<f32>):
    %61 = "stablehlo.add"(%arg4, %arg5) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%61) : (tensor<f32>) -> ()
  }) : (tensor<10x2x16xf32>, tensor<f32>) -> tensor<10x16xf32>
  "func.return"(%60) : (tensor<10x16xf32>) -> ()
}) : () -> ()

// -----

// The tokens in the other order.

// CHECK-LABEL: func.func @of_other_tokens(
// CHECK-NOT:     moe.dispatch
"func.func"() <{function_type = (tensor<10x16xf32>, tensor<16x4xf32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>) -> tensor<10x16xf32>, sym_name = "of_other_tokens"}> ({
^bb0(%arg0: tensor<10x16xf32>, %arg1: tensor<16x4xf32>, %arg2: tensor<4x16x24xf32>, %arg3: tensor<4x24x16xf32>):
  %0 = "stablehlo.constant"() <{value = dense<4> : tensor<i32>}> : () -> tensor<i32>
  %1 = "stablehlo.constant"() <{value = dense<10> : tensor<i32>}> : () -> tensor<i32>
  %2 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %3 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %4 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %5 = "stablehlo.dot_general"(%arg0, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<10x16xf32>, tensor<16x4xf32>) -> tensor<10x4xf32>
  %6 = "stablehlo.reduce"(%5, %4) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg8: tensor<f32>, %arg9: tensor<f32>):
    %46 = "stablehlo.maximum"(%arg8, %arg9) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%46) : (tensor<f32>) -> ()
  }) : (tensor<10x4xf32>, tensor<f32>) -> tensor<10xf32>
  %7 = "stablehlo.broadcast_in_dim"(%4) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<10xf32>
  %8 = "stablehlo.maximum"(%7, %6) : (tensor<10xf32>, tensor<10xf32>) -> tensor<10xf32>
  %9 = "stablehlo.broadcast_in_dim"(%8) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xf32>) -> tensor<10x1xf32>
  %10 = "stablehlo.broadcast_in_dim"(%9) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xf32>) -> tensor<10x4xf32>
  %11 = "stablehlo.subtract"(%5, %10) : (tensor<10x4xf32>, tensor<10x4xf32>) -> tensor<10x4xf32>
  %12 = "stablehlo.exponential"(%11) : (tensor<10x4xf32>) -> tensor<10x4xf32>
  %13 = "stablehlo.reduce"(%12, %3) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg6: tensor<f32>, %arg7: tensor<f32>):
    %45 = "stablehlo.add"(%arg6, %arg7) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%45) : (tensor<f32>) -> ()
  }) : (tensor<10x4xf32>, tensor<f32>) -> tensor<10xf32>
  %14 = "stablehlo.broadcast_in_dim"(%13) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xf32>) -> tensor<10x1xf32>
  %15 = "stablehlo.broadcast_in_dim"(%14) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xf32>) -> tensor<10x4xf32>
  %16 = "stablehlo.divide"(%12, %15) : (tensor<10x4xf32>, tensor<10x4xf32>) -> tensor<10x4xf32>
  %17:2 = "stablehlo.composite"(%16) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<10x4xf32>) -> (tensor<10x2xf32>, tensor<10x2xi32>)
  %18 = "stablehlo.dot_general"(%arg0, %arg2) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<10x16xf32>, tensor<4x16x24xf32>) -> tensor<10x4x24xf32>
  %19 = "stablehlo.tanh"(%18) : (tensor<10x4x24xf32>) -> tensor<10x4x24xf32>
  %20 = "stablehlo.dot_general"(%arg3, %19) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [1], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [2]>}> : (tensor<4x24x16xf32>, tensor<10x4x24xf32>) -> tensor<4x16x10xf32>
  %21 = "stablehlo.transpose"(%20) <{permutation = array<i64: 2, 0, 1>}> : (tensor<4x16x10xf32>) -> tensor<10x4x16xf32>
  %22 = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<10xi32>
  %23 = "stablehlo.reverse"(%22) <{dimensions = array<i64: 0>}> : (tensor<10xi32>) -> tensor<10xi32>
  %24 = "stablehlo.broadcast_in_dim"(%23) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xi32>) -> tensor<10x1xi32>
  %25 = "stablehlo.broadcast_in_dim"(%2) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10x1xi32>
  %26 = "stablehlo.compare"(%24, %25) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<10x1xi32>, tensor<10x1xi32>) -> tensor<10x1xi1>
  %27 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10x1xi32>
  %28 = "stablehlo.add"(%24, %27) : (tensor<10x1xi32>, tensor<10x1xi32>) -> tensor<10x1xi32>
  %29 = "stablehlo.select"(%26, %28, %24) : (tensor<10x1xi1>, tensor<10x1xi32>, tensor<10x1xi32>) -> tensor<10x1xi32>
  %30 = "stablehlo.broadcast_in_dim"(%2) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10x2xi32>
  %31 = "stablehlo.compare"(%17#1, %30) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<10x2xi32>, tensor<10x2xi32>) -> tensor<10x2xi1>
  %32 = "stablehlo.broadcast_in_dim"(%0) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10x2xi32>
  %33 = "stablehlo.add"(%17#1, %32) : (tensor<10x2xi32>, tensor<10x2xi32>) -> tensor<10x2xi32>
  %34 = "stablehlo.select"(%31, %33, %17#1) : (tensor<10x2xi1>, tensor<10x2xi32>, tensor<10x2xi32>) -> tensor<10x2xi32>
  %35 = "stablehlo.broadcast_in_dim"(%29) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xi32>) -> tensor<10x2xi32>
  %36 = "stablehlo.broadcast_in_dim"(%35) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x2xi32>) -> tensor<10x2x1xi32>
  %37 = "stablehlo.broadcast_in_dim"(%34) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x2xi32>) -> tensor<10x2x1xi32>
  %38 = "stablehlo.concatenate"(%36, %37) <{dimension = 2 : i64}> : (tensor<10x2x1xi32>, tensor<10x2x1xi32>) -> tensor<10x2x2xi32>
  %39 = "stablehlo.gather"(%21, %38) <{dimension_numbers = #stablehlo.gather<offset_dims = [2], collapsed_slice_dims = [0, 1], start_index_map = [0, 1], index_vector_dim = 2>, slice_sizes = array<i64: 1, 1, 16>}> : (tensor<10x4x16xf32>, tensor<10x2x2xi32>) -> tensor<10x2x16xf32>
  %40 = "stablehlo.broadcast_in_dim"(%17#0) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x2xf32>) -> tensor<10x2x1xf32>
  %41 = "stablehlo.broadcast_in_dim"(%40) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<10x2x1xf32>) -> tensor<10x2x16xf32>
  %42 = "stablehlo.multiply"(%39, %41) : (tensor<10x2x16xf32>, tensor<10x2x16xf32>) -> tensor<10x2x16xf32>
  %43 = "stablehlo.reduce"(%42, %3) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg4: tensor<f32>, %arg5: tensor<f32>):
    %44 = "stablehlo.add"(%arg4, %arg5) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%44) : (tensor<f32>) -> ()
  }) : (tensor<10x2x16xf32>, tensor<f32>) -> tensor<10x16xf32>
  "func.return"(%43) : (tensor<10x16xf32>) -> ()
}) : () -> ()
