// RUN: moe-opt %s --moe-raise-gate --canonicalize -split-input-file | FileCheck %s

#id = affine_map<(d0, d1) -> (d0, d1)>

// CHECK-LABEL: @softmax
// CHECK-NEXT: %[[W:.*]], %[[IDS:.*]] = moe.gate %arg0 top_k(2) : tensor<?x8xbf16>
// CHECK-NEXT: return %[[W]], %[[IDS]]
func.func @softmax(%logits: tensor<?x8xbf16>, %t: index)
    -> (tensor<?x2xf32>, tensor<?x2xi32>) {
  %empty = tensor.empty(%t) : tensor<?x8xf32>
  %wide = linalg.generic {indexing_maps = [#id, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%logits : tensor<?x8xbf16>) outs(%empty : tensor<?x8xf32>) {
  ^bb0(%x: bf16, %old: f32):
    %r = arith.extf %x : bf16 to f32
    linalg.yield %r : f32
  } -> tensor<?x8xf32>
  %scores = linalg.softmax dimension(1) ins(%wide : tensor<?x8xf32>)
      outs(%empty : tensor<?x8xf32>) -> tensor<?x8xf32>
  %w, %ids = moe.gate %scores top_k(2) score(none) : tensor<?x8xf32>
  return %w, %ids : tensor<?x2xf32>, tensor<?x2xi32>
}

// -----

#id = affine_map<(d0, d1) -> (d0, d1)>

// Scores that are rounded before the selection.
// CHECK-LABEL: @rounded_sigmoid
// CHECK-NEXT: moe.gate %arg0 top_k(2) score(sigmoid) score_type(bf16)
// CHECK-NEXT: return
func.func @rounded_sigmoid(%logits: tensor<?x8xbf16>, %t: index)
    -> (tensor<?x2xbf16>, tensor<?x2xi32>) {
  %empty = tensor.empty(%t) : tensor<?x8xbf16>
  %scores = linalg.generic {indexing_maps = [#id, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%logits : tensor<?x8xbf16>) outs(%empty : tensor<?x8xbf16>) {
  ^bb0(%in: bf16, %old: bf16):
    %x = arith.extf %in : bf16 to f32
    %negated = arith.negf %x : f32
    %exp = math.exp %negated : f32
    %one = arith.constant 1.0 : f32
    %sum = arith.addf %one, %exp : f32
    %sigmoid = arith.divf %one, %sum : f32
    %r = arith.truncf %sigmoid : f32 to bf16
    linalg.yield %r : bf16
  } -> tensor<?x8xbf16>
  %w, %ids = moe.gate %scores top_k(2) score(none) score_type(bf16)
    : tensor<?x8xbf16>
  return %w, %ids : tensor<?x2xbf16>, tensor<?x2xi32>
}

// -----

// A softmax over the tokens, or of a gate that scores already, is left.
// CHECK-LABEL: @other_softmax
// CHECK: linalg.softmax dimension(0)
// CHECK: moe.gate %{{.*}} top_k(2) score(none)
// CHECK: linalg.softmax dimension(1)
// CHECK: moe.gate %{{.*}} top_k(2) score(sigmoid)
func.func @other_softmax(%logits: tensor<?x8xf32>, %t: index)
    -> (tensor<?x2xf32>, tensor<?x2xf32>) {
  %empty = tensor.empty(%t) : tensor<?x8xf32>
  %tokens = linalg.softmax dimension(0) ins(%logits : tensor<?x8xf32>)
      outs(%empty : tensor<?x8xf32>) -> tensor<?x8xf32>
  %w0, %ids0 = moe.gate %tokens top_k(2) score(none) : tensor<?x8xf32>
  %experts = linalg.softmax dimension(1) ins(%logits : tensor<?x8xf32>)
      outs(%empty : tensor<?x8xf32>) -> tensor<?x8xf32>
  %w1, %ids1 = moe.gate %experts top_k(2) score(sigmoid) : tensor<?x8xf32>
  return %w0, %w1 : tensor<?x2xf32>, tensor<?x2xf32>
}

// -----

#id = affine_map<(d0, d1) -> (d0, d1)>
#transposed = affine_map<(d0, d1) -> (d1, d0)>

// 1 / (2 + exp(−x)) is no sigmoid; neither is one of the transposed logits.
// CHECK-LABEL: @no_sigmoid
// CHECK-COUNT-2: moe.gate %{{.*}} top_k(2) score(none)
func.func @no_sigmoid(%logits: tensor<8x8xf32>)
    -> (tensor<8x2xf32>, tensor<8x2xf32>) {
  %empty = tensor.empty() : tensor<8x8xf32>
  %a = linalg.generic {indexing_maps = [#id, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%logits : tensor<8x8xf32>) outs(%empty : tensor<8x8xf32>) {
  ^bb0(%x: f32, %old: f32):
    %negated = arith.negf %x : f32
    %exp = math.exp %negated : f32
    %one = arith.constant 1.0 : f32
    %two = arith.constant 2.0 : f32
    %sum = arith.addf %two, %exp : f32
    %r = arith.divf %one, %sum : f32
    linalg.yield %r : f32
  } -> tensor<8x8xf32>
  %b = linalg.generic {indexing_maps = [#transposed, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%logits : tensor<8x8xf32>) outs(%empty : tensor<8x8xf32>) {
  ^bb0(%x: f32, %old: f32):
    %negated = arith.negf %x : f32
    %exp = math.exp %negated : f32
    %one = arith.constant 1.0 : f32
    %sum = arith.addf %one, %exp : f32
    %r = arith.divf %one, %sum : f32
    linalg.yield %r : f32
  } -> tensor<8x8xf32>
  %w0, %ids0 = moe.gate %a top_k(2) score(none) : tensor<8x8xf32>
  %w1, %ids1 = moe.gate %b top_k(2) score(none) : tensor<8x8xf32>
  return %w0, %w1 : tensor<8x2xf32>, tensor<8x2xf32>
}
