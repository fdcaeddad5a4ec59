// RUN: moe-opt %s -moe-decompose-combine -canonicalize -cse -moe-fuse-router -moe-fuse-combine -convert-moe-to-gpu=arch=sm_90a -canonicalize -cse -split-input-file | FileCheck %s

// Kernels with the operands in their places have no combine of few tokens, whatever the rows
// of their tile: that of any number sums these, too.
// CHECK-LABEL: func.func @ping_pong(
// CHECK:         moe_rt.launch @kernels::@grouped_matmul_swapped {{.*}} scalars(%{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} : i32, i32, i32, i32)
// CHECK:         moe_rt.launch @kernels::@grouped_matmul_wgmma {{.*}} scalars(%{{.*}}, %[[T:.*]], %[[T]] : i32, i32, i32)
// CHECK-NOT:     moe_rt.launch
func.func @ping_pong(%x: tensor<?x64xbf16>, %w: tensor<1x8x64xbf16>, %d: tensor<8x192x64xbf16>)
    -> tensor<?x192xbf16> {
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
  %init = tensor.empty(%n) : tensor<?x192xbf16>
  %rows = moe.grouped_matmul %x gather(%tokens : tensor<?xi32>) offsets(%offsets : tensor<9xi32>)
      weights(%d : tensor<8x192x64xbf16>) transposed outs(%init : tensor<?x192xbf16>) {
  ^bb0(%s: f32):
    %r = arith.truncf %s : f32 to bf16
    moe.yield %r : bf16
  } {moe.tiles = [#moe.tile<unit = wgmma, rows = 8, columns = 128, depth = 64, stages = 4, swap_ab = true>,
                  #moe.tile<unit = wgmma, rows = 64, columns = 128, depth = 64, stages = 4, roles = ping_pong>]} : tensor<?x64xbf16> -> tensor<?x192xbf16>
  %y = moe.combine %rows, %positions weights(%weights : tensor<?x2xf32>)
    : tensor<?x192xbf16>, tensor<?x2xi32>
  return %y : tensor<?x192xbf16>
}

// -----

// There are counters for each token and 128 columns: tiles of fewer have no combine of any
// number of tokens.
// CHECK:       llvm.func @grouped_matmul_wgmma(
// CHECK-NOT:     llvm.atomicrmw
// CHECK-LABEL: func.func @narrow(
// CHECK:         moe_rt.launch @kernels::@grouped_matmul_swapped {{.*}} scalars(%{{.*}}, %{{.*}}, %{{.*}} : i32, i32, i32)
// CHECK:         moe_rt.launch @kernels::@grouped_matmul_wgmma {{.*}} scalars(%{{.*}}, %{{.*}} : i32, i32)
// CHECK:         moe_rt.launch @kernels::@gather_sum
func.func @narrow(%x: tensor<?x64xbf16>, %w: tensor<1x8x64xbf16>, %d: tensor<8x192x64xbf16>)
    -> tensor<?x192xbf16> {
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
  %init = tensor.empty(%n) : tensor<?x192xbf16>
  %rows = moe.grouped_matmul %x gather(%tokens : tensor<?xi32>) offsets(%offsets : tensor<9xi32>)
      weights(%d : tensor<8x192x64xbf16>) transposed outs(%init : tensor<?x192xbf16>) {
  ^bb0(%s: f32):
    %r = arith.truncf %s : f32 to bf16
    moe.yield %r : bf16
  } {moe.tiles = [#moe.tile<unit = wgmma, rows = 8, columns = 128, depth = 64, stages = 4, swap_ab = true>,
                  #moe.tile<unit = wgmma, rows = 64, columns = 64, depth = 64, stages = 4, roles = ping_pong>]} : tensor<?x64xbf16> -> tensor<?x192xbf16>
  %y = moe.combine %rows, %positions weights(%weights : tensor<?x2xf32>)
    : tensor<?x192xbf16>, tensor<?x2xi32>
  return %y : tensor<?x192xbf16>
}
