// RUN: moe-opt %s --moe-launches-to-calls | FileCheck %s

// The launcher of the runtime is a new last argument; its third field is the function to call.
// CHECK-LABEL: func.func @layer(
// CHECK-SAME:    %[[LAUNCHER:[a-z0-9]+]]: !llvm.ptr)
// CHECK:         llvm.getelementptr %[[LAUNCHER]][2]
// CHECK:         llvm.call
// CHECK-NOT:     moe_rt.launch
gpu.module @kernels {
  llvm.func @k(%y: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
}
func.func @layer(%y: memref<8xf32>) attributes {moe.signature = #moe.signature} {
  %blocks = arith.constant 4 : index
  moe_rt.launch @kernels::@k blocks(%blocks) outs(%y : memref<8xf32>)
  return
}
