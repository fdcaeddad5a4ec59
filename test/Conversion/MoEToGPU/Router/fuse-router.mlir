// RUN: moe-opt %s -moe-fuse-router -split-input-file \
// RUN:   --remarks-filter-missed=moe-gpu 2>%t.remarks | FileCheck %s
// RUN: FileCheck %s --check-prefix=MISSED --input-file=%t.remarks

// The GEMM of the logits, the gate and the route; zeros are the counters of a combine.
// CHECK-LABEL: func.func @routed(
// CHECK:         %[[R:.*]]:6 = moe.fused {
// CHECK-NEXT:      %[[L:.*]] = moe.grouped_matmul
// CHECK:           %[[W:.*]], %[[I:.*]] = moe.gate %[[L]]
// CHECK-NEXT:      %[[T:.*]], %[[O:.*]], %[[P:.*]] = moe.route %[[I]]
// CHECK-NEXT:      %[[Z:.*]] = arith.constant dense<0> : tensor<1024xi32>
// CHECK-NEXT:      moe.yield %[[W]], %[[I]], %[[T]], %[[O]], %[[P]], %[[Z]]
// CHECK-NEXT:    } -> tensor<?x2xf32>, tensor<?x2xi32>, tensor<?xi32>, tensor<9xi32>, tensor<?x2xi32>, tensor<1024xi32>
// CHECK-NEXT:    return %[[R]]#0, %[[R]]#2, %[[R]]#3, %[[R]]#4
func.func @routed(%x: tensor<?x64xbf16>, %w: tensor<1x8x64xbf16>, %e: tensor<?x8xf32>)
    -> (tensor<?x2xf32>, tensor<?xi32>, tensor<9xi32>, tensor<?x2xi32>) {
  %l = moe.grouped_matmul %x weights(%w : tensor<1x8x64xbf16>) transposed outs(%e : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x64xbf16> -> tensor<?x8xf32>
  %weights, %ids = moe.gate %l top_k(2) : tensor<?x8xf32>
  %n, %o, %p = moe.route %ids experts(8) : tensor<?x2xi32>
  return %weights, %n, %o, %p : tensor<?x2xf32>, tensor<?xi32>, tensor<9xi32>, tensor<?x2xi32>
}

// -----

// Another kernel drops choices before such a route, which stays outside.
// CHECK-LABEL: func.func @dropped_in_advance(
// CHECK:         %[[R:.*]]:2 = moe.fused {
// CHECK:           moe.gate
// CHECK-NEXT:      moe.yield
// CHECK-NEXT:    }
// CHECK-NEXT:    moe.route %[[R]]#1
func.func @dropped_in_advance(%x: tensor<?x64xbf16>, %w: tensor<1x8x64xbf16>, %e: tensor<?x8xf32>)
    -> tensor<9xi32> {
  %l = moe.grouped_matmul %x weights(%w : tensor<1x8x64xbf16>) transposed outs(%e : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x64xbf16> -> tensor<?x8xf32>
  %weights, %ids = moe.gate %l top_k(2) : tensor<?x8xf32>
  %n, %o, %p = moe.route %ids weights(%weights : tensor<?x2xf32>) experts(8) capacity(<factor = 1.0>) priority(probability) : tensor<?x2xi32>
  return %o : tensor<9xi32>
}

// -----

// A gate whose logits no matmul computes is no router.
// CHECK-LABEL: func.func @gate_alone(
// CHECK-NEXT:    moe.gate
// CHECK-NOT:     moe.fused
func.func @gate_alone(%l: tensor<?x8xf32>) -> tensor<?x2xi32> {
  %weights, %ids = moe.gate %l top_k(2) : tensor<?x8xf32>
  return %ids : tensor<?x2xi32>
}

// -----

// Logits with other users are not fused.
// MISSED: RouterNotFused | Category:moe-gpu {{.*}}Remark="the matmul of a router is not fused with its gate: its logits have other uses"
// CHECK-LABEL: func.func @logits_used(
// CHECK:         moe.grouped_matmul
// CHECK:         moe.gate
// CHECK-NOT:     moe.fused
func.func @logits_used(%x: tensor<?x64xf32>, %w: tensor<1x8x64xf32>, %e: tensor<?x8xf32>)
    -> (tensor<?x8xf32>, tensor<?x2xi32>) {
  %l = moe.grouped_matmul %x weights(%w : tensor<1x8x64xf32>) transposed outs(%e : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x64xf32> -> tensor<?x8xf32>
  %weights, %ids = moe.gate %l top_k(2) : tensor<?x8xf32>
  return %l, %ids : tensor<?x8xf32>, tensor<?x2xi32>
}
