// RUN: moe-opt %s -convert-moe-to-linalg | FileCheck %s
// RUN: moe-opt %s -convert-moe-routing-to-linalg | FileCheck %s --check-prefix=KEEP

// The sums of each expert's rows, then the epilogue, written where they belong.
// CHECK-LABEL: func.func @product(
// CHECK-SAME:    %[[X:[a-z0-9]+]]: tensor<?x4xbf16>, %[[N:[a-z0-9]+]]: tensor<?xi32>, %[[O:[a-z0-9]+]]: tensor<4xi32>, %[[W:[a-z0-9]+]]: tensor<2x8x4xbf16>, %[[B:[a-z0-9]+]]: tensor<2x8xf32>, %[[Y:[a-z0-9]+]]: tensor<?x8xf32>)
// CHECK:         scf.for %[[E:.*]] = %c0{{.*}} to %c2{{.*}} step %c1{{.*}} iter_args(%[[ITER:.*]] = %[[Y]])
// CHECK:           %[[PLACE:.*]] = arith.addi %[[E]], %c1
// CHECK:           tensor.extract %[[O]][%[[PLACE]]]
// CHECK:           arith.maxsi
// CHECK:           arith.minsi
// CHECK:           linalg.generic {{.*}}iterator_types = ["parallel", "parallel", "reduction"]
// CHECK:             tensor.extract %[[N]]
// CHECK:             arith.maxsi
// CHECK:             arith.minsi
// CHECK:             tensor.extract %[[X]]
// CHECK:             tensor.extract %[[W]][%[[E]],
// CHECK:             arith.mulf %{{.*}} : f32
// CHECK:             arith.addf %{{.*}} : f32
// CHECK:           linalg.generic {{.*}}iterator_types = ["parallel", "parallel"]
// CHECK:             tensor.extract %[[B]][%[[E]],
// CHECK:             arith.maximumf
// CHECK:           tensor.insert_slice %{{.*}} into %[[ITER]]
// CHECK-NOT:     moe.
// KEEP-LABEL: func.func @product(
// KEEP-NEXT:    moe.grouped_matmul
// KEEP-NOT:     linalg
// KEEP:         return
func.func @product(%x: tensor<?x4xbf16>, %n: tensor<?xi32>, %o: tensor<4xi32>, %w: tensor<2x8x4xbf16>, %b: tensor<2x8xf32>, %y: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %r = moe.grouped_matmul %x gather(%n : tensor<?xi32>) offsets(%o : tensor<4xi32>) weights(%w : tensor<2x8x4xbf16>) transposed first(1)
      operands(%b : tensor<2x8xf32>) maps([affine_map<(e, r, n) -> (e, n)>]) outs(%y : tensor<?x8xf32>) {
  ^bb0(%s: f32, %c: f32):
    %t = arith.maximumf %s, %c : f32
    moe.yield %t : f32
  } : tensor<?x4xbf16> -> tensor<?x8xf32>
  return %r : tensor<?x8xf32>
}

// Packed weights are read from their panels: column 6 of the second product is
// column 3 + 2 of the third panel.
// CHECK-LABEL: func.func @packed(
// CHECK-SAME:    %[[W:[a-z0-9]+]]: tensor<1x3x2x6x2xf32>
// CHECK:         arith.remui %{{.*}}, %c3
// CHECK:         arith.divui %{{.*}}, %c3
// CHECK:         arith.divui %{{.*}}, %c2
// CHECK:         arith.remui %{{.*}}, %c2
// CHECK:         tensor.extract %[[W]]
func.func @packed(%x: tensor<?x4xf32>, %w: tensor<1x3x2x6x2xf32>, %y: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %r = moe.grouped_matmul %x weights(%w : tensor<1x3x2x6x2xf32>) panels(<matmuls = 2, columns = 6, depth = 2>) outs(%y : tensor<?x8xf32>) {
  ^bb0(%s: f32, %t: f32):
    %u = arith.mulf %s, %t : f32
    moe.yield %u : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return %r : tensor<?x8xf32>
}

// Every element of a panel looks up its own; beyond the weights there are zeros.
// CHECK-LABEL: func.func @pack(
// CHECK-SAME:    %[[W:[a-z0-9]+]]: tensor<2x7x5xf32>
// CHECK:         linalg.generic
// CHECK:           arith.cmpi ult
// CHECK:           arith.cmpi ult
// CHECK:           scf.if
// CHECK:             tensor.extract %[[W]]
// CHECK-NOT:     moe.
// KEEP-LABEL: func.func @pack(
// KEEP-NEXT:    moe.pack
func.func @pack(%w: tensor<2x7x5xf32>, %p: tensor<2x2x3x4x2xf32>) -> tensor<2x2x3x4x2xf32> {
  %r = moe.pack %w transposed panels(<matmuls = 1, columns = 4, depth = 2>) outs(%p : tensor<2x2x3x4x2xf32>) : tensor<2x7x5xf32> -> tensor<2x2x3x4x2xf32>
  return %r : tensor<2x2x3x4x2xf32>
}

// CHECK-LABEL: func.func @sum(
// CHECK:         linalg.generic {{.*}}iterator_types = ["parallel", "parallel", "reduction"]
// CHECK:           arith.cmpi ult
// CHECK-NOT:     moe.
// KEEP-LABEL: func.func @sum(
// KEEP-NEXT:    moe.gather_sum
func.func @sum(%x: tensor<?x4xbf16>, %p: tensor<?x2xi32>, %w: tensor<?x2xf32>, %y: tensor<?x4xbf16>) -> tensor<?x4xbf16> {
  %r = moe.gather_sum %x, %p weights(%w : tensor<?x2xf32>) outs(%y : tensor<?x4xbf16>) : tensor<?x4xbf16>, tensor<?x2xi32> -> tensor<?x4xbf16>
  return %r : tensor<?x4xbf16>
}

// The numbers of the tokens of a dispatch, without their rows.
// CHECK-LABEL: func.func @route(
// CHECK-NOT:     moe.
// CHECK:         return %{{.*}}, %{{.*}}, %{{.*}} : tensor<6xi32>, tensor<4xi32>, tensor<3x2xi32>
// KEEP-LABEL: func.func @route(
// KEEP-NOT:     moe.
// KEEP:         return
func.func @route(%ids: tensor<3x2xi32>) -> (tensor<6xi32>, tensor<4xi32>, tensor<3x2xi32>) {
  %n, %o, %p = moe.route %ids experts(3) : tensor<3x2xi32>
  return %n, %o, %p : tensor<6xi32>, tensor<4xi32>, tensor<3x2xi32>
}
