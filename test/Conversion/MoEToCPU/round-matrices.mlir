// RUN: moe-opt %s -convert-moe-to-cpu="vector-bits=512 vector-registers=32" | FileCheck %s
// RUN: moe-opt %s -convert-moe-to-cpu="vector-bits=256" | FileCheck %s --check-prefix=AVX2

// Two vectors of a group are read for the scale, and again for 16 codes, in 8 bytes, each.
// CHECK-LABEL: func.func @int4(
// CHECK-SAME:    %[[W:[a-z0-9]+]]: memref<?x48x64xbf16>, %[[Q:[a-z0-9]+]]: memref<?x48x32xi8>, %[[S:[a-z0-9]+]]: memref<?x48x2xf16>)
// CHECK:         scf.forall
// CHECK-COUNT-2:   vector.load %[[W]]{{.*}} vector<16xbf16>
// CHECK:           vector.reduction <maxsi>
// CHECK:           vector.reduction <minsi>
// CHECK:           memref.store %{{.*}}, %[[S]]
// CHECK:           vector.load %[[W]]
// CHECK:           math.roundeven {{.*}} vector<16xf32>
// CHECK:           vector.store %{{.*}}, %[[Q]]{{.*}} vector<8xi8>
// CHECK:           vector.store %{{.*}}, %[[Q]]{{.*}} vector<8xi8>
// AVX2-LABEL: func.func @int4(
// AVX2-COUNT-4: vector.load {{.*}} vector<8xbf16>
// AVX2-COUNT-4: vector.store {{.*}} vector<4xi8>
// AVX2-NOT:   moe.round_matrices
func.func @int4(%w: memref<?x48x64xbf16>, %q: memref<?x48x32xi8>, %s: memref<?x48x2xf16>) {
  moe.round_matrices %w format(<codes = <element = ui4, bits = [#moe.bits<width = 4>]>, offset = 8,
                                scales = [#moe.field<element = f16, operand = 1, block = [1, 32]>]>)
      outs(%q, %s : memref<?x48x32xi8>, memref<?x48x2xf16>) : memref<?x48x64xbf16>
  return
}

// A task sums up the errors of a matrix. The vectors of long rows are a loop.
// CHECK-LABEL: func.func @errors(
// CHECK-SAME:    %[[W:[a-z0-9]+]]: memref<?x48x1024xf32>, %[[E:[a-z0-9]+]]: memref<?xf32>)
// CHECK:         scf.forall (%[[MATRIX:.*]]) in
// CHECK:           scf.for {{.*}} iter_args({{.*}}) -> (vector<16xf64>, vector<16xf64>)
// CHECK:             scf.for {{.*}} -> (vector<16xi32>, vector<16xi32>)
// CHECK:             scf.for {{.*}} -> (vector<16xf64>, vector<16xf64>)
// CHECK-COUNT-2:   vector.reduction <add>
// CHECK:           %[[ERROR:.*]] = arith.truncf
// CHECK:           memref.store %[[ERROR]], %[[E]][%[[MATRIX]]]
func.func @errors(%w: memref<?x48x1024xf32>, %e: memref<?xf32>) {
  moe.round_matrices %w format(<codes = <element = si8>, scales = [#moe.field<element = f32, operand = 1, block = [1, 1024]>]>)
      outs(%e : memref<?xf32>) : memref<?x48x1024xf32>
  return
}
