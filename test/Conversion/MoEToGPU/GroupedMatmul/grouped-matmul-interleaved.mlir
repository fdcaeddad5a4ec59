// RUN: moe-opt %s -convert-moe-to-gpu -canonicalize -cse -split-input-file | FileCheck %s --check-prefixes=CHECK,SYNC
// RUN: moe-opt %s -moe-tile-for-gpu=arch=sm_90a -convert-moe-to-gpu=arch=sm_90a -canonicalize -cse -split-input-file | FileCheck %s --check-prefixes=CHECK,HOPPER

// Two GEMMs whose weights are the even and the odd columns of one tensor: a tile has
// 128 adjacent columns of the tensor for 64 of the result.
// SYNC:         llvm.func @grouped_matmul(%{{[a-z0-9]*}}: !llvm.ptr<1>, %[[O:[a-z0-9]*]]: !llvm.ptr<1>, %[[W:[a-z0-9]*]]: !llvm.ptr<1>, %[[G:[a-z0-9]*]]: !llvm.ptr<1>, %[[U:[a-z0-9]*]]: !llvm.ptr<1>, %[[Y:[a-z0-9]*]]: !llvm.ptr<1>,
// The tensor has 200 columns; the weights start at column 8.
// SYNC:           llvm.getelementptr %[[W]][8]
// SYNC-NOT:       arith.select {{.*}}!llvm.ptr<1>
// SYNC:           arith.cmpi slt, %{{.*}}, %c176_i32
// SYNC:           nvvm.cp.async.shared.global
// SYNC-COUNT-8:   nvvm.mma.sync
// A lane has column 4 · fragment + lane mod 4 of both GEMMs; neighbouring lanes
// exchange columns of two fragments.
// SYNC:           %[[FIRST:.*]] = nvvm.shfl.sync bfly %{{.*}}, %{{.*}}, %c1_i32
// SYNC:           nvvm.shfl.sync bfly %{{.*}}, %{{.*}}, %c1_i32
// Epilogue operands are read in place, columns 2 · n and 2 · n + 1.
// SYNC:             %[[EVEN:.*]] = arith.muli %{{.*}}, %c2_i64
// SYNC:             %[[AT:.*]] = arith.addi %{{.*}}, %[[EVEN]]
// SYNC-NEXT:        llvm.getelementptr %[[G]][%[[AT]]]
// SYNC:             %[[ODD:.*]] = llvm.getelementptr %[[U]][%[[AT]]]
// SYNC-NEXT:        llvm.getelementptr %[[ODD]][1]
// SYNC:             vector.from_elements
// SYNC:             llvm.inline_asm has_side_effects {{.*}}@p st.global.b32

// Swap AB: both GEMMs are in the same column block; four lanes on is the other GEMM,
// eight lanes on the next column.
// HOPPER:       llvm.func @grouped_matmul_swapped(
// HOPPER:         nvvm.mbarrier.arrive.expect_tx
// HOPPER-COUNT-3: nvvm.cp.async.bulk.tensor
// HOPPER-NOT:     nvvm.cp.async.bulk.tensor
// HOPPER:         nvvm.shfl.sync bfly %{{.*}}, %{{.*}}, %c4_i32
// HOPPER:         nvvm.shfl.sync bfly %{{.*}}, %{{.*}}, %c8_i32
// HOPPER:         llvm.inline_asm has_side_effects {{.*}}@p st.global.b32
// HOPPER:       llvm.func @grouped_matmul_wgmma(
// HOPPER:         nvvm.wgmma.mma_async {{.*}}<m = 64, n = 256, k = 16>
// HOPPER:         nvvm.shfl.sync bfly %{{.*}}, %{{.*}}, %c1_i32
// HOPPER:         nvvm.stmatrix

// CHECK-LABEL:  func.func @gate_first(
// CHECK-SAME:     %[[X:.*]]: tensor<?x256xbf16>, %[[O:.*]]: tensor<3xi32>, %[[W:.*]]: tensor<2x256x200xbf16>, %[[B:.*]]: tensor<2x176xbf16>
// SYNC:           moe_rt.launch @kernels::@grouped_matmul {{.*}} ins(%[[X]], %[[O]], %[[W]], %[[B]], %[[B]] :
// HOPPER:         moe_rt.launch @kernels::@grouped_matmul_swapped {{.*}} ins(%[[X]], %[[O]], %[[W]], %[[B]], %[[B]] :
// HOPPER-SAME:      maps([#moe_rt.tensor_map<input = 0, box = [8, 64], swizzle = 128>, #moe_rt.tensor_map<input = 2, box = [1, 64, 64], swizzle = 128>])
// HOPPER:         moe_rt.launch @kernels::@grouped_matmul_wgmma
func.func @gate_first(%x: tensor<?x256xbf16>, %o: tensor<3xi32>, %w: tensor<2x256x200xbf16>, %b: tensor<2x176xbf16>, %init: tensor<?x88xbf16>) -> tensor<?x88xbf16> {
  %gate = tensor.extract_slice %w[0, 0, 8] [2, 256, 88] [1, 1, 2] : tensor<2x256x200xbf16> to tensor<2x256x88xbf16>
  %up = tensor.extract_slice %w[0, 0, 9] [2, 256, 88] [1, 1, 2] : tensor<2x256x200xbf16> to tensor<2x256x88xbf16>
  %gate_bias = tensor.extract_slice %b[0, 0] [2, 88] [1, 2] : tensor<2x176xbf16> to tensor<2x88xbf16>
  %up_bias = tensor.extract_slice %b[0, 1] [2, 88] [1, 2] : tensor<2x176xbf16> to tensor<2x88xbf16>
  %y = moe.grouped_matmul %x offsets(%o : tensor<3xi32>) weights(%gate, %up : tensor<2x256x88xbf16>, tensor<2x256x88xbf16>)
      operands(%gate_bias, %up_bias : tensor<2x88xbf16>, tensor<2x88xbf16>)
      maps([affine_map<(e, r, n) -> (e, n)>, affine_map<(e, r, n) -> (e, n)>]) outs(%init : tensor<?x88xbf16>) {
  ^bb0(%s: f32, %t: f32, %g: bf16, %u: bf16):
    %ge = arith.extf %g : bf16 to f32
    %ue = arith.extf %u : bf16 to f32
    %gb = arith.addf %s, %ge : f32
    %ub = arith.addf %t, %ue : f32
    %m = arith.mulf %gb, %ub : f32
    %r = arith.truncf %m : f32 to bf16
    moe.yield %r : bf16
  } {moe.tiles = [#moe.tile<unit = mma_sync, rows = 16, columns = 128, depth = 64, stages = 3>]} : tensor<?x256xbf16> -> tensor<?x88xbf16>
  return %y : tensor<?x88xbf16>
}

// -----

// The second GEMM may have the even columns: its accumulator is the first of each pair,
// and the epilogue takes them in the opposite order.
// SYNC:         llvm.func @grouped_matmul(
// SYNC:           %[[SUMS:.*]]:9 = scf.for
// SYNC:             nvvm.mma.sync
// SYNC:           %[[GIVEN0:.*]] = arith.select %{{.*}}, %[[SUMS]]#5, %[[SUMS]]#1
// SYNC-NEXT:      %[[GOT0:.*]] = nvvm.shfl.sync bfly %{{.*}}, %[[GIVEN0]], %c1_i32
// SYNC:           %[[FIRST:.*]] = arith.select %{{.*}}, %[[SUMS]]#1, %[[GOT0]]
// SYNC:           %[[GIVEN1:.*]] = arith.select %{{.*}}, %[[SUMS]]#6, %[[SUMS]]#2
// SYNC-NEXT:      %[[GOT1:.*]] = nvvm.shfl.sync bfly %{{.*}}, %[[GIVEN1]], %c1_i32
// SYNC:           %[[SECOND:.*]] = arith.select %{{.*}}, %[[SUMS]]#2, %[[GOT1]]
// SYNC:           arith.subf %[[SECOND]], %[[FIRST]] : f32
// CHECK-LABEL:  func.func @up_first(
// CHECK:          moe_rt.launch {{.*}} ins(%arg0, %arg1 : tensor<?x128xf16>, tensor<1x14x128xf16>)
func.func @up_first(%x: tensor<?x128xf16>, %w: tensor<1x14x128xf16>, %init: tensor<?x7xf32>) -> tensor<?x7xf32> {
  %gate = tensor.extract_slice %w[0, 1, 0] [1, 7, 128] [1, 2, 1] : tensor<1x14x128xf16> to tensor<1x7x128xf16>
  %up = tensor.extract_slice %w[0, 0, 0] [1, 7, 128] [1, 2, 1] : tensor<1x14x128xf16> to tensor<1x7x128xf16>
  %y = moe.grouped_matmul %x weights(%gate, %up : tensor<1x7x128xf16>, tensor<1x7x128xf16>) transposed outs(%init : tensor<?x7xf32>) {
  ^bb0(%s: f32, %t: f32):
    %m = arith.subf %s, %t : f32
    moe.yield %m : f32
  } {moe.tiles = [#moe.tile<unit = mma_sync, rows = 16, columns = 128, depth = 64, stages = 2>]} : tensor<?x128xf16> -> tensor<?x7xf32>
  return %y : tensor<?x7xf32>
}
