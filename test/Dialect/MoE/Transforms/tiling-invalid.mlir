// RUN: moe-opt %s -transform-interpreter -split-input-file -verify-diagnostics

// Experts choose among all tokens.
func.func @expert_choice(%l: tensor<?x8xf32>) -> tensor<?x8xi32> {
  // expected-error @+3 {{cannot be tiled: every token depends on the others where experts choose or a softmax runs over tokens}}
  // expected-error @+2 {{to tile operation}}
  // expected-error @+1 {{failed to generate tiling loops}}
  %w, %i = moe.gate %l top_k(8) select(expert_choice) capacity(<fixed = 4>) : tensor<?x8xf32>
  return %i : tensor<?x8xi32>
}
module attributes {transform.with_named_sequence} {
  transform.named_sequence @__transform_main(%m: !transform.any_op {transform.readonly}) {
    %g = transform.structured.match ops{["moe.gate"]} in %m : (!transform.any_op) -> !transform.any_op
    %t, %l = transform.structured.tile_using_for %g tile_sizes [4] : (!transform.any_op) -> (!transform.any_op, !transform.any_op)
    transform.yield
  }
}

// -----

// The softmax sums over all tokens.
func.func @softmax_over_tokens(%l: tensor<?x8xf32>) -> tensor<?x2xf32> {
  // expected-note @+5 {{when applied to this op}}
  // expected-warning @+4 {{tiling is not thread safe at axis #0}}
  // expected-error @+3 {{cannot be tiled: every token depends on the others where experts choose or a softmax runs over tokens}}
  // expected-error @+2 {{to tile operation}}
  // expected-error @+1 {{failed to generate tiling loops}}
  %w, %i = moe.gate %l top_k(2) score_axis(tokens) : tensor<?x8xf32>
  return %w : tensor<?x2xf32>
}
module attributes {transform.with_named_sequence} {
  transform.named_sequence @__transform_main(%m: !transform.any_op {transform.readonly}) {
    %g = transform.structured.match ops{["moe.gate"]} in %m : (!transform.any_op) -> !transform.any_op
    // expected-error @+1 {{failed to apply}}
    %t, %l = transform.structured.tile_using_forall %g tile_sizes [4] : (!transform.any_op) -> (!transform.any_op, !transform.any_op)
    transform.yield
  }
}

// -----

// A gate has one loop: the experts of a token are chosen together.
func.func @over_experts(%l: tensor<?x8xf32>) -> tensor<?x2xf32> {
  // expected-note @+1 {{target op}}
  %w, %i = moe.gate %l top_k(2) : tensor<?x8xf32>
  return %w : tensor<?x2xf32>
}
module attributes {transform.with_named_sequence} {
  transform.named_sequence @__transform_main(%m: !transform.any_op {transform.readonly}) {
    %g = transform.structured.match ops{["moe.gate"]} in %m : (!transform.any_op) -> !transform.any_op
    // expected-error @+1 {{too many tiles provided, expected at most 1 found 2}}
    %t, %l:2 = transform.structured.tile_using_for %g tile_sizes [4, 4] : (!transform.any_op) -> (!transform.any_op, !transform.any_op, !transform.any_op)
    transform.yield
  }
}

// -----

// The rows of an expert are wherever its tokens are.
func.func @dispatch(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>) -> tensor<?x4xf32> {
  // expected-note @+1 {{target op}}
  %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<?x4xf32>, tensor<?x2xi32>
  return %g : tensor<?x4xf32>
}
module attributes {transform.with_named_sequence} {
  transform.named_sequence @__transform_main(%m: !transform.any_op {transform.readonly}) {
    %g = transform.structured.match ops{["moe.dispatch"]} in %m : (!transform.any_op) -> !transform.any_op
    // expected-error @+1 {{only ops implementing TilingInterface are supported}}
    %t, %l = transform.structured.tile_using_for %g tile_sizes [4] : (!transform.any_op) -> (!transform.any_op, !transform.any_op)
    transform.yield
  }
}
