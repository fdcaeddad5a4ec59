// RUN: moe-opt %s -convert-moe-to-linalg -canonicalize -cse -split-input-file \
// RUN:   | FileCheck %s --implicit-check-not=moe.

// Without a capacity: a mask of the valid ids, counted, summed, placed, gathered.
// Nothing counts the rows of an expert, and nothing is compared with a capacity.
// CHECK-LABEL: func.func @dropless(
// CHECK-SAME:    %[[X:[^:]*]]: tensor<?x4xf32>, %[[I:[^:]*]]: tensor<?x2xi32>)
// CHECK-NOT:     tensor<8xi32>
// CHECK-DAG:     %[[T:.*]] = tensor.dim %[[I]], %c0
// CHECK:         %[[KEPT:.*]] = linalg.generic {{.*}} ins(%[[I]] : tensor<?x2xi32>) outs(%{{.*}} : tensor<?x2xi1>)
// CHECK:           arith.cmpi ult, %{{.*}}, %c8_i32
// CHECK-NOT:     tensor<8xi32>
// CHECK:         %[[COUNTS:.*]] = scf.for %[[I0:.*]] = %c0 to %[[T]] {{.*}} -> (tensor<9xi32>)
// CHECK:           scf.for %[[K0:.*]] = %c0 to %c2 {{.*}} -> (tensor<9xi32>)
// CHECK:             tensor.extract %[[KEPT]][%[[I0]], %[[K0]]]
// CHECK:         %[[OFFSETS:.*]] = scf.for %{{.*}} = %c0 to %c8 step %c1 iter_args(%{{.*}} = %[[COUNTS]])
// CHECK:         %[[PLACED:.*]]:3 = scf.for %{{.*}} iter_args(%{{.*}} = %[[OFFSETS]], %{{.*}}) -> (tensor<9xi32>, tensor<?x2xi32>, tensor<?xi32>)
// CHECK:           scf.for
// A choice that is not kept stands at −1.
// CHECK:           } else {
// CHECK-NEXT:        tensor.insert %c-1_i32
// A row that no choice covers is zero and reads nothing.
// CHECK:         %[[ROWS:.*]] = linalg.generic {{.*}} ins(%[[PLACED]]#2 : tensor<?xi32>) outs(%{{.*}} : tensor<?x4xf32>)
// CHECK:           %[[COVERED:.*]] = arith.cmpi sge, %{{.*}}, %c0_i32
// CHECK:           scf.if %[[COVERED]]
// CHECK:             %[[TOKEN:.*]] = arith.divui %{{.*}}, %c2
// CHECK:             tensor.extract %[[X]][%[[TOKEN]],
// CHECK:           } else {
// CHECK-NEXT:        scf.yield %cst
// CHECK-NOT:     arith.mulf
// CHECK:         return %[[ROWS]], %[[OFFSETS]], %[[PLACED]]#1
func.func @dropless(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>) -> (tensor<?x4xf32>, tensor<9xi32>, tensor<?x2xi32>) {
  %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<?x4xf32>, tensor<?x2xi32>
  return %g, %o, %p : tensor<?x4xf32>, tensor<9xi32>, tensor<?x2xi32>
}

// -----

// First come, first served: tokens outside, choices inside, and a counter for each
// expert.
// CHECK-LABEL: func.func @position(
// CHECK-SAME:    %[[X:[^:]*]]: tensor<?x4xf32>, %[[I:[^:]*]]: tensor<?x2xi32>)
// CHECK:         %[[T:.*]] = tensor.dim %[[I]], %c0
// CHECK:         scf.for %[[TOKEN:.*]] = %c0 to %[[T]] {{.*}} -> (tensor<8xi32>, tensor<?xi32>, tensor<?x2xi1>)
// CHECK:           scf.for %[[K:.*]] = %c0 to %c2 {{.*}} iter_args(%[[ROWS:.*]] = %{{.*}}, %[[PLACED:.*]] = %{{.*}}, %{{.*}} = %{{.*}})
// CHECK:             %[[ID:.*]] = tensor.extract %[[I]][%[[TOKEN]], %[[K]]]
// CHECK:             %[[WANTED:.*]] = arith.cmpi ult, %[[ID]], %c8_i32
// CHECK:             %[[SAFE:.*]] = arith.select %[[WANTED]], %[[ID]], %c0_i32
// CHECK:             %[[EXPERT:.*]] = arith.index_cast %[[SAFE]]
// CHECK:             %[[COUNT:.*]] = tensor.extract %[[ROWS]][%[[EXPERT]]]
// CHECK:             %[[COUNT_INDEX:.*]] = arith.index_cast %[[COUNT]]
// CHECK:             %[[ROOM:.*]] = arith.cmpi slt, %[[COUNT_INDEX]], %c5
// CHECK:             arith.andi %[[WANTED]], %[[ROOM]]
func.func @position(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>) -> tensor<?x2xi32> {
  %g, %o, %p = moe.dispatch %x, %ids experts(8) capacity(<fixed = 5>) : tensor<?x4xf32>, tensor<?x2xi32>
  return %p : tensor<?x2xi32>
}

// -----

// All first choices before all second ones: choices outside, tokens inside.
// CHECK-LABEL: func.func @choice(
// CHECK-SAME:    %[[X:[^:]*]]: tensor<?x4xf32>, %[[I:[^:]*]]: tensor<?x2xi32>)
// CHECK:         %[[T:.*]] = tensor.dim %[[I]], %c0
// CHECK:         scf.for %[[K:.*]] = %c0 to %c2 {{.*}} -> (tensor<8xi32>, tensor<?xi32>, tensor<?x2xi1>)
// CHECK:           scf.for %[[TOKEN:.*]] = %c0 to %[[T]]
// CHECK:             tensor.extract %[[I]][%[[TOKEN]], %[[K]]]
// Rows are in order of (t, k) all the same.
// CHECK:         scf.for %[[TOKEN:.*]] = %c0 to %[[T]] {{.*}} -> (tensor<9xi32>)
// CHECK:           scf.for %[[K:.*]] = %c0 to %c2
func.func @choice(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>) -> tensor<?x2xi32> {
  %g, %o, %p = moe.dispatch %x, %ids experts(8) capacity(<fixed = 5>) priority(choice) : tensor<?x4xf32>, tensor<?x2xi32>
  return %p : tensor<?x2xi32>
}

// -----

// The rank of a choice among those of its expert: larger weights, then lower tokens.
// CHECK-DAG:   #[[MINE:.*]] = affine_map<(d0, d1, d2, d3) -> (d0, d1)>
// CHECK-DAG:   #[[OTHER:.*]] = affine_map<(d0, d1, d2, d3) -> (d2, d3)>
// CHECK-LABEL: func.func @probability(
// CHECK-SAME:    %[[I:[^:]*]]: tensor<?x2xi32>, %[[W:[^:]*]]: tensor<?x2xf16>)
// NaN is −inf here, too.
// CHECK:         %[[WEIGHTS:.*]] = linalg.generic {{.*}} ins(%[[W]] :
// CHECK:           arith.cmpf uno
// CHECK:         %[[RANK:.*]] = linalg.generic {indexing_maps = [#[[MINE]], #[[MINE]], #[[OTHER]], #[[OTHER]], #[[MINE]]],
// CHECK-SAME:      iterator_types = ["parallel", "parallel", "reduction", "reduction"]} ins(%[[I]], %[[WEIGHTS]], %[[I]], %[[WEIGHTS]] :
// CHECK:           arith.cmpf ogt
// CHECK:           arith.cmpf oeq
// CHECK:         linalg.generic {{.*}} ins(%[[I]], %[[RANK]] :
// CHECK:           arith.cmpi slt, %{{.*}}, %c5
func.func @probability(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>, %w: tensor<?x2xf16>) -> tensor<?x2xi32> {
  %g, %o, %p = moe.dispatch %x, %ids weights(%w : tensor<?x2xf16>) experts(8) capacity(<fixed = 5>) priority(probability)
    : tensor<?x4xf32>, tensor<?x2xi32>
  return %p : tensor<?x2xi32>
}

// -----

// Whether a choice is wanted depends on how many of its token found room.
// CHECK-LABEL: func.func @next_choice(
// CHECK:         scf.for %[[TOKEN:.*]] = %c0
// CHECK:           scf.for {{.*}} iter_args(%{{.*}} = %{{.*}}, %[[PLACED:.*]] = %{{.*}}, %{{.*}} = %{{.*}})
// CHECK:             %[[OF_TOKEN:.*]] = tensor.extract %[[PLACED]][%[[TOKEN]]] : tensor<?xi32>
// CHECK:             %[[OPEN:.*]] = arith.cmpi slt, %[[OF_TOKEN]], %c2_i32
// CHECK:             %[[WANTED:.*]] = arith.andi %{{.*}}, %[[OPEN]]
// CHECK:             %[[KEEP:.*]] = arith.andi %[[WANTED]], %{{.*}}
// CHECK:             %[[ONE:.*]] = arith.extui %[[KEEP]]
// CHECK:             arith.addi %[[OF_TOKEN]], %[[ONE]]
func.func @next_choice(%x: tensor<?x4xf32>, %ids: tensor<?x3xi32>) -> tensor<?x3xi32> {
  %g, %o, %p = moe.dispatch %x, %ids experts(8) capacity(<fixed = 5>) overflow(next_choice) choices(2)
    : tensor<?x4xf32>, tensor<?x3xi32>
  return %p : tensor<?x3xi32>
}

// -----

// Without a retry it depends on the column alone.
// CHECK-LABEL: func.func @choices(
// CHECK:         linalg.generic
// CHECK:           %[[K:.*]] = linalg.index 1
// CHECK:           %[[FIRST:.*]] = arith.cmpi ult, %[[K]], %c2
// CHECK:           arith.andi %{{.*}}, %[[FIRST]]
func.func @choices(%x: tensor<?x4xf32>, %ids: tensor<?x3xi32>) -> tensor<?x3xi32> {
  %g, %o, %p = moe.dispatch %x, %ids experts(8) choices(2) : tensor<?x4xf32>, tensor<?x3xi32>
  return %p : tensor<?x3xi32>
}

// -----

// R = min(T·K, E·C) rows.
// CHECK-LABEL: func.func @bound(
// CHECK:         %[[TK:.*]] = arith.muli %{{.*}}, %c2
// CHECK:         %[[R:.*]] = arith.minsi %[[TK]], %c40
// CHECK:         tensor.empty(%[[R]]) : tensor<?xi32>
func.func @bound(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>) -> tensor<?x4xf32> {
  %g, %o, %p = moe.dispatch %x, %ids experts(8) capacity(<fixed = 5>) : tensor<?x4xf32>, tensor<?x2xi32>
  return %g : tensor<?x4xf32>
}

// -----

// In f32, rounded once.
// CHECK-LABEL: func.func @scale_rows(
// CHECK-SAME:    %[[X:[^:]*]]: tensor<?x4xbf16>, %{{.*}}: tensor<?x2xi32>, %[[W:[^:]*]]: tensor<?x2xf16>)
// CHECK:         %[[T:.*]] = arith.divui %[[CHOICE:.*]], %c2
// CHECK:         %[[X0:.*]] = tensor.extract %[[X]][%[[T]], %{{.*}}]
// CHECK:         %[[K:.*]] = arith.remui %[[CHOICE]], %c2
// CHECK:         %[[W0:.*]] = tensor.extract %[[W]][%[[T]], %[[K]]]
// CHECK-DAG:     %[[X1:.*]] = arith.extf %[[X0]] : bf16 to f32
// CHECK-DAG:     %[[W1:.*]] = arith.extf %[[W0]] : f16 to f32
// CHECK:         %[[Y:.*]] = arith.mulf %[[X1]], %[[W1]] : f32
// CHECK:         arith.truncf %[[Y]] : f32 to bf16
func.func @scale_rows(%x: tensor<?x4xbf16>, %ids: tensor<?x2xi32>, %w: tensor<?x2xf16>) -> tensor<?x4xbf16> {
  %g, %o, %p = moe.dispatch %x, %ids weights(%w : tensor<?x2xf16>) experts(8) scale_rows : tensor<?x4xbf16>, tensor<?x2xi32>
  return %g : tensor<?x4xbf16>
}

// -----

// CHECK-LABEL: func.func @static_tokens(
// CHECK-SAME:    -> (tensor<8x4xf32>, tensor<9xi32>, tensor<6x2xi32>)
// CHECK-NOT:     tensor<?
// CHECK:         return
func.func @static_tokens(%x: tensor<6x4xf32>, %ids: tensor<6x2xi32>) -> (tensor<8x4xf32>, tensor<9xi32>, tensor<6x2xi32>) {
  %g, %o, %p = moe.dispatch %x, %ids experts(8) capacity(<factor = 1.0, rounding = floor, minimum = 1>)
    : tensor<6x4xf32>, tensor<6x2xi32>
  return %g, %o, %p : tensor<8x4xf32>, tensor<9xi32>, tensor<6x2xi32>
}

// -----

// Nothing of the size of E is unrolled or folded.
// CHECK-LABEL: func.func @many_experts(
// CHECK:         tensor.empty() : tensor<1000000000xi32>
// CHECK:         tensor.empty() : tensor<1000000001xi32>
func.func @many_experts(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>) -> (tensor<?x4xf32>, tensor<1000000001xi32>) {
  %g, %o, %p = moe.dispatch %x, %ids experts(1000000000) capacity(<factor = 2.0>) : tensor<?x4xf32>, tensor<?x2xi32>
  return %g, %o : tensor<?x4xf32>, tensor<1000000001xi32>
}
