// RUN: moe-opt %s | FileCheck %s
// What is printed parses to the same, as bytecode too.
// RUN: moe-opt %s | moe-opt | FileCheck %s
// RUN: moe-opt %s --mlir-print-op-generic | moe-opt | FileCheck %s
// RUN: moe-opt %s --emit-bytecode | moe-opt | FileCheck %s
// RUN: moe-opt %s --mlir-print-op-generic | FileCheck %s --check-prefix=GENERIC
// RUN: moe-opt %s -canonicalize -cse | FileCheck %s --check-prefix=DCE
// RUN: moe-opt %s -resolve-ranked-shaped-type-result-dims | FileCheck %s --check-prefix=SHAPE
// RUN: moe-opt %s -one-shot-bufferize="bufferize-function-boundaries function-boundary-type-conversion=identity-layout-map" | FileCheck %s --check-prefix=BUFFERS

gpu.module @kernels {
  llvm.func @write(%y: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
  llvm.func @copy(%x: !llvm.ptr<1>, %y: !llvm.ptr<1>, %n: i64) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
  llvm.func @two(%m: !llvm.ptr, %w: !llvm.ptr<1>, %y: !llvm.ptr<1>, %z: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
  gpu.func @memrefs(%y: memref<?xf32>, %n: index) kernel {
    gpu.return
  }
}

// CHECK-LABEL: func.func @tensors(
// CHECK-SAME:    %[[X:.*]]: tensor<?xf32>, %[[INIT:.*]]: tensor<?xf32>, %[[N:.*]]: index)
// CHECK-NEXT:    %[[Y:.*]] = moe_rt.launch @kernels::@copy blocks(%[[N]]) ins(%[[X]] : tensor<?xf32>) outs(%[[INIT]] : tensor<?xf32>) scalars(%[[N]] : index) -> tensor<?xf32>
// CHECK-NEXT:    return %[[Y]]
// GENERIC-LABEL: sym_name = "tensors"
// GENERIC:       "moe_rt.launch"({{.*}}) <{kernel = @kernels::@copy, operandSegmentSizes = array<i32: 1, 1, 1, 1>}> : (index, tensor<?xf32>, tensor<?xf32>, index) -> tensor<?xf32>
// BUFFERS-LABEL: func.func @tensors(
// BUFFERS-SAME:    %[[X:.*]]: memref<?xf32>, %[[INIT:.*]]: memref<?xf32>, %[[N:.*]]: index)
// BUFFERS-NEXT:    moe_rt.launch @kernels::@copy blocks(%[[N]]) ins(%[[X]] : memref<?xf32>) outs(%[[INIT]] : memref<?xf32>) scalars(%[[N]] : index){{$}}
// BUFFERS-NEXT:    return %[[INIT]]
func.func @tensors(%x: tensor<?xf32>, %init: tensor<?xf32>, %n: index) -> tensor<?xf32> {
  %y = moe_rt.launch @kernels::@copy blocks(%n) ins(%x : tensor<?xf32>) outs(%init : tensor<?xf32>) scalars(%n : index) -> tensor<?xf32>
  return %y : tensor<?xf32>
}

// Everything at once; each result has the type, and the memory, of its destination.
// CHECK-LABEL: func.func @all(
// CHECK:         %{{.*}}:2 = moe_rt.launch @kernels::@two blocks(%{{.*}}) ins(%{{.*}} : tensor<4x8x16xbf16>) outs(%{{.*}}, %{{.*}} : tensor<?xf32>, tensor<2xi32>)
// CHECK-SAME:      maps([#moe_rt.tensor_map<input = 0, box = [1, 8, 16], swizzle = 32>]) {my.note = "kept"} -> tensor<?xf32>, tensor<2xi32>
// BUFFERS-LABEL: func.func @all(
// BUFFERS-SAME:    %{{.*}}, %[[Y:.*]]: memref<?xf32>, %[[Z:.*]]: memref<2xi32>, %{{.*}}: index)
// BUFFERS-NEXT:    moe_rt.launch @kernels::@two blocks(%{{.*}}) ins(%{{.*}} : memref<4x8x16xbf16>) outs(%[[Y]], %[[Z]] : memref<?xf32>, memref<2xi32>) maps({{.*}}) {my.note = "kept"}{{$}}
// BUFFERS-NEXT:    return %[[Y]], %[[Z]]
func.func @all(%w: tensor<4x8x16xbf16>, %y: tensor<?xf32>, %z: tensor<2xi32>, %n: index) -> (tensor<?xf32>, tensor<2xi32>) {
  %r:2 = moe_rt.launch @kernels::@two blocks(%n) ins(%w : tensor<4x8x16xbf16>) outs(%y, %z : tensor<?xf32>, tensor<2xi32>)
    maps([#moe_rt.tensor_map<input = 0, box = [1, 8, 16], swizzle = 32>]) {my.note = "kept"} -> tensor<?xf32>, tensor<2xi32>
  return %r#0, %r#1 : tensor<?xf32>, tensor<2xi32>
}

// On buffers there is no result; a kernel may take memrefs.
// CHECK-LABEL: func.func @buffers(
// CHECK:         moe_rt.launch @kernels::@write blocks(%{{.*}}) outs(%{{.*}} : memref<?xf32>){{$}}
// CHECK-NEXT:    moe_rt.launch @kernels::@memrefs blocks(%{{.*}}) outs(%{{.*}} : memref<?xf32>) scalars(%{{.*}} : index){{$}}
// DCE-LABEL:   func.func @buffers(
// DCE-COUNT-2:   moe_rt.launch
func.func @buffers(%y: memref<?xf32>, %n: index) {
  moe_rt.launch @kernels::@write blocks(%n) outs(%y : memref<?xf32>)
  moe_rt.launch @kernels::@memrefs blocks(%n) outs(%y : memref<?xf32>) scalars(%n : index)
  return
}

// On tensors a launch whose results nobody reads is not needed.
// DCE-LABEL: func.func @unused(
// DCE-NEXT:    return
func.func @unused(%y: tensor<?xf32>, %n: index) {
  %r = moe_rt.launch @kernels::@write blocks(%n) outs(%y : tensor<?xf32>) -> tensor<?xf32>
  return
}

// SHAPE-LABEL: func.func @extent(
// SHAPE-SAME:    %{{.*}}: tensor<?xf32>, %[[INIT:.*]]: tensor<?xf32>, %{{.*}}: index)
// SHAPE:         %[[D:.*]] = tensor.dim %[[INIT]], %c0
// SHAPE:         return %[[D]]
func.func @extent(%x: tensor<?xf32>, %init: tensor<?xf32>, %n: index) -> index {
  %c0 = arith.constant 0 : index
  %y = moe_rt.launch @kernels::@copy blocks(%n) ins(%x : tensor<?xf32>) outs(%init : tensor<?xf32>) scalars(%n : index) -> tensor<?xf32>
  %d = tensor.dim %y, %c0 : tensor<?xf32>
  return %d : index
}

// One question has one answer, and none if nobody asks.
// CHECK-LABEL: func.func @multiprocessors(
// CHECK-NEXT:    moe_rt.multiprocessors {my.note = "kept"}
// DCE-LABEL:   func.func @multiprocessors(
// DCE-NEXT:      %[[N:.*]] = moe_rt.multiprocessors
// DCE-NEXT:      return %[[N]], %[[N]]
// GENERIC-LABEL: sym_name = "multiprocessors"
// GENERIC:         "moe_rt.multiprocessors"() : () -> index
func.func @multiprocessors() -> (index, index) {
  %unused = moe_rt.multiprocessors {my.note = "kept"}
  %a = moe_rt.multiprocessors
  %b = moe_rt.multiprocessors
  return %a, %b : index, index
}
