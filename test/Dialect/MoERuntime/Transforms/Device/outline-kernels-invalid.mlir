// RUN: moe-opt %s -moe-outline-kernels -split-input-file -verify-diagnostics

// expected-error @+1 {{expected a gpu.module for kernels; run convert-moe-to-gpu}}
module {
}

// -----

gpu.module @kernels {
  llvm.func @k(%y: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
}
func.func @branch(%y: memref<?xf32>, %n: index, %s: memref<i1>) attributes {moe.signature = #moe.signature} {
  // expected-error @+1 {{computes a value on the device that the host needs}}
  %c = memref.load %s[] : memref<i1>
  // expected-note @+1 {{used here}}
  scf.if %c {
    moe_rt.launch @kernels::@k blocks(%n) outs(%y : memref<?xf32>)
  }
  return
}

// -----

gpu.module @kernels {
  llvm.func @k(%y: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
}
func.func @carried(%y: memref<?xf32>, %s: memref<f32>, %n: index) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %z = arith.constant 0.0 : f32
  %r = scf.for %i = %c0 to %n step %c1 iter_args(%a = %z) -> f32 {
    moe_rt.launch @kernels::@k blocks(%n) outs(%y : memref<?xf32>)
    %v = memref.load %y[%i] : memref<?xf32>
    // expected-error @+1 {{computes a value on the device that the host needs}}
    %b = arith.addf %a, %v : f32
    // expected-note @+1 {{used here}}
    scf.yield %b : f32
  }
  memref.store %r, %s[] : memref<f32>
  return
}

// -----

gpu.module @kernels {
}
func.func private @act(f32) -> f32
func.func @call(%y: memref<?xf32>, %n: index) attributes {moe.signature = #moe.signature} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  scf.parallel (%i) = (%c0) to (%n) step (%c1) {
    %v = memref.load %y[%i] : memref<?xf32>
    // expected-error @+1 {{'func.call' op calls a function that cannot be inlined into a kernel}}
    %a = func.call @act(%v) : (f32) -> f32
    memref.store %a, %y[%i] : memref<?xf32>
    scf.reduce
  }
  return
}

// -----

gpu.module @kernels {
  llvm.func @k(%y: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
}
func.func @until(%y: memref<?xf32>, %s: memref<i1>, %n: index) attributes {moe.signature = #moe.signature} {
  scf.while : () -> () {
    // expected-error @+1 {{computes a value on the device that the host needs}}
    %c = memref.load %s[] : memref<i1>
    // expected-note @+1 {{used here}}
    scf.condition(%c)
  } do {
    moe_rt.launch @kernels::@k blocks(%n) outs(%y : memref<?xf32>)
    scf.yield
  }
  return
}

// -----

gpu.module @kernels {
  llvm.func @k(%y: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
}
func.func @iterations(%y: memref<?xf32>, %n: index) attributes {moe.signature = #moe.signature} {
  %z = arith.constant 0.0 : f32
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  // expected-error @+1 {{'scf.parallel' op launches kernels under control flow that depends on the device}}
  scf.parallel (%i) = (%c0) to (%n) step (%c1) {
    // expected-note @+1 {{launched here}}
    moe_rt.launch @kernels::@k blocks(%n) outs(%y : memref<?xf32>)
    memref.store %z, %y[%i] : memref<?xf32>
    scf.reduce
  }
  return
}
