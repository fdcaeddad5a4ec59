// RUN: moe-opt %s -moe-chunk-tokens=chunk=16 -split-input-file -verify-diagnostics
// RUN: moe-opt %s -moe-chunk-tokens -split-input-file | FileCheck %s

// Chunks are made of tensors: a function on buffers is refused, and without a chunk
// nothing is said of its tokens.

// CHECK-LABEL: func.func @buffers(
// CHECK-NOT:     moe.independent_tokens
// CHECK:         memref.load
// expected-error @+1 {{expected a function on tensors, as moe-export leaves it, to run it in chunks of tokens}}
func.func @buffers(%x: memref<?x4xf32>, %y: memref<?x4xf32>) attributes {
    moe.signature = #moe.signature<arguments = [
      #moe.argument<name = "x", role = input, type = tensor<?x4xf32>>,
      #moe.argument<name = "y", role = output, type = tensor<?x4xf32>>]>, moe.tokens = [0, 9]} {
  %c0 = arith.constant 0 : index
  // expected-note @+1 {{this is on buffers}}
  %v = memref.load %x[%c0, %c0] : memref<?x4xf32>
  memref.store %v, %y[%c0, %c0] : memref<?x4xf32>
  return
}

// -----

// Without tokens there is nothing to divide.
// CHECK-LABEL: func.func @no_tokens(
func.func @no_tokens(%x: tensor<2x4xf32>, %y: memref<2x4xf32>) attributes {
    moe.signature = #moe.signature<arguments = [
      #moe.argument<name = "x", role = input, type = tensor<?x4xf32>>,
      #moe.argument<name = "y", role = output, type = tensor<?x4xf32>>]>, moe.tokens = [0, 9]} {
  bufferization.materialize_in_destination %x in restrict writable %y : (tensor<2x4xf32>, memref<2x4xf32>) -> ()
  return
}
