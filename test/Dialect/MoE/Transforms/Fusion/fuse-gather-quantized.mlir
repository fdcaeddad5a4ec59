// RUN: moe-opt %s -moe-fuse-gather | FileCheck %s
// RUN: moe-opt %s -moe-fuse-gather --remarks-filter-missed=moe-fuse -o /dev/null 2>&1 | FileCheck %s --check-prefix=REMARK

// Tokens are quantized, once each; numbers and scales are gathered.
// CHECK-LABEL: func.func @gathered(
// CHECK-SAME:    %[[X:[^:]*]]: tensor<?x64xbf16>
// CHECK:         %[[TOKENS:.*]], %{{.*}}, %{{.*}} = moe.route
// CHECK:         %[[Q:.*]], %[[S:.*]] = moe.quantize %[[X]] format(<{{.*}}block = [1, 32]>]>) : tensor<?x64xbf16>
// CHECK:         tensor.dim %[[TOKENS]]
// CHECK:         moe.grouped_matmul %[[Q]] gather(%[[TOKENS]] : tensor<?xi32>)
// CHECK-SAME:      lhs_scales(%[[S]] : tensor<?x2xf32>)
func.func @gathered(%x: tensor<?x64xbf16>, %ids: tensor<?x2xi32>, %w: tensor<8x24x64xf8E4M3FN>)
    -> tensor<?x24xf32> {
  %c0 = arith.constant 0 : index
  %grouped, %offsets, %positions = moe.dispatch %x, %ids experts(8) : tensor<?x64xbf16>, tensor<?x2xi32>
  %q, %s = moe.quantize %grouped format(<codes = <element = f8E4M3FN>, scales = [#moe.field<element = f32, operand = 1, block = [1, 32]>]>)
      : tensor<?x64xbf16> -> tensor<?x64xf8E4M3FN>, tensor<?x2xf32>
  %r = tensor.dim %q, %c0 : tensor<?x64xf8E4M3FN>
  %init = tensor.empty(%r) : tensor<?x24xf32>
  %y = moe.grouped_matmul %q offsets(%offsets : tensor<9xi32>) weights(%w : tensor<8x24x64xf8E4M3FN>) transposed
      lhs_scales(%s : tensor<?x2xf32>) blocks([32, 24]) outs(%init : tensor<?x24xf32>) {
  ^bb0(%sum: f32):
    moe.yield %sum : f32
  } : tensor<?x64xf8E4M3FN> -> tensor<?x24xf32>
  return %y : tensor<?x24xf32>
}

// REMARK: GatherNotFused | Category:moe-fuse | Function=elsewhere | Remark="not fused: the scales of the grouped rows are not those of moe.quantize"
// CHECK-LABEL: func.func @elsewhere(
// CHECK:         moe.dispatch
// CHECK-NOT:     gather(
func.func @elsewhere(%x: tensor<?x64xbf16>, %ids: tensor<?x2xi32>, %w: tensor<8x24x64xf8E4M3FN>,
                     %s: tensor<?x2xf32>, %init: tensor<?x24xf32>) -> tensor<?x24xf32> {
  %grouped, %offsets, %positions = moe.dispatch %x, %ids experts(8) : tensor<?x64xbf16>, tensor<?x2xi32>
  %q, %t = moe.quantize %grouped format(<codes = <element = f8E4M3FN>, scales = [#moe.field<element = f32, operand = 1, block = [1, 32]>]>)
      : tensor<?x64xbf16> -> tensor<?x64xf8E4M3FN>, tensor<?x2xf32>
  %y = moe.grouped_matmul %q offsets(%offsets : tensor<9xi32>) weights(%w : tensor<8x24x64xf8E4M3FN>) transposed
      lhs_scales(%s : tensor<?x2xf32>) blocks([32, 24]) outs(%init : tensor<?x24xf32>) {
  ^bb0(%sum: f32):
    moe.yield %sum : f32
  } : tensor<?x64xf8E4M3FN> -> tensor<?x24xf32>
  return %y : tensor<?x24xf32>
}

// REMARK: GatherNotFused | Category:moe-fuse | Function=other_uses | Remark="not fused: the grouped rows have uses other than matmuls"
// CHECK-LABEL: func.func @other_uses(
// CHECK:         moe.dispatch
func.func @other_uses(%x: tensor<?x64xbf16>, %ids: tensor<?x2xi32>) -> tensor<?x2xf32> {
  %grouped, %offsets, %positions = moe.dispatch %x, %ids experts(8) : tensor<?x64xbf16>, tensor<?x2xi32>
  %q, %s = moe.quantize %grouped format(<codes = <element = f8E4M3FN>, scales = [#moe.field<element = f32, operand = 1, block = [1, 32]>]>)
      : tensor<?x64xbf16> -> tensor<?x64xf8E4M3FN>, tensor<?x2xf32>
  return %s : tensor<?x2xf32>
}
