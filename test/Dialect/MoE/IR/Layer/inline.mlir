// RUN: moe-opt %s -inline | FileCheck %s

// Calls are inlined in the region of an expert, and moe operations with a callee.

func.func private @act(%r: tensor<?x4xf32>) -> tensor<?x4xf32> {
  %z = linalg.exp ins(%r : tensor<?x4xf32>) outs(%r : tensor<?x4xf32>) -> tensor<?x4xf32>
  return %z : tensor<?x4xf32>
}
func.func private @experts(%g: tensor<?x4xf32>, %o: tensor<3xi32>) -> tensor<?x4xf32> {
  %y = moe.expert %g, %o {
  ^bb0(%r: tensor<?x4xf32>):
    %z = func.call @act(%r) : (tensor<?x4xf32>) -> tensor<?x4xf32>
    moe.yield %z : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// CHECK-NOT:   func.func private
// CHECK-LABEL: func.func @layer(
// CHECK:         moe.expert
// CHECK-NEXT:    ^bb0(%[[R:.*]]: tensor<?x4xf32>):
// CHECK-NEXT:      %[[Z:.*]] = linalg.exp ins(%[[R]]
// CHECK-NEXT:      moe.yield %[[Z]]
// CHECK-NOT:     call
func.func @layer(%g: tensor<?x4xf32>, %o: tensor<3xi32>) -> tensor<?x4xf32> {
  %y = call @experts(%g, %o) : (tensor<?x4xf32>, tensor<3xi32>) -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}
