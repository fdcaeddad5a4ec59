// RUN: moe-opt %s -convert-moe-to-linalg -canonicalize -cse -split-input-file \
// RUN:   | FileCheck %s --implicit-check-not=moe.

// Softmax over the experts of a token, then K rounds of the best that is left.
// CHECK-DAG:   #[[ID:.*]] = affine_map<(d0, d1) -> (d0, d1)>
// CHECK-DAG:   #[[ROW:.*]] = affine_map<(d0, d1) -> (d0)>
// CHECK-LABEL: func.func @softmax(
// CHECK-SAME:    %[[L:.*]]: tensor<?x8xf32>)
// NaN is −inf.
// CHECK:         %[[LOGITS:.*]] = linalg.generic {{.*}} ins(%[[L]] :
// CHECK:           %[[NAN:.*]] = arith.cmpf uno
// CHECK:           arith.select %[[NAN]], %{{.*}}, %{{.*}} : f32
// CHECK:         %[[MAX:.*]] = linalg.generic {indexing_maps = [#[[ID]], #[[ROW]]], iterator_types = ["parallel", "reduction"]} ins(%[[LOGITS]]
// CHECK:           arith.maximumf
// CHECK:         %[[EXP:.*]] = linalg.generic {{.*}} ins(%[[LOGITS]], %[[MAX]]
// CHECK:           math.exp
// CHECK:         %[[SUM:.*]] = linalg.generic {indexing_maps = [#[[ID]], #[[ROW]]], iterator_types = ["parallel", "reduction"]} ins(%[[EXP]]
// CHECK:           arith.addf
// CHECK:         %[[SCORES:.*]] = linalg.generic {{.*}} ins(%[[EXP]], %[[SUM]]
// CHECK:           arith.divf
// CHECK:         scf.for %{{.*}} = %c0 to %c2 step %c1
// The largest that is not taken, then the lowest index that has it: a tie stays
// with the lowest id.
// CHECK:           %[[MOST:.*]] = linalg.generic {{.*}} ins(%[[SCORES]], %[[TAKEN:.*]] : {{.*}}, tensor<?x8xi8>)
// CHECK:             %[[OPEN:.*]] = arith.select %{{.*}}, %{{.*}}, %{{.*}} : f32
// CHECK:             arith.maximumf %[[OPEN]]
// CHECK:           linalg.generic {{.*}} ins(%[[SCORES]], %[[TAKEN]], %[[MOST]]
// CHECK:             %[[EQUAL:.*]] = arith.cmpf oeq
// CHECK:             %[[LEFT:.*]] = arith.cmpi eq, %{{.*}}, %c0_i8
// CHECK:             %[[FOUND:.*]] = arith.andi %[[EQUAL]], %[[LEFT]]
// CHECK:             arith.select %[[FOUND]], %{{.*}}, %c2147483647_i32
// CHECK:             arith.minsi
// Where all are taken, none is chosen.
// CHECK:           %[[BEST:.*]] = linalg.generic
// CHECK:             arith.select %{{.*}}, %c-1_i32, %{{.*}}
// CHECK:           tensor.insert_slice %[[BEST]]
// An id that is none has weight 0 and reads nothing.
// CHECK:         linalg.generic
// CHECK:           %[[VALID:.*]] = arith.cmpi ult, %{{.*}}, %c8_i32
// CHECK:           %[[SAFE:.*]] = arith.select %[[VALID]], %{{.*}}, %c0_i32
// CHECK:           %[[COLUMN:.*]] = arith.index_cast %[[SAFE]]
// CHECK:           tensor.extract %[[SCORES]][%{{.*}}, %[[COLUMN]]]
func.func @softmax(%l: tensor<?x8xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>) {
  %w, %i = moe.gate %l top_k(2) : tensor<?x8xf32>
  return %w, %i : tensor<?x2xf32>, tensor<?x2xi32>
}

// -----

// The loops of both reductions run over tokens inside, experts outside.
// CHECK-DAG:   #[[TRANSPOSED:.*]] = affine_map<(d0, d1) -> (d1, d0)>
// CHECK-DAG:   #[[OUTER:.*]] = affine_map<(d0, d1) -> (d0)>
// CHECK-LABEL: func.func @softmax_over_tokens(
// CHECK:         linalg.generic {indexing_maps = [#[[TRANSPOSED]], #[[OUTER]]], iterator_types = ["parallel", "reduction"]}
// CHECK:           arith.maximumf
// CHECK:         math.exp
// CHECK:         linalg.generic {indexing_maps = [#[[TRANSPOSED]], #[[OUTER]]], iterator_types = ["parallel", "reduction"]}
// CHECK:           arith.addf
func.func @softmax_over_tokens(%l: tensor<?x8xf32>) -> tensor<?x2xf32> {
  %w, %i = moe.gate %l top_k(2) score_axis(tokens) : tensor<?x8xf32>
  return %w : tensor<?x2xf32>
}

// -----

// CHECK-LABEL: func.func @sigmoid(
// CHECK-NOT:     arith.maximumf
// CHECK:         arith.negf
// CHECK:         math.exp
// CHECK:         arith.addf
// CHECK:         arith.divf
// CHECK:         scf.for
func.func @sigmoid(%l: tensor<?x8xf32>) -> tensor<?x2xf32> {
  %w, %i = moe.gate %l top_k(2) score(sigmoid) : tensor<?x8xf32>
  return %w : tensor<?x2xf32>
}

// -----

// CHECK-LABEL: func.func @relu(
// CHECK-NOT:     math.exp
// CHECK:         arith.maximumf %{{.*}}, %cst{{.*}} : f32
// CHECK:         scf.for
func.func @relu(%l: tensor<?x8xf32>) -> tensor<?x2xf32> {
  %w, %i = moe.gate %l top_k(2) score(relu) : tensor<?x8xf32>
  return %w : tensor<?x2xf32>
}

// -----

// CHECK-LABEL: func.func @sqrt_softplus(
// CHECK:         math.absf
// CHECK:         math.exp
// CHECK:         math.log1p
// CHECK:         math.sqrt
// CHECK:         scf.for
func.func @sqrt_softplus(%l: tensor<?x8xf32>) -> tensor<?x2xf32> {
  %w, %i = moe.gate %l top_k(2) score(sqrt_softplus) : tensor<?x8xf32>
  return %w : tensor<?x2xf32>
}

// -----

// CHECK-LABEL: func.func @none(
// CHECK-NOT:     math.exp
// CHECK-NOT:     arith.divf
// CHECK:         return
func.func @none(%l: tensor<?x8xf32>) -> tensor<?x2xf32> {
  %w, %i = moe.gate %l top_k(2) score(none) : tensor<?x8xf32>
  return %w : tensor<?x2xf32>
}

// -----

// The logits decide; only those selected are scored.
// CHECK-LABEL: func.func @select_then_score(
// CHECK-NOT:     math.exp
// CHECK:         scf.for
// CHECK:         tensor.extract {{.*}} : tensor<?x8xf32>
// CHECK:         math.exp
// CHECK:         return
func.func @select_then_score(%l: tensor<?x8xf32>) -> tensor<?x2xf32> {
  %w, %i = moe.gate %l top_k(2) order(select_then_score) : tensor<?x8xf32>
  return %w : tensor<?x2xf32>
}

// -----

// A softmax for each choice, over what is left and near enough.
// CHECK-LABEL: func.func @score_each_choice(
// CHECK-NOT:     math.exp
// CHECK:         scf.for
// CHECK:           math.absf
// CHECK:           %[[RELATIVE:.*]] = arith.divf
// CHECK:           arith.cmpf ogt, %[[RELATIVE]], %{{.*}} : f32
// CHECK:           math.exp
// CHECK:           scf.yield
func.func @score_each_choice(%l: tensor<?x8xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>) {
  %w, %i = moe.gate %l top_k(2) order(score_each_choice) margin(0.02) : tensor<?x8xf32>
  return %w, %i : tensor<?x2xf32>, tensor<?x2xi32>
}

// -----

// A given choice is taken; one without an expert takes the best, for its weight of 0.
// CHECK-LABEL: func.func @score_each_given(
// CHECK-SAME:    %[[G:[^:]*]]: tensor<?x2xi32>)
// CHECK:         scf.for %[[K:[a-z0-9]*]] =
// CHECK:           %[[ID:.*]] = tensor.extract %[[G]][%{{.*}}, %[[K]]]
// CHECK:           linalg.generic
// CHECK:             arith.select %{{.*}}, %[[GIVEN:.*]], %[[BEST:.*]] : i32
// CHECK:           math.exp
// CHECK:           scf.yield
func.func @score_each_given(%l: tensor<?x8xf32>, %g: tensor<?x2xi32>) -> tensor<?x2xf32> {
  %w, %i = moe.gate %l ids(%g : tensor<?x2xi32>) top_k(2) order(score_each_choice) : tensor<?x8xf32>
  return %w : tensor<?x2xf32>
}

// -----

// The bias goes into the selection, not into the weights; noise goes into both.
// CHECK-LABEL: func.func @bias_and_noise(
// CHECK-SAME:    %[[L:[^:]*]]: tensor<?x8xf32>, %[[B:[^:]*]]: tensor<8xbf16>, %[[N:[^:]*]]: tensor<?x8xf16>)
// CHECK:         %[[LOGITS:.*]] = linalg.generic {{.*}} ins(%[[L]], %[[N]] :
// CHECK:           arith.extf {{.*}} : f16 to f32
// CHECK:           arith.addf
// CHECK:         %[[SCORES:.*]] = linalg.generic {{.*}} ins(%[[LOGITS]] :
// CHECK:           arith.maximumf
// CHECK:         %[[SELECTION:.*]] = linalg.generic {{.*}} ins(%[[SCORES]], %[[B]] :
// CHECK:           arith.extf {{.*}} : bf16 to f32
// CHECK:         scf.for
// CHECK:           ins(%[[SELECTION]],
// CHECK:         tensor.extract %[[SCORES]]
func.func @bias_and_noise(%l: tensor<?x8xf32>, %b: tensor<8xbf16>, %n: tensor<?x8xf16>) -> tensor<?x2xf32> {
  %w, %i = moe.gate %l bias(%b : tensor<8xbf16>) noise(%n : tensor<?x8xf16>) top_k(2) score(relu) : tensor<?x8xf32>
  return %w : tensor<?x2xf32>
}

// -----

// Rows of 2 experts; the best two of each, added up; the best 3 of 4 groups.
// CHECK-LABEL: func.func @groups(
// CHECK:         %[[CUBE:.*]] = tensor.expand_shape %{{.*}} {{\[}}[0], [1, 2]] {{.*}} into tensor<?x4x2xf32>
// CHECK:         tensor.collapse_shape %[[CUBE]] {{\[}}[0, 1], [2]] : tensor<?x4x2xf32> into tensor<?x2xf32>
// CHECK:         scf.for %{{.*}} = %c0 to %c2
// CHECK:         tensor.expand_shape %{{.*}} {{\[}}[0, 1]] {{.*}} : tensor<?xf32> into tensor<?x4xf32>
// CHECK:         scf.for %{{.*}} = %c0 to %c3
// CHECK:         linalg.generic {{.*}} ins(%[[CUBE]], %{{.*}} : tensor<?x4x2xf32>, tensor<?x4xi8>)
// CHECK:           arith.select %{{.*}}, %{{.*}}, %{{.*}} : f32
// CHECK:         scf.for
func.func @groups(%l: tensor<?x8xf32>) -> tensor<?x2xi32> {
  %w, %i = moe.gate %l top_k(2) score(none) groups(<count = 4, keep = 3, score = top2_sum>) : tensor<?x8xf32>
  return %i : tensor<?x2xi32>
}

// -----

// One pass finds the maximum of a group; what is not kept is 0.
// CHECK-LABEL: func.func @groups_max_zero(
// CHECK-DAG:     %[[ZERO:.*]] = arith.constant 0.000000e+00 : f32
// CHECK:         tensor.expand_shape {{.*}} into tensor<?x4xf32>
// CHECK:         scf.for %{{.*}} = %c0 to %c3
// CHECK:         linalg.generic {{.*}} ins(%{{.*}}, %{{.*}} : tensor<?x4x2xf32>, tensor<?x4xi8>)
// CHECK:           arith.select %{{.*}}, %{{.*}}, %[[ZERO]] : f32
func.func @groups_max_zero(%l: tensor<?x8xf32>) -> tensor<?x2xi32> {
  %w, %i = moe.gate %l top_k(2) score(none) groups(<count = 4, keep = 3, fill = zero>) : tensor<?x8xf32>
  return %i : tensor<?x2xi32>
}

// -----

// Each expert takes min(C, T) tokens, one in each round; −1 in the other columns.
// CHECK-LABEL: func.func @expert_choice(
// CHECK:         %[[T:.*]] = tensor.dim
// CHECK:         %[[ROUNDS:.*]] = arith.minsi %[[T]], %c3
// CHECK:         scf.for %{{.*}} = %c0 to %[[ROUNDS]]
// CHECK:         arith.select %{{.*}}, %{{.*}}, %c-1_i32
func.func @expert_choice(%l: tensor<?x8xf32>) -> (tensor<?x8xf32>, tensor<?x8xi32>) {
  %w, %i = moe.gate %l top_k(8) select(expert_choice) capacity(<fixed = 3>) : tensor<?x8xf32>
  return %w, %i : tensor<?x8xf32>, tensor<?x8xi32>
}

// -----

// Nothing is selected, and the ids are returned.
// CHECK-LABEL: func.func @given_ids(
// CHECK-SAME:    %[[L:[^:]*]]: tensor<?x8xf32>, %[[G:[^:]*]]: tensor<?x2xi32>)
// CHECK-NOT:     scf.for
// CHECK:         return %{{.*}}, %[[G]]
func.func @given_ids(%l: tensor<?x8xf32>, %g: tensor<?x2xi32>) -> (tensor<?x2xf32>, tensor<?x2xi32>) {
  %w, %i = moe.gate %l ids(%g : tensor<?x2xi32>) top_k(2) : tensor<?x8xf32>
  return %w, %i : tensor<?x2xf32>, tensor<?x2xi32>
}

// -----

// Threshold, then the denominator over the choices that are left, then scale; the
// type of the scores is rounded to at each step.
// CHECK-LABEL: func.func @weights(
// CHECK-SAME:    -> tensor<?x2xbf16>
// CHECK:         arith.maximumf
// CHECK:         arith.truncf {{.*}} : f32 to bf16
// CHECK:         scf.for
// CHECK:         %[[ABOVE:.*]] = arith.cmpf ogt
// CHECK:         arith.select %{{.*}}, %c-1_i32
// CHECK:         arith.divf
// CHECK:         arith.truncf {{.*}} : f32 to bf16
// CHECK:         %[[SCALED:.*]] = arith.mulf
// CHECK:         arith.truncf %[[SCALED]] : f32 to bf16
func.func @weights(%l: tensor<?x8xf32>) -> tensor<?x2xbf16> {
  %w, %i = moe.gate %l top_k(2) score(relu) threshold(0.5) normalize(<sum, epsilon = 1.0e-9>) scale(2.5)
    score_type(bf16) : tensor<?x8xf32>
  return %w : tensor<?x2xbf16>
}

// -----

// CHECK-LABEL: func.func @norms(
// A square root for 2, powers for others; max for a clamp.
// CHECK-NOT:     math.powf
// CHECK:         math.sqrt
// CHECK:         math.absf
// CHECK:         math.powf
// CHECK:         math.powf
// CHECK:         arith.maximumf
// CHECK-NOT:     math.sqrt
// CHECK:         return
func.func @norms(%l: tensor<?x8xf32>, %g: tensor<?x2xi32>) -> (tensor<?x2xf32>, tensor<?x2xf32>) {
  %w0, %i0 = moe.gate %l ids(%g : tensor<?x2xi32>) top_k(2) score(none) normalize(<norm>) : tensor<?x8xf32>
  %w1, %i1 = moe.gate %l ids(%g : tensor<?x2xi32>) top_k(2) score(none)
    normalize(<norm, p = 3.0, epsilon = 1.0e-9, guard = clamp>) : tensor<?x8xf32>
  return %w0, %w1 : tensor<?x2xf32>, tensor<?x2xf32>
}

// -----

// CHECK-LABEL: func.func @no_tokens(
// CHECK-SAME:    -> (tensor<0x2xf32>, tensor<0x2xi32>)
func.func @no_tokens(%l: tensor<0x8xf32>) -> (tensor<0x2xf32>, tensor<0x2xi32>) {
  %w, %i = moe.gate %l top_k(2) groups(<count = 4, keep = 2>) : tensor<0x8xf32>
  return %w, %i : tensor<0x2xf32>, tensor<0x2xi32>
}

// -----

// Nothing of the size of E is unrolled or folded.
// CHECK-LABEL: func.func @many_experts(
// CHECK:         scf.for %{{.*}} = %c0 to %c2147483646
func.func @many_experts(%l: tensor<4x2147483646xf32>) -> tensor<4x2147483646xi32> {
  %w, %i = moe.gate %l top_k(2147483646) : tensor<4x2147483646xf32>
  return %i : tensor<4x2147483646xi32>
}
