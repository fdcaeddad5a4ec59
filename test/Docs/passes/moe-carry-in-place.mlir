// RUN: moe-opt %s --moe-carry-in-place | FileCheck %s

// Each iteration copies what it computed to where it came in.
// CHECK:      scf.for {{.*}} iter_args(%[[S:.*]] = %{{.*}})
// CHECK:        %[[Z:.*]] = linalg.add
// CHECK:        %[[M:.*]] = bufferization.materialize_in_destination %[[Z]] in %[[S]]
// CHECK:        scf.yield %[[M]]
func.func @loop(%x: tensor<8x4xf32>, %n: index) -> tensor<8x4xf32> {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %y = scf.for %i = %c0 to %n step %c1 iter_args(%s = %x) -> tensor<8x4xf32> {
    %e = tensor.empty() : tensor<8x4xf32>
    %z = linalg.add ins(%s, %x : tensor<8x4xf32>, tensor<8x4xf32>) outs(%e : tensor<8x4xf32>) -> tensor<8x4xf32>
    scf.yield %z : tensor<8x4xf32>
  }
  return %y : tensor<8x4xf32>
}
