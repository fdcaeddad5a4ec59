// RUN: moe-opt %s -moe-export -split-input-file -verify-diagnostics | FileCheck %s

// The caller has room for a row for each token: more would overwrite what is behind,
// fewer would leave what was there.

func.func @grouped(%x: tensor<?x4xf32>, %i: tensor<?x2xi32>) -> tensor<?x4xf32> {
  // expected-error @+1 {{expected the dynamic extents of results to be the number of tokens, got 2 for dimension 0 of result #0 where there are 1 tokens}}
  %g, %o, %p = moe.dispatch %x, %i experts(3) : tensor<?x4xf32>, tensor<?x2xi32>
  return %g : tensor<?x4xf32>
}

// -----

func.func @more(%x: tensor<?x4xf32>) -> tensor<?x4xf32> {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %zero = arith.constant 0.0 : f32
  %t = tensor.dim %x, %c0 : tensor<?x4xf32>
  %n = arith.addi %t, %c1 : index
  %e = tensor.empty(%n) : tensor<?x4xf32>
  // expected-error @+1 {{got 2 for dimension 0 of result #0 where there are 1 tokens}}
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x4xf32>) -> tensor<?x4xf32>
  return %f : tensor<?x4xf32>
}

// -----

// As many by way of other tensors and of a loop.
// CHECK-LABEL: func.func @same(
// CHECK-SAME:    moe.tokens = [0, 1073741823]
func.func @same(%x: tensor<?x4xf32>, %i: tensor<?x2xi32>) -> (tensor<?x4xf32>, tensor<?x2xi32>) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %g, %o, %p = moe.dispatch %x, %i experts(3) : tensor<?x4xf32>, tensor<?x2xi32>
  %z = moe.combine %g, %p : tensor<?x4xf32>, tensor<?x2xi32>
  %y = scf.for %k = %c0 to %c1 step %c1 iter_args(%s = %x) -> tensor<?x4xf32> {
    scf.yield %z : tensor<?x4xf32>
  }
  return %y, %p : tensor<?x4xf32>, tensor<?x2xi32>
}

// -----

// An operation on all rows and on five of them is one for five tokens.
// CHECK-LABEL: func.func @fixed(
// CHECK-SAME:    moe.tokens = [5, 5]
func.func @fixed(%x: tensor<?x4xf32>, %y: tensor<5x4xf32>) -> tensor<?x4xf32> {
  %z = linalg.add ins(%x, %y : tensor<?x4xf32>, tensor<5x4xf32>) outs(%x : tensor<?x4xf32>) -> tensor<?x4xf32>
  return %z : tensor<?x4xf32>
}

// -----

// CHECK-LABEL: func.func @cast(
// CHECK-SAME:    moe.tokens = [5, 5]
func.func @cast(%x: tensor<?x4xf32>) -> tensor<5x4xf32> {
  %y = tensor.cast %x : tensor<?x4xf32> to tensor<5x4xf32>
  return %y : tensor<5x4xf32>
}

// -----

func.func @contradiction(%x: tensor<?x4xf32>, %y: tensor<5x4xf32>, %i: tensor<6x2xi32>) -> tensor<?x4xf32> {
  %z = linalg.add ins(%x, %y : tensor<?x4xf32>, tensor<5x4xf32>) outs(%x : tensor<?x4xf32>) -> tensor<?x4xf32>
  // expected-error @+1 {{'moe.dispatch' op expected the 5 tokens that others need, got 6}}
  %g, %o, %p = moe.dispatch %x, %i experts(3) : tensor<?x4xf32>, tensor<6x2xi32>
  return %z : tensor<?x4xf32>
}

// -----

// expected-error @+1 {{expected 1 to 4 tokens, got operations for 5 alone}}
func.func @range(%x: tensor<?x4xf32>, %y: tensor<5x4xf32>) -> tensor<?x4xf32> attributes {moe.tokens = [1, 4]} {
  %z = linalg.add ins(%x, %y : tensor<?x4xf32>, tensor<5x4xf32>) outs(%x : tensor<?x4xf32>) -> tensor<?x4xf32>
  return %z : tensor<?x4xf32>
}
