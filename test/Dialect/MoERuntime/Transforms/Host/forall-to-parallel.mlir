// RUN: moe-opt %s -moe-forall-to-parallel | FileCheck %s

// One executor, the last argument, for all parallel loops of an exported function.
// CHECK-LABEL: func.func @exported(
// CHECK-SAME:    %[[N:.*]]: index, %[[M:.*]]: memref<?xf32>, %[[EXECUTOR:.*]]: !llvm.ptr)
// CHECK:         %[[COUNT:.*]] = arith.index_cast %[[N]] : index to i64
// CHECK-NEXT:    moe_rt.parallel %[[EXECUTOR]], %[[COUNT]] {
// CHECK-NEXT:    ^bb0(%[[TASK:.*]]: i64):
// CHECK-NEXT:      %[[I:.*]] = arith.index_cast %[[TASK]] : i64 to index
// CHECK-NEXT:      memref.store %{{.*}}, %[[M]][%[[I]]]
// CHECK-NEXT:      moe_rt.done
// CHECK-NEXT:    } : !llvm.ptr
// CHECK:         %[[EIGHT:.*]] = arith.index_cast %c8{{.*}} : index to i64
// CHECK-NEXT:    moe_rt.parallel %[[EXECUTOR]], %[[EIGHT]] {
// CHECK-NOT:     scf.forall
func.func @exported(%n: index, %m: memref<?xf32>) attributes {moe.signature = #moe.signature} {
  %z = arith.constant 0.0 : f32
  scf.forall (%i) in (%n) {
    memref.store %z, %m[%i] : memref<?xf32>
  }
  scf.forall (%i) in (8) {
    memref.store %z, %m[%i] : memref<?xf32>
  }
  return
}

// Tasks hand out no tasks.
// CHECK-LABEL: func.func @nested(
// CHECK:         moe_rt.parallel
// CHECK:           scf.for
// CHECK-NOT:       moe_rt.parallel
// CHECK:           moe_rt.done
func.func @nested(%n: index, %m: memref<?xf32>) attributes {moe.signature = #moe.signature} {
  %z = arith.constant 0.0 : f32
  scf.forall (%i) in (%n) {
    scf.forall (%j) in (%n) {
      memref.store %z, %m[%j] : memref<?xf32>
    }
  }
  return
}

// Loops of more dimensions, or that do not count from zero by one, are loops.
// CHECK-LABEL: func.func @other_loops(
// CHECK-SAME:    %{{.*}}: index, %{{.*}}: memref<?xf32>)
// CHECK-COUNT-3: scf.for
// CHECK-NOT:     scf.forall
// CHECK-NOT:     moe_rt.parallel
func.func @other_loops(%n: index, %m: memref<?xf32>) attributes {moe.signature = #moe.signature} {
  %z = arith.constant 0.0 : f32
  scf.forall (%i, %j) in (%n, 4) {
    memref.store %z, %m[%j] : memref<?xf32>
  }
  scf.forall (%i) = (1) to (%n) step (1) {
    memref.store %z, %m[%i] : memref<?xf32>
  }
  return
}

// Inside a sequential loop there are tasks in each iteration.
// CHECK-LABEL: func.func @in_a_loop(
// CHECK:         scf.for
// CHECK:           moe_rt.parallel
func.func @in_a_loop(%n: index, %m: memref<?xf32>) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %z = arith.constant 0.0 : f32
  scf.for %k = %c0 to %n step %c1 {
    scf.forall (%i) in (%n) {
      memref.store %z, %m[%i] : memref<?xf32>
    }
  }
  return
}

// Nobody passes an executor to other functions.
// CHECK-LABEL: func.func private @not_exported(
// CHECK-SAME:    %{{.*}}: index, %{{.*}}: memref<?xf32>)
// CHECK:         scf.for
// CHECK-NOT:     moe_rt.parallel
func.func private @not_exported(%n: index, %m: memref<?xf32>) {
  %z = arith.constant 0.0 : f32
  scf.forall (%i) in (%n) {
    memref.store %z, %m[%i] : memref<?xf32>
  }
  return
}

// CHECK-LABEL: func.func @without_loops(
// CHECK-SAME:    %{{.*}}: memref<?xf32>)
func.func @without_loops(%m: memref<?xf32>) attributes {moe.signature = #moe.signature} {
  return
}
