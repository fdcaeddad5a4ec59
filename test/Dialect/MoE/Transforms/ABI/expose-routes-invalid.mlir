// RUN: moe-opt %s --moe-expose-routes=mode=replay-ids -split-input-file -verify-diagnostics
// RUN: not moe-opt %s --moe-expose-routes=mode=replays -split-input-file 2>&1 | FileCheck %s

// CHECK: Cannot find option named 'replays'

// expected-error@+1 {{expected a moe.dispatch of ids or weights that the caller of its function does not pass}}
module {
  func.func @given(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>, %w: tensor<?x2xf32>) -> tensor<?x16xf32> {
    %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x2xi32>
    %y = moe.combine %g, %p weights(%w : tensor<?x2xf32>) : tensor<?x16xf32>, tensor<?x2xi32>
    return %y : tensor<?x16xf32>
  }
}

// -----

func.func @conditional(%x: tensor<?x16xf32>, %logits: tensor<?x8xf32>, %c: i1) -> tensor<?x16xf32> {
  %r = scf.if %c -> tensor<?x16xf32> {
    %w, %ids = moe.gate %logits top_k(2) : tensor<?x8xf32>
    // expected-error@+1 {{expected a dispatch in the body of the function, whose route can be recorded or given}}
    %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x2xi32>
    %y = moe.combine %g, %p weights(%w : tensor<?x2xf32>) : tensor<?x16xf32>, tensor<?x2xi32>
    scf.yield %y : tensor<?x16xf32>
  } else {
    scf.yield %x : tensor<?x16xf32>
  }
  return %r : tensor<?x16xf32>
}

// -----

func.func @hash(%x: tensor<?x16xf32>, %tokens: tensor<?x1xi32>) -> tensor<?x16xf32> {
  // expected-error@+1 {{expected a moe.gate, which can weigh given ids, to have chosen the ids of a dispatch}}
  %ids = linalg.add ins(%tokens, %tokens : tensor<?x1xi32>, tensor<?x1xi32>) outs(%tokens : tensor<?x1xi32>) -> tensor<?x1xi32>
  %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x1xi32>
  %y = moe.combine %g, %p : tensor<?x16xf32>, tensor<?x1xi32>
  return %y : tensor<?x16xf32>
}

// -----

func.func @rows_with_a_capacity(%x: tensor<?x16xf32>, %logits: tensor<?x8xf32>) -> tensor<?x16xf32> {
  %w, %ids = moe.gate %logits top_k(2) : tensor<?x8xf32>
  %g, %o, %p = moe.dispatch %x, %ids experts(8) capacity(<fixed = 4>) : tensor<?x16xf32>, tensor<?x2xi32>
  %inner = tensor.extract_slice %g[0, 0] [4, 8] [1, 1] : tensor<?x16xf32> to tensor<4x8xf32>
  %d = tensor.cast %inner : tensor<4x8xf32> to tensor<?x8xf32>
  %w1, %ids1 = moe.gate %d top_k(1) : tensor<?x8xf32>
  // expected-error@+1 {{expected its rows not to be those of a dispatch with a capacity, so that its route can be recorded or given}}
  %g1, %o1, %p1 = moe.dispatch %g, %ids1 experts(8) : tensor<?x16xf32>, tensor<?x1xi32>
  %y1 = moe.combine %g1, %p1 weights(%w1 : tensor<?x1xf32>) : tensor<?x16xf32>, tensor<?x1xi32>
  %y = moe.combine %y1, %p weights(%w : tensor<?x2xf32>) : tensor<?x16xf32>, tensor<?x2xi32>
  return %y : tensor<?x16xf32>
}
