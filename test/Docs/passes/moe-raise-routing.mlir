// RUN: moe-opt %s --allow-unregistered-dialect --moe-raise-routing | FileCheck %s

// The rows of the tokens, sorted by the expert that each chose.
// CHECK-LABEL: func.func @sorted_rows(
// CHECK-NEXT:    %[[WEIGHTS:.*]], %[[IDS:.*]] = moe.gate %arg1 top_k(1) score(none)
// CHECK-NEXT:    %[[ROWS:.*]], %{{.*}}, %{{.*}} = moe.dispatch %arg0, %[[IDS]] experts(8)
// CHECK-NEXT:    return %[[ROWS]]
func.func @sorted_rows(%x: tensor<5x16xf32>, %logits: tensor<5x8xf32>) -> tensor<5x16xf32> {
  %weights, %ids = "chlo.top_k"(%logits) <{k = 1 : i64}> : (tensor<5x8xf32>) -> (tensor<5x1xf32>, tensor<5x1xi32>)
  %flat = "stablehlo.reshape"(%ids) : (tensor<5x1xi32>) -> tensor<5xi32>
  %iota = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<5xi32>
  %sorted:2 = "stablehlo.sort"(%flat, %iota) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>, %c: tensor<i32>, %d: tensor<i32>):
    %less = "stablehlo.compare"(%a, %b) <{comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%less) : (tensor<i1>) -> ()
  }) : (tensor<5xi32>, tensor<5xi32>) -> (tensor<5xi32>, tensor<5xi32>)
  %one = "stablehlo.constant"() <{value = dense<1> : tensor<5xi32>}> : () -> tensor<5xi32>
  %tokens = "stablehlo.divide"(%sorted#1, %one) : (tensor<5xi32>, tensor<5xi32>) -> tensor<5xi32>
  %indices = "stablehlo.reshape"(%tokens) : (tensor<5xi32>) -> tensor<5x1xi32>
  %rows = "stablehlo.gather"(%x, %indices) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0],
      start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<5x16xf32>, tensor<5x1xi32>) -> tensor<5x16xf32>
  return %rows : tensor<5x16xf32>
}
