// RUN: moe-opt %s -moe-entry-points -split-input-file | FileCheck %s

// Each element of the array points at a descriptor.
// CHECK:       llvm.func internal @layer(
// CHECK:       llvm.func internal @_mlir_ciface_layer(
// CHECK:       llvm.func @moe_workspace_layer(
// CHECK:       llvm.func internal @helper(
// CHECK:       llvm.func @expf(f32) -> f32
// CHECK:       llvm.func @moe_entry_layer(%[[ARGS:.*]]: !llvm.ptr, %{{.*}}: !llvm.ptr) -> i32 {
// CHECK-NEXT:    %[[S0:.*]] = llvm.getelementptr %[[ARGS]][0] : (!llvm.ptr) -> !llvm.ptr, !llvm.ptr
// CHECK-NEXT:    %[[A0:.*]] = llvm.load %[[S0]] : !llvm.ptr -> !llvm.ptr
// CHECK-NEXT:    %[[S1:.*]] = llvm.getelementptr %[[ARGS]][1] : (!llvm.ptr) -> !llvm.ptr, !llvm.ptr
// CHECK-NEXT:    %[[A1:.*]] = llvm.load %[[S1]] : !llvm.ptr -> !llvm.ptr
// CHECK-NEXT:    llvm.call @_mlir_ciface_layer(%[[A0]], %[[A1]])
// CHECK-NEXT:    %[[OK:.*]] = llvm.mlir.constant(0 : i32)
// CHECK-NEXT:    llvm.return %[[OK]]
// CHECK-NOT:   llvm.func
llvm.func @layer(%a: !llvm.ptr, %b: !llvm.ptr) attributes {moe.signature = #moe.signature<arguments = [#moe.argument<name = "x", role = input, type = tensor<4xf32>>]>} {
  llvm.return
}
llvm.func @_mlir_ciface_layer(%a: !llvm.ptr, %b: !llvm.ptr) {
  llvm.return
}
llvm.func @moe_workspace_layer(%t: i64) -> i64 {
  llvm.return %t : i64
}
llvm.func @helper() {
  llvm.return
}
llvm.func @expf(f32) -> f32

// -----

// Nothing was exported: nothing is visible.
// CHECK:       llvm.func internal @layer(
// CHECK-NOT:   moe_entry_
llvm.func @layer() {
  llvm.return
}

// -----

// CHECK-DAG:   llvm.func @moe_entry_a(
// CHECK-DAG:   llvm.func @moe_entry_b(
llvm.func @a() attributes {moe.signature = #moe.signature} {
  llvm.return
}
llvm.func @_mlir_ciface_a() {
  llvm.return
}
llvm.func @b() attributes {moe.signature = #moe.signature} {
  llvm.return
}
llvm.func @_mlir_ciface_b() {
  llvm.return
}

// -----

// What comes after the workspace is the executor.
// CHECK-LABEL: llvm.func @moe_entry_tasks(
// CHECK-SAME:    %[[ARGS:.*]]: !llvm.ptr, %[[EXECUTOR:.*]]: !llvm.ptr)
// CHECK:         llvm.call @_mlir_ciface_tasks(%{{.*}}, %{{.*}}, %[[EXECUTOR]])
llvm.func @tasks(%a: !llvm.ptr, %workspace: !llvm.ptr, %executor: !llvm.ptr)
    attributes {moe.signature = #moe.signature<arguments = [#moe.argument<name = "x", role = input, type = tensor<4xf32>>]>} {
  llvm.return
}
llvm.func @_mlir_ciface_tasks(%a: !llvm.ptr, %workspace: !llvm.ptr, %executor: !llvm.ptr) {
  llvm.return
}
