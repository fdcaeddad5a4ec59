// RUN: moe-opt %s | FileCheck %s
// What is printed parses to the same, as bytecode too.
// RUN: moe-opt %s | moe-opt | FileCheck %s
// RUN: moe-opt %s --mlir-print-op-generic | moe-opt | FileCheck %s
// RUN: moe-opt %s --emit-bytecode | moe-opt | FileCheck %s
// RUN: moe-opt %s --mlir-print-op-generic | FileCheck %s --check-prefix=GENERIC

//===----------------------------------------------------------------------===//
// Attributes
//===----------------------------------------------------------------------===//

// CHECK-LABEL: func.func @minimal(
// CHECK-SAME:    %[[L:.*]]: tensor<?x8xf32>)
// CHECK-NEXT:    %weights, %ids = moe.gate %[[L]] top_k(2) : tensor<?x8xf32>
// CHECK-NEXT:    return %weights, %ids : tensor<?x2xf32>, tensor<?x2xi32>
// GENERIC-LABEL: sym_name = "minimal"
// GENERIC:         "moe.gate"(%{{.*}}) <{
// GENERIC-SAME:      operandSegmentSizes = array<i32: 1, 0, 0, 0>,
// GENERIC-SAME:      order = #moe<order score_then_select>,
// GENERIC-SAME:      score = #moe<score softmax>,
// GENERIC-SAME:      score_axis = #moe<score_axis experts>,
// GENERIC-SAME:      selection = #moe<selection token_choice>,
// GENERIC-SAME:      top_k = 2 : i64}>
func.func @minimal(%l: tensor<?x8xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>) {
  %w, %i = moe.gate %l top_k(2) : tensor<?x8xf32>
  return %w, %i : tensor<?x2xf32>, tensor<?x2xi32>
}

// CHECK-LABEL: func.func @defaults_are_elided(
// CHECK:         moe.gate %{{.*}} top_k(2) : tensor<?x8xf32>
func.func @defaults_are_elided(%l: tensor<?x8xf32>) -> tensor<?x2xi32> {
  %w, %i = moe.gate %l top_k(2) score(softmax) score_axis(experts)
    order(score_then_select) select(token_choice) : tensor<?x8xf32>
  return %i : tensor<?x2xi32>
}

// CHECK-LABEL: func.func @every_score(
// CHECK:         moe.gate %{{.*}} top_k(2) score(none) :
// CHECK:         moe.gate %{{.*}} top_k(2) score(sigmoid) :
// CHECK:         moe.gate %{{.*}} top_k(2) score(relu) :
func.func @every_score(%l: tensor<?x8xf32>) {
  %w0, %i0 = moe.gate %l top_k(2) score(none) : tensor<?x8xf32>
  %w1, %i1 = moe.gate %l top_k(2) score(sigmoid) : tensor<?x8xf32>
  %w2, %i2 = moe.gate %l top_k(2) score(relu) : tensor<?x8xf32>
  return
}

// CHECK-LABEL: func.func @orders(
// CHECK:         moe.gate %{{.*}} top_k(2) score(sigmoid) order(select_then_score) :
// CHECK:         moe.gate %{{.*}} top_k(2) order(score_each_choice) :
// CHECK:         moe.gate %{{.*}} top_k(2) order(score_each_choice) margin(2.000000e-02) :
// CHECK:         moe.gate %{{.*}} top_k(2) score_axis(tokens) :
func.func @orders(%l: tensor<?x8xf32>) {
  %w0, %i0 = moe.gate %l top_k(2) score(sigmoid) order(select_then_score) : tensor<?x8xf32>
  %w1, %i1 = moe.gate %l top_k(2) order(score_each_choice) : tensor<?x8xf32>
  %w2, %i2 = moe.gate %l top_k(2) order(score_each_choice) margin(0.02) : tensor<?x8xf32>
  %w3, %i3 = moe.gate %l top_k(2) score_axis(tokens) : tensor<?x8xf32>
  return
}

// CHECK-LABEL: func.func @selection(
// CHECK:         moe.gate %{{.*}} top_k(8) select(expert_choice) capacity(<factor = 2.000000e+00>) :
// CHECK:         moe.gate %{{.*}} top_k(2) groups(<count = 4, keep = 2>) :
// CHECK:         moe.gate %{{.*}} top_k(2) groups(<count = 4, keep = 2, score = top2_sum, fill = zero>) :
func.func @selection(%l: tensor<?x8xf32>) {
  %w0, %i0 = moe.gate %l top_k(8) select(expert_choice) capacity(<factor = 2.0>) : tensor<?x8xf32>
  %w1, %i1 = moe.gate %l top_k(2) groups(<count = 4, keep = 2, score = max, fill = neg_inf>) : tensor<?x8xf32>
  %w2, %i2 = moe.gate %l top_k(2) groups(<count = 4, keep = 2, score = top2_sum, fill = zero>) : tensor<?x8xf32>
  return
}

// The keywords have one order, whatever they mean together.
// CHECK-LABEL: func.func @weights(
// CHECK:         moe.gate %{{.*}} top_k(8) score(relu) threshold(0.000000e+00)
// CHECK-SAME:      normalize(<norm, p = 1.000000e+00, epsilon = {{.*}}, guard = clamp>)
// CHECK-SAME:      scale(2.500000e+00) score_type(bf16) : tensor<?x8xbf16>
func.func @weights(%l: tensor<?x8xbf16>) -> tensor<?x8xbf16> {
  %w, %i = moe.gate %l top_k(8) score(relu) threshold(0.0)
    normalize(<norm, p = 1.0, epsilon = 1.0e-9, guard = clamp>) scale(2.5)
    score_type(bf16) : tensor<?x8xbf16>
  return %w : tensor<?x8xbf16>
}

// CHECK-LABEL: func.func @infinite(
// CHECK:         order(score_each_choice) margin(0x7FF0000000000000)
// CHECK:         threshold(0xFFF0000000000000)
func.func @infinite(%l: tensor<?x8xf32>) {
  %w0, %i0 = moe.gate %l top_k(2) order(score_each_choice) margin(0x7FF0000000000000) : tensor<?x8xf32>
  %w1, %i1 = moe.gate %l top_k(2) threshold(0xFFF0000000000000) : tensor<?x8xf32>
  return
}

// CHECK-LABEL: func.func @discardable(
// CHECK:         moe.gate %{{.*}} top_k(2) {my.note = "kept"} : tensor<?x8xf32>
func.func @discardable(%l: tensor<?x8xf32>) {
  %w, %i = moe.gate %l top_k(2) {my.note = "kept"} : tensor<?x8xf32>
  return
}

//===----------------------------------------------------------------------===//
// Operands
//===----------------------------------------------------------------------===//

// CHECK-LABEL: func.func @operands(
// CHECK-SAME:    %[[L:[^:]*]]: tensor<?x8xf32>, %[[B:[^:]*]]: tensor<8xbf16>, %[[N:[^:]*]]: tensor<?x8xf16>, %[[I:[^:]*]]: tensor<?x2xi32>
// CHECK:         moe.gate %[[L]] bias(%[[B]] : tensor<8xbf16>) top_k(2) :
// CHECK:         moe.gate %[[L]] noise(%[[N]] : tensor<?x8xf16>) top_k(2) :
// CHECK:         moe.gate %[[L]] ids(%[[I]] : tensor<?x2xi32>) top_k(2) :
// CHECK:         moe.gate %[[L]] bias(%[[B]] : tensor<8xbf16>) noise(%[[N]] : tensor<?x8xf16>) top_k(2) :
// CHECK:         moe.gate %[[L]] noise(%[[N]] : tensor<?x8xf16>) ids(%[[I]] : tensor<?x2xi32>) top_k(2) :
// CHECK:         moe.gate %[[L]] ids(%[[I]] : tensor<?x2xi32>) top_k(2) order(score_each_choice) margin(2.000000e-02) :
// GENERIC-LABEL: sym_name = "operands"
// GENERIC:         operandSegmentSizes = array<i32: 1, 1, 0, 0>
// GENERIC:         operandSegmentSizes = array<i32: 1, 0, 1, 0>
// GENERIC:         operandSegmentSizes = array<i32: 1, 0, 0, 1>
// GENERIC:         operandSegmentSizes = array<i32: 1, 1, 1, 0>
// GENERIC:         operandSegmentSizes = array<i32: 1, 0, 1, 1>
func.func @operands(%l: tensor<?x8xf32>, %b: tensor<8xbf16>, %n: tensor<?x8xf16>, %g: tensor<?x2xi32>) {
  %w0, %i0 = moe.gate %l bias(%b : tensor<8xbf16>) top_k(2) : tensor<?x8xf32>
  %w1, %i1 = moe.gate %l noise(%n : tensor<?x8xf16>) top_k(2) : tensor<?x8xf32>
  %w2, %i2 = moe.gate %l ids(%g : tensor<?x2xi32>) top_k(2) : tensor<?x8xf32>
  %w3, %i3 = moe.gate %l bias(%b : tensor<8xbf16>) noise(%n : tensor<?x8xf16>) top_k(2) : tensor<?x8xf32>
  %w4, %i4 = moe.gate %l noise(%n : tensor<?x8xf16>) ids(%g : tensor<?x2xi32>) top_k(2) : tensor<?x8xf32>
  %w5, %i5 = moe.gate %l ids(%g : tensor<?x2xi32>) top_k(2) order(score_each_choice) margin(0.02) : tensor<?x8xf32>
  return
}

//===----------------------------------------------------------------------===//
// Result types
//===----------------------------------------------------------------------===//

// CHECK-LABEL: func.func @static_tokens(
// CHECK-SAME:    -> (tensor<5x3xf32>, tensor<5x3xi32>)
func.func @static_tokens(%l: tensor<5x8xf16>) -> (tensor<5x3xf32>, tensor<5x3xi32>) {
  %w, %i = moe.gate %l top_k(3) : tensor<5x8xf16>
  return %w, %i : tensor<5x3xf32>, tensor<5x3xi32>
}

// No token, one expert, and every expert are ordinary cases.
// CHECK-LABEL: func.func @extremes(
func.func @extremes(%none: tensor<0x8xf32>, %one: tensor<?x1xf32>)
    -> (tensor<0x8xf32>, tensor<?x1xf32>) {
  %w0, %i0 = moe.gate %none top_k(8) : tensor<0x8xf32>
  %w1, %i1 = moe.gate %one top_k(1) : tensor<?x1xf32>
  return %w0, %w1 : tensor<0x8xf32>, tensor<?x1xf32>
}

// The type of the weights is that of the scores, not of the logits.
// CHECK-LABEL: func.func @score_type(
// CHECK:         score_type(f16) : tensor<?x8xbf16>
func.func @score_type(%l: tensor<?x8xbf16>) -> (tensor<?x2xf32>, tensor<?x2xf16>) {
  %w0, %i0 = moe.gate %l top_k(2) : tensor<?x8xbf16>
  %w1, %i1 = moe.gate %l top_k(2) score_type(f16) : tensor<?x8xbf16>
  return %w0, %w1 : tensor<?x2xf32>, tensor<?x2xf16>
}
