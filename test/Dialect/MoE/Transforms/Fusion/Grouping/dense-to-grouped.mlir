// RUN: moe-opt %s -moe-dense-to-grouped -canonicalize -cse -mlir-print-local-scope | FileCheck %s
// RUN: moe-opt %s -moe-dense-to-grouped --remarks-filter-passed=moe-fuse --remarks-filter-missed=moe-fuse -o /dev/null 2>&1 | FileCheck %s --check-prefix=REMARK

// REMARK-COUNT-3: [Passed] DenseGrouped | Category:moe-fuse | Function={{plain|transposed|static_rows}} | Remark="matmul turned into a grouped matmul with one group"
// REMARK:         [Missed] DenseNotGrouped | Category:moe-fuse | Function=bias | Remark="not fused: a matmul does not accumulate into zeros of f32"
// REMARK:         [Missed] DenseNotGrouped | Category:moe-fuse | Function=half_sums | Remark="not fused: a matmul does not accumulate into zeros of f32"
// REMARK:         [Missed] DenseNotGrouped | Category:moe-fuse | Function=batch | Remark="not fused: a matmul does not accumulate into zeros of f32"
// REMARK:         [Missed] DenseNotGrouped | Category:moe-fuse | Function=dynamic | Remark="not fused: a matmul does not accumulate into zeros of f32"
// REMARK:         [Missed] DenseNotGrouped | Category:moe-fuse | Function=transposed_rows | Remark="not fused: a matmul does not accumulate into zeros of f32"
// REMARK-NOT:     DenseNotGrouped

// CHECK-LABEL: func.func @plain(
// CHECK-SAME:    %[[X:.*]]: tensor<?x4xbf16>, %[[W:.*]]: tensor<4x8xbf16>, %{{.*}}: tensor<?x8xf32>)
// CHECK-DAG:     %[[V:.*]] = tensor.expand_shape %[[W]] {{\[\[}}0, 1], [2]] output_shape [1, 4, 8] : tensor<4x8xbf16> into tensor<1x4x8xbf16>
// CHECK-DAG:     %[[T:.*]] = tensor.dim %[[X]], %c0
// CHECK-DAG:     %[[E:.*]] = tensor.empty(%[[T]]) : tensor<?x8xf32>
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %[[X]] weights(%[[V]] : tensor<1x4x8xbf16>) outs(%[[E]] : tensor<?x8xf32>) {
// CHECK-NEXT:    ^bb0(%[[S:.*]]: f32):
// CHECK-NEXT:      moe.yield %[[S]] : f32
// CHECK-NEXT:    } : tensor<?x4xbf16> -> tensor<?x8xf32>
// CHECK-NEXT:    return %[[Y]]
func.func @plain(%x: tensor<?x4xbf16>, %w: tensor<4x8xbf16>, %e: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %z = arith.constant 0.0 : f32
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
  %y = linalg.matmul ins(%x, %w : tensor<?x4xbf16>, tensor<4x8xbf16>) outs(%f : tensor<?x8xf32>) -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// The generic form of a product is one too.
// CHECK-LABEL: func.func @transposed(
// CHECK:         moe.grouped_matmul %{{.*}} weights(%{{.*}} : tensor<1x8x4xf32>) transposed outs(
// CHECK-NOT:     linalg.generic
func.func @transposed(%x: tensor<?x4xf32>, %w: tensor<8x4xf32>, %e: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %z = arith.constant 0.0 : f32
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
  %y = linalg.generic {indexing_maps = [affine_map<(i, j, k) -> (i, k)>, affine_map<(i, j, k) -> (j, k)>, affine_map<(i, j, k) -> (i, j)>], iterator_types = ["parallel", "parallel", "reduction"]}
    ins(%x, %w : tensor<?x4xf32>, tensor<8x4xf32>) outs(%f : tensor<?x8xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32):
    %m = arith.mulf %a, %b : f32
    %s = arith.addf %c, %m : f32
    linalg.yield %s : f32
  } -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// The result has the type that it had.
// CHECK-LABEL: func.func @static_rows(
// CHECK:         moe.grouped_matmul
// CHECK:         return %{{.*}} : tensor<5x8xf32>
func.func @static_rows(%x: tensor<5x4xf32>, %w: tensor<4x8xf32>) -> tensor<5x8xf32> {
  %z = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<5x8xf32>
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<5x8xf32>) -> tensor<5x8xf32>
  %y = linalg.matmul ins(%x, %w : tensor<5x4xf32>, tensor<4x8xf32>) outs(%f : tensor<5x8xf32>) -> tensor<5x8xf32>
  return %y : tensor<5x8xf32>
}

// CHECK-LABEL: func.func @bias(
// CHECK:         linalg.matmul
func.func @bias(%x: tensor<?x4xf32>, %w: tensor<4x8xf32>, %b: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %y = linalg.matmul ins(%x, %w : tensor<?x4xf32>, tensor<4x8xf32>) outs(%b : tensor<?x8xf32>) -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// Sums that are rounded at every step are others.
// CHECK-LABEL: func.func @half_sums(
// CHECK:         linalg.matmul
func.func @half_sums(%x: tensor<?x4xf16>, %w: tensor<4x8xf16>, %e: tensor<?x8xf16>) -> tensor<?x8xf16> {
  %z = arith.constant 0.0 : f16
  %f = linalg.fill ins(%z : f16) outs(%e : tensor<?x8xf16>) -> tensor<?x8xf16>
  %y = linalg.matmul ins(%x, %w : tensor<?x4xf16>, tensor<4x8xf16>) outs(%f : tensor<?x8xf16>) -> tensor<?x8xf16>
  return %y : tensor<?x8xf16>
}

// CHECK-LABEL: func.func @batch(
// CHECK:         linalg.batch_matmul
func.func @batch(%x: tensor<2x?x4xf32>, %w: tensor<2x4x8xf32>, %e: tensor<2x?x8xf32>) -> tensor<2x?x8xf32> {
  %z = arith.constant 0.0 : f32
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<2x?x8xf32>) -> tensor<2x?x8xf32>
  %y = linalg.batch_matmul ins(%x, %w : tensor<2x?x4xf32>, tensor<2x4x8xf32>) outs(%f : tensor<2x?x8xf32>) -> tensor<2x?x8xf32>
  return %y : tensor<2x?x8xf32>
}

// CHECK-LABEL: func.func @dynamic(
// CHECK:         linalg.matmul
func.func @dynamic(%x: tensor<?x4xf32>, %w: tensor<4x?xf32>, %e: tensor<?x?xf32>) -> tensor<?x?xf32> {
  %z = arith.constant 0.0 : f32
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x?xf32>) -> tensor<?x?xf32>
  %y = linalg.matmul ins(%x, %w : tensor<?x4xf32>, tensor<4x?xf32>) outs(%f : tensor<?x?xf32>) -> tensor<?x?xf32>
  return %y : tensor<?x?xf32>
}

// CHECK-LABEL: func.func @transposed_rows(
// CHECK:         linalg.matmul
func.func @transposed_rows(%x: tensor<4x?xf32>, %w: tensor<4x8xf32>, %e: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %z = arith.constant 0.0 : f32
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
  %y = linalg.matmul indexing_maps = [affine_map<(i, j, k) -> (k, i)>, affine_map<(i, j, k) -> (k, j)>, affine_map<(i, j, k) -> (i, j)>]
    ins(%x, %w : tensor<4x?xf32>, tensor<4x8xf32>) outs(%f : tensor<?x8xf32>) -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// The products of an expert are its own affair.
// CHECK-LABEL: func.func @expert(
// CHECK:         moe.expert
// CHECK:           linalg.matmul
func.func @expert(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %w: tensor<4x4xf32>) -> tensor<?x4xf32> {
  %y = moe.expert %x, %o {
  ^bb0(%r: tensor<?x4xf32>):
    %z = arith.constant 0.0 : f32
    %f = linalg.fill ins(%z : f32) outs(%r : tensor<?x4xf32>) -> tensor<?x4xf32>
    %s = linalg.matmul ins(%r, %w : tensor<?x4xf32>, tensor<4x4xf32>) outs(%f : tensor<?x4xf32>) -> tensor<?x4xf32>
    moe.yield %s : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}
