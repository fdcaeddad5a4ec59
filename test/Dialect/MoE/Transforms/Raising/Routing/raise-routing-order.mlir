// RUN: moe-opt %s --allow-unregistered-dialect --moe-raise-routing | FileCheck %s

// Rows that are weighed before the experts, by the order of the choices, and a
// bias of each row's expert, by the sorted ids: no sort is left.

// CHECK-LABEL: func.func public @order(
// CHECK:         %{{.*}}, %[[IDS:.*]] = moe.gate
// CHECK:         %[[TOKENS:.*]], %{{.*}}, %{{.*}} = moe.route %[[IDS]] experts(3)
// CHECK:         %{{.*}}, %[[OFFSETS:.*]], %{{.*}} = moe.dispatch %arg0, %[[IDS]] experts(3)
// CHECK:         %[[ENDS:.*]] = tensor.extract_slice %[[OFFSETS]][1] [2] [1]
// CHECK:         %[[EXPERTS:.*]] = linalg.generic {{{.*}}} ins(%[[ENDS]] : tensor<2xi32>)
// CHECK:           linalg.index 0
// CHECK:           arith.cmpi sge
// CHECK:         %[[ORDER:.*]] = linalg.generic {{{.*}}} ins(%[[TOKENS]], %[[EXPERTS]] : tensor<10xi32>, tensor<10xi32>)
// CHECK:           tensor.extract %[[IDS]]
// CHECK:           arith.select
// CHECK-NOT:     stablehlo.sort
// CHECK:         "stablehlo.broadcast_in_dim"(%[[ORDER]])
// CHECK:         "stablehlo.broadcast_in_dim"(%[[EXPERTS]])
// CHECK:         moe.combine

"func.func"() <{function_type = (tensor<5x4xf32>, tensor<4x3xf32>, tensor<3x4x6xf32>, tensor<3x6xf32>) -> tensor<5x6xf32>, res_attrs = [{jax.result_info = "result"}], sym_name = "order", sym_visibility = "public"}> ({
^bb0(%arg8: tensor<5x4xf32>, %arg9: tensor<4x3xf32>, %arg10: tensor<3x4x6xf32>, %arg11: tensor<3x6xf32>):
  %48 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %49 = "stablehlo.constant"() <{value = dense<10> : tensor<i32>}> : () -> tensor<i32>
  %50 = "stablehlo.constant"() <{value = dense<5> : tensor<i32>}> : () -> tensor<i32>
  %51 = "stablehlo.constant"() <{value = dense<2> : tensor<i32>}> : () -> tensor<i32>
  %52 = "stablehlo.constant"() <{value = dense<1> : tensor<i32>}> : () -> tensor<i32>
  %53 = "stablehlo.constant"() <{value = dense<3> : tensor<i32>}> : () -> tensor<i32>
  %54 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %55 = "stablehlo.dot_general"(%arg8, %arg9) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<5x4xf32>, tensor<4x3xf32>) -> tensor<5x3xf32>
  %56:2 = "stablehlo.composite"(%55) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<5x3xf32>) -> (tensor<5x2xf32>, tensor<5x2xi32>)
  %57 = "stablehlo.reshape"(%56#1) : (tensor<5x2xi32>) -> tensor<10xi32>
  %58 = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<10xi32>
  %59:2 = "stablehlo.sort"(%57, %58) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%arg20: tensor<i32>, %arg21: tensor<i32>, %arg22: tensor<i32>, %arg23: tensor<i32>):
    %119 = "stablehlo.compare"(%arg20, %arg21) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%119) : (tensor<i1>) -> ()
  }) : (tensor<10xi32>, tensor<10xi32>) -> (tensor<10xi32>, tensor<10xi32>)
  %60 = "stablehlo.broadcast_in_dim"(%54) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<3xi32>
  %61 = "stablehlo.convert"(%54) : (tensor<i32>) -> tensor<i32>
  %62 = "stablehlo.broadcast_in_dim"(%61) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10xi32>
  %63 = "stablehlo.maximum"(%62, %57) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %64 = "stablehlo.broadcast_in_dim"(%54) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10xi32>
  %65 = "stablehlo.compare"(%63, %64) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi1>
  %66 = "stablehlo.broadcast_in_dim"(%53) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10xi32>
  %67 = "stablehlo.add"(%63, %66) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %68 = "stablehlo.select"(%65, %67, %63) : (tensor<10xi1>, tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %69 = "stablehlo.broadcast_in_dim"(%68) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xi32>) -> tensor<10x1xi32>
  %70 = "stablehlo.broadcast_in_dim"(%52) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10xi32>
  %71 = "stablehlo.scatter"(%60, %69, %70) <{scatter_dimension_numbers = #stablehlo.scatter<inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}> ({
  ^bb0(%arg18: tensor<i32>, %arg19: tensor<i32>):
    %118 = "stablehlo.add"(%arg18, %arg19) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%118) : (tensor<i32>) -> ()
  }) : (tensor<3xi32>, tensor<10x1xi32>, tensor<10xi32>) -> tensor<3xi32>
  %72 = "stablehlo.convert"(%51) : (tensor<i32>) -> tensor<i32>
  %73 = "stablehlo.broadcast_in_dim"(%72) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10xi32>
  %74 = "stablehlo.divide"(%59#1, %73) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %75 = "stablehlo.sign"(%59#1) : (tensor<10xi32>) -> tensor<10xi32>
  %76 = "stablehlo.sign"(%72) : (tensor<i32>) -> tensor<i32>
  %77 = "stablehlo.broadcast_in_dim"(%76) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10xi32>
  %78 = "stablehlo.compare"(%75, %77) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi1>
  %79 = "stablehlo.remainder"(%59#1, %73) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %80 = "stablehlo.compare"(%79, %64) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi1>
  %81 = "stablehlo.and"(%78, %80) : (tensor<10xi1>, tensor<10xi1>) -> tensor<10xi1>
  %82 = "stablehlo.subtract"(%74, %70) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %83 = "stablehlo.select"(%81, %82, %74) : (tensor<10xi1>, tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %84 = "stablehlo.compare"(%83, %64) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi1>
  %85 = "stablehlo.broadcast_in_dim"(%50) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10xi32>
  %86 = "stablehlo.add"(%83, %85) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %87 = "stablehlo.select"(%84, %86, %83) : (tensor<10xi1>, tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %88 = "stablehlo.broadcast_in_dim"(%87) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xi32>) -> tensor<10x1xi32>
  %89 = "stablehlo.gather"(%arg8, %88) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 4>}> : (tensor<5x4xf32>, tensor<10x1xi32>) -> tensor<10x4xf32>
  %90 = "stablehlo.reshape"(%56#0) : (tensor<5x2xf32>) -> tensor<10xf32>
  %91 = "stablehlo.compare"(%59#1, %64) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi1>
  %92 = "stablehlo.broadcast_in_dim"(%49) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<10xi32>
  %93 = "stablehlo.add"(%59#1, %92) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %94 = "stablehlo.select"(%91, %93, %59#1) : (tensor<10xi1>, tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %95 = "stablehlo.broadcast_in_dim"(%94) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xi32>) -> tensor<10x1xi32>
  %96 = "stablehlo.gather"(%90, %95) <{dimension_numbers = #stablehlo.gather<collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1>}> : (tensor<10xf32>, tensor<10x1xi32>) -> tensor<10xf32>
  %97 = "stablehlo.broadcast_in_dim"(%96) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xf32>) -> tensor<10x1xf32>
  %98 = "stablehlo.broadcast_in_dim"(%97) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xf32>) -> tensor<10x4xf32>
  %99 = "stablehlo.multiply"(%89, %98) : (tensor<10x4xf32>, tensor<10x4xf32>) -> tensor<10x4xf32>
  %100 = "stablehlo.composite"(%99, %arg10, %71) <{composite_attributes = {precision_config = ["DEFAULT", "DEFAULT"], ragged_dot_dimension_numbers = [dense<> : tensor<0xi64>, dense<> : tensor<0xi64>, dense<1> : tensor<1xi64>, dense<1> : tensor<1xi64>, dense<0> : tensor<1xi64>, dense<0> : tensor<1xi64>]}, decomposition = @chlo.ragged_dot.impl, name = "chlo.ragged_dot", version = 1 : i32}> : (tensor<10x4xf32>, tensor<3x4x6xf32>, tensor<3xi32>) -> tensor<10x6xf32>
  %101 = "stablehlo.gather"(%57, %95) <{dimension_numbers = #stablehlo.gather<collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1>}> : (tensor<10xi32>, tensor<10x1xi32>) -> tensor<10xi32>
  %102 = "stablehlo.compare"(%101, %64) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi1>
  %103 = "stablehlo.add"(%101, %66) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %104 = "stablehlo.select"(%102, %103, %101) : (tensor<10xi1>, tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %105 = "stablehlo.broadcast_in_dim"(%104) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xi32>) -> tensor<10x1xi32>
  %106 = "stablehlo.gather"(%arg11, %105) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 6>}> : (tensor<3x6xf32>, tensor<10x1xi32>) -> tensor<10x6xf32>
  %107 = "stablehlo.add"(%100, %106) : (tensor<10x6xf32>, tensor<10x6xf32>) -> tensor<10x6xf32>
  %108:2 = "stablehlo.sort"(%59#1, %58) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%arg14: tensor<i32>, %arg15: tensor<i32>, %arg16: tensor<i32>, %arg17: tensor<i32>):
    %117 = "stablehlo.compare"(%arg14, %arg15) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%117) : (tensor<i1>) -> ()
  }) : (tensor<10xi32>, tensor<10xi32>) -> (tensor<10xi32>, tensor<10xi32>)
  %109 = "stablehlo.compare"(%108#1, %64) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi1>
  %110 = "stablehlo.add"(%108#1, %92) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %111 = "stablehlo.select"(%109, %110, %108#1) : (tensor<10xi1>, tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %112 = "stablehlo.broadcast_in_dim"(%111) <{broadcast_dimensions = array<i64: 0>}> : (tensor<10xi32>) -> tensor<10x1xi32>
  %113 = "stablehlo.gather"(%107, %112) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 6>}> : (tensor<10x6xf32>, tensor<10x1xi32>) -> tensor<10x6xf32>
  %114 = "stablehlo.reshape"(%113) : (tensor<10x6xf32>) -> tensor<5x2x6xf32>
  %115 = "stablehlo.reduce"(%114, %48) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg12: tensor<f32>, %arg13: tensor<f32>):
    %116 = "stablehlo.add"(%arg12, %arg13) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%116) : (tensor<f32>) -> ()
  }) : (tensor<5x2x6xf32>, tensor<f32>) -> tensor<5x6xf32>
  "func.return"(%115) : (tensor<5x6xf32>) -> ()
}) : () -> ()
