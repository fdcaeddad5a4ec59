// RUN: moe-opt %s -moe-launches-to-calls -split-input-file -verify-diagnostics

gpu.module @kernels {
  llvm.func @f(%y: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
}
func.func @on_tensors(%y: tensor<8xf32>, %n: index) -> tensor<8xf32> {
  // expected-error @+1 {{is on tensors; bufferize it before moe-launches-to-calls}}
  %r = moe_rt.launch @kernels::@f blocks(%n) outs(%y : tensor<8xf32>) -> tensor<8xf32>
  return %r : tensor<8xf32>
}

// -----

// Kernels take pointers to data that lie together.
gpu.module @kernels {
  llvm.func @f(%x: !llvm.ptr<1>, %y: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
}
func.func @strided(%x: memref<4x8xf32, strided<[16, 1]>>, %y: memref<8xf32>, %n: index) {
  // expected-error @+1 {{expected compact data, got 'memref<4x8xf32, strided<[16, 1]>>'}}
  moe_rt.launch @kernels::@f blocks(%n) ins(%x : memref<4x8xf32, strided<[16, 1]>>) outs(%y : memref<8xf32>)
  return
}

// -----

gpu.module @kernels {
  llvm.func @f(%m: !llvm.ptr, %x: !llvm.ptr<1>, %y: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
}
func.func @wide_elements(%x: memref<8x8xf64>, %y: memref<8xf32>, %n: index) {
  // expected-error @+1 {{expected a tensor map of elements of 8, 16 or 32 bits, got 'f64'}}
  moe_rt.launch @kernels::@f blocks(%n) ins(%x : memref<8x8xf64>) outs(%y : memref<8xf32>) maps([#moe_rt.tensor_map<input = 0, box = [8, 8], swizzle = 0>])
  return
}

// -----

gpu.module @kernels {
  llvm.func @f(%m: !llvm.ptr, %x: !llvm.ptr<1>, %y: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
}
func.func @other_elements(%x: memref<8x8xi16>, %y: memref<8xf32>, %n: index) {
  // expected-error @+1 {{expected a tensor map of elements of 8, 16 or 32 bits, got 'i16'}}
  moe_rt.launch @kernels::@f blocks(%n) ins(%x : memref<8x8xi16>) outs(%y : memref<8xf32>) maps([#moe_rt.tensor_map<input = 0, box = [8, 8], swizzle = 0>])
  return
}

// -----

gpu.module @kernels {
  llvm.func @f(%y: !llvm.ptr<1>, %s: i128) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
}
func.func @wide_scalar(%y: memref<8xf32>, %n: index, %s: i128) {
  // expected-error @+1 {{expected scalars of at most 64 bits, got 'i128'}}
  moe_rt.launch @kernels::@f blocks(%n) outs(%y : memref<8xf32>) scalars(%s : i128)
  return
}
