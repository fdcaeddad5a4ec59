// RUN: moe-opt %s -moe-decompose-combine -canonicalize -cse -moe-fuse-router -moe-fuse-combine -convert-moe-to-gpu -canonicalize -cse -split-input-file | FileCheck %s

// The combine of few tokens is fused into the epilogue of the matmul. A warp arrives
// after it has stored its columns; the last one with the same columns adds up. Without
// tiles no warp arrives, and all blocks write the result: zeros.
// CHECK:       llvm.func @grouped_matmul(%{{.*}}: !llvm.ptr<1>, %{{.*}}: !llvm.ptr<1>, %{{.*}}: !llvm.ptr<1>, %[[P:[a-z0-9]+]]: !llvm.ptr<1>, %[[W:[a-z0-9]+]]: !llvm.ptr<1>, %[[ROWS:[a-z0-9]+]]: !llvm.ptr<1>, %[[Y:[a-z0-9]+]]: !llvm.ptr<1>, %[[COUNTERS:[a-z0-9]+]]: !llvm.ptr<1>, %[[COUNT:[a-z0-9]+]]: i32, %{{.*}}: i32, %[[SUMMED:[a-z0-9]+]]: i32)
// CHECK:         nvvm.barrier
// CHECK:         llvm.load %{{.*}} : !llvm.ptr<3> -> i32
// CHECK-NEXT:    %[[EMPTY:.*]] = arith.cmpi eq, %{{.*}}, %c0_i32
// CHECK-NEXT:    arith.select %[[EMPTY]], %[[SUMMED]], %c0_i32
// CHECK:         scf.for
// CHECK:           llvm.getelementptr %[[P]]
// CHECK:         nvvm.mma.sync
// CHECK:         %[[ANY:.*]] = arith.cmpi sgt, %[[SUMMED]], %c0_i32
// CHECK-NEXT:    scf.if %[[ANY]] {
// CHECK-NEXT:      nvvm.bar.warp.sync
// CHECK-NEXT:      llvm.fence syncscope("device") acq_rel
// CHECK:           scf.if
// CHECK:             llvm.getelementptr %[[COUNTERS]]
// CHECK:             llvm.atomicrmw add %{{.*}}, %c1_i32 monotonic
// CHECK:           nvvm.shfl.sync
// CHECK:           %[[OTHERS:.*]] = arith.subi %{{.*}}, %c1_i32
// CHECK:           %[[LAST:.*]] = arith.cmpi eq, %{{.*}}, %[[OTHERS]]
// CHECK-NEXT:      scf.if %[[LAST]] {
// CHECK-NEXT:        llvm.fence syncscope("device") acq_rel
// CHECK-NEXT:        nvvm.bar.warp.sync
// CHECK:             llvm.getelementptr %[[P]]
// CHECK:             llvm.getelementptr %[[W]]
// CHECK:             llvm.getelementptr %[[Y]]
// Tiles of many rows have no fused combine.
// CHECK:       llvm.func @grouped_matmul_1(%{{[^)]*}}: i32, %{{[a-z0-9]+}}: i32)
// CHECK-NOT:     llvm.atomicrmw
// CHECK:       llvm.func @gather_sum

// CHECK-LABEL: func.func @layer(
// CHECK:         %[[FEW:.*]] = arith.cmpi ule, %[[T:.*]], %c64
// CHECK:         moe_rt.launch @kernels::@router blocks
// CHECK:         %[[R:.*]]:7 = moe_rt.launch @kernels::@router_1
// CHECK:         %[[PLACED:.*]]:3 = moe_rt.launch @kernels::@route_place
// CHECK:         %[[SOME:.*]] = arith.select %[[FEW]], %[[T]], %c0
// CHECK:         %[[S:.*]] = arith.index_cast %[[SOME]] : index to i32
// CHECK:         %[[RAN:.*]] = arith.cmpi ne, %[[GRID:.*]], %c0
// CHECK:         %[[A:.*]]:3 = moe_rt.launch @kernels::@grouped_matmul blocks(%[[GRID]]) ins({{.*}}, %[[PLACED]]#2, %[[R]]#0 : {{.*}}) outs(%{{.*}}, %{{.*}}, %[[R]]#6 : {{.*}}) scalars({{.*}}, %[[S]] : i32, i32, i32, i32, i32)
// CHECK:         %[[B:.*]] = moe_rt.launch @kernels::@grouped_matmul_1 blocks({{.*}}) ins({{.*}}) outs(%[[A]]#0 : tensor<?x24xbf16>)
// CHECK:         %[[LEFT:.*]] = arith.subi %[[T]], %[[SOME]]
// CHECK:         %[[BLOCKS:.*]] = arith.select %[[RAN]], %[[LEFT]], %[[T]]
// CHECK:         %[[SUM:.*]] = moe_rt.launch @kernels::@gather_sum blocks(%[[BLOCKS]]) ins(%[[B]], %[[PLACED]]#2, %[[R]]#0 : {{.*}}) outs(%[[A]]#1 :
// CHECK-NOT:     moe.combine
// CHECK:         return %[[SUM]]
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
