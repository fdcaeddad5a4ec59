// REQUIRES: target-nvptx
// RUN: moe-compile %s --target=sm_80 --memory-limit=64KiB --emit=llvm-dialect | FileCheck %s

// A layer that has too little memory runs in chunks of tokens, on a GPU too: the
// host loops around the launches.
// CHECK:       moe.images = [{arch = "sm_80"
// CHECK-SAME:  name = "route_place"
// CHECK-LABEL: llvm.func internal @layer(
// CHECK:         llvm.cond_br
// CHECK:         llvm.call %{{.*}} : !llvm.ptr, (!llvm.ptr, i64, i64, i64, i64, !llvm.ptr, i64) -> i32
// CHECK-LABEL: llvm.func @moe_workspace_layer(
func.func @layer(%l: tensor<?x8xf32>, %x: tensor<?x16xbf16>, %w: tensor<8x16x16xbf16> {moe.role = "weight", moe.name = "w"}) -> tensor<?x16xf32> {
  %weights, %ids = moe.gate %l top_k(2) : tensor<?x8xf32>
  %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<?x16xbf16>, tensor<?x2xi32>
  %rows = moe.expert %g, %o params(%w : tensor<8x16x16xbf16>) {
  ^bb0(%r: tensor<?x16xbf16>, %v: tensor<16x16xbf16>):
    %c0 = arith.constant 0 : index
    %zero = arith.constant 0.0 : f32
    %n = tensor.dim %r, %c0 : tensor<?x16xbf16>
    %e = tensor.empty(%n) : tensor<?x16xf32>
    %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x16xf32>) -> tensor<?x16xf32>
    %d = linalg.matmul ins(%r, %v : tensor<?x16xbf16>, tensor<16x16xbf16>) outs(%f : tensor<?x16xf32>) -> tensor<?x16xf32>
    moe.yield %d : tensor<?x16xf32>
  } : tensor<?x16xbf16>, tensor<9xi32> -> tensor<?x16xf32>
  %y = moe.combine %rows, %p weights(%weights : tensor<?x2xf32>) : tensor<?x16xf32>, tensor<?x2xi32>
  return %y : tensor<?x16xf32>
}
