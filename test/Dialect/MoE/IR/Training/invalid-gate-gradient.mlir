// RUN: moe-opt %s -split-input-file -verify-diagnostics

func.func @rank(%l: tensor<8xf32>, %i: tensor<?x2xi32>, %g: tensor<?x2xf32>) {
  // expected-error @+1 {{operand #0 must be 2D tensor of f32, f16 or bf16 values, but got 'tensor<8xf32>'}}
  %d = moe.gate_gradient %l, %i, %g : tensor<8xf32>, tensor<?x2xi32>, tensor<?x2xf32>
  return
}

// -----

func.func @gradient_type(%l: tensor<?x8xf32>, %i: tensor<?x2xi32>, %g: tensor<?x2xf64>) {
  // expected-error @+1 {{operand #2 must be 2D tensor of f32, f16 or bf16 values, but got 'tensor<?x2xf64>'}}
  %d = moe.gate_gradient %l, %i, %g : tensor<?x8xf32>, tensor<?x2xi32>, tensor<?x2xf64>
  return
}

// -----

func.func @ids_type(%l: tensor<?x8xf32>, %i: tensor<?x2xi64>, %g: tensor<?x2xf32>) {
  // expected-error @+1 {{operand #1 must be 2D tensor of 32-bit signless integer values, but got 'tensor<?x2xi64>'}}
  %d = moe.gate_gradient %l, %i, %g : tensor<?x8xf32>, tensor<?x2xi64>, tensor<?x2xf32>
  return
}

// -----

func.func @result_type(%l: tensor<?x8xbf16>, %i: tensor<?x2xi32>, %g: tensor<?x2xf32>) {
  // expected-error @+2 {{inferred type(s) 'tensor<?x8xbf16>' are incompatible with return type(s) of operation 'tensor<?x8xf32>'}}
  // expected-error @+1 {{failed to infer returned types}}
  %d = "moe.gate_gradient"(%l, %i, %g) <{operandSegmentSizes = array<i32: 1, 1, 1, 0>}>
    : (tensor<?x8xbf16>, tensor<?x2xi32>, tensor<?x2xf32>) -> tensor<?x8xf32>
  return
}

// -----

func.func @dynamic_experts(%l: tensor<?x?xf32>, %i: tensor<?x2xi32>, %g: tensor<?x2xf32>) {
  // expected-error @+1 {{expected logits with a static number of experts, got 'tensor<?x?xf32>'}}
  %d = moe.gate_gradient %l, %i, %g : tensor<?x?xf32>, tensor<?x2xi32>, tensor<?x2xf32>
  return
}

// -----

func.func @no_experts(%l: tensor<?x0xf32>, %i: tensor<?x2xi32>, %g: tensor<?x2xf32>) {
  // expected-error @+1 {{expected a number of experts between 1 and 2147483646, got 0}}
  %d = moe.gate_gradient %l, %i, %g : tensor<?x0xf32>, tensor<?x2xi32>, tensor<?x2xf32>
  return
}

// -----

func.func @dynamic_choices(%l: tensor<?x8xf32>, %i: tensor<?x?xi32>, %g: tensor<?x2xf32>) {
  // expected-error @+1 {{expected ids with a static, positive number of choices, got 'tensor<?x?xi32>'}}
  %d = moe.gate_gradient %l, %i, %g : tensor<?x8xf32>, tensor<?x?xi32>, tensor<?x2xf32>
  return
}

// -----

func.func @more_choices_than_experts(%l: tensor<?x8xf32>, %i: tensor<?x9xi32>, %g: tensor<?x9xf32>) {
  // expected-error @+1 {{expected choices between 1 and 8, got 9}}
  %d = moe.gate_gradient %l, %i, %g : tensor<?x8xf32>, tensor<?x9xi32>, tensor<?x9xf32>
  return
}

// -----

func.func @ids_tokens(%l: tensor<5x8xf32>, %i: tensor<4x2xi32>, %g: tensor<?x2xf32>) {
  // expected-error @+1 {{expected ids of shape 5x2, got 4x2}}
  %d = moe.gate_gradient %l, %i, %g : tensor<5x8xf32>, tensor<4x2xi32>, tensor<?x2xf32>
  return
}

// -----

func.func @gradient_choices(%l: tensor<?x8xf32>, %i: tensor<?x2xi32>, %g: tensor<?x3xf32>) {
  // expected-error @+1 {{expected a gradient of shape ?x2, got ?x3}}
  %d = moe.gate_gradient %l, %i, %g : tensor<?x8xf32>, tensor<?x2xi32>, tensor<?x3xf32>
  return
}

// -----

func.func @gradient_tokens(%l: tensor<5x8xf32>, %i: tensor<?x2xi32>, %g: tensor<4x2xf32>) {
  // expected-error @+1 {{expected a gradient of shape 5x2, got 4x2}}
  %d = moe.gate_gradient %l, %i, %g : tensor<5x8xf32>, tensor<?x2xi32>, tensor<4x2xf32>
  return
}

// -----

func.func @gradient_tokens_of_ids(%l: tensor<?x8xf32>, %i: tensor<5x2xi32>, %g: tensor<4x2xf32>) {
  // expected-error @+1 {{expected a gradient of shape 5x2, got 4x2}}
  %d = moe.gate_gradient %l, %i, %g : tensor<?x8xf32>, tensor<5x2xi32>, tensor<4x2xf32>
  return
}

// -----

func.func @noise(%l: tensor<?x8xf32>, %i: tensor<?x2xi32>, %g: tensor<?x2xf32>, %n: tensor<?x4xf32>) {
  // expected-error @+1 {{expected noise of shape ?x8, got ?x4}}
  %d = moe.gate_gradient %l, %i, %g noise(%n : tensor<?x4xf32>) : tensor<?x8xf32>, tensor<?x2xi32>, tensor<?x2xf32>
  return
}

// -----

func.func @axis_needs_softmax(%l: tensor<?x8xf32>, %i: tensor<?x2xi32>, %g: tensor<?x2xf32>) {
  // expected-error @+1 {{score_axis(tokens) needs score(softmax) and order(score_then_select)}}
  %d = moe.gate_gradient %l, %i, %g score(sigmoid) score_axis(tokens) : tensor<?x8xf32>, tensor<?x2xi32>, tensor<?x2xf32>
  return
}

// -----

func.func @axis_needs_order(%l: tensor<?x8xf32>, %i: tensor<?x2xi32>, %g: tensor<?x2xf32>) {
  // expected-error @+1 {{score_axis(tokens) needs score(softmax) and order(score_then_select)}}
  %d = moe.gate_gradient %l, %i, %g score_axis(tokens) order(select_then_score) : tensor<?x8xf32>, tensor<?x2xi32>, tensor<?x2xf32>
  return
}

// -----

func.func @each_choice_needs_softmax(%l: tensor<?x8xf32>, %i: tensor<?x2xi32>, %g: tensor<?x2xf32>) {
  // expected-error @+1 {{order(score_each_choice) needs score(softmax)}}
  %d = moe.gate_gradient %l, %i, %g score(relu) order(score_each_choice) : tensor<?x8xf32>, tensor<?x2xi32>, tensor<?x2xf32>
  return
}

// -----

func.func @margin_order(%l: tensor<?x8xf32>, %i: tensor<?x2xi32>, %g: tensor<?x2xf32>) {
  // expected-error @+1 {{margin needs order(score_each_choice)}}
  %d = moe.gate_gradient %l, %i, %g margin(0.1) : tensor<?x8xf32>, tensor<?x2xi32>, tensor<?x2xf32>
  return
}

// -----

func.func @margin_nan(%l: tensor<?x8xf32>, %i: tensor<?x2xi32>, %g: tensor<?x2xf32>) {
  // expected-error @+1 {{expected a margin of at least 0}}
  %d = moe.gate_gradient %l, %i, %g order(score_each_choice) margin(0x7FF8000000000000) : tensor<?x8xf32>, tensor<?x2xi32>, tensor<?x2xf32>
  return
}

// -----

func.func @scale_infinite(%l: tensor<?x8xf32>, %i: tensor<?x2xi32>, %g: tensor<?x2xf32>) {
  // expected-error @+1 {{expected a scale that is finite in f32}}
  %d = moe.gate_gradient %l, %i, %g scale(1.0e39) : tensor<?x8xf32>, tensor<?x2xi32>, tensor<?x2xf32>
  return
}
