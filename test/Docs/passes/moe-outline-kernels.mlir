// RUN: moe-opt %s --moe-outline-kernels | FileCheck %s

// The loop becomes a kernel with a thread for each iteration, and its launch.
// CHECK:       gpu.func @loop(
// CHECK:         memref.store
// CHECK-LABEL: func.func @layer(
// CHECK-NOT:     scf.parallel
// CHECK:         moe_rt.launch @kernels::@loop
gpu.module @kernels {
}
func.func @layer(%y: memref<?xf32>, %v: f32, %n: index) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  scf.parallel (%i) = (%c0) to (%n) step (%c1) {
    memref.store %v, %y[%i] : memref<?xf32>
    scf.reduce
  }
  return
}
