// RUN: moe-opt %s -split-input-file -verify-diagnostics -allow-unregistered-dialect

//===----------------------------------------------------------------------===//
// moe_rt.tensor_map
//===----------------------------------------------------------------------===//

// expected-error @+1 {{expected the index of an operand, got -1}}
"test"() {a = #moe_rt.tensor_map<input = -1, box = [8], swizzle = 0>} : () -> ()

// -----

// expected-error @+1 {{expected a box of 1 to 5 dimensions, got 6}}
"test"() {a = #moe_rt.tensor_map<input = 0, box = [1, 1, 1, 1, 1, 8], swizzle = 0>} : () -> ()

// -----

// expected-error @+1 {{expected 1 to 256 elements of each dimension in a box, got 0}}
"test"() {a = #moe_rt.tensor_map<input = 0, box = [8, 0], swizzle = 0>} : () -> ()

// -----

// expected-error @+1 {{expected 1 to 256 elements of each dimension in a box, got 257}}
"test"() {a = #moe_rt.tensor_map<input = 0, box = [257, 8], swizzle = 0>} : () -> ()

// -----

// expected-error @+1 {{expected a swizzle of 0, 32, 64 or 128 bytes, got 16}}
"test"() {a = #moe_rt.tensor_map<input = 0, box = [8], swizzle = 16>} : () -> ()

// -----

//===----------------------------------------------------------------------===//
// moe_rt.launch
//===----------------------------------------------------------------------===//

func.func @no_destination(%x: tensor<?xf32>, %n: index) {
  // expected-error @+1 {{'moe_rt.launch' op expected at least one destination}}
  moe_rt.launch @kernels::@f blocks(%n) ins(%x : tensor<?xf32>)
  return
}

// -----

func.func @mixed_inputs(%x: memref<?xf32>, %y: tensor<?xf32>, %n: index) -> tensor<?xf32> {
  // expected-error @+1 {{expected data that are all tensors or all memrefs, got 'tensor<?xf32>' and 'memref<?xf32>'}}
  %r = moe_rt.launch @kernels::@f blocks(%n) ins(%x : memref<?xf32>) outs(%y : tensor<?xf32>) -> tensor<?xf32>
  return %r : tensor<?xf32>
}

// -----

func.func @mixed_destinations(%x: memref<?xf32>, %y: tensor<?xf32>, %n: index) {
  // expected-error @+1 {{expected data that are all tensors or all memrefs, got 'memref<?xf32>' and 'tensor<?xf32>'}}
  moe_rt.launch @kernels::@f blocks(%n) outs(%x, %y : memref<?xf32>, tensor<?xf32>)
  return
}

// -----

func.func @no_result(%y: tensor<?xf32>, %n: index) {
  // expected-error @+1 {{expected the types of the destinations as results}}
  moe_rt.launch @kernels::@f blocks(%n) outs(%y : tensor<?xf32>)
  return
}

// -----

func.func @other_result(%y: tensor<?xf32>, %n: index) -> tensor<4xf32> {
  // expected-error @+1 {{expected the types of the destinations as results}}
  %r = moe_rt.launch @kernels::@f blocks(%n) outs(%y : tensor<?xf32>) -> tensor<4xf32>
  return %r : tensor<4xf32>
}

// -----

func.func @result_of_buffers(%y: memref<?xf32>, %n: index) -> tensor<?xf32> {
  // expected-error @+1 {{expected the types of the destinations as results}}
  %r = moe_rt.launch @kernels::@f blocks(%n) outs(%y : memref<?xf32>) -> tensor<?xf32>
  return %r : tensor<?xf32>
}

// -----

func.func @no_number(%y: memref<?xf32>, %p: !llvm.ptr, %n: index) {
  // expected-error @+1 {{expected scalars of integers or floats, got '!llvm.ptr'}}
  moe_rt.launch @kernels::@f blocks(%n) outs(%y : memref<?xf32>) scalars(%n, %p : index, !llvm.ptr)
  return
}

// -----

func.func @unranked(%y: memref<*xf32>, %n: index) {
  // expected-error @+1 {{'moe_rt.launch' op operand #1 must be variadic of ranked tensor or memref}}
  moe_rt.launch @kernels::@f blocks(%n) outs(%y : memref<*xf32>)
  return
}

// -----

func.func @map_of_destination(%x: memref<8x8xf32>, %y: memref<8x8xf32>, %n: index) {
  // expected-error @+1 {{expected a tensor map of one of 1 inputs, got input 1}}
  moe_rt.launch @kernels::@f blocks(%n) ins(%x : memref<8x8xf32>) outs(%y : memref<8x8xf32>) maps([#moe_rt.tensor_map<input = 1, box = [8, 8], swizzle = 32>])
  return
}

// -----

func.func @map_of_nothing(%y: memref<8x8xf32>, %n: index) {
  // expected-error @+1 {{expected a tensor map of one of 0 inputs, got input 0}}
  moe_rt.launch @kernels::@f blocks(%n) outs(%y : memref<8x8xf32>) maps([#moe_rt.tensor_map<input = 0, box = [8, 8], swizzle = 32>])
  return
}

// -----

func.func @rank_of_map(%x: memref<8x8xf32>, %y: memref<8x8xf32>, %n: index) {
  // expected-error @+1 {{expected a box of as many dimensions as the input, 2, got 1}}
  moe_rt.launch @kernels::@f blocks(%n) ins(%x : memref<8x8xf32>) outs(%y : memref<8x8xf32>) maps([#moe_rt.tensor_map<input = 0, box = [8], swizzle = 32>])
  return
}

// -----

func.func @no_maps(%x: memref<8x8xf32>, %y: memref<8x8xf32>, %n: index) {
  // expected-error @+1 {{attribute 'maps' failed to satisfy constraint: array of tensor maps}}
  moe_rt.launch @kernels::@f blocks(%n) ins(%x : memref<8x8xf32>) outs(%y : memref<8x8xf32>) maps([1])
  return
}

// -----

func.func @no_module(%y: memref<?xf32>, %n: index) {
  // expected-error @+1 {{expected a kernel, found no function @kernels::@f}}
  moe_rt.launch @kernels::@f blocks(%n) outs(%y : memref<?xf32>)
  return
}

// -----

gpu.module @kernels {
  llvm.mlir.global @f(0 : i32) : i32
}
func.func @no_function(%y: memref<?xf32>, %n: index) {
  // expected-error @+1 {{expected a kernel, found no function @kernels::@f}}
  moe_rt.launch @kernels::@f blocks(%n) outs(%y : memref<?xf32>)
  return
}

// -----

// A tensor map, data and scalars: each is an argument.
gpu.module @kernels {
  llvm.func @f(%x: !llvm.ptr<1>, %y: !llvm.ptr<1>, %n: i64) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
}
func.func @arguments(%x: memref<8x8xf32>, %y: memref<8x8xf32>, %n: index) {
  // expected-error @+1 {{expected a kernel with 4 arguments, got 3}}
  moe_rt.launch @kernels::@f blocks(%n) ins(%x : memref<8x8xf32>) outs(%y : memref<8x8xf32>) scalars(%n : index) maps([#moe_rt.tensor_map<input = 0, box = [8, 8], swizzle = 32>])
  return
}

// -----

gpu.module @kernels {
  llvm.func @f(%y: !llvm.ptr<1>) {
    llvm.return
  }
}
func.func @no_kernel(%y: memref<8xf32>, %n: index) {
  // expected-error @+1 {{expected a kernel, @kernels::@f lacks gpu.kernel}}
  moe_rt.launch @kernels::@f blocks(%n) outs(%y : memref<8xf32>)
  return
}
