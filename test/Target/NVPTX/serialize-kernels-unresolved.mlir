// REQUIRES: target-nvptx
// RUN: not moe-opt %s -moe-serialize-kernels 2>&1 | FileCheck %s

// There is nothing on the device to link with: a driver would refuse such an image
// when the layer is loaded.
// CHECK: error: {{.*}}__nv_tanf
gpu.module @kernels {
  llvm.func @__nv_tanf(f32) -> f32
  llvm.func @f(%x: f32, %p: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    %y = llvm.call @__nv_tanf(%x) : (f32) -> f32
    llvm.store %y, %p : f32, !llvm.ptr<1>
    llvm.return
  }
}
