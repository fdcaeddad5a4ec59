// RUN: moe-opt %s -moe-parallelize-counts | FileCheck %s

#one = affine_map<(i) -> (i)>
#none = affine_map<(i) -> ()>

// What the sum is so far depends on the order of iterations: here it is added up in
// turn, so that nothing of this is a count.
// CHECK-LABEL: func.func @sum_of_sums(
// CHECK:         linalg.generic
// CHECK-NOT:     memref.atomic_rmw
// CHECK:         return
func.func @sum_of_sums(%v: memref<?xi32>, %n: memref<i32>, %m: memref<i32>) {
  linalg.generic {indexing_maps = [#one, #none, #none], iterator_types = ["reduction"]}
      ins(%v : memref<?xi32>) outs(%n, %m : memref<i32>, memref<i32>) {
  ^bb0(%a: i32, %sum: i32, %sums: i32):
    %next = arith.addi %a, %sum : i32
    %more = arith.addi %next, %sums : i32
    linalg.yield %next, %more : i32, i32
  }
  return
}

// An index has no width to make a zero of, and no atomic addition.
// CHECK-LABEL: func.func @index(
// CHECK:         linalg.generic
// CHECK-NOT:     memref.atomic_rmw
// CHECK:         return
func.func @index(%v: memref<?xindex>, %n: memref<index>) {
  linalg.generic {indexing_maps = [#one, #none], iterator_types = ["reduction"]} ins(%v : memref<?xindex>) outs(%n : memref<index>) {
  ^bb0(%a: index, %sum: index):
    %next = arith.addi %a, %sum : index
    linalg.yield %next : index
  }
  return
}
