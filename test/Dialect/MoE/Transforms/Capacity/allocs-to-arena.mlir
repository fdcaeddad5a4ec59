// RUN: moe-opt %s -moe-allocs-to-arena -canonicalize -cse -split-input-file -allow-unregistered-dialect | FileCheck %s
// RUN: moe-opt %s '-moe-allocs-to-arena=alignment=256' -canonicalize -cse -split-input-file -allow-unregistered-dialect \
// RUN:   | FileCheck %s --check-prefix=ALIGN

// Two buffers that live at once, one above the other, each on 64 bytes: T x 4 x
// f32 takes 16·T rounded up, f16 x 10 takes 64.
// CHECK-LABEL: func.func @layer(
// CHECK-SAME:    %[[X:.*]]: memref<?x4xf32>, %[[ARENA:.*]]: memref<?xi8>)
// CHECK:         %[[T:.*]] = memref.dim %[[X]], %c0
// CHECK:         %[[BYTES:.*]] = arith.muli %[[T]], %c16
// CHECK:         %[[UP:.*]] = arith.addi %[[BYTES]], %c63
// CHECK:         %[[ALIGNED:.*]] = arith.andi %[[UP]], %c-64
// CHECK:         %[[A:.*]] = memref.view %[[ARENA]][%[[ALIGNED]]][] : memref<?xi8> to memref<10xf16>
// CHECK:         %[[B:.*]] = memref.view %[[ARENA]][%c0][%[[T]]] : memref<?xi8> to memref<?x4xf32>
// CHECK:         "test.use"(%[[A]], %[[B]])
// CHECK-NOT:     memref.alloc
// CHECK-LABEL: func.func @moe_workspace_layer(
// CHECK-SAME:    %[[T64:.*]]: i64) -> i64
// CHECK:         %[[T:.*]] = arith.index_cast %[[T64]] : i64 to index
// CHECK:         %[[BYTES:.*]] = arith.muli %[[T]], %c16
// CHECK:         %[[UP:.*]] = arith.addi %[[BYTES]], %c63
// CHECK:         %[[ALIGNED:.*]] = arith.andi %[[UP]], %c-64
// CHECK:         %[[TOTAL:.*]] = arith.addi %[[ALIGNED]], %c64
// CHECK:         arith.index_cast %[[TOTAL]] : index to i64
// ALIGN-LABEL: func.func @layer(
// ALIGN:         arith.addi %{{.*}}, %c255
// ALIGN-LABEL: func.func @moe_workspace_layer(
// ALIGN:         arith.addi %{{.*}}, %c256
func.func @layer(%x: memref<?x4xf32>) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %t = memref.dim %x, %c0 : memref<?x4xf32>
  %a = memref.alloc() {alignment = 64 : i64} : memref<10xf16>
  %b = memref.alloc(%t) : memref<?x4xf32>
  "test.use"(%a, %b) : (memref<10xf16>, memref<?x4xf32>) -> ()
  return
}

// -----

// Sizes of elements are those of memory: whole bytes, powers of two.
// CHECK-LABEL: func.func @moe_workspace_elements(
// CHECK:         return %c[[#mul(64,7)]]_i64
func.func @elements() attributes {moe.signature = #moe.signature} {
  %a = memref.alloc() : memref<64xi1>
  %b = memref.alloc() : memref<16xi24>
  %c = memref.alloc() : memref<8xindex>
  %d = memref.alloc() : memref<f64>
  %e = memref.alloc() : memref<32xbf16>
  %f = memref.alloc() : memref<0xf32>
  %g = memref.alloc() : memref<65xi8>
  "test.use"(%a, %b, %c, %d, %e, %f, %g) : (memref<64xi1>, memref<16xi24>, memref<8xindex>,
    memref<f64>, memref<32xbf16>, memref<0xf32>, memref<65xi8>) -> ()
  return
}

// -----

// No buffer, no token: still a workspace, of no byte.
// CHECK-LABEL: func.func @nothing(
// CHECK-SAME:    %{{.*}}: memref<?xi8>)
// CHECK-LABEL: func.func @moe_workspace_nothing(
// CHECK:         return %c0_i64
func.func @nothing() attributes {moe.signature = #moe.signature} {
  return
}

// -----

// A size that depends on data counts with its upper bound, min(data, T); the view
// has the size itself.
// CHECK-LABEL: func.func @data(
// CHECK:         %[[N:.*]] = memref.load
// CHECK:         %[[M:.*]] = arith.minsi %[[N]], %{{.*}}
// CHECK:         memref.view %{{.*}}[%c0][%[[M]]]
// CHECK-LABEL: func.func @moe_workspace_data(
// CHECK-SAME:    %[[T64:.*]]: i64) -> i64
// CHECK-NOT:     memref.load
// CHECK:         %[[T:.*]] = arith.index_cast %[[T64]]
// CHECK:         arith.muli %[[T]], %c4
func.func @data(%x: memref<?x4xf32>, %d: memref<index>) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %t = memref.dim %x, %c0 : memref<?x4xf32>
  %n = memref.load %d[] : memref<index>
  %m = arith.minsi %n, %t : index
  %a = memref.alloc(%m) : memref<?xf32>
  "test.use"(%a) : (memref<?xf32>) -> ()
  return
}

// -----

// In a loop each iteration has the same memory.
// CHECK-LABEL: func.func @loop(
// CHECK:         scf.for
// CHECK:           scf.for
// CHECK:             memref.view %{{.*}}[%c0][] : memref<?xi8> to memref<16xf32>
// CHECK-LABEL: func.func @moe_workspace_loop(
// CHECK:         return %c64_i64
func.func @loop(%x: memref<?x4xf32>) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %t = memref.dim %x, %c0 : memref<?x4xf32>
  scf.for %i = %c0 to %t step %c1 {
    scf.for %j = %c0 to %t step %c1 {
      %a = memref.alloc() : memref<16xf32>
      "test.use"(%a) : (memref<16xf32>) -> ()
    }
  }
  return
}

// -----

// Only functions that were exported, and only their own buffers.
// CHECK-LABEL: func.func private @helper(
// CHECK:         memref.alloc
// CHECK-LABEL: func.func @exported(
// CHECK:         call @pure
// CHECK-LABEL: func.func @moe_workspace_exported(
// CHECK-NOT:     func.func @moe_workspace
func.func private @helper() {
  %a = memref.alloc() : memref<4xf32>
  "test.use"(%a) : (memref<4xf32>) -> ()
  return
}
func.func private @pure(%x: memref<?x4xf32>) {
  return
}
func.func private @declared(%x: memref<?x4xf32>) attributes {moe.signature = #moe.signature}
func.func @exported(%x: memref<?x4xf32>) attributes {moe.signature = #moe.signature} {
  call @pure(%x) : (memref<?x4xf32>) -> ()
  call @declared(%x) : (memref<?x4xf32>) -> ()
  return
}
