// REQUIRES: target-nvptx
// RUN: moe-opt %s -moe-gpu-to-buffers | FileCheck %s --check-prefix=MODULE
// RUN: moe-opt %s -moe-gpu | FileCheck %s

// Layers keep their names; generated symbols are renamed.
// MODULE:      gpu.module @[[KERNELS:kernels_[0-9]+]]
// MODULE:      func.func @kernels(
// MODULE:        moe_rt.launch @[[KERNELS]]::@gate
// MODULE:      func.func @moe_image_0(
// MODULE:        moe_rt.launch @[[KERNELS]]::@gate_1

// CHECK:       moe.images = [{{.*}}symbol = "[[IMAGE:moe_image_0_[0-9]+]]"
// CHECK:       llvm.mlir.global external constant @[[IMAGE]](
// CHECK:       llvm.func @moe_entry_kernels(
// CHECK:       llvm.func @moe_entry_moe_image_0(
func.func @kernels(%l: tensor<?x8xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>) {
  %w, %i = moe.gate %l top_k(2) : tensor<?x8xf32>
  return %w, %i : tensor<?x2xf32>, tensor<?x2xi32>
}
func.func @moe_image_0(%l: tensor<?x8xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>) {
  %w, %i = moe.gate %l top_k(2) : tensor<?x8xf32>
  return %w, %i : tensor<?x2xf32>, tensor<?x2xi32>
}
