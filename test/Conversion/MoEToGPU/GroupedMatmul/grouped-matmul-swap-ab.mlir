// RUN: moe-opt %s -convert-moe-to-gpu=arch=sm_90a -canonicalize -cse -split-input-file | FileCheck %s

// Swap AB: weights are the A operand, 64 columns of the result along M, and rows the B
// operand, N = 16. One producer warpgroup, one consumer.
// CHECK:       llvm.func @grouped_matmul_swapped(
// CHECK-NOT:     nvvm.cluster_dim
// CHECK-SAME:    nvvm.maxntid = array<i32: 256, 1, 1>
// CHECK-NOT:     nvvm.setmaxregister
// CHECK:         scf.for
// One TMA load of 16 rows and one of 128.
// CHECK:           nvvm.mbarrier.arrive.expect_tx %{{.*}}, %c18432_i32
// CHECK-COUNT-2:   nvvm.cp.async.bulk.tensor.shared.cluster.global
// CHECK:         } else {
// Rows are at the start of a stage, weights 2048 bytes further; the second 64 columns
// are 8192 bytes after the first.
// CHECK:           %[[ROWS:.*]] = arith.ori %{{.*}}, %c4611686293305360384_i64
// CHECK:           arith.addi %{{.*}}, %c2048_i32
// CHECK:           %[[WEIGHTS:.*]] = arith.ori %{{.*}}, %c4611686293305360384_i64
// CHECK-NEXT:      nvvm.wgmma.fence.aligned
// CHECK-NEXT:      nvvm.wgmma.mma_async %[[WEIGHTS]], %[[ROWS]], %{{.*}}, <m = 64, n = 16, k = 16>, D[<f32>, <zero>], A[<bf16>, <one>, <row>], B[<bf16>, <one>, <col>]
// CHECK-NEXT:      %[[SECOND:.*]] = arith.addi %[[WEIGHTS]], %c512_i64
// CHECK-NEXT:      nvvm.wgmma.mma_async %[[SECOND]], %[[ROWS]], %{{.*}}, <m = 64, n = 16, k = 16>, D[<f32>, <zero>]
// Each thread exchanges a row with the thread of the next column, and stores two
// adjacent columns of one row.
// CHECK:           nvvm.wgmma.wait.group.sync.aligned 0
// CHECK:           nvvm.shfl.sync bfly %{{.*}}, %{{.*}}, %c4_i32, %c31_i32
// CHECK:           llvm.inline_asm has_side_effects {{.*}}@p st.global.b32

// CHECK-LABEL: func.func @few_rows(
// CHECK:         moe_rt.launch @kernels::@grouped_matmul_swapped {{.*}} maps([#moe_rt.tensor_map<input = 0, box = [16, 64], swizzle = 128>, #moe_rt.tensor_map<input = 2, box = [1, 128, 64], swizzle = 128>])
func.func @few_rows(%x: tensor<?x256xbf16>, %o: tensor<9xi32>, %w: tensor<8x384x256xbf16>, %init: tensor<?x384xbf16>) -> tensor<?x384xbf16> {
  %y = moe.grouped_matmul %x offsets(%o : tensor<9xi32>) weights(%w : tensor<8x384x256xbf16>) transposed outs(%init : tensor<?x384xbf16>) {
  ^bb0(%s: f32):
    %t = arith.truncf %s : f32 to bf16
    moe.yield %t : bf16
  } {moe.tiles = [#moe.tile<unit = wgmma, rows = 16, columns = 128, depth = 64, stages = 4, swap_ab = true>]} : tensor<?x256xbf16> -> tensor<?x384xbf16>
  return %y : tensor<?x384xbf16>
}

// -----

// A cluster splits k: of four steps each block has two.
// CHECK:       llvm.func @grouped_matmul_swapped({{.*}}nvvm.cluster_dim = array<i32: 2, 1, 1>
// CHECK:         %[[RANK:.*]] = nvvm.read.ptx.sreg.cluster.ctarank
// CHECK:         %[[TILE:.*]] = arith.divui %{{.*}}, %c2_i32
// CHECK:         nvvm.cluster.arrive
// CHECK-NEXT:    nvvm.cluster.wait
// CHECK:         arith.cmpi slt, %[[TILE]],
// CHECK:         %[[FIRST:.*]] = arith.muli %[[RANK]], %c2_i32
// CHECK:         scf.for %[[STEP:.*]] = %c0_i32 to %c2_i32
// CHECK:           %[[OWN:.*]] = arith.addi %[[STEP]], %[[FIRST]]
// CHECK-NEXT:      arith.muli %[[OWN]], %c64_i32
// Eight rows occupy half of the producer's threads.
// CHECK:           %[[THERE:.*]] = arith.cmpi slt, %{{.*}}, %c8_i32
// CHECK-NEXT:      scf.if %[[THERE]] {
// CHECK:             nvvm.cp.async.shared.global
// MN-major weights: blocks of 64 columns.
// CHECK:         nvvm.wgmma.mma_async {{.*}}<m = 64, n = 8, k = 16>, D[<f32>, <zero>], A[<f16>, <one>, <col>], B[<f16>, <one>, <col>]
// Partial accumulators go to the block that owns their columns, which adds in the order
// of k.
// CHECK:         %[[THEIRS:.*]] = nvvm.mapa %[[SUMS:.*]], %{{.*}} : !llvm.ptr<3> -> !llvm.ptr<7>
// CHECK:         %[[PLACE:.*]] = llvm.getelementptr %[[THEIRS]][
// CHECK:         llvm.store %{{.*}}, %[[PLACE]] : f32, !llvm.ptr<7>
// CHECK:         nvvm.cluster.arrive
// CHECK-NEXT:    nvvm.cluster.wait
// CHECK:         scf.if
// CHECK:           %[[ONE:.*]] = llvm.load %{{.*}} : !llvm.ptr<3> -> f32
// CHECK:           %[[TWO:.*]] = llvm.load %{{.*}} : !llvm.ptr<3> -> f32
// CHECK-NEXT:      arith.addf %[[ONE]], %[[TWO]]
// CHECK-NOT:     llvm.store {{.*}}!llvm.ptr<7>

// Both column blocks are the same columns, one of each GEMM. The second tile runs if
// the first does not suit; a cluster of two for each tile.
// CHECK-LABEL: func.func @split(
// CHECK:         %[[MOST:.*]] = arith.muli %{{.*}}, %c2
// CHECK:         %[[BLOCKS:.*]] = arith.muli %{{.*}}, %c2
// CHECK-NEXT:    %[[FEW:.*]] = arith.cmpi ule, %[[BLOCKS]], %[[MOST]] : index
// CHECK:         %[[SUITS:.*]] = arith.andi %{{.*}}, %[[FEW]]
// CHECK-NEXT:    %[[OR_NONE:.*]] = arith.select %[[SUITS]], %[[BLOCKS]], %c0
// CHECK:         moe_rt.launch @kernels::@grouped_matmul_swapped blocks(%[[OR_NONE]])
// CHECK-SAME:      maps([#moe_rt.tensor_map<input = 3, box = [1, 64, 64], swizzle = 128>, #moe_rt.tensor_map<input = 4, box = [1, 64, 64], swizzle = 128>])
// CHECK:         %[[OTHERS:.*]] = arith.select %[[SUITS]], %c0, %{{.*}}
// CHECK:         moe_rt.launch @kernels::@grouped_matmul_swapped_1 blocks(%[[OTHERS]])
func.func @split(%x: tensor<?x256xf16>, %g: tensor<?xi32>, %o: tensor<9xi32>, %w: tensor<8x256x64xf16>, %v: tensor<8x256x64xf16>, %init: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %y = moe.grouped_matmul %x gather(%g : tensor<?xi32>) offsets(%o : tensor<9xi32>)
      weights(%w, %v : tensor<8x256x64xf16>, tensor<8x256x64xf16>) outs(%init : tensor<?x64xf32>) {
  ^bb0(%s: f32, %u: f32):
    %t = arith.mulf %s, %u : f32
    moe.yield %t : f32
  } {moe.tiles = [#moe.tile<unit = wgmma, rows = 8, columns = 128, depth = 64, stages = 4, swap_ab = true, split = 2>,
                  #moe.tile<unit = wgmma, rows = 8, columns = 128, depth = 64, stages = 4, swap_ab = true>]} : tensor<?x256xf16> -> tensor<?x64xf32>
  return %y : tensor<?x64xf32>
}
