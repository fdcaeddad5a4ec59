// RUN: moe-opt %s -moe-outline-tasks | FileCheck %s

// What a task uses from outside goes through a structure on the stack, in the order
// of its use; constants are made again.

// CHECK-LABEL: llvm.func internal @layer__task0(
// CHECK-SAME:    %[[CONTEXT:.*]]: !llvm.ptr, %[[I:.*]]: i64) {
// CHECK-DAG:     %[[P:.*]] = llvm.getelementptr %[[CONTEXT]][0, 0] : (!llvm.ptr) -> !llvm.ptr, !llvm.struct<(ptr, f32)>
// CHECK-DAG:     %[[Q:.*]] = llvm.getelementptr %[[CONTEXT]][0, 1] : (!llvm.ptr) -> !llvm.ptr, !llvm.struct<(ptr, f32)>
// CHECK-DAG:     %[[M:.*]] = llvm.load %[[P]] : !llvm.ptr -> !llvm.ptr
// CHECK-DAG:     %[[V:.*]] = llvm.load %[[Q]] : !llvm.ptr -> f32
// CHECK-DAG:     %[[ONE:.*]] = llvm.mlir.constant(1 : i64) : i64
// CHECK:         %[[J:.*]] = llvm.add %[[I]], %[[ONE]] : i64
// CHECK:         %[[A:.*]] = llvm.getelementptr %[[M]][%[[J]]]
// CHECK:         llvm.store %[[V]], %[[A]] : f32, !llvm.ptr
// CHECK:         llvm.return

// CHECK-LABEL: llvm.func internal @layer__task1(
// CHECK:         llvm.cond_br
// CHECK-COUNT-2: llvm.return
// CHECK-NOT:     moe_rt.done

// CHECK-LABEL: llvm.func @layer(
// CHECK-SAME:    %[[MM:.*]]: !llvm.ptr, %[[VV:.*]]: f32, %[[N:.*]]: i64, %[[EXECUTOR:.*]]: !llvm.ptr)
// CHECK-DAG:     %[[STACK:.*]] = llvm.alloca %{{.*}} x !llvm.struct<(ptr, f32)> : (i64) -> !llvm.ptr
// CHECK:         %[[F0:.*]] = llvm.getelementptr %[[STACK]][0, 0]
// CHECK-NEXT:    llvm.store %[[MM]], %[[F0]] : !llvm.ptr, !llvm.ptr
// CHECK:         %[[F1:.*]] = llvm.getelementptr %[[STACK]][0, 1]
// CHECK-NEXT:    llvm.store %[[VV]], %[[F1]] : f32, !llvm.ptr
// A single task is a call; only more go to the executor.
// CHECK:         %[[ALONE:.*]] = llvm.icmp "eq" %[[N]], %{{.*}} : i64
// CHECK:         llvm.cond_br %[[ALONE]], ^[[CALL:.*]], ^[[SHARE:.*]]
// CHECK:       ^[[CALL]]:
// CHECK:         llvm.call @layer__task0(%[[STACK]], %{{.*}}) : (!llvm.ptr, i64) -> ()
// CHECK:       ^[[SHARE]]:
// The executor is {user, concurrency, parallel_for}.
// CHECK:         %[[USERP:.*]] = llvm.getelementptr %[[EXECUTOR]][0, 0] : (!llvm.ptr) -> !llvm.ptr, !llvm.struct<(ptr, i64, ptr)>
// CHECK-NEXT:    %[[USER:.*]] = llvm.load %[[USERP]] : !llvm.ptr -> !llvm.ptr
// CHECK-NEXT:    %[[CALLEEP:.*]] = llvm.getelementptr %[[EXECUTOR]][0, 2] : (!llvm.ptr) -> !llvm.ptr, !llvm.struct<(ptr, i64, ptr)>
// CHECK-NEXT:    %[[CALLEE:.*]] = llvm.load %[[CALLEEP]] : !llvm.ptr -> !llvm.ptr
// CHECK-NEXT:    %[[TASK:.*]] = llvm.mlir.addressof @layer__task0 : !llvm.ptr
// CHECK-NEXT:    llvm.call %[[CALLEE]](%[[USER]], %[[N]], %[[TASK]], %[[STACK]]) : !llvm.ptr, (!llvm.ptr, i64, !llvm.ptr, !llvm.ptr) -> ()
// CHECK:         llvm.mlir.addressof @layer__task1 : !llvm.ptr
// CHECK-NOT:     moe_rt.parallel
llvm.func @layer(%m: !llvm.ptr, %v: f32, %n: i64, %executor: !llvm.ptr) {
  %one = llvm.mlir.constant(1 : i64) : i64
  moe_rt.parallel %executor, %n {
  ^bb0(%i: i64):
    %j = llvm.add %i, %one : i64
    %a = llvm.getelementptr %m[%j] : (!llvm.ptr, i64) -> !llvm.ptr, f32
    llvm.store %v, %a : f32, !llvm.ptr
    moe_rt.done
  } : !llvm.ptr
  moe_rt.parallel %executor, %one {
  ^bb0(%i: i64):
    %c = llvm.icmp "eq" %i, %one : i64
    llvm.cond_br %c, ^bb1, ^bb2
  ^bb1:
    moe_rt.done
  ^bb2:
    llvm.store %v, %m : f32, !llvm.ptr
    moe_rt.done
  } : !llvm.ptr
  llvm.return
}

// However often a loop comes by, there is one structure: it is made at the entry.
// CHECK-LABEL: llvm.func @loop(
// CHECK-SAME:    %{{.*}}) {
// CHECK-NEXT:    llvm.mlir.constant(1 : i64)
// CHECK-NEXT:    llvm.alloca
// CHECK:         ^bb1:
// CHECK-NOT:     llvm.alloca
llvm.func @loop(%m: !llvm.ptr, %v: f32, %n: i64, %c: i1, %executor: !llvm.ptr) {
  llvm.br ^bb1
^bb1:
  moe_rt.parallel %executor, %n {
  ^bb0(%i: i64):
    llvm.store %v, %m : f32, !llvm.ptr
    moe_rt.done
  } : !llvm.ptr
  llvm.cond_br %c, ^bb1, ^bb2
^bb2:
  llvm.return
}

// A function of somebody else may have the name of a task.
// CHECK:       llvm.func internal @other__task3_(
llvm.func @other__task3()
llvm.func @other(%m: !llvm.ptr, %v: f32, %n: i64, %executor: !llvm.ptr) {
  moe_rt.parallel %executor, %n {
  ^bb0(%i: i64):
    llvm.store %v, %m : f32, !llvm.ptr
    moe_rt.done
  } : !llvm.ptr
  llvm.return
}
