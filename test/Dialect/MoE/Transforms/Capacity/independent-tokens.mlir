// RUN: moe-opt %s -moe-export -moe-chunk-tokens | FileCheck %s
// RUN: moe-opt %s -moe-export -moe-chunk-tokens=chunk=3 -verify-diagnostics -o /dev/null

// A call may leave out the last tokens only if the others do not depend on them:
// not where they share a capacity.
// CHECK-LABEL: func.func @together(
// CHECK-NOT:     moe.independent_tokens
// CHECK:         moe.dispatch
// expected-error @+1 {{expected tokens that do not depend on one another}}
func.func @together(%l: tensor<?x4xf32>, %x: tensor<?x6xf32>) -> tensor<?x6xf32> {
  %weights, %ids = moe.gate %l top_k(2) : tensor<?x4xf32>
  // expected-note @+1 {{}}
  %g, %o, %p = moe.dispatch %x, %ids experts(4) capacity(<factor = 1.0>)
      : tensor<?x6xf32>, tensor<?x2xi32>
  %y = moe.combine %g, %p weights(%weights : tensor<?x2xf32>) : tensor<?x6xf32>, tensor<?x2xi32>
  return %y : tensor<?x6xf32>
}
