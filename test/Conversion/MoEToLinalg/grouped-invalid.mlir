// RUN: moe-opt %s -convert-moe-to-linalg -split-input-file -verify-diagnostics

// Linalg is for tensors here.

func.func @product(%x: memref<?x4xf32>, %w: memref<1x4x8xf32>, %o: memref<?x8xf32>) {
  // expected-error @+1 {{was not lowered to linalg}}
  moe.grouped_matmul %x weights(%w : memref<1x4x8xf32>) outs(%o : memref<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : memref<?x4xf32>
  return
}

// -----

func.func @sum(%x: memref<?x4xf32>, %p: memref<?x2xi32>, %o: memref<?x4xf32>) {
  // expected-error @+1 {{was not lowered to linalg}}
  moe.gather_sum %x, %p outs(%o : memref<?x4xf32>) : memref<?x4xf32>, memref<?x2xi32>
  return
}

// -----

func.func @pack(%w: memref<1x4x4xf32>, %o: memref<1x1x4x4x1xf32>) {
  // expected-error @+1 {{was not lowered to linalg}}
  moe.pack %w panels(<matmuls = 1, columns = 4, depth = 1>) outs(%o : memref<1x1x4x4x1xf32>) : memref<1x4x4xf32>
  return
}
