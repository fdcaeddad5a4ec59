// RUN: moe-opt %s -moe-plan-capacity='tokens=0:4096 imbalance=worst flops=1e12 bandwidth=1e11' -split-input-file | FileCheck %s
// RUN: moe-opt %s -moe-plan-capacity='tokens=0:64 variants=narrow:4,wide:16 flops=1e12 bandwidth=1e11' -split-input-file | FileCheck %s --check-prefix=NAMED
// RUN: moe-opt %s -moe-plan-capacity='tokens=0:64 variants=one:1:ragged,six:6:ragged flops=1e12 bandwidth=1e11' -split-input-file | FileCheck %s --check-prefix=RAGGED
// The plan is true, as export and arena say; and the attributes are printed as
// they are read.
// RUN: moe-opt %s -moe-plan-capacity='tokens=0:4096 flops=1e12 bandwidth=1e11' -moe-reference -split-input-file -o %t.planned
// RUN: moe-opt %s -moe-plan-capacity='tokens=0:4096 flops=1e12 bandwidth=1e11' -split-input-file | moe-opt -split-input-file | moe-opt -split-input-file \
// RUN:   | moe-opt -moe-reference -split-input-file | diff - %t.planned

// 2·T rows; for 4 experts and tiles of 8 rows ⌊(2·T + 4·7) / 8⌋ tiles at most, and
// for each expert with a row 7 rows of padding.
// CHECK-DAG: #[[ROWS:.*]] = affine_map<(d0) -> (d0 * 2)>
// CHECK-DAG: #[[ONE:.*]] = affine_map<(d0) -> (d0)>
// CHECK-DAG: #[[TILES:.*]] = affine_map<(d0) -> ((d0 * 2 + 28) floordiv 8, d0 * 2)>
// CHECK-DAG: #[[PADDING:.*]] = affine_map<(d0) -> (28, d0 * 14)>
// CHECK:       func.func @dropless(
// CHECK-SAME:    moe.plan = #moe.plan<min = 0, max = 4096, workspace = {{[0-9]+}}, dispatches = [
// CHECK-SAME:    #moe.dispatch_plan<experts = 4, top_k = 2, rows = #[[ROWS]], fullest = #[[ONE]], overflow = impossible,
// CHECK-SAME:    ranges = [#moe.tile_range<min = 0, max = {{[0-9]+}}, variant = "rows8", rows = 8, tiles = #[[TILES]], padding = #[[PADDING]]>
// CHECK-SAME:    max = 4096, variant = "rows
// CHECK-SAME:    moe.tokens = [0, 4096]
// Tiles with fewer rows need no padding.
// RAGGED-DAG: #[[ROWS:.*]] = affine_map<(d0) -> (d0 * 2)>
// RAGGED-DAG: #[[TILES:.*]] = affine_map<(d0) -> ((d0 * 2 + 20) floordiv 6, d0 * 2)>
// RAGGED-DAG: #[[NONE:.*]] = affine_map<(d0) -> (0)>
// RAGGED:      func.func @dropless(
// RAGGED-SAME:   min = 0, max = 1, variant = "one", rows = 1, tiles = #[[ROWS]], padding = #[[NONE]], ragged = true>
// RAGGED-SAME:   min = 2, max = 64, variant = "six", rows = 6, tiles = #[[TILES]], padding = #[[NONE]], ragged = true>
// NAMED:       func.func @dropless(
// NAMED-SAME:    min = 0, max = {{[0-9]+}}, variant = "narrow", rows = 4,
// NAMED-SAME:    max = 64, variant = "wide", rows = 16,
func.func @dropless(%l: tensor<?x4xf32>, %x: tensor<?x6xf32>, %w: tensor<4x6x6xf32>) -> tensor<?x6xf32> {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %weights, %ids = moe.gate %l top_k(2) : tensor<?x4xf32>
  %g, %o, %p = moe.dispatch %x, %ids experts(4) : tensor<?x6xf32>, tensor<?x2xi32>
  %h = moe.expert %g, %o params(%w : tensor<4x6x6xf32>) {
  ^bb0(%r: tensor<?x6xf32>, %v: tensor<6x6xf32>):
    %n = tensor.dim %r, %c0 : tensor<?x6xf32>
    %e = tensor.empty(%n) : tensor<?x6xf32>
    %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x6xf32>) -> tensor<?x6xf32>
    %m = linalg.matmul ins(%r, %v : tensor<?x6xf32>, tensor<6x6xf32>) outs(%f : tensor<?x6xf32>) -> tensor<?x6xf32>
    moe.yield %m : tensor<?x6xf32>
  } : tensor<?x6xf32>, tensor<5xi32> -> tensor<?x6xf32>
  %y = moe.combine %h, %p weights(%weights : tensor<?x2xf32>) : tensor<?x6xf32>, tensor<?x2xi32>
  return %y : tensor<?x6xf32>
}

// -----

// A fixed capacity: min(2·T, 4·5) rows, 5 of one expert, and drops. Given ids may
// name an expert twice, but not above its capacity.
// CHECK-DAG: #[[ROWS:.*]] = affine_map<(d0) -> (d0 * 2, 20)>
// CHECK-DAG: #[[ONE:.*]] = affine_map<(d0) -> (d0 * 2, 5)>
// CHECK:       func.func @fixed(
// CHECK-SAME:    rows = #[[ROWS]], fullest = #[[ONE]], overflow = drop,
func.func @fixed(%x: tensor<?x6xf32>, %ids: tensor<?x2xi32>) -> tensor<?x6xf32> {
  %g, %o, %p = moe.dispatch %x, %ids experts(4) capacity(<fixed = 5>) : tensor<?x6xf32>, tensor<?x2xi32>
  %y = moe.combine %g, %p : tensor<?x6xf32>, tensor<?x2xi32>
  return %y : tensor<?x6xf32>
}

// -----

// A factor of 5/4, the minimum added, the next choice instead of a drop.
// CHECK-DAG: #[[ROWS:.*]] = affine_map<(d0) -> (d0 * 2, ((d0 * 5) ceildiv 16 + 2) * 4, (d0 + 2) * 4)>
// CHECK-DAG: #[[ONE:.*]] = affine_map<(d0) -> (d0, (d0 * 5) ceildiv 16 + 2, d0 + 2)>
// CHECK:       func.func @factor(
// CHECK-SAME:    rows = #[[ROWS]], fullest = #[[ONE]], overflow = next_choice,
func.func @factor(%l: tensor<?x4xf32>, %x: tensor<?x6xf32>) -> tensor<?x6xf32> {
  %weights, %ids = moe.gate %l top_k(2) : tensor<?x4xf32>
  %g, %o, %p = moe.dispatch %x, %ids experts(4) capacity(<factor = 1.25, minimum = 2, at_most_tokens>)
    overflow(next_choice) choices(1) : tensor<?x6xf32>, tensor<?x2xi32>
  %y = moe.combine %g, %p weights(%weights : tensor<?x2xf32>) : tensor<?x6xf32>, tensor<?x2xi32>
  return %y : tensor<?x6xf32>
}

// -----

// A factor of E, or a capacity of all tokens that there are: nothing overflows.
// CHECK:       func.func @never(
// CHECK-SAME:    overflow = impossible
// CHECK-SAME:    overflow = impossible
func.func @never(%l: tensor<?x4xf32>, %x: tensor<?x6xf32>) -> (tensor<?x6xf32>, tensor<?x6xf32>) {
  %weights, %ids = moe.gate %l top_k(2) : tensor<?x4xf32>
  %g, %o, %p = moe.dispatch %x, %ids experts(4) capacity(<factor = 4.0, rounding = floor>) : tensor<?x6xf32>, tensor<?x2xi32>
  %y = moe.combine %g, %p weights(%weights : tensor<?x2xf32>) : tensor<?x6xf32>, tensor<?x2xi32>
  %g2, %o2, %p2 = moe.dispatch %x, %ids experts(4) capacity(<fixed = 4096>) : tensor<?x6xf32>, tensor<?x2xi32>
  %z = moe.combine %g2, %p2 weights(%weights : tensor<?x2xf32>) : tensor<?x6xf32>, tensor<?x2xi32>
  return %y, %z : tensor<?x6xf32>, tensor<?x6xf32>
}

// -----

// A function without experts has memory to plan, too.
// CHECK:       func.func @gate(
// CHECK-SAME:    moe.plan = #moe.plan<min = 0, max = 4096, workspace = {{[0-9]+}}, dispatches = []>
func.func @gate(%l: tensor<?x8xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>) attributes {moe.tokens = [0, 5000]} {
  %w, %i = moe.gate %l top_k(2) : tensor<?x8xf32>
  return %w, %i : tensor<?x2xf32>, tensor<?x2xi32>
}
