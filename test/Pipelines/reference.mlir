// RUN: moe-opt %s -moe-reference -split-input-file | FileCheck %s
// The two halves are the whole.
// RUN: moe-opt %s -moe-reference -split-input-file -o %t.whole
// RUN: moe-opt %s -moe-reference-to-buffers -split-input-file \
// RUN:   | moe-opt -moe-lower-to-llvm -split-input-file -o %t.halves
// RUN: diff %t.whole %t.halves
// Nothing but LLVM, one entry and one workspace for each function, and nothing
// that an artifact does not have: neither a heap nor the runner library of MLIR.
// RUN: FileCheck %s --check-prefix=ONLY --input-file=%t.whole \
// RUN:   --implicit-check-not=malloc --implicit-check-not=free \
// RUN:   --implicit-check-not=memrefCopy --implicit-check-not=moe_entry_ \
// RUN:   --implicit-check-not=moe_workspace_ --implicit-check-not=unrealized \
// RUN:   --implicit-check-not='= {{tensor|memref|linalg|scf|arith|math|func|cf|affine|bufferization|moe}}.'

// CHECK-LABEL: llvm.func internal @layer(
// CHECK-SAME:    moe.signature = #moe.signature<arguments = [
// CHECK-SAME:      name = "logits", role = input
// CHECK-SAME:      name = "x", role = input
// CHECK-SAME:      name = "w", role = weight
// CHECK-SAME:      name = "y", role = output
// CHECK-SAME:      name = "offsets0", role = offsets
// CHECK-SAME:      name = "counters0", role = counters
// CHECK-SAME:    moe.tokens = [0, 1073741823]
// The workspace comes last: six arguments and that.
// CHECK-LABEL: llvm.func internal @_mlir_ciface_layer(
// CHECK-SAME:    %arg6: !llvm.ptr) attributes
// CHECK-LABEL: llvm.func @moe_workspace_layer(%{{.*}}: i64) -> i64
// CHECK:         llvm.mul
// CHECK:         llvm.return %{{.*}} : i64
// CHECK-LABEL: llvm.func @moe_entry_layer(%{{.*}}: !llvm.ptr, %{{.*}}: !llvm.ptr) -> i32
// CHECK-COUNT-7: llvm.load
// CHECK:         llvm.call @_mlir_ciface_layer
// ONLY-DAG:    llvm.func @moe_workspace_layer(
// ONLY-DAG:    llvm.func @moe_entry_layer(
func.func @layer(%l: tensor<?x4xf32> {moe.name = "logits"}, %x: tensor<?x6xf32> {moe.name = "x"},
                 %w: tensor<4x6x6xf32> {moe.name = "w", moe.role = "weight"}) -> (tensor<?x6xf32> {moe.name = "y"}) {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %weights, %ids = moe.gate %l top_k(2) normalize(<norm, p = 3.0>) : tensor<?x4xf32>
  %g, %o, %p = moe.dispatch %x, %ids experts(4) capacity(<factor = 1.5>) : tensor<?x6xf32>, tensor<?x2xi32>
  %h = moe.expert %g, %o params(%w : tensor<4x6x6xf32>) {
  ^bb0(%r: tensor<?x6xf32>, %v: tensor<6x6xf32>):
    %n = tensor.dim %r, %c0 : tensor<?x6xf32>
    %e = tensor.empty(%n) : tensor<?x6xf32>
    %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x6xf32>) -> tensor<?x6xf32>
    %m = linalg.matmul ins(%r, %v : tensor<?x6xf32>, tensor<6x6xf32>) outs(%f : tensor<?x6xf32>) -> tensor<?x6xf32>
    moe.yield %m : tensor<?x6xf32>
  } : tensor<?x6xf32>, tensor<5xi32> -> tensor<?x6xf32>
  %y = moe.combine %h, %p weights(%weights : tensor<?x2xf32>) dropped(%x : tensor<?x6xf32>) : tensor<?x6xf32>, tensor<?x2xi32>
  return %y : tensor<?x6xf32>
}

// -----

// A module may export several; half precision needs no helper of a compiler's
// library.
// CHECK-LABEL: llvm.func internal @first(
// CHECK-LABEL: llvm.func internal @second(
// CHECK-NOT:     __truncsfbf2
// CHECK-NOT:     fptrunc {{.*}} to bf16
// ONLY-DAG:    llvm.func @moe_workspace_first(
// ONLY-DAG:    llvm.func @moe_workspace_second(
// ONLY-DAG:    llvm.func @moe_entry_first(
// ONLY-DAG:    llvm.func @moe_entry_second(
func.func @first(%l: tensor<?x4xbf16>) -> (tensor<?x2xbf16>, tensor<?x2xi32>) {
  %w, %i = moe.gate %l top_k(2) score_type(bf16) : tensor<?x4xbf16>
  return %w, %i : tensor<?x2xbf16>, tensor<?x2xi32>
}
func.func @second(%g: tensor<?x4xf16>, %p: tensor<?x2xi32>, %w: tensor<?x2xbf16>) -> tensor<?x4xf16> {
  %y = moe.combine %g, %p weights(%w : tensor<?x2xbf16>) : tensor<?x4xf16>, tensor<?x2xi32>
  return %y : tensor<?x4xf16>
}
