// The reducer knows the dialect: of two functions it keeps the gate that a script
// looks for.

// RUN: moe-reduce %s -reduction-tree='traversal-mode=0 test=%S/Inputs/has-gate.sh' \
// RUN:   | FileCheck %s --implicit-check-not=moe.combine

// CHECK: func.func @gate
// CHECK: moe.gate
func.func @gate(%logits: tensor<?x8xf32>) -> tensor<?x2xi32> {
  %weights, %ids = moe.gate %logits top_k(2) : tensor<?x8xf32>
  return %ids : tensor<?x2xi32>
}

func.func @combine(%rows: tensor<?x16xf32>, %positions: tensor<?x2xi32>) -> tensor<?x16xf32> {
  %y = moe.combine %rows, %positions : tensor<?x16xf32>, tensor<?x2xi32>
  return %y : tensor<?x16xf32>
}
