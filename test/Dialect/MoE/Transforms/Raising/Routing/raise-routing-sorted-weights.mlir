// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-routing --moe-raise-grouped | FileCheck %s

// Rows are sorted the other way.
// RUN: sed 's/comparison_direction LT/comparison_direction GT/' %s | moe-opt - --split-input-file --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// NONE-NOT: moe.grouped_matmul

// Weights are gathered for each sorted row.

// CHECK-LABEL: func.func public @sorted(
// CHECK-SAME:      %[[X:[^ ]*]]: tensor<10x16xf32>, %{{[^ ]*}}: tensor<16x4xf32>, %[[UP:[^ ]*]]: tensor<4x16x24xf32>, %[[DOWN:[^ ]*]]: tensor<4x24x16xf32>
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate %{{.*}} top_k(2) score(none)
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}}, %[[IDS]] experts(4)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[UP]] : tensor<4x16x24xf32>)
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[DOWN]] : tensor<4x24x16xf32>)
// CHECK:         moe.combine %[[Y]], %[[PLACES]] weights(%[[W]] :
// CHECK-NOT:     stablehlo.sort
"func.func"() <{function_type = (tensor<10x16xf32>, tensor<16x4xf32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>) -> tensor<10x16xf32>, res_attrs = [{}], sym_name = "sorted", sym_visibility = "public"}> ({
^bb0(%arg0: tensor<10x16xf32>, %arg1: tensor<16x4xf32>, %arg2: tensor<4x16x24xf32>, %arg3: tensor<4x24x16xf32>):
  %0 = "stablehlo.constant"() <{value = dense<1> : tensor<i32>}> : () -> tensor<i32>
  %1 = "stablehlo.constant"() <{value = dense<4> : tensor<i32>}> : () -> tensor<i32>
  %2 = "stablehlo.constant"() <{value = dense<10> : tensor<i32>}> : () -> tensor<i32>
  %3 = "stablehlo.constant"() <{value = dense<2> : tensor<i32>}> : () -> tensor<i32>
  %4 = "stablehlo.constant"() <{value = dense<20> : tensor<i32>}> : () -> tensor<i32>
  %5 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %6 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %7 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %8 = "stablehlo.dot_general"(%arg0, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<10x16xf32>, tensor<16x4xf32>) -> tensor<10x4xf32>
  %9 = "stablehlo.reduce"(%8, %7) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg12: tensor<f32>, %arg13: tensor<f32>):
    %70 = "stablehlo.maximum"(%arg12, %arg13) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%70) : (tensor<f32>) -> ()
  }) : (tensor<10x4xf32>, tensor<f32>) -> tensor<10xf32>
  %10 = "stablehlo.broadcast_in_dim"(%7) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<10xf32>
  %11 = "stablehlo.maximum"(%10, %9) : (tensor<10xf32>, tensor<10xf32>) -> tensor<10xf32>
  %12 = "stablehlo.broadcast_in_dim"(%11) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xf32>) -> tensor<10x1xf32>
  %13 = "stablehlo.broadcast_in_dim"(%12) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xf32>) -> tensor<10x4xf32>
  %14 = "stablehlo.subtract"(%8, %13) : (tensor<10x4xf32>, tensor<10x4xf32>) -> tensor<10x4xf32>
  %15 = "stablehlo.exponential"(%14) : (tensor<10x4xf32>) -> tensor<10x4xf32>
  %16 = "stablehlo.reduce"(%15, %6) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg10: tensor<f32>, %arg11: tensor<f32>):
    %69 = "stablehlo.add"(%arg10, %arg11) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%69) : (tensor<f32>) -> ()
  }) : (tensor<10x4xf32>, tensor<f32>) -> tensor<10xf32>
  %17 = "stablehlo.broadcast_in_dim"(%16) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xf32>) -> tensor<10x1xf32>
  %18 = "stablehlo.broadcast_in_dim"(%17) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xf32>) -> tensor<10x4xf32>
  %19 = "stablehlo.divide"(%15, %18) : (tensor<10x4xf32>, tensor<10x4xf32>) -> tensor<10x4xf32>
  %20:2 = "stablehlo.composite"(%19) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<10x4xf32>) -> (tensor<10x2xf32>, tensor<10x2xi32>)
  %21 = "stablehlo.reshape"(%20#1) : (tensor<10x2xi32>) -> tensor<20xi32>
  %22 = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<20xi32>
  %23:2 = "stablehlo.sort"(%21, %22) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%arg6: tensor<i32>, %arg7: tensor<i32>, %arg8: tensor<i32>, %arg9: tensor<i32>):
    %68 = "stablehlo.compare"(%arg6, %arg7) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%68) : (tensor<i1>) -> ()
  }) : (tensor<20xi32>, tensor<20xi32>) -> (tensor<20xi32>, tensor<20xi32>)
  %24 = "stablehlo.broadcast_in_dim"(%5) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<20xi32>
  %25 = "stablehlo.compare"(%23#1, %24) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<20xi32>, tensor<20xi32>) -> tensor<20xi1>
  %26 = "stablehlo.broadcast_in_dim"(%4) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<20xi32>
  %27 = "stablehlo.add"(%23#1, %26) : (tensor<20xi32>, tensor<20xi32>) -> tensor<20xi32>
  %28 = "stablehlo.select"(%25, %27, %23#1) : (tensor<20xi1>, tensor<20xi32>, tensor<20xi32>) -> tensor<20xi32>
  %29 = "stablehlo.broadcast_in_dim"(%28) <{broadcast_dimensions = array<i64: 0>}> : (tensor<20xi32>) -> tensor<20x1xi32>
  %30 = "stablehlo.gather"(%21, %29) <{dimension_numbers = #stablehlo.gather<collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1>}> : (tensor<20xi32>, tensor<20x1xi32>) -> tensor<20xi32>
  %31 = "stablehlo.convert"(%3) : (tensor<i32>) -> tensor<i32>
  %32 = "stablehlo.broadcast_in_dim"(%31) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<20xi32>
  %33 = "stablehlo.divide"(%23#1, %32) : (tensor<20xi32>, tensor<20xi32>) -> tensor<20xi32>
  %34 = "stablehlo.sign"(%23#1) : (tensor<20xi32>) -> tensor<20xi32>
  %35 = "stablehlo.sign"(%31) : (tensor<i32>) -> tensor<i32>
  %36 = "stablehlo.broadcast_in_dim"(%35) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<20xi32>
  %37 = "stablehlo.compare"(%34, %36) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<20xi32>, tensor<20xi32>) -> tensor<20xi1>
  %38 = "stablehlo.remainder"(%23#1, %32) : (tensor<20xi32>, tensor<20xi32>) -> tensor<20xi32>
  %39 = "stablehlo.compare"(%38, %24) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<20xi32>, tensor<20xi32>) -> tensor<20xi1>
  %40 = "stablehlo.and"(%37, %39) : (tensor<20xi1>, tensor<20xi1>) -> tensor<20xi1>
  %41 = "stablehlo.broadcast_in_dim"(%0) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<20xi32>
  %42 = "stablehlo.subtract"(%33, %41) : (tensor<20xi32>, tensor<20xi32>) -> tensor<20xi32>
  %43 = "stablehlo.select"(%40, %42, %33) : (tensor<20xi1>, tensor<20xi32>, tensor<20xi32>) -> tensor<20xi32>
  %44 = "stablehlo.compare"(%43, %24) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<20xi32>, tensor<20xi32>) -> tensor<20xi1>
  %45 = "stablehlo.broadcast_in_dim"(%2) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<20xi32>
  %46 = "stablehlo.add"(%43, %45) : (tensor<20xi32>, tensor<20xi32>) -> tensor<20xi32>
  %47 = "stablehlo.select"(%44, %46, %43) : (tensor<20xi1>, tensor<20xi32>, tensor<20xi32>) -> tensor<20xi32>
  %48 = "stablehlo.broadcast_in_dim"(%47) <{broadcast_dimensions = array<i64: 0>}> : (tensor<20xi32>) -> tensor<20x1xi32>
  %49 = "stablehlo.gather"(%arg0, %48) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<10x16xf32>, tensor<20x1xi32>) -> tensor<20x16xf32>
  %50 = "stablehlo.compare"(%30, %24) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<20xi32>, tensor<20xi32>) -> tensor<20xi1>
  %51 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<20xi32>
  %52 = "stablehlo.add"(%30, %51) : (tensor<20xi32>, tensor<20xi32>) -> tensor<20xi32>
  %53 = "stablehlo.select"(%50, %52, %30) : (tensor<20xi1>, tensor<20xi32>, tensor<20xi32>) -> tensor<20xi32>
  %54 = "stablehlo.broadcast_in_dim"(%53) <{broadcast_dimensions = array<i64: 0>}> : (tensor<20xi32>) -> tensor<20x1xi32>
  %55 = "stablehlo.gather"(%arg2, %54) <{dimension_numbers = #stablehlo.gather<offset_dims = [1, 2], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16, 24>}> : (tensor<4x16x24xf32>, tensor<20x1xi32>) -> tensor<20x16x24xf32>
  %56 = "stablehlo.dot_general"(%49, %55) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<20x16xf32>, tensor<20x16x24xf32>) -> tensor<20x24xf32>
  %57 = "stablehlo.tanh"(%56) : (tensor<20x24xf32>) -> tensor<20x24xf32>
  %58 = "stablehlo.gather"(%arg3, %54) <{dimension_numbers = #stablehlo.gather<offset_dims = [1, 2], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 24, 16>}> : (tensor<4x24x16xf32>, tensor<20x1xi32>) -> tensor<20x24x16xf32>
  %59 = "stablehlo.dot_general"(%57, %58) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<20x24xf32>, tensor<20x24x16xf32>) -> tensor<20x16xf32>
  %60 = "stablehlo.broadcast_in_dim"(%6) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<10x16xf32>
  %61 = "stablehlo.reshape"(%20#0) : (tensor<10x2xf32>) -> tensor<20xf32>
  %62 = "stablehlo.gather"(%61, %29) <{dimension_numbers = #stablehlo.gather<collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1>}> : (tensor<20xf32>, tensor<20x1xi32>) -> tensor<20xf32>
  %63 = "stablehlo.broadcast_in_dim"(%62) <{broadcast_dimensions = array<i64: 0>}> : (tensor<20xf32>) -> tensor<20x1xf32>
  %64 = "stablehlo.broadcast_in_dim"(%63) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<20x1xf32>) -> tensor<20x16xf32>
  %65 = "stablehlo.multiply"(%59, %64) : (tensor<20x16xf32>, tensor<20x16xf32>) -> tensor<20x16xf32>
  %66 = "stablehlo.scatter"(%60, %48, %65) <{scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1], inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}> ({
  ^bb0(%arg4: tensor<f32>, %arg5: tensor<f32>):
    %67 = "stablehlo.add"(%arg4, %arg5) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%67) : (tensor<f32>) -> ()
  }) : (tensor<10x16xf32>, tensor<20x1xi32>, tensor<20x16xf32>) -> tensor<10x16xf32>
  "func.return"(%66) : (tensor<10x16xf32>) -> ()
}) : () -> ()

// -----

// CHECK-LABEL: func.func public @sorted_any(
// CHECK-SAME:      %[[X:[^ ]*]]: tensor<?x16xf32>, %{{[^ ]*}}: tensor<16x4xf32>, %[[UP:[^ ]*]]: tensor<4x16x24xf32>, %[[DOWN:[^ ]*]]: tensor<4x24x16xf32>
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate %{{.*}} top_k(2) score(none)
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}}, %[[IDS]] experts(4)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[UP]] : tensor<4x16x24xf32>)
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[DOWN]] : tensor<4x24x16xf32>)
// CHECK:         moe.combine %[[Y]], %[[PLACES]] weights(%[[W]] :
// CHECK-NOT:     stablehlo.sort
"func.func"() <{function_type = (tensor<?x16xf32>, tensor<16x4xf32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>) -> tensor<?x16xf32>, res_attrs = [{}], sym_name = "sorted_any", sym_visibility = "public"}> ({
^bb0(%arg0: tensor<?x16xf32>, %arg1: tensor<16x4xf32>, %arg2: tensor<4x16x24xf32>, %arg3: tensor<4x24x16xf32>):
  %0 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %1 = "stablehlo.constant"() <{value = dense<1> : tensor<1xi32>}> : () -> tensor<1xi32>
  %2 = "stablehlo.constant"() <{value = dense<4> : tensor<i32>}> : () -> tensor<i32>
  %3 = "stablehlo.constant"() <{value = dense<4> : tensor<1xi32>}> : () -> tensor<1xi32>
  %4 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %5 = "stablehlo.constant"() <{value = dense<2> : tensor<i32>}> : () -> tensor<i32>
  %6 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %7 = "stablehlo.constant"() <{value = dense<16> : tensor<1xi32>}> : () -> tensor<1xi32>
  %8 = "stablehlo.constant"() <{value = dense<1> : tensor<i32>}> : () -> tensor<i32>
  %9 = "stablehlo.get_dimension_size"(%arg0) <{dimension = 0 : i64}> : (tensor<?x16xf32>) -> tensor<i32>
  %10 = "stablehlo.dot_general"(%arg0, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<?x16xf32>, tensor<16x4xf32>) -> tensor<?x4xf32>
  %11 = "stablehlo.reduce"(%10, %0) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg12: tensor<f32>, %arg13: tensor<f32>):
    %82 = "stablehlo.maximum"(%arg12, %arg13) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%82) : (tensor<f32>) -> ()
  }) : (tensor<?x4xf32>, tensor<f32>) -> tensor<?xf32>
  %12 = "stablehlo.reshape"(%9) : (tensor<i32>) -> tensor<1xi32>
  %13 = "stablehlo.dynamic_broadcast_in_dim"(%0, %12) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<1xi32>) -> tensor<?xf32>
  %14 = "stablehlo.maximum"(%13, %11) : (tensor<?xf32>, tensor<?xf32>) -> tensor<?xf32>
  %15 = "stablehlo.concatenate"(%12, %1) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %16 = "stablehlo.dynamic_broadcast_in_dim"(%14, %15) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xf32>, tensor<2xi32>) -> tensor<?x1xf32>
  %17 = "stablehlo.concatenate"(%12, %3) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %18 = "stablehlo.dynamic_broadcast_in_dim"(%16, %17) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x4xf32>
  %19 = "stablehlo.subtract"(%10, %18) : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %20 = "stablehlo.exponential"(%19) : (tensor<?x4xf32>) -> tensor<?x4xf32>
  %21 = "stablehlo.reduce"(%20, %4) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg10: tensor<f32>, %arg11: tensor<f32>):
    %81 = "stablehlo.add"(%arg10, %arg11) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%81) : (tensor<f32>) -> ()
  }) : (tensor<?x4xf32>, tensor<f32>) -> tensor<?xf32>
  %22 = "stablehlo.dynamic_broadcast_in_dim"(%21, %15) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xf32>, tensor<2xi32>) -> tensor<?x1xf32>
  %23 = "stablehlo.dynamic_broadcast_in_dim"(%22, %17) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x4xf32>
  %24 = "stablehlo.divide"(%20, %23) : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %25:2 = "stablehlo.composite"(%24) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<?x4xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>)
  %26 = "stablehlo.convert"(%9) : (tensor<i32>) -> tensor<i32>
  %27 = "stablehlo.multiply"(%26, %5) : (tensor<i32>, tensor<i32>) -> tensor<i32>
  %28 = "stablehlo.reshape"(%27) : (tensor<i32>) -> tensor<1xi32>
  %29 = "stablehlo.dynamic_reshape"(%25#1, %28) : (tensor<?x2xi32>, tensor<1xi32>) -> tensor<?xi32>
  %30 = "stablehlo.dynamic_iota"(%28) <{iota_dimension = 0 : i64}> : (tensor<1xi32>) -> tensor<?xi32>
  %31:2 = "stablehlo.sort"(%29, %30) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%arg6: tensor<i32>, %arg7: tensor<i32>, %arg8: tensor<i32>, %arg9: tensor<i32>):
    %80 = "stablehlo.compare"(%arg6, %arg7) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%80) : (tensor<i1>) -> ()
  }) : (tensor<?xi32>, tensor<?xi32>) -> (tensor<?xi32>, tensor<?xi32>)
  %32 = "stablehlo.convert"(%27) : (tensor<i32>) -> tensor<i32>
  %33 = "stablehlo.dynamic_broadcast_in_dim"(%6, %28) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %34 = "stablehlo.compare"(%31#1, %33) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi1>
  %35 = "stablehlo.dynamic_broadcast_in_dim"(%32, %28) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %36 = "stablehlo.add"(%31#1, %35) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %37 = "stablehlo.select"(%34, %36, %31#1) : (tensor<?xi1>, tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %38 = "stablehlo.concatenate"(%28, %1) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %39 = "stablehlo.dynamic_broadcast_in_dim"(%37, %38) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xi32>, tensor<2xi32>) -> tensor<?x1xi32>
  %40 = "stablehlo.gather"(%29, %39) <{dimension_numbers = #stablehlo.gather<collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1>}> : (tensor<?xi32>, tensor<?x1xi32>) -> tensor<?xi32>
  %41 = "stablehlo.convert"(%5) : (tensor<i32>) -> tensor<i32>
  %42 = "stablehlo.dynamic_broadcast_in_dim"(%41, %28) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %43 = "stablehlo.divide"(%31#1, %42) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %44 = "stablehlo.sign"(%31#1) : (tensor<?xi32>) -> tensor<?xi32>
  %45 = "stablehlo.sign"(%41) : (tensor<i32>) -> tensor<i32>
  %46 = "stablehlo.dynamic_broadcast_in_dim"(%45, %28) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %47 = "stablehlo.compare"(%44, %46) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi1>
  %48 = "stablehlo.remainder"(%31#1, %42) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %49 = "stablehlo.compare"(%48, %33) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi1>
  %50 = "stablehlo.and"(%47, %49) : (tensor<?xi1>, tensor<?xi1>) -> tensor<?xi1>
  %51 = "stablehlo.dynamic_broadcast_in_dim"(%8, %28) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %52 = "stablehlo.subtract"(%43, %51) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %53 = "stablehlo.select"(%50, %52, %43) : (tensor<?xi1>, tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %54 = "stablehlo.compare"(%53, %33) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi1>
  %55 = "stablehlo.dynamic_broadcast_in_dim"(%26, %28) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %56 = "stablehlo.add"(%53, %55) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %57 = "stablehlo.select"(%54, %56, %53) : (tensor<?xi1>, tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %58 = "stablehlo.dynamic_broadcast_in_dim"(%57, %38) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xi32>, tensor<2xi32>) -> tensor<?x1xi32>
  %59 = "stablehlo.gather"(%arg0, %58) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<?x16xf32>, tensor<?x1xi32>) -> tensor<?x16xf32>
  %60 = "stablehlo.compare"(%40, %33) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi1>
  %61 = "stablehlo.dynamic_broadcast_in_dim"(%2, %28) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %62 = "stablehlo.add"(%40, %61) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %63 = "stablehlo.select"(%60, %62, %40) : (tensor<?xi1>, tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %64 = "stablehlo.dynamic_broadcast_in_dim"(%63, %38) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xi32>, tensor<2xi32>) -> tensor<?x1xi32>
  %65 = "stablehlo.gather"(%arg2, %64) <{dimension_numbers = #stablehlo.gather<offset_dims = [1, 2], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16, 24>}> : (tensor<4x16x24xf32>, tensor<?x1xi32>) -> tensor<?x16x24xf32>
  %66 = "stablehlo.dot_general"(%59, %65) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<?x16xf32>, tensor<?x16x24xf32>) -> tensor<?x24xf32>
  %67 = "stablehlo.tanh"(%66) : (tensor<?x24xf32>) -> tensor<?x24xf32>
  %68 = "stablehlo.gather"(%arg3, %64) <{dimension_numbers = #stablehlo.gather<offset_dims = [1, 2], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 24, 16>}> : (tensor<4x24x16xf32>, tensor<?x1xi32>) -> tensor<?x24x16xf32>
  %69 = "stablehlo.dot_general"(%67, %68) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<?x24xf32>, tensor<?x24x16xf32>) -> tensor<?x16xf32>
  %70 = "stablehlo.concatenate"(%12, %7) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %71 = "stablehlo.dynamic_broadcast_in_dim"(%4, %70) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<2xi32>) -> tensor<?x16xf32>
  %72 = "stablehlo.dynamic_reshape"(%25#0, %28) : (tensor<?x2xf32>, tensor<1xi32>) -> tensor<?xf32>
  %73 = "stablehlo.gather"(%72, %39) <{dimension_numbers = #stablehlo.gather<collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1>}> : (tensor<?xf32>, tensor<?x1xi32>) -> tensor<?xf32>
  %74 = "stablehlo.dynamic_broadcast_in_dim"(%73, %38) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xf32>, tensor<2xi32>) -> tensor<?x1xf32>
  %75 = "stablehlo.concatenate"(%28, %7) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %76 = "stablehlo.dynamic_broadcast_in_dim"(%74, %75) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x16xf32>
  %77 = "stablehlo.multiply"(%69, %76) : (tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x16xf32>
  %78 = "stablehlo.scatter"(%71, %58, %77) <{scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1], inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}> ({
  ^bb0(%arg4: tensor<f32>, %arg5: tensor<f32>):
    %79 = "stablehlo.add"(%arg4, %arg5) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%79) : (tensor<f32>) -> ()
  }) : (tensor<?x16xf32>, tensor<?x1xi32>, tensor<?x16xf32>) -> tensor<?x16xf32>
  "func.return"(%78) : (tensor<?x16xf32>) -> ()
}) : () -> ()
