// RUN: moe-opt %s --moe-forall-to-parallel | FileCheck %s

// The executor of the runtime is a new last argument.
// CHECK-LABEL: func.func @layer(
// CHECK-SAME:    %[[EXECUTOR:[a-z0-9]+]]: !llvm.ptr)
// CHECK:         moe_rt.parallel %[[EXECUTOR]], %{{.*}} {
// CHECK-NOT:     scf.forall
func.func @layer(%n: index, %v: f32, %m: memref<?xf32>) attributes {moe.signature = #moe.signature} {
  scf.forall (%i) in (%n) {
    memref.store %v, %m[%i] : memref<?xf32>
  }
  return
}
