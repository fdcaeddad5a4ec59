// REQUIRES: target-nvptx
// RUN: moe-opt %s -moe-serialize-kernels -split-input-file -verify-diagnostics

// expected-error @+1 {{failed to translate the kernels to LLVM IR}}
gpu.module @not_lowered {
  llvm.func @f(%x: f32, %p: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    // expected-error @+1 {{cannot be converted to LLVM IR}}
    %y = arith.addf %x, %x : f32
    llvm.store %y, %p : f32, !llvm.ptr<1>
    llvm.return
  }
}

// -----

// expected-error @+1 {{failed to translate the kernels to LLVM IR}}
gpu.module @functions_of_gpu {
  // expected-error @+2 {{unsupported GPU operation: gpu.func}}
  // expected-error @+1 {{LLVM Translation failed for operation: gpu.func}}
  gpu.func @f(%x: f32) kernel {
    gpu.return
  }
}
