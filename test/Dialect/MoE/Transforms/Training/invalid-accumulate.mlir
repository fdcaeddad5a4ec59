// RUN: not moe-opt %s --moe-differentiate="arguments=x,w accumulate=v" 2>&1 | FileCheck %s --check-prefix=UNKNOWN
// RUN: not moe-opt %s --moe-differentiate="arguments=x f32-gradients=w" 2>&1 | FileCheck %s --check-prefix=CONSTANT
// RUN: not moe-opt %s --moe-differentiate="arguments=x,w accumulate=x" 2>&1 | FileCheck %s --check-prefix=DYNAMIC

// UNKNOWN: invalid-accumulate.mlir:[[@LINE+3]]:1: error: expected the name or the number of an argument with a gradient, or 'all', got 'v'
// CONSTANT: error: expected the name or the number of an argument with a gradient, or 'all', got 'w'
// DYNAMIC: error: expected argument 'x' to have a static shape, as weights have, to choose the type or the memory of its gradient, got 'tensor<?x4xf32>'
func.func @layer(%x: tensor<?x4xf32> {moe.name = "x"}, %w: tensor<1x4x8xf32> {moe.name = "w"},
                 %o: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}
