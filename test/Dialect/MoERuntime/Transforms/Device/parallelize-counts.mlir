// RUN: moe-opt %s -moe-parallelize-counts | FileCheck %s


#id = affine_map<(i, j) -> (i, j)>
#turned = affine_map<(i, j) -> (j, i)>
#row = affine_map<(i, j) -> (i)>
#all = affine_map<(i, j) -> ()>
#one = affine_map<(i) -> (i)>
#none = affine_map<(i) -> ()>

// Each iteration adds its own to the counts, in any order; 0 stands for the others.
// CHECK-LABEL: func.func @counts(
// CHECK-SAME:    %[[X:.*]]: memref<?x3xi32>, %[[R:.*]]: memref<?xi64>, %[[N:.*]]: memref<i32>, %[[M:.*]]: memref<i64>)
// CHECK:         %[[D:.*]] = memref.dim %[[X]], %c0
// CHECK:         scf.parallel (%[[I:.*]], %[[J:.*]]) = (%c0{{.*}}, %c0{{.*}}) to (%[[D]], %c3{{.*}}) step (%c1{{.*}}, %c1{{.*}}) {
// CHECK-DAG:       %[[A:.*]] = memref.load %[[X]][%[[I]], %[[J]]]
// CHECK-DAG:       %[[B:.*]] = memref.load %[[R]][%[[I]]]
// CHECK-DAG:       %[[ZERO:.*]] = arith.constant 0 : i32
// CHECK-DAG:       %[[ZERO64:.*]] = arith.constant 0 : i64
// CHECK:           %[[ONE:.*]] = arith.extui %{{.*}} : i1 to i32
// CHECK:           %[[ADD:.*]] = arith.addi %[[ONE]], %[[ZERO]]
// CHECK:           %[[L:.*]] = arith.index_cast %[[J]] : index to i64
// CHECK:           %[[TERM:.*]] = arith.muli %[[B]], %[[L]]
// CHECK:           %[[ADD64:.*]] = arith.addi %[[ZERO64]], %[[TERM]]
// CHECK:           memref.atomic_rmw addi %[[ADD]], %[[N]][] : (i32, memref<i32>)
// CHECK:           memref.atomic_rmw addi %[[ADD64]], %[[M]][] : (i64, memref<i64>)
// CHECK-NOT:     linalg.generic
// CHECK:         return
func.func @counts(%x: memref<?x3xi32>, %r: memref<?xi64>, %n: memref<i32>, %m: memref<i64>) {
  linalg.generic {indexing_maps = [#id, #row, #all, #all], iterator_types = ["reduction", "reduction"]}
      ins(%x, %r : memref<?x3xi32>, memref<?xi64>) outs(%n, %m : memref<i32>, memref<i64>) {
  ^bb0(%a: i32, %b: i64, %count: i32, %sum: i64):
    %c0 = arith.constant 0 : i32
    %valid = arith.cmpi sge, %a, %c0 : i32
    %one = arith.extui %valid : i1 to i32
    %next = arith.addi %one, %count : i32
    %j = linalg.index 1 : index
    %l = arith.index_cast %j : index to i64
    %term = arith.muli %b, %l : i64
    %more = arith.addi %sum, %term : i64
    linalg.yield %next, %more : i32, i64
  }
  return
}

// CHECK-LABEL: func.func @turned(
// CHECK-SAME:    %[[X:.*]]: memref<4x6xi32>, %[[N:.*]]: memref<i32>)
// CHECK:         scf.parallel (%[[I:.*]], %[[J:.*]]) = {{.*}} to (%c6{{.*}}, %c4{{.*}})
// CHECK:           memref.load %[[X]][%[[J]], %[[I]]]
func.func @turned(%x: memref<4x6xi32>, %n: memref<i32>) {
  linalg.generic {indexing_maps = [#turned, #all], iterator_types = ["reduction", "reduction"]}
      ins(%x : memref<4x6xi32>) outs(%n : memref<i32>) {
  ^bb0(%a: i32, %count: i32):
    %next = arith.addi %a, %count : i32
    linalg.yield %next : i32
  }
  return
}

// Sums of floats have an order; sums of rows are parallel already; a maximum, or a
// sum that is used before it is complete, is no count. Tensors wait for buffers.
// CHECK-LABEL: func.func @others(
// CHECK-COUNT-5: linalg.generic
// CHECK-NOT:     memref.atomic_rmw
// CHECK-NOT:     scf.parallel
// CHECK:         return
func.func @others(%f: memref<?xf32>, %s: memref<f32>, %x: memref<?x3xi32>, %r: memref<?xi32>, %v: memref<?xi32>, %n: memref<i32>, %t: tensor<?xi32>, %u: tensor<i32>) -> tensor<i32> {
  linalg.generic {indexing_maps = [#one, #none], iterator_types = ["reduction"]} ins(%f : memref<?xf32>) outs(%s : memref<f32>) {
  ^bb0(%a: f32, %sum: f32):
    %next = arith.addf %a, %sum : f32
    linalg.yield %next : f32
  }
  linalg.generic {indexing_maps = [#id, #row], iterator_types = ["parallel", "reduction"]} ins(%x : memref<?x3xi32>) outs(%r : memref<?xi32>) {
  ^bb0(%a: i32, %sum: i32):
    %next = arith.addi %a, %sum : i32
    linalg.yield %next : i32
  }
  linalg.generic {indexing_maps = [#one, #none], iterator_types = ["reduction"]} ins(%v : memref<?xi32>) outs(%n : memref<i32>) {
  ^bb0(%a: i32, %most: i32):
    %next = arith.maxsi %a, %most : i32
    linalg.yield %next : i32
  }
  linalg.generic {indexing_maps = [#one, #none], iterator_types = ["reduction"]} ins(%v : memref<?xi32>) outs(%n : memref<i32>) {
  ^bb0(%a: i32, %sum: i32):
    %b = arith.xori %a, %sum : i32
    %next = arith.addi %b, %sum : i32
    linalg.yield %next : i32
  }
  %y = linalg.generic {indexing_maps = [#one, #none], iterator_types = ["reduction"]} ins(%t : tensor<?xi32>) outs(%u : tensor<i32>) {
  ^bb0(%a: i32, %sum: i32):
    %next = arith.addi %a, %sum : i32
    linalg.yield %next : i32
  } -> tensor<i32>
  return %y : tensor<i32>
}
