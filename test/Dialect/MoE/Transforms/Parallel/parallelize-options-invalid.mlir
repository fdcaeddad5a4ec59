// RUN: moe-opt %s -split-input-file -verify-diagnostics --moe-parallelize="slots=4 reduce=per_rank"

// A softmax over kept choices is not a quotient by their sum.
func.func @softmax(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>, %w: tensor<?x2xf32>) -> tensor<?x16xf32> {
  %rows, %offsets, %positions = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x2xi32>
  // expected-error@+1 {{expected weights that are normalised by their sum over experts of one kind, or not after choices were dropped, to add rows on each rank (reduce = per_rank)}}
  %o = moe.combine %rows, %positions weights(%w : tensor<?x2xf32>) normalize(<softmax>) : tensor<?x16xf32>, tensor<?x2xi32>
  return %o : tensor<?x16xf32>
}

// -----

// Weights that need the results of experts cannot leave with the tokens.
func.func @weights(%x: tensor<?x2xf32>, %ids: tensor<?x2xi32>, %w: tensor<?x2xf32>) -> tensor<?x2xf32> {
  %rows, %offsets, %positions = moe.dispatch %x, %ids experts(8) : tensor<?x2xf32>, tensor<?x2xi32>
  %first = moe.combine %rows, %positions weights(%w : tensor<?x2xf32>) : tensor<?x2xf32>, tensor<?x2xi32>
  // expected-error@+1 {{expected weights that do not depend on the rows of experts, to add rows on each rank (reduce = per_rank)}}
  %o = moe.combine %rows, %positions weights(%first : tensor<?x2xf32>) : tensor<?x2xf32>, tensor<?x2xi32>
  return %o : tensor<?x2xf32>
}
