// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-grouped | FileCheck %s
// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-grouped --remarks-filter-missed=moe-raise -o /dev/null 2>&1 | FileCheck %s --check-prefix=REMARK

// A batched product of rows with weights that were gathered by an id of each
// row: rows are grouped by their ids, which a gather of StableHLO clamps.

// CHECK-LABEL: func.func @ids_of_rows(
// CHECK-SAME:      %[[X:[^ ]*]]: tensor<?x8xf32>, %[[W:[^ ]*]]: tensor<4x8x16xf32>, %[[IDS:[^ ]*]]: tensor<?x1xi64>
// CHECK:         %[[CLAMPED:.*]] = linalg.generic {{.*}} ins(%[[IDS]] : tensor<?x1xi64>) outs(%{{.*}} : tensor<?xi32>)
// CHECK:           arith.maxsi %{{.*}}, %c0_i64
// CHECK:           arith.minsi %{{.*}}, %c3_i64
// CHECK:           arith.trunci %{{.*}} : i64 to i32
// CHECK:         %[[PAIRS:.*]] = tensor.expand_shape %[[CLAMPED]] {{\[\[}}0, 1]]
// CHECK:         %[[TOKENS:.*]], %[[OFFSETS:.*]], %[[POSITIONS:.*]] = moe.route %[[PAIRS]] experts(4) : tensor<?x1xi32>
// CHECK-NOT:     stablehlo.gather
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %[[X]] gather(%[[TOKENS]] : tensor<?xi32>) offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[W]] : tensor<4x8x16xf32>) outs
// CHECK:         %[[BACK:.*]] = moe.combine %[[Y]], %{{.*}} : tensor<?x16xf32>, tensor<?x1xi32>
// CHECK:         return %[[BACK]]
func.func @ids_of_rows(%x: tensor<?x8xf32>, %w: tensor<4x8x16xf32>, %ids: tensor<?x1xi64>) -> tensor<?x16xf32> {
  %of = "stablehlo.gather"(%w, %ids) <{dimension_numbers = #stablehlo.gather<offset_dims = [1, 2], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 8, 16>}> : (tensor<4x8x16xf32>, tensor<?x1xi64>) -> tensor<?x8x16xf32>
  %y = "stablehlo.dot_general"(%x, %of) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<?x8xf32>, tensor<?x8x16xf32>) -> tensor<?x16xf32>
  return %y : tensor<?x16xf32>
}

// -----

// Two ids of each row: the rows are not repeated. Square weights of one gather
// in both layouts: one route, and as the dimension numbers say.

// CHECK-LABEL: func.func @ids_of_pairs(
// CHECK:         moe.route %{{.*}} experts(4) : tensor<6x2xi32>
// CHECK-NOT:     moe.route
// CHECK:         moe.grouped_matmul %arg0 gather({{.*}}) weights(%arg1 : tensor<4x8x8xbf16>) outs
// CHECK:         tensor.expand_shape {{.*}} tensor<12x8xbf16> into tensor<6x2x8xbf16>
// CHECK:         moe.grouped_matmul %arg0 gather({{.*}}) weights(%arg1 : tensor<4x8x8xbf16>) transposed outs
func.func @ids_of_pairs(%x: tensor<6x8xbf16>, %w: tensor<4x8x8xbf16>, %ids: tensor<6x2x1xi32>) -> (tensor<6x2x8xbf16>, tensor<6x2x8xf32>) {
  %of = "stablehlo.gather"(%w, %ids) <{dimension_numbers = #stablehlo.gather<offset_dims = [2, 3], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 2>, slice_sizes = array<i64: 1, 8, 8>}> : (tensor<4x8x8xbf16>, tensor<6x2x1xi32>) -> tensor<6x2x8x8xbf16>
  %y = "stablehlo.dot_general"(%x, %of) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [2]>}> : (tensor<6x8xbf16>, tensor<6x2x8x8xbf16>) -> tensor<6x2x8xbf16>
  %z = "stablehlo.dot_general"(%x, %of) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [3]>}> : (tensor<6x8xbf16>, tensor<6x2x8x8xbf16>) -> tensor<6x2x8xf32>
  return %y, %z : tensor<6x2x8xbf16>, tensor<6x2x8xf32>
}

// -----

// linalg, as torch-mlir lowers index.Tensor and bmm: the body of the gather
// computes the index, where one below 0 counts from the end.

#ids = affine_map<(m, k, n) -> (m)>
#all = affine_map<(m, k, n) -> (m, k, n)>
// CHECK-LABEL: func.func @bmm(
// CHECK:         %[[IDS:.*]] = linalg.generic {{.*}} ins(%arg2 : tensor<?xi64>) outs(%{{.*}} : tensor<?xi32>)
// CHECK:           arith.cmpi slt
// CHECK:           arith.select
// CHECK:           arith.index_cast %{{.*}} : index to i32
// CHECK:         moe.route
// CHECK:         %[[ROWS:.*]] = tensor.collapse_shape %arg0 {{\[\[}}0], [1, 2]] : tensor<?x1x8xf32> into tensor<?x8xf32>
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %[[ROWS]] gather({{.*}}) weights(%arg1 : tensor<4x8x16xf32>) outs
// CHECK:         %[[BACK:.*]] = moe.combine %[[Y]]
// CHECK:         tensor.expand_shape %[[BACK]] {{\[\[}}0], [1, 2]] {{.*}} into tensor<?x1x16xf32>
func.func @bmm(%x: tensor<?x1x8xf32>, %w: tensor<4x8x16xf32>, %ids: tensor<?xi64>, %m: index) -> tensor<?x1x16xf32> {
  %c0 = arith.constant 0 : i64
  %c4 = arith.constant 4 : i64
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty(%m) : tensor<?x8x16xf32>
  %of = linalg.generic {indexing_maps = [#ids, #all], iterator_types = ["parallel", "parallel", "parallel"]} ins(%ids : tensor<?xi64>) outs(%e : tensor<?x8x16xf32>) {
  ^bb0(%id: i64, %out: f32):
    %below = arith.cmpi slt, %id, %c0 : i64
    %wrapped = arith.addi %id, %c4 : i64
    %at = arith.select %below, %wrapped, %id : i64
    %i = arith.index_cast %at : i64 to index
    %j = linalg.index 1 : index
    %k = linalg.index 2 : index
    %v = tensor.extract %w[%i, %j, %k] : tensor<4x8x16xf32>
    linalg.yield %v : f32
  } -> tensor<?x8x16xf32>
  %o = tensor.empty(%m) : tensor<?x1x16xf32>
  %z = linalg.fill ins(%zero : f32) outs(%o : tensor<?x1x16xf32>) -> tensor<?x1x16xf32>
  %y = linalg.batch_matmul ins(%x, %of : tensor<?x1x8xf32>, tensor<?x8x16xf32>) outs(%z : tensor<?x1x16xf32>) -> tensor<?x1x16xf32>
  return %y : tensor<?x1x16xf32>
}

// -----

// Weights [g, n, k] first, times vectors.

#ids = affine_map<(m, n, k) -> (m)>
#all = affine_map<(m, n, k) -> (m, n, k)>
// CHECK-LABEL: func.func @matvec(
// CHECK:         moe.grouped_matmul %arg0 gather({{.*}}) weights(%arg1 : tensor<4x16x8xf32>) transposed outs
func.func @matvec(%x: tensor<6x8xf32>, %w: tensor<4x16x8xf32>, %ids: tensor<6xi32>) -> tensor<6x16xf32> {
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<6x16x8xf32>
  %of = linalg.generic {indexing_maps = [#ids, #all], iterator_types = ["parallel", "parallel", "parallel"]} ins(%ids : tensor<6xi32>) outs(%e : tensor<6x16x8xf32>) {
  ^bb0(%id: i32, %out: f32):
    %i = arith.index_cast %id : i32 to index
    %j = linalg.index 1 : index
    %k = linalg.index 2 : index
    %v = tensor.extract %w[%i, %j, %k] : tensor<4x16x8xf32>
    linalg.yield %v : f32
  } -> tensor<6x16x8xf32>
  %o = tensor.empty() : tensor<6x16xf32>
  %z = linalg.fill ins(%zero : f32) outs(%o : tensor<6x16xf32>) -> tensor<6x16xf32>
  %y = linalg.batch_matvec ins(%of, %x : tensor<6x16x8xf32>, tensor<6x8xf32>) outs(%z : tensor<6x16xf32>) -> tensor<6x16xf32>
  return %y : tensor<6x16xf32>
}

// -----

// The gather swaps rows and columns, takes the id of another row, or gathers
// along the second dimension; the result is added to what is there; several
// rows share an id; the contraction is that of the batch.

#ids = affine_map<(m, k, n) -> (m)>
#all = affine_map<(m, k, n) -> (m, k, n)>
#other = affine_map<(m, k, n) -> (k)>
// CHECK-LABEL: func.func @near_misses(
// CHECK-NOT:     moe.
// REMARK-DAG:  'linalg.batch_vecmat': expected rows and gathered weights of one float type of 16 or 32 bits
// REMARK-DAG:  'stablehlo.dot_general': more than one extent of the rows is dynamic
func.func @near_misses(%x: tensor<8x8xf32>, %w: tensor<8x8x8xf32>, %ids: tensor<8xi32>, %init: tensor<8x8xf32>, %x3: tensor<8x2x8xf32>,
                       %wd: tensor<8x8x8xf64>, %xd: tensor<8x8xf64>, %xx: tensor<?x?x8xf32>, %at: tensor<?x?x1xi32>, %second: tensor<8x1xi32>) {
  %zero = arith.constant 0.0 : f32
  %zerod = arith.constant 0.0 : f64
  %e = tensor.empty() : tensor<8x8x8xf32>
  %o = tensor.empty() : tensor<8x8xf32>
  %z = linalg.fill ins(%zero : f32) outs(%o : tensor<8x8xf32>) -> tensor<8x8xf32>
  %swapped = linalg.generic {indexing_maps = [#ids, #all], iterator_types = ["parallel", "parallel", "parallel"]} ins(%ids : tensor<8xi32>) outs(%e : tensor<8x8x8xf32>) {
  ^bb0(%id: i32, %out: f32):
    %i = arith.index_cast %id : i32 to index
    %j = linalg.index 1 : index
    %k = linalg.index 2 : index
    %v = tensor.extract %w[%i, %k, %j] : tensor<8x8x8xf32>
    linalg.yield %v : f32
  } -> tensor<8x8x8xf32>
  %0 = linalg.batch_vecmat ins(%x, %swapped : tensor<8x8xf32>, tensor<8x8x8xf32>) outs(%z : tensor<8x8xf32>) -> tensor<8x8xf32>
  %inner = linalg.generic {indexing_maps = [#other, #all], iterator_types = ["parallel", "parallel", "parallel"]} ins(%ids : tensor<8xi32>) outs(%e : tensor<8x8x8xf32>) {
  ^bb0(%id: i32, %out: f32):
    %i = arith.index_cast %id : i32 to index
    %j = linalg.index 1 : index
    %k = linalg.index 2 : index
    %v = tensor.extract %w[%i, %j, %k] : tensor<8x8x8xf32>
    linalg.yield %v : f32
  } -> tensor<8x8x8xf32>
  %1 = linalg.batch_vecmat ins(%x, %inner : tensor<8x8xf32>, tensor<8x8x8xf32>) outs(%z : tensor<8x8xf32>) -> tensor<8x8xf32>
  %of = linalg.generic {indexing_maps = [#ids, #all], iterator_types = ["parallel", "parallel", "parallel"]} ins(%ids : tensor<8xi32>) outs(%e : tensor<8x8x8xf32>) {
  ^bb0(%id: i32, %out: f32):
    %i = arith.index_cast %id : i32 to index
    %j = linalg.index 1 : index
    %k = linalg.index 2 : index
    %v = tensor.extract %w[%i, %j, %k] : tensor<8x8x8xf32>
    linalg.yield %v : f32
  } -> tensor<8x8x8xf32>
  %2 = linalg.batch_vecmat ins(%x, %of : tensor<8x8xf32>, tensor<8x8x8xf32>) outs(%init : tensor<8x8xf32>) -> tensor<8x8xf32>
  %o3 = tensor.empty() : tensor<8x2x8xf32>
  %z3 = linalg.fill ins(%zero : f32) outs(%o3 : tensor<8x2x8xf32>) -> tensor<8x2x8xf32>
  %3 = linalg.batch_matmul ins(%x3, %of : tensor<8x2x8xf32>, tensor<8x8x8xf32>) outs(%z3 : tensor<8x2x8xf32>) -> tensor<8x2x8xf32>
  %ed = tensor.empty() : tensor<8x8x8xf64>
  %ofd = linalg.generic {indexing_maps = [#ids, #all], iterator_types = ["parallel", "parallel", "parallel"]} ins(%ids : tensor<8xi32>) outs(%ed : tensor<8x8x8xf64>) {
  ^bb0(%id: i32, %out: f64):
    %i = arith.index_cast %id : i32 to index
    %j = linalg.index 1 : index
    %k = linalg.index 2 : index
    %v = tensor.extract %wd[%i, %j, %k] : tensor<8x8x8xf64>
    linalg.yield %v : f64
  } -> tensor<8x8x8xf64>
  %od = tensor.empty() : tensor<8x8xf64>
  %zd = linalg.fill ins(%zerod : f64) outs(%od : tensor<8x8xf64>) -> tensor<8x8xf64>
  %4 = linalg.batch_vecmat ins(%xd, %ofd : tensor<8x8xf64>, tensor<8x8x8xf64>) outs(%zd : tensor<8x8xf64>) -> tensor<8x8xf64>
  %dynamic = "stablehlo.gather"(%w, %at) <{dimension_numbers = #stablehlo.gather<offset_dims = [2, 3], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 2>, slice_sizes = array<i64: 1, 8, 8>}> : (tensor<8x8x8xf32>, tensor<?x?x1xi32>) -> tensor<?x?x8x8xf32>
  %5 = "stablehlo.dot_general"(%xx, %dynamic) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0, 1], rhs_batching_dimensions = [0, 1], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [2]>}> : (tensor<?x?x8xf32>, tensor<?x?x8x8xf32>) -> tensor<?x?x8xf32>
  %along = "stablehlo.gather"(%w, %second) <{dimension_numbers = #stablehlo.gather<offset_dims = [1, 2], collapsed_slice_dims = [1], start_index_map = [1], index_vector_dim = 1>, slice_sizes = array<i64: 8, 1, 8>}> : (tensor<8x8x8xf32>, tensor<8x1xi32>) -> tensor<8x8x8xf32>
  %6 = "stablehlo.dot_general"(%x, %along) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<8x8xf32>, tensor<8x8x8xf32>) -> tensor<8x8xf32>
  %whole = "stablehlo.gather"(%w, %second) <{dimension_numbers = #stablehlo.gather<offset_dims = [1, 2], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 8, 8>}> : (tensor<8x8x8xf32>, tensor<8x1xi32>) -> tensor<8x8x8xf32>
  // Summed over the rows.
  %7 = "stablehlo.dot_general"(%x, %whole) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [1], rhs_batching_dimensions = [1], lhs_contracting_dimensions = [0], rhs_contracting_dimensions = [0]>}> : (tensor<8x8xf32>, tensor<8x8x8xf32>) -> tensor<8x8xf32>
  return
}
