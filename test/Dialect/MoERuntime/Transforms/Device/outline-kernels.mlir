// RUN: moe-opt %s -moe-outline-kernels -canonicalize -split-input-file | FileCheck %s

gpu.module @kernels {
}

// A thread for each iteration, of all dimensions together; more than run at once go
// on from one to another. The host computes how many there are.
// CHECK:       gpu.func @loop(%[[X:[a-z0-9]+]]: memref<?xf32>, %[[Y:[a-z0-9]+]]: memref<?x4xf32>, %[[LOW:[a-z0-9]+]]: index, %[[N:[a-z0-9]+]]: index,
// CHECK-SAME:    %[[D0:[a-z0-9]+]]: index, %[[D1:[a-z0-9]+]]: index, %[[TOTAL:[a-z0-9]+]]: index) kernel attributes {known_block_size = array<i32: 256, 1, 1>} {
// CHECK-DAG:     %[[TWO:.*]] = arith.constant 2.000000e+00 : f32
// CHECK:         %[[BLOCK:.*]] = gpu.block_id x
// CHECK:         %[[THREAD:.*]] = gpu.thread_id x
// CHECK:         %[[START:.*]] = arith.muli %[[BLOCK]], %c256
// CHECK:         %[[FIRST:.*]] = arith.addi %[[START]], %[[THREAD]]
// CHECK:         %[[GRID:.*]] = gpu.grid_dim x
// CHECK:         %[[STRIDE:.*]] = arith.muli %[[GRID]], %c256
// CHECK:         scf.for %[[NUMBER:.*]] = %[[FIRST]] to %[[TOTAL]] step %[[STRIDE]] {
// CHECK-DAG:       %[[J:.*]] = arith.remui %[[NUMBER]], %[[D1]]
// CHECK-DAG:       %[[REST:.*]] = arith.divui %[[NUMBER]], %[[D1]]
// CHECK-DAG:       %[[STEPS:.*]] = arith.muli %[[REST]], %c3
// CHECK:           %[[I:.*]] = arith.addi %[[LOW]], %[[STEPS]]
// CHECK:           %[[V:.*]] = memref.load %[[X]][%[[I]]]
// CHECK:           %[[W:.*]] = arith.mulf %[[V]], %[[TWO]]
// CHECK:           memref.store %[[W]], %[[Y]][%[[I]], %[[J]]]
// CHECK:         gpu.return

// CHECK-LABEL: func.func @parallel(
// CHECK-SAME:    %[[Y:.*]]: memref<?x4xf32>, %[[X:.*]]: memref<?xf32>, %[[N:.*]]: index, %[[LOW:.*]]: index)
// CHECK-NOT:     scf.parallel
// CHECK:         %[[LENGTH:.*]] = arith.subi %[[N]], %[[LOW]]
// CHECK:         %[[STEPS:.*]] = arith.ceildivsi %[[LENGTH]], %c3
// CHECK:         %[[COUNT:.*]] = arith.maxsi %[[STEPS]], %c0
// CHECK:         %[[TOTAL:.*]] = arith.muli %[[COUNT]], %c4
// CHECK:         %[[BLOCKS:.*]] = arith.ceildivui %[[TOTAL]], %c256
// CHECK:         %[[MOST:.*]] = arith.minui %[[BLOCKS]], %c4096
// CHECK:         moe_rt.launch @kernels::@loop blocks(%[[MOST]]) outs(%[[X]], %[[Y]] : memref<?xf32>, memref<?x4xf32>) scalars(%[[LOW]], %[[N]], %[[COUNT]], %c4, %[[TOTAL]] : index, index, index, index, index)
func.func @parallel(%y: memref<?x4xf32>, %x: memref<?xf32>, %n: index, %low: index) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c3 = arith.constant 3 : index
  %c4 = arith.constant 4 : index
  %two = arith.constant 2.0 : f32
  scf.parallel (%i, %j) = (%low, %c0) to (%n, %c4) step (%c3, %c1) {
    %v = memref.load %x[%i] : memref<?xf32>
    %w = arith.mulf %v, %two : f32
    memref.store %w, %y[%i, %j] : memref<?x4xf32>
    scf.reduce
  }
  return
}

// -----

gpu.module @kernels {
}

// What else touches elements is done by one thread, together as far as nothing in
// between needs the host. Sizes, places and views come before it.
// CHECK:       gpu.func @loop(%[[S:[a-z0-9]+]]: memref<?xi32>, %[[V:[a-z0-9]+]]: memref<?xi32, strided<[1], offset: 1>>, %[[N:[a-z0-9]+]]: index) kernel attributes {known_block_size = array<i32: 1, 1, 1>} {
// CHECK:         %[[A:.*]] = memref.load %[[S]]
// CHECK:         %[[SUM:.*]] = scf.for %{{.*}} = %{{.*}} to %[[N]] {{.*}} iter_args(%{{.*}} = %[[A]])
// CHECK:         memref.store %[[SUM]], %[[V]]
// CHECK:         gpu.return
// CHECK:       gpu.func @loop_1(
// CHECK-LABEL: func.func @serial(
// CHECK-SAME:    %[[S:[a-z0-9]+]]: memref<?xi32>, %[[N:[a-z0-9]+]]: index)
// CHECK-NOT:     memref.load
// CHECK-NOT:     memref.store
// CHECK:         %[[BUFFER:.*]] = memref.alloc(%[[N]])
// CHECK:         %[[VIEW:.*]] = memref.subview %[[BUFFER]]
// CHECK:         moe_rt.launch @kernels::@loop blocks(%c1) outs(%[[S]], %[[VIEW]] : memref<?xi32>, memref<?xi32, strided<[1], offset: 1>>) scalars(%[[N]] : index)
// CHECK:         moe_rt.launch @kernels::@loop_1 blocks(%{{.*}}) outs(%[[BUFFER]] :
// CHECK-NOT:     moe_rt.launch
// CHECK:         return
func.func @serial(%s: memref<?xi32>, %n: index) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %zero = arith.constant 0 : i32
  %a = memref.load %s[%c0] : memref<?xi32>
  %buffer = memref.alloc(%n) : memref<?xi32>
  %sum = scf.for %i = %c0 to %n step %c1 iter_args(%t = %a) -> i32 {
    %b = memref.load %s[%i] : memref<?xi32>
    %c = arith.addi %t, %b : i32
    scf.yield %c : i32
  }
  %size = arith.subi %n, %c1 : index
  %view = memref.subview %buffer[1] [%size] [1] : memref<?xi32> to memref<?xi32, strided<[1], offset: 1>>
  memref.store %sum, %view[%c0] : memref<?xi32, strided<[1], offset: 1>>
  scf.parallel (%i) = (%c0) to (%n) step (%c1) {
    memref.store %zero, %buffer[%i] : memref<?xi32>
    scf.reduce
  }
  return
}

// -----

gpu.module @kernels {
  llvm.func @loop(%y: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
}

// Loops and branches around launches stay, and the launches in their order; a name
// that is taken is not taken again.
// CHECK:       llvm.func @loop(
// CHECK:       gpu.func @loop_1(
// CHECK:       gpu.func @loop_2(
// CHECK-LABEL: func.func @around(
// CHECK-SAME:    %[[Y:.*]]: memref<?xf32>, %[[N:.*]]: index, %[[C:.*]]: i1)
// CHECK:         scf.for
// CHECK-NEXT:      moe_rt.launch @kernels::@loop blocks(%[[N]])
// CHECK:           moe_rt.launch @kernels::@loop_1 blocks(%c1)
// CHECK-NEXT:      scf.if %[[C]] {
// CHECK:             moe_rt.launch @kernels::@loop_2 blocks(%c1)
// CHECK-NEXT:        moe_rt.launch @kernels::@loop blocks(%[[N]])
func.func @around(%y: memref<?xf32>, %n: index, %c: i1) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %z = arith.constant 0.0 : f32
  %o = arith.constant 1.0 : f32
  scf.for %i = %c0 to %n step %c1 {
    moe_rt.launch @kernels::@loop blocks(%n) outs(%y : memref<?xf32>)
    memref.store %z, %y[%i] : memref<?xf32>
    scf.if %c {
      memref.store %o, %y[%i] : memref<?xf32>
      moe_rt.launch @kernels::@loop blocks(%n) outs(%y : memref<?xf32>)
    }
  }
  return
}

// -----

gpu.module @kernels {
}

// A parallel loop that adds up to a value has an order: one thread.
// CHECK:       gpu.func @loop({{.*}}known_block_size = array<i32: 1, 1, 1>
// CHECK:         scf.parallel
// CHECK-LABEL: func.func @reduction(
func.func @reduction(%y: memref<?xf32>, %s: memref<f32>, %n: index) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %z = arith.constant 0.0 : f32
  %r = scf.parallel (%i) = (%c0) to (%n) step (%c1) init (%z) -> f32 {
    %v = memref.load %y[%i] : memref<?xf32>
    scf.reduce(%v : f32) {
    ^bb0(%a: f32, %b: f32):
      %c = arith.addf %a, %b : f32
      scf.reduce.return %c : f32
    }
  }
  memref.store %r, %s[] : memref<f32>
  return
}

// Functions that are not exported run on the host.
// CHECK-LABEL: func.func @not_exported(
// CHECK:         memref.store
// CHECK-NOT:     moe_rt.launch
func.func @not_exported(%y: memref<f32>) {
  %z = arith.constant 0.0 : f32
  memref.store %z, %y[] : memref<f32>
  return
}

// -----

gpu.module @kernels {
  llvm.func @k(%y: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
}

// So does a loop whose end the host knows.
// CHECK-LABEL: func.func @until(
// CHECK:         scf.while
// CHECK:           moe_rt.launch @kernels::@k
// CHECK:         return
func.func @until(%y: memref<?xf32>, %n: index) attributes {moe.signature = #moe.signature} {
  %c1 = arith.constant 1 : index
  %c2 = arith.constant 2 : index
  %last = scf.while (%i = %n) : (index) -> index {
    %more = arith.cmpi ugt, %i, %c1 : index
    scf.condition(%more) %i : index
  } do {
  ^bb0(%i: index):
    moe_rt.launch @kernels::@k blocks(%i) outs(%y : memref<?xf32>)
    %next = arith.divui %i, %c2 : index
    scf.yield %next : index
  }
  return
}

// -----

gpu.module @kernels {
}

// How often a loop runs only the device knows: it is a part of what computes that.
// CHECK-LABEL: gpu.func @loop(
// CHECK:         %[[N:.*]] = memref.load
// CHECK:         scf.parallel (%{{.*}}) = (%c0) to (%[[N]])
// CHECK-LABEL: func.func @size(
// CHECK:         moe_rt.launch @kernels::@loop blocks(%c1)
func.func @size(%y: memref<?xf32>, %s: memref<index>) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %z = arith.constant 0.0 : f32
  %n = memref.load %s[] : memref<index>
  scf.parallel (%i) = (%c0) to (%n) step (%c1) {
    memref.store %z, %y[%i] : memref<?xf32>
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

// A loop of the host that asks what the host knows.
// CHECK-LABEL: func.func @while(
// CHECK:         scf.while
// CHECK:           arith.cmpi
// CHECK:         } do {
// CHECK:           moe_rt.launch @kernels::@k
// CHECK:           moe_rt.launch @kernels::@loop
func.func @while(%y: memref<?xf32>, %n: index) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %z = arith.constant 0.0 : f32
  %end = scf.while (%i = %c0) : (index) -> index {
    %more = arith.cmpi slt, %i, %n : index
    scf.condition(%more) %i : index
  } do {
  ^bb0(%i: index):
    moe_rt.launch @kernels::@k blocks(%n) outs(%y : memref<?xf32>)
    memref.store %z, %y[%i] : memref<?xf32>
    %next = arith.addi %i, %c1 : index
    scf.yield %next : index
  }
  return
}
