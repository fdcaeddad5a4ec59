// RUN: moe-opt %s --moe-differentiate="arguments=logits" --canonicalize --cse | FileCheck %s

// The gradient of a loss has the clauses of the loss, and adds to that of the
// weights of the choices.

// CHECK-LABEL: func.func @router_backward(
// CHECK-SAME:    %[[LOGITS:[a-z0-9]+]]: tensor<?x8xf32> {moe.name = "logits"}
// CHECK-SAME:    %[[MASK:[a-z0-9]+]]: tensor<?xi32>
// CHECK-SAME:    %[[DW:[a-z0-9]+]]: tensor<?x2xf32> {moe.name = "result0_gradient"}
// CHECK-SAME:    %[[DL:[a-z0-9]+]]: tensor<f32> {moe.name = "result1_gradient"}
// CHECK-SAME:    %[[IDS:[a-z0-9]+]]: tensor<?x2xi32> {moe.name = "saved0"}
// CHECK:         %[[LOSS:.*]] = moe.auxiliary_loss_gradient load_balance %[[LOGITS]], %[[DL]]
// CHECK-SAME:      ids(%[[IDS]] : tensor<?x2xi32>) mask(%[[MASK]] : tensor<?xi32>)
// CHECK-SAME:      score(sigmoid) choices(1) coefficient(2.000000e-02)
// CHECK:         %[[GATE:.*]] = moe.gate_gradient %[[LOGITS]]
// CHECK:         linalg.generic {{.*}} ins(%[[LOSS]], %[[GATE]] :
func.func @router(%logits: tensor<?x8xf32> {moe.name = "logits"}, %mask: tensor<?xi32>)
    -> (tensor<?x2xf32>, tensor<f32>) {
  %weights, %ids = moe.gate %logits top_k(2) : tensor<?x8xf32>
  %loss = moe.auxiliary_loss load_balance %logits ids(%ids : tensor<?x2xi32>)
    mask(%mask : tensor<?xi32>) score(sigmoid) choices(1) coefficient(2.0e-02) : tensor<?x8xf32>
  return %weights, %loss : tensor<?x2xf32>, tensor<f32>
}
