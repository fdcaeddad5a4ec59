// RUN: moe-opt %s -split-input-file -verify-diagnostics -allow-unregistered-dialect

// expected-error @+1 {{expected rows and columns of 8 to 256 in steps of 8, got 0 and 128}}
"test"() {a = #moe.tile<unit = mma_sync, rows = 0, columns = 128, depth = 64, stages = 2>} : () -> ()

// -----

// expected-error @+1 {{expected rows and columns of 8 to 256 in steps of 8, got 20 and 128}}
"test"() {a = #moe.tile<unit = mma_sync, rows = 20, columns = 128, depth = 64, stages = 2>} : () -> ()

// -----

// expected-error @+1 {{expected rows and columns of 8 to 256 in steps of 8, got 264 and 128}}
"test"() {a = #moe.tile<unit = mma_sync, rows = 264, columns = 128, depth = 64, stages = 2>} : () -> ()

// -----

// expected-error @+1 {{expected rows and columns of 8 to 256 in steps of 8, got 64 and -8}}
"test"() {a = #moe.tile<unit = mma_sync, rows = 64, columns = -8, depth = 64, stages = 2>} : () -> ()

// -----

// expected-error @+1 {{expected rows and columns of 8 to 256 in steps of 8, got 64 and 12}}
"test"() {a = #moe.tile<unit = mma_sync, rows = 64, columns = 12, depth = 64, stages = 2>} : () -> ()

// -----

// expected-error @+1 {{expected rows and columns of 8 to 256 in steps of 8, got 64 and 264}}
"test"() {a = #moe.tile<unit = mma_sync, rows = 64, columns = 264, depth = 64, stages = 2>} : () -> ()

// -----

// expected-error @+1 {{expected a depth of 16 to 256 in steps of 16, got 8}}
"test"() {a = #moe.tile<unit = mma_sync, rows = 64, columns = 64, depth = 8, stages = 2>} : () -> ()

// -----

// expected-error @+1 {{expected a depth of 16 to 256 in steps of 16, got 40}}
"test"() {a = #moe.tile<unit = mma_sync, rows = 64, columns = 64, depth = 40, stages = 2>} : () -> ()

// -----

// expected-error @+1 {{expected a depth of 16 to 256 in steps of 16, got 272}}
"test"() {a = #moe.tile<unit = mma_sync, rows = 64, columns = 64, depth = 272, stages = 2>} : () -> ()

// -----

// expected-error @+1 {{expected 2 to 16 stages, got 1}}
"test"() {a = #moe.tile<unit = mma_sync, rows = 64, columns = 64, depth = 64, stages = 1>} : () -> ()

// -----

// expected-error @+1 {{expected gather_fence = producer with mma_sync, got consumer}}
"test"() {a = #moe.tile<unit = mma_sync, rows = 64, columns = 64, depth = 64, stages = 2, gather_fence = consumer>} : () -> ()

// -----

// expected-error @+1 {{expected 2 to 16 stages, got 17}}
"test"() {a = #moe.tile<unit = mma_sync, rows = 64, columns = 64, depth = 64, stages = 17>} : () -> ()

// -----

// expected-error @+1 {{expected k to be split among 1 to 16 blocks of a cluster, got 0}}
"test"() {a = #moe.tile<unit = wgmma, rows = 64, columns = 64, depth = 64, stages = 2, split = 0>} : () -> ()

// -----

// expected-error @+1 {{expected k to be split among 1 to 16 blocks of a cluster, got 17}}
"test"() {a = #moe.tile<unit = wgmma, rows = 64, columns = 64, depth = 64, stages = 2, split = 17>} : () -> ()

// -----

// expected-error @+1 {{expected cooperative warps, split = 1 and swap_ab = false with mma_sync}}
"test"() {a = #moe.tile<unit = mma_sync, rows = 64, columns = 64, depth = 64, stages = 2, split = 2>} : () -> ()

// -----

// expected-error @+1 {{expected cooperative warps, split = 1 and swap_ab = false with mma_sync}}
"test"() {a = #moe.tile<unit = mma_sync, rows = 64, columns = 64, depth = 64, stages = 2, swap_ab = true>} : () -> ()

// -----

// expected-error @+1 {{expected cooperative warps, split = 1 and swap_ab = false with mma_sync}}
"test"() {a = #moe.tile<unit = mma_sync, rows = 64, columns = 64, depth = 64, stages = 2, roles = ping_pong>} : () -> ()

// -----

// expected-error @+1 {{missing required parameter: stages}}
"test"() {a = #moe.tile<unit = mma_sync, rows = 64, columns = 64, depth = 64>} : () -> ()

// -----

// expected-error @+2 {{expected one of [mma_sync, wgmma]}}
// expected-error @+1 {{failed to parse MoE_TileAttr parameter 'unit'}}
"test"() {a = #moe.tile<unit = fma, rows = 64, columns = 64, depth = 64, stages = 2>} : () -> ()
