// RUN: moe-opt %s -split-input-file -verify-diagnostics

//===----------------------------------------------------------------------===//
// Types
//===----------------------------------------------------------------------===//

func.func @rank(%x: tensor<?x?x4xf32>, %ids: tensor<?x2xi32>) {
  // expected-error @+1 {{expected rows and ids of rank 2}}
  %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<?x?x4xf32>, tensor<?x2xi32>
  return
}

// -----

func.func @ids_type(%x: tensor<?x4xf32>, %ids: tensor<?x2xi64>) {
  // expected-error @+1 {{operand #1 must be 2D tensor of 32-bit signless integer values, but got 'tensor<?x2xi64>'}}
  %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<?x4xf32>, tensor<?x2xi64>
  return
}

// -----

func.func @unranked(%x: tensor<*xf32>, %ids: tensor<?x2xi32>) {
  // expected-error @+1 {{operand #0 must be 2D tensor of f32, f16 or bf16 values, but got 'tensor<*xf32>'}}
  %g, %o, %p = "moe.dispatch"(%x, %ids) <{num_experts = 8 : i64}>
    : (tensor<*xf32>, tensor<?x2xi32>) -> (tensor<?x4xf32>, tensor<9xi32>, tensor<?x2xi32>)
  return
}

// -----

func.func @result_type(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>) {
  // expected-error @+2 {{'tensor<?x4xf32>', 'tensor<9xi32>', 'tensor<?x2xi32>' are incompatible with return type(s) of operation 'tensor<?x4xf32>', 'tensor<8xi32>', 'tensor<?x2xi32>'}}
  // expected-error @+1 {{failed to infer returned types}}
  %g, %o, %p = "moe.dispatch"(%x, %ids) <{num_experts = 8 : i64}>
    : (tensor<?x4xf32>, tensor<?x2xi32>) -> (tensor<?x4xf32>, tensor<8xi32>, tensor<?x2xi32>)
  return
}

// -----

func.func @no_experts(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>) {
  // expected-error @+1 {{expected a number of experts between 1 and 2^31 - 2, got 0}}
  %g, %o, %p = moe.dispatch %x, %ids experts(0) : tensor<?x4xf32>, tensor<?x2xi32>
  return
}

// -----

func.func @negative_experts(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>) {
  // expected-error @+1 {{expected a number of experts between 1 and 2^31 - 2, got -9223372036854775808}}
  %g, %o, %p = moe.dispatch %x, %ids experts(-9223372036854775808) : tensor<?x4xf32>, tensor<?x2xi32>
  return
}

// -----

func.func @too_many_experts(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>) {
  // expected-error @+1 {{expected a number of experts between 1 and 2^31 - 2, got 2147483647}}
  %g, %o, %p = moe.dispatch %x, %ids experts(2147483647) : tensor<?x4xf32>, tensor<?x2xi32>
  return
}

// -----

func.func @too_many_choices(%x: tensor<1073741824x4xf32>, %ids: tensor<1073741824x2xi32>) {
  // expected-error @+1 {{expected fewer than 2^31 choices, got 1073741824 x 2}}
  %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<1073741824x4xf32>, tensor<1073741824x2xi32>
  return
}

// -----

func.func @overflowing_choices(%x: tensor<?x4xf32>, %ids: tensor<4611686018427387904x4xi32>) {
  // expected-error @+1 {{expected fewer than 2^31 choices, got 4611686018427387904 x 4}}
  %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<?x4xf32>, tensor<4611686018427387904x4xi32>
  return
}

// -----

func.func @dynamic_choices(%x: tensor<?x4xf32>, %ids: tensor<?x?xi32>) {
  // expected-error @+1 {{expected ids with a static, positive number of choices, got 'tensor<?x?xi32>'}}
  %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<?x4xf32>, tensor<?x?xi32>
  return
}

// -----

func.func @no_choices(%x: tensor<?x4xf32>, %ids: tensor<?x0xi32>) {
  // expected-error @+1 {{expected ids with a static, positive number of choices, got 'tensor<?x0xi32>'}}
  %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<?x4xf32>, tensor<?x0xi32>
  return
}

// -----

func.func @tokens(%x: tensor<5x4xf32>, %ids: tensor<6x2xi32>) {
  // expected-error @+1 {{expected as many rows as tokens in ids, 6, got 5}}
  %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<5x4xf32>, tensor<6x2xi32>
  return
}

// -----

func.func @weights_shape(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>, %w: tensor<?x1xf32>) {
  // expected-error @+1 {{expected weights of shape ?x2, got ?x1}}
  %g, %o, %p = moe.dispatch %x, %ids weights(%w : tensor<?x1xf32>) experts(8) scale_rows
    : tensor<?x4xf32>, tensor<?x2xi32>
  return
}

// -----

//===----------------------------------------------------------------------===//
// Attributes
//===----------------------------------------------------------------------===//

func.func @probability_needs_weights(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>) {
  // expected-error @+1 {{priority(probability) needs weights}}
  %g, %o, %p = moe.dispatch %x, %ids experts(8) capacity(<fixed = 4>) priority(probability)
    : tensor<?x4xf32>, tensor<?x2xi32>
  return
}

// -----

func.func @scale_rows_needs_weights(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>) {
  // expected-error @+1 {{scale_rows needs weights}}
  %g, %o, %p = moe.dispatch %x, %ids experts(8) scale_rows : tensor<?x4xf32>, tensor<?x2xi32>
  return
}

// -----

func.func @choices_zero(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>) {
  // expected-error @+1 {{expected choices between 1 and 2, got 0}}
  %g, %o, %p = moe.dispatch %x, %ids experts(8) choices(0) : tensor<?x4xf32>, tensor<?x2xi32>
  return
}

// -----

func.func @choices_large(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>) {
  // expected-error @+1 {{expected choices between 1 and 2, got 3}}
  %g, %o, %p = moe.dispatch %x, %ids experts(8) choices(3) : tensor<?x4xf32>, tensor<?x2xi32>
  return
}

// -----

func.func @choices_negative(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>) {
  // expected-error @+1 {{expected choices between 1 and 2, got -1}}
  %g, %o, %p = moe.dispatch %x, %ids experts(8) choices(-1) : tensor<?x4xf32>, tensor<?x2xi32>
  return
}

// -----

func.func @next_choice_order(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>, %w: tensor<?x2xf32>) {
  // expected-error @+1 {{overflow(next_choice) needs an order to retry in: priority position or choice, got probability}}
  %g, %o, %p = moe.dispatch %x, %ids weights(%w : tensor<?x2xf32>) experts(8) capacity(<fixed = 4>)
    priority(probability) overflow(next_choice) : tensor<?x4xf32>, tensor<?x2xi32>
  return
}

// -----

func.func @next_choice_capacity(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>) {
  // expected-error @+1 {{overflow(next_choice) needs a capacity}}
  %g, %o, %p = moe.dispatch %x, %ids experts(8) overflow(next_choice) : tensor<?x4xf32>, tensor<?x2xi32>
  return
}
