// RUN: moe-opt %s -moe-carry-in-place -split-input-file -verify-diagnostics | FileCheck %s

// What an iteration computes elsewhere is copied to where it came in.
// CHECK-LABEL: func.func @elsewhere(
// CHECK:         scf.for {{.*}} iter_args(%[[S:.*]] = %{{.*}})
// CHECK:           %[[Z:.*]] = linalg.add
// CHECK:           %[[M:.*]] = bufferization.materialize_in_destination %[[Z]] in %[[S]]
// CHECK:           scf.yield %[[M]]
func.func @elsewhere(%x: tensor<?x4xf32>, %n: index) -> tensor<?x4xf32> {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %t = tensor.dim %x, %c0 : tensor<?x4xf32>
  %y = scf.for %i = %c0 to %n step %c1 iter_args(%s = %x) -> tensor<?x4xf32> {
    %e = tensor.empty(%t) : tensor<?x4xf32>
    %z = linalg.add ins(%s, %x : tensor<?x4xf32>, tensor<?x4xf32>) outs(%e : tensor<?x4xf32>) -> tensor<?x4xf32>
    scf.yield %z : tensor<?x4xf32>
  }
  return %y : tensor<?x4xf32>
}

// -----

// What is in place stays.
// CHECK-LABEL: func.func @in_place(
// CHECK-NOT:     materialize_in_destination
func.func @in_place(%x: tensor<?x4xf32>, %n: index) -> tensor<?x4xf32> {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %y = scf.for %i = %c0 to %n step %c1 iter_args(%s = %x) -> tensor<?x4xf32> {
    %z = linalg.exp ins(%s : tensor<?x4xf32>) outs(%s : tensor<?x4xf32>) -> tensor<?x4xf32>
    scf.yield %z : tensor<?x4xf32>
  }
  return %y : tensor<?x4xf32>
}

// -----

// Two that change places: both are read before one is overwritten. By what
// moe-export says, both have a row for each token.
// CHECK-LABEL: func.func @exchanged(
// CHECK:         ^bb0(%[[S:.*]]: tensor<?x4xf32>, %[[T:.*]]: tensor<?x4xf32>):
// CHECK:           %[[U:.*]] = bufferization.alloc_tensor() copy(%[[T]])
// CHECK:           %[[V:.*]] = bufferization.alloc_tensor() copy(%[[S]])
// CHECK:           %[[M:.*]] = bufferization.materialize_in_destination %[[U]] in %[[S]]
// CHECK:           %[[N:.*]] = bufferization.materialize_in_destination %[[V]] in %[[T]]
// CHECK:           scf.yield %[[M]], %[[N]]
func.func @exchanged(%x: tensor<?x4xf32>, %y: tensor<?x4xf32>, %more: memref<i1>) -> (tensor<?x4xf32>, tensor<?x4xf32>) attributes {moe.signature = #moe.signature} {
  %z:2 = scf.while (%s = %x, %t = %y) : (tensor<?x4xf32>, tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>) {
    %c = memref.load %more[] : memref<i1>
    scf.condition(%c) %s, %t : tensor<?x4xf32>, tensor<?x4xf32>
  } do {
  ^bb0(%s: tensor<?x4xf32>, %t: tensor<?x4xf32>):
    scf.yield %t, %s : tensor<?x4xf32>, tensor<?x4xf32>
  }
  return %z#0, %z#1 : tensor<?x4xf32>, tensor<?x4xf32>
}

// -----

// A copy of more rows than there is room for would overwrite what is behind.
func.func @grows(%x: tensor<?x4xf32>, %n: index) -> tensor<?x4xf32> {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %zero = arith.constant 0.0 : f32
  // expected-note @+1 {{the loop is here}}
  %y = scf.for %i = %c0 to %n step %c1 iter_args(%s = %x) -> tensor<?x4xf32> {
    %t = tensor.dim %s, %c0 : tensor<?x4xf32>
    %more = arith.addi %t, %c1 : index
    %e = tensor.empty(%more) : tensor<?x4xf32>
    // expected-error @+1 {{expected a tensor that a loop passes from one iteration to the next to keep its extents; those of 'tensor<?x4xf32>' may change}}
    %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x4xf32>) -> tensor<?x4xf32>
    scf.yield %f : tensor<?x4xf32>
  }
  return %y : tensor<?x4xf32>
}

// -----

// What the condition passes on is what the loop gives, in its place.
func.func @places(%x: tensor<?x4xf32>, %more: memref<i1>) -> tensor<?x4xf32> {
  %c0 = arith.constant 0 : index
  %y = scf.while (%k = %c0, %s = %x) : (index, tensor<?x4xf32>) -> tensor<?x4xf32> {
    %c = memref.load %more[] : memref<i1>
    // expected-error @+1 {{expected operand #1, a tensor, to be of the type that the loop takes in its place}}
    scf.condition(%c) %s : tensor<?x4xf32>
  } do {
  ^bb0(%s: tensor<?x4xf32>):
    %n = tensor.dim %s, %c0 : tensor<?x4xf32>
    scf.yield %n, %s : index, tensor<?x4xf32>
  }
  return %y : tensor<?x4xf32>
}
