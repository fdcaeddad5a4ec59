// RUN: moe-opt %s -moe-fuse-columns -canonicalize -cse -mlir-print-local-scope | FileCheck %s
// RUN: moe-opt %s -moe-fuse-columns --remarks-filter-passed=moe-fuse --remarks-filter-missed=moe-fuse -o /dev/null 2>&1 | FileCheck %s --check-prefix=REMARK

// Gate and up side by side; the weights have columns last.
// REMARK:      [Passed] ColumnsFused | Category:moe-fuse | Function=halves | Remark="slices of a matmul turned into matmuls of sliced weights"
// CHECK-LABEL: func.func @halves(
// CHECK-SAME:    %[[X:.*]]: tensor<?x4xf32>, %[[O:.*]]: tensor<3xi32>, %[[W:.*]]: tensor<2x4x16xf32>)
// CHECK-DAG:     %[[WG:.*]] = tensor.extract_slice %[[W]][0, 0, 0] [2, 4, 8] [1, 1, 1]
// CHECK-DAG:     %[[WU:.*]] = tensor.extract_slice %[[W]][0, 0, 8] [2, 4, 8] [1, 1, 1]
// CHECK-DAG:     %[[G:.*]] = moe.grouped_matmul %[[X]] offsets(%[[O]] : tensor<3xi32>) weights(%[[WG]] : tensor<2x4x8xf32>) outs(%{{.*}} : tensor<?x8xf32>)
// CHECK-DAG:     %[[U:.*]] = moe.grouped_matmul %[[X]] offsets(%[[O]] : tensor<3xi32>) weights(%[[WU]] : tensor<2x4x8xf32>) outs(%{{.*}} : tensor<?x8xf32>)
// CHECK-NOT:     tensor<?x16xf32>
// CHECK:         return %[[G]], %[[U]]
func.func @halves(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %w: tensor<2x4x16xf32>) -> (tensor<?x8xf32>, tensor<?x8xf32>) {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x4xf32>
  %e = tensor.empty(%n) : tensor<?x16xf32>
  %p = moe.grouped_matmul %x offsets(%o : tensor<3xi32>) weights(%w : tensor<2x4x16xf32>) outs(%e : tensor<?x16xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x16xf32>
  %g = tensor.extract_slice %p[0, 0] [%n, 8] [1, 1] : tensor<?x16xf32> to tensor<?x8xf32>
  %u = tensor.extract_slice %p[0, 8] [%n, 8] [1, 1] : tensor<?x16xf32> to tensor<?x8xf32>
  return %g, %u : tensor<?x8xf32>, tensor<?x8xf32>
}

// Interleaved columns of transposed weights, with a bias of columns and a factor
// of rows.
// REMARK:      [Passed] ColumnsFused | Category:moe-fuse | Function=interleaved
// CHECK-LABEL: func.func @interleaved(
// CHECK-SAME:    %[[W:[a-z0-9]*]]: tensor<2x16x4xf32>, %[[B:[a-z0-9]*]]: tensor<2x16xf32>, %[[R:[a-z0-9]*]]: tensor<6xf32>)
// CHECK-DAG:     %[[WU:.*]] = tensor.extract_slice %[[W]][0, 1, 0] [2, 8, 4] [1, 2, 1]
// CHECK-DAG:     %[[BU:.*]] = tensor.extract_slice %[[B]][0, 1] [2, 8] [1, 2]
// CHECK:         moe.grouped_matmul {{.*}} weights(%[[WU]] : tensor<2x8x4xf32>) transposed
// CHECK-SAME:      operands(%[[BU]], %[[R]] : tensor<2x8xf32>, tensor<6xf32>)
// CHECK-SAME:      outs(%{{.*}} : tensor<6x8xf32>)
func.func @interleaved(%x: tensor<6x4xf32>, %o: tensor<3xi32>, %w: tensor<2x16x4xf32>, %b: tensor<2x16xf32>, %r: tensor<6xf32>) -> tensor<6x8xf32> {
  %e = tensor.empty() : tensor<6x16xf32>
  %p = moe.grouped_matmul %x offsets(%o : tensor<3xi32>) weights(%w : tensor<2x16x4xf32>) transposed
      operands(%b, %r : tensor<2x16xf32>, tensor<6xf32>)
      maps([affine_map<(e, r, n) -> (e, n)>, affine_map<(e, r, n) -> (r)>]) outs(%e : tensor<6x16xf32>) {
  ^bb0(%s: f32, %c: f32, %f: f32):
    %t = math.fma %s, %f, %c : f32
    moe.yield %t : f32
  } : tensor<6x4xf32> -> tensor<6x16xf32>
  %u = tensor.extract_slice %p[0, 1] [6, 8] [1, 2] : tensor<6x16xf32> to tensor<6x8xf32>
  return %u : tensor<6x8xf32>
}

// Its extent is known without it.
// REMARK:      [Passed] ColumnsFused | Category:moe-fuse | Function=extent
// CHECK-LABEL: func.func @extent(
// CHECK-SAME:    %[[E:[a-z0-9]*]]: tensor<?x16xf32>)
// CHECK:         %[[D:.*]] = tensor.dim %[[E]], %c0
// CHECK:         return %{{.*}}, %[[D]]
func.func @extent(%x: tensor<?x4xf32>, %w: tensor<1x4x16xf32>, %e: tensor<?x16xf32>) -> (tensor<?x8xf32>, index) {
  %c0 = arith.constant 0 : index
  %p = moe.grouped_matmul %x weights(%w : tensor<1x4x16xf32>) outs(%e : tensor<?x16xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x16xf32>
  %n = tensor.dim %p, %c0 : tensor<?x16xf32>
  %g = tensor.extract_slice %p[0, 0] [%n, 8] [1, 1] : tensor<?x16xf32> to tensor<?x8xf32>
  return %g, %n : tensor<?x8xf32>, index
}

// REMARK:      [Missed] ColumnsNotFused | Category:moe-fuse | Function=other_use | Remark="not fused: the matmul has other uses than slices of columns"
// CHECK-LABEL: func.func @other_use(
// CHECK-COUNT-1: moe.grouped_matmul
// CHECK:         tensor.extract_slice %{{.*}}[0, 0] [6, 8] [1, 1]
func.func @other_use(%x: tensor<6x4xf32>, %w: tensor<1x4x16xf32>, %e: tensor<6x16xf32>) -> (tensor<6x8xf32>, tensor<6x16xf32>) {
  %p = moe.grouped_matmul %x weights(%w : tensor<1x4x16xf32>) outs(%e : tensor<6x16xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<6x4xf32> -> tensor<6x16xf32>
  %g = tensor.extract_slice %p[0, 0] [6, 8] [1, 1] : tensor<6x16xf32> to tensor<6x8xf32>
  return %g, %p : tensor<6x8xf32>, tensor<6x16xf32>
}

// Some rows are a use of another kind; so are columns from a place that is not known.
// REMARK:      [Missed] ColumnsNotFused | Category:moe-fuse | Function=rows | Remark="not fused: the matmul has other uses than slices of columns"
// CHECK-LABEL: func.func @rows(
// CHECK-COUNT-1: moe.grouped_matmul
// CHECK-COUNT-3: tensor.extract_slice
func.func @rows(%x: tensor<6x4xf32>, %w: tensor<1x4x16xf32>, %e: tensor<6x16xf32>, %c: index) -> (tensor<6x8xf32>, tensor<3x8xf32>, tensor<6x8xf32>) {
  %p = moe.grouped_matmul %x weights(%w : tensor<1x4x16xf32>) outs(%e : tensor<6x16xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<6x4xf32> -> tensor<6x16xf32>
  %g = tensor.extract_slice %p[0, 0] [6, 8] [1, 1] : tensor<6x16xf32> to tensor<6x8xf32>
  %h = tensor.extract_slice %p[0, 8] [3, 8] [1, 1] : tensor<6x16xf32> to tensor<3x8xf32>
  %u = tensor.extract_slice %p[0, %c] [6, 8] [1, 1] : tensor<6x16xf32> to tensor<6x8xf32>
  return %g, %h, %u : tensor<6x8xf32>, tensor<3x8xf32>, tensor<6x8xf32>
}

// A dynamic number of rows that may be any.
// CHECK-LABEL: func.func @unknown_rows(
// CHECK:         moe.grouped_matmul
// CHECK:         tensor.extract_slice %{{.*}}[0, 0] [%{{.*}}, 8]
func.func @unknown_rows(%x: tensor<?x4xf32>, %w: tensor<1x4x16xf32>, %e: tensor<?x16xf32>, %n: index) -> tensor<?x8xf32> {
  %p = moe.grouped_matmul %x weights(%w : tensor<1x4x16xf32>) outs(%e : tensor<?x16xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x16xf32>
  %g = tensor.extract_slice %p[0, 0] [%n, 8] [1, 1] : tensor<?x16xf32> to tensor<?x8xf32>
  return %g : tensor<?x8xf32>
}

// REMARK:      [Missed] ColumnsNotFused | Category:moe-fuse | Function=overlap | Remark="not fused: columns are used more than once"
// CHECK-LABEL: func.func @overlap(
// CHECK-COUNT-1: moe.grouped_matmul
// CHECK-COUNT-2: tensor.extract_slice
func.func @overlap(%x: tensor<6x4xf32>, %w: tensor<1x4x16xf32>, %e: tensor<6x16xf32>) -> (tensor<6x12xf32>, tensor<6x12xf32>) {
  %p = moe.grouped_matmul %x weights(%w : tensor<1x4x16xf32>) outs(%e : tensor<6x16xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<6x4xf32> -> tensor<6x16xf32>
  %g = tensor.extract_slice %p[0, 0] [6, 12] [1, 1] : tensor<6x16xf32> to tensor<6x12xf32>
  %u = tensor.extract_slice %p[0, 4] [6, 12] [1, 1] : tensor<6x16xf32> to tensor<6x12xf32>
  return %g, %u : tensor<6x12xf32>, tensor<6x12xf32>
}

// Columns of packed weights are not beside each other, and buffers are no values.
// CHECK-LABEL: func.func @packed(
// CHECK:         moe.grouped_matmul {{.*}} weights(%{{.*}} : tensor<1x1x4x16x1xf32>)
// CHECK:         tensor.extract_slice
// REMARK-NOT:    Function=packed
func.func @packed(%x: tensor<6x4xf32>, %w: tensor<1x1x4x16x1xf32>, %e: tensor<6x16xf32>) -> tensor<6x8xf32> {
  %p = moe.grouped_matmul %x weights(%w : tensor<1x1x4x16x1xf32>) panels(<matmuls = 1, columns = 16, depth = 1>) outs(%e : tensor<6x16xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<6x4xf32> -> tensor<6x16xf32>
  %g = tensor.extract_slice %p[0, 0] [6, 8] [1, 1] : tensor<6x16xf32> to tensor<6x8xf32>
  return %g : tensor<6x8xf32>
}
