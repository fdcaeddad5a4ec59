// RUN: moe-opt %s -convert-moe-to-cpu | FileCheck %s

// A task packs a panel of an expert. Whole panels are copied in whole vectors.
// CHECK-LABEL: func.func @rows(
// CHECK-SAME:    %[[W:.*]]: memref<?x6x10xf32>, %[[P:.*]]: memref<?x2x6x8x1xf32>)
// CHECK:         %[[E:.*]] = memref.dim %[[P]], %c0
// CHECK:         %[[TASKS:.*]] = arith.muli %[[E]], %c2
// CHECK:         scf.forall (%[[TASK:.*]]) in (%[[TASKS]])
// CHECK-DAG:       %[[EXPERT:.*]] = arith.divui %[[TASK]], %c2
// CHECK-DAG:       arith.remui %[[TASK]], %c2
// CHECK:           scf.if
// Padding columns are zeros.
// CHECK:             memref.load %[[W]][%[[EXPERT]],
// CHECK:           } else {
// CHECK-COUNT-2:     vector.load %[[W]]{{.*}} : memref<?x6x10xf32>, vector<4xf32>
// CHECK-NOT:     moe.pack
func.func @rows(%w: memref<?x6x10xf32>, %p: memref<?x2x6x8x1xf32>) {
  moe.pack %w panels(<matmuls = 1, columns = 8, depth = 1>) outs(%p : memref<?x2x6x8x1xf32>) : memref<?x6x10xf32>
  return
}

// Transposed weights are transposed in squares of vectors.
// CHECK-LABEL: func.func @columns(
// CHECK:         scf.forall
// CHECK-COUNT-4: vector.load %{{.*}} : memref<?x8x6xf32>, vector<4xf32>
// CHECK-COUNT-8: vector.shuffle
// CHECK-COUNT-4: vector.store
func.func @columns(%w: memref<?x8x6xf32>, %p: memref<?x2x6x4x1xf32>) {
  moe.pack %w transposed panels(<matmuls = 1, columns = 4, depth = 1>) outs(%p : memref<?x2x6x4x1xf32>) : memref<?x8x6xf32>
  return
}

// The pairs of a column are contiguous.
// CHECK-LABEL: func.func @pairs(
// CHECK:         vector.interleave %{{.*}} : vector<4xbf16> -> vector<8xbf16>
func.func @pairs(%w: memref<?x6x4xbf16>, %p: memref<?x1x3x4x2xbf16>) {
  moe.pack %w panels(<matmuls = 1, columns = 4, depth = 2>) outs(%p : memref<?x1x3x4x2xbf16>) : memref<?x6x4xbf16>
  return
}

// Strided elements, or panels of partial vectors, are copied one by one.
// CHECK-LABEL: func.func @one_by_one(
// CHECK-NOT:     vector.
// CHECK:         return
func.func @one_by_one(%w: memref<?x6x4xf32, strided<[48, 8, 2]>>, %v: memref<?x6x6xf32>, %p: memref<?x1x6x4x1xf32>, %q: memref<?x2x6x3x1xf32>) {
  moe.pack %w panels(<matmuls = 1, columns = 4, depth = 1>) outs(%p : memref<?x1x6x4x1xf32>) : memref<?x6x4xf32, strided<[48, 8, 2]>>
  moe.pack %v panels(<matmuls = 1, columns = 3, depth = 1>) outs(%q : memref<?x2x6x3x1xf32>) : memref<?x6x6xf32>
  return
}
