// REQUIRES: target-nvptx
// RUN: moe-opt %s --moe-serialize-kernels | FileCheck %s

// CHECK:      moe.images = [{arch = "sm_90a", format = "ptx"
// CHECK:      moe.kernels = [{{.*}}name = "write"
// CHECK:      llvm.mlir.global external constant @moe_image_0
// CHECK-SAME:   .visible .entry write(
gpu.module @kernels [#nvvm.target<chip = "sm_90a">] {
  llvm.func @write(%y: !llvm.ptr<1>, %v: f32) attributes {gpu.kernel, nvvm.kernel} {
    llvm.store %v, %y : f32, !llvm.ptr<1>
    llvm.return
  }
}
