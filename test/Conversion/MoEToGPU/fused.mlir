// RUN: moe-opt %s -convert-moe-to-gpu -split-input-file \
// RUN:   --remarks-filter-missed=moe-gpu 2>%t.remarks | FileCheck %s
// RUN: FileCheck %s --check-prefix=MISSED --input-file=%t.remarks

// The kernel of a router clears counters of any number.
// CHECK:       llvm.func @router(
// CHECK-LABEL: func.func @counters(
// CHECK-NOT:     moe.fused
// CHECK:         moe_rt.launch @kernels::@router blocks({{.*}} tensor<64xi32>)
// CHECK:         %[[R:.*]]:7 = moe_rt.launch @kernels::@router_1 blocks({{.*}} tensor<64xi32>)
// CHECK:         return %{{.*}}, %[[R]]#6
func.func @counters(%x: tensor<?x64xbf16>, %w: tensor<1x8x64xbf16>, %e: tensor<?x8xf32>)
    -> (tensor<9xi32>, tensor<64xi32>) {
  %z = arith.constant dense<0> : tensor<64xi32>
  %r:2 = moe.fused {
    %l = moe.grouped_matmul %x weights(%w : tensor<1x8x64xbf16>) transposed outs(%e : tensor<?x8xf32>) {
    ^bb0(%s: f32):
      moe.yield %s : f32
    } : tensor<?x64xbf16> -> tensor<?x8xf32>
    %weights, %ids = moe.gate %l top_k(2) : tensor<?x8xf32>
    %n, %o, %p = moe.route %ids experts(8) : tensor<?x2xi32>
    moe.yield %o, %z : tensor<9xi32>, tensor<64xi32>
  } -> tensor<9xi32>, tensor<64xi32>
  return %r#0, %r#1 : tensor<9xi32>, tensor<64xi32>
}

// -----

// A region that no kernel computes is inlined; its operations get their own kernels.
// MISSED: NotLowered | Category:moe-gpu | Function=apart | Remark="'moe.fused' not lowered to a GPU kernel: no kernel fuses these operations"
// CHECK-LABEL: func.func @apart(
// CHECK-NOT:     moe.fused
// CHECK:         %[[G:.*]]:2 = moe_rt.launch @kernels::@gate
// CHECK:         moe_rt.launch @kernels::@route_count {{.*}} ins(%[[G]]#1
// CHECK:         %[[P:.*]]:3 = moe_rt.launch @kernels::@route_place
// CHECK:         return %[[P]]#1
func.func @apart(%l: tensor<?x8xf32>) -> tensor<9xi32> {
  %offsets = moe.fused {
    %weights, %ids = moe.gate %l top_k(2) : tensor<?x8xf32>
    %n, %o, %p = moe.route %ids experts(8) : tensor<?x2xi32>
    moe.yield %o : tensor<9xi32>
  } -> tensor<9xi32>
  return %offsets : tensor<9xi32>
}

// -----

// Neither is a router that has no kernel: the matmul, which has no tiles, is left.
// MISSED: NotLowered | Category:moe-gpu | Function=unsupported | Remark="'moe.fused' not lowered to a GPU kernel: more than 1024 experts"
// MISSED: MatmulNotLowered
// CHECK-LABEL: func.func @unsupported(
// CHECK-NOT:     moe.fused
// CHECK:         %[[L:.*]] = moe.grouped_matmul
// CHECK:         moe.gate %[[L]]
func.func @unsupported(%x: tensor<?x64xbf16>, %w: tensor<1x1032x64xbf16>, %e: tensor<?x1032xf32>)
    -> tensor<?x2xi32> {
  %r = moe.fused {
    %l = moe.grouped_matmul %x weights(%w : tensor<1x1032x64xbf16>) transposed outs(%e : tensor<?x1032xf32>) {
    ^bb0(%s: f32):
      moe.yield %s : f32
    } : tensor<?x64xbf16> -> tensor<?x1032xf32>
    %weights, %ids = moe.gate %l top_k(2) : tensor<?x1032xf32>
    moe.yield %ids : tensor<?x2xi32>
  } -> tensor<?x2xi32>
  return %r : tensor<?x2xi32>
}
