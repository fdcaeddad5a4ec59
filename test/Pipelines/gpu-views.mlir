// REQUIRES: target-nvptx
// RUN: moe-opt %s -moe-gpu -split-input-file | FileCheck %s

// Kernels take data that lie together: what does not is copied first.
// CHECK-LABEL: llvm.func @moe_entry_columns(
func.func @columns(%x: tensor<?x16xf32>) -> tensor<?x2xi32> {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x16xf32>
  %s = tensor.extract_slice %x[0, 8] [%n, 8] [1, 1] : tensor<?x16xf32> to tensor<?x8xf32>
  %w, %i = moe.gate %s top_k(2) : tensor<?x8xf32>
  return %i : tensor<?x2xi32>
}

// -----

// CHECK-LABEL: llvm.func @moe_entry_rows(
func.func @rows(%x: tensor<?x128xbf16>, %w: tensor<64x64xbf16>) -> tensor<?x64xf32> {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x128xbf16>
  %z = arith.constant 0.0 : f32
  %s = tensor.extract_slice %x[0, 64] [%n, 64] [1, 1] : tensor<?x128xbf16> to tensor<?x64xbf16>
  %e = tensor.empty(%n) : tensor<?x64xf32>
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x64xf32>) -> tensor<?x64xf32>
  %g = linalg.matmul ins(%s, %w : tensor<?x64xbf16>, tensor<64x64xbf16>) outs(%f : tensor<?x64xf32>) -> tensor<?x64xf32>
  return %g : tensor<?x64xf32>
}

// -----

// A number that a tensor has is read where it is used.
// CHECK-LABEL: llvm.func @moe_entry_scalar(
func.func @scalar(%x: tensor<?x8xf32>, %s: tensor<f32>) -> tensor<?x8xf32> {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x8xf32>
  %v = tensor.extract %s[] : tensor<f32>
  %e = tensor.empty(%n) : tensor<?x8xf32>
  %y = linalg.map ins(%x : tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) (%a: f32, %o: f32) {
    %m = arith.mulf %a, %v : f32
    linalg.yield %m : f32
  }
  return %y : tensor<?x8xf32>
}
