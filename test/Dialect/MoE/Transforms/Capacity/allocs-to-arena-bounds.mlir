// RUN: moe-opt %s -moe-allocs-to-arena -canonicalize -cse -split-input-file -allow-unregistered-dialect | FileCheck %s

// How the upper bound of a size is found; lib/Analysis/TokenBounds. Each function
// makes bytes, so that the workspace is the bound, rounded up.

// CHECK-LABEL: func.func @moe_workspace_arithmetic(
// CHECK:         %[[T:.*]] = arith.index_cast
// CHECK:         %[[TK:.*]] = arith.muli %[[T]], %c2
// CHECK:         %[[SUM:.*]] = arith.addi %[[TK]], %c100
// CHECK:         %[[MAX:.*]] = arith.maxsi %[[SUM]], %c300
// CHECK:         %[[EXACT:.*]] = arith.divsi %[[MAX]], %c3
// CHECK:         %[[MIN:.*]] = arith.minsi %[[EXACT]], %c1000
// CHECK:         %[[UP:.*]] = arith.addi %[[MIN]], %c63
// CHECK:         arith.andi %[[UP]], %c-64
func.func @arithmetic(%x: memref<?x4xf32>) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c2 = arith.constant 2 : index
  %c3 = arith.constant 3 : index
  %c100 = arith.constant 100 : index
  %c300 = arith.constant 300 : index
  %c1000 = arith.constant 1000 : index
  %t = memref.dim %x, %c0 : memref<?x4xf32>
  %0 = arith.muli %t, %c2 : index
  %1 = arith.addi %0, %c100 : index
  %2 = arith.maxsi %1, %c300 : index
  %3 = arith.divsi %2, %c3 : index
  %4 = arith.minsi %3, %c1000 : index
  %a = memref.alloc(%4) : memref<?xi8>
  "test.use"(%a) : (memref<?xi8>) -> ()
  return
}

// -----

// Of a minimum, what is bounded counts; through sums, maxima and products with
// what is not negative.
// CHECK-LABEL: func.func @moe_workspace_inexact(
// CHECK:         %[[T:.*]] = arith.index_cast
// CHECK:         %[[P:.*]] = arith.muli %[[T]], %c2
// CHECK:         %[[UP:.*]] = arith.addi %[[P]], %c64
// CHECK:         arith.andi %[[UP]], %c-64
func.func @inexact(%x: memref<?x4xf32>, %d: memref<index>) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c2 = arith.constant 2 : index
  %t = memref.dim %x, %c0 : memref<?x4xf32>
  %n = memref.load %d[] : memref<index>
  %0 = arith.minsi %t, %n : index
  %1 = arith.muli %0, %c2 : index
  %2 = arith.addi %1, %c1 : index
  %a = memref.alloc(%2) : memref<?xi8>
  "test.use"(%a) : (memref<?xi8>) -> ()
  return
}

// -----

// 1000 − n, n at least 0, is at most 1000 and not 1000 − T.
// CHECK-LABEL: func.func @moe_workspace_complement(
// CHECK:         return %c1024_i64
func.func @complement(%x: memref<?x4xf32>, %d: memref<index>) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %cm1 = arith.constant -1 : index
  %c1000 = arith.constant 1000 : index
  %t = memref.dim %x, %c0 : memref<?x4xf32>
  %n = memref.load %d[] : memref<index>
  %0 = arith.minsi %t, %n : index
  %1 = arith.maxsi %0, %c0 : index
  %2 = arith.muli %1, %cm1 : index
  %3 = arith.addi %2, %c1000 : index
  %a = memref.alloc(%3) : memref<?xi8>
  "test.use"(%a) : (memref<?xi8>) -> ()
  return
}

// -----

// What is computed from T exactly may be anything; for more than 1000 tokens there
// is no such buffer.
// CHECK-LABEL: func.func @moe_workspace_exact(
// CHECK:         %[[T:.*]] = arith.index_cast
// CHECK:         %[[D:.*]] = arith.subi %c1000, %[[T]]
// CHECK:         arith.maxsi %[[D]], %c0
func.func @exact(%x: memref<?x4xf32>) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c1000 = arith.constant 1000 : index
  %t = memref.dim %x, %c0 : memref<?x4xf32>
  %0 = arith.subi %c1000, %t : index
  %a = memref.alloc(%0) : memref<?xi8>
  "test.use"(%a) : (memref<?xi8>) -> ()
  return
}

// -----

// Extents of views.
// CHECK-LABEL: func.func @moe_workspace_views(
// CHECK:         %[[T:.*]] = arith.index_cast
// CHECK:         %[[T12:.*]] = arith.muli %[[T]], %c12
func.func @views(%x: memref<?x4xi8>) attributes {moe.signature = #moe.signature, moe.tokens = [0, 1000000]} {
  %c0 = arith.constant 0 : index
  %c3 = arith.constant 3 : index
  %t = memref.dim %x, %c0 : memref<?x4xi8>
  %flat = memref.collapse_shape %x [[0, 1]] : memref<?x4xi8> into memref<?xi8>
  %n = memref.dim %flat, %c0 : memref<?xi8>
  %m = arith.muli %n, %c3 : index
  %a = memref.alloc(%m) : memref<?xi8>
  %b = memref.subview %a[1] [%n] [1] : memref<?xi8> to memref<?xi8, strided<[1], offset: 1>>
  %k = memref.dim %b, %c0 : memref<?xi8, strided<[1], offset: 1>>
  %e = memref.expand_shape %flat [[0, 1]] output_shape [%t, 4] : memref<?xi8> into memref<?x4xi8>
  %h = memref.dim %e, %c0 : memref<?x4xi8>
  %c = memref.alloc(%k, %h) : memref<?x?xi8>
  "test.use"(%a, %b, %c) : (memref<?xi8>, memref<?xi8, strided<[1], offset: 1>>, memref<?x?xi8>) -> ()
  return
}

// -----

// A buffer that is one or the other has the larger bound of both: T or 2·T here,
// by a branch and by a loop.
// CHECK-LABEL: func.func @moe_workspace_choice(
// CHECK:         %[[T:.*]] = arith.index_cast
// CHECK:         %[[T2:.*]] = arith.muli %[[T]], %c2
// CHECK:         arith.maxsi
func.func @choice(%x: memref<?xi8>, %c: memref<i1>) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c2 = arith.constant 2 : index
  %t = memref.dim %x, %c0 : memref<?xi8>
  %t2 = arith.muli %t, %c2 : index
  %big = memref.alloc(%t2) : memref<?xi8>
  %flag = memref.load %c[] : memref<i1>
  %one = scf.if %flag -> memref<?xi8> {
    scf.yield %x : memref<?xi8>
  } else {
    scf.yield %big : memref<?xi8>
  }
  %n = memref.dim %one, %c0 : memref<?xi8>
  %a = memref.alloc(%n) : memref<?xi8>
  "test.use"(%one, %a) : (memref<?xi8>, memref<?xi8>) -> ()
  return
}

// -----

// The second iteration has the larger buffer.
// CHECK-LABEL: func.func @moe_workspace_swap(
// CHECK:         %[[T:.*]] = arith.index_cast
// CHECK:         %[[T2:.*]] = arith.muli %[[T]], %c2
// CHECK:         arith.maxsi
func.func @swap(%x: memref<?xi8>) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c2 = arith.constant 2 : index
  %t = memref.dim %x, %c0 : memref<?xi8>
  %t2 = arith.muli %t, %c2 : index
  %big = memref.alloc(%t2) : memref<?xi8>
  %r:2 = scf.for %i = %c0 to %t step %c1 iter_args(%p = %x, %q = %big) -> (memref<?xi8>, memref<?xi8>) {
    %n = memref.dim %p, %c0 : memref<?xi8>
    %a = memref.alloc(%n) : memref<?xi8>
    "test.use"(%a) : (memref<?xi8>) -> ()
    scf.yield %q, %p : memref<?xi8>, memref<?xi8>
  }
  return
}

// -----

// Of a select whose condition depends on data, the larger value.
// CHECK-LABEL: func.func @moe_workspace_choice(
// CHECK:         %[[T:.*]] = arith.index_cast
// CHECK:         %[[P:.*]] = arith.muli %[[T]], %c3
// CHECK:         %[[MAX:.*]] = arith.maxsi %[[P]], %c500
// CHECK:         arith.addi %[[MAX]], %c63
func.func @choice(%x: memref<?x4xf32>, %flags: memref<1xi1>) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c3 = arith.constant 3 : index
  %c500 = arith.constant 500 : index
  %t = memref.dim %x, %c0 : memref<?x4xf32>
  %p = arith.muli %t, %c3 : index
  %flag = memref.load %flags[%c0] : memref<1xi1>
  %size = arith.select %flag, %p, %c500 : index
  %a = memref.alloc(%size) : memref<?xi8>
  "test.use"(%a) : (memref<?xi8>) -> ()
  return
}
