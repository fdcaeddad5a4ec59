// RUN: moe-opt %s --moe-scalars-to-device | FileCheck %s

// The load will be one kernel, the loop another: the number passes by way of memory.
// CHECK:      %[[PLACE:.*]] = memref.alloc() : memref<f32>
// CHECK:      %[[V:.*]] = memref.load
// CHECK:      memref.store %[[V]], %[[PLACE]][]
// CHECK:      scf.parallel
// CHECK:        memref.load %[[PLACE]][]
func.func @layer(%s: memref<f32>, %y: memref<?xf32>, %n: index) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %v = memref.load %s[] : memref<f32>
  scf.parallel (%i) = (%c0) to (%n) step (%c1) {
    memref.store %v, %y[%i] : memref<?xf32>
    scf.reduce
  }
  return
}
