// The operands of a moe operation are read and its results are new: the analysis
// sees that the fill may not write into %x, which the gate reads later.
// RUN: moe-opt %s --one-shot-bufferize="test-analysis-only bufferize-function-boundaries" \
// RUN:   | FileCheck %s

// CHECK-LABEL: func.func @read_after_write
// CHECK:         linalg.fill {__inplace_operands_attr__ = ["none", "false"]}
// CHECK:         moe.gate {{.*}}__inplace_operands_attr__ = ["true"]
func.func @read_after_write(%x: tensor<?x8xf32> {bufferization.writable = true})
    -> (tensor<?x8xf32>, tensor<?x2xi32>) {
  %zero = arith.constant 0.0 : f32
  %filled = linalg.fill ins(%zero : f32) outs(%x : tensor<?x8xf32>) -> tensor<?x8xf32>
  %weights, %ids = moe.gate %x top_k(2) : tensor<?x8xf32>
  return %filled, %ids : tensor<?x8xf32>, tensor<?x2xi32>
}
