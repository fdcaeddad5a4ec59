// RUN: moe-opt %s -moe-scalars-to-device -split-input-file -o %t.mlir
// RUN: FileCheck %s --input-file=%t.mlir
// RUN: moe-opt %t.mlir -moe-outline-kernels -split-input-file | FileCheck %s --check-prefix=KERNELS

gpu.module @kernels {
}

// An element that a parallel loop needs, and what follows from it.
// CHECK-LABEL: func.func @parallel(
// CHECK-SAME:    %[[S:[a-z0-9]+]]: memref<f32>,
// CHECK:         %[[V:.*]] = memref.load %[[S]][]
// CHECK-NEXT:    %[[PLACE:.*]] = memref.alloc() : memref<f32>
// CHECK-NEXT:    %[[D:.*]] = arith.addf %[[V]], %[[V]]
// CHECK-NEXT:    memref.store %[[D]], %[[PLACE]][]
// CHECK-NEXT:    scf.parallel
// CHECK-NEXT:      %[[L:.*]] = memref.load %[[PLACE]][]
// CHECK-NEXT:      memref.store %[[L]], %{{.*}}[%{{.*}}]
// KERNELS-LABEL: func.func @parallel(
// KERNELS-COUNT-2: moe_rt.launch
// KERNELS-NOT:     memref.{{load|store}}
// KERNELS:         return
func.func @parallel(%s: memref<f32>, %y: memref<?xf32>, %n: index) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %v = memref.load %s[] : memref<f32>
  %d = arith.addf %v, %v : f32
  scf.parallel (%i) = (%c0) to (%n) step (%c1) {
    memref.store %d, %y[%i] : memref<?xf32>
    scf.reduce
  }
  return
}

// -----

gpu.module @kernels {
  llvm.func @k(%y: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
}

// One thread after a launch, and in a loop of the host around launches: loaded where
// it is used, once. The launch may change what was read.
// CHECK-LABEL: func.func @serial(
// CHECK-SAME:    %[[S:[a-z0-9]+]]: memref<i32>,
// CHECK:         %[[PLACE:.*]] = memref.alloc() : memref<i32>
// CHECK-NEXT:    %[[V:.*]] = memref.load %[[S]][]
// CHECK-NEXT:    memref.store %[[V]], %[[PLACE]][]
// CHECK-NEXT:    memref.store %[[V]], %{{.*}}[]
// CHECK-NEXT:    moe_rt.launch
// CHECK-NEXT:    %[[L:.*]] = memref.load %[[PLACE]][]
// CHECK-NEXT:    %[[SUM:.*]] = arith.addi %[[L]], %[[L]]
// CHECK-NEXT:    memref.store %[[SUM]]
// CHECK:         scf.for
// CHECK-NEXT:      moe_rt.launch
// CHECK-NEXT:      %[[M:.*]] = memref.load %[[PLACE]][]
// CHECK-NEXT:      memref.store %[[M]]
// KERNELS-LABEL: func.func @serial(
// KERNELS-NOT:     memref.{{load|store}}
// KERNELS-COUNT-5: moe_rt.launch
// KERNELS-NOT:     memref.{{load|store}}
// KERNELS:         return
func.func @serial(%s: memref<i32>, %y: memref<i32>, %n: index) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %v = memref.load %s[] : memref<i32>
  memref.store %v, %y[] : memref<i32>
  moe_rt.launch @kernels::@k blocks(%n) outs(%s : memref<i32>)
  %sum = arith.addi %v, %v : i32
  memref.store %sum, %y[] : memref<i32>
  scf.for %i = %c0 to %n step %c1 {
    moe_rt.launch @kernels::@k blocks(%n) outs(%s : memref<i32>)
    memref.store %v, %y[] : memref<i32>
  }
  return
}

// -----

gpu.module @kernels {
}

// Within one kernel nothing is stored, and nothing that the host has.
// CHECK-LABEL: func.func @one(
// CHECK-NOT:     memref.alloc
// CHECK-LABEL: func.func @not_exported(
// CHECK-NOT:     memref.alloc
// CHECK:         return
func.func @one(%s: memref<f32>, %y: memref<?xf32>, %n: index) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %v = memref.load %s[] : memref<f32>
  %m = arith.muli %n, %n : index
  scf.for %i = %c0 to %m step %c1 {
    memref.store %v, %y[%i] : memref<?xf32>
  }
  return
}
func.func @not_exported(%s: memref<f32>, %y: memref<?xf32>, %n: index) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %v = memref.load %s[] : memref<f32>
  scf.parallel (%i) = (%c0) to (%n) step (%c1) {
    memref.store %v, %y[%i] : memref<?xf32>
    scf.reduce
  }
  return
}
