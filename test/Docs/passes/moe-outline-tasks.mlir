// RUN: moe-opt %s --moe-outline-tasks | FileCheck %s

// The region becomes a function; what it uses from outside comes through a structure.
// CHECK-LABEL: llvm.func internal @layer__task0(
// CHECK-SAME:    !llvm.ptr, %{{.*}}: i64)
// CHECK-LABEL: llvm.func @layer(
// CHECK-NOT:     moe_rt.parallel
// CHECK:         llvm.alloca
// CHECK:         llvm.call
llvm.func @layer(%m: !llvm.ptr, %v: f32, %n: i64, %executor: !llvm.ptr) {
  moe_rt.parallel %executor, %n {
  ^bb0(%i: i64):
    %a = llvm.getelementptr %m[%i] : (!llvm.ptr, i64) -> !llvm.ptr, f32
    llvm.store %v, %a : f32, !llvm.ptr
    moe_rt.done
  } : !llvm.ptr
  llvm.return
}
