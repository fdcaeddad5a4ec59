// RUN: moe-opt %s --canonicalize --cse | FileCheck %s

// Nothing removes, joins or reorders stages.
// CHECK-LABEL: func.func @layer(
// CHECK-NEXT:    moe_rt.stage %{{.*}}, 0 : !llvm.ptr
// CHECK-NEXT:    moe_rt.stage %{{.*}}, 0 : !llvm.ptr
// CHECK-NEXT:    moe_rt.stage %{{.*}}, 1 : !llvm.ptr
func.func @layer(%executor: !llvm.ptr) {
  moe_rt.stage %executor, 0 : !llvm.ptr
  moe_rt.stage %executor, 0 : !llvm.ptr
  moe_rt.stage %executor, 1 : !llvm.ptr
  return
}
