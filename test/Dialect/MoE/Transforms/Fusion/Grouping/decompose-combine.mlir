// RUN: moe-opt %s -moe-decompose-combine -canonicalize -cse | FileCheck %s --implicit-check-not=moe.combine

// The weights are extended to f32; there are as many sums as tokens.
// CHECK-LABEL: func.func @weighted(
// CHECK-SAME:    %[[X:[a-z0-9]+]]: tensor<?x4xbf16>, %[[P:[a-z0-9]+]]: tensor<?x2xi32>, %[[W:[a-z0-9]+]]: tensor<?x2xbf16>, %[[D:[a-z0-9]+]]: tensor<?x4xbf16>)
// CHECK:         %[[F:.*]] = linalg.generic {{.*}} ins(%[[W]] : tensor<?x2xbf16>)
// CHECK:           arith.extf
// CHECK:         %[[T:.*]] = tensor.dim %[[P]], %c0
// CHECK:         %[[E:.*]] = tensor.empty(%[[T]]) : tensor<?x4xbf16>
// CHECK:         %[[Y:.*]] = moe.gather_sum %[[X]], %[[P]] weights(%[[F]] : tensor<?x2xf32>) dropped(%[[D]] : tensor<?x4xbf16>) outs(%[[E]] : tensor<?x4xbf16>)
// CHECK:         return %[[Y]]
func.func @weighted(%x: tensor<?x4xbf16>, %p: tensor<?x2xi32>, %w: tensor<?x2xbf16>, %d: tensor<?x4xbf16>) -> tensor<?x4xbf16> {
  %y = moe.combine %x, %p weights(%w : tensor<?x2xbf16>) dropped(%d : tensor<?x4xbf16>) : tensor<?x4xbf16>, tensor<?x2xi32>
  return %y : tensor<?x4xbf16>
}

// The weights are normalized over the choices that were kept.
// CHECK-LABEL: func.func @normalized(
// CHECK:         arith.cmpi sge
// CHECK:         arith.divf
// CHECK:         moe.gather_sum
func.func @normalized(%x: tensor<?x4xf32>, %p: tensor<?x2xi32>, %w: tensor<?x2xf32>) -> tensor<?x4xf32> {
  %y = moe.combine %x, %p weights(%w : tensor<?x2xf32>) normalize(<sum>) : tensor<?x4xf32>, tensor<?x2xi32>
  return %y : tensor<?x4xf32>
}

// Without weights there is nothing else to compute, and a static T stays.
// CHECK-LABEL: func.func @unweighted(
// CHECK-NOT:     linalg
// CHECK:         moe.gather_sum {{.*}} outs(%{{.*}} : tensor<3x4xf32>)
// CHECK-NOT:     tensor.cast
func.func @unweighted(%x: tensor<6x4xf32>, %p: tensor<3x2xi32>) -> tensor<3x4xf32> {
  %y = moe.combine %x, %p : tensor<6x4xf32>, tensor<3x2xi32>
  return %y : tensor<3x4xf32>
}
