// RUN: moe-opt %s -convert-moe-to-cpu | FileCheck %s

// Four vectors at a time, then single vectors with a mask; choices in ascending order.
// CHECK-LABEL: func.func @weighted(
// CHECK-SAME:    %[[X:[a-z0-9]+]]: memref<?x21xf32>, %[[P:[a-z0-9]+]]: memref<?x3xi32>, %[[W:[a-z0-9]+]]: memref<?x3xf32>, %[[Y:[a-z0-9]+]]: memref<?x21xf32>)
// CHECK:         scf.forall
// CHECK:           %[[ROWS:.*]] = memref.dim %[[X]], %c0
// CHECK:           %[[SUMS:.*]]:4 = scf.for %[[K:.*]] = %c0{{.*}} to %c3{{.*}} step %c1{{.*}} iter_args(
// CHECK:             %[[POSITION:.*]] = memref.load %[[P]][%{{.*}}, %[[K]]]
// CHECK:             %[[ROW:.*]] = arith.index_cast %[[POSITION]]
// An out-of-range position adds nothing.
// CHECK:             %[[ISROW:.*]] = arith.cmpi ult, %[[ROW]], %[[ROWS]] : index
// CHECK:             scf.if %[[ISROW]]
// CHECK-COUNT-4:       vector.load %[[X]]
// CHECK:             } else {
// CHECK-NEXT:          scf.yield
// CHECK-COUNT-4:   vector.store %{{.*}}, %[[Y]]
// CHECK:           %[[MASK:.*]] = vector.create_mask
// CHECK:             vector.maskedload %[[X]]{{.*}}, %[[MASK]]
// CHECK:           vector.maskedstore %[[Y]]{{.*}}, %[[MASK]]
// CHECK-NOT:     moe.gather_sum
func.func @weighted(%x: memref<?x21xf32>, %p: memref<?x3xi32>, %w: memref<?x3xf32>, %y: memref<?x21xf32>) {
  moe.gather_sum %x, %p weights(%w : memref<?x3xf32>) outs(%y : memref<?x21xf32>) : memref<?x21xf32>, memref<?x3xi32>
  return
}

// The dropped row is added in place of the row; sums are rounded once.
// CHECK-LABEL: func.func @dropped(
// CHECK-SAME:    %[[X:[a-z0-9]+]]: memref<?x16xbf16>, %{{[a-z0-9]+}}: memref<?x2xi32>, %[[D:[a-z0-9]+]]: memref<?x16xbf16>, %{{[a-z0-9]+}}: memref<?x16xbf16>)
// CHECK:         vector.load %[[X]]
// CHECK:         arith.extf %{{.*}} : vector<4xbf16> to vector<4xf32>
// CHECK-NOT:     arith.mulf
// CHECK:         } else {
// CHECK:           vector.load %[[D]]
// CHECK:         arith.truncf %{{.*}} : vector<4xf32> to vector<4xbf16>
// CHECK:         vector.store
func.func @dropped(%x: memref<?x16xbf16>, %p: memref<?x2xi32>, %d: memref<?x16xbf16>, %y: memref<?x16xbf16>) {
  moe.gather_sum %x, %p dropped(%d : memref<?x16xbf16>) outs(%y : memref<?x16xbf16>) : memref<?x16xbf16>, memref<?x2xi32>
  return
}

// CHECK-LABEL: func.func @no_columns(
// CHECK-NOT:     moe.gather_sum
func.func @no_columns(%x: memref<?x0xf32>, %p: memref<?x2xi32>, %y: memref<?x0xf32>) {
  moe.gather_sum %x, %p outs(%y : memref<?x0xf32>) : memref<?x0xf32>, memref<?x2xi32>
  return
}

// Partial vectors of 16-bit elements use no masked access, which not every CPU has.
// CHECK-LABEL: func.func @half_columns(
// CHECK-NOT:     vector.masked
// CHECK:         return
func.func @half_columns(%x: memref<?x5xbf16>, %p: memref<?x2xi32>, %y: memref<?x5xbf16>) {
  moe.gather_sum %x, %p outs(%y : memref<?x5xbf16>) : memref<?x5xbf16>, memref<?x2xi32>
  return
}
