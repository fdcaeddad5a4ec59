// RUN: moe-opt %s -moe-allocs-to-arena -split-input-file -verify-diagnostics -allow-unregistered-dialect
// RUN: echo 'module {}' | not moe-opt '-moe-allocs-to-arena=alignment=48' 2>&1 | FileCheck %s --check-prefix=OPTION
// RUN: echo 'module {}' | not moe-opt '-moe-allocs-to-arena=alignment=0' 2>&1 | FileCheck %s --check-prefix=OPTION
// RUN: echo 'module {}' | not moe-opt '-moe-allocs-to-arena=alignment=-64' 2>&1 | FileCheck %s --check-prefix=OPTION
// OPTION: error: expected an alignment that is a power of two, got

//===----------------------------------------------------------------------===//
// Kinds of buffers
//===----------------------------------------------------------------------===//

func.func @element() attributes {moe.signature = #moe.signature} {
  // expected-error @+1 {{expected a compact buffer of integers or floats in the default memory space, got 'memref<4xcomplex<f32>>'}}
  %a = memref.alloc() : memref<4xcomplex<f32>>
  return
}

// -----

func.func @layout() attributes {moe.signature = #moe.signature} {
  // expected-error @+1 {{expected a compact buffer of integers or floats in the default memory space, got 'memref<4x4xf32, strided<[8, 1]>>'}}
  %a = memref.alloc() : memref<4x4xf32, strided<[8, 1]>>
  return
}

// -----

func.func @memory_space() attributes {moe.signature = #moe.signature} {
  // expected-error @+1 {{expected a compact buffer of integers or floats in the default memory space, got 'memref<4xf32, 1>'}}
  %a = memref.alloc() : memref<4xf32, 1>
  return
}

// -----

func.func @alignment() attributes {moe.signature = #moe.signature} {
  // expected-error @+1 {{expected a buffer aligned to at most 64 bytes, got 128}}
  %a = memref.alloc() {alignment = 128} : memref<4xf32>
  return
}

// -----

func.func @size() attributes {moe.signature = #moe.signature} {
  // expected-error @+1 {{expected a buffer of at most 2^48 bytes, got 'memref<4294967296x4294967296xi8>'}}
  %a = memref.alloc() : memref<4294967296x4294967296xi8>
  return
}

// -----

//===----------------------------------------------------------------------===//
// Sizes without a bound
//===----------------------------------------------------------------------===//

func.func @data(%d: memref<index>) attributes {moe.signature = #moe.signature} {
  %n = memref.load %d[] : memref<index>
  // expected-error @+1 {{expected the size of every buffer to be bounded by the number of tokens; dimension 1 of 'memref<4x?xf32>' is not}}
  %a = memref.alloc(%n) : memref<4x?xf32>
  return
}

// -----

// max(n, T) has only a lower one.
func.func @maximum(%x: memref<?xf32>, %d: memref<index>) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %t = memref.dim %x, %c0 : memref<?xf32>
  %n = memref.load %d[] : memref<index>
  %m = arith.maxsi %n, %t : index
  // expected-error @+1 {{expected the size of every buffer to be bounded}}
  %a = memref.alloc(%m) : memref<?xf32>
  return
}

// -----

// 1000 − n has none where n may be negative.
func.func @complement(%x: memref<?xf32>, %d: memref<index>) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %cm1 = arith.constant -1 : index
  %c1000 = arith.constant 1000 : index
  %t = memref.dim %x, %c0 : memref<?xf32>
  %n = memref.load %d[] : memref<index>
  %0 = arith.minsi %n, %t : index
  %1 = arith.muli %0, %cm1 : index
  %2 = arith.addi %1, %c1000 : index
  // expected-error @+1 {{expected the size of every buffer to be bounded}}
  %a = memref.alloc(%2) : memref<?xf32>
  return
}

// -----

// T − n is not bounded by T − T.
func.func @difference(%x: memref<?xf32>, %d: memref<index>) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %t = memref.dim %x, %c0 : memref<?xf32>
  %n = memref.load %d[] : memref<index>
  %m = arith.minsi %n, %t : index
  %s = arith.subi %t, %m : index
  // expected-error @+1 {{expected the size of every buffer to be bounded}}
  %a = memref.alloc(%s) : memref<?xf32>
  return
}

// -----

// As an unsigned number, −1 is not less than T.
func.func @unsigned(%x: memref<?xf32>, %d: memref<index>) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c10 = arith.constant 10 : index
  %t = memref.dim %x, %c0 : memref<?xf32>
  %n = memref.load %d[] : memref<index>
  %m = arith.minsi %n, %c10 : index
  %s = arith.minui %m, %t : index
  // expected-error @+1 {{expected the size of every buffer to be bounded}}
  %a = memref.alloc(%s) : memref<?xf32>
  return
}

// -----

// 300 becomes 44 in 8 bits, less than a smaller number does.
func.func @narrow(%x: memref<?xf32>, %d: memref<index>) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %t = memref.dim %x, %c0 : memref<?xf32>
  %n = memref.load %d[] : memref<index>
  %m = arith.minsi %n, %t : index
  %i = arith.index_cast %m : index to i8
  %s = arith.index_cast %i : i8 to index
  // expected-error @+1 {{expected the size of every buffer to be bounded}}
  %a = memref.alloc(%s) : memref<?xf32>
  return
}

// -----

// The view that the loop carries grows by data.
func.func @grows(%x: memref<?xf32>, %d: memref<index>) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %t = memref.dim %x, %c0 : memref<?xf32>
  %s = memref.subview %x[0] [%c1] [1] : memref<?xf32> to memref<?xf32, strided<[1]>>
  %r = scf.for %i = %c0 to %t step %c1 iter_args(%p = %s) -> (memref<?xf32, strided<[1]>>) {
    %n = memref.dim %p, %c0 : memref<?xf32, strided<[1]>>
    // expected-error @+1 {{expected the size of every buffer to be bounded}}
    %a = memref.alloc(%n) : memref<?xf32>
    %m = arith.addi %n, %c1 : index
    %q = memref.subview %x[0] [%m] [1] : memref<?xf32> to memref<?xf32, strided<[1]>>
    scf.yield %q : memref<?xf32, strided<[1]>>
  }
  return
}

// -----

// T·T·4 bytes, T up to 2^31 where nothing else is said.
func.func @square(%x: memref<?xf32>) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %t = memref.dim %x, %c0 : memref<?xf32>
  // expected-error @+1 {{expected a size within 64 bits for the 2147483647 tokens that moe.tokens allows}}
  %a = memref.alloc(%t, %t) : memref<?x?xf32>
  "test.use"(%a) : (memref<?x?xf32>) -> ()
  return
}

// -----

// Each of the buffers fits, the sum does not.
// expected-error @+1 {{expected a workspace within 64 bits for the 2000000000 tokens that moe.tokens allows}}
func.func @sum(%x: memref<?xf32>) attributes {moe.signature = #moe.signature, moe.tokens = [0, 2000000000]} {
  %c0 = arith.constant 0 : index
  %t = memref.dim %x, %c0 : memref<?xf32>
  %a = memref.alloc(%t, %t) : memref<?x?xi8>
  %b = memref.alloc(%t, %t) : memref<?x?xi8>
  %c = memref.alloc(%t, %t) : memref<?x?xi8>
  "test.use"(%a, %b, %c) : (memref<?x?xi8>, memref<?x?xi8>, memref<?x?xi8>) -> ()
  return
}

// -----

//===----------------------------------------------------------------------===//
// Loops and calls
//===----------------------------------------------------------------------===//

func.func @carried(%x: memref<4xf32>, %n: memref<?xf32>) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %t = memref.dim %n, %c0 : memref<?xf32>
  // expected-note @+1 {{the loop is here}}
  %r = scf.for %i = %c0 to %t step %c1 iter_args(%p = %x) -> memref<4xf32> {
    // expected-error @+1 {{expected a buffer made in a loop to end with the iteration; this one outlives it}}
    %a = memref.alloc() : memref<4xf32>
    scf.yield %a : memref<4xf32>
  }
  return
}

// -----

func.func @carried_by_while(%x: memref<4xf32>, %c: memref<i1>) attributes {moe.signature = #moe.signature} {
  // expected-note @+1 {{the loop is here}}
  %r = scf.while (%p = %x) : (memref<4xf32>) -> memref<4xf32> {
    %flag = memref.load %c[] : memref<i1>
    scf.condition(%flag) %p : memref<4xf32>
  } do {
  ^bb0(%p: memref<4xf32>):
    // expected-error @+1 {{expected a buffer made in a loop to end with the iteration; this one outlives it}}
    %a = memref.alloc() : memref<4xf32>
    scf.yield %a : memref<4xf32>
  }
  return
}

// -----

// Only the next iteration sees it; it leaves the loop by no result.
func.func @carried_to_condition(%x: memref<1xi1>) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  // expected-note @+1 {{the loop is here}}
  %r = scf.while (%p = %x) : (memref<1xi1>) -> memref<1xi1> {
    %flag = memref.load %p[%c0] : memref<1xi1>
    scf.condition(%flag) %x : memref<1xi1>
  } do {
  ^bb0(%q: memref<1xi1>):
    // expected-error @+1 {{expected a buffer made in a loop to end with the iteration; this one outlives it}}
    %a = memref.alloc() : memref<1xi1>
    scf.yield %a : memref<1xi1>
  }
  return
}

// -----

// A loop of branches.
func.func @blocks(%x: memref<4xf32>, %c: memref<i1>) attributes {moe.signature = #moe.signature} {
  scf.execute_region {
    cf.br ^bb1(%x : memref<4xf32>)
  ^bb1(%p: memref<4xf32>):
    // expected-error @+1 {{expected a buffer made under structured control flow, got one in a region of 3 blocks}}
    %a = memref.alloc() : memref<4xf32>
    %flag = memref.load %c[] : memref<i1>
    cf.cond_br %flag, ^bb1(%a : memref<4xf32>), ^bb2
  ^bb2:
    scf.yield
  }
  return
}

// -----

func.func private @inner() {
  // expected-error @+1 {{expected every buffer in the exported function 'calls', got one in 'inner'}}
  %a = memref.alloc() : memref<4xf32>
  "test.use"(%a) : (memref<4xf32>) -> ()
  return
}
func.func private @outer() {
  // expected-note @+1 {{called here; inline it}}
  call @inner() : () -> ()
  return
}
func.func @calls() attributes {moe.signature = #moe.signature} {
  call @outer() : () -> ()
  return
}

// -----

// expected-note @+1 {{see existing symbol definition here}}
func.func private @moe_workspace_layer()
// expected-error @+1 {{redefinition of symbol named 'moe_workspace_layer'}}
func.func @layer() attributes {moe.signature = #moe.signature} {
  return
}

// -----

// Iterations that run at the same time must not share memory.
func.func @parallel(%x: memref<?xf32>) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %t = memref.dim %x, %c0 : memref<?xf32>
  // expected-note @+1 {{the loop is here}}
  scf.parallel (%i) = (%c0) to (%t) step (%c1) {
    scf.for %j = %c0 to %t step %c1 {
      // expected-error @+1 {{expected no buffer made in a parallel loop: its iterations would share its memory; make it outside, with room for each of them}}
      %a = memref.alloc() : memref<4xf32>
      "test.use"(%a) : (memref<4xf32>) -> ()
    }
  }
  return
}

// -----

func.func @forall(%x: memref<?xf32>) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %t = memref.dim %x, %c0 : memref<?xf32>
  // expected-note @+1 {{the loop is here}}
  scf.forall (%i) in (%t) {
    // expected-error @+1 {{expected no buffer made in a parallel loop}}
    %a = memref.alloc() : memref<4xf32>
    "test.use"(%a) : (memref<4xf32>) -> ()
  }
  return
}

// -----

// Nothing says how often, or when, such a region runs.
func.func @unknown_region() attributes {moe.signature = #moe.signature} {
  "test.region"() ({
    // expected-error @+1 {{expected a buffer made under structured control flow, got one in 'test.region'}}
    %a = memref.alloc() : memref<4xf32>
    "test.use"(%a) : (memref<4xf32>) -> ()
  }) : () -> ()
  return
}

// -----

func.func @frees_an_argument(%x: memref<4xf32>) attributes {moe.signature = #moe.signature} {
  // expected-error @+1 {{expected only buffers of this function to be freed}}
  memref.dealloc %x : memref<4xf32>
  return
}
