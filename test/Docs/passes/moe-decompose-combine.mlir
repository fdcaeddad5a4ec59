// RUN: moe-opt %s --moe-decompose-combine | FileCheck %s

// What is left of the combine are its weights in f32 and the sum of the gathered rows.
// CHECK-LABEL: func.func @combined(
// CHECK:         %[[WEIGHTS:.*]] = linalg.generic
// CHECK:           arith.extf
// CHECK:         moe.gather_sum %{{.*}}, %{{.*}} weights(%[[WEIGHTS]] : tensor<?x2xf32>)
func.func @combined(%rows: tensor<?x16xf32>, %positions: tensor<?x2xi32>, %weights: tensor<?x2xbf16>) -> tensor<?x16xf32> {
  %y = moe.combine %rows, %positions weights(%weights : tensor<?x2xbf16>) : tensor<?x16xf32>, tensor<?x2xi32>
  return %y : tensor<?x16xf32>
}
