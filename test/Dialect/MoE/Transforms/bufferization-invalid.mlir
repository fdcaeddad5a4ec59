// RUN: moe-opt %s -one-shot-bufferize=bufferize-function-boundaries -split-input-file -verify-diagnostics

// Buffers come after the lowering; what is left says so.

func.func @gate(%l: tensor<?x8xf32>) -> tensor<?x2xi32> {
  // expected-error @+2 {{is an operation on tensors; run convert-moe-to-linalg before bufferization}}
  // expected-error @+1 {{failed to bufferize op}}
  %w, %i = moe.gate %l top_k(2) : tensor<?x8xf32>
  return %i : tensor<?x2xi32>
}

// -----

func.func @dispatch(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>) -> tensor<?x4xf32> {
  // expected-error @+2 {{is an operation on tensors; run convert-moe-to-linalg before bufferization}}
  // expected-error @+1 {{failed to bufferize op}}
  %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<?x4xf32>, tensor<?x2xi32>
  return %g : tensor<?x4xf32>
}

// -----

func.func @expert(%g: tensor<?x4xf32>, %o: tensor<3xi32>) -> tensor<?x4xf32> {
  // expected-error @+2 {{is an operation on tensors; run convert-moe-to-linalg before bufferization}}
  // expected-error @+1 {{failed to bufferize op}}
  %y = moe.expert %g, %o {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// -----

func.func @combine(%g: tensor<?x4xf32>, %p: tensor<?x2xi32>) -> tensor<?x4xf32> {
  // expected-error @+2 {{is an operation on tensors; run convert-moe-to-linalg before bufferization}}
  // expected-error @+1 {{failed to bufferize op}}
  %y = moe.combine %g, %p : tensor<?x4xf32>, tensor<?x2xi32>
  return %y : tensor<?x4xf32>
}

// -----

func.func @route(%ids: tensor<?x2xi32>) -> tensor<?xi32> {
  // expected-error @+2 {{is an operation on tensors; run convert-moe-to-linalg before bufferization}}
  // expected-error @+1 {{failed to bufferize op}}
  %n, %o, %p = moe.route %ids experts(8) : tensor<?x2xi32>
  return %n : tensor<?xi32>
}
