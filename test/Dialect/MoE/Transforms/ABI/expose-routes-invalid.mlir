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

func.func @sparse_mixer(%x: tensor<?x16xf32>, %logits: tensor<?x8xf32>) -> tensor<?x16xf32> {
  // expected-error@+1 {{expected another order than score_each_choice, which has no weights of given ids}}
  %w, %ids = moe.gate %logits top_k(2) order(score_each_choice) margin(0.01) : tensor<?x8xf32>
  %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x2xi32>
  %y = moe.combine %g, %p weights(%w : tensor<?x2xf32>) : tensor<?x16xf32>, tensor<?x2xi32>
  return %y : tensor<?x16xf32>
}
