// RUN: moe-opt %s | FileCheck %s
// What is printed parses to the same, as bytecode too.
// RUN: moe-opt %s | moe-opt | FileCheck %s
// RUN: moe-opt %s --mlir-print-op-generic | moe-opt | FileCheck %s
// RUN: moe-opt %s --emit-bytecode | moe-opt | FileCheck %s
// RUN: moe-opt %s -canonicalize | FileCheck %s --check-prefix=DCE
// RUN: moe-opt %s -inline | FileCheck %s --check-prefix=INLINE

// CHECK-LABEL: func.func @tasks(
// CHECK-SAME:    %[[E:.*]]: !llvm.ptr, %[[N:.*]]: i64, %[[M:.*]]: memref<?xf32>)
// CHECK:         moe_rt.parallel %[[E]], %[[N]] {
// CHECK-NEXT:    ^bb0(%[[I:.*]]: i64):
// CHECK:           memref.store
// CHECK-NEXT:      moe_rt.done
// CHECK-NEXT:    } : !llvm.ptr
// DCE-LABEL: func.func @tasks(
// DCE:         moe_rt.parallel
func.func @tasks(%e: !llvm.ptr, %n: i64, %m: memref<?xf32>) {
  %zero = arith.constant 0.0 : f32
  moe_rt.parallel %e, %n {
  ^bb0(%i: i64):
    %j = arith.index_cast %i : i64 to index
    memref.store %zero, %m[%j] : memref<?xf32>
    moe_rt.done
  } : !llvm.ptr
  return
}

// A task may have several blocks, and end in each.
// CHECK-LABEL: func.func @blocks(
// CHECK:         cf.cond_br %{{.*}}, ^bb1, ^bb2
// CHECK-NEXT:    ^bb1:
// CHECK-NEXT:      moe_rt.done
// CHECK-NEXT:    ^bb2:
// CHECK:           moe_rt.done
// CHECK-NEXT:    } {my.note = "kept"} : !llvm.ptr
func.func @blocks(%e: !llvm.ptr, %n: i64, %c: i1, %m: memref<f32>) {
  %zero = arith.constant 0.0 : f32
  moe_rt.parallel %e, %n {
  ^bb0(%i: i64):
    cf.cond_br %c, ^bb1, ^bb2
  ^bb1:
    moe_rt.done
  ^bb2:
    memref.store %zero, %m[] : memref<f32>
    moe_rt.done
  } {my.note = "kept"} : !llvm.ptr
  return
}

// Tasks without effects are nobody's business.
// DCE-LABEL: func.func @nothing(
// DCE-NEXT:    return
func.func @nothing(%e: !llvm.ptr, %n: i64) {
  moe_rt.parallel %e, %n {
  ^bb0(%i: i64):
    moe_rt.done
  } : !llvm.ptr
  return
}

// A task may call a function, which is inlined into it.
func.func private @clear(%m: memref<f32>) {
  %zero = arith.constant 0.0 : f32
  memref.store %zero, %m[] : memref<f32>
  return
}
// INLINE-LABEL: func.func @call(
// INLINE:         moe_rt.parallel
// INLINE-NOT:       call
// INLINE:           memref.store
// INLINE:           moe_rt.done
func.func @call(%e: !llvm.ptr, %n: i64, %m: memref<f32>) {
  moe_rt.parallel %e, %n {
  ^bb0(%i: i64):
    func.call @clear(%m) : (memref<f32>) -> ()
    moe_rt.done
  } : !llvm.ptr
  return
}
