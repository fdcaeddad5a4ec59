// RUN: moe-opt %s -convert-moe-to-gpu=arch=sm_90a -canonicalize -cse -split-input-file | FileCheck %s

// Contiguous rows and K-major weights: TMA loads both.
// CHECK:       gpu.module @kernels [#nvvm.target<O = 3, chip = "sm_90a">] {
// CHECK:         llvm.func @grouped_matmul_wgmma(
// CHECK-SAME:      %[[XMAP:[a-z0-9]+]]: !llvm.ptr {llvm.align = 64 : i64, llvm.byval = !llvm.array<128 x i8>, nvvm.grid_constant},
// CHECK-SAME:      %[[WMAP:[a-z0-9]+]]: !llvm.ptr {llvm.align = 64 : i64, llvm.byval = !llvm.array<128 x i8>, nvvm.grid_constant},
// CHECK-SAME:      %{{[a-z0-9]+}}: !llvm.ptr<1>, %{{[a-z0-9]+}}: !llvm.ptr<1>, %{{[a-z0-9]+}}: !llvm.ptr<1>, %[[Y:[a-z0-9]+]]: !llvm.ptr<1>, %{{[a-z0-9]+}}: i32, %{{[a-z0-9]+}}: i32)
// Four stages of (128 + 128) rows, ten barriers, 2 KiB in which each of eight warps
// arranges its results, the tile scheduler of 8 experts; one producer warpgroup, two consumers.
// CHECK-SAME:      moe.shared_bytes = 147900 : i64, moe.work = {{.*}}, nvvm.kernel, nvvm.maxntid = array<i32: 384, 1, 1>
// CHECK-DAG:     %[[THREAD:.*]] = nvvm.read.ptx.sreg.tid.x
// CHECK-DAG:     %[[BARRIERS:.*]] = llvm.getelementptr %{{.*}}[131072]
// CHECK-DAG:     %[[GROUP:.*]] = nvvm.shfl.sync idx
// CHECK:         %[[ONE:.*]] = arith.cmpi eq, %[[THREAD]], %c0_i32
// Arrivals: one producer thread announces bytes, one thread of each consumer releases.
// CHECK-NEXT:    scf.if %[[ONE]] {
// CHECK-NEXT:      nvvm.prefetch tensormap, %[[WMAP]]
// CHECK-NEXT:      nvvm.prefetch tensormap, %[[XMAP]]
// CHECK-NEXT:      nvvm.mbarrier.init %[[BARRIERS]], %c1_i32
// CHECK:           nvvm.mbarrier.init %{{.*}}, %c2_i32
// CHECK-COUNT-6:   nvvm.mbarrier.init
// CHECK-NOT:       nvvm.mbarrier.init
// CHECK:           nvvm.fence.mbarrier.init
// CHECK-NEXT:    }
// CHECK:         nvvm.barrier
// Weights of the first tile: a kernel whose rows another one computes may begin
// under that one.
// CHECK:         scf.if %[[ONE]] {
// CHECK:           scf.for %{{.*}} = %c0_i32 to %c4_i32
// CHECK:             nvvm.cp.async.bulk.tensor.prefetch %[[WMAP]], box[
// CHECK:         %[[BRINGS:.*]] = arith.cmpi eq, %[[GROUP]], %c0_i32
// CHECK-NEXT:    scf.if %[[BRINGS]] {
// CHECK-NEXT:      nvvm.setmaxregister decrease {{[0-9]+}}
// CHECK-NEXT:      scf.if %[[ONE]] {
// CHECK:             scf.for %{{.*}} iter_args(%[[S0:.*]] = %c0_i32, %[[P0:.*]] = %c1_i32)
// CHECK:               scf.for %[[STEP:.*]] = %c0_i32 to %c4_i32 step %c1_i32 iter_args(%[[STAGE:.*]] = %[[S0]], %[[PARITY:.*]] = %[[P0]])
// CHECK:                 nvvm.mbarrier.try_wait.parity %{{.*}}, %[[PARITY]],
// CHECK:                 nvvm.mbarrier.arrive.expect_tx %[[FULL:.*]], %c32768_i32
// CHECK-NEXT:            %[[FROM:.*]] = arith.muli %[[STEP]], %c64_i32
// CHECK:                 nvvm.cp.async.bulk.tensor.shared.cluster.global %{{.*}}, %[[XMAP]], %[[FULL]], box[%[[FROM]], %{{.*}}] :
// CHECK:                 nvvm.cp.async.bulk.tensor.shared.cluster.global %{{.*}}, %[[WMAP]], %[[FULL]], box[%[[FROM]], %[[COLUMN:.*]], %[[EXPERT:.*]]] :
// CHECK-NOT:             nvvm.cp.async
// CHECK:                 %[[NEXT:.*]] = arith.addi %[[STAGE]], %c1_i32
// CHECK-NEXT:            %[[WRAPS:.*]] = arith.cmpi eq, %[[NEXT]], %c4_i32
// CHECK:                 %[[FLIPPED:.*]] = arith.xori %[[PARITY]], %c1_i32
// CHECK-NEXT:            arith.select %[[WRAPS]], %[[FLIPPED]], %[[PARITY]]
// CHECK:         } else {
// CHECK:           nvvm.setmaxregister increase {{[0-9]+}}
// CHECK:           scf.for
// The first stage clears the accumulators, so that no other instruction writes them.
// CHECK:             nvvm.mbarrier.try_wait.parity
// CHECK:             nvvm.wgmma.fence.aligned
// CHECK-NEXT:        nvvm.wgmma.mma_async {{.*}} D[<f32>, <zero>]
// CHECK:             nvvm.wgmma.mma_async {{.*}} D[<f32>, <one>]
// CHECK:             nvvm.wgmma.commit.group.sync.aligned
// CHECK:             %{{.*}}:4 = scf.for %[[STEP:.*]] = %c1_i32 to %c4_i32 step %c1_i32
// CHECK:               nvvm.mbarrier.try_wait.parity
// Descriptors: 128-byte swizzle, eight rows 1024 bytes apart.
// CHECK:               %[[A:.*]] = arith.ori %{{.*}}, %c4611686293305360384_i64
// CHECK:               %[[B:.*]] = arith.ori %{{.*}}, %c4611686293305360384_i64
// CHECK-NEXT:          nvvm.wgmma.fence.aligned
// CHECK-NEXT:          %[[D:.*]] = nvvm.wgmma.mma_async %[[A]], %[[B]], %{{.*}}, <m = 64, n = 128, k = 16>, D[<f32>, <one>], A[<bf16>, <one>, <row>], B[<bf16>, <one>, <col>]
// 16 elements further in the same row.
// CHECK-DAG:           %[[B2:.*]] = arith.addi %[[B]], %c2_i64
// CHECK-DAG:           %[[A2:.*]] = arith.addi %[[A]], %c2_i64
// CHECK-NEXT:          nvvm.wgmma.mma_async %[[A2]], %[[B2]], %[[D]],
// CHECK-COUNT-2:       nvvm.wgmma.mma_async
// CHECK-NEXT:          nvvm.wgmma.commit.group.sync.aligned
// The previous stage is released by one thread.
// CHECK-NEXT:          nvvm.wgmma.wait.group.sync.aligned 1
// CHECK:               scf.if
// CHECK:                 nvvm.mbarrier.arrive %{{.*}} : !llvm.ptr<3> -> i64
// CHECK:             nvvm.wgmma.wait.group.sync.aligned 0
// CHECK:             scf.if
// CHECK:               nvvm.mbarrier.arrive %{{.*}} : !llvm.ptr<3> -> i64
// CHECK-NOT:         nvvm.mbarrier
// A warp arranges 16 rows of 64 columns in shared memory, two fragments at a time; then
// its lanes store 16 bytes each. Whole tiles of columns need no bounds check.
// CHECK:             nvvm.bar.warp.sync
// CHECK-COUNT-4:     nvvm.stmatrix %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} {
// CHECK-NEXT:        nvvm.bar.warp.sync
// CHECK:             %[[PLACE:.*]] = llvm.getelementptr %[[Y]][%{{.*}}] : {{.*}}, bf16
// CHECK:             llvm.load %{{.*}} {alignment = 16 : i64} : !llvm.ptr<3> -> vector<4xi32>
// CHECK:             llvm.inline_asm has_side_effects {{.*}}@p st.global.v4.b32 {{.*}}, %[[PLACE]],
// CHECK-COUNT-3:     llvm.inline_asm has_side_effects {{.*}}@p st.global.v4.b32
// CHECK:             nvvm.bar.warp.sync

// Persistent blocks, one per multiprocessor. The tensor maps are of the operands.
// CHECK-LABEL: func.func @together(
// CHECK:         %[[N:.*]] = moe_rt.multiprocessors
// CHECK:         %[[TILES:.*]] = arith.muli %{{.*}}, %c3
// CHECK-NEXT:    %[[BLOCKS:.*]] = arith.minui %[[TILES]], %[[N]]
// CHECK:         moe_rt.launch @kernels::@grouped_matmul_wgmma blocks(%[[BLOCKS]]) ins(%arg0, %arg1, %arg2 :
// CHECK-SAME:      maps([#moe_rt.tensor_map<input = 0, box = [128, 64], swizzle = 128>, #moe_rt.tensor_map<input = 2, box = [1, 128, 64], swizzle = 128>])
func.func @together(%x: tensor<?x200xbf16>, %o: tensor<9xi32>, %w: tensor<8x384x200xbf16>, %init: tensor<?x384xbf16>) -> tensor<?x384xbf16> {
  %y = moe.grouped_matmul %x offsets(%o : tensor<9xi32>) weights(%w : tensor<8x384x200xbf16>) transposed outs(%init : tensor<?x384xbf16>) {
  ^bb0(%s: f32):
    %t = arith.truncf %s : f32 to bf16
    moe.yield %t : bf16
  } {moe.tiles = [#moe.tile<unit = wgmma, rows = 128, columns = 128, depth = 64, stages = 4>]} : tensor<?x200xbf16> -> tensor<?x384xbf16>
  return %y : tensor<?x384xbf16>
}

// -----

// Gathered rows are copied with cp.async by all threads of the producer; the MN-major
// weights of two GEMMs are loaded by TMA, in blocks of 64 columns.
// CHECK:       llvm.func @grouped_matmul_wgmma(%[[WMAP:[a-z0-9]+]]: !llvm.ptr {{{[^}]*}}}, %[[VMAP:[a-z0-9]+]]: !llvm.ptr {{{[^}]*}}}, %[[X:[a-z0-9]+]]: !llvm.ptr<1>, %[[G:[a-z0-9]+]]: !llvm.ptr<1>,
// CHECK-DAG:     %[[ONE:.*]] = arith.cmpi eq, %{{.*}}, %c0_i32
// One arrival for the weights, 128 for the rows.
// CHECK:         nvvm.mbarrier.init %{{.*}}, %c129_i32
// CHECK:         nvvm.mbarrier.init %{{.*}}, %c2_i32
// CHECK:         nvvm.setmaxregister decrease {{[0-9]+}}
// CHECK:           llvm.getelementptr %[[G]][%{{.*}}] : {{.*}}, i32
// CHECK:           llvm.getelementptr %[[X]][%{{.*}}] : {{.*}}, f16
// CHECK:           scf.for %[[STEP:.*]] = %c0_i32 to %c4_i32
// CHECK:             nvvm.mbarrier.try_wait.parity
// CHECK:             scf.if %[[ONE]] {
// CHECK-NEXT:          nvvm.mbarrier.arrive.expect_tx %[[FULL:.*]], %c16384_i32
// CHECK:               nvvm.cp.async.bulk.tensor.shared.cluster.global %{{.*}}, %[[WMAP]], %[[FULL]], box[%[[COLUMN:.*]], %[[FROM:.*]], %[[EXPERT:.*]]] :
// CHECK:               nvvm.cp.async.bulk.tensor.shared.cluster.global %{{.*}}, %[[VMAP]], %[[FULL]], box[%[[COLUMN]], %[[FROM]], %[[EXPERT]]] :
// CHECK-NEXT:        }
// CHECK:             %[[INSIDE:.*]] = arith.cmpi slt, %{{.*}}, %c200_i32
// CHECK-NEXT:        %[[BYTES:.*]] = arith.select %[[INSIDE]], %c16_i32, %c0_i32
// CHECK-COUNT-8:     nvvm.cp.async.shared.global %{{.*}}, %{{.*}}, 16, cache = cg, %[[BYTES]]
// CHECK-NEXT:        nvvm.cp.async.commit.group
// Copies of two steps ago are fenced for the async proxy, and the thread arrives.
// CHECK-NEXT:        nvvm.cp.async.wait.group 2
// CHECK-NEXT:        %[[LATE:.*]] = arith.cmpi sge, %[[STEP]], %c2_i32
// CHECK-NEXT:        scf.if %[[LATE]] {
// CHECK:               nvvm.fence.proxy {kind = #nvvm.proxy_kind<async.shared>, space = #nvvm.shared_space<cta>}
// CHECK:               nvvm.mbarrier.arrive %{{.*}} : !llvm.ptr<3> -> i64
// CHECK:           nvvm.cp.async.wait.group 0
// CHECK:           nvvm.fence.proxy
// CHECK:           nvvm.mbarrier.arrive
// CHECK:           nvvm.fence.proxy
// CHECK:           nvvm.mbarrier.arrive
// CHECK:         nvvm.setmaxregister increase {{[0-9]+}}
// Blocks of 64 columns are 8192 bytes apart; 16 rows are 2048 bytes.
// CHECK:           %[[A:.*]] = arith.ori %{{.*}}, %c4611686293305360384_i64
// CHECK:           %[[B:.*]] = arith.ori %{{.*}}, %c4611686293338849280_i64
// CHECK:           nvvm.wgmma.mma_async %[[A]], %[[B]], {{.*}} A[<f16>, <one>, <row>], B[<f16>, <one>, <row>]
// CHECK-DAG:       arith.addi %[[B]], %c128_i64
// CHECK-DAG:       arith.addi %[[A]], %c2_i64
// The accumulators of a column in both GEMMs.
// CHECK:           llvm.extractvalue %[[SUMS:.*]][0]
// CHECK-NEXT:      llvm.extractvalue %[[SUMS]][32]
// CHECK-LABEL: func.func @gathered(
// CHECK:         moe_rt.launch {{.*}} maps([#moe_rt.tensor_map<input = 3, box = [1, 64, 64], swizzle = 128>, #moe_rt.tensor_map<input = 4, box = [1, 64, 64], swizzle = 128>])
func.func @gathered(%x: tensor<?x200xf16>, %g: tensor<?xi32>, %o: tensor<9xi32>, %w: tensor<8x200x64xf16>, %v: tensor<8x200x64xf16>, %init: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %y = moe.grouped_matmul %x gather(%g : tensor<?xi32>) offsets(%o : tensor<9xi32>)
      weights(%w, %v : tensor<8x200x64xf16>, tensor<8x200x64xf16>) outs(%init : tensor<?x64xf32>) {
  ^bb0(%s: f32, %u: f32):
    %t = arith.mulf %s, %u : f32
    moe.yield %t : f32
  } {moe.tiles = [#moe.tile<unit = wgmma, rows = 128, columns = 128, depth = 64, stages = 4>]} : tensor<?x200xf16> -> tensor<?x64xf32>
  return %y : tensor<?x64xf32>
}

// -----

// With gather_fence = consumer, cp.async arrives on the barrier itself, the producer
// waits only at the end, and each consumer thread has a proxy fence between its wait
// for a stage and wgmma.
// CHECK:       llvm.func @grouped_matmul_wgmma(
// CHECK:         nvvm.mbarrier.init %{{.*}}, %c129_i32
// CHECK:         nvvm.setmaxregister decrease {{[0-9]+}}
// CHECK-NOT:       nvvm.fence.proxy
// CHECK:           nvvm.mbarrier.arrive.expect_tx %[[FULL:.*]], %c16384_i32
// CHECK-COUNT-8:   nvvm.cp.async.shared.global
// CHECK-NOT:       nvvm.cp.async.wait.group
// CHECK:           nvvm.cp.async.mbarrier.arrive %[[FULL]] {noinc = true} : !llvm.ptr<3>
// CHECK-NOT:       nvvm.mbarrier.arrive
// CHECK-NOT:       nvvm.fence.proxy
// CHECK:           nvvm.cp.async.wait.group 0
// CHECK:         nvvm.setmaxregister increase {{[0-9]+}}
// CHECK:           nvvm.mbarrier.try_wait.parity
// CHECK-NEXT:      nvvm.fence.proxy {kind = #nvvm.proxy_kind<async.shared>, space = #nvvm.shared_space<cta>}
// CHECK:           nvvm.wgmma.fence.aligned
// CHECK:           scf.for
// CHECK:             nvvm.mbarrier.try_wait.parity
// CHECK-NEXT:        nvvm.fence.proxy
// CHECK:             nvvm.wgmma.fence.aligned
// CHECK-LABEL: func.func @consumer_fence(
func.func @consumer_fence(%x: tensor<?x200xf16>, %g: tensor<?xi32>, %o: tensor<9xi32>, %w: tensor<8x200x64xf16>, %v: tensor<8x200x64xf16>, %init: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %y = moe.grouped_matmul %x gather(%g : tensor<?xi32>) offsets(%o : tensor<9xi32>)
      weights(%w, %v : tensor<8x200x64xf16>, tensor<8x200x64xf16>) outs(%init : tensor<?x64xf32>) {
  ^bb0(%s: f32, %u: f32):
    %t = arith.mulf %s, %u : f32
    moe.yield %t : f32
  } {moe.tiles = [#moe.tile<unit = wgmma, rows = 128, columns = 128, depth = 64, stages = 4, gather_fence = consumer>]} : tensor<?x200xf16> -> tensor<?x64xf32>
  return %y : tensor<?x64xf32>
}

// -----

// Ping-pong: each consumer computes every other tile of the block. Two more barriers,
// behind those of the stages, order the mainloops: all threads of a warpgroup arrive on
// them.
// CHECK:       llvm.func @grouped_matmul_wgmma({{.*}}nvvm.maxntid = array<i32: 384, 1, 1>
// CHECK-COUNT-8: nvvm.mbarrier.init %{{.*}}, %c1_i32
// CHECK-COUNT-2: nvvm.mbarrier.init %{{.*}}, %c128_i32
// CHECK-NOT:      nvvm.mbarrier.init
// CHECK:         nvvm.setmaxregister decrease
// CHECK:         nvvm.setmaxregister increase
// CHECK:         %[[BLOCK:.*]] = nvvm.read.ptx.sreg.ctaid.x
// CHECK:         %[[BLOCKS:.*]] = nvvm.read.ptx.sreg.nctaid.x
// CHECK:         %[[SECOND:.*]] = arith.cmpi eq, %{{.*}}, %c1_i32
// CHECK:         %[[LATER:.*]] = arith.addi %[[BLOCK]], %[[BLOCKS]]
// CHECK:         %[[FIRST:.*]] = arith.select %[[SECOND]], %[[LATER]], %[[BLOCK]]
// CHECK:         %[[STRIDE:.*]] = arith.muli %[[BLOCKS]], %c2_i32
// CHECK:         scf.for %{{.*}} = %[[FIRST]] to %{{.*}} step %[[STRIDE]] iter_args(%{{.*}}, %{{.*}}, %[[TURN:.*]] = %{{.*}})
// CHECK:           nvvm.mbarrier.try_wait.parity %{{.*}}, %[[TURN]],
// CHECK-COUNT-4:   nvvm.wgmma.mma_async
// CHECK-NOT:       nvvm.wgmma.mma_async
// CHECK:           scf.for
// CHECK-COUNT-4:     nvvm.wgmma.mma_async
// CHECK-NOT:         nvvm.wgmma.mma_async
// CHECK:             scf.yield
// The other consumer may multiply while this one waits for its accumulators and stores
// them.
// CHECK:           }
// CHECK-NOT:       scf.if
// CHECK:           nvvm.mbarrier.arrive
// CHECK-NEXT:      nvvm.wgmma.wait.group.sync.aligned 0
// CHECK:           scf.if
// CHECK:             nvvm.mbarrier.arrive
// CHECK:           st.global
// CHECK:           arith.xori %[[TURN]], %c1_i32
// CHECK-LABEL: func.func @ping_pong(
// CHECK:         moe_rt.launch {{.*}} maps([#moe_rt.tensor_map<input = 0, box = [64, 64], swizzle = 128>, #moe_rt.tensor_map<input = 1, box = [1, 128, 64], swizzle = 128>])
func.func @ping_pong(%x: tensor<?x200xbf16>, %w: tensor<1x384x200xbf16>, %init: tensor<?x384xbf16>) -> tensor<?x384xbf16> {
  %y = moe.grouped_matmul %x weights(%w : tensor<1x384x200xbf16>) transposed outs(%init : tensor<?x384xbf16>) {
  ^bb0(%s: f32):
    %t = arith.truncf %s : f32 to bf16
    moe.yield %t : bf16
  } {moe.tiles = [#moe.tile<unit = wgmma, rows = 64, columns = 128, depth = 64, stages = 4, roles = ping_pong>]} : tensor<?x200xbf16> -> tensor<?x384xbf16>
  return %y : tensor<?x384xbf16>
}
