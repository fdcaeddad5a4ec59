// RUN: moe-opt %s --moe-raise-gate --remarks-filter-missed=moe-raise -o /dev/null 2>&1 | FileCheck %s

#id = affine_map<(d0, d1) -> (d0, d1)>
#expert = affine_map<(d0, d1) -> (d1)>

// CHECK: RouterNotRaised
// CHECK-SAME: not raised: no gate has the scores of 'linalg.generic'
func.func @scores(%x: tensor<?x8xf32>, %logits: tensor<?x4xf32>, %t: index)
    -> tensor<?x8xf32> {
  %empty = tensor.empty(%t) : tensor<?x4xf32>
  %scores = linalg.generic {indexing_maps = [#id, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%logits : tensor<?x4xf32>) outs(%empty : tensor<?x4xf32>) {
  ^bb0(%a: f32, %old: f32):
    %r = math.sin %a : f32
    linalg.yield %r : f32
  } -> tensor<?x4xf32>
  %w, %ids = moe.gate %scores top_k(2) score(none) : tensor<?x4xf32>
  %grouped, %offsets, %positions = moe.dispatch %x, %ids experts(4)
    : tensor<?x8xf32>, tensor<?x2xi32>
  %y = moe.combine %grouped, %positions weights(%w : tensor<?x2xf32>)
    : tensor<?x8xf32>, tensor<?x2xi32>
  return %y : tensor<?x8xf32>
}

// A bias of the selection in bf16 makes ties that a gate does not have.
// CHECK: RouterNotRaised
// CHECK-SAME: no gate has the scores of 'linalg.generic': with their bias they are rounded to bf16, those of a gate are not
func.func @rounded_bias(%x: tensor<?x8xbf16>, %logits: tensor<?x4xbf16>,
                        %bias: tensor<4xbf16>, %t: index) -> tensor<?x8xbf16> {
  %empty = tensor.empty(%t) : tensor<?x4xbf16>
  %sums = linalg.generic {indexing_maps = [#id, #expert, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%logits, %bias : tensor<?x4xbf16>, tensor<4xbf16>)
      outs(%empty : tensor<?x4xbf16>) {
  ^bb0(%a: bf16, %b: bf16, %old: bf16):
    %c = arith.extf %a : bf16 to f32
    %d = arith.extf %b : bf16 to f32
    %s = arith.addf %c, %d : f32
    %r = arith.truncf %s : f32 to bf16
    linalg.yield %r : bf16
  } -> tensor<?x4xbf16>
  %w, %ids = moe.gate %sums top_k(2) score(none) score_type(bf16) : tensor<?x4xbf16>
  %grouped, %offsets, %positions = moe.dispatch %x, %ids experts(4)
    : tensor<?x8xbf16>, tensor<?x2xi32>
  %y = moe.combine %grouped, %positions weights(%w : tensor<?x2xbf16>)
    : tensor<?x8xbf16>, tensor<?x2xi32>
  return %y : tensor<?x8xbf16>
}

// Ids that are given, and a gate that was folded.
// CHECK-NOT: RouterNotRaised
func.func @given(%x: tensor<?x8xf32>, %wide: tensor<?x2xi64>,
                 %w: tensor<?x2xf32>, %t: index) -> tensor<?x8xf32> {
  %empty = tensor.empty(%t) : tensor<?x2xi32>
  %ids = linalg.generic {indexing_maps = [#id, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%wide : tensor<?x2xi64>) outs(%empty : tensor<?x2xi32>) {
  ^bb0(%a: i64, %old: i32):
    %r = arith.trunci %a : i64 to i32
    linalg.yield %r : i32
  } -> tensor<?x2xi32>
  %grouped, %offsets, %positions = moe.dispatch %x, %ids experts(4)
    : tensor<?x8xf32>, tensor<?x2xi32>
  %y = moe.combine %grouped, %positions weights(%w : tensor<?x2xf32>)
    : tensor<?x8xf32>, tensor<?x2xi32>
  return %y : tensor<?x8xf32>
}

func.func @folded(%x: tensor<?x8xf32>, %logits: tensor<?x4xf32>, %t: index)
    -> tensor<?x8xf32> {
  %empty = tensor.empty(%t) : tensor<?x4xf32>
  %scores = linalg.softmax dimension(1) ins(%logits : tensor<?x4xf32>)
      outs(%empty : tensor<?x4xf32>) -> tensor<?x4xf32>
  %w, %ids = moe.gate %scores top_k(2) score(none) : tensor<?x4xf32>
  %grouped, %offsets, %positions = moe.dispatch %x, %ids experts(4)
    : tensor<?x8xf32>, tensor<?x2xi32>
  %y = moe.combine %grouped, %positions weights(%w : tensor<?x2xf32>)
    : tensor<?x8xf32>, tensor<?x2xi32>
  return %y : tensor<?x8xf32>
}
