// RUN: moe-opt %s -convert-moe-to-cpu="vector-bits=512 vector-registers=32" | FileCheck %s
// RUN: moe-opt %s -convert-moe-to-cpu="vector-bits=256" | FileCheck %s --check-prefix=AVX2

// Tasks of 16384 elements; a group has 32 elements, and 40 bytes.
// CHECK-LABEL: func.func @rows(
// CHECK-SAME:    %[[X:[a-z0-9]+]]: memref<?x64xbf16>, %[[Q:[a-z0-9]+]]: memref<?x96xi8>)
// CHECK:         scf.forall
// CHECK:           scf.for %[[ROW:[a-z0-9]+]] =
// CHECK:             scf.for %[[GROUP:[a-z0-9]+]] = %c0{{[_0-9]*}} to %c2{{[_0-9]*}} step
// CHECK-COUNT-2:       vector.load %[[X]][%[[ROW]], %{{.*}}] : memref<?x64xbf16>, vector<16xbf16>
// CHECK:               arith.maximumf
// CHECK:               %[[MOST:.*]] = vector.reduction <maximumf>
// CHECK:               %[[ISZERO:.*]] = arith.cmpf olt, %[[MOST]]
// CHECK:               arith.select %[[ISZERO]]
// CHECK:               vector.fma
// CHECK:               %[[FIRST:.*]] = arith.muli %[[GROUP]], %c48
// CHECK:               vector.shuffle {{.*}} [0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15] : vector<16xi8>
// CHECK-NEXT:          vector.store %{{.*}}, %[[Q]][%[[ROW]], %[[FIRST]]] : memref<?x96xi8>, vector<16xi8>
// The scale and the sums of even and odd elements.
// CHECK:               vector.store %{{.*}}, %[[Q]][%[[ROW]], %{{.*}}] : memref<?x96xi8>, vector<4xi8>
// CHECK:               vector.reduction <add>
// CHECK:               vector.store %{{.*}}, %[[Q]][%[[ROW]], %{{.*}}] : memref<?x96xi8>, vector<4xi8>
// AVX2-LABEL: func.func @rows(
// AVX2-COUNT-4: vector.load {{.*}} vector<8xbf16>
// AVX2-COUNT-4: vector.store {{.*}} vector<8xi8>
// AVX2-NOT:   moe.quantize_rows
func.func @rows(%x: memref<?x64xbf16>, %q: memref<?x96xi8>) {
  moe.quantize_rows %x outs(%q : memref<?x96xi8>) : memref<?x64xbf16>
  return
}
