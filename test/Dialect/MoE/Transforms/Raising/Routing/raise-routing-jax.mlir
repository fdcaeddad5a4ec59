// RUN: moe-opt %s --allow-unregistered-dialect --moe-raise-routing --moe-raise-grouped | FileCheck %s

// Blocks of test_jax.py, as jax.export writes them, with calls inlined.

// top_k of the logits, argsort, take, bincount, ragged_dot, argsort of the
// order, einsum; any number of tokens.

// CHECK-LABEL: func.func @maxtext(
// CHECK-SAME:      %[[X:[^ ]*]]: tensor<?x16xf32>
// CHECK:         %[[LOGITS:.*]] = "stablehlo.dot_general"
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate %[[LOGITS]] top_k(2) score(none)
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[POSITIONS:.*]] = moe.dispatch %[[X]], %[[IDS]] experts(8)
// CHECK:         %[[SCALE:.*]] = linalg.softmax dimension(1) ins(%[[W]]
// CHECK-NOT:     {{sort|scatter|gather\"}}
// CHECK-NOT:     linalg.fill
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<9xi32>) weights(%{{.*}} : tensor<8x16x24xf32>)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<9xi32>) weights(%{{.*}} : tensor<8x16x24xf32>)
// CHECK-NOT:     linalg.fill
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<9xi32>) weights(%{{.*}} : tensor<8x24x16xf32>)
// CHECK:         %[[SUM:.*]] = moe.combine %[[Y]], %[[POSITIONS]] weights(%[[SCALE]] : tensor<?x2xf32>)
// CHECK:         return %[[SUM]]
func.func @maxtext(%arg0: tensor<?x16xf32>, %arg1: tensor<16x8xf32>, %arg2: tensor<8x16x48xf32>, %arg3: tensor<8x16x24xf32>, %arg4: tensor<8x16x24xf32>, %arg5: tensor<8x24x16xf32>) -> tensor<?x16xf32> {
  %0 = "stablehlo.constant"() <{value = dense<1.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %1 = "stablehlo.constant"() <{value = dense<24> : tensor<1xi32>}> : () -> tensor<1xi32>
  %2 = "stablehlo.constant"() <{value = dense<0> : tensor<1xi32>}> : () -> tensor<1xi32>
  %3 = "stablehlo.constant"() <{value = dense<false> : tensor<1xi1>}> : () -> tensor<1xi1>
  %4 = "stablehlo.constant"() <{value = dense<16> : tensor<i32>}> : () -> tensor<i32>
  %5 = "stablehlo.constant"() <{value = dense<true> : tensor<i1>}> : () -> tensor<i1>
  %6 = "stablehlo.constant"() <{value = dense<0x7FC00000> : tensor<f32>}> : () -> tensor<f32>
  %7 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %8 = "stablehlo.constant"() <{value = dense<1> : tensor<1xi32>}> : () -> tensor<1xi32>
  %9 = "stablehlo.constant"() <{value = dense<2> : tensor<i32>}> : () -> tensor<i32>
  %10 = "stablehlo.constant"() <{value = dense<2> : tensor<1xi32>}> : () -> tensor<1xi32>
  %11 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %12 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %13 = "stablehlo.constant"() <{value = dense<8> : tensor<i32>}> : () -> tensor<i32>
  %14 = "stablehlo.constant"() <{value = dense<16> : tensor<1xi32>}> : () -> tensor<1xi32>
  %15 = "stablehlo.constant"() <{value = dense<1> : tensor<i32>}> : () -> tensor<i32>
  %16 = "stablehlo.get_dimension_size"(%arg0) <{dimension = 0 : i64}> : (tensor<?x16xf32>) -> tensor<i32>
  %17 = "stablehlo.dot_general"(%arg0, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<?x16xf32>, tensor<16x8xf32>) -> tensor<?x8xf32>
  %18:2 = "stablehlo.composite"(%17) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<?x8xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>)
  %19 = "stablehlo.reduce"(%18#0, %7) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg6: tensor<f32>, %arg7: tensor<f32>):
    %124 = "stablehlo.maximum"(%arg6, %arg7) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%124) : (tensor<f32>) -> ()
  }) : (tensor<?x2xf32>, tensor<f32>) -> tensor<?xf32>
  %20 = "stablehlo.reshape"(%16) : (tensor<i32>) -> tensor<1xi32>
  %21 = "stablehlo.dynamic_broadcast_in_dim"(%7, %20) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<1xi32>) -> tensor<?xf32>
  %22 = "stablehlo.maximum"(%21, %19) : (tensor<?xf32>, tensor<?xf32>) -> tensor<?xf32>
  %23 = "stablehlo.concatenate"(%20, %8) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %24 = "stablehlo.dynamic_broadcast_in_dim"(%22, %23) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xf32>, tensor<2xi32>) -> tensor<?x1xf32>
  %25 = "stablehlo.concatenate"(%20, %10) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %26 = "stablehlo.dynamic_broadcast_in_dim"(%24, %25) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x2xf32>
  %27 = "stablehlo.subtract"(%18#0, %26) : (tensor<?x2xf32>, tensor<?x2xf32>) -> tensor<?x2xf32>
  %28 = "stablehlo.exponential"(%27) : (tensor<?x2xf32>) -> tensor<?x2xf32>
  %29 = "stablehlo.reduce"(%28, %11) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg6: tensor<f32>, %arg7: tensor<f32>):
    %124 = "stablehlo.add"(%arg6, %arg7) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%124) : (tensor<f32>) -> ()
  }) : (tensor<?x2xf32>, tensor<f32>) -> tensor<?xf32>
  %30 = "stablehlo.dynamic_broadcast_in_dim"(%29, %23) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xf32>, tensor<2xi32>) -> tensor<?x1xf32>
  %31 = "stablehlo.dynamic_broadcast_in_dim"(%30, %25) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x2xf32>
  %32 = "stablehlo.divide"(%28, %31) : (tensor<?x2xf32>, tensor<?x2xf32>) -> tensor<?x2xf32>
  %33 = "stablehlo.convert"(%16) : (tensor<i32>) -> tensor<i32>
  %34 = "stablehlo.multiply"(%33, %9) : (tensor<i32>, tensor<i32>) -> tensor<i32>
  %35 = "stablehlo.reshape"(%34) : (tensor<i32>) -> tensor<1xi32>
  %36 = "stablehlo.dynamic_reshape"(%18#1, %35) : (tensor<?x2xi32>, tensor<1xi32>) -> tensor<?xi32>
  %37 = "stablehlo.dynamic_iota"(%35) <{iota_dimension = 0 : i64}> : (tensor<1xi32>) -> tensor<?xi32>
  %38:2 = "stablehlo.sort"(%36, %37) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%arg6: tensor<i32>, %arg7: tensor<i32>, %arg8: tensor<i32>, %arg9: tensor<i32>):
    %124 = "stablehlo.compare"(%arg6, %arg7) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%124) : (tensor<i1>) -> ()
  }) : (tensor<?xi32>, tensor<?xi32>) -> (tensor<?xi32>, tensor<?xi32>)
  %39 = "stablehlo.convert"(%9) : (tensor<i32>) -> tensor<i32>
  %40 = "stablehlo.dynamic_broadcast_in_dim"(%39, %35) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %41 = "stablehlo.divide"(%38#1, %40) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %42 = "stablehlo.sign"(%38#1) : (tensor<?xi32>) -> tensor<?xi32>
  %43 = "stablehlo.sign"(%39) : (tensor<i32>) -> tensor<i32>
  %44 = "stablehlo.dynamic_broadcast_in_dim"(%43, %35) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %45 = "stablehlo.compare"(%42, %44) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi1>
  %46 = "stablehlo.remainder"(%38#1, %40) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %47 = "stablehlo.dynamic_broadcast_in_dim"(%12, %35) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %48 = "stablehlo.compare"(%46, %47) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi1>
  %49 = "stablehlo.and"(%45, %48) : (tensor<?xi1>, tensor<?xi1>) -> tensor<?xi1>
  %50 = "stablehlo.dynamic_broadcast_in_dim"(%15, %35) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %51 = "stablehlo.subtract"(%41, %50) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %52 = "stablehlo.select"(%49, %51, %41) : (tensor<?xi1>, tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %53 = "stablehlo.compare"(%52, %47) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi1>
  %54 = "stablehlo.dynamic_broadcast_in_dim"(%33, %35) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %55 = "stablehlo.add"(%52, %54) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %56 = "stablehlo.select"(%53, %55, %52) : (tensor<?xi1>, tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %57 = "stablehlo.concatenate"(%35, %8) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %58 = "stablehlo.dynamic_broadcast_in_dim"(%56, %57) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xi32>, tensor<2xi32>) -> tensor<?x1xi32>
  %59 = "stablehlo.broadcast_in_dim"(%33) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<1xi32>
  %60 = "stablehlo.broadcast_in_dim"(%4) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<1xi32>
  %61 = "stablehlo.concatenate"(%59, %60) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %62 = "stablehlo.broadcast_in_dim"(%9) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<1xi32>
  %63 = "stablehlo.add"(%2, %62) : (tensor<1xi32>, tensor<1xi32>) -> tensor<1xi32>
  %64 = "stablehlo.select"(%3, %63, %2) : (tensor<1xi1>, tensor<1xi32>, tensor<1xi32>) -> tensor<1xi32>
  %65 = "stablehlo.broadcast_in_dim"(%64) <{broadcast_dimensions = array<i64: 0>}> : (tensor<1xi32>) -> tensor<1x1xi32>
  %66 = "stablehlo.gather"(%61, %65) <{dimension_numbers = #stablehlo.gather<collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1>}> : (tensor<2xi32>, tensor<1x1xi32>) -> tensor<1xi32>
  %67 = "stablehlo.subtract"(%66, %8) : (tensor<1xi32>, tensor<1xi32>) -> tensor<1xi32>
  %68 = "stablehlo.dynamic_broadcast_in_dim"(%12, %57) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<2xi32>) -> tensor<?x1xi32>
  %69 = "stablehlo.compare"(%58, %68) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction GE>}> : (tensor<?x1xi32>, tensor<?x1xi32>) -> tensor<?x1xi1>
  %70 = "stablehlo.broadcast_in_dim"(%67) <{broadcast_dimensions = array<i64: 1>}> : (tensor<1xi32>) -> tensor<1x1xi32>
  %71 = "stablehlo.dynamic_broadcast_in_dim"(%70, %57) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<1x1xi32>, tensor<2xi32>) -> tensor<?x1xi32>
  %72 = "stablehlo.compare"(%58, %71) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LE>}> : (tensor<?x1xi32>, tensor<?x1xi32>) -> tensor<?x1xi1>
  %73 = "stablehlo.and"(%69, %72) : (tensor<?x1xi1>, tensor<?x1xi1>) -> tensor<?x1xi1>
  %74 = "stablehlo.reduce"(%73, %5) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg6: tensor<i1>, %arg7: tensor<i1>):
    %124 = "stablehlo.and"(%arg6, %arg7) : (tensor<i1>, tensor<i1>) -> tensor<i1>
    "stablehlo.return"(%124) : (tensor<i1>) -> ()
  }) : (tensor<?x1xi1>, tensor<i1>) -> tensor<?xi1>
  %75 = "stablehlo.gather"(%arg0, %58) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<?x16xf32>, tensor<?x1xi32>) -> tensor<?x16xf32>
  %76 = "stablehlo.concatenate"(%35, %14) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %77 = "stablehlo.dynamic_broadcast_in_dim"(%74, %76) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xi1>, tensor<2xi32>) -> tensor<?x16xi1>
  %78 = "stablehlo.dynamic_broadcast_in_dim"(%6, %76) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<2xi32>) -> tensor<?x16xf32>
  %79 = "stablehlo.select"(%77, %75, %78) : (tensor<?x16xi1>, tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x16xf32>
  %80 = "stablehlo.broadcast_in_dim"(%12) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<8xi32>
  %81 = "stablehlo.convert"(%12) : (tensor<i32>) -> tensor<i32>
  %82 = "stablehlo.dynamic_broadcast_in_dim"(%81, %35) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %83 = "stablehlo.maximum"(%82, %36) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %84 = "stablehlo.compare"(%83, %47) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi1>
  %85 = "stablehlo.dynamic_broadcast_in_dim"(%13, %35) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %86 = "stablehlo.add"(%83, %85) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %87 = "stablehlo.select"(%84, %86, %83) : (tensor<?xi1>, tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %88 = "stablehlo.dynamic_broadcast_in_dim"(%87, %57) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xi32>, tensor<2xi32>) -> tensor<?x1xi32>
  %89 = "stablehlo.scatter"(%80, %88, %50) <{scatter_dimension_numbers = #stablehlo.scatter<inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}> ({
  ^bb0(%arg6: tensor<i32>, %arg7: tensor<i32>):
    %124 = "stablehlo.add"(%arg6, %arg7) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%124) : (tensor<i32>) -> ()
  }) : (tensor<8xi32>, tensor<?x1xi32>, tensor<?xi32>) -> tensor<8xi32>
  %90 = "stablehlo.composite"(%79, %arg3, %89) <{composite_attributes = {precision_config = ["DEFAULT", "DEFAULT"], ragged_dot_dimension_numbers = [dense<> : tensor<0xi64>, dense<> : tensor<0xi64>, dense<1> : tensor<1xi64>, dense<1> : tensor<1xi64>, dense<0> : tensor<1xi64>, dense<0> : tensor<1xi64>]}, decomposition = @chlo.ragged_dot.impl, name = "chlo.ragged_dot", version = 1 : i32}> : (tensor<?x16xf32>, tensor<8x16x24xf32>, tensor<8xi32>) -> tensor<?x24xf32>
  %91 = "stablehlo.composite"(%79, %arg4, %89) <{composite_attributes = {precision_config = ["DEFAULT", "DEFAULT"], ragged_dot_dimension_numbers = [dense<> : tensor<0xi64>, dense<> : tensor<0xi64>, dense<1> : tensor<1xi64>, dense<1> : tensor<1xi64>, dense<0> : tensor<1xi64>, dense<0> : tensor<1xi64>]}, decomposition = @chlo.ragged_dot.impl_0, name = "chlo.ragged_dot", version = 1 : i32}> : (tensor<?x16xf32>, tensor<8x16x24xf32>, tensor<8xi32>) -> tensor<?x24xf32>
  %92 = "stablehlo.negate"(%90) : (tensor<?x24xf32>) -> tensor<?x24xf32>
  %93 = "stablehlo.exponential"(%92) : (tensor<?x24xf32>) -> tensor<?x24xf32>
  %94 = "stablehlo.concatenate"(%35, %1) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %95 = "stablehlo.dynamic_broadcast_in_dim"(%0, %94) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<2xi32>) -> tensor<?x24xf32>
  %96 = "stablehlo.add"(%95, %93) : (tensor<?x24xf32>, tensor<?x24xf32>) -> tensor<?x24xf32>
  %97 = "stablehlo.divide"(%95, %96) : (tensor<?x24xf32>, tensor<?x24xf32>) -> tensor<?x24xf32>
  %98 = "stablehlo.multiply"(%90, %97) : (tensor<?x24xf32>, tensor<?x24xf32>) -> tensor<?x24xf32>
  %99 = "stablehlo.multiply"(%98, %91) : (tensor<?x24xf32>, tensor<?x24xf32>) -> tensor<?x24xf32>
  %100 = "stablehlo.composite"(%99, %arg5, %89) <{composite_attributes = {precision_config = ["DEFAULT", "DEFAULT"], ragged_dot_dimension_numbers = [dense<> : tensor<0xi64>, dense<> : tensor<0xi64>, dense<1> : tensor<1xi64>, dense<1> : tensor<1xi64>, dense<0> : tensor<1xi64>, dense<0> : tensor<1xi64>]}, decomposition = @chlo.ragged_dot.impl_1, name = "chlo.ragged_dot", version = 1 : i32}> : (tensor<?x24xf32>, tensor<8x24x16xf32>, tensor<8xi32>) -> tensor<?x16xf32>
  %101:2 = "stablehlo.sort"(%38#1, %37) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%arg6: tensor<i32>, %arg7: tensor<i32>, %arg8: tensor<i32>, %arg9: tensor<i32>):
    %124 = "stablehlo.compare"(%arg6, %arg7) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%124) : (tensor<i1>) -> ()
  }) : (tensor<?xi32>, tensor<?xi32>) -> (tensor<?xi32>, tensor<?xi32>)
  %102 = "stablehlo.compare"(%101#1, %47) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi1>
  %103 = "stablehlo.convert"(%34) : (tensor<i32>) -> tensor<i32>
  %104 = "stablehlo.dynamic_broadcast_in_dim"(%103, %35) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %105 = "stablehlo.add"(%101#1, %104) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %106 = "stablehlo.select"(%102, %105, %101#1) : (tensor<?xi1>, tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %107 = "stablehlo.dynamic_broadcast_in_dim"(%106, %57) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xi32>, tensor<2xi32>) -> tensor<?x1xi32>
  %108 = "stablehlo.broadcast_in_dim"(%103) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<1xi32>
  %109 = "stablehlo.concatenate"(%108, %60) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %110 = "stablehlo.gather"(%109, %65) <{dimension_numbers = #stablehlo.gather<collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1>}> : (tensor<2xi32>, tensor<1x1xi32>) -> tensor<1xi32>
  %111 = "stablehlo.subtract"(%110, %8) : (tensor<1xi32>, tensor<1xi32>) -> tensor<1xi32>
  %112 = "stablehlo.compare"(%107, %68) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction GE>}> : (tensor<?x1xi32>, tensor<?x1xi32>) -> tensor<?x1xi1>
  %113 = "stablehlo.broadcast_in_dim"(%111) <{broadcast_dimensions = array<i64: 1>}> : (tensor<1xi32>) -> tensor<1x1xi32>
  %114 = "stablehlo.dynamic_broadcast_in_dim"(%113, %57) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<1x1xi32>, tensor<2xi32>) -> tensor<?x1xi32>
  %115 = "stablehlo.compare"(%107, %114) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LE>}> : (tensor<?x1xi32>, tensor<?x1xi32>) -> tensor<?x1xi1>
  %116 = "stablehlo.and"(%112, %115) : (tensor<?x1xi1>, tensor<?x1xi1>) -> tensor<?x1xi1>
  %117 = "stablehlo.reduce"(%116, %5) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg6: tensor<i1>, %arg7: tensor<i1>):
    %124 = "stablehlo.and"(%arg6, %arg7) : (tensor<i1>, tensor<i1>) -> tensor<i1>
    "stablehlo.return"(%124) : (tensor<i1>) -> ()
  }) : (tensor<?x1xi1>, tensor<i1>) -> tensor<?xi1>
  %118 = "stablehlo.gather"(%100, %107) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<?x16xf32>, tensor<?x1xi32>) -> tensor<?x16xf32>
  %119 = "stablehlo.dynamic_broadcast_in_dim"(%117, %76) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xi1>, tensor<2xi32>) -> tensor<?x16xi1>
  %120 = "stablehlo.select"(%119, %118, %78) : (tensor<?x16xi1>, tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x16xf32>
  %121 = "stablehlo.concatenate"(%20, %10, %14) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>, tensor<1xi32>) -> tensor<3xi32>
  %122 = "stablehlo.dynamic_reshape"(%120, %121) : (tensor<?x16xf32>, tensor<3xi32>) -> tensor<?x2x16xf32>
  %123 = "stablehlo.dot_general"(%122, %32) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<?x2x16xf32>, tensor<?x2xf32>) -> tensor<?x16xf32>
  return %123 : tensor<?x16xf32>
}

// Softmax before the top-k; counts by a scatter; rows are weighted and added at
// their tokens.

// CHECK-LABEL: func.func @scatter_add(
// CHECK:         linalg.softmax
// CHECK:         moe.gate
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[POSITIONS:.*]] = moe.dispatch %arg0
// CHECK-NOT:     {{sort|scatter|gather\"}}
// CHECK:         %[[SCALE:.*]] = "stablehlo.divide"
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} weights(%{{.*}} : tensor<8x24x16xf32>)
// CHECK:         %[[SUM:.*]] = moe.combine %[[Y]], %[[POSITIONS]] weights(%[[SCALE]] : tensor<5x2xf32>)
// CHECK:         return %[[SUM]]
func.func @scatter_add(%arg0: tensor<5x16xf32>, %arg1: tensor<16x8xf32>, %arg2: tensor<8x16x24xf32>, %arg3: tensor<8x16x24xf32>, %arg4: tensor<8x24x16xf32>) -> tensor<5x16xf32> {
  %0 = "stablehlo.constant"() <{value = dense<1.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %1 = "stablehlo.constant"() <{value = dense<10> : tensor<i32>}> : () -> tensor<i32>
  %2 = "stablehlo.constant"() <{value = dense<5> : tensor<i32>}> : () -> tensor<i32>
  %3 = "stablehlo.constant"() <{value = dense<1> : tensor<i32>}> : () -> tensor<i32>
  %4 = "stablehlo.constant"() <{value = dense<8> : tensor<i32>}> : () -> tensor<i32>
  %5 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %6 = "stablehlo.constant"() <{value = dense<2> : tensor<i32>}> : () -> tensor<i32>
  %7 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %8 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %9 = "stablehlo.dot_general"(%arg0, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<5x16xf32>, tensor<16x8xf32>) -> tensor<5x8xf32>
  %10 = "stablehlo.reduce"(%9, %8) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg5: tensor<f32>, %arg6: tensor<f32>):
    %78 = "stablehlo.maximum"(%arg5, %arg6) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%78) : (tensor<f32>) -> ()
  }) : (tensor<5x8xf32>, tensor<f32>) -> tensor<5xf32>
  %11 = "stablehlo.broadcast_in_dim"(%8) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<5xf32>
  %12 = "stablehlo.maximum"(%11, %10) : (tensor<5xf32>, tensor<5xf32>) -> tensor<5xf32>
  %13 = "stablehlo.broadcast_in_dim"(%12) <{broadcast_dimensions = array<i64: 0>}> : (tensor<5xf32>) -> tensor<5x1xf32>
  %14 = "stablehlo.broadcast_in_dim"(%13) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<5x1xf32>) -> tensor<5x8xf32>
  %15 = "stablehlo.subtract"(%9, %14) : (tensor<5x8xf32>, tensor<5x8xf32>) -> tensor<5x8xf32>
  %16 = "stablehlo.exponential"(%15) : (tensor<5x8xf32>) -> tensor<5x8xf32>
  %17 = "stablehlo.reduce"(%16, %7) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg5: tensor<f32>, %arg6: tensor<f32>):
    %78 = "stablehlo.add"(%arg5, %arg6) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%78) : (tensor<f32>) -> ()
  }) : (tensor<5x8xf32>, tensor<f32>) -> tensor<5xf32>
  %18 = "stablehlo.broadcast_in_dim"(%17) <{broadcast_dimensions = array<i64: 0>}> : (tensor<5xf32>) -> tensor<5x1xf32>
  %19 = "stablehlo.broadcast_in_dim"(%18) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<5x1xf32>) -> tensor<5x8xf32>
  %20 = "stablehlo.divide"(%16, %19) : (tensor<5x8xf32>, tensor<5x8xf32>) -> tensor<5x8xf32>
  %21:2 = "stablehlo.composite"(%20) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<5x8xf32>) -> (tensor<5x2xf32>, tensor<5x2xi32>)
  %22 = "stablehlo.reduce"(%21#0, %7) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg5: tensor<f32>, %arg6: tensor<f32>):
    %78 = "stablehlo.add"(%arg5, %arg6) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%78) : (tensor<f32>) -> ()
  }) : (tensor<5x2xf32>, tensor<f32>) -> tensor<5xf32>
  %23 = "stablehlo.broadcast_in_dim"(%22) <{broadcast_dimensions = array<i64: 0>}> : (tensor<5xf32>) -> tensor<5x1xf32>
  %24 = "stablehlo.broadcast_in_dim"(%23) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<5x1xf32>) -> tensor<5x2xf32>
  %25 = "stablehlo.divide"(%21#0, %24) : (tensor<5x2xf32>, tensor<5x2xf32>) -> tensor<5x2xf32>
  %26 = "stablehlo.reshape"(%21#1) : (tensor<5x2xi32>) -> tensor<10xi32>
  %27 = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<10xi32>
  %28:2 = "stablehlo.sort"(%26, %27) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%arg5: tensor<i32>, %arg6: tensor<i32>, %arg7: tensor<i32>, %arg8: tensor<i32>):
    %78 = "stablehlo.compare"(%arg5, %arg6) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%78) : (tensor<i1>) -> ()
  }) : (tensor<10xi32>, tensor<10xi32>) -> (tensor<10xi32>, tensor<10xi32>)
  %29 = "stablehlo.convert"(%6) : (tensor<i32>) -> tensor<i32>
  %30 = "stablehlo.broadcast_in_dim"(%29) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10xi32>
  %31 = "stablehlo.divide"(%28#1, %30) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %32 = "stablehlo.sign"(%28#1) : (tensor<10xi32>) -> tensor<10xi32>
  %33 = "stablehlo.sign"(%29) : (tensor<i32>) -> tensor<i32>
  %34 = "stablehlo.broadcast_in_dim"(%33) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10xi32>
  %35 = "stablehlo.compare"(%32, %34) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi1>
  %36 = "stablehlo.remainder"(%28#1, %30) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %37 = "stablehlo.broadcast_in_dim"(%5) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10xi32>
  %38 = "stablehlo.compare"(%36, %37) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi1>
  %39 = "stablehlo.and"(%35, %38) : (tensor<10xi1>, tensor<10xi1>) -> tensor<10xi1>
  %40 = "stablehlo.broadcast_in_dim"(%3) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10xi32>
  %41 = "stablehlo.subtract"(%31, %40) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %42 = "stablehlo.select"(%39, %41, %31) : (tensor<10xi1>, tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %43 = "stablehlo.broadcast_in_dim"(%5) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<8xi32>
  %44 = "stablehlo.compare"(%26, %37) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi1>
  %45 = "stablehlo.broadcast_in_dim"(%4) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10xi32>
  %46 = "stablehlo.add"(%26, %45) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %47 = "stablehlo.select"(%44, %46, %26) : (tensor<10xi1>, tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %48 = "stablehlo.broadcast_in_dim"(%47) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xi32>) -> tensor<10x1xi32>
  %49 = "stablehlo.scatter"(%43, %48, %40) <{scatter_dimension_numbers = #stablehlo.scatter<inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}> ({
  ^bb0(%arg5: tensor<i32>, %arg6: tensor<i32>):
    %78 = "stablehlo.add"(%arg5, %arg6) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%78) : (tensor<i32>) -> ()
  }) : (tensor<8xi32>, tensor<10x1xi32>, tensor<10xi32>) -> tensor<8xi32>
  %50 = "stablehlo.compare"(%42, %37) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi1>
  %51 = "stablehlo.broadcast_in_dim"(%2) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10xi32>
  %52 = "stablehlo.add"(%42, %51) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %53 = "stablehlo.select"(%50, %52, %42) : (tensor<10xi1>, tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %54 = "stablehlo.broadcast_in_dim"(%53) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xi32>) -> tensor<10x1xi32>
  %55 = "stablehlo.gather"(%arg0, %54) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<5x16xf32>, tensor<10x1xi32>) -> tensor<10x16xf32>
  %56 = "stablehlo.composite"(%55, %arg2, %49) <{composite_attributes = {precision_config = ["DEFAULT", "DEFAULT"], ragged_dot_dimension_numbers = [dense<> : tensor<0xi64>, dense<> : tensor<0xi64>, dense<1> : tensor<1xi64>, dense<1> : tensor<1xi64>, dense<0> : tensor<1xi64>, dense<0> : tensor<1xi64>]}, decomposition = @chlo.ragged_dot.impl, name = "chlo.ragged_dot", version = 1 : i32}> : (tensor<10x16xf32>, tensor<8x16x24xf32>, tensor<8xi32>) -> tensor<10x24xf32>
  %57 = "stablehlo.composite"(%55, %arg3, %49) <{composite_attributes = {precision_config = ["DEFAULT", "DEFAULT"], ragged_dot_dimension_numbers = [dense<> : tensor<0xi64>, dense<> : tensor<0xi64>, dense<1> : tensor<1xi64>, dense<1> : tensor<1xi64>, dense<0> : tensor<1xi64>, dense<0> : tensor<1xi64>]}, decomposition = @chlo.ragged_dot.impl_0, name = "chlo.ragged_dot", version = 1 : i32}> : (tensor<10x16xf32>, tensor<8x16x24xf32>, tensor<8xi32>) -> tensor<10x24xf32>
  %58 = "stablehlo.negate"(%56) : (tensor<10x24xf32>) -> tensor<10x24xf32>
  %59 = "stablehlo.exponential"(%58) : (tensor<10x24xf32>) -> tensor<10x24xf32>
  %60 = "stablehlo.broadcast_in_dim"(%0) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<10x24xf32>
  %61 = "stablehlo.add"(%60, %59) : (tensor<10x24xf32>, tensor<10x24xf32>) -> tensor<10x24xf32>
  %62 = "stablehlo.divide"(%60, %61) : (tensor<10x24xf32>, tensor<10x24xf32>) -> tensor<10x24xf32>
  %63 = "stablehlo.multiply"(%56, %62) : (tensor<10x24xf32>, tensor<10x24xf32>) -> tensor<10x24xf32>
  %64 = "stablehlo.multiply"(%63, %57) : (tensor<10x24xf32>, tensor<10x24xf32>) -> tensor<10x24xf32>
  %65 = "stablehlo.composite"(%64, %arg4, %49) <{composite_attributes = {precision_config = ["DEFAULT", "DEFAULT"], ragged_dot_dimension_numbers = [dense<> : tensor<0xi64>, dense<> : tensor<0xi64>, dense<1> : tensor<1xi64>, dense<1> : tensor<1xi64>, dense<0> : tensor<1xi64>, dense<0> : tensor<1xi64>]}, decomposition = @chlo.ragged_dot.impl_1, name = "chlo.ragged_dot", version = 1 : i32}> : (tensor<10x24xf32>, tensor<8x24x16xf32>, tensor<8xi32>) -> tensor<10x16xf32>
  %66 = "stablehlo.reshape"(%25) : (tensor<5x2xf32>) -> tensor<10xf32>
  %67 = "stablehlo.compare"(%28#1, %37) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi1>
  %68 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10xi32>
  %69 = "stablehlo.add"(%28#1, %68) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %70 = "stablehlo.select"(%67, %69, %28#1) : (tensor<10xi1>, tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %71 = "stablehlo.broadcast_in_dim"(%70) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xi32>) -> tensor<10x1xi32>
  %72 = "stablehlo.gather"(%66, %71) <{dimension_numbers = #stablehlo.gather<collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1>}> : (tensor<10xf32>, tensor<10x1xi32>) -> tensor<10xf32>
  %73 = "stablehlo.broadcast_in_dim"(%72) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xf32>) -> tensor<10x1xf32>
  %74 = "stablehlo.broadcast_in_dim"(%73) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xf32>) -> tensor<10x16xf32>
  %75 = "stablehlo.multiply"(%65, %74) : (tensor<10x16xf32>, tensor<10x16xf32>) -> tensor<10x16xf32>
  %76 = "stablehlo.broadcast_in_dim"(%7) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<5x16xf32>
  %77 = "stablehlo.scatter"(%76, %54, %75) <{scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1], inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}> ({
  ^bb0(%arg5: tensor<f32>, %arg6: tensor<f32>):
    %78 = "stablehlo.add"(%arg5, %arg6) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%78) : (tensor<f32>) -> ()
  }) : (tensor<5x16xf32>, tensor<10x1xi32>, tensor<10x16xf32>) -> tensor<5x16xf32>
  return %77 : tensor<5x16xf32>
}

// Tokens by repeat, counts by a one-hot sum, the rows return by a scatter.

// CHECK-LABEL: func.func @one_hot_counts(
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[POSITIONS:.*]] = moe.dispatch %arg0, %[[IDS]]
// CHECK-NOT:     {{sort|scatter|gather\"}}
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<9xi32>) weights(%{{.*}} : tensor<8x24x16xf32>)
// CHECK:         moe.combine %[[Y]], %[[POSITIONS]] weights(%[[W]] : tensor<5x2xf32>)
func.func @one_hot_counts(%arg0: tensor<5x16xf32>, %arg1: tensor<16x8xf32>, %arg2: tensor<8x16x24xf32>, %arg3: tensor<8x16x24xf32>, %arg4: tensor<8x24x16xf32>) -> tensor<5x16xf32> {
  %0 = "stablehlo.constant"() <{value = dense<1.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %1 = "stablehlo.constant"() <{value = dense<5> : tensor<i32>}> : () -> tensor<i32>
  %2 = "stablehlo.constant"() <{value = dense<10> : tensor<i32>}> : () -> tensor<i32>
  %3 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %4 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %5 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %6 = "stablehlo.dot_general"(%arg0, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<5x16xf32>, tensor<16x8xf32>) -> tensor<5x8xf32>
  %7 = "stablehlo.reduce"(%6, %5) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg5: tensor<f32>, %arg6: tensor<f32>):
    %62 = "stablehlo.maximum"(%arg5, %arg6) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%62) : (tensor<f32>) -> ()
  }) : (tensor<5x8xf32>, tensor<f32>) -> tensor<5xf32>
  %8 = "stablehlo.broadcast_in_dim"(%5) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<5xf32>
  %9 = "stablehlo.maximum"(%8, %7) : (tensor<5xf32>, tensor<5xf32>) -> tensor<5xf32>
  %10 = "stablehlo.broadcast_in_dim"(%9) <{broadcast_dimensions = array<i64: 0>}> : (tensor<5xf32>) -> tensor<5x1xf32>
  %11 = "stablehlo.broadcast_in_dim"(%10) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<5x1xf32>) -> tensor<5x8xf32>
  %12 = "stablehlo.subtract"(%6, %11) : (tensor<5x8xf32>, tensor<5x8xf32>) -> tensor<5x8xf32>
  %13 = "stablehlo.exponential"(%12) : (tensor<5x8xf32>) -> tensor<5x8xf32>
  %14 = "stablehlo.reduce"(%13, %4) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg5: tensor<f32>, %arg6: tensor<f32>):
    %62 = "stablehlo.add"(%arg5, %arg6) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%62) : (tensor<f32>) -> ()
  }) : (tensor<5x8xf32>, tensor<f32>) -> tensor<5xf32>
  %15 = "stablehlo.broadcast_in_dim"(%14) <{broadcast_dimensions = array<i64: 0>}> : (tensor<5xf32>) -> tensor<5x1xf32>
  %16 = "stablehlo.broadcast_in_dim"(%15) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<5x1xf32>) -> tensor<5x8xf32>
  %17 = "stablehlo.divide"(%13, %16) : (tensor<5x8xf32>, tensor<5x8xf32>) -> tensor<5x8xf32>
  %18:2 = "stablehlo.composite"(%17) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<5x8xf32>) -> (tensor<5x2xf32>, tensor<5x2xi32>)
  %19 = "stablehlo.reshape"(%18#1) : (tensor<5x2xi32>) -> tensor<10xi32>
  %20 = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<10xi32>
  %21:2 = "stablehlo.sort"(%19, %20) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%arg5: tensor<i32>, %arg6: tensor<i32>, %arg7: tensor<i32>, %arg8: tensor<i32>):
    %62 = "stablehlo.compare"(%arg5, %arg6) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%62) : (tensor<i1>) -> ()
  }) : (tensor<10xi32>, tensor<10xi32>) -> (tensor<10xi32>, tensor<10xi32>)
  %22 = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<5xi32>
  %23 = "stablehlo.broadcast_in_dim"(%22) <{broadcast_dimensions = array<i64: 0>}> : (tensor<5xi32>) -> tensor<5x2xi32>
  %24 = "stablehlo.reshape"(%23) : (tensor<5x2xi32>) -> tensor<10xi32>
  %25 = "stablehlo.broadcast_in_dim"(%3) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10xi32>
  %26 = "stablehlo.compare"(%21#1, %25) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi1>
  %27 = "stablehlo.broadcast_in_dim"(%2) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10xi32>
  %28 = "stablehlo.add"(%21#1, %27) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %29 = "stablehlo.select"(%26, %28, %21#1) : (tensor<10xi1>, tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %30 = "stablehlo.broadcast_in_dim"(%29) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xi32>) -> tensor<10x1xi32>
  %31 = "stablehlo.gather"(%24, %30) <{dimension_numbers = #stablehlo.gather<collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1>}> : (tensor<10xi32>, tensor<10x1xi32>) -> tensor<10xi32>
  %32 = "stablehlo.broadcast_in_dim"(%19) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xi32>) -> tensor<10x1xi32>
  %33 = "stablehlo.iota"() <{iota_dimension = 1 : i64}> : () -> tensor<1x8xi32>
  %34 = "stablehlo.broadcast_in_dim"(%32) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xi32>) -> tensor<10x8xi32>
  %35 = "stablehlo.broadcast_in_dim"(%33) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<1x8xi32>) -> tensor<10x8xi32>
  %36 = "stablehlo.compare"(%34, %35) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<10x8xi32>, tensor<10x8xi32>) -> tensor<10x8xi1>
  %37 = "stablehlo.convert"(%36) : (tensor<10x8xi1>) -> tensor<10x8xi32>
  %38 = "stablehlo.reduce"(%37, %3) <{dimensions = array<i64: 0>}> ({
  ^bb0(%arg5: tensor<i32>, %arg6: tensor<i32>):
    %62 = "stablehlo.add"(%arg5, %arg6) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%62) : (tensor<i32>) -> ()
  }) : (tensor<10x8xi32>, tensor<i32>) -> tensor<8xi32>
  %39 = "stablehlo.compare"(%31, %25) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi1>
  %40 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10xi32>
  %41 = "stablehlo.add"(%31, %40) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %42 = "stablehlo.select"(%39, %41, %31) : (tensor<10xi1>, tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %43 = "stablehlo.broadcast_in_dim"(%42) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xi32>) -> tensor<10x1xi32>
  %44 = "stablehlo.gather"(%arg0, %43) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<5x16xf32>, tensor<10x1xi32>) -> tensor<10x16xf32>
  %45 = "stablehlo.composite"(%44, %arg2, %38) <{composite_attributes = {precision_config = ["DEFAULT", "DEFAULT"], ragged_dot_dimension_numbers = [dense<> : tensor<0xi64>, dense<> : tensor<0xi64>, dense<1> : tensor<1xi64>, dense<1> : tensor<1xi64>, dense<0> : tensor<1xi64>, dense<0> : tensor<1xi64>]}, decomposition = @chlo.ragged_dot.impl, name = "chlo.ragged_dot", version = 1 : i32}> : (tensor<10x16xf32>, tensor<8x16x24xf32>, tensor<8xi32>) -> tensor<10x24xf32>
  %46 = "stablehlo.composite"(%44, %arg3, %38) <{composite_attributes = {precision_config = ["DEFAULT", "DEFAULT"], ragged_dot_dimension_numbers = [dense<> : tensor<0xi64>, dense<> : tensor<0xi64>, dense<1> : tensor<1xi64>, dense<1> : tensor<1xi64>, dense<0> : tensor<1xi64>, dense<0> : tensor<1xi64>]}, decomposition = @chlo.ragged_dot.impl_0, name = "chlo.ragged_dot", version = 1 : i32}> : (tensor<10x16xf32>, tensor<8x16x24xf32>, tensor<8xi32>) -> tensor<10x24xf32>
  %47 = "stablehlo.negate"(%45) : (tensor<10x24xf32>) -> tensor<10x24xf32>
  %48 = "stablehlo.exponential"(%47) : (tensor<10x24xf32>) -> tensor<10x24xf32>
  %49 = "stablehlo.broadcast_in_dim"(%0) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<10x24xf32>
  %50 = "stablehlo.add"(%49, %48) : (tensor<10x24xf32>, tensor<10x24xf32>) -> tensor<10x24xf32>
  %51 = "stablehlo.divide"(%49, %50) : (tensor<10x24xf32>, tensor<10x24xf32>) -> tensor<10x24xf32>
  %52 = "stablehlo.multiply"(%45, %51) : (tensor<10x24xf32>, tensor<10x24xf32>) -> tensor<10x24xf32>
  %53 = "stablehlo.multiply"(%52, %46) : (tensor<10x24xf32>, tensor<10x24xf32>) -> tensor<10x24xf32>
  %54 = "stablehlo.composite"(%53, %arg4, %38) <{composite_attributes = {precision_config = ["DEFAULT", "DEFAULT"], ragged_dot_dimension_numbers = [dense<> : tensor<0xi64>, dense<> : tensor<0xi64>, dense<1> : tensor<1xi64>, dense<1> : tensor<1xi64>, dense<0> : tensor<1xi64>, dense<0> : tensor<1xi64>]}, decomposition = @chlo.ragged_dot.impl_1, name = "chlo.ragged_dot", version = 1 : i32}> : (tensor<10x24xf32>, tensor<8x24x16xf32>, tensor<8xi32>) -> tensor<10x16xf32>
  %55 = "stablehlo.broadcast_in_dim"(%4) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<10x16xf32>
  %56 = "stablehlo.scatter"(%55, %30, %54) <{scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1], inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>, unique_indices = true}> ({
  ^bb0(%arg5: tensor<f32>, %arg6: tensor<f32>):
    "stablehlo.return"(%arg6) : (tensor<f32>) -> ()
  }) : (tensor<10x16xf32>, tensor<10x1xi32>, tensor<10x16xf32>) -> tensor<10x16xf32>
  %57 = "stablehlo.reshape"(%56) : (tensor<10x16xf32>) -> tensor<5x2x16xf32>
  %58 = "stablehlo.broadcast_in_dim"(%18#0) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<5x2xf32>) -> tensor<5x2x1xf32>
  %59 = "stablehlo.broadcast_in_dim"(%58) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<5x2x1xf32>) -> tensor<5x2x16xf32>
  %60 = "stablehlo.multiply"(%57, %59) : (tensor<5x2x16xf32>, tensor<5x2x16xf32>) -> tensor<5x2x16xf32>
  %61 = "stablehlo.reduce"(%60, %4) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg5: tensor<f32>, %arg6: tensor<f32>):
    %62 = "stablehlo.add"(%arg5, %arg6) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%62) : (tensor<f32>) -> ()
  }) : (tensor<5x2x16xf32>, tensor<f32>) -> tensor<5x16xf32>
  return %61 : tensor<5x16xf32>
}

// One product for gate and up, which jnp.split divides, of any number of rows.

// CHECK-LABEL: func.func @fused_up(
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[POSITIONS:.*]] = moe.dispatch %arg0
// CHECK-NOT:     {{sort|scatter|gather\"}}
// CHECK:         %[[BOTH:.*]] = moe.grouped_matmul %[[ROWS]]
// CHECK:         tensor.extract_slice %[[BOTH]][0, 0] [%{{.*}}, 24] [1, 1]
// CHECK:         tensor.extract_slice %[[BOTH]][0, 24] [%{{.*}}, 24] [1, 1]
// CHECK-NOT:     linalg.fill
// CHECK:         %[[Y:.*]] = moe.grouped_matmul
// CHECK:         moe.combine %[[Y]], %[[POSITIONS]] weights(
func.func @fused_up(%arg0: tensor<?x16xf32>, %arg1: tensor<16x8xf32>, %arg2: tensor<8x16x48xf32>, %arg3: tensor<8x16x24xf32>, %arg4: tensor<8x16x24xf32>, %arg5: tensor<8x24x16xf32>) -> tensor<?x16xf32> {
  %0 = "stablehlo.constant"() <{value = dense<1.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %1 = "stablehlo.constant"() <{value = dense<2> : tensor<i32>}> : () -> tensor<i32>
  %2 = "stablehlo.constant"() <{value = dense<2> : tensor<1xi32>}> : () -> tensor<1xi32>
  %3 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %4 = "stablehlo.constant"() <{value = dense<8> : tensor<i32>}> : () -> tensor<i32>
  %5 = "stablehlo.constant"() <{value = dense<1> : tensor<1xi32>}> : () -> tensor<1xi32>
  %6 = "stablehlo.constant"() <{value = dense<0> : tensor<1xi32>}> : () -> tensor<1xi32>
  %7 = "stablehlo.constant"() <{value = dense<24> : tensor<1xi32>}> : () -> tensor<1xi32>
  %8 = "stablehlo.constant"() <{value = dense<48> : tensor<1xi32>}> : () -> tensor<1xi32>
  %9 = "stablehlo.constant"() <{value = dense<4.471500e-02> : tensor<f32>}> : () -> tensor<f32>
  %10 = "stablehlo.constant"() <{value = dense<0.797884583> : tensor<f32>}> : () -> tensor<f32>
  %11 = "stablehlo.constant"() <{value = dense<5.000000e-01> : tensor<f32>}> : () -> tensor<f32>
  %12 = "stablehlo.constant"() <{value = dense<16> : tensor<1xi32>}> : () -> tensor<1xi32>
  %13 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %14 = "stablehlo.constant"() <{value = dense<1> : tensor<i32>}> : () -> tensor<i32>
  %15 = "stablehlo.get_dimension_size"(%arg0) <{dimension = 0 : i64}> : (tensor<?x16xf32>) -> tensor<i32>
  %16 = "stablehlo.dot_general"(%arg0, %arg1) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<?x16xf32>, tensor<16x8xf32>) -> tensor<?x8xf32>
  %17:2 = "stablehlo.composite"(%16) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<?x8xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>)
  %18 = "stablehlo.negate"(%17#0) : (tensor<?x2xf32>) -> tensor<?x2xf32>
  %19 = "stablehlo.exponential"(%18) : (tensor<?x2xf32>) -> tensor<?x2xf32>
  %20 = "stablehlo.reshape"(%15) : (tensor<i32>) -> tensor<1xi32>
  %21 = "stablehlo.concatenate"(%20, %2) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %22 = "stablehlo.dynamic_broadcast_in_dim"(%0, %21) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<2xi32>) -> tensor<?x2xf32>
  %23 = "stablehlo.add"(%22, %19) : (tensor<?x2xf32>, tensor<?x2xf32>) -> tensor<?x2xf32>
  %24 = "stablehlo.divide"(%22, %23) : (tensor<?x2xf32>, tensor<?x2xf32>) -> tensor<?x2xf32>
  %25 = "stablehlo.convert"(%15) : (tensor<i32>) -> tensor<i32>
  %26 = "stablehlo.multiply"(%25, %1) : (tensor<i32>, tensor<i32>) -> tensor<i32>
  %27 = "stablehlo.reshape"(%26) : (tensor<i32>) -> tensor<1xi32>
  %28 = "stablehlo.dynamic_reshape"(%17#1, %27) : (tensor<?x2xi32>, tensor<1xi32>) -> tensor<?xi32>
  %29 = "stablehlo.dynamic_iota"(%27) <{iota_dimension = 0 : i64}> : (tensor<1xi32>) -> tensor<?xi32>
  %30:2 = "stablehlo.sort"(%28, %29) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%arg6: tensor<i32>, %arg7: tensor<i32>, %arg8: tensor<i32>, %arg9: tensor<i32>):
    %100 = "stablehlo.compare"(%arg6, %arg7) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%100) : (tensor<i1>) -> ()
  }) : (tensor<?xi32>, tensor<?xi32>) -> (tensor<?xi32>, tensor<?xi32>)
  %31 = "stablehlo.broadcast_in_dim"(%3) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<8xi32>
  %32 = "stablehlo.convert"(%3) : (tensor<i32>) -> tensor<i32>
  %33 = "stablehlo.dynamic_broadcast_in_dim"(%32, %27) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %34 = "stablehlo.maximum"(%33, %28) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %35 = "stablehlo.dynamic_broadcast_in_dim"(%3, %27) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %36 = "stablehlo.compare"(%34, %35) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi1>
  %37 = "stablehlo.dynamic_broadcast_in_dim"(%4, %27) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %38 = "stablehlo.add"(%34, %37) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %39 = "stablehlo.select"(%36, %38, %34) : (tensor<?xi1>, tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %40 = "stablehlo.concatenate"(%27, %5) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %41 = "stablehlo.dynamic_broadcast_in_dim"(%39, %40) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xi32>, tensor<2xi32>) -> tensor<?x1xi32>
  %42 = "stablehlo.dynamic_broadcast_in_dim"(%14, %27) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %43 = "stablehlo.scatter"(%31, %41, %42) <{scatter_dimension_numbers = #stablehlo.scatter<inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}> ({
  ^bb0(%arg6: tensor<i32>, %arg7: tensor<i32>):
    %100 = "stablehlo.add"(%arg6, %arg7) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%100) : (tensor<i32>) -> ()
  }) : (tensor<8xi32>, tensor<?x1xi32>, tensor<?xi32>) -> tensor<8xi32>
  %44 = "stablehlo.convert"(%1) : (tensor<i32>) -> tensor<i32>
  %45 = "stablehlo.dynamic_broadcast_in_dim"(%44, %27) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %46 = "stablehlo.divide"(%30#1, %45) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %47 = "stablehlo.sign"(%30#1) : (tensor<?xi32>) -> tensor<?xi32>
  %48 = "stablehlo.sign"(%44) : (tensor<i32>) -> tensor<i32>
  %49 = "stablehlo.dynamic_broadcast_in_dim"(%48, %27) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %50 = "stablehlo.compare"(%47, %49) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi1>
  %51 = "stablehlo.remainder"(%30#1, %45) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %52 = "stablehlo.compare"(%51, %35) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi1>
  %53 = "stablehlo.and"(%50, %52) : (tensor<?xi1>, tensor<?xi1>) -> tensor<?xi1>
  %54 = "stablehlo.subtract"(%46, %42) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %55 = "stablehlo.select"(%53, %54, %46) : (tensor<?xi1>, tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %56 = "stablehlo.compare"(%55, %35) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi1>
  %57 = "stablehlo.dynamic_broadcast_in_dim"(%25, %27) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %58 = "stablehlo.add"(%55, %57) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %59 = "stablehlo.select"(%56, %58, %55) : (tensor<?xi1>, tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %60 = "stablehlo.dynamic_broadcast_in_dim"(%59, %40) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xi32>, tensor<2xi32>) -> tensor<?x1xi32>
  %61 = "stablehlo.gather"(%arg0, %60) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<?x16xf32>, tensor<?x1xi32>) -> tensor<?x16xf32>
  %62 = "stablehlo.composite"(%61, %arg2, %43) <{composite_attributes = {precision_config = ["DEFAULT", "DEFAULT"], ragged_dot_dimension_numbers = [dense<> : tensor<0xi64>, dense<> : tensor<0xi64>, dense<1> : tensor<1xi64>, dense<1> : tensor<1xi64>, dense<0> : tensor<1xi64>, dense<0> : tensor<1xi64>]}, decomposition = @chlo.ragged_dot.impl, name = "chlo.ragged_dot", version = 1 : i32}> : (tensor<?x16xf32>, tensor<8x16x48xf32>, tensor<8xi32>) -> tensor<?x48xf32>
  %63 = "stablehlo.concatenate"(%6, %6) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %64 = "stablehlo.concatenate"(%27, %7) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %65 = "stablehlo.concatenate"(%5, %5) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %66 = "stablehlo.real_dynamic_slice"(%62, %63, %64, %65) : (tensor<?x48xf32>, tensor<2xi32>, tensor<2xi32>, tensor<2xi32>) -> tensor<?x24xf32>
  %67 = "stablehlo.concatenate"(%6, %7) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %68 = "stablehlo.concatenate"(%27, %8) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %69 = "stablehlo.real_dynamic_slice"(%62, %67, %68, %65) : (tensor<?x48xf32>, tensor<2xi32>, tensor<2xi32>, tensor<2xi32>) -> tensor<?x24xf32>
  %70 = "stablehlo.multiply"(%66, %66) : (tensor<?x24xf32>, tensor<?x24xf32>) -> tensor<?x24xf32>
  %71 = "stablehlo.multiply"(%70, %66) : (tensor<?x24xf32>, tensor<?x24xf32>) -> tensor<?x24xf32>
  %72 = "stablehlo.dynamic_broadcast_in_dim"(%9, %64) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<2xi32>) -> tensor<?x24xf32>
  %73 = "stablehlo.multiply"(%72, %71) : (tensor<?x24xf32>, tensor<?x24xf32>) -> tensor<?x24xf32>
  %74 = "stablehlo.add"(%66, %73) : (tensor<?x24xf32>, tensor<?x24xf32>) -> tensor<?x24xf32>
  %75 = "stablehlo.dynamic_broadcast_in_dim"(%10, %64) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<2xi32>) -> tensor<?x24xf32>
  %76 = "stablehlo.multiply"(%75, %74) : (tensor<?x24xf32>, tensor<?x24xf32>) -> tensor<?x24xf32>
  %77 = "stablehlo.tanh"(%76) : (tensor<?x24xf32>) -> tensor<?x24xf32>
  %78 = "stablehlo.dynamic_broadcast_in_dim"(%0, %64) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<2xi32>) -> tensor<?x24xf32>
  %79 = "stablehlo.add"(%78, %77) : (tensor<?x24xf32>, tensor<?x24xf32>) -> tensor<?x24xf32>
  %80 = "stablehlo.dynamic_broadcast_in_dim"(%11, %64) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<2xi32>) -> tensor<?x24xf32>
  %81 = "stablehlo.multiply"(%80, %79) : (tensor<?x24xf32>, tensor<?x24xf32>) -> tensor<?x24xf32>
  %82 = "stablehlo.multiply"(%66, %81) : (tensor<?x24xf32>, tensor<?x24xf32>) -> tensor<?x24xf32>
  %83 = "stablehlo.multiply"(%82, %69) : (tensor<?x24xf32>, tensor<?x24xf32>) -> tensor<?x24xf32>
  %84 = "stablehlo.composite"(%83, %arg5, %43) <{composite_attributes = {precision_config = ["DEFAULT", "DEFAULT"], ragged_dot_dimension_numbers = [dense<> : tensor<0xi64>, dense<> : tensor<0xi64>, dense<1> : tensor<1xi64>, dense<1> : tensor<1xi64>, dense<0> : tensor<1xi64>, dense<0> : tensor<1xi64>]}, decomposition = @chlo.ragged_dot.impl_0, name = "chlo.ragged_dot", version = 1 : i32}> : (tensor<?x24xf32>, tensor<8x24x16xf32>, tensor<8xi32>) -> tensor<?x16xf32>
  %85:2 = "stablehlo.sort"(%30#1, %29) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%arg6: tensor<i32>, %arg7: tensor<i32>, %arg8: tensor<i32>, %arg9: tensor<i32>):
    %100 = "stablehlo.compare"(%arg6, %arg7) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%100) : (tensor<i1>) -> ()
  }) : (tensor<?xi32>, tensor<?xi32>) -> (tensor<?xi32>, tensor<?xi32>)
  %86 = "stablehlo.convert"(%26) : (tensor<i32>) -> tensor<i32>
  %87 = "stablehlo.compare"(%85#1, %35) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi1>
  %88 = "stablehlo.dynamic_broadcast_in_dim"(%86, %27) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %89 = "stablehlo.add"(%85#1, %88) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %90 = "stablehlo.select"(%87, %89, %85#1) : (tensor<?xi1>, tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %91 = "stablehlo.dynamic_broadcast_in_dim"(%90, %40) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xi32>, tensor<2xi32>) -> tensor<?x1xi32>
  %92 = "stablehlo.gather"(%84, %91) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<?x16xf32>, tensor<?x1xi32>) -> tensor<?x16xf32>
  %93 = "stablehlo.concatenate"(%20, %2, %12) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>, tensor<1xi32>) -> tensor<3xi32>
  %94 = "stablehlo.dynamic_reshape"(%92, %93) : (tensor<?x16xf32>, tensor<3xi32>) -> tensor<?x2x16xf32>
  %95 = "stablehlo.concatenate"(%20, %2, %5) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>, tensor<1xi32>) -> tensor<3xi32>
  %96 = "stablehlo.dynamic_broadcast_in_dim"(%24, %95) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x2xf32>, tensor<3xi32>) -> tensor<?x2x1xf32>
  %97 = "stablehlo.dynamic_broadcast_in_dim"(%96, %93) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<?x2x1xf32>, tensor<3xi32>) -> tensor<?x2x16xf32>
  %98 = "stablehlo.multiply"(%94, %97) : (tensor<?x2x16xf32>, tensor<?x2x16xf32>) -> tensor<?x2x16xf32>
  %99 = "stablehlo.reduce"(%98, %13) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg6: tensor<f32>, %arg7: tensor<f32>):
    %100 = "stablehlo.add"(%arg6, %arg7) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%100) : (tensor<f32>) -> ()
  }) : (tensor<?x2x16xf32>, tensor<f32>) -> tensor<?x16xf32>
  return %99 : tensor<?x16xf32>
}
