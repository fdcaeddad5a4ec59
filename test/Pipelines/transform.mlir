// Passes and pipelines as steps of a transform script, with options: here, and in a
// tool that loads the plugin.

// RUN: moe-opt %s -split-input-file -verify-diagnostics -transform-interpreter | FileCheck %s
// RUN: mlir-opt %s -split-input-file -verify-diagnostics -transform-interpreter \
// RUN:   --load-dialect-plugin=%moe_plugin --load-pass-plugin=%moe_plugin | FileCheck %s
// UNSUPPORTED: sanitizer

// A pass on one of two functions, and the same pass with an option on the other.
// CHECK-LABEL: func.func @fused(
// CHECK-NOT:     moe.dequantize
// CHECK:         moe.grouped_matmul {{.*}} weight_scales(
// CHECK-LABEL: func.func @kept(
// CHECK:         moe.dequantize
// CHECK:         moe.grouped_matmul
module attributes {transform.with_named_sequence} {
  func.func @fused(%x: tensor<?x128xbf16>, %w: tensor<1x128x128xf8E4M3FN>, %s: tensor<1x1x1xf32>,
                   %init: tensor<?x128xbf16>) -> tensor<?x128xbf16> {
    %d = moe.dequantize %w, %s format(<codes = <element = f8E4M3FN>, scales = [#moe.field<element = f32, operand = 1, block = [128, 128]>]>)
      : tensor<1x128x128xf8E4M3FN>, tensor<1x1x1xf32> -> tensor<1x128x128xbf16>
    %y = moe.grouped_matmul %x weights(%d : tensor<1x128x128xbf16>) transposed outs(%init : tensor<?x128xbf16>) {
    ^bb0(%sum: f32):
      %r = arith.truncf %sum : f32 to bf16
      moe.yield %r : bf16
    } : tensor<?x128xbf16> -> tensor<?x128xbf16>
    return %y : tensor<?x128xbf16>
  }
  func.func @kept(%x: tensor<?x128xbf16>, %w: tensor<1x128x128xf8E4M3FN>, %s: tensor<1x1x1xf32>,
                  %init: tensor<?x128xbf16>) -> tensor<?x128xbf16> {
    %d = moe.dequantize %w, %s format(<codes = <element = f8E4M3FN>, scales = [#moe.field<element = f32, operand = 1, block = [128, 128]>]>)
      : tensor<1x128x128xf8E4M3FN>, tensor<1x1x1xf32> -> tensor<1x128x128xbf16>
    %y = moe.grouped_matmul %x weights(%d : tensor<1x128x128xbf16>) transposed outs(%init : tensor<?x128xbf16>) {
    ^bb0(%sum: f32):
      %r = arith.truncf %sum : f32 to bf16
      moe.yield %r : bf16
    } : tensor<?x128xbf16> -> tensor<?x128xbf16>
    return %y : tensor<?x128xbf16>
  }
  transform.named_sequence @__transform_main(%root: !transform.any_op) {
    %functions = transform.structured.match ops{["func.func"]} in %root : (!transform.any_op) -> !transform.any_op
    %fused, %kept = transform.split_handle %functions : (!transform.any_op) -> (!transform.any_op, !transform.any_op)
    %0 = transform.apply_registered_pass "moe-fuse-scales" to %fused : (!transform.any_op) -> !transform.any_op
    %1 = transform.apply_registered_pass "moe-fuse-scales" with options = {"keep-formats" = true} to %kept
      : (!transform.any_op) -> !transform.any_op
    transform.yield
  }
}

// -----

// Pipelines: fusion, then kernels for a processor, whose options a parameter gives.
// CHECK-LABEL: module @payload
// CHECK-NOT:     moe.gate
// CHECK:         llvm.func internal @layer__gate
// CHECK:         llvm.load {{.*}} vector<16xf32>
module attributes {transform.with_named_sequence} {
  module @payload attributes {test.payload} {
    func.func @layer(%logits: tensor<?x16xf32>) -> tensor<?x2xf32> {
      %weights, %ids = moe.gate %logits top_k(2) : tensor<?x16xf32>
      return %weights : tensor<?x2xf32>
    }
  }
  transform.named_sequence @__transform_main(%root: !transform.any_op) {
    %module = transform.structured.match ops{["builtin.module"]} attributes {test.payload} in %root : (!transform.any_op) -> !transform.any_op
    %bits = transform.param.constant 512 -> !transform.any_param
    %0 = transform.apply_registered_pass "moe-fuse" to %module : (!transform.any_op) -> !transform.any_op
    %1 = transform.apply_registered_pass "moe-cpu"
      with options = {"vector-bits" = %bits, "vector-registers" = 32} to %0
      : (!transform.any_op, !transform.any_param) -> !transform.any_op
    transform.yield
  }
}

// -----

// A pass that fails says why, as without a script; its option is a list.
module attributes {transform.with_named_sequence} {
  // expected-note @+1 {{target op}}
  module attributes {test.payload} {
    func.func @left(%logits: tensor<?x16xf32>) -> tensor<?x2xf32> {
      // expected-error @+1 {{moe.gate}}
      %weights, %ids = moe.gate %logits top_k(2) : tensor<?x16xf32>
      return %weights : tensor<?x2xf32>
    }
  }
  transform.named_sequence @__transform_main(%root: !transform.any_op) {
    %module = transform.structured.match ops{["builtin.module"]} attributes {test.payload} in %root : (!transform.any_op) -> !transform.any_op
    // expected-error @+1 {{pass pipeline failed}}
    %0 = transform.apply_registered_pass "moe-verify-lowered" with options = {"dialects" = ["func", "llvm"]}
      to %module : (!transform.any_op) -> !transform.any_op
    transform.yield
  }
}
