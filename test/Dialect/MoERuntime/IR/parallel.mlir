// RUN: moe-opt %s | FileCheck %s
// What is printed parses to the same, as bytecode too.
// RUN: moe-opt %s | moe-opt | FileCheck %s
// RUN: moe-opt %s --mlir-print-op-generic | moe-opt | FileCheck %s
// RUN: moe-opt %s --emit-bytecode | moe-opt | FileCheck %s
// RUN: moe-opt %s -canonicalize | FileCheck %s --check-prefix=DCE

// CHECK-LABEL: func.func @tasks(
// CHECK-SAME:    %[[E:.*]]: !llvm.ptr, %[[N:.*]]: i64, %[[M:.*]]: memref<?xf32>)
// CHECK:         moe.parallel %[[E]], %[[N]] {
// CHECK-NEXT:    ^bb0(%[[I:.*]]: i64):
// CHECK:           memref.store
// CHECK-NEXT:      moe.done
// CHECK-NEXT:    } : !llvm.ptr
// DCE-LABEL: func.func @tasks(
// DCE:         moe.parallel
func.func @tasks(%e: !llvm.ptr, %n: i64, %m: memref<?xf32>) {
  %zero = arith.constant 0.0 : f32
  moe.parallel %e, %n {
  ^bb0(%i: i64):
    %j = arith.index_cast %i : i64 to index
    memref.store %zero, %m[%j] : memref<?xf32>
    moe.done
  } : !llvm.ptr
  return
}

// A task may have several blocks, and end in each.
// CHECK-LABEL: func.func @blocks(
// CHECK:         cf.cond_br %{{.*}}, ^bb1, ^bb2
// CHECK-NEXT:    ^bb1:
// CHECK-NEXT:      moe.done
// CHECK-NEXT:    ^bb2:
// CHECK:           moe.done
// CHECK-NEXT:    } {my.note = "kept"} : !llvm.ptr
func.func @blocks(%e: !llvm.ptr, %n: i64, %c: i1, %m: memref<f32>) {
  %zero = arith.constant 0.0 : f32
  moe.parallel %e, %n {
  ^bb0(%i: i64):
    cf.cond_br %c, ^bb1, ^bb2
  ^bb1:
    moe.done
  ^bb2:
    memref.store %zero, %m[] : memref<f32>
    moe.done
  } {my.note = "kept"} : !llvm.ptr
  return
}

// Tasks without effects are nobody's business.
// DCE-LABEL: func.func @nothing(
// DCE-NEXT:    return
func.func @nothing(%e: !llvm.ptr, %n: i64) {
  moe.parallel %e, %n {
  ^bb0(%i: i64):
    moe.done
  } : !llvm.ptr
  return
}
