// RUN: moe-opt %s -resolve-ranked-shaped-type-result-dims -canonicalize -cse | FileCheck %s

// Shapes of results come from shapes of operands; the operations go away.

// CHECK-LABEL: func.func @gate(
// CHECK-SAME:    %[[L:.*]]: tensor<?x8xf32>)
// CHECK-NOT:     moe.gate
// CHECK:         %[[T:.*]] = tensor.dim %[[L]], %c0
// CHECK:         return %[[T]], %[[T]] : index, index
func.func @gate(%l: tensor<?x8xf32>) -> (index, index) {
  %c0 = arith.constant 0 : index
  %w, %i = moe.gate %l top_k(2) : tensor<?x8xf32>
  %d0 = tensor.dim %w, %c0 : tensor<?x2xf32>
  %d1 = tensor.dim %i, %c0 : tensor<?x2xi32>
  return %d0, %d1 : index, index
}

// R = T·K.
// CHECK-LABEL: func.func @dispatch(
// CHECK-SAME:    %[[X:[^:]*]]: tensor<?x?xf32>, %[[I:[^:]*]]: tensor<?x2xi32>
// CHECK-NOT:     moe.dispatch
// CHECK-DAG:     %[[T:.*]] = tensor.dim %[[I]], %c0
// CHECK-DAG:     %[[R:.*]] = arith.muli %[[T]], %c2
// CHECK-DAG:     %[[H:.*]] = tensor.dim %[[X]], %c1
// CHECK:         return %[[R]], %[[H]], %[[T]]
func.func @dispatch(%x: tensor<?x?xf32>, %ids: tensor<?x2xi32>) -> (index, index, index) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<?x?xf32>, tensor<?x2xi32>
  %d0 = tensor.dim %g, %c0 : tensor<?x?xf32>
  %d1 = tensor.dim %g, %c1 : tensor<?x?xf32>
  %d2 = tensor.dim %p, %c0 : tensor<?x2xi32>
  return %d0, %d1, %d2 : index, index, index
}

// R = min(T·K, E·C), C = 16.
// CHECK-LABEL: func.func @dispatch_fixed(
// CHECK:         %[[T:.*]] = tensor.dim
// CHECK:         %[[TK:.*]] = arith.muli %[[T]], %c2
// CHECK:         %[[R:.*]] = arith.minsi %[[TK]], %c128
// CHECK:         return %[[R]]
func.func @dispatch_fixed(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>) -> index {
  %c0 = arith.constant 0 : index
  %g, %o, %p = moe.dispatch %x, %ids experts(8) capacity(<fixed = 16>) : tensor<?x4xf32>, tensor<?x2xi32>
  %d0 = tensor.dim %g, %c0 : tensor<?x4xf32>
  return %d0 : index
}

// R = min(T·K, E·max(min(T, floor(F·T/E)), M)): all of it, in this order.
// CHECK-LABEL: func.func @dispatch_factor(
// CHECK-DAG:     %[[T:.*]] = tensor.dim
// CHECK-DAG:     %[[TK:.*]] = arith.muli %[[T]], %c2
// CHECK:         %[[FT:.*]] = arith.mulf %{{.*}}, %{{.*}} : f64
// CHECK:         %[[FTE:.*]] = arith.divf %[[FT]], %{{.*}} : f64
// CHECK:         arith.minimumf %[[FTE]], %{{.*}} : f64
// CHECK:         arith.fptosi
// CHECK-NOT:     arith.sitofp
// CHECK:         %[[MIN:.*]] = arith.minsi %{{.*}}, %[[T]]
// CHECK:         %[[C:.*]] = arith.maxsi %[[MIN]], %c4
// CHECK:         %[[EC:.*]] = arith.muli %[[C]], %c8
// CHECK:         %[[R:.*]] = arith.minsi %[[TK]], %[[EC]]
// CHECK:         return %[[R]]
func.func @dispatch_factor(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>) -> index {
  %c0 = arith.constant 0 : index
  %g, %o, %p = moe.dispatch %x, %ids experts(8)
    capacity(<factor = 1.25, rounding = floor, minimum = 4, at_most_tokens>) : tensor<?x4xf32>, tensor<?x2xi32>
  %d0 = tensor.dim %g, %c0 : tensor<?x4xf32>
  return %d0 : index
}

// CHECK-LABEL: func.func @expert(
// CHECK-SAME:    %[[G:[^:]*]]: tensor<?x4xf32>
// CHECK-NOT:     moe.expert
// CHECK:         %[[R:.*]] = tensor.dim %[[G]], %c0
// CHECK:         return %[[R]]
func.func @expert(%g: tensor<?x4xf32>, %o: tensor<3xi32>, %x: tensor<?x5xf32>) -> index {
  %c0 = arith.constant 0 : index
  %y = moe.expert %g, %o {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %x : tensor<?x5xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x5xf32>
  %d0 = tensor.dim %y, %c0 : tensor<?x5xf32>
  return %d0 : index
}

// CHECK-LABEL: func.func @combine(
// CHECK-SAME:    %[[G:[^:]*]]: tensor<?x?xf32>, %[[P:[^:]*]]: tensor<?x2xi32>
// CHECK-NOT:     moe.combine
// CHECK-DAG:     %[[T:.*]] = tensor.dim %[[P]], %c0
// CHECK-DAG:     %[[H:.*]] = tensor.dim %[[G]], %c1
// CHECK:         return %[[T]], %[[H]]
func.func @combine(%g: tensor<?x?xf32>, %p: tensor<?x2xi32>) -> (index, index) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %y = moe.combine %g, %p : tensor<?x?xf32>, tensor<?x2xi32>
  %d0 = tensor.dim %y, %c0 : tensor<?x?xf32>
  %d1 = tensor.dim %y, %c1 : tensor<?x?xf32>
  return %d0, %d1 : index, index
}
