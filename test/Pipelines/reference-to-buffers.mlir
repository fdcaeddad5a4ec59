// RUN: moe-opt %s -moe-reference-to-buffers -split-input-file \
// RUN:   | FileCheck %s --implicit-check-not=memref.alloc --implicit-check-not=memref.copy \
// RUN:     --implicit-check-not=linalg. --implicit-check-not=tensor. --implicit-check-not=moe.gate

// Outputs and reports are arguments, then the workspace; every buffer is a view
// of that, and the workspace is a function of T alone.
// CHECK-LABEL: func.func @gate(
// CHECK-SAME:    %[[L:.*]]: memref<?x8xf32>, %[[W:.*]]: memref<?x2xf32>, %[[I:.*]]: memref<?x2xi32>, %[[ARENA:.*]]: memref<?xi8>)
// CHECK:         memref.view %[[ARENA]]
// CHECK-LABEL: func.func @moe_workspace_gate(
// CHECK-SAME:    %[[T:.*]]: i64) -> i64
// CHECK:         arith.index_cast %[[T]] : i64 to index
// CHECK-NOT:     memref.
// CHECK:         return
func.func @gate(%l: tensor<?x8xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>) {
  %w, %i = moe.gate %l top_k(2) : tensor<?x8xf32>
  return %w, %i : tensor<?x2xf32>, tensor<?x2xi32>
}

// -----

// No input is written, even where a body writes in place.
// CHECK-LABEL: func.func @in_place(
// CHECK-SAME:    %[[X:.*]]: memref<?x4xf32>, %[[O:.*]]: memref<3xi32>, %[[Y:.*]]: memref<?x4xf32>, %{{.*}}: memref<?xi8>)
// CHECK-NOT:     memref.store %{{.*}}, %[[X]]
// CHECK:         return
func.func @in_place(%x: tensor<?x4xf32>, %o: tensor<3xi32>) -> tensor<?x4xf32> {
  %one = arith.constant 1.0 : f32
  %y = moe.expert %x, %o init(%x : tensor<?x4xf32>) {
  ^bb0(%r: tensor<?x4xf32>):
    %z = linalg.fill ins(%one : f32) outs(%r : tensor<?x4xf32>) -> tensor<?x4xf32>
    moe.yield %z : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// -----

// Rows of one expert depend on data; their buffers are as large as all rows, T·K.
// CHECK-LABEL: func.func @rows(
// CHECK-LABEL: func.func @moe_workspace_rows(
// CHECK-SAME:    %[[T64:.*]]: i64) -> i64
// CHECK:         %[[T:.*]] = arith.index_cast %[[T64]]
// 2·T rows of 16 f32.
// CHECK:         arith.muli %[[T]], %c128
func.func @rows(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>) -> tensor<?x4xf32> {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<?x4xf32>, tensor<?x2xi32>
  %h = moe.expert %g, %o {
  ^bb0(%r: tensor<?x4xf32>):
    %n = tensor.dim %r, %c0 : tensor<?x4xf32>
    %e = tensor.empty(%n) : tensor<?x16xf32>
    %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x16xf32>) -> tensor<?x16xf32>
    %v = tensor.extract_slice %f[0, 3] [%n, 4] [1, 1] : tensor<?x16xf32> to tensor<?x4xf32>
    %s = linalg.add ins(%v, %r : tensor<?x4xf32>, tensor<?x4xf32>) outs(%v : tensor<?x4xf32>) -> tensor<?x4xf32>
    moe.yield %s : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<9xi32> -> tensor<?x4xf32>
  %y = moe.combine %h, %p : tensor<?x4xf32>, tensor<?x2xi32>
  return %y : tensor<?x4xf32>
}
