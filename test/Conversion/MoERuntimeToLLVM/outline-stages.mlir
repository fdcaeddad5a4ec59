// RUN: moe-opt %s -moe-outline-tasks | FileCheck %s

// A stage is a call if somebody asks; a task of a stage has its name.
// CHECK-LABEL: llvm.func internal @layer__matmul_gate(
// CHECK-LABEL: llvm.func @layer(
// CHECK-SAME:    i64, %[[TASKS:.*]]: !llvm.ptr)
// CHECK:         %[[PLACE:.*]] = llvm.getelementptr %[[TASKS]][24] : (!llvm.ptr) -> !llvm.ptr, i8
// CHECK-NEXT:    %[[BEGIN:.*]] = llvm.load %[[PLACE]] : !llvm.ptr -> !llvm.ptr
// CHECK-NEXT:    %[[NULL:.*]] = llvm.mlir.zero : !llvm.ptr
// CHECK-NEXT:    %[[ASKED:.*]] = llvm.icmp "ne" %[[BEGIN]], %[[NULL]] : !llvm.ptr
// CHECK-NEXT:    llvm.cond_br %[[ASKED]], ^[[CALL:.*]], ^[[AFTER:.*]]
// CHECK:       ^[[CALL]]:
// CHECK:         %[[INDEX:.*]] = llvm.mlir.constant(2 : i64) : i64
// CHECK:         %[[PLACE:.*]] = llvm.getelementptr %[[TASKS]][32] : (!llvm.ptr) -> !llvm.ptr, i8
// CHECK-NEXT:    %[[PROFILE:.*]] = llvm.load %[[PLACE]] : !llvm.ptr -> !llvm.ptr
// CHECK-NEXT:    llvm.call %[[BEGIN]](%[[PROFILE]], %[[INDEX]]) : !llvm.ptr, (!llvm.ptr, i64) -> ()
// CHECK-NEXT:    llvm.br ^[[AFTER]]
// CHECK:       ^[[AFTER]]:
llvm.func @layer(%m: !llvm.ptr, %v: f32, %n: i64, %tasks: !llvm.ptr) {
  moe_rt.stage %tasks, 2 : !llvm.ptr
  moe_rt.parallel %tasks, %n {
  ^bb0(%i: i64):
    llvm.store %v, %m : f32, !llvm.ptr
    moe_rt.done
  } {moe.stage = "matmul+gate"} : !llvm.ptr
  llvm.return
}
