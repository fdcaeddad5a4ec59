// RUN: moe-opt %s --moe-linalg-to-tasks='elements=64' | FileCheck %s

// Blocks of eight tokens, eight elements each.
// CHECK:      arith.ceildivui %{{.*}}, %c8
// CHECK:      scf.forall
// CHECK:        memref.subview
// CHECK:        linalg.generic
#id = affine_map<(t, e) -> (t, e)>
func.func @tokens(%x: memref<?x8xf32>, %y: memref<?x8xf32>) {
  linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel", "parallel"]}
      ins(%x : memref<?x8xf32>) outs(%y : memref<?x8xf32>) {
  ^bb0(%a: f32, %old: f32):
    %n = arith.negf %a : f32
    linalg.yield %n : f32
  }
  return
}
