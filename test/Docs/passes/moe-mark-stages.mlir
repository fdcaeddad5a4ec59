// RUN: moe-opt %s --moe-mark-stages | FileCheck %s

// CHECK-LABEL: func.func @layer(
// CHECK-SAME:    moe.stages = [{kernels = [], name = "gate"}]
// CHECK:         moe_rt.stage %{{.*}}, 0 : !llvm.ptr
// CHECK-NEXT:    moe_rt.parallel
func.func @layer(%y: memref<?xf32>, %tasks: i64, %executor: !llvm.ptr)
    attributes {moe.signature = #moe.signature<arguments = []>} {
  %zero = arith.constant 0.0 : f32
  moe_rt.parallel %executor, %tasks {
  ^bb0(%task: i64):
    %i = arith.index_cast %task : i64 to index
    memref.store %zero, %y[%i] : memref<?xf32>
    moe_rt.done
  } : !llvm.ptr loc(fused<{moe.stage = "gate"}>["layer.mlir":1:1])
  return
}
