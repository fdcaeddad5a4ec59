// RUN: moe-opt %s -moe-linalg-to-tasks=elements=64 -split-input-file | FileCheck %s
// RUN: moe-opt %s -moe-linalg-to-tasks=elements=64 -split-input-file --remarks-filter-passed=moe-fuse -o /dev/null 2>&1 | FileCheck %s --check-prefix=REMARK
// REMARK:     TokenLoopsFused | Category:moe-fuse | Function=fused | Remark="3 operations on each token run in one parallel loop"
// REMARK-NOT: TokenLoopsFused {{.*}} Function=others

#id = affine_map<(t, e) -> (t, e)>
#t = affine_map<(t) -> (t)>
#row = affine_map<(t, e) -> (t)>

// What works token by token shares one loop, with what lies between, a small product,
// and a loop over such operations, whose memory is made before.
// CHECK-LABEL: func.func @fused(
// CHECK-SAME:    %[[X:[a-z0-9]+]]: memref<?x6xf32>, %[[W:[a-z0-9]+]]: memref<1x1x6x8x1xf32>
// CHECK:         %[[S:.*]] = memref.alloc(%{{.*}}) : memref<?x8xf32>
// CHECK:         %[[B:.*]] = memref.alloc(%{{.*}}) : memref<?xf32>
// CHECK:         arith.ceildivui %{{.*}}, %c24
// CHECK:         scf.forall (%{{.*}}) in (%{{.*}}) {
// CHECK:           %[[XS:.*]] = memref.subview %[[X]]
// CHECK:           %[[SS:.*]] = memref.subview %[[S]]
// CHECK:           moe.grouped_matmul %[[XS]] weights(%[[W]] {{.*}} outs(%[[SS]]
// CHECK:           linalg.generic
// CHECK:           scf.for
// CHECK:             %[[BS:.*]] = memref.subview %[[B]]
// CHECK:             linalg.fill ins(%{{.*}}) outs(%[[BS]]
// CHECK:             linalg.generic
// CHECK:               memref.load %[[S]][%{{.*}}, %{{.*}}]
// CHECK-NOT:     scf.forall
// CHECK:         return
func.func @fused(%x: memref<?x6xf32>, %w: memref<1x1x6x8x1xf32>, %y: memref<?x2xf32>) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c2 = arith.constant 2 : index
  %zero = arith.constant 0.0 : f32
  %n = memref.dim %x, %c0 : memref<?x6xf32>
  %s = memref.alloc(%n) : memref<?x8xf32>
  moe.grouped_matmul %x weights(%w : memref<1x1x6x8x1xf32>) panels(<matmuls = 1, columns = 8, depth = 1>) outs(%s : memref<?x8xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : memref<?x6xf32>
  linalg.generic {indexing_maps = [#id], iterator_types = ["parallel", "parallel"]} outs(%s : memref<?x8xf32>) {
  ^bb0(%a: f32):
    %r = math.exp %a : f32
    linalg.yield %r : f32
  }
  scf.for %k = %c0 to %c2 step %c1 {
    %b = memref.alloc(%n) : memref<?xf32>
    linalg.fill ins(%zero : f32) outs(%b : memref<?xf32>)
    %column = memref.subview %y[0, %k] [%n, 1] [1, 1] : memref<?x2xf32> to memref<?xf32, strided<[2], offset: ?>>
    linalg.generic {indexing_maps = [#t, #t], iterator_types = ["parallel"]}
        ins(%b : memref<?xf32>) outs(%column : memref<?xf32, strided<[2], offset: ?>>) {
    ^bb0(%a: f32, %old: f32):
      %i = linalg.index 0 : index
      %v = memref.load %s[%i, %k] : memref<?x8xf32>
      %r = arith.addf %a, %v : f32
      linalg.yield %r : f32
    }
  }
  return
}

// -----

#t = affine_map<(t) -> (t)>

// A token that reads what other tokens wrote waits for all of them.
// CHECK-LABEL: func.func @others(
// CHECK-COUNT-2: scf.forall
func.func @others(%x: memref<?xf32>, %i: memref<?xindex>, %y: memref<?xf32>) {
  %c0 = arith.constant 0 : index
  %n = memref.dim %x, %c0 : memref<?xf32>
  %s = memref.alloc(%n) : memref<?xf32>
  linalg.generic {indexing_maps = [#t, #t], iterator_types = ["parallel"]} ins(%x : memref<?xf32>) outs(%s : memref<?xf32>) {
  ^bb0(%a: f32, %old: f32):
    linalg.yield %a : f32
  }
  linalg.generic {indexing_maps = [#t, #t], iterator_types = ["parallel"]} ins(%i : memref<?xindex>) outs(%y : memref<?xf32>) {
  ^bb0(%a: index, %old: f32):
    %v = memref.load %s[%a] : memref<?xf32>
    linalg.yield %v : f32
  }
  return
}

// -----

#t = affine_map<(t) -> (t)>

// So does one that reads a part that begins elsewhere, and one that writes what
// others have yet to read.
// CHECK-LABEL: func.func @shifted(
// CHECK-COUNT-3: scf.forall
func.func @shifted(%x: memref<?xf32>, %n: index, %y: memref<?xf32>) {
  %s = memref.alloc(%n) : memref<?xf32>
  linalg.generic {indexing_maps = [#t], iterator_types = ["parallel"]} outs(%s : memref<?xf32>) {
  ^bb0(%a: f32):
    %i = linalg.index 0 : index
    %v = memref.load %x[%i] : memref<?xf32>
    linalg.yield %v : f32
  }
  %tail = memref.subview %s[1] [%n] [1] : memref<?xf32> to memref<?xf32, strided<[1], offset: 1>>
  linalg.generic {indexing_maps = [#t, #t], iterator_types = ["parallel"]} ins(%tail : memref<?xf32, strided<[1], offset: 1>>) outs(%y : memref<?xf32>) {
  ^bb0(%a: f32, %old: f32):
    linalg.yield %a : f32
  }
  linalg.generic {indexing_maps = [#t, #t], iterator_types = ["parallel"]} ins(%y : memref<?xf32>) outs(%s : memref<?xf32>) {
  ^bb0(%a: f32, %old: f32):
    linalg.yield %a : f32
  }
  return
}

// -----

#t = affine_map<(t) -> (t)>
#ab = affine_map<(a, b) -> (a, b)>
#ba = affine_map<(a, b) -> (b, a)>

// Another number of tokens, and another dimension of them, are another loop.
// CHECK-LABEL: func.func @another(
// CHECK-COUNT-3: scf.forall
func.func @another(%x: memref<?xf32>, %y: memref<?xf32>, %s: memref<?x?xf32>, %r: memref<?x?xf32>) {
  %zero = arith.constant 0.0 : f32
  linalg.fill ins(%zero : f32) outs(%x : memref<?xf32>)
  linalg.fill ins(%zero : f32) outs(%s : memref<?x?xf32>)
  linalg.generic {indexing_maps = [#ba, #ab], iterator_types = ["parallel", "parallel"]} ins(%s : memref<?x?xf32>) outs(%r : memref<?x?xf32>) {
  ^bb0(%a: f32, %old: f32):
    linalg.yield %a : f32
  }
  return
}

// -----

#t = affine_map<(t) -> (t)>

// What reads or writes memory stands between, and a product with many columns has
// tasks of its own.
// CHECK-LABEL: func.func @between(
// CHECK:         scf.forall
// CHECK:         memref.store
// CHECK:         moe.grouped_matmul
// CHECK-NOT:     scf.forall
// CHECK:         scf.forall
func.func @between(%x: memref<?x6xf32>, %w: memref<1x9x6x8x1xf32>, %y: memref<?x72xf32>, %z: memref<1xf32>) {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  linalg.fill ins(%zero : f32) outs(%x : memref<?x6xf32>)
  memref.store %zero, %z[%c0] : memref<1xf32>
  moe.grouped_matmul %x weights(%w : memref<1x9x6x8x1xf32>) panels(<matmuls = 1, columns = 8, depth = 1>) outs(%y : memref<?x72xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : memref<?x6xf32>
  linalg.fill ins(%zero : f32) outs(%x : memref<?x6xf32>)
  return
}

// -----

#t = affine_map<(t) -> (t)>

// A loop over work on several numbers of tokens, or on one that it makes itself, has
// none of its own; a diagonal is no part of a matrix.
// CHECK-LABEL: func.func @loops(
// CHECK:         scf.for
// CHECK-COUNT-2:   scf.forall
// CHECK:         scf.for
// CHECK:           scf.forall
// CHECK-NOT:     scf.forall
// CHECK:         return
func.func @loops(%x: memref<?xf32>, %y: memref<?xf32>, %s: memref<?x?xf32>, %n: index) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c2 = arith.constant 2 : index
  %zero = arith.constant 0.0 : f32
  scf.for %k = %c0 to %c2 step %c1 {
    linalg.fill ins(%zero : f32) outs(%x : memref<?xf32>)
    linalg.fill ins(%zero : f32) outs(%y : memref<?xf32>)
  }
  scf.for %k = %c0 to %c2 step %c1 {
    %size = arith.minsi %k, %n : index
    %part = memref.subview %x[0] [%size] [1] : memref<?xf32> to memref<?xf32, strided<[1]>>
    linalg.fill ins(%zero : f32) outs(%part : memref<?xf32, strided<[1]>>)
  }
  linalg.generic {indexing_maps = [affine_map<(t) -> (t, t)>, #t], iterator_types = ["parallel"]} ins(%s : memref<?x?xf32>) outs(%x : memref<?xf32>) {
  ^bb0(%a: f32, %old: f32):
    linalg.yield %a : f32
  }
  return
}

// -----

// Memory that may be the same, by another name.
// CHECK-LABEL: func.func @names(
// CHECK-NOT:     scf.forall
// CHECK:         linalg.generic
// CHECK:         scf.forall
// CHECK-NOT:     linalg.generic
func.func @names(%x: memref<?xf32>, %y: memref<?xf32>, %c: i1) {
  %zero = arith.constant 0.0 : f32
  %either = arith.select %c, %x, %y : memref<?xf32>
  linalg.generic {indexing_maps = [affine_map<(t) -> (t)>, affine_map<(t) -> (t)>], iterator_types = ["parallel"]} ins(%x : memref<?xf32>) outs(%either : memref<?xf32>) {
  ^bb0(%a: f32, %old: f32):
    linalg.yield %a : f32
  }
  linalg.fill ins(%zero : f32) outs(%x : memref<?xf32>)
  return
}
