// RUN: moe-opt %s -convert-moe-to-gpu | FileCheck %s

// Operations on buffers are left to other lowerings.
// CHECK-LABEL: func.func @buffers(
// CHECK:         moe.gather_sum
// CHECK:         moe.grouped_matmul
// CHECK:         moe.grouped_matmul
// CHECK-NOT:     moe_rt.launch
func.func @buffers(%x: memref<?x64xbf16>, %p: memref<?x2xi32>, %w: memref<1x64x8xbf16>, %sum: memref<?x64xbf16>, %y: memref<?x8xf32>) {
  moe.gather_sum %x, %p outs(%sum : memref<?x64xbf16>) : memref<?x64xbf16>, memref<?x2xi32>
  moe.grouped_matmul %x weights(%w : memref<1x64x8xbf16>) outs(%y : memref<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : memref<?x64xbf16>
  moe.grouped_matmul %x weights(%w : memref<1x64x8xbf16>) outs(%y : memref<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#moe.tile<unit = mma_sync, rows = 16, columns = 128, depth = 64, stages = 2>]} : memref<?x64xbf16>
  return
}
