// RUN: moe-opt %s -convert-moe-to-gpu=arch=sm_90a -canonicalize -cse -split-input-file | FileCheck %s
// RUN: moe-opt %s -convert-moe-to-gpu=arch=sm_90a -split-input-file --remarks-filter-missed=moe-gpu -o /dev/null 2>&1 | FileCheck %s --check-prefix=MISSED

// The blocks of a cluster compute two row tiles of an expert: each loads half of the
// columns of the weights for both, and its own rows. Both blocks' consumers release a
// stage: four arrivals.
// CHECK:         llvm.func @grouped_matmul_wgmma(%[[XMAP:[a-z0-9]+]]: !llvm.ptr {{{[^}]*}}}, %[[WMAP:[a-z0-9]+]]: !llvm.ptr {{{[^}]*}}},
// CHECK-SAME:      multicast = 1 : i64
// CHECK-SAME:      nvvm.cluster_dim = array<i32: 2, 1, 1>
// CHECK:           nvvm.mbarrier.init %{{.*}}, %c1_i32
// CHECK:           nvvm.mbarrier.init %{{.*}}, %c4_i32
// CHECK:           nvvm.fence.mbarrier.init
// No block may load into, or arrive on, what the other has not initialized.
// CHECK:           nvvm.cluster.arrive {aligned}
// CHECK-NEXT:      nvvm.cluster.wait {aligned}
// CHECK:           nvvm.setmaxregister decrease
// All bytes of a stage, of which the other block's load brings some.
// CHECK:             nvvm.mbarrier.arrive.expect_tx %[[FULL:.*]], %c32768_i32
// CHECK:             nvvm.cp.async.bulk.tensor.shared.cluster.global %{{.*}}, %[[XMAP]], %[[FULL]], box[%{{.*}}, %{{.*}}] :
// CHECK:             nvvm.cp.async.bulk.tensor.shared.cluster.global %{{.*}}, %[[WMAP]], %[[FULL]], box[%{{.*}}, %{{.*}}, %{{.*}}] multicast_mask = %c3_i16 :
// CHECK:           nvvm.setmaxregister increase
// One thread arrives in each block.
// CHECK:             scf.for
// CHECK:               nvvm.wgmma.wait.group.sync.aligned 1
// CHECK:               %[[ARRIVES:.*]] = arith.cmpi ult, %[[INDEX:.*]], %c2_i32
// CHECK-NEXT:          scf.if %[[ARRIVES]] {
// CHECK:                 %[[REMOTE:.*]] = nvvm.mapa %{{.*}}, %[[INDEX]] : !llvm.ptr<3> -> !llvm.ptr<7>
// CHECK-NEXT:            nvvm.mbarrier.arrive %[[REMOTE]] : !llvm.ptr<7>
// No block may end before the other has arrived on its barriers.
// CHECK:           nvvm.cluster.arrive
// CHECK-NEXT:      nvvm.cluster.wait
// CHECK-NEXT:      llvm.return
// Whole clusters: two blocks for each pair of tiles of 128 rows.
// CHECK-LABEL:   func.func @weights(
// CHECK:           %[[N:.*]] = moe_rt.multiprocessors
// CHECK:           %[[PAIRS:.*]] = arith.divui %[[N]], %c2
// CHECK:           %[[WHOLE:.*]] = arith.muli %[[PAIRS]], %c2
// CHECK:           moe_rt.launch @kernels::@grouped_matmul_wgmma
// CHECK-SAME:        maps([#moe_rt.tensor_map<input = 0, box = [128, 64], swizzle = 128>, #moe_rt.tensor_map<input = 2, box = [1, 64, 64], swizzle = 128>])
func.func @weights(%x: tensor<?x200xbf16>, %o: tensor<9xi32>, %w: tensor<8x384x200xbf16>, %init: tensor<?x384xbf16>) -> tensor<?x384xbf16> {
  %y = moe.grouped_matmul %x offsets(%o : tensor<9xi32>) weights(%w : tensor<8x384x200xbf16>) transposed outs(%init : tensor<?x384xbf16>) {
  ^bb0(%s: f32):
    %t = arith.truncf %s : f32 to bf16
    moe.yield %t : bf16
  } {moe.multicast = "weights", moe.tiles = [#moe.tile<unit = wgmma, rows = 128, columns = 128, depth = 64, stages = 4>]} : tensor<?x200xbf16> -> tensor<?x384xbf16>
  return %y : tensor<?x384xbf16>
}

// -----

// Two column tiles: each block loads half of the rows for both. Weights along n are its
// own. Tiles with swapped operands have no clusters.
// CHECK:         llvm.func @grouped_matmul_swapped(
// CHECK-NOT:       nvvm.cluster
// CHECK-NOT:       multicast_mask
// CHECK:         llvm.func @grouped_matmul_wgmma(%[[XMAP:[a-z0-9]+]]: !llvm.ptr {{{[^}]*}}}, %[[WMAP:[a-z0-9]+]]: !llvm.ptr {{{[^}]*}}},
// CHECK-SAME:      multicast = 2 : i64
// CHECK-SAME:      nvvm.cluster_dim = array<i32: 2, 1, 1>
// CHECK:             nvvm.cp.async.bulk.tensor.shared.cluster.global %{{.*}}, %[[XMAP]], %{{.*}}, box[%{{.*}}, %{{.*}}] multicast_mask = %c3_i16 :
// CHECK:             nvvm.cp.async.bulk.tensor.shared.cluster.global %{{.*}}, %[[WMAP]], %{{.*}}, box[%{{.*}}, %{{.*}}, %{{.*}}] :
// CHECK-LABEL:   func.func @rows(
// CHECK:           moe_rt.launch @kernels::@grouped_matmul_wgmma
// CHECK-SAME:        maps([#moe_rt.tensor_map<input = 0, box = [64, 64], swizzle = 128>, #moe_rt.tensor_map<input = 2, box = [1, 64, 64], swizzle = 128>])
func.func @rows(%x: tensor<?x200xbf16>, %o: tensor<9xi32>, %w: tensor<8x200x256xbf16>, %init: tensor<?x256xbf16>) -> tensor<?x256xbf16> {
  %y = moe.grouped_matmul %x offsets(%o : tensor<9xi32>) weights(%w : tensor<8x200x256xbf16>) outs(%init : tensor<?x256xbf16>) {
  ^bb0(%s: f32):
    %t = arith.truncf %s : f32 to bf16
    moe.yield %t : bf16
  } {moe.multicast = "rows", moe.tiles = [#moe.tile<unit = wgmma, rows = 8, columns = 128, depth = 64, stages = 4, swap_ab = true>, #moe.tile<unit = wgmma, rows = 128, columns = 128, depth = 64, stages = 4>]} : tensor<?x200xbf16> -> tensor<?x256xbf16>
  return %y : tensor<?x256xbf16>
}

// -----

// TMA does not load gathered rows, and the last of an odd number of column tiles has no
// neighbour.
// MISSED: 'moe.grouped_matmul' not lowered to a GPU kernel: multicast of gathered rows"
// MISSED: 'moe.grouped_matmul' not lowered to a GPU kernel: multicast of rows to an odd number of column tiles"
// CHECK-LABEL: func.func @missed(
// CHECK-COUNT-2: moe.grouped_matmul
func.func @missed(%x: tensor<?x64xbf16>, %g: tensor<?xi32>, %w: tensor<1x64x256xbf16>, %v: tensor<1x64x384xbf16>, %i: tensor<?x256xf32>, %j: tensor<?x384xf32>) -> (tensor<?x256xf32>, tensor<?x384xf32>) {
  %0 = moe.grouped_matmul %x gather(%g : tensor<?xi32>) weights(%w : tensor<1x64x256xbf16>) outs(%i : tensor<?x256xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.multicast = "rows", moe.tiles = [#moe.tile<unit = wgmma, rows = 128, columns = 128, depth = 64, stages = 2>]} : tensor<?x64xbf16> -> tensor<?x256xf32>
  %1 = moe.grouped_matmul %x weights(%v : tensor<1x64x384xbf16>) outs(%j : tensor<?x384xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.multicast = "rows", moe.tiles = [#moe.tile<unit = wgmma, rows = 128, columns = 128, depth = 64, stages = 2>]} : tensor<?x64xbf16> -> tensor<?x384xf32>
  return %0, %1 : tensor<?x256xf32>, tensor<?x384xf32>
}
