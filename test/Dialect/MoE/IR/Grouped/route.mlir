// RUN: moe-opt %s | FileCheck %s
// What is printed parses to the same, as bytecode too.
// RUN: moe-opt %s | moe-opt | FileCheck %s
// RUN: moe-opt %s --mlir-print-op-generic | moe-opt | FileCheck %s
// RUN: moe-opt %s --emit-bytecode | moe-opt | FileCheck %s
// RUN: moe-opt %s -cse | FileCheck %s --check-prefix=CSE
// RUN: moe-opt %s -canonicalize | FileCheck %s --check-prefix=DCE
// RUN: moe-opt %s -resolve-ranked-shaped-type-result-dims -canonicalize -cse | FileCheck %s --check-prefix=SHAPES

// CHECK-LABEL: func.func @minimal(
// CHECK-NEXT:    %tokens, %offsets, %positions = moe.route %{{.*}} experts(8) : tensor<?x2xi32>
// CHECK-NEXT:    return %tokens, %offsets, %positions : tensor<?xi32>, tensor<9xi32>, tensor<?x2xi32>
func.func @minimal(%ids: tensor<?x2xi32>) -> (tensor<?xi32>, tensor<9xi32>, tensor<?x2xi32>) {
  %n, %o, %p = moe.route %ids experts(8) : tensor<?x2xi32>
  return %n, %o, %p : tensor<?xi32>, tensor<9xi32>, tensor<?x2xi32>
}

// CHECK-LABEL: func.func @all(
// CHECK:         moe.route %{{.*}} weights(%{{.*}} : tensor<?x2xbf16>) experts(8) capacity(<factor = 1.250000e+00>)
// CHECK-SAME:      priority(probability) choices(1) {my.note = "kept"} : tensor<?x2xi32>
// CHECK:         moe.route %{{.*}} experts(8) capacity(<fixed = 3>) priority(choice) overflow(next_choice) : tensor<?x2xi32>
// CHECK:         return
func.func @all(%ids: tensor<?x2xi32>, %w: tensor<?x2xbf16>) -> tensor<?xi32> {
  %n0, %o0, %p0 = moe.route %ids weights(%w : tensor<?x2xbf16>) experts(8) capacity(<factor = 1.25>)
    priority(probability) overflow(drop) choices(1) {my.note = "kept"} : tensor<?x2xi32>
  %n1, %o1, %p1 = moe.route %ids experts(8) capacity(<fixed = 3>) priority(choice) overflow(next_choice) : tensor<?x2xi32>
  return %n1 : tensor<?xi32>
}

// Rows are static where the tokens are.
// CHECK-LABEL: func.func @static_tokens(
// CHECK:         return %{{.*}} : tensor<14xi32>
func.func @static_tokens(%ids: tensor<7x2xi32>) -> tensor<14xi32> {
  %n, %o, %p = moe.route %ids experts(3) : tensor<7x2xi32>
  return %n : tensor<14xi32>
}

// The operation is pure.
// CSE-LABEL: func.func @twice(
// CSE:         %[[N:.*]], %{{.*}}, %{{.*}} = moe.route
// CSE-NEXT:    %[[M:.*]], %{{.*}}, %{{.*}} = moe.route %{{.*}} experts(8) priority(choice)
// CSE-NEXT:    return %[[N]], %[[N]], %[[M]]
func.func @twice(%ids: tensor<?x2xi32>) -> (tensor<?xi32>, tensor<?xi32>, tensor<?xi32>) {
  %n0, %o0, %p0 = moe.route %ids experts(8) : tensor<?x2xi32>
  %n1, %o1, %p1 = moe.route %ids experts(8) : tensor<?x2xi32>
  %n2, %o2, %p2 = moe.route %ids experts(8) priority(choice) : tensor<?x2xi32>
  return %n0, %n1, %n2 : tensor<?xi32>, tensor<?xi32>, tensor<?xi32>
}

// DCE-LABEL: func.func @unused(
// DCE-NEXT:    return
func.func @unused(%ids: tensor<?x2xi32>) {
  %n, %o, %p = moe.route %ids experts(8) : tensor<?x2xi32>
  return
}

// SHAPES-LABEL: func.func @shapes(
// SHAPES-SAME:    %[[IDS:.*]]: tensor<?x3xi32>)
// SHAPES-NOT:     moe.route
// SHAPES:         %[[T:.*]] = tensor.dim %[[IDS]], %c0
// SHAPES:         %[[R:.*]] = arith.muli %[[T]], %c3
// SHAPES:         return %[[R]], %[[T]] : index, index
func.func @shapes(%ids: tensor<?x3xi32>) -> (index, index) {
  %c0 = arith.constant 0 : index
  %n, %o, %p = moe.route %ids experts(8) : tensor<?x3xi32>
  %d0 = tensor.dim %n, %c0 : tensor<?xi32>
  %d1 = tensor.dim %p, %c0 : tensor<?x3xi32>
  return %d0, %d1 : index, index
}
