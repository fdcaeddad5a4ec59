// RUN: moe-opt %s --moe-entry-points | FileCheck %s

// CHECK:       llvm.func internal @layer(
// CHECK:       llvm.func @moe_workspace_layer(
// CHECK:       llvm.func @moe_entry_layer(
// CHECK:         llvm.call @_mlir_ciface_layer(
llvm.func @layer(%a: !llvm.ptr) attributes {moe.signature = #moe.signature<arguments = [#moe.argument<name = "x", role = input, type = tensor<4xf32>>]>} {
  llvm.return
}
llvm.func @_mlir_ciface_layer(%a: !llvm.ptr) {
  llvm.return
}
llvm.func @moe_workspace_layer(%tokens: i64) -> i64 {
  llvm.return %tokens : i64
}
