// RUN: moe-opt %s | moe-opt | FileCheck %s
// RUN: moe-opt %s -canonicalize | FileCheck %s --check-prefix=DEAD

// CHECK-LABEL: func.func @fused(
// CHECK:         %[[R:.*]]:2 = moe.fused {
// CHECK:           moe.yield %{{.*}}, %{{.*}} : tensor<?x2xf32>, tensor<?x2xi32>
// CHECK-NEXT:    } -> tensor<?x2xf32>, tensor<?x2xi32>
func.func @fused(%logits: tensor<?x8xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>) {
  %results:2 = moe.fused {
    %weights, %ids = moe.gate %logits top_k(2) : tensor<?x8xf32>
    moe.yield %weights, %ids : tensor<?x2xf32>, tensor<?x2xi32>
  } -> tensor<?x2xf32>, tensor<?x2xi32>
  return %results#0, %results#1 : tensor<?x2xf32>, tensor<?x2xi32>
}

// CHECK-LABEL: func.func @counters(
// CHECK-NEXT:    moe.fused counters(%arg1 : tensor<64xi32>) {
// CHECK:         } -> tensor<?x2xi32>
func.func @counters(%logits: tensor<?x8xf32>, %counters: tensor<64xi32>) -> tensor<?x2xi32> {
  %result = moe.fused counters(%counters : tensor<64xi32>) {
    %weights, %ids = moe.gate %logits top_k(2) : tensor<?x8xf32>
    moe.yield %ids : tensor<?x2xi32>
  } -> tensor<?x2xi32>
  return %result : tensor<?x2xi32>
}

// On tensors a region without users is dead.
// DEAD-LABEL: func.func @dead(
// DEAD-NEXT:    return
func.func @dead(%logits: tensor<?x8xf32>) {
  %result = moe.fused {
    %weights, %ids = moe.gate %logits top_k(2) : tensor<?x8xf32>
    moe.yield %ids : tensor<?x2xi32>
  } -> tensor<?x2xi32>
  return
}
