// RUN: moe-opt %s --moe-mark-stages | FileCheck %s

// A stage begins where loops, tasks and calls have another name than before. Loops without a name
// belong to the stage before; several operations in one loop are one stage.
// CHECK-LABEL: func.func @layer(
// CHECK-SAME:    %[[EXECUTOR:[a-z0-9]*]]: !llvm.ptr)
// CHECK-SAME:    moe.stages = [{kernels = ["f32_6x2x16", "f32_1x2x16"], name = "matmul+gate"}, {kernels = [], name = "route"}]
// CHECK-NOT:     moe_rt.stage
// CHECK:         arith.addf
// CHECK-NEXT:    moe_rt.stage %[[EXECUTOR]], 0
// CHECK-NEXT:    moe_rt.parallel
// CHECK:         } {moe.stage = "matmul+gate"} : !llvm.ptr
// CHECK:         moe_rt.stage %[[EXECUTOR]], 1
// CHECK-NEXT:    scf.for
// CHECK-NOT:     moe_rt.stage
// CHECK:         return
#signature = #moe.signature<arguments = []>
func.func private @moe_kernel_f32_6x2x16(index)
func.func private @moe_kernel_f32_1x2x16(index)
func.func @layer(%m: memref<?xf32>, %n: i64, %executor: !llvm.ptr) attributes {moe.signature = #signature} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c8 = arith.constant 8 : index
  %v = arith.constant 1.0 : f32
  %sum = arith.addf %v, %v : f32 loc(fused<{moe.stage = "gate"}>["a":1:1])
  moe_rt.parallel %executor, %n {
  ^bb0(%i: i64):
    func.call @moe_kernel_f32_6x2x16(%c0) : (index) -> () loc(fused<{moe.stage = "matmul"}>["a":1:1])
    func.call @moe_kernel_f32_1x2x16(%c0) : (index) -> () loc(fused<{moe.stage = "matmul"}>["a":1:1])
    memref.store %sum, %m[%c0] : memref<?xf32> loc(fused<{moe.stage = "gate"}>["a":2:1])
    moe_rt.done
  } : !llvm.ptr loc(fused<{moe.stage = "matmul"}>["a":1:1])
  scf.for %i = %c0 to %c8 step %c1 {
    memref.store %v, %m[%i] : memref<?xf32> loc(fused<{moe.stage = "route"}>["a":3:1])
  }
  scf.for %i = %c0 to %c8 step %c1 {
    memref.store %v, %m[%i] : memref<?xf32>
  }
  return
}

// Each turn of a loop over chunks goes through the stages of a chunk.
// CHECK-LABEL: func.func @chunks(
// CHECK-SAME:    moe.stages = [{kernels = [], name = "gate"}]
// CHECK:         moe_rt.stage %{{.*}}, 0
// CHECK-NEXT:    scf.for
// CHECK:         scf.for
// CHECK-NEXT:      moe_rt.stage %{{.*}}, 0
// CHECK-NEXT:      moe_rt.parallel
// CHECK:         moe_rt.stage %{{.*}}, 0
// CHECK-NEXT:    memref.store
func.func @chunks(%m: memref<?xf32>, %n: i64, %executor: !llvm.ptr) attributes {moe.signature = #signature} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c8 = arith.constant 8 : index
  %v = arith.constant 1.0 : f32
  scf.for %i = %c0 to %c8 step %c1 {
    memref.store %v, %m[%i] : memref<?xf32> loc(fused<{moe.stage = "gate"}>["a":1:1])
  }
  scf.for %i = %c0 to %c8 step %c1 {
    moe_rt.parallel %executor, %n {
    ^bb0(%t: i64):
      memref.store %v, %m[%c0] : memref<?xf32> loc(fused<{moe.stage = "gate"}>["a":1:1])
      moe_rt.done
    } : !llvm.ptr
  }
  memref.store %v, %m[%c0] : memref<?xf32> loc(fused<{moe.stage = "gate"}>["a":1:1])
  return
}

// Without tasks there is no executor to ask.
// CHECK-LABEL: func.func @serial(
// CHECK-NOT:     moe.stages
// CHECK-NOT:     moe_rt.stage
func.func @serial(%m: memref<?xf32>) attributes {moe.signature = #signature} {
  %c0 = arith.constant 0 : index
  %v = arith.constant 1.0 : f32
  memref.store %v, %m[%c0] : memref<?xf32> loc(fused<{moe.stage = "gate"}>["a":1:1])
  return
}
