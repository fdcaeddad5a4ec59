// RUN: moe-opt %s --moe-differentiate -split-input-file -verify-diagnostics

func.func @unfused(%x: tensor<?x16xf32>, %p: tensor<?x2xi32>) -> tensor<?x16xf32> {
  // expected-error @+1 {{'moe.combine' op has no gradient; run moe-fuse first}}
  %y = moe.combine %x, %p : tensor<?x16xf32>, tensor<?x2xi32>
  return %y : tensor<?x16xf32>
}

// -----

// expected-error @+1 {{expected no function of this name, which the backward function of 'layer' gets}}
func.func private @layer_backward()
func.func @layer(%x: tensor<?x16xf32>, %p: tensor<?x2xi32>, %o: tensor<?x16xf32>) -> tensor<?x16xf32> {
  %y = moe.gather_sum %x, %p outs(%o : tensor<?x16xf32>) : tensor<?x16xf32>, tensor<?x2xi32> -> tensor<?x16xf32>
  return %y : tensor<?x16xf32>
}

// -----

// expected-error @+1 {{expected an argument that is a tensor of floats}}
func.func @integers(%ids: tensor<?x2xi32>) -> tensor<?x2xi32> {
  %t, %o, %p = moe.route %ids experts(8) : tensor<?x2xi32>
  return %p : tensor<?x2xi32>
}

// -----

func.func @scalar(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    // expected-error @+1 {{'math.atan' op has no gradient}}
    %a = math.atan %s : f32
    moe.yield %a : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// -----

func.func @threshold(%l: tensor<?x8xf32>) -> tensor<?x2xf32> {
  // expected-error @+1 {{has no gradient: a threshold leaves out choices after the softmax of the selected logits}}
  %w, %i = moe.gate %l top_k(2) order(select_then_score) threshold(0.1) : tensor<?x8xf32>
  return %w : tensor<?x2xf32>
}

// -----

func.func @given(%l: tensor<?x8xf32>, %n: tensor<?x2xi32>) -> tensor<?x2xf32> {
  // expected-error @+1 {{has no gradient: a threshold leaves out given choices, without which later ones were scored}}
  %w, %i = moe.gate %l ids(%n : tensor<?x2xi32>) top_k(2) order(score_each_choice) threshold(0.1) : tensor<?x8xf32>
  return %w : tensor<?x2xf32>
}

// -----

func.func @gather(%x: tensor<?x4xf32>, %n: tensor<?xi32>, %w: tensor<1x4x8xf32>) -> tensor<?x8xf32> {
  %c0 = arith.constant 0 : index
  %r = tensor.dim %n, %c0 : tensor<?xi32>
  %o = tensor.empty(%r) : tensor<?x8xf32>
  // expected-error @+1 {{has no gradient: its rows are gathered by other indices than those of a moe.route}}
  %y = moe.grouped_matmul %x gather(%n : tensor<?xi32>) weights(%w : tensor<1x4x8xf32>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}
