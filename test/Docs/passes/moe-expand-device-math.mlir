// RUN: moe-opt %s --pass-pipeline='builtin.module(gpu.module(moe-expand-device-math))' | FileCheck %s

// The device has a power of two.
// CHECK-LABEL: llvm.func @exp(
// CHECK-NOT:     math.exp
// CHECK:         "llvm.nvvm.ex2.approx"
gpu.module @kernels {
  llvm.func @exp(%x: f32) -> f32 {
    %y = math.exp %x : f32
    llvm.return %y : f32
  }
}
