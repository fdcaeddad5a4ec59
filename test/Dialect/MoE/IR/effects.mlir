// RUN: moe-opt %s -cse | FileCheck %s --check-prefix=CSE
// RUN: moe-opt %s -canonicalize | FileCheck %s --check-prefix=DCE

// The operations are pure, and moe.expert is as pure as its region.

// CSE-LABEL: func.func @twice(
// CSE:         %[[W:.*]], %[[I:.*]] = moe.gate
// CSE-NOT:     moe.gate
// CSE:         %[[G:.*]], %{{.*}}, %[[P:.*]] = moe.dispatch
// CSE-NOT:     moe.dispatch
// CSE:         %[[Y:.*]] = moe.combine
// CSE-NOT:     moe.combine
// CSE:         return %[[I]], %[[I]], %[[Y]], %[[Y]]
func.func @twice(%l: tensor<?x8xf32>, %x: tensor<?x4xf32>)
    -> (tensor<?x2xi32>, tensor<?x2xi32>, tensor<?x4xf32>, tensor<?x4xf32>) {
  %w0, %i0 = moe.gate %l top_k(2) : tensor<?x8xf32>
  %w1, %i1 = moe.gate %l top_k(2) : tensor<?x8xf32>
  %g0, %o0, %p0 = moe.dispatch %x, %i0 experts(8) : tensor<?x4xf32>, tensor<?x2xi32>
  %g1, %o1, %p1 = moe.dispatch %x, %i1 experts(8) : tensor<?x4xf32>, tensor<?x2xi32>
  %y0 = moe.combine %g0, %p0 weights(%w0 : tensor<?x2xf32>) : tensor<?x4xf32>, tensor<?x2xi32>
  %y1 = moe.combine %g1, %p1 weights(%w1 : tensor<?x2xf32>) : tensor<?x4xf32>, tensor<?x2xi32>
  return %i0, %i1, %y0, %y1 : tensor<?x2xi32>, tensor<?x2xi32>, tensor<?x4xf32>, tensor<?x4xf32>
}

// Attributes and operands tell two operations apart.
// CSE-LABEL: func.func @different(
// CSE-COUNT-3: moe.gate
func.func @different(%l: tensor<?x8xf32>, %b: tensor<8xf32>) -> (tensor<?x2xi32>, tensor<?x2xi32>, tensor<?x2xi32>) {
  %w0, %i0 = moe.gate %l top_k(2) : tensor<?x8xf32>
  %w1, %i1 = moe.gate %l top_k(2) score(sigmoid) : tensor<?x8xf32>
  %w2, %i2 = moe.gate %l bias(%b : tensor<8xf32>) top_k(2) : tensor<?x8xf32>
  return %i0, %i1, %i2 : tensor<?x2xi32>, tensor<?x2xi32>, tensor<?x2xi32>
}

// DCE-LABEL: func.func @unused(
// DCE-NEXT:    return
func.func @unused(%l: tensor<?x8xf32>, %x: tensor<?x4xf32>) {
  %c0 = arith.constant 0 : index
  %w, %i = moe.gate %l top_k(2) : tensor<?x8xf32>
  %g, %o, %p = moe.dispatch %x, %i experts(8) : tensor<?x4xf32>, tensor<?x2xi32>
  %h = moe.expert %g, %o {
  ^bb0(%r: tensor<?x4xf32>):
    %f = arith.constant 1.0 : f32
    %z = linalg.fill ins(%f : f32) outs(%r : tensor<?x4xf32>) -> tensor<?x4xf32>
    moe.yield %z : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<9xi32> -> tensor<?x4xf32>
  %y = moe.combine %h, %p weights(%w : tensor<?x2xf32>) : tensor<?x4xf32>, tensor<?x2xi32>
  return
}

// DCE-LABEL: func.func @effect(
// DCE:         moe.expert
// DCE:           memref.store
func.func @effect(%g: tensor<?x4xf32>, %o: tensor<3xi32>, %m: memref<i32>) {
  %c1 = arith.constant 1 : i32
  %y = moe.expert %g, %o {
  ^bb0(%r: tensor<?x4xf32>):
    memref.store %c1, %m[] : memref<i32>
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return
}
