// RUN: moe-opt %s -moe-fuse-scales -canonicalize -split-input-file | FileCheck %s
// RUN: moe-opt %s -moe-expert-to-grouped -canonicalize -cse -moe-fuse-scales -moe-fuse-gather -canonicalize -split-input-file | FileCheck %s --check-prefix=EXPERT
// RUN: moe-opt %s -moe-fuse -split-input-file | FileCheck %s --check-prefix=EXPERT
// RUN: moe-opt %s -moe-fuse-scales -split-input-file --remarks-filter-passed=moe-fuse -o /dev/null 2>&1 | FileCheck %s --check-prefix=REMARK

// REMARK: ScalesFused | Category:moe-fuse | Function=weights_and_rows | Remark="scales of the weights fused into a matmul"
// REMARK: ScalesFused | Category:moe-fuse | Function=weights_and_rows | Remark="scales of the rows fused into a matmul"

#rows = affine_map<(r, k) -> (r, k)>
#row_scales = affine_map<(r, k) -> (r, k floordiv 128)>
#weights = affine_map<(e, n, k) -> (e, n, k)>
#weight_scales = affine_map<(e, n, k) -> (e, n floordiv 64, k floordiv 128)>

// CHECK-LABEL: func.func @weights_and_rows(
// CHECK-SAME:    %[[X:[^:]*]]: {{[^,]*}}, %[[XS:[^:]*]]: {{[^,]*}}, %{{[^:]*}}: tensor<3xi32>, %[[W:[^:]*]]: {{[^,]*}}, %[[WS:[^:]*]]: {{[^,]*}},
// CHECK-NOT:     linalg.generic
// CHECK:         moe.grouped_matmul %[[X]] offsets(%{{.*}} : tensor<3xi32>) weights(%[[W]] : tensor<2x96x200xf8E4M3FN>) transposed
// CHECK-SAME:      lhs_scales(%[[XS]] : tensor<?x2xf32>) weight_scales(%[[WS]] : tensor<2x2x2xf32>) blocks([128, 64])
func.func @weights_and_rows(%x: tensor<?x200xf8E4M3FN>, %xs: tensor<?x2xf32>, %offsets: tensor<3xi32>,
                            %w: tensor<2x96x200xf8E4M3FN>, %ws: tensor<2x2x2xf32>, %t: index,
                            %init: tensor<?x96xf32>) -> tensor<?x96xf32> {
  %xi = tensor.empty(%t) : tensor<?x200xf32>
  %xd = linalg.generic {indexing_maps = [#rows, #row_scales, #rows], iterator_types = ["parallel", "parallel"]}
      ins(%x, %xs : tensor<?x200xf8E4M3FN>, tensor<?x2xf32>) outs(%xi : tensor<?x200xf32>) {
  ^bb0(%q: f8E4M3FN, %s: f32, %old: f32):
    %f = arith.extf %q : f8E4M3FN to f32
    %d = arith.mulf %f, %s : f32
    linalg.yield %d : f32
  } -> tensor<?x200xf32>
  %wi = tensor.empty() : tensor<2x96x200xf32>
  %wd = linalg.generic {indexing_maps = [#weight_scales, #weights, #weights], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%ws, %w : tensor<2x2x2xf32>, tensor<2x96x200xf8E4M3FN>) outs(%wi : tensor<2x96x200xf32>) {
  ^bb0(%s: f32, %q: f8E4M3FN, %old: f32):
    %f = arith.extf %q : f8E4M3FN to f32
    %d = arith.mulf %s, %f : f32
    linalg.yield %d : f32
  } -> tensor<2x96x200xf32>
  %y = moe.grouped_matmul %xd offsets(%offsets : tensor<3xi32>) weights(%wd : tensor<2x96x200xf32>) transposed
      outs(%init : tensor<?x96xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x200xf32> -> tensor<?x96xf32>
  return %y : tensor<?x96xf32>
}

// -----

// One scale for all weights of an expert that there is only one of.
#weights = affine_map<(n, k) -> (n, k)>
#one = affine_map<(n, k) -> (0, 0)>
// CHECK-LABEL: func.func @dense(
// CHECK-NOT:     linalg.generic
// CHECK:         moe.grouped_matmul %{{.*}} weights(%{{.*}} : tensor<1x96x200xf8E4M3FN>) transposed
// CHECK-SAME:      weight_scales(%{{.*}} : tensor<1x1x1xf32>) blocks([200, 96])
func.func @dense(%x: tensor<?x200xbf16>, %w: tensor<96x200xf8E4M3FN>, %ws: tensor<1x1xf32>,
                 %init: tensor<?x96xf32>) -> tensor<?x96xf32> {
  %wi = tensor.empty() : tensor<96x200xbf16>
  %wd = linalg.generic {indexing_maps = [#weights, #one, #weights], iterator_types = ["parallel", "parallel"]}
      ins(%w, %ws : tensor<96x200xf8E4M3FN>, tensor<1x1xf32>) outs(%wi : tensor<96x200xbf16>) {
  ^bb0(%q: f8E4M3FN, %s: f32, %old: bf16):
    %f = arith.extf %q : f8E4M3FN to f32
    %d = arith.mulf %f, %s : f32
    %r = arith.truncf %d : f32 to bf16
    linalg.yield %r : bf16
  } -> tensor<96x200xbf16>
  %we = tensor.expand_shape %wd [[0, 1], [2]] output_shape [1, 96, 200] : tensor<96x200xbf16> into tensor<1x96x200xbf16>
  %y = moe.grouped_matmul %x weights(%we : tensor<1x96x200xbf16>) transposed outs(%init : tensor<?x96xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x200xbf16> -> tensor<?x96xf32>
  return %y : tensor<?x96xf32>
}

// -----

// In the body of an expert, with rows that it quantizes: they are quantized once for
// each token, and gathered with their scales.
#lhs = affine_map<(m, n, k) -> (m, k)>
#rhs_t = affine_map<(m, n, k) -> (n, k)>
#out = affine_map<(m, n, k) -> (m, n)>
#id = affine_map<(i, j) -> (i, j)>
#row_scales = affine_map<(i, j) -> (i, j floordiv 128)>
#weight_scales = affine_map<(i, j) -> (i floordiv 128, j floordiv 128)>
// CHECK-LABEL:  func.func @expert(
// CHECK:          moe.expert
// EXPERT-LABEL: func.func @expert(
// EXPERT-SAME:    %[[X:[^:]*]]: {{[^,]*}}, %[[IDS:[^:]*]]: {{[^,]*}}, %[[W:[^:]*]]: {{[^,]*}}, %[[WS:[^:]*]]: {{[^)]*}})
// EXPERT-NOT:     linalg.generic
// EXPERT:         %[[TOKENS:.*]], %{{.*}}, %{{.*}} = moe.route %[[IDS]]
// EXPERT:         %[[Q:.*]], %[[S:.*]] = moe.quantize %[[X]] format(<{{.*}}block = [1, 128]>]>) : tensor<?x256xbf16>
// EXPERT:         moe.grouped_matmul %[[Q]] gather(%[[TOKENS]] : tensor<?xi32>)
// EXPERT-SAME:      weights(%[[W]] : tensor<8x96x256xf8E4M3FN>) transposed
// EXPERT-SAME:      lhs_scales(%[[S]] : tensor<?x2xf32>) weight_scales(%[[WS]] : tensor<8x1x2xf32>) blocks([128, 128])
// EXPERT-NOT:     linalg.generic
func.func @expert(%x: tensor<?x256xbf16>, %ids: tensor<?x2xi32>, %w: tensor<8x96x256xf8E4M3FN>,
                  %ws: tensor<8x1x2xf32>) -> tensor<?x96xf32> {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %grouped, %offsets, %positions = moe.dispatch %x, %ids experts(8) : tensor<?x256xbf16>, tensor<?x2xi32>
  %y = moe.expert %grouped, %offsets params(%w, %ws : tensor<8x96x256xf8E4M3FN>, tensor<8x1x2xf32>) {
  ^bb0(%rows: tensor<?x256xbf16>, %we: tensor<96x256xf8E4M3FN>, %se: tensor<1x2xf32>):
    %n = tensor.dim %rows, %c0 : tensor<?x256xbf16>
    %q, %s = moe.quantize %rows format(<codes = <element = f8E4M3FN>, scales = [#moe.field<element = f32, operand = 1, block = [1, 128]>]>)
        : tensor<?x256xbf16> -> tensor<?x256xf8E4M3FN>, tensor<?x2xf32>
    %xi = tensor.empty(%n) : tensor<?x256xf32>
    %xd = linalg.generic {indexing_maps = [#id, #row_scales, #id], iterator_types = ["parallel", "parallel"]}
        ins(%q, %s : tensor<?x256xf8E4M3FN>, tensor<?x2xf32>) outs(%xi : tensor<?x256xf32>) {
    ^bb0(%a: f8E4M3FN, %b: f32, %old: f32):
      %f = arith.extf %a : f8E4M3FN to f32
      %d = arith.mulf %f, %b : f32
      linalg.yield %d : f32
    } -> tensor<?x256xf32>
    %wi = tensor.empty() : tensor<96x256xf32>
    %wd = linalg.generic {indexing_maps = [#id, #weight_scales, #id], iterator_types = ["parallel", "parallel"]}
        ins(%we, %se : tensor<96x256xf8E4M3FN>, tensor<1x2xf32>) outs(%wi : tensor<96x256xf32>) {
    ^bb0(%a: f8E4M3FN, %b: f32, %old: f32):
      %f = arith.extf %a : f8E4M3FN to f32
      %d = arith.mulf %f, %b : f32
      linalg.yield %d : f32
    } -> tensor<96x256xf32>
    %i = tensor.empty(%n) : tensor<?x96xf32>
    %z = linalg.fill ins(%zero : f32) outs(%i : tensor<?x96xf32>) -> tensor<?x96xf32>
    %p = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out]
        ins(%xd, %wd : tensor<?x256xf32>, tensor<96x256xf32>) outs(%z : tensor<?x96xf32>) -> tensor<?x96xf32>
    moe.yield %p : tensor<?x96xf32>
  } : tensor<?x256xbf16>, tensor<9xi32> -> tensor<?x96xf32>
  %r = moe.combine %y, %positions : tensor<?x96xf32>, tensor<?x2xi32>
  return %r : tensor<?x96xf32>
}
