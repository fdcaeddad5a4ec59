// RUN: moe-opt %s -moe-vectorize-rows=elements=16 -split-input-file | FileCheck %s

#id = affine_map<(t, e) -> (t, e)>
#t = affine_map<(t, e) -> (t)>

// A loop over the tokens, a vector of all that a token has.
// CHECK-LABEL: func.func @maximum(
// CHECK:         scf.for
// CHECK:           %[[ROW:.*]] = vector.load %{{.*}} : {{.*}}, vector<8xf32>
// CHECK:           vector.reduction <maximumf>, %[[ROW]], %{{.*}} : vector<8xf32> into f32
// CHECK-NOT:     linalg
func.func @maximum(%x: memref<?x8xf32>, %y: memref<?xf32>) {
  linalg.generic {indexing_maps = [#id, #t], iterator_types = ["parallel", "reduction"]}
      ins(%x : memref<?x8xf32>) outs(%y : memref<?xf32>) {
  ^bb0(%a: f32, %old: f32):
    %m = arith.maximumf %a, %old : f32
    linalg.yield %m : f32
  }
  return
}

// -----

#id = affine_map<(t, e) -> (t, e)>
#t = affine_map<(t, e) -> (t)>

// 40 elements in vectors of 10; the number of an element counts from the start of
// the row; a mask is of bytes.
// CHECK-LABEL: func.func @first(
// CHECK:         scf.for
// CHECK:           scf.for %[[E:.*]] = %c0{{.*}} to %c40{{.*}} step %c10
// CHECK-DAG:         vector.load %{{.*}} : {{.*}}, vector<10xf32>
// CHECK-DAG:         vector.load %{{.*}} : {{.*}}, vector<10xi8>
// CHECK-DAG:         vector.step : vector<10xindex>
// CHECK-DAG:         vector.broadcast %[[E]] : index to vector<10xindex>
// CHECK:             vector.reduction <minsi>
// CHECK-NOT:     linalg
func.func @first(%x: memref<?x40xf32>, %taken: memref<?x40xi8>, %most: memref<?xf32>, %y: memref<?xi32>) {
  %none = arith.constant 2147483647 : i32
  %zero = arith.constant 0 : i8
  linalg.generic {indexing_maps = [#id, #id, #t, #t], iterator_types = ["parallel", "reduction"]}
      ins(%x, %taken, %most : memref<?x40xf32>, memref<?x40xi8>, memref<?xf32>) outs(%y : memref<?xi32>) {
  ^bb0(%a: f32, %mask: i8, %m: f32, %old: i32):
    %equal = arith.cmpf oeq, %a, %m : f32
    %open = arith.cmpi eq, %mask, %zero : i8
    %found = arith.andi %equal, %open : i1
    %n = linalg.index 1 : index
    %i = arith.index_cast %n : index to i32
    %c = arith.select %found, %i, %none : i32
    %r = arith.minsi %c, %old : i32
    linalg.yield %r : i32
  }
  return
}

// -----

#id = affine_map<(t, e) -> (t, e)>
#across = affine_map<(t, e) -> (e, t)>
#t = affine_map<(t, e) -> (t)>

// Elements that are apart, a dynamic number of them, 3 of them, a prime number, a
// byte for eight of them, one read from somewhere, and a sum over tokens stay loops.
// CHECK-LABEL: func.func @others(
// CHECK-COUNT-7: linalg.generic
// CHECK-NOT:     vector
func.func @others(%x: memref<8x?xf32>, %y: memref<?x8xf32>, %d: memref<?x?xf32>, %three: memref<?x3xf32>,
                  %prime: memref<?x17xf32>, %bits: memref<?x8xi1>, %s: memref<8xf32>, %i: index) {
  linalg.generic {indexing_maps = [#across, #id], iterator_types = ["parallel", "parallel"]}
      ins(%x : memref<8x?xf32>) outs(%y : memref<?x8xf32>) {
  ^bb0(%a: f32, %old: f32):
    linalg.yield %a : f32
  }
  linalg.generic {indexing_maps = [#id], iterator_types = ["parallel", "parallel"]} outs(%d : memref<?x?xf32>) {
  ^bb0(%old: f32):
    %r = arith.negf %old : f32
    linalg.yield %r : f32
  }
  linalg.generic {indexing_maps = [#id], iterator_types = ["parallel", "parallel"]} outs(%three : memref<?x3xf32>) {
  ^bb0(%old: f32):
    %r = arith.negf %old : f32
    linalg.yield %r : f32
  }
  linalg.generic {indexing_maps = [#id], iterator_types = ["parallel", "parallel"]} outs(%prime : memref<?x17xf32>) {
  ^bb0(%old: f32):
    %r = arith.negf %old : f32
    linalg.yield %r : f32
  }
  linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel", "parallel"]}
      ins(%y : memref<?x8xf32>) outs(%bits : memref<?x8xi1>) {
  ^bb0(%a: f32, %old: i1):
    %r = arith.cmpf uno, %a, %a : f32
    linalg.yield %r : i1
  }
  linalg.generic {indexing_maps = [#id], iterator_types = ["parallel", "parallel"]} outs(%y : memref<?x8xf32>) {
  ^bb0(%old: f32):
    %r = memref.load %s[%i] : memref<8xf32>
    linalg.yield %r : f32
  }
  linalg.generic {indexing_maps = [#across, #t], iterator_types = ["parallel", "reduction"]}
      ins(%y : memref<?x8xf32>) outs(%s : memref<8xf32>) {
  ^bb0(%a: f32, %old: f32):
    %r = arith.addf %a, %old : f32
    linalg.yield %r : f32
  }
  return
}
