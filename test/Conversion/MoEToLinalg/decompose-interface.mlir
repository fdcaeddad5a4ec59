// The lowering is also there as linalg's AggregatedOpInterface, one operation at
// a time.
// RUN: moe-opt %s --transform-interpreter --cse | FileCheck %s

// CHECK-LABEL: func.func @decompose_combine
// CHECK:         moe.gate
// CHECK-NOT:     moe.combine
// CHECK:         linalg.generic {{.*}}["parallel", "parallel", "reduction"]
func.func @decompose_combine(%logits: tensor<?x8xf32>, %rows: tensor<?x4xf32>,
                             %positions: tensor<?x2xi32>)
    -> (tensor<?x4xf32>, tensor<?x2xi32>) {
  %weights, %ids = moe.gate %logits top_k(2) : tensor<?x8xf32>
  %y = moe.combine %rows, %positions weights(%weights : tensor<?x2xf32>)
    : tensor<?x4xf32>, tensor<?x2xi32>
  return %y, %ids : tensor<?x4xf32>, tensor<?x2xi32>
}

module attributes {transform.with_named_sequence} {
  transform.named_sequence @__transform_main(%root: !transform.any_op {transform.readonly}) {
    %combine = transform.structured.match ops{["moe.combine"]} in %root
      : (!transform.any_op) -> !transform.any_op
    transform.structured.decompose_interface %combine
      : (!transform.any_op) -> !transform.any_op
    transform.yield
  }
}
