// RUN: moe-opt %s --moe-tile-for-gpu='arch=sm_80' | FileCheck %s

// A tile for each range of rows that an expert has.
// CHECK: moe.tiles = [#moe.tile<unit = mma_sync, rows = 16, columns = 128
// CHECK-SAME:         #moe.tile<unit = mma_sync, rows = 128, columns = 128
func.func @product(%x: tensor<?x512xbf16>, %o: tensor<9xi32>, %w: tensor<8x256x512xbf16>, %init: tensor<?x256xbf16>) -> tensor<?x256xbf16> {
  %y = moe.grouped_matmul %x offsets(%o : tensor<9xi32>) weights(%w : tensor<8x256x512xbf16>) transposed outs(%init : tensor<?x256xbf16>) {
  ^bb0(%sum: f32):
    %r = arith.truncf %sum : f32 to bf16
    moe.yield %r : bf16
  } : tensor<?x512xbf16> -> tensor<?x256xbf16>
  return %y : tensor<?x256xbf16>
}
