// RUN: moe-opt %s -moe-linalg-to-tasks=elements=64 | FileCheck %s

#id = affine_map<(t, e) -> (t, e)>
#e = affine_map<(t, e) -> (e)>
#t = affine_map<(t, e) -> (t)>

// Eight tokens of eight elements go together; what has no tokens is read whole,
// and numbers of tokens are those of all.
// CHECK-LABEL: func.func @tokens(
// CHECK-SAME:    %[[X:.*]]: memref<?x8xf32>, %[[B:.*]]: memref<8xf32>, %[[Y:.*]]: memref<?xindex>)
// CHECK:         %[[BLOCKS:.*]] = arith.ceildivui %{{.*}}, %c8
// CHECK:         scf.forall (%[[I:.*]]) in (%[[BLOCKS]]) {
// CHECK:           %[[FIRST:.*]] = arith.muli %[[I]], %c8
// CHECK:           %[[SIZE:.*]] = arith.minsi
// CHECK:           %[[XS:.*]] = memref.subview %[[X]][%[[FIRST]], 0] [%[[SIZE]], 8] [1, 1]
// CHECK:           %[[YS:.*]] = memref.subview %[[Y]][%[[FIRST]]] [%[[SIZE]]] [1]
// CHECK:           linalg.generic {{.*}} ins(%[[XS]], %[[B]] : {{.*}} outs(%[[YS]] :
// CHECK:             %[[LOCAL:.*]] = linalg.index 0
// CHECK:             affine.apply #{{.*}}(%[[FIRST]])[%[[LOCAL]]]
func.func @tokens(%x: memref<?x8xf32>, %b: memref<8xf32>, %y: memref<?xindex>) {
  linalg.generic {indexing_maps = [#id, #e, #t], iterator_types = ["parallel", "reduction"]}
      ins(%x, %b : memref<?x8xf32>, memref<8xf32>) outs(%y : memref<?xindex>) {
  ^bb0(%a: f32, %c: f32, %old: index):
    %n = linalg.index 0 : index
    linalg.yield %n : index
  }
  return
}

// A sum over the tokens, a static number of them, and a part of a parallel loop
// stay what they are.
// CHECK-LABEL: func.func @others(
// CHECK:         linalg.generic
// CHECK:         linalg.generic
// CHECK:         scf.forall
// CHECK-NOT:     scf.forall
// CHECK:         linalg.generic
// CHECK-NOT:     scf.forall
func.func @others(%x: memref<?xf32>, %s: memref<f32>, %z: memref<8xf32>, %n: index) {
  linalg.generic {indexing_maps = [affine_map<(t) -> (t)>, affine_map<(t) -> ()>],
                  iterator_types = ["reduction"]}
      ins(%x : memref<?xf32>) outs(%s : memref<f32>) {
  ^bb0(%a: f32, %old: f32):
    %r = arith.addf %a, %old : f32
    linalg.yield %r : f32
  }
  linalg.generic {indexing_maps = [affine_map<(t) -> (t)>], iterator_types = ["parallel"]}
      outs(%z : memref<8xf32>) {
  ^bb0(%old: f32):
    linalg.yield %old : f32
  }
  scf.forall (%i) in (%n) {
    linalg.generic {indexing_maps = [affine_map<(t) -> (t)>], iterator_types = ["parallel"]}
        outs(%x : memref<?xf32>) {
    ^bb0(%old: f32):
      linalg.yield %old : f32
    }
  }
  return
}
