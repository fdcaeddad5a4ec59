// RUN: moe-opt %s -moe-fuse-scales | FileCheck %s
// RUN: moe-opt %s -moe-fuse-scales --remarks-filter-missed=moe-fuse -o /dev/null 2>&1 | FileCheck %s --check-prefix=REMARK

// What is no scaling by blocks stays as it is.

#id = affine_map<(e, n, k) -> (e, n, k)>
#blocks = affine_map<(e, n, k) -> (e, n floordiv 64, k floordiv 128)>
#shared = affine_map<(e, n, k) -> (e floordiv 2, n floordiv 64, k floordiv 128)>
#rotated = affine_map<(e, n, k) -> (e, k floordiv 128, n floordiv 64)>
#modulo = affine_map<(e, n, k) -> (e, n mod 2, k mod 2)>
#row_scales = affine_map<(r, k) -> (r, k floordiv 100)>
#rows = affine_map<(r, k) -> (r, k)>

// CHECK-LABEL: func.func @rotated(
// CHECK:         linalg.generic
// CHECK-NOT:     weight_scales
func.func @rotated(%x: tensor<?x200xf32>, %offsets: tensor<3xi32>, %v: tensor<2x96x200xf32>,
    %w: tensor<2x96x200xf8E4M3FN>, %ws: tensor<2x2x2xf32>, %init: tensor<?x96xf32>) -> tensor<?x96xf32> {
  %wi = tensor.empty() : tensor<2x96x200xf32>
  %wd = linalg.generic {indexing_maps = [#id, #rotated, #id], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%w, %ws : tensor<2x96x200xf8E4M3FN>, tensor<2x2x2xf32>) outs(%wi : tensor<2x96x200xf32>) {
  ^bb0(%q: f8E4M3FN, %s: f32, %old: f32):
    %f = arith.extf %q : f8E4M3FN to f32
    %d = arith.mulf %f, %s : f32
    linalg.yield %d : f32
  } -> tensor<2x96x200xf32>
  %y = moe.grouped_matmul %x offsets(%offsets : tensor<3xi32>) weights(%wd : tensor<2x96x200xf32>) transposed
      outs(%init : tensor<?x96xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x200xf32> -> tensor<?x96xf32>
  return %y : tensor<?x96xf32>
}

// CHECK-LABEL: func.func @modulo(
// CHECK:         linalg.generic
// CHECK-NOT:     weight_scales
func.func @modulo(%x: tensor<?x200xf32>, %offsets: tensor<3xi32>, %v: tensor<2x96x200xf32>,
    %w: tensor<2x96x200xf8E4M3FN>, %ws: tensor<2x2x2xf32>, %init: tensor<?x96xf32>) -> tensor<?x96xf32> {
  %wi = tensor.empty() : tensor<2x96x200xf32>
  %wd = linalg.generic {indexing_maps = [#id, #modulo, #id], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%w, %ws : tensor<2x96x200xf8E4M3FN>, tensor<2x2x2xf32>) outs(%wi : tensor<2x96x200xf32>) {
  ^bb0(%q: f8E4M3FN, %s: f32, %old: f32):
    %f = arith.extf %q : f8E4M3FN to f32
    %d = arith.mulf %f, %s : f32
    linalg.yield %d : f32
  } -> tensor<2x96x200xf32>
  %y = moe.grouped_matmul %x offsets(%offsets : tensor<3xi32>) weights(%wd : tensor<2x96x200xf32>) transposed
      outs(%init : tensor<?x96xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x200xf32> -> tensor<?x96xf32>
  return %y : tensor<?x96xf32>
}

// CHECK-LABEL: func.func @sum(
// CHECK:         linalg.generic
// CHECK-NOT:     weight_scales
func.func @sum(%x: tensor<?x200xf32>, %offsets: tensor<3xi32>, %v: tensor<2x96x200xf32>,
    %w: tensor<2x96x200xf8E4M3FN>, %ws: tensor<2x2x2xf32>, %init: tensor<?x96xf32>) -> tensor<?x96xf32> {
  %wi = tensor.empty() : tensor<2x96x200xf32>
  %wd = linalg.generic {indexing_maps = [#id, #blocks, #id], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%w, %ws : tensor<2x96x200xf8E4M3FN>, tensor<2x2x2xf32>) outs(%wi : tensor<2x96x200xf32>) {
  ^bb0(%q: f8E4M3FN, %s: f32, %old: f32):
    %f = arith.extf %q : f8E4M3FN to f32
    %d = arith.addf %f, %s : f32
    linalg.yield %d : f32
  } -> tensor<2x96x200xf32>
  %y = moe.grouped_matmul %x offsets(%offsets : tensor<3xi32>) weights(%wd : tensor<2x96x200xf32>) transposed
      outs(%init : tensor<?x96xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x200xf32> -> tensor<?x96xf32>
  return %y : tensor<?x96xf32>
}

// CHECK-LABEL: func.func @more_scales(
// CHECK:         linalg.generic
// CHECK-NOT:     weight_scales
func.func @more_scales(%x: tensor<?x200xf32>, %offsets: tensor<3xi32>, %v: tensor<2x96x200xf32>,
    %w: tensor<2x96x200xf8E4M3FN>, %ws: tensor<2x2x3xf32>, %init: tensor<?x96xf32>) -> tensor<?x96xf32> {
  %wi = tensor.empty() : tensor<2x96x200xf32>
  %wd = linalg.generic {indexing_maps = [#id, #blocks, #id], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%w, %ws : tensor<2x96x200xf8E4M3FN>, tensor<2x2x3xf32>) outs(%wi : tensor<2x96x200xf32>) {
  ^bb0(%q: f8E4M3FN, %s: f32, %old: f32):
    %f = arith.extf %q : f8E4M3FN to f32
    %d = arith.mulf %f, %s : f32
    linalg.yield %d : f32
  } -> tensor<2x96x200xf32>
  %y = moe.grouped_matmul %x offsets(%offsets : tensor<3xi32>) weights(%wd : tensor<2x96x200xf32>) transposed
      outs(%init : tensor<?x96xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x200xf32> -> tensor<?x96xf32>
  return %y : tensor<?x96xf32>
}

// REMARK: ScalesNotFused | Category:moe-fuse | Function=some | Remark="not fused: only some of the weights are dequantized"
// CHECK-LABEL: func.func @some(
// CHECK:         linalg.generic
// CHECK-NOT:     weight_scales
func.func @some(%x: tensor<?x200xf32>, %offsets: tensor<3xi32>, %v: tensor<2x96x200xf32>,
    %w: tensor<2x96x200xf8E4M3FN>, %ws: tensor<2x2x2xf32>, %init: tensor<?x96xf32>) -> tensor<?x96xf32> {
  %wi = tensor.empty() : tensor<2x96x200xf32>
  %wd = linalg.generic {indexing_maps = [#id, #blocks, #id], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%w, %ws : tensor<2x96x200xf8E4M3FN>, tensor<2x2x2xf32>) outs(%wi : tensor<2x96x200xf32>) {
  ^bb0(%q: f8E4M3FN, %s: f32, %old: f32):
    %f = arith.extf %q : f8E4M3FN to f32
    %d = arith.mulf %f, %s : f32
    linalg.yield %d : f32
  } -> tensor<2x96x200xf32>
  %y = moe.grouped_matmul %x offsets(%offsets : tensor<3xi32>) weights(%wd, %v : tensor<2x96x200xf32>, tensor<2x96x200xf32>) transposed
      outs(%init : tensor<?x96xf32>) {
  ^bb0(%s: f32, %t: f32):
    moe.yield %s : f32
  } : tensor<?x200xf32> -> tensor<?x96xf32>
  return %y : tensor<?x96xf32>
}

// REMARK: ScalesNotFused | Category:moe-fuse | Function=experts | Remark="not fused: experts share scales"
// CHECK-LABEL: func.func @experts(
// CHECK:         linalg.generic
// CHECK-NOT:     weight_scales
func.func @experts(%x: tensor<?x200xf32>, %offsets: tensor<3xi32>, %v: tensor<2x96x200xf32>,
    %w: tensor<2x96x200xf8E4M3FN>, %ws: tensor<1x2x2xf32>, %init: tensor<?x96xf32>) -> tensor<?x96xf32> {
  %wi = tensor.empty() : tensor<2x96x200xf32>
  %wd = linalg.generic {indexing_maps = [#id, #shared, #id], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%w, %ws : tensor<2x96x200xf8E4M3FN>, tensor<1x2x2xf32>) outs(%wi : tensor<2x96x200xf32>) {
  ^bb0(%q: f8E4M3FN, %s: f32, %old: f32):
    %f = arith.extf %q : f8E4M3FN to f32
    %d = arith.mulf %f, %s : f32
    linalg.yield %d : f32
  } -> tensor<2x96x200xf32>
  %y = moe.grouped_matmul %x offsets(%offsets : tensor<3xi32>) weights(%wd : tensor<2x96x200xf32>) transposed
      outs(%init : tensor<?x96xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x200xf32> -> tensor<?x96xf32>
  return %y : tensor<?x96xf32>
}

// REMARK: ScalesNotFused | Category:moe-fuse | Function=rows_alone | Remark="not fused: the rows are quantized, the weights are not"
// CHECK-LABEL: func.func @rows_alone(
// CHECK:         linalg.generic
// CHECK-NOT:     lhs_scales
func.func @rows_alone(%x: tensor<?x200xf8E4M3FN>, %xs: tensor<?x2xf32>, %w: tensor<1x96x200xf32>, %t: index,
                      %init: tensor<?x96xf32>) -> tensor<?x96xf32> {
  %xi = tensor.empty(%t) : tensor<?x200xf32>
  %xd = linalg.generic {indexing_maps = [#rows, #row_scales, #rows], iterator_types = ["parallel", "parallel"]}
      ins(%x, %xs : tensor<?x200xf8E4M3FN>, tensor<?x2xf32>) outs(%xi : tensor<?x200xf32>) {
  ^bb0(%q: f8E4M3FN, %s: f32, %old: f32):
    %f = arith.extf %q : f8E4M3FN to f32
    %d = arith.mulf %f, %s : f32
    linalg.yield %d : f32
  } -> tensor<?x200xf32>
  %y = moe.grouped_matmul %xd weights(%w : tensor<1x96x200xf32>) transposed outs(%init : tensor<?x96xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x200xf32> -> tensor<?x96xf32>
  return %y : tensor<?x96xf32>
}

// REMARK: ScalesNotFused | Category:moe-fuse | Function=other_blocks | Remark="not fused: rows and weights have blocks of different extents along k"
// CHECK-LABEL: func.func @other_blocks(
// CHECK:         linalg.generic
// CHECK:         moe.grouped_matmul
// CHECK-NOT:     lhs_scales
// CHECK-SAME:    weight_scales
func.func @other_blocks(%x: tensor<?x200xf8E4M3FN>, %xs: tensor<?x2xf32>, %w: tensor<1x96x200xf8E4M3FN>,
                        %ws: tensor<1x1x2xf32>, %t: index, %init: tensor<?x96xf32>) -> tensor<?x96xf32> {
  %xi = tensor.empty(%t) : tensor<?x200xf32>
  %xd = linalg.generic {indexing_maps = [#rows, #row_scales, #rows], iterator_types = ["parallel", "parallel"]}
      ins(%x, %xs : tensor<?x200xf8E4M3FN>, tensor<?x2xf32>) outs(%xi : tensor<?x200xf32>) {
  ^bb0(%q: f8E4M3FN, %s: f32, %old: f32):
    %f = arith.extf %q : f8E4M3FN to f32
    %d = arith.mulf %f, %s : f32
    linalg.yield %d : f32
  } -> tensor<?x200xf32>
  %y = moe.grouped_matmul %xd weights(%w : tensor<1x96x200xf8E4M3FN>) transposed
      weight_scales(%ws : tensor<1x1x2xf32>) blocks([128, 128]) outs(%init : tensor<?x96xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x200xf32> -> tensor<?x96xf32>
  return %y : tensor<?x96xf32>
}
