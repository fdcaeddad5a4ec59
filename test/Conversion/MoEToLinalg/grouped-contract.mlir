// RUN: moe-opt %s -convert-moe-to-linalg | FileCheck %s
// RUN: moe-opt %s -convert-moe-routing-to-linalg | FileCheck %s --check-prefix=KEEP

// The rows of each expert are the reduction; a side that gathers reads numbers of rows.
// CHECK-LABEL: func.func @gathered(
// CHECK-SAME:    %[[X:[a-z0-9]+]]: tensor<?x4xbf16>, %[[G:[a-z0-9]+]]: tensor<?xi32>, %[[Y:[a-z0-9]+]]: tensor<?x6xbf16>, %[[O:[a-z0-9]+]]: tensor<4xi32>, %[[I:[a-z0-9]+]]: tensor<2x4x6xbf16>)
// None are contracted where there are none to gather from.
// CHECK:         %[[NONE:.*]] = arith.cmpi eq, %{{.*}}, %c0
// CHECK:         %[[LEFT:.*]] = arith.select %[[NONE]], %c0{{.*}}, %{{.*}} : index
// CHECK:         %[[ROWS:.*]] = arith.minsi %[[LEFT]], %{{.*}} : index
// CHECK:         scf.for %[[E:.*]] = %c0{{.*}} to %c2{{.*}} step %c1{{.*}} iter_args(%[[ITER:.*]] = %[[I]])
// CHECK:           %[[PLACE:.*]] = arith.addi %[[E]], %c1
// CHECK:           tensor.extract %[[O]][%[[PLACE]]]
// CHECK:           %[[LOW:.*]] = arith.maxsi
// CHECK:           %[[START:.*]] = arith.minsi %[[LOW]], %[[ROWS]]
// CHECK:           tensor.extract %[[O]]
// CHECK:           %[[ZEROS:.*]] = linalg.fill
// CHECK:           %[[NUMBERS:.*]] = tensor.extract_slice %[[G]][%[[START]]] [%[[COUNT:.*]]] [1] : tensor<?xi32> to tensor<?xi32>
// CHECK:           %[[RIGHT:.*]] = tensor.extract_slice %[[Y]][%[[START]], 0] [%[[COUNT]], 6] [1, 1]
// CHECK:           linalg.generic {{.*}}iterator_types = ["parallel", "parallel", "reduction"]
// CHECK-SAME:        ins(%[[NUMBERS]], %[[RIGHT]] : {{.*}}) outs(%[[ZEROS]] : tensor<4x6xf32>)
// CHECK:             arith.maxsi
// CHECK:             arith.minsi
// CHECK:             tensor.extract %[[X]]
// CHECK:             arith.mulf %{{.*}} : f32
// CHECK:             arith.addf %{{.*}} : f32
// CHECK:           linalg.generic {{.*}}iterator_types = ["parallel", "parallel"]
// CHECK:             arith.truncf %{{.*}} : f32 to bf16
// CHECK:           tensor.insert_slice %{{.*}} into %[[ITER]][%[[E]], 0, 0] [1, 4, 6] [1, 1, 1]
// CHECK-NOT:     moe.
// KEEP-LABEL: func.func @gathered(
// KEEP-NEXT:    moe.grouped_contract
// KEEP-NOT:     linalg
// KEEP:         return
func.func @gathered(%x: tensor<?x4xbf16>, %g: tensor<?xi32>, %y: tensor<?x6xbf16>, %o: tensor<4xi32>, %i: tensor<2x4x6xbf16>) -> tensor<2x4x6xbf16> {
  %r = moe.grouped_contract %x gather(%g : tensor<?xi32>), %y offsets(%o : tensor<4xi32>) first(1) outs(%i : tensor<2x4x6xbf16>)
    : tensor<?x4xbf16>, tensor<?x6xbf16> -> tensor<2x4x6xbf16>
  return %r : tensor<2x4x6xbf16>
}

// The sums start from the destination.
// CHECK-LABEL: func.func @accumulate(
// CHECK:         scf.for {{.*}} iter_args(%[[ITER:.*]] = %{{.*}})
// CHECK:           %[[OLD:.*]] = tensor.extract_slice %[[ITER]][%{{.*}}, 0, 0] [1, 4, 6] [1, 1, 1] : tensor<1x4x6xf16> to tensor<4x6xf16>
// CHECK:           %[[WIDE:.*]] = linalg.generic {{.*}} ins(%[[OLD]] : tensor<4x6xf16>)
// CHECK:             arith.extf
// CHECK:           linalg.generic {{.*}}"reduction"{{.*}} outs(%[[WIDE]] : tensor<4x6xf32>)
func.func @accumulate(%x: tensor<?x4xf32>, %y: tensor<?x6xf32>, %i: tensor<1x4x6xf16>) -> tensor<1x4x6xf16> {
  %r = moe.grouped_contract %x, %y accumulate outs(%i : tensor<1x4x6xf16>) : tensor<?x4xf32>, tensor<?x6xf32> -> tensor<1x4x6xf16>
  return %r : tensor<1x4x6xf16>
}
