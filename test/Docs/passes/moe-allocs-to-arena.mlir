// RUN: moe-opt %s --moe-allocs-to-arena --canonicalize | FileCheck %s

// The buffer becomes a view of the workspace, the new last argument.
// CHECK-LABEL: func.func @layer(
// CHECK-SAME:    %[[ARENA:[a-z0-9]+]]: memref<?xi8>)
// CHECK:         memref.view %[[ARENA]]
// CHECK-NOT:     memref.alloc
// CHECK-LABEL: func.func @moe_workspace_layer(
// CHECK-SAME:    i64) -> i64
func.func @layer(%x: memref<?x4xf32>, %y: memref<?x4xf32>) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %t = memref.dim %x, %c0 : memref<?x4xf32>
  %b = memref.alloc(%t) : memref<?x4xf32>
  linalg.exp ins(%x : memref<?x4xf32>) outs(%b : memref<?x4xf32>)
  linalg.add ins(%b, %x : memref<?x4xf32>, memref<?x4xf32>) outs(%y : memref<?x4xf32>)
  return
}
