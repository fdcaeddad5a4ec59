// RUN: moe-opt %s -memref-copy-to-linalg | FileCheck %s
// RUN: moe-opt %s -memref-copy-to-linalg -convert-linalg-to-loops | FileCheck %s --check-prefix=LOOPS

// CHECK-DAG:   #[[SCALAR:.*]] = affine_map<() -> ()>
// CHECK-DAG:   #[[MATRIX:.*]] = affine_map<(d0, d1) -> (d0, d1)>

// Source in, target out, whatever the layout.
// CHECK-LABEL: func.func @strided(
// CHECK-SAME:    %[[S:.*]]: memref<?x4xf32, strided<[?, ?], offset: ?>>, %[[T:.*]]: memref<?x4xf32>)
// CHECK-NEXT:    linalg.generic {indexing_maps = [#[[MATRIX]], #[[MATRIX]]], iterator_types = ["parallel", "parallel"]}
// CHECK-SAME:      ins(%[[S]] : memref<?x4xf32, strided<[?, ?], offset: ?>>) outs(%[[T]] : memref<?x4xf32>)
// CHECK-NEXT:    ^bb0(%[[IN:.*]]: f32, %{{.*}}: f32):
// CHECK-NEXT:      linalg.yield %[[IN]] : f32
// CHECK-NOT:     memref.copy
// LOOPS-LABEL: func.func @strided(
// LOOPS:         memref.load
// LOOPS-NEXT:    memref.store
func.func @strided(%s: memref<?x4xf32, strided<[?, ?], offset: ?>>, %t: memref<?x4xf32>) {
  memref.copy %s, %t : memref<?x4xf32, strided<[?, ?], offset: ?>> to memref<?x4xf32>
  return
}

// CHECK-LABEL: func.func @scalar(
// CHECK-NEXT:    linalg.generic {indexing_maps = [#[[SCALAR]], #[[SCALAR]]], iterator_types = []}
func.func @scalar(%s: memref<i8>, %t: memref<i8>) {
  memref.copy %s, %t : memref<i8> to memref<i8>
  return
}

// CHECK-LABEL: func.func @static_and_dynamic(
// CHECK:         linalg.generic
func.func @static_and_dynamic(%s: memref<4xf32>, %t: memref<?xf32>) {
  memref.copy %s, %t : memref<4xf32> to memref<?xf32>
  return
}

// CHECK-LABEL: func.func @nested(
// CHECK:         scf.if
// CHECK-NEXT:      linalg.generic
func.func @nested(%c: i1, %s: memref<4xf32>, %t: memref<4xf32>) {
  scf.if %c {
    memref.copy %s, %t : memref<4xf32> to memref<4xf32>
  }
  return
}

// Without a rank there are no loops.
// CHECK-LABEL: func.func @unranked(
// CHECK-COUNT-3: memref.copy
// CHECK-NOT:     linalg.generic
func.func @unranked(%s: memref<*xf32>, %t: memref<*xf32>, %r: memref<4xf32>) {
  memref.copy %s, %t : memref<*xf32> to memref<*xf32>
  memref.copy %s, %r : memref<*xf32> to memref<4xf32>
  memref.copy %r, %t : memref<4xf32> to memref<*xf32>
  return
}
