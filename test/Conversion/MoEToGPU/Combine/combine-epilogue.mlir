// RUN: moe-opt %s -moe-decompose-combine -canonicalize -cse -moe-fuse-router -moe-fuse-combine -convert-moe-to-gpu -canonicalize -cse -split-input-file | FileCheck %s

// The combine is fused into the epilogue of the matmul. Without tiles no warp arrives, and
// all blocks write the result; nor does one for a token of which no choice has a row.
// CHECK:       llvm.func @grouped_matmul(%{{.*}}: !llvm.ptr<1>, %{{.*}}: !llvm.ptr<1>, %{{.*}}: !llvm.ptr<1>, %{{.*}}: !llvm.ptr<1>, %[[P:[a-z0-9]+]]: !llvm.ptr<1>, %[[W:[a-z0-9]+]]: !llvm.ptr<1>, %[[TOKENS:[a-z0-9]+]]: !llvm.ptr<1>, %[[ROWS:[a-z0-9]+]]: !llvm.ptr<1>, %[[Y:[a-z0-9]+]]: !llvm.ptr<1>, %[[COUNTERS:[a-z0-9]+]]: !llvm.ptr<1>, %[[COUNT:[a-z0-9]+]]: i32, %{{.*}}: i32, %[[FEW:[a-z0-9]+]]: i32, %[[OTHERS:[a-z0-9]+]]: i32)
// CHECK-SAME:    moe.work = {{{.*}}combined = 2 : i64
// CHECK:         nvvm.barrier
// CHECK:         arith.select %{{.*}}, %[[FEW]], %c0_i32
// CHECK:         scf.for
// CHECK:           llvm.getelementptr %[[P]]
// CHECK:         scf.for %{{.*}} = %{{.*}} to %[[OTHERS]]
// CHECK-COUNT-2:   arith.cmpi ult, %{{.*}}, %[[COUNT]]
// CHECK:           scf.if
// CHECK:         nvvm.mma.sync
// Few tokens: a warp arrives after it has stored its columns; the last one with the same
// columns adds up.
// CHECK:         %[[ANY:.*]] = arith.cmpi sgt, %[[FEW]], %c0_i32
// CHECK-NEXT:    scf.if %[[ANY]] {
// CHECK-NEXT:      nvvm.bar.warp.sync
// CHECK-NEXT:      llvm.fence syncscope("device") acq_rel
// CHECK:           scf.if
// CHECK:             llvm.getelementptr %[[COUNTERS]]
// CHECK:             llvm.atomicrmw add %{{.*}}, %c1_i32 monotonic
// CHECK:           nvvm.shfl.sync
// CHECK:           %[[BEFORE:.*]] = arith.subi %{{.*}}, %c1_i32
// CHECK:           %[[LAST:.*]] = arith.cmpi eq, %{{.*}}, %[[BEFORE]]
// CHECK-NEXT:      scf.if %[[LAST]] {
// CHECK-NEXT:        llvm.fence syncscope("device") acq_rel
// CHECK-NEXT:        nvvm.bar.warp.sync
// CHECK:             llvm.getelementptr %[[P]]
// CHECK:             llvm.getelementptr %[[W]]
// CHECK:             llvm.getelementptr %[[Y]]
// Others: a lane arrives for the token of a row, once for each choice that has one and
// each of the eight warps of the tile; warps with a last arrival add up.
// CHECK:         %[[SOME:.*]] = arith.cmpi sgt, %[[OTHERS]], %c0_i32
// CHECK-NEXT:    scf.if %[[SOME]] {
// CHECK-NEXT:      nvvm.bar.warp.sync
// CHECK-NEXT:      llvm.fence syncscope("device") acq_rel
// CHECK:           llvm.getelementptr %[[TOKENS]]
// CHECK:           arith.cmpi ult, %{{.*}}, %[[OTHERS]]
// CHECK-COUNT-2:   llvm.getelementptr %[[P]]
// CHECK:           scf.if
// CHECK:             llvm.getelementptr %[[COUNTERS]]
// CHECK:             llvm.atomicrmw add %{{.*}}, %c1_i32 monotonic
// CHECK:           %[[ALL:.*]] = arith.muli %{{.*}}, %c8_i32
// CHECK:           arith.cmpi eq, %{{.*}}, %[[ALL]]
// CHECK:           scf.if
// CHECK-NEXT:        llvm.fence syncscope("device") acq_rel
// CHECK-NEXT:        nvvm.bar.warp.sync
// CHECK-NEXT:        scf.for
// CHECK:               scf.if
// CHECK-COUNT-2:         nvvm.shfl.sync
// CHECK:                 llvm.getelementptr %[[ROWS]]
// CHECK:                 llvm.getelementptr %[[Y]]
// Tiles of many rows have no combine of few tokens; a warp has 64 rows for its 32 lanes.
// CHECK:       llvm.func @grouped_matmul_1(%{{[^)]*}}: i32, %{{[a-z0-9]+}}: i32, %{{[a-z0-9]+}}: i32)
// CHECK-COUNT-2: llvm.atomicrmw
// CHECK-NOT:     llvm.atomicrmw
// CHECK:         llvm.return
// CHECK-NOT:   llvm.func @gather_sum

// There are 1024 counters, and one for each token and 128 columns.
// CHECK-LABEL: func.func @layer(
// CHECK:         %[[COUNTED:.*]] = arith.addi %[[T:.*]], %c1024
// CHECK:         %[[IS_FEW:.*]] = arith.cmpi ule, %[[T]], %c64
// CHECK:         tensor.empty(%[[COUNTED]]) : tensor<?xi32>
// CHECK:         moe_rt.launch @kernels::@router blocks
// CHECK:         %[[R:.*]]:7 = moe_rt.launch @kernels::@router_1
// CHECK:         %[[PLACED:.*]]:3 = moe_rt.launch @kernels::@route_place
// CHECK:         %[[FEW:.*]] = arith.select %[[IS_FEW]], %[[T]], %c0
// CHECK:         %[[OTHERS:.*]] = arith.select %[[IS_FEW]], %c0, %[[T]]
// CHECK:         %[[A:.*]]:3 = moe_rt.launch @kernels::@grouped_matmul blocks({{.*}}) ins({{.*}}, %[[PLACED]]#2, %[[R]]#0, %[[PLACED]]#0 : {{.*}}) outs(%{{.*}}, %{{.*}}, %[[R]]#6 : {{.*}})
// CHECK:         %[[B:.*]]:3 = moe_rt.launch @kernels::@grouped_matmul_1 blocks({{.*}}) ins({{.*}}) outs(%[[A]]#0, %[[A]]#1, %[[A]]#2 : {{.*}})
// CHECK-NOT:     moe_rt.launch
// CHECK-NOT:     moe.combine
// CHECK:         return %[[B]]#1
func.func @layer(%x: tensor<?x64xbf16>, %w: tensor<1x8x64xbf16>, %d: tensor<8x24x64xbf16>)
    -> tensor<?x24xbf16> {
  %c0 = arith.constant 0 : index
  %t = tensor.dim %x, %c0 : tensor<?x64xbf16>
  %e = tensor.empty(%t) : tensor<?x8xf32>
  %l = moe.grouped_matmul %x weights(%w : tensor<1x8x64xbf16>) transposed outs(%e : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x64xbf16> -> tensor<?x8xf32>
  %weights, %ids = moe.gate %l top_k(2) : tensor<?x8xf32>
  %tokens, %offsets, %positions = moe.route %ids experts(8) : tensor<?x2xi32>
  %n = tensor.dim %tokens, %c0 : tensor<?xi32>
  %init = tensor.empty(%n) : tensor<?x24xbf16>
  %rows = moe.grouped_matmul %x gather(%tokens : tensor<?xi32>) offsets(%offsets : tensor<9xi32>)
      weights(%d : tensor<8x24x64xbf16>) transposed outs(%init : tensor<?x24xbf16>) {
  ^bb0(%s: f32):
    %r = arith.truncf %s : f32 to bf16
    moe.yield %r : bf16
  } {moe.tiles = [#moe.tile<unit = mma_sync, rows = 16, columns = 128, depth = 64, stages = 2>,
                  #moe.tile<unit = mma_sync, rows = 128, columns = 128, depth = 64, stages = 2>]} : tensor<?x64xbf16> -> tensor<?x24xbf16>
  %y = moe.combine %rows, %positions weights(%weights : tensor<?x2xf32>)
    : tensor<?x24xbf16>, tensor<?x2xi32>
  return %y : tensor<?x24xbf16>
}
