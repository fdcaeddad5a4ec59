// RUN: moe-opt %s --memref-copy-to-linalg | FileCheck %s

// CHECK-LABEL: func.func @copy(
// CHECK-NOT:     memref.copy
// CHECK:         linalg.generic
func.func @copy(%s: memref<?x4xf32, strided<[8, 1]>>, %t: memref<?x4xf32>) {
  memref.copy %s, %t : memref<?x4xf32, strided<[8, 1]>> to memref<?x4xf32>
  return
}
