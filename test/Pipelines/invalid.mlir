// RUN: moe-opt %s -moe-reference -split-input-file -verify-diagnostics
// RUN: not moe-opt %s -moe-reference -split-input-file > /dev/null 2>&1

// What the reference path refuses, it refuses with a reason and a status.

func.func @size_from_data(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %d: tensor<2xi32>) -> tensor<?x4xf32> {
  %y = moe.expert %x, %o params(%d : tensor<2xi32>) {
  ^bb0(%r: tensor<?x4xf32>, %de: tensor<i32>):
    %c0 = arith.constant 0 : index
    %zero = arith.constant 0.0 : f32
    %i = tensor.extract %de[] : tensor<i32>
    %n = arith.index_cast %i : i32 to index
    // expected-error @+1 {{expected the size of every buffer to be bounded by the number of tokens; dimension 0 of 'memref<?xf32>' is not}}
    %e = tensor.empty(%n) : tensor<?xf32>
    %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?xf32>) -> tensor<?xf32>
    %g = tensor.insert %zero into %f[%c0] : tensor<?xf32>
    %v = tensor.extract %g[%n] : tensor<?xf32>
    %z = linalg.fill ins(%v : f32) outs(%r : tensor<?x4xf32>) -> tensor<?x4xf32>
    moe.yield %z : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// -----

// More memory for each iteration than for the one before: it may have no end.
func.func @memory_of_iterations(%x: tensor<?x4xf32>, %o: tensor<3xi32>) -> tensor<?x4xf32> {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c9 = arith.constant 9 : index
  %y = moe.expert %x, %o {
  ^bb0(%r: tensor<?x4xf32>):
    // expected-note @+1 {{the loop is here}}
    %z = scf.for %i = %c0 to %c9 step %c1 iter_args(%s = %r) -> tensor<?x4xf32> {
      // expected-error @+1 {{expected a tensor that a loop passes from one iteration to the next to keep its extents; those of 'tensor<?x4xf32>' may change}}
      %a = tensor.concat dim(0) %s, %r : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
      scf.yield %a : tensor<?x4xf32>
    }
    moe.yield %z : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// -----

// A function that stays one would take memory from the heap, with nobody to give
// it back.
func.func private @helper(%r: tensor<?x4xf32>) -> tensor<?x4xf32> attributes {no_inline} {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %r, %c0 : tensor<?x4xf32>
  // expected-error @+1 {{expected every buffer in the exported function 'heap', got one in 'helper'}}
  %e = tensor.empty(%n) : tensor<?x4xf32>
  %a = linalg.add ins(%r, %r : tensor<?x4xf32>, tensor<?x4xf32>) outs(%e : tensor<?x4xf32>) -> tensor<?x4xf32>
  return %a : tensor<?x4xf32>
}
func.func @heap(%x: tensor<?x4xf32>, %o: tensor<3xi32>) -> tensor<?x4xf32> {
  %y = moe.expert %x, %o {
  ^bb0(%r: tensor<?x4xf32>):
    // expected-note @+1 {{called here; inline it}}
    %z = func.call @helper(%r) : (tensor<?x4xf32>) -> tensor<?x4xf32>
    moe.yield %z : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}
