// REQUIRES: target-nvptx
// RUN: not moe-opt %s -moe-serialize-kernels 2>&1 | FileCheck %s

// The code generator would make something for the least of all GPUs.
// CHECK: error: {{.*}}'sm_999'
gpu.module @kernels [#nvvm.target<chip = "sm_999">] {
  llvm.func @f(%p: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
}
