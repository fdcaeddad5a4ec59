// RUN: moe-opt %s --moe-lower-to-llvm | FileCheck %s

// Loops become LLVM, and the runtime gets an entry point.
// CHECK-DAG: llvm.func internal @layer(
// CHECK-DAG: llvm.func @moe_entry_layer(
func.func @layer(%x: memref<?xf32>, %y: memref<?xf32>) attributes {moe.signature = #moe.signature<arguments = [#moe.argument<name = "x", role = input, type = tensor<?xf32>>, #moe.argument<name = "y", role = output, type = tensor<?xf32>>]>} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %n = memref.dim %x, %c0 : memref<?xf32>
  scf.for %i = %c0 to %n step %c1 {
    %v = memref.load %x[%i] : memref<?xf32>
    memref.store %v, %y[%i] : memref<?xf32>
  }
  return
}
