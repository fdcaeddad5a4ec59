// RUN: moe-opt %s -convert-moe-to-linalg -canonicalize -cse -split-input-file \
// RUN:   | FileCheck %s --implicit-check-not=moe.

// The softmax again, the gradients of the choices added up by expert, then
// p (g − Σ g p).
// CHECK-DAG:   #[[CHOICE:.*]] = affine_map<(d0, d1, d2) -> (d0, d2)>
// CHECK-DAG:   #[[EXPERT:.*]] = affine_map<(d0, d1, d2) -> (d0, d1)>
// CHECK-LABEL: func.func @softmax(
// CHECK-SAME:    %[[L:.*]]: tensor<?x8xf32>, %[[I:.*]]: tensor<?x2xi32>, %[[G:.*]]: tensor<?x2xf32>)
// CHECK:         math.exp
// CHECK:         %[[P:.*]] = linalg.generic {{.*}} ins(%{{.*}}, %{{.*}} : tensor<?x8xf32>, tensor<?xf32>)
// CHECK:           arith.divf
// CHECK:         %[[SUM:.*]] = linalg.generic {indexing_maps = [#[[CHOICE]], #[[CHOICE]], #[[EXPERT]]], iterator_types = ["parallel", "parallel", "reduction"]} ins(%[[I]],
// CHECK:           arith.addf
// CHECK:         linalg.generic {{.*}} ins(%[[SUM]], %[[P]] :
// CHECK:           arith.mulf
// CHECK:         linalg.generic
// CHECK:           arith.subf
// A NaN logit has gradient 0.
// CHECK:           arith.cmpf uno
// CHECK:           arith.select
func.func @softmax(%l: tensor<?x8xf32>, %i: tensor<?x2xi32>, %g: tensor<?x2xf32>) -> tensor<?x8xf32> {
  %d = moe.gate_gradient %l, %i, %g : tensor<?x8xf32>, tensor<?x2xi32>, tensor<?x2xf32>
  return %d : tensor<?x8xf32>
}

// -----

// The sums run down the columns.
// CHECK-DAG:   #[[TRANSPOSED:.*]] = affine_map<(d0, d1) -> (d1, d0)>
// CHECK-LABEL: func.func @over_tokens(
// CHECK-COUNT-3: linalg.generic {indexing_maps = [#[[TRANSPOSED]], #{{.*}}], iterator_types = ["parallel", "reduction"]}
func.func @over_tokens(%l: tensor<?x8xf32>, %i: tensor<?x2xi32>, %g: tensor<?x2xf32>) -> tensor<?x8xf32> {
  %d = moe.gate_gradient %l, %i, %g score_axis(tokens) : tensor<?x8xf32>, tensor<?x2xi32>, tensor<?x2xf32>
  return %d : tensor<?x8xf32>
}

// -----

// Only the choices are scored.
// CHECK-LABEL: func.func @select_then_score(
// CHECK:         tensor.extract {{.*}} : tensor<?x8xf32>
// CHECK:         math.exp {{.*}} : f32
// CHECK:         iterator_types = ["parallel", "parallel", "reduction"]
// CHECK-NOT:     math.exp
func.func @select_then_score(%l: tensor<?x8xf32>, %i: tensor<?x2xi32>, %g: tensor<?x2xf32>) -> tensor<?x8xf32> {
  %d = moe.gate_gradient %l, %i, %g order(select_then_score) : tensor<?x8xf32>, tensor<?x2xi32>, tensor<?x2xf32>
  return %d : tensor<?x8xf32>
}

// -----

// The scores of all choices for the denominator, then their gradients.
// CHECK-LABEL: func.func @score_each_choice(
// CHECK:         scf.for
// CHECK:           arith.divf
// CHECK:           arith.cmpf ogt
// CHECK:         scf.for
// CHECK:           math.exp
// CHECK:           arith.subf %cst
func.func @score_each_choice(%l: tensor<?x8xf32>, %i: tensor<?x2xi32>, %g: tensor<?x2xf32>) -> tensor<?x8xf32> {
  %d = moe.gate_gradient %l, %i, %g order(score_each_choice) margin(0.02) normalize(<sum>) : tensor<?x8xf32>, tensor<?x2xi32>, tensor<?x2xf32>
  return %d : tensor<?x8xf32>
}

// -----

// The denominator again; an epsilon that is the denominator is constant.
// CHECK-LABEL: func.func @normalize(
// CHECK:         arith.mulf
// CHECK:         arith.maximumf
// CHECK:         arith.cmpf olt
// CHECK:         arith.subf
// CHECK:         arith.divf
// CHECK:         arith.truncf {{.*}} : f32 to bf16
func.func @normalize(%l: tensor<?x8xbf16>, %i: tensor<?x2xi32>, %g: tensor<?x2xf32>) -> tensor<?x8xbf16> {
  %d = moe.gate_gradient %l, %i, %g score(none) normalize(<sum, epsilon = 0.5, guard = clamp>)
    scale(2.5) : tensor<?x8xbf16>, tensor<?x2xi32>, tensor<?x2xf32>
  return %d : tensor<?x8xbf16>
}

// -----

// CHECK-LABEL: func.func @norms(
// CHECK-NOT:     math.powf
// CHECK:         math.sqrt
// CHECK:         arith.negf
// CHECK:         math.powf
// CHECK:         math.powf
// CHECK:         math.powf
// CHECK:         return
func.func @norms(%l: tensor<?x8xf32>, %i: tensor<?x2xi32>, %g: tensor<?x2xf32>) -> (tensor<?x8xf32>, tensor<?x8xf32>) {
  %0 = moe.gate_gradient %l, %i, %g score(none) normalize(<norm>) : tensor<?x8xf32>, tensor<?x2xi32>, tensor<?x2xf32>
  %1 = moe.gate_gradient %l, %i, %g score(none) normalize(<norm, p = 3.5>) : tensor<?x8xf32>, tensor<?x2xi32>, tensor<?x2xf32>
  return %0, %1 : tensor<?x8xf32>, tensor<?x8xf32>
}

// -----

// Extents of which one is static, and none at all.
// CHECK-LABEL: func.func @extents(
// CHECK-SAME:    -> (tensor<5x8xf32>, tensor<?x8xf32>, tensor<0x8xf32>)
func.func @extents(%l: tensor<5x8xf32>, %i: tensor<?x2xi32>, %g: tensor<?x2xf32>,
                   %l1: tensor<?x8xf32>, %i1: tensor<5x2xi32>,
                   %l0: tensor<0x8xf32>, %i0: tensor<0x2xi32>, %g0: tensor<0x2xf32>)
    -> (tensor<5x8xf32>, tensor<?x8xf32>, tensor<0x8xf32>) {
  %0 = moe.gate_gradient %l, %i, %g order(score_each_choice) normalize(<sum>) : tensor<5x8xf32>, tensor<?x2xi32>, tensor<?x2xf32>
  %1 = moe.gate_gradient %l1, %i1, %g order(score_each_choice) : tensor<?x8xf32>, tensor<5x2xi32>, tensor<?x2xf32>
  %2 = moe.gate_gradient %l0, %i0, %g0 normalize(<norm>) : tensor<0x8xf32>, tensor<0x2xi32>, tensor<0x2xf32>
  return %0, %1, %2 : tensor<5x8xf32>, tensor<?x8xf32>, tensor<0x8xf32>
}
