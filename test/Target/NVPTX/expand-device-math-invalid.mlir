// RUN: moe-opt %s -pass-pipeline='builtin.module(gpu.module(math-extend-to-supported-types,moe-expand-device-math))' -split-input-file -verify-diagnostics

// On the host there is a library.
func.func @on_the_host(%x: f64) -> f64 {
  %y = math.exp %x : f64
  return %y : f64
}

// -----

gpu.module @kernels {
  llvm.func @double(%x: f64) -> f64 {
    // expected-error @+1 {{'math.exp' op of 'f64' has no implementation on the device}}
    %y = math.exp %x : f64
    // expected-error @+1 {{'math.tanh' op of 'f64' has no implementation on the device}}
    %z = math.tanh %y : f64
    llvm.return %z : f64
  }
}

// -----

// No polynomial is known.
gpu.module @kernels {
  llvm.func @single(%x: f32) -> f32 {
    // expected-error @+1 {{'math.log10' op of 'f32' has no implementation on the device}}
    %y = math.log10 %x : f32
    // expected-error @+1 {{'arith.remf' op of 'f32' has no implementation on the device}}
    %z = arith.remf %y, %x : f32
    llvm.return %z : f32
  }
}

// -----

gpu.module @kernels {
  llvm.func @integer(%x: i32) -> i32 {
    // expected-error @+1 {{'math.ipowi' op of 'i32' has no implementation on the device}}
    %y = math.ipowi %x, %x : i32
    llvm.return %y : i32
  }
}
