// RUN: moe-opt %s -moe-outline-tasks -split-input-file -verify-diagnostics

func.func @too_early(%m: memref<f32>, %n: i64, %e: !llvm.ptr) {
  %z = arith.constant 0.0 : f32
  // expected-error @+1 {{expected a function of the LLVM dialect; run moe-outline-tasks after the conversion to llvm}}
  moe_rt.parallel %e, %n {
  ^bb0(%i: i64):
    memref.store %z, %m[] : memref<f32>
    moe_rt.done
  } : !llvm.ptr
  return
}

// -----

llvm.func @executor(%e: i64, %n: i64) {
  // expected-error @+1 {{expected a function of the LLVM dialect; run moe-outline-tasks after the conversion to llvm}}
  moe_rt.parallel %e, %n {
  ^bb0(%i: i64):
    moe_rt.done
  } : i64
  llvm.return
}

// -----

llvm.func @values(%p: !llvm.ptr, %n: i64, %e: !llvm.ptr) {
  %m = builtin.unrealized_conversion_cast %p : !llvm.ptr to memref<f32>
  // expected-error @+1 {{expected a task that uses values of the LLVM dialect only, got 'memref<f32>'}}
  moe_rt.parallel %e, %n {
  ^bb0(%i: i64):
    %v = memref.load %m[] : memref<f32>
    moe_rt.done
  } : !llvm.ptr
  llvm.return
}

// -----

func.func @stage(%e: !llvm.ptr) {
  // expected-error @+1 {{expected a function of the LLVM dialect; run moe-outline-tasks after the conversion to llvm}}
  moe_rt.stage %e, 0 : !llvm.ptr
  return
}
