// RUN: moe-opt %s --moe-gpu-to-buffers='arch=sm_80' | FileCheck %s

// Kernels and their launches on buffers of the device.
// CHECK-DAG: gpu.module
// CHECK-DAG: func.func @layer(
// CHECK-DAG: moe_rt.launch
// CHECK-DAG: func.func @moe_workspace_layer(
func.func @layer(%x: tensor<?x16xbf16>, %logits: tensor<?x8xf32>, %w: tensor<8x16x16xbf16> {moe.role = "weight"}) -> tensor<?x16xbf16> {
  %weights, %ids = moe.gate %logits top_k(2) : tensor<?x8xf32>
  %rows, %offsets, %positions = moe.dispatch %x, %ids experts(8) : tensor<?x16xbf16>, tensor<?x2xi32>
  %y = moe.expert %rows, %offsets params(%w : tensor<8x16x16xbf16>) {
  ^bb0(%r: tensor<?x16xbf16>, %v: tensor<16x16xbf16>):
    %c0 = arith.constant 0 : index
    %zero = arith.constant 0.0 : f32
    %n = tensor.dim %r, %c0 : tensor<?x16xbf16>
    %e = tensor.empty(%n) : tensor<?x16xf32>
    %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x16xf32>) -> tensor<?x16xf32>
    %p = linalg.matmul ins(%r, %v : tensor<?x16xbf16>, tensor<16x16xbf16>) outs(%f : tensor<?x16xf32>) -> tensor<?x16xf32>
    %d = tensor.empty(%n) : tensor<?x16xbf16>
    %t = linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i, j)>],
                         iterator_types = ["parallel", "parallel"]}
        ins(%p : tensor<?x16xf32>) outs(%d : tensor<?x16xbf16>) {
    ^bb1(%a: f32, %old: bf16):
      %b = arith.truncf %a : f32 to bf16
      linalg.yield %b : bf16
    } -> tensor<?x16xbf16>
    moe.yield %t : tensor<?x16xbf16>
  } : tensor<?x16xbf16>, tensor<9xi32> -> tensor<?x16xbf16>
  %z = moe.combine %y, %positions weights(%weights : tensor<?x2xf32>) : tensor<?x16xbf16>, tensor<?x2xi32>
  return %z : tensor<?x16xbf16>
}
