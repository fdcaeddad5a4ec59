// RUN: moe-opt %s -moe-tile-for-gpu -split-input-file | FileCheck %s
// RUN: moe-opt %s -moe-tile-for-gpu=arch=sm_90 -split-input-file | FileCheck %s
// RUN: moe-opt %s -moe-tile-for-gpu=arch=sm_120 -split-input-file | FileCheck %s
// RUN: moe-opt %s -moe-tile-for-gpu=arch=sm_90a -split-input-file | FileCheck %s --check-prefix=HOPPER
// RUN: moe-opt %s -moe-tile-for-gpu="arch=sm_90a gather-fence=consumer" -split-input-file | FileCheck %s --check-prefix=CONSUMER
// There are kernels for all tiles that are chosen.
// RUN: moe-opt %s -moe-tile-for-gpu -convert-moe-to-gpu -split-input-file -o /dev/null
// RUN: moe-opt %s -moe-tile-for-gpu=arch=sm_90a -convert-moe-to-gpu=arch=sm_90a -split-input-file -o /dev/null
// RUN: moe-opt %s -moe-tile-for-gpu="arch=sm_90a gather-fence=consumer" -convert-moe-to-gpu=arch=sm_90a -split-input-file -o /dev/null

// One tile for each range of rows, in ascending order, with as many stages as fit into
// the 99 KiB that every GPU has. On sm_90a all tiles use wgmma: swap AB for few rows,
// and split-K in a cluster for the fewest.
// CHECK-LABEL:  func.func @grouped(
// CHECK:          moe.tiles = [#moe.tile<unit = mma_sync, rows = 16, columns = 128, depth = 64, stages = 4>,
// CHECK-SAME:                  #moe.tile<unit = mma_sync, rows = 32, columns = 128, depth = 64, stages = 4>,
// CHECK-SAME:                  #moe.tile<unit = mma_sync, rows = 64, columns = 128, depth = 64, stages = 4>,
// CHECK-SAME:                  #moe.tile<unit = mma_sync, rows = 128, columns = 128, depth = 64, stages = 3>]
// CONSUMER-LABEL: func.func @grouped(
// CONSUMER-NOT:   gather_fence
// HOPPER-LABEL: func.func @grouped(
// HOPPER:         moe.multicast = "weights", moe.tiles = [
// HOPPER-SAME:                 #moe.tile<unit = wgmma, rows = 8, columns = 128, depth = 64, stages = {{[0-9]+}}, swap_ab = true, split = 4>,
// HOPPER-SAME:                 #moe.tile<unit = wgmma, rows = 8, columns = 128, depth = 64, stages = {{[0-9]+}}, swap_ab = true, split = 2>,
// HOPPER-SAME:                 rows = 8, columns = 128, depth = 64, stages = {{[0-9]+}}, swap_ab = true>,
// HOPPER-SAME:                 rows = 64, columns = 128, depth = 64, stages = {{[0-9]+}}, swap_ab = true>,
// HOPPER-SAME:                 #moe.tile<unit = wgmma, rows = 128, columns = 256, depth = 64, stages = {{[0-9]+}}>]
func.func @grouped(%x: tensor<?x4096xbf16>, %o: tensor<9xi32>, %w: tensor<8x512x4096xbf16>, %init: tensor<?x512xbf16>) -> tensor<?x512xbf16> {
  %y = moe.grouped_matmul %x offsets(%o : tensor<9xi32>) weights(%w : tensor<8x512x4096xbf16>) transposed outs(%init : tensor<?x512xbf16>) {
  ^bb0(%s: f32):
    %t = arith.truncf %s : f32 to bf16
    moe.yield %t : bf16
  } : tensor<?x4096xbf16> -> tensor<?x512xbf16>
  return %y : tensor<?x512xbf16>
}

// -----

// The tile scheduler of many experts takes shared memory from the stages. One step
// along k is not split; few steps use ping-pong.
// CHECK-LABEL:  func.func @experts(
// CHECK:          rows = 128, columns = 128, depth = 64, stages = 2>]
// HOPPER-LABEL: func.func @experts(
// HOPPER-NOT:     split = 4
// HOPPER:         rows = 128, columns = 192, depth = 64, stages = {{[0-9]+}}, roles = ping_pong>]
func.func @experts(%x: tensor<?x64xf16>, %o: tensor<1025xi32>, %w: tensor<1024x64x8xf16>, %init: tensor<?x8xf16>) -> tensor<?x8xf16> {
  %y = moe.grouped_matmul %x offsets(%o : tensor<1025xi32>) weights(%w : tensor<1024x64x8xf16>) outs(%init : tensor<?x8xf16>) {
  ^bb0(%s: f32):
    %t = arith.truncf %s : f32 to f16
    moe.yield %t : f16
  } : tensor<?x64xf16> -> tensor<?x8xf16>
  return %y : tensor<?x8xf16>
}

// -----

// With eight steps along k the model of the kernels takes ping-pong, however long the
// epilogue is; what says that an operand is not to be multicast is kept.
// CHECK-LABEL:  func.func @epilogues(
// HOPPER-LABEL: func.func @epilogues(
// HOPPER:         moe.multicast = "weights"
// HOPPER-SAME:    rows = 128, columns = 192, depth = 64, stages = {{[0-9]+}}, roles = ping_pong>]
// HOPPER:         moe.multicast = "none"
// HOPPER-SAME:    rows = 128, columns = 256, depth = 64, stages = {{[0-9]+}}>]
func.func @epilogues(%x: tensor<?x512xbf16>, %o: tensor<9xi32>, %g: tensor<8x768x512xbf16>, %u: tensor<8x768x512xbf16>, %init: tensor<?x768xbf16>) -> (tensor<?x768xbf16>, tensor<?x768xbf16>) {
  %one = arith.constant 1.0 : f32
  %h = moe.grouped_matmul %x offsets(%o : tensor<9xi32>) weights(%g, %u : tensor<8x768x512xbf16>, tensor<8x768x512xbf16>) transposed outs(%init : tensor<?x768xbf16>) {
  ^bb0(%a: f32, %b: f32):
    %negated = arith.negf %a : f32
    %exp = math.exp %negated : f32
    %sum = arith.addf %exp, %one : f32
    %silu = arith.divf %a, %sum : f32
    %product = arith.mulf %silu, %b : f32
    %t = arith.truncf %product : f32 to bf16
    moe.yield %t : bf16
  } : tensor<?x512xbf16> -> tensor<?x768xbf16>
  %y = moe.grouped_matmul %x offsets(%o : tensor<9xi32>) weights(%g : tensor<8x768x512xbf16>) transposed outs(%init : tensor<?x768xbf16>) {
  ^bb0(%s: f32):
    %t = arith.truncf %s : f32 to bf16
    moe.yield %t : bf16
  } {moe.multicast = "none"} : tensor<?x512xbf16> -> tensor<?x768xbf16>
  return %h, %y : tensor<?x768xbf16>, tensor<?x768xbf16>
}

// -----

// Of the tiles only those whose clusters can share the rows: three tiles of 256 columns have
// no pairs.
// HOPPER-LABEL: func.func @shared_rows(
// HOPPER:         moe.multicast = "rows"
// HOPPER-SAME:    rows = 128, columns = 192, depth = 64, stages = {{[0-9]+}}, roles = ping_pong>]
func.func @shared_rows(%x: tensor<?x72xbf16>, %o: tensor<9xi32>, %w: tensor<8x768x72xbf16>, %init: tensor<?x768xbf16>) -> tensor<?x768xbf16> {
  %y = moe.grouped_matmul %x offsets(%o : tensor<9xi32>) weights(%w : tensor<8x768x72xbf16>) transposed outs(%init : tensor<?x768xbf16>) {
  ^bb0(%s: f32):
    %t = arith.truncf %s : f32 to bf16
    moe.yield %t : bf16
  } {moe.multicast = "rows"} : tensor<?x72xbf16> -> tensor<?x768xbf16>
  return %y : tensor<?x768xbf16>
}

// -----

// Which warps issue the proxy fence between cp.async and wgmma.
// CHECK-LABEL:    func.func @gathered(
// CHECK-NOT:        gather_fence
// HOPPER-LABEL:   func.func @gathered(
// HOPPER-NOT:       gather_fence
// CONSUMER-LABEL: func.func @gathered(
// CONSUMER-COUNT-5: gather_fence = consumer>
func.func @gathered(%x: tensor<?x64xf16>, %g: tensor<?xi32>, %o: tensor<9xi32>, %w: tensor<8x64x8xf16>, %init: tensor<?x8xf16>) -> tensor<?x8xf16> {
  %y = moe.grouped_matmul %x gather(%g : tensor<?xi32>) offsets(%o : tensor<9xi32>) weights(%w : tensor<8x64x8xf16>) outs(%init : tensor<?x8xf16>) {
  ^bb0(%s: f32):
    %t = arith.truncf %s : f32 to f16
    moe.yield %t : f16
  } : tensor<?x64xf16> -> tensor<?x8xf16>
  return %y : tensor<?x8xf16>
}

// -----

// Grouped matmuls without tensor core kernels, and those on buffers, stay as they are.
// CHECK-LABEL:  func.func @others(
// CHECK-NOT:      moe.tiles
// HOPPER-LABEL: func.func @others(
// HOPPER-NOT:     moe.tiles
func.func @others(%x: tensor<?x64xf32>, %w: tensor<1x64x8xf32>, %init: tensor<?x8xf32>, %b: memref<?x64xbf16>, %v: memref<1x64x8xbf16>, %out: memref<?x8xf32>) -> tensor<?x8xf32> {
  %y = moe.grouped_matmul %x weights(%w : tensor<1x64x8xf32>) outs(%init : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x64xf32> -> tensor<?x8xf32>
  moe.grouped_matmul %b weights(%v : memref<1x64x8xbf16>) outs(%out : memref<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : memref<?x64xbf16>
  return %y : tensor<?x8xf32>
}

// -----

// f8E4M3FN weights with 16-bit rows: swapped operands for few rows, where the model takes
// them to be as fast as mma.sync at least.
// CHECK-LABEL:  func.func @decoded(
// CHECK-NOT:      swap_ab
// HOPPER-LABEL: func.func @decoded(
// HOPPER-SAME:    tensor<?x4096xbf16>
// HOPPER:         moe.tiles = [
// HOPPER-SAME:                 #moe.tile<unit = wgmma, rows = 8, columns = 128, depth = 128, stages = {{[0-9]+}}, swap_ab = true, split = 4>,
// HOPPER-SAME:                 rows = 8, columns = 128, depth = 128, stages = {{[0-9]+}}, swap_ab = true, split = 2>,
// HOPPER-SAME:                 rows = 8, columns = 128, depth = 128, stages = {{[0-9]+}}, swap_ab = true>,
// HOPPER-SAME:                 rows = 16, columns = 128, depth = 128, stages = {{[0-9]+}}, swap_ab = true>,
// HOPPER-SAME:                 rows = 32, columns = 128, depth = 128, stages = {{[0-9]+}}, swap_ab = true>,
// HOPPER-SAME:                 #moe.tile<unit = mma_sync, rows = 64, columns = 128, depth = 128, stages = {{[0-9]+}}>]
func.func @decoded(%x: tensor<?x4096xbf16>, %o: tensor<9xi32>, %w: tensor<8x512x4096xf8E4M3FN>, %init: tensor<?x512xbf16>) -> tensor<?x512xbf16> {
  %y = moe.grouped_matmul %x offsets(%o : tensor<9xi32>) weights(%w : tensor<8x512x4096xf8E4M3FN>) transposed outs(%init : tensor<?x512xbf16>) {
  ^bb0(%s: f32):
    %t = arith.truncf %s : f32 to bf16
    moe.yield %t : bf16
  } : tensor<?x4096xbf16> -> tensor<?x512xbf16>
  return %y : tensor<?x512xbf16>
}
