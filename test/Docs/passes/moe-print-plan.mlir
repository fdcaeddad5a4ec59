// RUN: moe-opt %s --moe-plan-capacity="tokens=1:64" --moe-print-plan -o /dev/null | FileCheck %s

// The plan of the attribute, and what a call costs at some numbers of tokens.
// CHECK: plan of @layer for 1 to 64 tokens
// CHECK:   dispatch 0: 8 experts, top_k 2
// CHECK: T = 64:
func.func @layer(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>) -> tensor<?x16xf32> {
  %rows, %offsets, %positions = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x2xi32>
  %y = moe.combine %rows, %positions : tensor<?x16xf32>, tensor<?x2xi32>
  return %y : tensor<?x16xf32>
}
