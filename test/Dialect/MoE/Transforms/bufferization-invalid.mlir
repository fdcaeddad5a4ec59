// RUN: moe-opt %s --one-shot-bufferize -split-input-file -verify-diagnostics

func.func @gate(%logits: tensor<?x8xf32>) -> tensor<?x2xi32> {
  // expected-error @+2 {{'moe.gate' op is an operation on tensors; run convert-moe-to-linalg before bufferization}}
  // expected-error @+1 {{failed to bufferize op}}
  %weights, %ids = moe.gate %logits top_k(2) : tensor<?x8xf32>
  return %ids : tensor<?x2xi32>
}
