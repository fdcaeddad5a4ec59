// RUN: moe-opt %s --moe-move-bf16-as-i16 | FileCheck %s

// CHECK-LABEL: llvm.func @copy(
// CHECK:         llvm.load %{{.*}} : !llvm.ptr -> i16
// CHECK:         llvm.store %{{.*}} : i16, !llvm.ptr
llvm.func @copy(%from: !llvm.ptr, %to: !llvm.ptr) {
  %v = llvm.load %from : !llvm.ptr -> bf16
  llvm.store %v, %to : bf16, !llvm.ptr
  llvm.return
}
