// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-routing | FileCheck %s

// Other masks than one of the ids, and other sums.
// RUN: sed 's/arith.cmpi eq, %in, %in_/arith.cmpi sge, %in, %in_/' %s | moe-opt - --split-input-file --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=MASK
// RUN: sed 's/arith.addf %in, %out/arith.mulf %in, %out/' %s | moe-opt - --split-input-file --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE

// MASK-LABEL: func.func @einsum(
// MASK-NOT:     moe.dispatch
// MASK-LABEL: func.func @gathered(
// MASK:         moe.dispatch
// NONE-NOT:   moe.dispatch

// Programs of linalg, as torch-mlir and JAX lower them, whose choices are those
// of a gate.

// All experts on all tokens, as einsums, with any number of tokens.

// CHECK-LABEL: func.func @einsum(
// CHECK-SAME:      %[[X:[^ ]*]]: tensor<?x32xf32>, %{{.*}}, %[[UP:[^ ]*]]: tensor<8x96x32xf32>, %[[DOWN:[^ ]*]]: tensor<8x32x48xf32>
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %[[X]], %[[IDS]] experts(8)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<9xi32>) weights(%[[UP]] : tensor<8x96x32xf32>) transposed
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<9xi32>) weights(%[[DOWN]] : tensor<8x32x48xf32>) transposed
// CHECK:         %[[SUM:.*]] = moe.combine %[[Y]], %[[PLACES]] weights(%[[W]] :
// CHECK:         return %[[SUM]]
#map = affine_map<(d0) -> (d0)>
#map1 = affine_map<(d0, d1, d2) -> (d0, d1, 0)>
#map2 = affine_map<(d0, d1, d2) -> (d2)>
#map3 = affine_map<(d0, d1, d2) -> (d0, d1, d2)>
#map4 = affine_map<(d0, d1, d2) -> (d0, d2)>
func.func @einsum(%arg0: tensor<?x32xf32>, %router: tensor<32x8xf32>, %arg3: tensor<8x96x32xf32>, %arg4: tensor<8x32x48xf32>) -> tensor<?x32xf32> {
  %zero = arith.constant 0 : index
  %first = tensor.dim %arg0, %zero : tensor<?x32xf32>
  %none = arith.constant 0.0 : f32
  %empty = tensor.empty(%first) : tensor<?x8xf32>
  %from = linalg.fill ins(%none : f32) outs(%empty : tensor<?x8xf32>) -> tensor<?x8xf32>
  %scores = linalg.matmul ins(%arg0, %router : tensor<?x32xf32>, tensor<32x8xf32>) outs(%from : tensor<?x8xf32>) -> tensor<?x8xf32>
  %arg1, %narrow = moe.gate %scores top_k(3) score(softmax) : tensor<?x8xf32>
  %arg2 = arith.extsi %narrow : tensor<?x3xi32> to tensor<?x3xi64>
  %c0 = arith.constant 0 : index
  %cst = arith.constant 0.000000e+00 : f32
  %cst_0 = arith.constant 1.000000e+00 : f32
  %0 = tensor.empty() : tensor<8xi64>
  %1 = linalg.generic {indexing_maps = [#map], iterator_types = ["parallel"]} outs(%0 : tensor<8xi64>) {
  ^bb0(%out: i64):
    %35 = linalg.index 0 : index
    %36 = arith.index_cast %35 : index to i64
    linalg.yield %36 : i64
  } -> tensor<8xi64>
  %dim = tensor.dim %arg2, %c0 : tensor<?x3xi64>
  %expanded = tensor.expand_shape %arg2 [[0], [1, 2]] output_shape [%dim, 3, 1] : tensor<?x3xi64> into tensor<?x3x1xi64>
  %2 = tensor.empty(%dim) : tensor<?x3x8xi1>
  %3 = linalg.generic {indexing_maps = [#map1, #map2, #map3], iterator_types = ["parallel", "parallel", "parallel"]} ins(%expanded, %1 : tensor<?x3x1xi64>, tensor<8xi64>) outs(%2 : tensor<?x3x8xi1>) {
  ^bb0(%in: i64, %in_24: i64, %out: i1):
    %35 = arith.cmpi eq, %in, %in_24 : i64
    linalg.yield %35 : i1
  } -> tensor<?x3x8xi1>
  %4 = tensor.empty(%dim) : tensor<?x3x8xi64>
  %5 = linalg.generic {indexing_maps = [#map3, #map3], iterator_types = ["parallel", "parallel", "parallel"]} ins(%3 : tensor<?x3x8xi1>) outs(%4 : tensor<?x3x8xi64>) {
  ^bb0(%in: i1, %out: i64):
    %35 = arith.extui %in : i1 to i64
    linalg.yield %35 : i64
  } -> tensor<?x3x8xi64>
  %6 = tensor.empty(%dim) : tensor<?x3x8xf32>
  %7 = linalg.generic {indexing_maps = [#map3, #map3], iterator_types = ["parallel", "parallel", "parallel"]} ins(%5 : tensor<?x3x8xi64>) outs(%6 : tensor<?x3x8xf32>) {
  ^bb0(%in: i64, %out: f32):
    %35 = arith.sitofp %in : i64 to f32
    linalg.yield %35 : f32
  } -> tensor<?x3x8xf32>
  %dim_1 = tensor.dim %arg1, %c0 : tensor<?x3xf32>
  %expanded_2 = tensor.expand_shape %arg1 [[0], [1, 2]] output_shape [%dim_1, 3, 1] : tensor<?x3xf32> into tensor<?x3x1xf32>
  %8 = arith.cmpi eq, %dim, %dim_1 : index
  cf.assert %8, "mismatched size for broadcast"
  %9 = linalg.generic {indexing_maps = [#map3, #map1, #map3], iterator_types = ["parallel", "parallel", "parallel"]} ins(%7, %expanded_2 : tensor<?x3x8xf32>, tensor<?x3x1xf32>) outs(%6 : tensor<?x3x8xf32>) {
  ^bb0(%in: f32, %in_24: f32, %out: f32):
    %35 = arith.mulf %in, %in_24 : f32
    linalg.yield %35 : f32
  } -> tensor<?x3x8xf32>
  %10 = tensor.empty(%dim) : tensor<?x8xf32>
  %11 = linalg.fill ins(%cst : f32) outs(%10 : tensor<?x8xf32>) -> tensor<?x8xf32>
  %12 = linalg.generic {indexing_maps = [#map3, #map4], iterator_types = ["parallel", "reduction", "parallel"]} ins(%9 : tensor<?x3x8xf32>) outs(%11 : tensor<?x8xf32>) {
  ^bb0(%in: f32, %out: f32):
    %35 = arith.addf %in, %out : f32
    linalg.yield %35 : f32
  } -> tensor<?x8xf32>
  %expanded_3 = tensor.expand_shape %arg3 [[0], [1], [2, 3]] output_shape [8, 96, 32, 1] : tensor<8x96x32xf32> into tensor<8x96x32x1xf32>
  %dim_4 = tensor.dim %arg0, %c0 : tensor<?x32xf32>
  %expanded_5 = tensor.expand_shape %arg0 [[0, 1], [2]] output_shape [1, %dim_4, 32] : tensor<?x32xf32> into tensor<1x?x32xf32>
  %13 = tensor.empty() : tensor<32x8x96x1xf32>
  %transposed = linalg.transpose ins(%expanded_3 : tensor<8x96x32x1xf32>) outs(%13 : tensor<32x8x96x1xf32>) permutation = [2, 0, 1, 3] 
  %collapsed = tensor.collapse_shape %transposed [[0], [1, 2, 3]] : tensor<32x8x96x1xf32> into tensor<32x768xf32>
  %expanded_6 = tensor.expand_shape %collapsed [[0, 1], [2]] output_shape [1, 32, 768] : tensor<32x768xf32> into tensor<1x32x768xf32>
  %14 = tensor.empty(%dim_4) : tensor<1x?x768xf32>
  %15 = linalg.fill ins(%cst : f32) outs(%14 : tensor<1x?x768xf32>) -> tensor<1x?x768xf32>
  %16 = linalg.batch_matmul ins(%expanded_5, %expanded_6 : tensor<1x?x32xf32>, tensor<1x32x768xf32>) outs(%15 : tensor<1x?x768xf32>) -> tensor<1x?x768xf32>
  %collapsed_7 = tensor.collapse_shape %16 [[0, 1], [2]] : tensor<1x?x768xf32> into tensor<?x768xf32>
  %expanded_8 = tensor.expand_shape %collapsed_7 [[0], [1, 2, 3]] output_shape [%dim_4, 1, 8, 96] : tensor<?x768xf32> into tensor<?x1x8x96xf32>
  %17 = tensor.empty(%dim_4) : tensor<?x8x96x1xf32>
  %transposed_9 = linalg.transpose ins(%expanded_8 : tensor<?x1x8x96xf32>) outs(%17 : tensor<?x8x96x1xf32>) permutation = [0, 2, 3, 1] 
  %collapsed_10 = tensor.collapse_shape %transposed_9 [[0], [1], [2, 3]] : tensor<?x8x96x1xf32> into tensor<?x8x96xf32>
  %extracted_slice = tensor.extract_slice %collapsed_10[0, 0, 0] [%dim_4, 8, 48] [1, 1, 1] : tensor<?x8x96xf32> to tensor<?x8x48xf32>
  %extracted_slice_11 = tensor.extract_slice %collapsed_10[0, 0, 48] [%dim_4, 8, 48] [1, 1, 1] : tensor<?x8x96xf32> to tensor<?x8x48xf32>
  %18 = tensor.empty(%dim_4) : tensor<?x8x48xf32>
  %19 = linalg.generic {indexing_maps = [#map3, #map3], iterator_types = ["parallel", "parallel", "parallel"]} ins(%extracted_slice : tensor<?x8x48xf32>) outs(%18 : tensor<?x8x48xf32>) {
  ^bb0(%in: f32, %out: f32):
    %35 = arith.negf %in : f32
    %36 = math.exp %35 : f32
    %37 = arith.addf %36, %cst_0 : f32
    %38 = arith.divf %cst_0, %37 : f32
    linalg.yield %38 : f32
  } -> tensor<?x8x48xf32>
  %20 = linalg.generic {indexing_maps = [#map3, #map3, #map3], iterator_types = ["parallel", "parallel", "parallel"]} ins(%extracted_slice, %19 : tensor<?x8x48xf32>, tensor<?x8x48xf32>) outs(%18 : tensor<?x8x48xf32>) {
  ^bb0(%in: f32, %in_24: f32, %out: f32):
    %35 = arith.mulf %in, %in_24 : f32
    linalg.yield %35 : f32
  } -> tensor<?x8x48xf32>
  %21 = linalg.generic {indexing_maps = [#map3, #map3, #map3], iterator_types = ["parallel", "parallel", "parallel"]} ins(%20, %extracted_slice_11 : tensor<?x8x48xf32>, tensor<?x8x48xf32>) outs(%18 : tensor<?x8x48xf32>) {
  ^bb0(%in: f32, %in_24: f32, %out: f32):
    %35 = arith.mulf %in, %in_24 : f32
    linalg.yield %35 : f32
  } -> tensor<?x8x48xf32>
  %expanded_12 = tensor.expand_shape %21 [[0], [1], [2, 3]] output_shape [%dim_4, 8, 48, 1] : tensor<?x8x48xf32> into tensor<?x8x48x1xf32>
  %expanded_13 = tensor.expand_shape %arg4 [[0], [1], [2, 3]] output_shape [8, 32, 48, 1] : tensor<8x32x48xf32> into tensor<8x32x48x1xf32>
  %22 = tensor.empty(%dim_4) : tensor<8x?x48x1xf32>
  %transposed_14 = linalg.transpose ins(%expanded_12 : tensor<?x8x48x1xf32>) outs(%22 : tensor<8x?x48x1xf32>) permutation = [1, 0, 2, 3] 
  %collapsed_15 = tensor.collapse_shape %transposed_14 [[0], [1], [2, 3]] : tensor<8x?x48x1xf32> into tensor<8x?x48xf32>
  %23 = tensor.empty() : tensor<8x48x32x1xf32>
  %transposed_16 = linalg.transpose ins(%expanded_13 : tensor<8x32x48x1xf32>) outs(%23 : tensor<8x48x32x1xf32>) permutation = [0, 2, 1, 3] 
  %collapsed_17 = tensor.collapse_shape %transposed_16 [[0], [1], [2, 3]] : tensor<8x48x32x1xf32> into tensor<8x48x32xf32>
  %24 = tensor.empty(%dim_4) : tensor<8x?x32xf32>
  %25 = linalg.fill ins(%cst : f32) outs(%24 : tensor<8x?x32xf32>) -> tensor<8x?x32xf32>
  %26 = linalg.batch_matmul ins(%collapsed_15, %collapsed_17 : tensor<8x?x48xf32>, tensor<8x48x32xf32>) outs(%25 : tensor<8x?x32xf32>) -> tensor<8x?x32xf32>
  %expanded_18 = tensor.expand_shape %26 [[0], [1], [2, 3]] output_shape [8, %dim_4, 1, 32] : tensor<8x?x32xf32> into tensor<8x?x1x32xf32>
  %27 = tensor.empty(%dim_4) : tensor<?x8x32x1xf32>
  %transposed_19 = linalg.transpose ins(%expanded_18 : tensor<8x?x1x32xf32>) outs(%27 : tensor<?x8x32x1xf32>) permutation = [1, 0, 3, 2] 
  %collapsed_20 = tensor.collapse_shape %transposed_19 [[0], [1], [2, 3]] : tensor<?x8x32x1xf32> into tensor<?x8x32xf32>
  %28 = tensor.empty(%dim_4) : tensor<?x32x8xf32>
  %transposed_21 = linalg.transpose ins(%collapsed_20 : tensor<?x8x32xf32>) outs(%28 : tensor<?x32x8xf32>) permutation = [0, 2, 1] 
  %expanded_22 = tensor.expand_shape %12 [[0], [1, 2]] output_shape [%dim, 8, 1] : tensor<?x8xf32> into tensor<?x8x1xf32>
  %29 = arith.index_cast %dim_4 : index to i64
  %30 = arith.index_cast %dim : index to i64
  %31 = arith.cmpi eq, %29, %30 : i64
  cf.assert %31, "mismatching contracting dimension"
  %32 = tensor.empty(%dim_4) : tensor<?x32x1xf32>
  %33 = linalg.fill ins(%cst : f32) outs(%32 : tensor<?x32x1xf32>) -> tensor<?x32x1xf32>
  %34 = linalg.batch_matmul ins(%transposed_21, %expanded_22 : tensor<?x32x8xf32>, tensor<?x8x1xf32>) outs(%33 : tensor<?x32x1xf32>) -> tensor<?x32x1xf32>
  %collapsed_23 = tensor.collapse_shape %34 [[0], [1, 2]] : tensor<?x32x1xf32> into tensor<?x32xf32>
  return %collapsed_23 : tensor<?x32xf32>
}

// -----

// Weights gathered for each choice.

// CHECK-LABEL: func.func @gathered(
// CHECK-SAME:      %[[X:[^ ]*]]: tensor<12x32xf32>, %{{.*}}, %[[UP:[^ ]*]]: tensor<8x96x32xf32>, %[[DOWN:[^ ]*]]: tensor<8x32x48xf32>
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %[[X]], %[[IDS]] experts(8)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<9xi32>) weights(%[[UP]] : tensor<8x96x32xf32>) transposed
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<9xi32>) weights(%[[DOWN]] : tensor<8x32x48xf32>) transposed
// CHECK:         %[[SUM:.*]] = moe.combine %[[Y]], %[[PLACES]] weights(%[[W]] :
// CHECK:         return %[[SUM]]
#map = affine_map<(d0, d1, d2) -> (d0, d2)>
#map1 = affine_map<(d0, d1, d2) -> (d0, d1, d2)>
#map2 = affine_map<(d0, d1, d2) -> (d0)>
#map3 = affine_map<(d0, d1) -> (d0, d1)>
#map4 = affine_map<(d0, d1) -> (d0, 0)>
func.func @gathered(%arg0: tensor<12x32xf32>, %router: tensor<32x8xf32>, %arg3: tensor<8x96x32xf32>, %arg4: tensor<8x32x48xf32>) -> tensor<12x32xf32> {
  %none = arith.constant 0.0 : f32
  %empty = tensor.empty() : tensor<12x8xf32>
  %from = linalg.fill ins(%none : f32) outs(%empty : tensor<12x8xf32>) -> tensor<12x8xf32>
  %scores = linalg.matmul ins(%arg0, %router : tensor<12x32xf32>, tensor<32x8xf32>) outs(%from : tensor<12x8xf32>) -> tensor<12x8xf32>
  %arg1, %narrow = moe.gate %scores top_k(3) score(softmax) : tensor<12x8xf32>
  %arg2 = arith.extsi %narrow : tensor<12x3xi32> to tensor<12x3xi64>
  %c0_i64 = arith.constant 0 : i64
  %c8_i64 = arith.constant 8 : i64
  %cst = arith.constant 0.000000e+00 : f32
  %cst_0 = arith.constant 1.000000e+00 : f32
  %collapsed = tensor.collapse_shape %arg2 [[0, 1]] : tensor<12x3xi64> into tensor<36xi64>
  %collapsed_1 = tensor.collapse_shape %arg1 [[0, 1]] : tensor<12x3xf32> into tensor<36xf32>
  %0 = tensor.empty() : tensor<12x3x32xf32>
  %1 = linalg.generic {indexing_maps = [#map, #map1], iterator_types = ["parallel", "parallel", "parallel"]} ins(%arg0 : tensor<12x32xf32>) outs(%0 : tensor<12x3x32xf32>) {
  ^bb0(%in: f32, %out: f32):
    linalg.yield %in : f32
  } -> tensor<12x3x32xf32>
  %collapsed_2 = tensor.collapse_shape %1 [[0, 1], [2]] : tensor<12x3x32xf32> into tensor<36x32xf32>
  %2 = tensor.empty() : tensor<36x96x32xf32>
  %3 = linalg.generic {indexing_maps = [#map2, #map1], iterator_types = ["parallel", "parallel", "parallel"]} ins(%collapsed : tensor<36xi64>) outs(%2 : tensor<36x96x32xf32>) {
  ^bb0(%in: i64, %out: f32):
    %21 = arith.cmpi slt, %in, %c0_i64 : i64
    %22 = arith.addi %in, %c8_i64 : i64
    %23 = arith.select %21, %22, %in : i64
    %24 = arith.index_cast %23 : i64 to index
    %25 = linalg.index 1 : index
    %26 = linalg.index 2 : index
    %extracted = tensor.extract %arg3[%24, %25, %26] : tensor<8x96x32xf32>
    linalg.yield %extracted : f32
  } -> tensor<36x96x32xf32>
  %expanded = tensor.expand_shape %collapsed_2 [[0], [1, 2]] output_shape [36, 32, 1] : tensor<36x32xf32> into tensor<36x32x1xf32>
  %4 = tensor.empty() : tensor<36x96x1xf32>
  %5 = linalg.fill ins(%cst : f32) outs(%4 : tensor<36x96x1xf32>) -> tensor<36x96x1xf32>
  %6 = linalg.batch_matmul ins(%3, %expanded : tensor<36x96x32xf32>, tensor<36x32x1xf32>) outs(%5 : tensor<36x96x1xf32>) -> tensor<36x96x1xf32>
  %collapsed_3 = tensor.collapse_shape %6 [[0], [1, 2]] : tensor<36x96x1xf32> into tensor<36x96xf32>
  %extracted_slice = tensor.extract_slice %collapsed_3[0, 0] [36, 48] [1, 1] : tensor<36x96xf32> to tensor<36x48xf32>
  %extracted_slice_4 = tensor.extract_slice %collapsed_3[0, 48] [36, 48] [1, 1] : tensor<36x96xf32> to tensor<36x48xf32>
  %7 = tensor.empty() : tensor<36x48xf32>
  %8 = linalg.generic {indexing_maps = [#map3, #map3], iterator_types = ["parallel", "parallel"]} ins(%extracted_slice : tensor<36x48xf32>) outs(%7 : tensor<36x48xf32>) {
  ^bb0(%in: f32, %out: f32):
    %21 = arith.negf %in : f32
    %22 = math.exp %21 : f32
    %23 = arith.addf %22, %cst_0 : f32
    %24 = arith.divf %cst_0, %23 : f32
    linalg.yield %24 : f32
  } -> tensor<36x48xf32>
  %9 = linalg.generic {indexing_maps = [#map3, #map3, #map3], iterator_types = ["parallel", "parallel"]} ins(%extracted_slice, %8 : tensor<36x48xf32>, tensor<36x48xf32>) outs(%7 : tensor<36x48xf32>) {
  ^bb0(%in: f32, %in_9: f32, %out: f32):
    %21 = arith.mulf %in, %in_9 : f32
    linalg.yield %21 : f32
  } -> tensor<36x48xf32>
  %10 = linalg.generic {indexing_maps = [#map3, #map3, #map3], iterator_types = ["parallel", "parallel"]} ins(%9, %extracted_slice_4 : tensor<36x48xf32>, tensor<36x48xf32>) outs(%7 : tensor<36x48xf32>) {
  ^bb0(%in: f32, %in_9: f32, %out: f32):
    %21 = arith.mulf %in, %in_9 : f32
    linalg.yield %21 : f32
  } -> tensor<36x48xf32>
  %11 = tensor.empty() : tensor<36x32x48xf32>
  %12 = linalg.generic {indexing_maps = [#map2, #map1], iterator_types = ["parallel", "parallel", "parallel"]} ins(%collapsed : tensor<36xi64>) outs(%11 : tensor<36x32x48xf32>) {
  ^bb0(%in: i64, %out: f32):
    %21 = arith.cmpi slt, %in, %c0_i64 : i64
    %22 = arith.addi %in, %c8_i64 : i64
    %23 = arith.select %21, %22, %in : i64
    %24 = arith.index_cast %23 : i64 to index
    %25 = linalg.index 1 : index
    %26 = linalg.index 2 : index
    %extracted = tensor.extract %arg4[%24, %25, %26] : tensor<8x32x48xf32>
    linalg.yield %extracted : f32
  } -> tensor<36x32x48xf32>
  %expanded_5 = tensor.expand_shape %10 [[0], [1, 2]] output_shape [36, 48, 1] : tensor<36x48xf32> into tensor<36x48x1xf32>
  %13 = tensor.empty() : tensor<36x32x1xf32>
  %14 = linalg.fill ins(%cst : f32) outs(%13 : tensor<36x32x1xf32>) -> tensor<36x32x1xf32>
  %15 = linalg.batch_matmul ins(%12, %expanded_5 : tensor<36x32x48xf32>, tensor<36x48x1xf32>) outs(%14 : tensor<36x32x1xf32>) -> tensor<36x32x1xf32>
  %collapsed_6 = tensor.collapse_shape %15 [[0], [1, 2]] : tensor<36x32x1xf32> into tensor<36x32xf32>
  %expanded_7 = tensor.expand_shape %collapsed_1 [[0, 1]] output_shape [36, 1] : tensor<36xf32> into tensor<36x1xf32>
  %16 = tensor.empty() : tensor<36x32xf32>
  %17 = linalg.generic {indexing_maps = [#map3, #map4, #map3], iterator_types = ["parallel", "parallel"]} ins(%collapsed_6, %expanded_7 : tensor<36x32xf32>, tensor<36x1xf32>) outs(%16 : tensor<36x32xf32>) {
  ^bb0(%in: f32, %in_9: f32, %out: f32):
    %21 = arith.mulf %in, %in_9 : f32
    linalg.yield %21 : f32
  } -> tensor<36x32xf32>
  %expanded_8 = tensor.expand_shape %17 [[0, 1], [2]] output_shape [12, 3, 32] : tensor<36x32xf32> into tensor<12x3x32xf32>
  %18 = tensor.empty() : tensor<12x32xf32>
  %19 = linalg.fill ins(%cst : f32) outs(%18 : tensor<12x32xf32>) -> tensor<12x32xf32>
  %20 = linalg.generic {indexing_maps = [#map1, #map], iterator_types = ["parallel", "reduction", "parallel"]} ins(%expanded_8 : tensor<12x3x32xf32>) outs(%19 : tensor<12x32xf32>) {
  ^bb0(%in: f32, %out: f32):
    %21 = arith.addf %in, %out : f32
    linalg.yield %21 : f32
  } -> tensor<12x32xf32>
  return %20 : tensor<12x32xf32>
}
