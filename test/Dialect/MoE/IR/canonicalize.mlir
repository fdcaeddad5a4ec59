// RUN: moe-opt %s -canonicalize -split-input-file | FileCheck %s
// RUN: moe-opt %s -canonicalize -split-input-file | moe-opt -canonicalize -split-input-file | FileCheck %s

//===----------------------------------------------------------------------===//
// moe.gate
//===----------------------------------------------------------------------===//

// CHECK-LABEL: func.func @zero_bias_and_noise(
// CHECK-SAME:    %[[L:.*]]: tensor<4x8xf32>)
// CHECK-NEXT:    moe.gate %[[L]] top_k(2) : tensor<4x8xf32>
func.func @zero_bias_and_noise(%l: tensor<4x8xf32>) -> tensor<4x2xi32> {
  %b = arith.constant dense<0.0> : tensor<8xf16>
  %n = arith.constant dense<-0.0> : tensor<4x8xbf16>
  %w, %i = moe.gate %l bias(%b : tensor<8xf16>) noise(%n : tensor<4x8xbf16>) top_k(2) : tensor<4x8xf32>
  return %i : tensor<4x2xi32>
}

// -----

// CHECK-LABEL: func.func @other_bias_and_noise(
// CHECK:         moe.gate %{{.*}} bias(%{{.*}}) noise(%{{.*}}) top_k(2) :
// CHECK:         moe.gate %{{.*}} bias(%{{.*}}) top_k(2) :
// CHECK:         moe.gate %{{.*}} bias(%{{.*}}) top_k(2) :
func.func @other_bias_and_noise(%l: tensor<4x2xf32>, %b2: tensor<2xf32>) -> (tensor<4x2xi32>, tensor<4x2xi32>, tensor<4x2xi32>) {
  %b0 = arith.constant dense<1.0e-30> : tensor<2xf32>
  %b1 = arith.constant dense<[0.0, 1.0]> : tensor<2xf32>
  %n = arith.constant dense<0x7FC00000> : tensor<4x2xf32>
  %w0, %i0 = moe.gate %l bias(%b0 : tensor<2xf32>) noise(%n : tensor<4x2xf32>) top_k(2) : tensor<4x2xf32>
  %w1, %i1 = moe.gate %l bias(%b1 : tensor<2xf32>) top_k(2) : tensor<4x2xf32>
  %w2, %i2 = moe.gate %l bias(%b2 : tensor<2xf32>) top_k(2) : tensor<4x2xf32>
  return %i0, %i1, %i2 : tensor<4x2xi32>, tensor<4x2xi32>, tensor<4x2xi32>
}

// -----

// CHECK-LABEL: func.func @scale(
// CHECK:         moe.gate %{{.*}} top_k(2) :
// CHECK:         moe.gate %{{.*}} top_k(2) scale(1.0000000000000002) :
func.func @scale(%l: tensor<?x8xf32>) -> (tensor<?x2xf32>, tensor<?x2xf32>) {
  %w0, %i0 = moe.gate %l top_k(2) scale(1.0) : tensor<?x8xf32>
  // The next double after 1.
  %w1, %i1 = moe.gate %l top_k(2) scale(0x3FF0000000000001) : tensor<?x8xf32>
  return %w0, %w1 : tensor<?x2xf32>, tensor<?x2xf32>
}

// -----

// CHECK-LABEL: func.func @groups(
// CHECK:         moe.gate %{{.*}} top_k(2) :
// CHECK:         moe.gate %{{.*}} top_k(2) groups(<count = 4, keep = 3>) :
func.func @groups(%l: tensor<?x8xf32>) -> (tensor<?x2xf32>, tensor<?x2xf32>) {
  %w0, %i0 = moe.gate %l top_k(2) groups(<count = 4, keep = 4, score = top2_sum, fill = zero>) : tensor<?x8xf32>
  %w1, %i1 = moe.gate %l top_k(2) groups(<count = 4, keep = 3>) : tensor<?x8xf32>
  return %w0, %w1 : tensor<?x2xf32>, tensor<?x2xf32>
}

// -----

// CHECK-LABEL: func.func @order(
// CHECK:         moe.gate %{{.*}} top_k(2) score(none) :
// CHECK:         moe.gate %{{.*}} top_k(2) score(relu) order(select_then_score) :
func.func @order(%l: tensor<?x8xf32>) -> (tensor<?x2xf32>, tensor<?x2xf32>) {
  %w0, %i0 = moe.gate %l top_k(2) score(none) order(select_then_score) : tensor<?x8xf32>
  %w1, %i1 = moe.gate %l top_k(2) score(relu) order(select_then_score) : tensor<?x8xf32>
  return %w0, %w1 : tensor<?x2xf32>, tensor<?x2xf32>
}

// -----

// Scores that are rounded first tie where the logits did not: the order matters
// even without a score function.
// CHECK-LABEL: func.func @order_rounds(
// CHECK:         moe.gate %{{.*}} top_k(2) score(none) order(select_then_score) score_type(bf16) :
func.func @order_rounds(%l: tensor<?x8xf32>) -> tensor<?x2xi32> {
  %w, %i = moe.gate %l top_k(2) score(none) order(select_then_score) score_type(bf16) : tensor<?x8xf32>
  return %i : tensor<?x2xi32>
}

// -----

//===----------------------------------------------------------------------===//
// moe.dispatch
//===----------------------------------------------------------------------===//

// Without a capacity no choice competes with another.
// CHECK-LABEL: func.func @dropless(
// CHECK-SAME:    %[[X:[^:]*]]: tensor<?x4xf32>, %[[I:[^:]*]]: tensor<?x2xi32>, %[[W:[^:]*]]: tensor<?x2xf32>
// CHECK:         moe.dispatch %[[X]], %[[I]] experts(8) : tensor
// CHECK:         moe.dispatch %[[X]], %[[I]] experts(8) : tensor
// CHECK:         moe.dispatch %[[X]], %[[I]] weights(%[[W]] : tensor<?x2xf32>) experts(8) scale_rows : tensor
func.func @dropless(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>, %w: tensor<?x2xf32>)
    -> (tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>) {
  %g0, %o0, %p0 = moe.dispatch %x, %ids experts(8) priority(choice) : tensor<?x4xf32>, tensor<?x2xi32>
  %g1, %o1, %p1 = moe.dispatch %x, %ids weights(%w : tensor<?x2xf32>) experts(8) priority(probability)
    : tensor<?x4xf32>, tensor<?x2xi32>
  // These weights are still read.
  %g2, %o2, %p2 = moe.dispatch %x, %ids weights(%w : tensor<?x2xf32>) experts(8) priority(probability) scale_rows
    : tensor<?x4xf32>, tensor<?x2xi32>
  return %g0, %g1, %g2 : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>
}

// -----

// With one, priority counts, and weights where they decide.
// CHECK-LABEL: func.func @capacity(
// CHECK-SAME:    %[[X:[^:]*]]: tensor<?x4xf32>, %[[I:[^:]*]]: tensor<?x2xi32>, %[[W:[^:]*]]: tensor<?x2xf32>
// CHECK:         moe.dispatch %[[X]], %[[I]] experts(8) capacity(<fixed = 4>) priority(choice) : tensor
// CHECK:         moe.dispatch %[[X]], %[[I]] weights(%[[W]] : tensor<?x2xf32>) experts(8) capacity(<fixed = 4>) priority(probability) : tensor
// CHECK:         moe.dispatch %[[X]], %[[I]] weights(%[[W]] : tensor<?x2xf32>) experts(8) capacity(<fixed = 4>) scale_rows : tensor
// CHECK:         moe.dispatch %[[X]], %[[I]] experts(8) capacity(<fixed = 4>) uncovered(zero) : tensor
func.func @capacity(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>, %w: tensor<?x2xf32>)
    -> (tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>) {
  %g0, %o0, %p0 = moe.dispatch %x, %ids weights(%w : tensor<?x2xf32>) experts(8) capacity(<fixed = 4>) priority(choice)
    : tensor<?x4xf32>, tensor<?x2xi32>
  %g1, %o1, %p1 = moe.dispatch %x, %ids weights(%w : tensor<?x2xf32>) experts(8) capacity(<fixed = 4>)
    priority(probability) : tensor<?x4xf32>, tensor<?x2xi32>
  %g2, %o2, %p2 = moe.dispatch %x, %ids weights(%w : tensor<?x2xf32>) experts(8) capacity(<fixed = 4>) scale_rows
    : tensor<?x4xf32>, tensor<?x2xi32>
  %g3, %o3, %p3 = moe.dispatch %x, %ids weights(%w : tensor<?x2xf32>) experts(8) capacity(<fixed = 4>) uncovered(zero)
    : tensor<?x4xf32>, tensor<?x2xi32>
  return %g0, %g1, %g2, %g3 : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>
}

// -----

// CHECK-LABEL: func.func @choices(
// CHECK:         moe.dispatch %{{.*}}, %{{.*}} experts(8) : tensor
// CHECK:         moe.dispatch %{{.*}}, %{{.*}} experts(8) choices(1) : tensor
func.func @choices(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>) -> (tensor<?x4xf32>, tensor<?x4xf32>) {
  %g0, %o0, %p0 = moe.dispatch %x, %ids experts(8) choices(2) : tensor<?x4xf32>, tensor<?x2xi32>
  %g1, %o1, %p1 = moe.dispatch %x, %ids experts(8) choices(1) : tensor<?x4xf32>, tensor<?x2xi32>
  return %g0, %g1 : tensor<?x4xf32>, tensor<?x4xf32>
}

// -----

//===----------------------------------------------------------------------===//
// moe.expert
//===----------------------------------------------------------------------===//

// Uncovered rows may be anything, so also what they were.
// CHECK-LABEL: func.func @identity(
// CHECK-SAME:    %[[G:[^:]*]]: tensor<?x4xf32>
// CHECK-NEXT:    return %[[G]]
func.func @identity(%g: tensor<?x4xf32>, %o: tensor<3xi32>, %w: tensor<2x4xf32>) -> tensor<?x4xf32> {
  %y = moe.expert %g, %o params(%w : tensor<2x4xf32>) first(0) count(2) {
  ^bb0(%r: tensor<?x4xf32>, %p: tensor<4xf32>):
    %unused = arith.addf %p, %p : tensor<4xf32>
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// -----

// Copy experts among others: all rows are those of the input.
// CHECK-LABEL: func.func @identity_onto_itself(
// CHECK-SAME:    %[[G:[^:]*]]: tensor<?x4xf32>
// CHECK-NEXT:    return %[[G]]
func.func @identity_onto_itself(%g: tensor<?x4xf32>, %o: tensor<3xi32>) -> tensor<?x4xf32> {
  %y = moe.expert %g, %o init(%g : tensor<?x4xf32>) first(1) {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// -----

// What must stay: rows that are not the input's, and another type.
// CHECK-LABEL: func.func @no_identity(
// CHECK-COUNT-4: moe.expert
func.func @no_identity(%g: tensor<?x4xf32>, %o: tensor<3xi32>, %i: tensor<?x4xf32>, %s: tensor<6x4xf32>)
    -> (tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>) {
  %zero = moe.expert %g, %o uncovered(zero) {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  %range = moe.expert %g, %o first(1) uncovered(zero) {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  %init = moe.expert %g, %o init(%i : tensor<?x4xf32>) {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  %type = moe.expert %s, %o {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<6x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %zero, %range, %init, %type : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>
}

// -----

// CHECK-LABEL: func.func @yields_other_rows(
// CHECK:         moe.expert
func.func @yields_other_rows(%g: tensor<?x4xf32>, %o: tensor<3xi32>, %x: tensor<?x4xf32>) -> tensor<?x4xf32> {
  %y = moe.expert %g, %o {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %x : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// -----

// Returning the rows is not all that this one does.
// CHECK-LABEL: func.func @identity_with_effect(
// CHECK:         moe.expert
// CHECK:           memref.store
func.func @identity_with_effect(%g: tensor<?x4xf32>, %o: tensor<3xi32>, %m: memref<i32>) -> tensor<?x4xf32> {
  %c1 = arith.constant 1 : i32
  %y = moe.expert %g, %o {
  ^bb0(%r: tensor<?x4xf32>):
    memref.store %c1, %m[] : memref<i32>
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// -----

// CHECK-LABEL: func.func @unused_params(
// CHECK-SAME:    %[[G:[^:]*]]: tensor<?x4xf32>, %[[O:[^:]*]]: tensor<3xi32>, %{{.*}}, %[[B:[^:]*]]: tensor<2x5xf16>
// CHECK:         moe.expert %[[G]], %[[O]] params(%[[B]] : tensor<2x5xf16>) init(%[[G]] : tensor<?x4xf32>) {
// CHECK-NEXT:    ^bb0(%rows: tensor<?x4xf32>, %[[P:.*]]: tensor<5xf16>):
// CHECK-NEXT:      tensor.extract %[[P]]
func.func @unused_params(%g: tensor<?x4xf32>, %o: tensor<3xi32>, %a: tensor<2x3xf32>, %b: tensor<2x5xf16>, %c: tensor<2xi8>)
    -> tensor<?x4xf32> {
  %c0 = arith.constant 0 : index
  %y = moe.expert %g, %o params(%a, %b, %c : tensor<2x3xf32>, tensor<2x5xf16>, tensor<2xi8>) init(%g : tensor<?x4xf32>) {
  ^bb0(%r: tensor<?x4xf32>, %pa: tensor<3xf32>, %pb: tensor<5xf16>, %pc: tensor<i8>):
    %e = tensor.extract %pb[%c0] : tensor<5xf16>
    %f = arith.extf %e : f16 to f32
    %z = tensor.insert %f into %r[%c0, %c0] : tensor<?x4xf32>
    moe.yield %z : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// -----

// CHECK-LABEL: func.func @range(
// CHECK:         moe.expert %{{.*}}, %{{.*}} uncovered(zero) {
// CHECK:         moe.expert %{{.*}}, %{{.*}} first(1) uncovered(zero) {
// CHECK:         moe.expert %{{.*}}, %{{.*}} count(1) uncovered(zero) {
func.func @range(%g: tensor<?x4xf32>, %o: tensor<3xi32>) -> (tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>) {
  %y0 = moe.expert %g, %o first(0) count(2) uncovered(zero) {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  %y1 = moe.expert %g, %o first(1) count(1) uncovered(zero) {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  %y2 = moe.expert %g, %o first(0) count(1) uncovered(zero) {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y0, %y1, %y2 : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>
}

// -----

//===----------------------------------------------------------------------===//
// moe.combine
//===----------------------------------------------------------------------===//

// CHECK-LABEL: func.func @unit_weights(
// CHECK-SAME:    %[[G:[^:]*]]: tensor<?x4xf32>, %[[P:[^:]*]]: tensor<3x2xi32>, %[[D:[^:]*]]: tensor<3x4xf32>
// CHECK-NEXT:    moe.combine %[[G]], %[[P]] : tensor
// CHECK-NEXT:    moe.combine %[[G]], %[[P]] dropped(%[[D]] : tensor<3x4xf32>) : tensor
func.func @unit_weights(%g: tensor<?x4xf32>, %p: tensor<3x2xi32>, %d: tensor<3x4xf32>) -> (tensor<3x4xf32>, tensor<3x4xf32>) {
  %w = arith.constant dense<1.0> : tensor<3x2xbf16>
  %y0 = moe.combine %g, %p weights(%w : tensor<3x2xbf16>) : tensor<?x4xf32>, tensor<3x2xi32>
  %y1 = moe.combine %g, %p weights(%w : tensor<3x2xbf16>) dropped(%d : tensor<3x4xf32>) : tensor<?x4xf32>, tensor<3x2xi32>
  return %y0, %y1 : tensor<3x4xf32>, tensor<3x4xf32>
}

// -----

// Normalised ones are no longer ones.
// CHECK-LABEL: func.func @other_weights(
// CHECK:         moe.combine %{{.*}}, %{{.*}} weights(%{{.*}}) normalize(<sum>) :
// CHECK:         moe.combine %{{.*}}, %{{.*}} weights(%{{.*}}) :
// CHECK:         moe.combine %{{.*}}, %{{.*}} weights(%{{.*}}) :
func.func @other_weights(%g: tensor<?x4xf32>, %p: tensor<3x2xi32>, %w2: tensor<3x2xf32>)
    -> (tensor<3x4xf32>, tensor<3x4xf32>, tensor<3x4xf32>) {
  %w0 = arith.constant dense<1.0> : tensor<3x2xf32>
  %w1 = arith.constant dense<[[1.0, 1.0], [1.0, 1.0], [1.0, 2.0]]> : tensor<3x2xf32>
  %y0 = moe.combine %g, %p weights(%w0 : tensor<3x2xf32>) normalize(<sum>) : tensor<?x4xf32>, tensor<3x2xi32>
  %y1 = moe.combine %g, %p weights(%w1 : tensor<3x2xf32>) : tensor<?x4xf32>, tensor<3x2xi32>
  %y2 = moe.combine %g, %p weights(%w2 : tensor<3x2xf32>) : tensor<?x4xf32>, tensor<3x2xi32>
  return %y0, %y1, %y2 : tensor<3x4xf32>, tensor<3x4xf32>, tensor<3x4xf32>
}
