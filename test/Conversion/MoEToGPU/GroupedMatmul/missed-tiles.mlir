// RUN: moe-opt %s -convert-moe-to-gpu -split-input-file | FileCheck %s --implicit-check-not=moe_rt.launch
// RUN: moe-opt %s -convert-moe-to-gpu -split-input-file --remarks-filter-missed=moe-gpu -o /dev/null 2>&1 | FileCheck %s --check-prefixes=MISSED,SYNC
// RUN: moe-opt %s -convert-moe-to-gpu=arch=sm_90a -split-input-file --remarks-filter-missed=moe-gpu -o /dev/null 2>&1 | FileCheck %s --check-prefixes=MISSED,HOPPER

// The attribute can describe more tiles than there are kernels for; if one tile has no
// kernel, none is built.

// MISSED: 'moe.grouped_matmul' not lowered to a GPU kernel: tiles of a depth other than 64"
// MISSED: 'moe.grouped_matmul' not lowered to a GPU kernel: tiles of a depth other than 64"
// MISSED: 'moe.grouped_matmul' not lowered to a GPU kernel: tiles of 8 rows and 128 columns"
// MISSED: 'moe.grouped_matmul' not lowered to a GPU kernel: tiles of 24 rows and 128 columns"
// MISSED: 'moe.grouped_matmul' not lowered to a GPU kernel: tiles of 256 rows and 128 columns"
// MISSED: 'moe.grouped_matmul' not lowered to a GPU kernel: tiles of 16 rows and 64 columns"
// MISSED: 'moe.grouped_matmul' not lowered to a GPU kernel: tiles of 16 rows and 192 columns"
// MISSED: 'moe.grouped_matmul' not lowered to a GPU kernel: tiles of {{[0-9]+}} bytes of shared memory"
// CHECK-LABEL: func.func @any_unit(
// CHECK-COUNT-8: moe.grouped_matmul
func.func @any_unit(%x: tensor<?x64xbf16>, %w: tensor<1x64x128xbf16>, %init: tensor<?x128xf32>)
    -> (tensor<?x128xf32>, tensor<?x128xf32>, tensor<?x128xf32>, tensor<?x128xf32>, tensor<?x128xf32>, tensor<?x128xf32>, tensor<?x128xf32>, tensor<?x128xf32>) {
  %0 = moe.grouped_matmul %x weights(%w : tensor<1x64x128xbf16>) outs(%init : tensor<?x128xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#moe.tile<unit = mma_sync, rows = 16, columns = 128, depth = 32, stages = 2>]} : tensor<?x64xbf16> -> tensor<?x128xf32>
  %1 = moe.grouped_matmul %x weights(%w : tensor<1x64x128xbf16>) outs(%init : tensor<?x128xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#moe.tile<unit = mma_sync, rows = 16, columns = 128, depth = 128, stages = 2>]} : tensor<?x64xbf16> -> tensor<?x128xf32>
  %2 = moe.grouped_matmul %x weights(%w : tensor<1x64x128xbf16>) outs(%init : tensor<?x128xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#moe.tile<unit = mma_sync, rows = 8, columns = 128, depth = 64, stages = 2>]} : tensor<?x64xbf16> -> tensor<?x128xf32>
  %3 = moe.grouped_matmul %x weights(%w : tensor<1x64x128xbf16>) outs(%init : tensor<?x128xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#moe.tile<unit = mma_sync, rows = 24, columns = 128, depth = 64, stages = 2>]} : tensor<?x64xbf16> -> tensor<?x128xf32>
  %4 = moe.grouped_matmul %x weights(%w : tensor<1x64x128xbf16>) outs(%init : tensor<?x128xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#moe.tile<unit = mma_sync, rows = 256, columns = 128, depth = 64, stages = 2>]} : tensor<?x64xbf16> -> tensor<?x128xf32>
  %5 = moe.grouped_matmul %x weights(%w : tensor<1x64x128xbf16>) outs(%init : tensor<?x128xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#moe.tile<unit = mma_sync, rows = 16, columns = 64, depth = 64, stages = 2>]} : tensor<?x64xbf16> -> tensor<?x128xf32>
  %6 = moe.grouped_matmul %x weights(%w : tensor<1x64x128xbf16>) outs(%init : tensor<?x128xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#moe.tile<unit = mma_sync, rows = 16, columns = 192, depth = 64, stages = 2>]} : tensor<?x64xbf16> -> tensor<?x128xf32>
  %7 = moe.grouped_matmul %x weights(%w : tensor<1x64x128xbf16>) outs(%init : tensor<?x128xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#moe.tile<unit = mma_sync, rows = 128, columns = 256, depth = 64, stages = 16>]} : tensor<?x64xbf16> -> tensor<?x128xf32>
  return %0, %1, %2, %3, %4, %5, %6, %7 : tensor<?x128xf32>, tensor<?x128xf32>, tensor<?x128xf32>, tensor<?x128xf32>, tensor<?x128xf32>, tensor<?x128xf32>, tensor<?x128xf32>, tensor<?x128xf32>
}

// -----

// wgmma is sm_90a only. MN-major weights are loaded in blocks of 64 columns.
// SYNC-COUNT-7: 'moe.grouped_matmul' not lowered to a GPU kernel: wgmma on sm_80"
// HOPPER: 'moe.grouped_matmul' not lowered to a GPU kernel: a split other than of k among 2 or 4 blocks, with swap_ab"
// HOPPER: 'moe.grouped_matmul' not lowered to a GPU kernel: tiles of 64 rows and 128 columns"
// HOPPER: 'moe.grouped_matmul' not lowered to a GPU kernel: tiles of 192 rows and 128 columns"
// HOPPER: 'moe.grouped_matmul' not lowered to a GPU kernel: tiles of 128 rows and 96 columns"
// HOPPER: 'moe.grouped_matmul' not lowered to a GPU kernel: tiles of 128 rows and 192 columns"
// HOPPER: 'moe.grouped_matmul' not lowered to a GPU kernel: tiles of {{[0-9]+}} bytes of shared memory"
// HOPPER: 'moe.grouped_matmul' not lowered to a GPU kernel: gather_fence = consumer without gathered rows"
// CHECK-LABEL: func.func @wgmma(
// CHECK-COUNT-7: moe.grouped_matmul
func.func @wgmma(%x: tensor<?x64xbf16>, %w: tensor<1x64x128xbf16>, %init: tensor<?x128xf32>)
    -> (tensor<?x128xf32>, tensor<?x128xf32>, tensor<?x128xf32>, tensor<?x128xf32>, tensor<?x128xf32>, tensor<?x128xf32>, tensor<?x128xf32>) {
  %0 = moe.grouped_matmul %x weights(%w : tensor<1x64x128xbf16>) outs(%init : tensor<?x128xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#moe.tile<unit = wgmma, rows = 128, columns = 128, depth = 64, stages = 2, split = 2>]} : tensor<?x64xbf16> -> tensor<?x128xf32>
  %1 = moe.grouped_matmul %x weights(%w : tensor<1x64x128xbf16>) outs(%init : tensor<?x128xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#moe.tile<unit = wgmma, rows = 64, columns = 128, depth = 64, stages = 2>]} : tensor<?x64xbf16> -> tensor<?x128xf32>
  %2 = moe.grouped_matmul %x weights(%w : tensor<1x64x128xbf16>) outs(%init : tensor<?x128xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#moe.tile<unit = wgmma, rows = 192, columns = 128, depth = 64, stages = 2>]} : tensor<?x64xbf16> -> tensor<?x128xf32>
  %3 = moe.grouped_matmul %x weights(%w : tensor<1x64x128xbf16>) outs(%init : tensor<?x128xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#moe.tile<unit = wgmma, rows = 128, columns = 96, depth = 64, stages = 2>]} : tensor<?x64xbf16> -> tensor<?x128xf32>
  %4 = moe.grouped_matmul %x weights(%w, %w : tensor<1x64x128xbf16>, tensor<1x64x128xbf16>) outs(%init : tensor<?x128xf32>) {
  ^bb0(%s: f32, %t: f32):
    moe.yield %s : f32
  } {moe.tiles = [#moe.tile<unit = wgmma, rows = 128, columns = 192, depth = 64, stages = 2>]} : tensor<?x64xbf16> -> tensor<?x128xf32>
  %5 = moe.grouped_matmul %x weights(%w : tensor<1x64x128xbf16>) outs(%init : tensor<?x128xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#moe.tile<unit = wgmma, rows = 128, columns = 256, depth = 64, stages = 5>]} : tensor<?x64xbf16> -> tensor<?x128xf32>
  %6 = moe.grouped_matmul %x weights(%w : tensor<1x64x128xbf16>) outs(%init : tensor<?x128xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#moe.tile<unit = wgmma, rows = 128, columns = 128, depth = 64, stages = 2, gather_fence = consumer>]} : tensor<?x64xbf16> -> tensor<?x128xf32>
  return %0, %1, %2, %3, %4, %5, %6 : tensor<?x128xf32>, tensor<?x128xf32>, tensor<?x128xf32>, tensor<?x128xf32>, tensor<?x128xf32>, tensor<?x128xf32>, tensor<?x128xf32>
}

// -----

// Anything but an array of tiles is ignored.
// MISSED: 'moe.grouped_matmul' not lowered to a GPU kernel: no tiles; run moe-tile-for-gpu"
// CHECK-LABEL: func.func @no_tile(
// CHECK:         moe.grouped_matmul
func.func @no_tile(%x: tensor<?x64xbf16>, %w: tensor<1x64x128xbf16>, %init: tensor<?x128xf32>)
    -> (tensor<?x128xf32>) {
  %0 = moe.grouped_matmul %x weights(%w : tensor<1x64x128xbf16>) outs(%init : tensor<?x128xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [1, 2]} : tensor<?x64xbf16> -> tensor<?x128xf32>
  return %0 : tensor<?x128xf32>
}

// -----

// swap_ab needs few rows, 128 columns, and the same number of steps for each
// block of a cluster.
// SYNC-COUNT-5: 'moe.grouped_matmul' not lowered to a GPU kernel: wgmma on sm_80"
// HOPPER: 'moe.grouped_matmul' not lowered to a GPU kernel: tiles of 128 rows and 128 columns"
// HOPPER: 'moe.grouped_matmul' not lowered to a GPU kernel: tiles of 8 rows and 256 columns"
// HOPPER: 'moe.grouped_matmul' not lowered to a GPU kernel: a split other than of k among 2 or 4 blocks, with swap_ab"
// HOPPER: 'moe.grouped_matmul' not lowered to a GPU kernel: 3 steps along k that do not split into 2"
// HOPPER: 'moe.grouped_matmul' not lowered to a GPU kernel: tiles of 8 rows and 128 columns"
// CHECK-LABEL: func.func @swap_ab(
// CHECK-COUNT-5: moe.grouped_matmul
func.func @swap_ab(%x: tensor<?x192xbf16>, %w: tensor<1x192x128xbf16>, %init: tensor<?x128xf32>)
    -> (tensor<?x128xf32>, tensor<?x128xf32>, tensor<?x128xf32>, tensor<?x128xf32>, tensor<?x128xf32>) {
  %0 = moe.grouped_matmul %x weights(%w : tensor<1x192x128xbf16>) outs(%init : tensor<?x128xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#moe.tile<unit = wgmma, rows = 128, columns = 128, depth = 64, stages = 4, swap_ab = true>]} : tensor<?x192xbf16> -> tensor<?x128xf32>
  %1 = moe.grouped_matmul %x weights(%w : tensor<1x192x128xbf16>) outs(%init : tensor<?x128xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#moe.tile<unit = wgmma, rows = 8, columns = 256, depth = 64, stages = 4, swap_ab = true>]} : tensor<?x192xbf16> -> tensor<?x128xf32>
  %2 = moe.grouped_matmul %x weights(%w : tensor<1x192x128xbf16>) outs(%init : tensor<?x128xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#moe.tile<unit = wgmma, rows = 8, columns = 128, depth = 64, stages = 4, swap_ab = true, split = 3>]} : tensor<?x192xbf16> -> tensor<?x128xf32>
  %3 = moe.grouped_matmul %x weights(%w : tensor<1x192x128xbf16>) outs(%init : tensor<?x128xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#moe.tile<unit = wgmma, rows = 8, columns = 128, depth = 64, stages = 4, swap_ab = true, split = 2>]} : tensor<?x192xbf16> -> tensor<?x128xf32>
  %4 = moe.grouped_matmul %x weights(%w : tensor<1x192x128xbf16>) outs(%init : tensor<?x128xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#moe.tile<unit = wgmma, rows = 8, columns = 128, depth = 64, stages = 2, swap_ab = true>]} : tensor<?x192xbf16> -> tensor<?x128xf32>
  return %0, %1, %2, %3, %4 : tensor<?x128xf32>, tensor<?x128xf32>, tensor<?x128xf32>, tensor<?x128xf32>, tensor<?x128xf32>
}

// -----

// f8E4M3FN weights become 16-bit in registers, from which wgmma takes only A.
// Two sets of accumulators leave no registers for 64 rows.
// SYNC-COUNT-2: 'moe.grouped_matmul' not lowered to a GPU kernel: wgmma on sm_80"
// HOPPER: 'moe.grouped_matmul' not lowered to a GPU kernel: wgmma of f8E4M3FN weights with 16-bit rows without swap_ab"
// HOPPER: 'moe.grouped_matmul' not lowered to a GPU kernel: tiles of 64 rows and 128 columns"
// CHECK-LABEL: func.func @decoded(
// CHECK-COUNT-2: moe.grouped_matmul
func.func @decoded(%x: tensor<?x256xbf16>, %w: tensor<1x128x256xf8E4M3FN>, %init: tensor<?x128xf32>)
    -> (tensor<?x128xf32>, tensor<?x128xf32>) {
  %0 = moe.grouped_matmul %x weights(%w : tensor<1x128x256xf8E4M3FN>) transposed outs(%init : tensor<?x128xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#moe.tile<unit = wgmma, rows = 128, columns = 128, depth = 128, stages = 3>]} : tensor<?x256xbf16> -> tensor<?x128xf32>
  %1 = moe.grouped_matmul %x weights(%w : tensor<1x128x256xf8E4M3FN>) transposed outs(%init : tensor<?x128xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#moe.tile<unit = wgmma, rows = 64, columns = 128, depth = 128, stages = 3, swap_ab = true>]} : tensor<?x256xbf16> -> tensor<?x128xf32>
  return %0, %1 : tensor<?x128xf32>, tensor<?x128xf32>
}
