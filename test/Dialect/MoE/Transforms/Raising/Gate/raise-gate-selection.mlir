// RUN: moe-opt %s --moe-raise-gate --canonicalize -split-input-file | FileCheck %s

#id = affine_map<(d0, d1) -> (d0, d1)>
#row = affine_map<(d0, d1) -> (d1)>

// CHECK-LABEL: @bias
// CHECK-NEXT: %[[W:.*]], %{{.*}} = moe.gate %arg0 bias(%arg1 : tensor<8xf32>) top_k(2) score(none)
// CHECK-NEXT: return %[[W]]
func.func @bias(%scores: tensor<?x8xf32>, %bias: tensor<8xf32>, %t: index)
    -> tensor<?x2xf32> {
  %empty = tensor.empty(%t) : tensor<?x8xf32>
  %sum = linalg.generic {indexing_maps = [#id, #row, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%scores, %bias : tensor<?x8xf32>, tensor<8xf32>)
      outs(%empty : tensor<?x8xf32>) {
  ^bb0(%a: f32, %b: f32, %old: f32):
    %r = arith.addf %a, %b : f32
    linalg.yield %r : f32
  } -> tensor<?x8xf32>
  %w, %ids = moe.gate %sum top_k(2) score(none) : tensor<?x8xf32>
  %wideEmpty = tensor.empty(%t) : tensor<?x2xi64>
  %wide = linalg.generic {indexing_maps = [#id, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%ids : tensor<?x2xi32>) outs(%wideEmpty : tensor<?x2xi64>) {
  ^bb0(%i: i32, %old: i64):
    %r = arith.extsi %i : i32 to i64
    linalg.yield %r : i64
  } -> tensor<?x2xi64>
  %gatherEmpty = tensor.empty(%t) : tensor<?x2xf32>
  %weights = linalg.generic {indexing_maps = [#id, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%wide : tensor<?x2xi64>) outs(%gatherEmpty : tensor<?x2xf32>) {
  ^bb0(%i: i64, %old: f32):
    %row = linalg.index 0 : index
    %column = arith.index_cast %i : i64 to index
    %r = tensor.extract %scores[%row, %column] : tensor<?x8xf32>
    linalg.yield %r : f32
  } -> tensor<?x2xf32>
  return %weights : tensor<?x2xf32>
}

// -----

#id = affine_map<(d0, d1) -> (d0, d1)>
#row = affine_map<(d0, d1) -> (d1)>

// The weights contain the bias, or the sum is rounded: both are left.
// CHECK-LABEL: @weights_with_bias
// CHECK: moe.gate %{{.*}} top_k(2) score(none) : tensor<?x8xf32>
// CHECK: moe.gate %{{.*}} top_k(2) score(none) score_type(bf16) : tensor<?x8xbf16>
func.func @weights_with_bias(%scores: tensor<?x8xf32>, %bias: tensor<8xf32>,
                             %narrow: tensor<?x8xbf16>, %t: index)
    -> (tensor<?x2xf32>, tensor<?x2xbf16>) {
  %empty = tensor.empty(%t) : tensor<?x8xf32>
  %sum = linalg.generic {indexing_maps = [#id, #row, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%scores, %bias : tensor<?x8xf32>, tensor<8xf32>)
      outs(%empty : tensor<?x8xf32>) {
  ^bb0(%a: f32, %b: f32, %old: f32):
    %r = arith.addf %a, %b : f32
    linalg.yield %r : f32
  } -> tensor<?x8xf32>
  %w, %ids = moe.gate %sum top_k(2) score(none) : tensor<?x8xf32>

  %narrowEmpty = tensor.empty(%t) : tensor<?x8xbf16>
  %rounded = linalg.generic {indexing_maps = [#id, #row, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%narrow, %bias : tensor<?x8xbf16>, tensor<8xf32>)
      outs(%narrowEmpty : tensor<?x8xbf16>) {
  ^bb0(%a: bf16, %b: f32, %old: bf16):
    %wide = arith.extf %a : bf16 to f32
    %s = arith.addf %wide, %b : f32
    %r = arith.truncf %s : f32 to bf16
    linalg.yield %r : bf16
  } -> tensor<?x8xbf16>
  %w1, %ids1 = moe.gate %rounded top_k(2) score(none) score_type(bf16)
    : tensor<?x8xbf16>
  %gatherEmpty = tensor.empty(%t) : tensor<?x2xbf16>
  %weights = linalg.generic {indexing_maps = [#id, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%ids1 : tensor<?x2xi32>) outs(%gatherEmpty : tensor<?x2xbf16>) {
  ^bb0(%i: i32, %old: bf16):
    %row = linalg.index 0 : index
    %column = arith.index_cast %i : i32 to index
    %r = tensor.extract %narrow[%row, %column] : tensor<?x8xbf16>
    linalg.yield %r : bf16
  } -> tensor<?x2xbf16>
  return %w, %weights : tensor<?x2xf32>, tensor<?x2xbf16>
}

// -----

#id = affine_map<(d0, d1) -> (d0, d1)>

// Weights gathered from the scores of the selection; a gather along the other
// dimension is something else.
// CHECK-LABEL: @gather
// CHECK-NEXT: %[[W:.*]], %[[IDS:.*]] = moe.gate %arg0 top_k(2) score(none)
// CHECK: %[[OTHER:.*]] = linalg.generic {{.*}} ins(%[[IDS]]
// CHECK: return %[[W]], %[[OTHER]]
func.func @gather(%scores: tensor<8x8xf32>)
    -> (tensor<8x2xf32>, tensor<8x2xf32>) {
  %w, %ids = moe.gate %scores top_k(2) score(none) : tensor<8x8xf32>
  %empty = tensor.empty() : tensor<8x2xf32>
  %weights = linalg.generic {indexing_maps = [#id, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%ids : tensor<8x2xi32>) outs(%empty : tensor<8x2xf32>) {
  ^bb0(%i: i32, %old: f32):
    %row = linalg.index 0 : index
    %column = arith.index_cast %i : i32 to index
    %r = tensor.extract %scores[%row, %column] : tensor<8x8xf32>
    linalg.yield %r : f32
  } -> tensor<8x2xf32>
  %other = linalg.generic {indexing_maps = [#id, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%ids : tensor<8x2xi32>) outs(%empty : tensor<8x2xf32>) {
  ^bb0(%i: i32, %old: f32):
    %row = linalg.index 0 : index
    %column = arith.index_cast %i : i32 to index
    %r = tensor.extract %scores[%column, %row] : tensor<8x8xf32>
    linalg.yield %r : f32
  } -> tensor<8x2xf32>
  return %weights, %other : tensor<8x2xf32>, tensor<8x2xf32>
}

// -----

#id = affine_map<(d0, d1) -> (d0, d1)>
#row = affine_map<(d0, d1) -> (d1)>
#vector = affine_map<(d0) -> (d0)>

// One choice, gathered as a vector by a vector of ids.
// CHECK-LABEL: @single_choice
// CHECK-NEXT: %[[W:.*]], %{{.*}} = moe.gate %arg0 bias(%arg1 : tensor<8xf32>) top_k(1) score(none)
// CHECK-NEXT: %[[VECTOR:.*]] = tensor.collapse_shape %[[W]]
// CHECK-NEXT: return %[[VECTOR]]
func.func @single_choice(%scores: tensor<?x8xf32>, %bias: tensor<8xf32>,
                         %t: index) -> tensor<?xf32> {
  %empty = tensor.empty(%t) : tensor<?x8xf32>
  %sum = linalg.generic {indexing_maps = [#id, #row, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%scores, %bias : tensor<?x8xf32>, tensor<8xf32>)
      outs(%empty : tensor<?x8xf32>) {
  ^bb0(%a: f32, %b: f32, %old: f32):
    %r = arith.addf %a, %b : f32
    linalg.yield %r : f32
  } -> tensor<?x8xf32>
  %w, %ids = moe.gate %sum top_k(1) score(none) : tensor<?x8xf32>
  %flat = tensor.collapse_shape %ids [[0, 1]] : tensor<?x1xi32> into tensor<?xi32>
  %wideEmpty = tensor.empty(%t) : tensor<?xi64>
  %wide = linalg.generic {indexing_maps = [#vector, #vector],
      iterator_types = ["parallel"]}
      ins(%flat : tensor<?xi32>) outs(%wideEmpty : tensor<?xi64>) {
  ^bb0(%i: i32, %old: i64):
    %r = arith.extsi %i : i32 to i64
    linalg.yield %r : i64
  } -> tensor<?xi64>
  %gatherEmpty = tensor.empty(%t) : tensor<?xf32>
  %weights = linalg.generic {indexing_maps = [#vector, #vector],
      iterator_types = ["parallel"]}
      ins(%wide : tensor<?xi64>) outs(%gatherEmpty : tensor<?xf32>) {
  ^bb0(%i: i64, %old: f32):
    %row = linalg.index 0 : index
    %column = arith.index_cast %i : i64 to index
    %r = tensor.extract %scores[%row, %column] : tensor<?x8xf32>
    linalg.yield %r : f32
  } -> tensor<?xf32>
  return %weights : tensor<?xf32>
}
