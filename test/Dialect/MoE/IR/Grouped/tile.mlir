// RUN: moe-opt %s | FileCheck %s
// The printed form parses to the same attribute, and so does bytecode.
// RUN: moe-opt %s | moe-opt | FileCheck %s
// RUN: moe-opt %s --emit-bytecode | moe-opt | FileCheck %s

// Defaults are not printed.
// CHECK:      test.most = #moe.tile<unit = wgmma, rows = 128, columns = 256, depth = 64, stages = 4, roles = ping_pong, swap_ab = true, split = 8, gather_fence = consumer>
// CHECK-SAME: test.none = #moe.tile<unit = mma_sync, rows = 16, columns = 8, depth = 16, stages = 2>
// CHECK-SAME: test.some = #moe.tile<unit = wgmma, rows = 64, columns = 128, depth = 64, stages = 16, split = 16>
module attributes {
  test.none = #moe.tile<unit = mma_sync, rows = 16, columns = 8, depth = 16, stages = 2, roles = cooperative, swap_ab = false, split = 1, gather_fence = producer>,
  test.some = #moe.tile<unit = wgmma, rows = 64, columns = 128, depth = 64, stages = 16, split = 16>,
  test.most = #moe.tile<unit = wgmma, rows = 128, columns = 256, depth = 64, stages = 4, roles = ping_pong, swap_ab = true, split = 8, gather_fence = consumer>
} {}
