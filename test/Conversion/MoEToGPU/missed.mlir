// RUN: moe-opt %s -convert-moe-to-gpu -split-input-file | FileCheck %s
// RUN: moe-opt %s -convert-moe-to-gpu -split-input-file --remarks-filter-missed=moe-gpu -o /dev/null 2>&1 | FileCheck %s --check-prefix=MISSED
// RUN: moe-opt %s -moe-tile-for-gpu -split-input-file | FileCheck %s --check-prefix=TILES

// Operations without a kernel stay, and a remark gives the reason.

// MISSED: NotLowered | Category:moe-gpu | Function=gates | Remark="'moe.gate' not lowered to a GPU kernel: select(expert_choice) with normalize"
// MISSED: NotLowered | Category:moe-gpu {{.*}}Remark="'moe.gate' not lowered to a GPU kernel: score_axis(tokens)"
// MISSED: NotLowered | Category:moe-gpu {{.*}}Remark="'moe.gate' not lowered to a GPU kernel: more than 1024 experts"
// MISSED: NotLowered | Category:moe-gpu {{.*}}Remark="'moe.gate' not lowered to a GPU kernel: a selection of 8224 comparisons, more than 1024"
// CHECK-LABEL:   func.func @gates(
// CHECK-COUNT-4:   moe.gate
// CHECK-NOT:       moe_rt.launch
func.func @gates(%l: tensor<?x8xf32>, %m: tensor<?x1025xf32>, %n: tensor<?x1024xf32>)
    -> (tensor<?x?xi32>, tensor<?x2xi32>, tensor<?x2xi32>, tensor<?x257xi32>) {
  %w0, %i0 = moe.gate %l top_k(8) select(expert_choice) capacity(<factor = 2.0>) normalize(<sum>) : tensor<?x8xf32>
  %w1, %i1 = moe.gate %l top_k(2) score_axis(tokens) : tensor<?x8xf32>
  %w2, %i2 = moe.gate %m top_k(2) : tensor<?x1025xf32>
  %w3, %i3 = moe.gate %n top_k(257) : tensor<?x1024xf32>
  %r = tensor.cast %i0 : tensor<?x8xi32> to tensor<?x?xi32>
  return %r, %i1, %i2, %i3 : tensor<?x?xi32>, tensor<?x2xi32>, tensor<?x2xi32>, tensor<?x257xi32>
}

// -----

// An operation that earlier passes take apart.
// MISSED: NotLowered | Category:moe-gpu | Function=dispatches | Remark="'moe.dispatch' not lowered to a GPU kernel: it has none"
// CHECK-LABEL:   func.func @dispatches(
// CHECK:           moe.dispatch
// CHECK-NOT:       moe_rt.launch
func.func @dispatches(%x: tensor<?x4xf32>, %i: tensor<?x2xi32>) -> tensor<?x4xf32> {
  %g, %o, %p = moe.dispatch %x, %i experts(8) : tensor<?x4xf32>, tensor<?x2xi32>
  return %g : tensor<?x4xf32>
}

// -----

// MISSED: NotLowered | Category:moe-gpu | Function=routes | Remark="'moe.route' not lowered to a GPU kernel: overflow(next_choice) with priority(position)"
// MISSED: NotLowered | Category:moe-gpu {{.*}}Remark="'moe.route' not lowered to a GPU kernel: more than 4096 pairs of an expert and a choice"
// MISSED: NotLowered | Category:moe-gpu {{.*}}Remark="'moe.route' not lowered to a GPU kernel: more than 4096 experts"
// CHECK-LABEL:   func.func @routes(
// CHECK-COUNT-3:   moe.route
// CHECK-NOT:       moe_rt.launch
func.func @routes(%i: tensor<?x2xi32>)
    -> (tensor<9xi32>, tensor<2050xi32>, tensor<4098xi32>) {
  %n1, %o1, %p1 = moe.route %i experts(8) capacity(<factor = 1.0>) overflow(next_choice) choices(1) : tensor<?x2xi32>
  %n2, %o2, %p2 = moe.route %i experts(2049) capacity(<factor = 1.0>) priority(choice) : tensor<?x2xi32>
  %n3, %o3, %p3 = moe.route %i experts(4097) : tensor<?x2xi32>
  return %o1, %o2, %o3 : tensor<9xi32>, tensor<2050xi32>, tensor<4098xi32>
}

// -----

// MISSED: MatmulNotLowered | Category:moe-gpu {{.*}}Remark="'moe.grouped_matmul' not lowered to a GPU kernel: no tiles; run moe-tile-for-gpu"
// MISSED: MatmulNotLowered | Category:moe-gpu {{.*}}Remark="'moe.grouped_matmul' not lowered to a GPU kernel: no tiles; run moe-tile-for-gpu"
// CHECK-LABEL:   func.func @no_tiles(
// CHECK-COUNT-2:   moe.grouped_matmul
// CHECK-NOT:       moe_rt.launch
// TILES-LABEL:   func.func @no_tiles(
// TILES-COUNT-2:   moe.tiles = [#moe.tile<
func.func @no_tiles(%x: tensor<?x64xbf16>, %w: tensor<1x64x8xbf16>, %init: tensor<?x8xf32>) -> (tensor<?x8xf32>, tensor<?x8xf32>) {
  %y = moe.grouped_matmul %x weights(%w : tensor<1x64x8xbf16>) outs(%init : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x64xbf16> -> tensor<?x8xf32>
  %z = moe.grouped_matmul %x weights(%w : tensor<1x64x8xbf16>) outs(%init : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = []} : tensor<?x64xbf16> -> tensor<?x8xf32>
  return %y, %z : tensor<?x8xf32>, tensor<?x8xf32>
}

// -----

// Even if the operation has tiles.
#tile = #moe.tile<unit = mma_sync, rows = 16, columns = 128, depth = 64, stages = 2>

// MISSED: 'moe.grouped_matmul' not lowered to a GPU kernel: packed weights"
// MISSED: 'moe.grouped_matmul' not lowered to a GPU kernel: rows that are neither f16 nor bf16"
// MISSED: 'moe.grouped_matmul' not lowered to a GPU kernel: more than 1024 experts"
// MISSED: 'moe.grouped_matmul' not lowered to a GPU kernel: more than two GEMMs"
// CHECK-LABEL:   func.func @products(
// CHECK-COUNT-4:   moe.grouped_matmul
// CHECK-NOT:       moe_rt.launch
// TILES-LABEL:   func.func @products(
// TILES-NOT:       stages = 4
func.func @products(%x: tensor<?x64xbf16>, %f: tensor<?x64xf32>, %o: tensor<1026xi32>, %p: tensor<1x1x64x8x1xbf16>, %wf: tensor<1x64x8xf32>,
                    %we: tensor<1025x64x8xbf16>, %w: tensor<1x64x8xbf16>, %init: tensor<?x8xf32>)
    -> (tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>) {
  %0 = moe.grouped_matmul %x weights(%p : tensor<1x1x64x8x1xbf16>) panels(<matmuls = 1, columns = 8, depth = 1>) outs(%init : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#tile]} : tensor<?x64xbf16> -> tensor<?x8xf32>
  %1 = moe.grouped_matmul %f weights(%wf : tensor<1x64x8xf32>) outs(%init : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#tile]} : tensor<?x64xf32> -> tensor<?x8xf32>
  %2 = moe.grouped_matmul %x offsets(%o : tensor<1026xi32>) weights(%we : tensor<1025x64x8xbf16>) outs(%init : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#tile]} : tensor<?x64xbf16> -> tensor<?x8xf32>
  %3 = moe.grouped_matmul %x weights(%w, %w, %w : tensor<1x64x8xbf16>, tensor<1x64x8xbf16>, tensor<1x64x8xbf16>) outs(%init : tensor<?x8xf32>) {
  ^bb0(%s: f32, %t: f32, %u: f32):
    moe.yield %u : f32
  } {moe.tiles = [#tile]} : tensor<?x64xbf16> -> tensor<?x8xf32>
  return %0, %1, %2, %3 : tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>
}

// -----

#tile = #moe.tile<unit = mma_sync, rows = 16, columns = 128, depth = 64, stages = 2>

// MISSED: 'moe.grouped_matmul' not lowered to a GPU kernel: a k that is not a multiple of 8"
// MISSED: 'moe.grouped_matmul' not lowered to a GPU kernel: a k that is not a multiple of 8"
// MISSED: 'moe.grouped_matmul' not lowered to a GPU kernel: MN-major weights of a number of columns that is not a multiple of 8"
// MISSED: 'moe.grouped_matmul' not lowered to a GPU kernel: no columns"
// CHECK-LABEL:   func.func @extents(
// CHECK-COUNT-4:   moe.grouped_matmul
// CHECK-NOT:       moe_rt.launch
func.func @extents(%x: tensor<?x12xbf16>, %w: tensor<1x12x8xbf16>, %none: tensor<?x0xbf16>, %wn: tensor<1x0x8xbf16>,
                   %v: tensor<?x64xbf16>, %w7: tensor<1x64x7xbf16>, %w0: tensor<1x64x0xbf16>,
                   %init: tensor<?x8xf32>, %init7: tensor<?x7xf32>, %init0: tensor<?x0xf32>)
    -> (tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x7xf32>, tensor<?x0xf32>) {
  %0 = moe.grouped_matmul %x weights(%w : tensor<1x12x8xbf16>) outs(%init : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#tile]} : tensor<?x12xbf16> -> tensor<?x8xf32>
  %1 = moe.grouped_matmul %none weights(%wn : tensor<1x0x8xbf16>) outs(%init : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#tile]} : tensor<?x0xbf16> -> tensor<?x8xf32>
  %2 = moe.grouped_matmul %v weights(%w7 : tensor<1x64x7xbf16>) outs(%init7 : tensor<?x7xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#tile]} : tensor<?x64xbf16> -> tensor<?x7xf32>
  %3 = moe.grouped_matmul %v weights(%w0 : tensor<1x64x0xbf16>) outs(%init0 : tensor<?x0xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#tile]} : tensor<?x64xbf16> -> tensor<?x0xf32>
  return %0, %1, %2, %3 : tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x7xf32>, tensor<?x0xf32>
}

// -----

#tile = #moe.tile<unit = mma_sync, rows = 16, columns = 128, depth = 64, stages = 2>

// MISSED: 'moe.grouped_matmul' not lowered to a GPU kernel: 'llvm.mlir.constant' in the epilogue"
// MISSED: 'moe.grouped_matmul' not lowered to a GPU kernel: a value from outside of the epilogue"
// MISSED: 'moe.grouped_matmul' not lowered to a GPU kernel: an epilogue operand with dynamic inner extents or sub-byte elements"
// MISSED: 'moe.grouped_matmul' not lowered to a GPU kernel: an epilogue operand with dynamic inner extents or sub-byte elements"
// CHECK-LABEL:   func.func @epilogues(
// CHECK-COUNT-4:   moe.grouped_matmul
// CHECK-NOT:       moe_rt.launch
// TILES-LABEL:   func.func @epilogues(
// TILES-NOT:       stages = 4
func.func @epilogues(%x: tensor<?x64xbf16>, %w: tensor<1x64x8xbf16>, %scale: f32, %turned: tensor<8x?xf32>, %mask: tensor<?xi1>, %init: tensor<?x8xf32>)
    -> (tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>) {
  %0 = moe.grouped_matmul %x weights(%w : tensor<1x64x8xbf16>) outs(%init : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    %two = llvm.mlir.constant(2.0 : f32) : f32
    %m = arith.mulf %s, %two : f32
    moe.yield %m : f32
  } {moe.tiles = [#tile]} : tensor<?x64xbf16> -> tensor<?x8xf32>
  %1 = moe.grouped_matmul %x weights(%w : tensor<1x64x8xbf16>) outs(%init : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    %m = arith.mulf %s, %scale : f32
    moe.yield %m : f32
  } {moe.tiles = [#tile]} : tensor<?x64xbf16> -> tensor<?x8xf32>
  %2 = moe.grouped_matmul %x weights(%w : tensor<1x64x8xbf16>) operands(%turned : tensor<8x?xf32>) maps([affine_map<(e, r, n) -> (n, r)>]) outs(%init : tensor<?x8xf32>) {
  ^bb0(%s: f32, %t: f32):
    %m = arith.mulf %s, %t : f32
    moe.yield %m : f32
  } {moe.tiles = [#tile]} : tensor<?x64xbf16> -> tensor<?x8xf32>
  %3 = moe.grouped_matmul %x weights(%w : tensor<1x64x8xbf16>) operands(%mask : tensor<?xi1>) maps([affine_map<(e, r, n) -> (r)>]) outs(%init : tensor<?x8xf32>) {
  ^bb0(%s: f32, %t: i1):
    %z = arith.constant 0.0 : f32
    %m = arith.select %t, %s, %z : f32
    moe.yield %m : f32
  } {moe.tiles = [#tile]} : tensor<?x64xbf16> -> tensor<?x8xf32>
  return %0, %1, %2, %3 : tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>
}

// -----

#tile = #moe.tile<unit = mma_sync, rows = 16, columns = 128, depth = 64, stages = 2>

// One GEMM with every other column; two with every third column, the same columns,
// columns that are not adjacent, and columns of two tensors; interleaved columns that
// start at a column which 16-byte copies cannot.
// MISSED-COUNT-5: 'moe.grouped_matmul' not lowered to a GPU kernel: weights that are neither contiguous columns nor the interleaved columns of two GEMMs"
// MISSED: 'moe.grouped_matmul' not lowered to a GPU kernel: MN-major weights at columns that are not a multiple of 8"
// MISSED-NOT:  NotLowered
// CHECK-LABEL:   func.func @columns(
// CHECK-COUNT-6:   moe.grouped_matmul
// CHECK-NOT:       moe_rt.launch
// TILES-LABEL:   func.func @columns(
// TILES-NOT:       stages = 4
func.func @columns(%x: tensor<?x64xbf16>, %w: tensor<1x64x24xbf16>, %v: tensor<1x64x24xbf16>, %init: tensor<?x8xf32>)
    -> (tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>) {
  %even = tensor.extract_slice %w[0, 0, 0] [1, 64, 8] [1, 1, 2] : tensor<1x64x24xbf16> to tensor<1x64x8xbf16>
  %odd = tensor.extract_slice %w[0, 0, 1] [1, 64, 8] [1, 1, 2] : tensor<1x64x24xbf16> to tensor<1x64x8xbf16>
  %next = tensor.extract_slice %w[0, 0, 2] [1, 64, 8] [1, 1, 2] : tensor<1x64x24xbf16> to tensor<1x64x8xbf16>
  %later = tensor.extract_slice %w[0, 0, 3] [1, 64, 8] [1, 1, 2] : tensor<1x64x24xbf16> to tensor<1x64x8xbf16>
  %other = tensor.extract_slice %v[0, 0, 1] [1, 64, 8] [1, 1, 2] : tensor<1x64x24xbf16> to tensor<1x64x8xbf16>
  %third = tensor.extract_slice %w[0, 0, 0] [1, 64, 8] [1, 1, 3] : tensor<1x64x24xbf16> to tensor<1x64x8xbf16>
  %after = tensor.extract_slice %w[0, 0, 1] [1, 64, 8] [1, 1, 3] : tensor<1x64x24xbf16> to tensor<1x64x8xbf16>
  %0 = moe.grouped_matmul %x weights(%even : tensor<1x64x8xbf16>) outs(%init : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#tile]} : tensor<?x64xbf16> -> tensor<?x8xf32>
  %1 = moe.grouped_matmul %x weights(%third, %after : tensor<1x64x8xbf16>, tensor<1x64x8xbf16>) outs(%init : tensor<?x8xf32>) {
  ^bb0(%s: f32, %t: f32):
    moe.yield %s : f32
  } {moe.tiles = [#tile]} : tensor<?x64xbf16> -> tensor<?x8xf32>
  %2 = moe.grouped_matmul %x weights(%even, %even : tensor<1x64x8xbf16>, tensor<1x64x8xbf16>) outs(%init : tensor<?x8xf32>) {
  ^bb0(%s: f32, %t: f32):
    moe.yield %s : f32
  } {moe.tiles = [#tile]} : tensor<?x64xbf16> -> tensor<?x8xf32>
  %3 = moe.grouped_matmul %x weights(%even, %later : tensor<1x64x8xbf16>, tensor<1x64x8xbf16>) outs(%init : tensor<?x8xf32>) {
  ^bb0(%s: f32, %t: f32):
    moe.yield %s : f32
  } {moe.tiles = [#tile]} : tensor<?x64xbf16> -> tensor<?x8xf32>
  %4 = moe.grouped_matmul %x weights(%even, %other : tensor<1x64x8xbf16>, tensor<1x64x8xbf16>) outs(%init : tensor<?x8xf32>) {
  ^bb0(%s: f32, %t: f32):
    moe.yield %s : f32
  } {moe.tiles = [#tile]} : tensor<?x64xbf16> -> tensor<?x8xf32>
  %5 = moe.grouped_matmul %x weights(%odd, %next : tensor<1x64x8xbf16>, tensor<1x64x8xbf16>) outs(%init : tensor<?x8xf32>) {
  ^bb0(%s: f32, %t: f32):
    moe.yield %s : f32
  } {moe.tiles = [#tile]} : tensor<?x64xbf16> -> tensor<?x8xf32>
  return %0, %1, %2, %3, %4, %5 : tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>
}
