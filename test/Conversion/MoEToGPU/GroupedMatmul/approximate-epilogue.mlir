// RUN: moe-opt %s -convert-moe-to-gpu=arch=sm_90a -split-input-file | FileCheck %s

// Functions and quotients of an epilogue with a result of 16 bits may be
// approximated; sums and products are what they are.
// CHECK-LABEL: llvm.func @grouped_matmul_wgmma(
// CHECK:         arith.negf %{{[0-9]+}} : f32
// CHECK:         math.exp %{{[0-9]+}} fastmath<afn> : f32
// CHECK:         arith.addf %{{[0-9]+}}, %{{.*}} : f32
// CHECK:         arith.divf %{{[0-9]+}}, %{{[0-9]+}} fastmath<arcp,afn> : f32
// CHECK-NOT:     math.exp %{{[0-9]+}} : f32
func.func @narrow(%x: tensor<?x64xbf16>, %o: tensor<3xi32>, %w: tensor<2x128x64xbf16>, %init: tensor<?x128xbf16>) -> tensor<?x128xbf16> {
  %y = moe.grouped_matmul %x offsets(%o : tensor<3xi32>) weights(%w : tensor<2x128x64xbf16>) transposed outs(%init : tensor<?x128xbf16>) {
  ^bb0(%s: f32):
    %one = arith.constant 1.0 : f32
    %n = arith.negf %s : f32
    %e = math.exp %n : f32
    %d = arith.addf %e, %one : f32
    %q = arith.divf %s, %d fastmath<arcp> : f32
    %t = arith.truncf %q : f32 to bf16
    moe.yield %t : bf16
  } {moe.tiles = [#moe.tile<unit = wgmma, rows = 128, columns = 128, depth = 64, stages = 4>]} : tensor<?x64xbf16> -> tensor<?x128xbf16>
  return %y : tensor<?x128xbf16>
}

// -----

// A result of f32 is not.
// CHECK-LABEL: llvm.func @grouped_matmul_wgmma(
// CHECK:         math.exp %{{[0-9]+}} : f32
// CHECK:         arith.divf %{{[0-9]+}}, %{{[0-9]+}} : f32
// CHECK-NOT:     afn
func.func @wide(%x: tensor<?x64xbf16>, %o: tensor<3xi32>, %w: tensor<2x128x64xbf16>, %init: tensor<?x128xf32>) -> tensor<?x128xf32> {
  %y = moe.grouped_matmul %x offsets(%o : tensor<3xi32>) weights(%w : tensor<2x128x64xbf16>) transposed outs(%init : tensor<?x128xf32>) {
  ^bb0(%s: f32):
    %e = math.exp %s : f32
    %q = arith.divf %s, %e : f32
    moe.yield %q : f32
  } {moe.tiles = [#moe.tile<unit = wgmma, rows = 128, columns = 128, depth = 64, stages = 4>]} : tensor<?x64xbf16> -> tensor<?x128xf32>
  return %y : tensor<?x128xf32>
}
