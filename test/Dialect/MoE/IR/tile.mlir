// RUN: moe-opt %s | FileCheck %s
// What is printed parses to the same, as bytecode too.
// RUN: moe-opt %s | moe-opt | FileCheck %s
// RUN: moe-opt %s --emit-bytecode | moe-opt | FileCheck %s

// What is as by default is not printed.
// CHECK:      test.most = #moe.tile<unit = wgmma, rows = 128, columns = 256, depth = 64, stages = 4, roles = ping_pong, cluster = 2, swapped = true, split = 8, gather_fence = consumer>
// CHECK-SAME: test.none = #moe.tile<unit = mma_sync, rows = 16, columns = 8, depth = 16, stages = 2>
// CHECK-SAME: test.some = #moe.tile<unit = wgmma, rows = 64, columns = 128, depth = 64, stages = 16, cluster = 16>
module attributes {
  test.none = #moe.tile<unit = mma_sync, rows = 16, columns = 8, depth = 16, stages = 2, roles = cooperative, cluster = 1, swapped = false, split = 1, gather_fence = producer>,
  test.some = #moe.tile<unit = wgmma, rows = 64, columns = 128, depth = 64, stages = 16, cluster = 16>,
  test.most = #moe.tile<unit = wgmma, rows = 128, columns = 256, depth = 64, stages = 4, roles = ping_pong, cluster = 2, swapped = true, split = 8, gather_fence = consumer>
} {}
