// RUN: moe-opt %s --convert-moe-to-linalg | FileCheck %s

// The sum over the choices of a token, in order.
// CHECK-LABEL: func.func @combine(
// CHECK-NOT:     moe.combine
// CHECK:         linalg.generic
func.func @combine(%rows: tensor<?x16xf32>, %positions: tensor<?x2xi32>, %w: tensor<?x2xf32>) -> tensor<?x16xf32> {
  %y = moe.combine %rows, %positions weights(%w : tensor<?x2xf32>) : tensor<?x16xf32>, tensor<?x2xi32>
  return %y : tensor<?x16xf32>
}
