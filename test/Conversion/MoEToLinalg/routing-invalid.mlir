// RUN: moe-opt %s -convert-moe-routing-to-linalg -verify-diagnostics

func.func @combine(%x: tensor<?x4xf32>, %p: tensor<?x2xi32>) -> tensor<?x4xf32> {
  // expected-error @+1 {{'moe.combine' op was not lowered to linalg}}
  %y = moe.combine %x, %p : tensor<?x4xf32>, tensor<?x2xi32>
  return %y : tensor<?x4xf32>
}
