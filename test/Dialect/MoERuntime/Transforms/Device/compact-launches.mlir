// RUN: moe-opt %s -moe-compact-launches -canonicalize -split-input-file | FileCheck %s

gpu.module @kernels {
  llvm.func @k(%x: !llvm.ptr<1>, %y: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
}

// Columns do not lie together: they are copied, and back where the kernel writes.
// CHECK-LABEL: func.func @columns(
// CHECK-SAME:    %[[X:.*]]: memref<?x16xf32>, %[[Y:.*]]: memref<?x16xf32>, %[[N:.*]]: index)
// CHECK-DAG:     %[[FROM:.*]] = memref.subview %[[X]]
// CHECK-DAG:     %[[TO:.*]] = memref.subview %[[Y]]
// CHECK:         %[[A:.*]] = memref.alloc(%[[N]]) : memref<?x8xf32>
// CHECK-NEXT:    memref.copy %[[FROM]], %[[A]]
// CHECK-NEXT:    %[[B:.*]] = memref.alloc(%[[N]]) : memref<?x8xf32>
// CHECK-NEXT:    memref.copy %[[TO]], %[[B]]
// CHECK-NEXT:    moe_rt.launch @kernels::@k blocks(%[[N]]) ins(%[[A]] : memref<?x8xf32>) outs(%[[B]] : memref<?x8xf32>)
// CHECK-NEXT:    memref.copy %[[B]], %[[TO]]
// CHECK-NEXT:    return
func.func @columns(%x: memref<?x16xf32>, %y: memref<?x16xf32>, %n: index) {
  %from = memref.subview %x[0, 8] [%n, 8] [1, 1] : memref<?x16xf32> to memref<?x8xf32, strided<[16, 1], offset: 8>>
  %to = memref.subview %y[0, 0] [%n, 8] [1, 1] : memref<?x16xf32> to memref<?x8xf32, strided<[16, 1]>>
  moe_rt.launch @kernels::@k blocks(%n) ins(%from : memref<?x8xf32, strided<[16, 1], offset: 8>>) outs(%to : memref<?x8xf32, strided<[16, 1]>>)
  return
}

// -----

gpu.module @kernels {
  llvm.func @k(%x: !llvm.ptr<1>, %y: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
}

// Rows that begin 24 bytes further are at no multiple of 16; those of every other
// pair, in a loop, are.
// CHECK-LABEL: func.func @rows(
// CHECK:         %[[ODD:.*]] = memref.subview %{{.*}}[1, 0]
// CHECK:         %[[A:.*]] = memref.alloc(%{{.*}}) : memref<?x6xf32>
// CHECK-NEXT:    memref.copy %[[ODD]], %[[A]]
// CHECK-NEXT:    moe_rt.launch {{.*}} ins(%[[A]] :
// CHECK:         scf.for
// CHECK-NEXT:      %[[EVEN:.*]] = memref.subview
// CHECK-NEXT:      moe_rt.launch {{.*}} ins(%[[EVEN]] :
// CHECK:         scf.for
// CHECK-NEXT:      %[[ANY:.*]] = memref.subview
// CHECK-NEXT:      %[[B:.*]] = memref.alloc
// CHECK-NEXT:      memref.copy %[[ANY]], %[[B]]
// CHECK-NEXT:      moe_rt.launch {{.*}} ins(%[[B]] :
func.func @rows(%x: memref<?x6xf32>, %y: memref<?x6xf32>, %n: index) {
  %c0 = arith.constant 0 : index
  %c2 = arith.constant 2 : index
  %c3 = arith.constant 3 : index
  %odd = memref.subview %x[1, 0] [%n, 6] [1, 1] : memref<?x6xf32> to memref<?x6xf32, strided<[6, 1], offset: 6>>
  moe_rt.launch @kernels::@k blocks(%n) ins(%odd : memref<?x6xf32, strided<[6, 1], offset: 6>>) outs(%y : memref<?x6xf32>)
  scf.for %i = %c0 to %n step %c2 {
    %even = memref.subview %x[%i, 0] [%n, 6] [1, 1] : memref<?x6xf32> to memref<?x6xf32, strided<[6, 1], offset: ?>>
    moe_rt.launch @kernels::@k blocks(%n) ins(%even : memref<?x6xf32, strided<[6, 1], offset: ?>>) outs(%y : memref<?x6xf32>)
  }
  scf.for %i = %c0 to %n step %c3 {
    %any = memref.subview %x[%i, 0] [%n, 6] [1, 1] : memref<?x6xf32> to memref<?x6xf32, strided<[6, 1], offset: ?>>
    moe_rt.launch @kernels::@k blocks(%n) ins(%any : memref<?x6xf32, strided<[6, 1], offset: ?>>) outs(%y : memref<?x6xf32>)
  }
  return
}

// -----

gpu.module @kernels {
  llvm.func @k(%x: !llvm.ptr<1>, %y: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
  gpu.func @on_memrefs(%x: memref<?xf32, strided<[2]>>) kernel {
    gpu.return
  }
}

// What is as kernels need it stays: whole buffers, all weights of an expert, one that
// has another shape. A kernel on memrefs knows of strides.
// CHECK-LABEL: func.func @stays(
// CHECK-NOT:     memref.alloc
// CHECK-NOT:     memref.copy
// CHECK:         return
func.func @stays(%x: memref<4x8x8xbf16>, %v: memref<64xf32>, %y: memref<?xf32>, %z: memref<?xf32, strided<[2]>>, %n: index) {
  %expert = memref.subview %x[1, 0, 0] [1, 8, 8] [1, 1, 1] : memref<4x8x8xbf16> to memref<8x8xbf16, strided<[8, 1], offset: 64>>
  %matrix = memref.expand_shape %v [[0, 1]] output_shape [8, 8] : memref<64xf32> into memref<8x8xf32>
  moe_rt.launch @kernels::@k blocks(%n) ins(%expert : memref<8x8xbf16, strided<[8, 1], offset: 64>>) outs(%y : memref<?xf32>)
  moe_rt.launch @kernels::@k blocks(%n) ins(%matrix : memref<8x8xf32>) outs(%y : memref<?xf32>)
  moe_rt.launch @kernels::@on_memrefs blocks(%n) outs(%z : memref<?xf32, strided<[2]>>)
  return
}

// -----

// Rows of a product and of a sum for a processor are whole; how far apart they are
// does not matter.
// CHECK-LABEL: func.func @rows(
// CHECK-SAME:    %[[X:[a-z0-9]+]]: memref<?x16xf32>, %[[W:[a-z0-9]+]]: memref<1x8x4xf32>, %[[Y:[a-z0-9]+]]: memref<?x8xf32>,
// CHECK:         %[[EVEN:.*]] = memref.subview %[[X]][0, 0] [%{{.*}}, 8] [1, 2]
// CHECK:         %[[PART:.*]] = memref.subview %[[Y]][0, 4] [%{{.*}}, 4] [1, 1]
// CHECK:         %[[A:.*]] = memref.alloc(%{{.*}}) : memref<?x8xf32>
// CHECK-NEXT:    memref.copy %[[EVEN]], %[[A]]
// CHECK-NEXT:    moe.grouped_matmul %[[A]] {{.*}}outs(%[[PART]]
// CHECK:         %[[B:.*]] = memref.alloc(%{{.*}}) : memref<?x8xf32>
// CHECK-NEXT:    memref.copy %[[EVEN]], %[[B]]
// CHECK-NEXT:    moe.gather_sum %{{.*}}, %{{.*}} outs(%[[B]]
// CHECK-NEXT:    memref.copy %[[B]], %[[EVEN]]
func.func @rows(%x: memref<?x16xf32>, %w: memref<1x8x4xf32>, %y: memref<?x8xf32>, %p: memref<?x2xi32>, %n: index) {
  %even = memref.subview %x[0, 0] [%n, 8] [1, 2] : memref<?x16xf32> to memref<?x8xf32, strided<[16, 2]>>
  %part = memref.subview %y[0, 4] [%n, 4] [1, 1] : memref<?x8xf32> to memref<?x4xf32, strided<[8, 1], offset: 4>>
  moe.grouped_matmul %even weights(%w : memref<1x8x4xf32>) outs(%part : memref<?x4xf32, strided<[8, 1], offset: 4>>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : memref<?x8xf32, strided<[16, 2]>>
  moe.gather_sum %y, %p outs(%even : memref<?x8xf32, strided<[16, 2]>>) : memref<?x8xf32>, memref<?x2xi32>
  return
}
