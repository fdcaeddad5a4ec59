// RUN: moe-opt %s -moe-allocs-to-arena -canonicalize -cse -split-input-file -allow-unregistered-dialect | FileCheck %s

// Which buffers share memory. Each takes 64 bytes unless a test says otherwise.

// The first has ended when the second begins: one place.
// CHECK-LABEL: func.func @one_after_the_other(
// CHECK:         %[[PLACE:.*]] = memref.view %{{.*}}[%c0][]
// CHECK-NOT:     memref.view
// CHECK-COUNT-4: (%[[PLACE]])
// CHECK-LABEL: func.func @moe_workspace_one_after_the_other(
// CHECK:         return %c64_i64
func.func @one_after_the_other() attributes {moe.signature = #moe.signature} {
  %a = memref.alloc() : memref<16xf32>
  %b = memref.alloc() : memref<16xf32>
  "test.write"(%a) : (memref<16xf32>) -> ()
  "test.read"(%a) : (memref<16xf32>) -> ()
  "test.write"(%b) : (memref<16xf32>) -> ()
  "test.read"(%b) : (memref<16xf32>) -> ()
  return
}

// -----

// One operation reads the first and writes the second: two places.
// CHECK-LABEL: func.func @overlap(
// CHECK-DAG:     memref.view %{{.*}}[%c0][]
// CHECK-DAG:     memref.view %{{.*}}[%c64][]
// CHECK-LABEL: func.func @moe_workspace_overlap(
// CHECK:         return %c128_i64
func.func @overlap() attributes {moe.signature = #moe.signature} {
  %a = memref.alloc() : memref<16xf32>
  %b = memref.alloc() : memref<16xf32>
  "test.write"(%a) : (memref<16xf32>) -> ()
  "test.copy"(%a, %b) : (memref<16xf32>, memref<16xf32>) -> ()
  "test.read"(%b) : (memref<16xf32>) -> ()
  return
}

// -----

// A ring of three needs two places: the third has the place of the first.
// CHECK-LABEL: func.func @moe_workspace_chain(
// CHECK:         return %c128_i64
func.func @chain() attributes {moe.signature = #moe.signature} {
  %a = memref.alloc() : memref<16xf32>
  %b = memref.alloc() : memref<16xf32>
  %c = memref.alloc() : memref<16xf32>
  "test.write"(%a) : (memref<16xf32>) -> ()
  "test.copy"(%a, %b) : (memref<16xf32>, memref<16xf32>) -> ()
  "test.copy"(%b, %c) : (memref<16xf32>, memref<16xf32>) -> ()
  "test.read"(%c) : (memref<16xf32>) -> ()
  return
}

// -----

// Which of two is the larger depends on T: what lives beside both is above the
// larger one, for every T.
// CHECK-LABEL: func.func @either_is_larger(
// CHECK:         %[[ROUNDED:.*]] = arith.andi
// CHECK:         %[[LARGER:.*]] = arith.maxsi %[[ROUNDED]], %c4096
// CHECK:         memref.view %{{.*}}[%[[LARGER]]][] : memref<?xi8> to memref<16xf32>
// CHECK:         memref.view %{{.*}}[%c0][] : memref<?xi8> to memref<4096xi8>
// CHECK:         memref.view %{{.*}}[%c0][%{{.*}}] : memref<?xi8> to memref<?xi8>
// CHECK-LABEL: func.func @moe_workspace_either_is_larger(
// CHECK:         %[[ROUNDED:.*]] = arith.andi
// CHECK:         %[[LARGER:.*]] = arith.maxsi %[[ROUNDED]], %c4096
// CHECK:         %[[TOTAL:.*]] = arith.addi %[[LARGER]], %c64
// CHECK:         arith.index_cast %[[TOTAL]]
func.func @either_is_larger(%x: memref<?xi8>) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %t = memref.dim %x, %c0 : memref<?xi8>
  %long = memref.alloc() : memref<16xf32>
  %fixed = memref.alloc() : memref<4096xi8>
  %grows = memref.alloc(%t) : memref<?xi8>
  "test.write"(%long) : (memref<16xf32>) -> ()
  "test.write"(%fixed) : (memref<4096xi8>) -> ()
  "test.write"(%grows) : (memref<?xi8>) -> ()
  "test.read"(%long) : (memref<16xf32>) -> ()
  return
}

// -----

// The second buffer is written in the gap between uses of a view of the first.
// CHECK-LABEL: func.func @moe_workspace_view(
// CHECK:         return %c128_i64
func.func @view() attributes {moe.signature = #moe.signature} {
  %a = memref.alloc() : memref<16xf32>
  %b = memref.alloc() : memref<16xf32>
  %v = memref.subview %a[4] [4] [1] : memref<16xf32> to memref<4xf32, strided<[1], offset: 4>>
  "test.write"(%a) : (memref<16xf32>) -> ()
  "test.write"(%b) : (memref<16xf32>) -> ()
  "test.read"(%v) : (memref<4xf32, strided<[1], offset: 4>>) -> ()
  return
}

// -----

// Every iteration reads the first: it lives as long as the loop, and one that is
// made and used within an iteration needs its own place.
// CHECK-LABEL: func.func @moe_workspace_loop(
// CHECK:         return %c128_i64
func.func @loop() attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c9 = arith.constant 9 : index
  %a = memref.alloc() : memref<16xf32>
  "test.write"(%a) : (memref<16xf32>) -> ()
  scf.for %i = %c0 to %c9 step %c1 {
    "test.read"(%a) : (memref<16xf32>) -> ()
    %b = memref.alloc() : memref<16xf32>
    "test.write"(%b) : (memref<16xf32>) -> ()
    "test.read"(%b) : (memref<16xf32>) -> ()
  }
  return
}

// -----

// What an iteration makes ends with it: its buffers share, with one another and
// with what comes after the loop.
// CHECK-LABEL: func.func @moe_workspace_within_an_iteration(
// CHECK:         return %c64_i64
func.func @within_an_iteration() attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c9 = arith.constant 9 : index
  scf.for %i = %c0 to %c9 step %c1 {
    %a = memref.alloc() : memref<16xf32>
    "test.write"(%a) : (memref<16xf32>) -> ()
    "test.read"(%a) : (memref<16xf32>) -> ()
    %b = memref.alloc() : memref<16xf32>
    "test.write"(%b) : (memref<16xf32>) -> ()
    "test.read"(%b) : (memref<16xf32>) -> ()
  }
  %c = memref.alloc() : memref<16xf32>
  "test.use"(%c) : (memref<16xf32>) -> ()
  return
}

// -----

// Two that were made outside a loop and used in it, one after the other, are both
// needed by the next iteration.
// CHECK-LABEL: func.func @moe_workspace_next_iteration(
// CHECK:         return %c128_i64
func.func @next_iteration() attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c9 = arith.constant 9 : index
  %a = memref.alloc() : memref<16xf32>
  %b = memref.alloc() : memref<16xf32>
  scf.for %i = %c0 to %c9 step %c1 {
    "test.use"(%a) : (memref<16xf32>) -> ()
    "test.use"(%b) : (memref<16xf32>) -> ()
  }
  return
}

// -----

// The same in a parallel loop, and in a region of which nothing is known.
// CHECK-LABEL: func.func @moe_workspace_parallel(
// CHECK:         return %c256_i64
func.func @parallel() attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c9 = arith.constant 9 : index
  %a = memref.alloc() : memref<16xf32>
  %b = memref.alloc() : memref<32xf32>
  %c = memref.alloc() : memref<16xf32>
  %d = memref.alloc() : memref<48xf32>
  scf.parallel (%i) = (%c0) to (%c9) step (%c1) {
    "test.use"(%a) : (memref<16xf32>) -> ()
    "test.use"(%b) : (memref<32xf32>) -> ()
  }
  "test.region"() ({
    "test.use"(%c) : (memref<16xf32>) -> ()
    "test.use"(%d) : (memref<48xf32>) -> ()
  }) : () -> ()
  return
}

// -----

// Only one branch runs.
// CHECK-LABEL: func.func @moe_workspace_branches(
// CHECK:         return %c64_i64
func.func @branches(%c: memref<i1>) attributes {moe.signature = #moe.signature} {
  %flag = memref.load %c[] : memref<i1>
  %a = memref.alloc() : memref<16xf32>
  %b = memref.alloc() : memref<16xf32>
  scf.if %flag {
    "test.use"(%a) : (memref<16xf32>) -> ()
  } else {
    "test.use"(%b) : (memref<16xf32>) -> ()
  }
  return
}

// -----

// The result of a branch is an alias of what it yields.
// CHECK-LABEL: func.func @moe_workspace_result_of_a_branch(
// CHECK:         return %c128_i64
func.func @result_of_a_branch(%x: memref<16xf32>, %c: memref<i1>) attributes {moe.signature = #moe.signature} {
  %flag = memref.load %c[] : memref<i1>
  %a = memref.alloc() : memref<16xf32>
  %b = memref.alloc() : memref<16xf32>
  "test.write"(%a) : (memref<16xf32>) -> ()
  %one = scf.if %flag -> memref<16xf32> {
    scf.yield %a : memref<16xf32>
  } else {
    scf.yield %x : memref<16xf32>
  }
  "test.write"(%b) : (memref<16xf32>) -> ()
  "test.read"(%one) : (memref<16xf32>) -> ()
  return
}

// -----

// A loop that swaps two buffers keeps both.
// CHECK-LABEL: func.func @moe_workspace_swap(
// CHECK:         return %c192_i64
func.func @swap() attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c9 = arith.constant 9 : index
  %a = memref.alloc() : memref<16xf32>
  %b = memref.alloc() : memref<16xf32>
  %c = memref.alloc() : memref<16xf32>
  %r:2 = scf.for %i = %c0 to %c9 step %c1 iter_args(%p = %a, %q = %b) -> (memref<16xf32>, memref<16xf32>) {
    "test.use"(%p) : (memref<16xf32>) -> ()
    scf.yield %q, %p : memref<16xf32>, memref<16xf32>
  }
  "test.write"(%c) : (memref<16xf32>) -> ()
  "test.read"(%r#0) : (memref<16xf32>) -> ()
  return
}

// -----

// A pointer, or a buffer that holds the buffer, is not followed: it lives on.
// CHECK-LABEL: func.func @moe_workspace_pointers(
// CHECK:         return %c128_i64
func.func @pointers() attributes {moe.signature = #moe.signature} {
  %a = memref.alloc() : memref<16xf32>
  %b = memref.alloc() : memref<16xf32>
  %p = memref.extract_aligned_pointer_as_index %a : memref<16xf32> -> index
  "test.write"(%b) : (memref<16xf32>) -> ()
  "test.read"(%p) : (index) -> ()
  return
}

// -----

// What frees a buffer goes with it, and is no use of it.
// CHECK-LABEL: func.func @frees(
// CHECK-NOT:     memref.dealloc
// CHECK-LABEL: func.func @moe_workspace_frees(
// CHECK:         return %c64_i64
func.func @frees() attributes {moe.signature = #moe.signature} {
  %a = memref.alloc() : memref<16xf32>
  %b = memref.alloc() : memref<16xf32>
  "test.use"(%a) : (memref<16xf32>) -> ()
  "test.use"(%b) : (memref<16xf32>) -> ()
  memref.dealloc %a : memref<16xf32>
  memref.dealloc %b : memref<16xf32>
  return
}
