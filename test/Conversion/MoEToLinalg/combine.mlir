// RUN: moe-opt %s -convert-moe-to-linalg -canonicalize -cse -split-input-file \
// RUN:   | FileCheck %s --implicit-check-not=moe.

// The sum over k is the inner loop, so it runs in order; in f32, rounded once.
// CHECK-DAG:   #[[TK:.*]] = affine_map<(d0, d1, d2) -> (d0, d2)>
// CHECK-DAG:   #[[TH:.*]] = affine_map<(d0, d1, d2) -> (d0, d1)>
// CHECK-LABEL: func.func @weighted(
// CHECK-SAME:    %[[G:[^:]*]]: tensor<?x4xbf16>, %[[P:[^:]*]]: tensor<?x2xi32>, %[[W:[^:]*]]: tensor<?x2xf16>)
// CHECK:         %[[WEIGHTS:.*]] = linalg.generic {{.*}} ins(%[[W]] :
// CHECK:           arith.extf %{{.*}} : f16 to f32
// CHECK:         %[[R:.*]] = tensor.dim %[[G]], %c0
// CHECK:         %[[ZERO:.*]] = linalg.fill ins(%cst : f32) outs(%{{.*}} : tensor<?x4xf32>)
// CHECK:         %[[SUM:.*]] = linalg.generic {indexing_maps = [#[[TK]], #[[TK]], #[[TH]]],
// CHECK-SAME:      iterator_types = ["parallel", "parallel", "reduction"]} ins(%[[P]], %[[WEIGHTS]] : {{.*}} outs(%[[ZERO]]
// CHECK-NEXT:    ^bb0(%[[P0:.*]]: i32, %[[W0:.*]]: f32, %[[ACC:.*]]: f32):
// A position that is no row reads nothing.
// CHECK:           %[[ROW:.*]] = arith.index_cast %[[P0]]
// CHECK:           %[[KEPT:.*]] = arith.cmpi ult, %[[ROW]], %[[R]]
// CHECK:           scf.if %[[KEPT]]
// CHECK:             %[[X:.*]] = tensor.extract %[[G]][%[[ROW]], %{{.*}}]
// CHECK:             %[[X32:.*]] = arith.extf %[[X]] : bf16 to f32
// CHECK:             %[[WX:.*]] = arith.mulf %[[W0]], %[[X32]]
// CHECK:             arith.addf %[[ACC]], %[[WX]]
// CHECK:           } else {
// CHECK-NEXT:        scf.yield %[[ACC]]
// CHECK:         linalg.generic {{.*}} ins(%[[SUM]] :
// CHECK:           arith.truncf %{{.*}} : f32 to bf16
func.func @weighted(%g: tensor<?x4xbf16>, %p: tensor<?x2xi32>, %w: tensor<?x2xf16>) -> tensor<?x4xbf16> {
  %y = moe.combine %g, %p weights(%w : tensor<?x2xf16>) : tensor<?x4xbf16>, tensor<?x2xi32>
  return %y : tensor<?x4xbf16>
}

// -----

// CHECK-LABEL: func.func @unweighted(
// CHECK-NOT:     arith.mulf
// CHECK-NOT:     arith.truncf
// CHECK:         return
func.func @unweighted(%g: tensor<?x4xf32>, %p: tensor<?x2xi32>) -> tensor<?x4xf32> {
  %y = moe.combine %g, %p : tensor<?x4xf32>, tensor<?x2xi32>
  return %y : tensor<?x4xf32>
}

// -----

// What was dropped passes by, weighted like a row.
// CHECK-LABEL: func.func @dropped(
// CHECK-SAME:    %[[D:[^:]*]]: tensor<?x4xf32>)
// CHECK:         linalg.generic {{.*}} ins(%{{.*}}, %{{.*}}, %[[D]] :
// CHECK-NEXT:    ^bb0(%{{.*}}: i32, %[[W0:.*]]: f32, %[[D0:.*]]: f32, %[[ACC:.*]]: f32):
// CHECK:           } else {
// CHECK-NEXT:        %[[WD:.*]] = arith.mulf %[[W0]], %[[D0]]
// CHECK-NEXT:        arith.addf %[[ACC]], %[[WD]]
func.func @dropped(%g: tensor<?x4xf32>, %p: tensor<?x2xi32>, %w: tensor<?x2xf32>, %d: tensor<?x4xf32>) -> tensor<?x4xf32> {
  %y = moe.combine %g, %p weights(%w : tensor<?x2xf32>) dropped(%d : tensor<?x4xf32>) : tensor<?x4xf32>, tensor<?x2xi32>
  return %y : tensor<?x4xf32>
}

// -----

// Only the choices that were kept count in the denominator.
// CHECK-LABEL: func.func @normalize(
// CHECK-SAME:    %[[P:[^:]*]]: tensor<?x2xi32>, %[[W:[^:]*]]: tensor<?x2xf32>)
// CHECK:         %[[KEPT:.*]] = linalg.generic {{.*}} ins(%[[P]] :
// CHECK:         %[[TERMS:.*]] = linalg.generic {{.*}} ins(%{{.*}}, %[[KEPT]] :
// CHECK:           arith.select
// CHECK:         %[[SUM:.*]] = linalg.generic {{.*}} ins(%[[TERMS]] :
// CHECK:           arith.addf
// CHECK:         arith.divf
// CHECK:         scf.if
func.func @normalize(%g: tensor<?x4xf32>, %p: tensor<?x2xi32>, %w: tensor<?x2xf32>) -> tensor<?x4xf32> {
  %y = moe.combine %g, %p weights(%w : tensor<?x2xf32>) normalize(<sum>) : tensor<?x4xf32>, tensor<?x2xi32>
  return %y : tensor<?x4xf32>
}

// -----

// CHECK-LABEL: func.func @static_tokens(
// CHECK-SAME:    -> tensor<0x4xf32>
func.func @static_tokens(%g: tensor<?x4xf32>, %p: tensor<0x2xi32>, %w: tensor<?x2xf32>, %d: tensor<?x4xf32>) -> tensor<0x4xf32> {
  %y = moe.combine %g, %p weights(%w : tensor<?x2xf32>) dropped(%d : tensor<?x4xf32>) : tensor<?x4xf32>, tensor<0x2xi32>
  return %y : tensor<0x4xf32>
}
