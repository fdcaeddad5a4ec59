// RUN: moe-opt %s --moe-vectorize-rows | FileCheck %s

// The largest logit of each token: a loop over tokens, a vector of eight experts.
// CHECK:      scf.for
// CHECK:        vector.load {{.*}} vector<8xf32>
// CHECK:        vector.reduction <maximumf>
func.func @largest(%x: memref<?x8xf32>, %y: memref<?xf32>) {
  linalg.reduce { arith.maximumf } ins(%x : memref<?x8xf32>) outs(%y : memref<?xf32>) dimensions = [1]
  return
}
