// RUN: moe-opt %s -transform-interpreter -canonicalize -cse | FileCheck %s

// The same lowering, one operation at a time, through linalg's interface.

// CHECK-LABEL: func.func @layer(
// CHECK:         math.exp
// CHECK:         %[[G:.*]], %[[O:.*]], %[[P:.*]] = moe.dispatch
// CHECK:         %[[E:.*]] = scf.for
// CHECK:           tensor.extract_slice %[[G]]
// CHECK:           linalg.exp
// CHECK:         moe.combine %[[E]], %[[P]]
func.func @layer(%l: tensor<?x8xf32>, %x: tensor<?x4xf32>) -> tensor<?x4xf32> {
  %w, %i = moe.gate %l top_k(2) : tensor<?x8xf32>
  %g, %o, %p = moe.dispatch %x, %i experts(8) : tensor<?x4xf32>, tensor<?x2xi32>
  %h = moe.expert %g, %o {
  ^bb0(%r: tensor<?x4xf32>):
    %z = linalg.exp ins(%r : tensor<?x4xf32>) outs(%r : tensor<?x4xf32>) -> tensor<?x4xf32>
    moe.yield %z : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<9xi32> -> tensor<?x4xf32>
  %y = moe.combine %h, %p weights(%w : tensor<?x2xf32>) : tensor<?x4xf32>, tensor<?x2xi32>
  return %y : tensor<?x4xf32>
}
module attributes {transform.with_named_sequence} {
  transform.named_sequence @__transform_main(%m: !transform.any_op {transform.readonly}) {
    %0 = transform.structured.match ops{["moe.gate"]} in %m : (!transform.any_op) -> !transform.any_op
    %1 = transform.structured.decompose_interface %0 : (!transform.any_op) -> !transform.any_op
    %2 = transform.structured.match ops{["moe.expert"]} in %m : (!transform.any_op) -> !transform.any_op
    %3 = transform.structured.decompose_interface %2 : (!transform.any_op) -> !transform.any_op
    transform.yield
  }
}
