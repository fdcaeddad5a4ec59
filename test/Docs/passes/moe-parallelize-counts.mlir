// RUN: moe-opt %s --moe-parallelize-counts | FileCheck %s

// The order of additions of integers does not matter.
// CHECK:      scf.parallel
// CHECK:        memref.atomic_rmw addi
func.func @sum(%x: memref<?xi32>, %n: memref<i32>) {
  linalg.generic {indexing_maps = [affine_map<(i) -> (i)>, affine_map<(i) -> ()>], iterator_types = ["reduction"]}
      ins(%x : memref<?xi32>) outs(%n : memref<i32>) {
  ^bb0(%a: i32, %sum: i32):
    %s = arith.addi %a, %sum : i32
    linalg.yield %s : i32
  }
  return
}
