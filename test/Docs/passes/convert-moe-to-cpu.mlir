// RUN: moe-opt %s --convert-moe-to-cpu | FileCheck %s

// Tasks over tokens; a vector of the row at a time.
// CHECK-LABEL: func.func @combined(
// CHECK-NOT:     moe.gather_sum
// CHECK:         scf.forall
// CHECK:           vector.load
// CHECK:           vector.store
func.func @combined(%rows: memref<?x16xf32>, %positions: memref<?x2xi32>, %y: memref<?x16xf32>) {
  moe.gather_sum %rows, %positions outs(%y : memref<?x16xf32>) : memref<?x16xf32>, memref<?x2xi32>
  return
}
