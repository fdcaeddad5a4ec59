// RUN: moe-opt %s -convert-moe-to-gpu -split-input-file -verify-diagnostics
// RUN: moe-opt %s -moe-serialize-kernels -split-input-file -verify-diagnostics

// All kernels are in one gpu.module, which becomes one image.
gpu.module @kernels [#nvvm.target<chip = "sm_80">] {
}
// expected-error @+1 {{expected one gpu.module, with all kernels of the program, got another}}
gpu.module @others [#nvvm.target<chip = "sm_80">] {
}
