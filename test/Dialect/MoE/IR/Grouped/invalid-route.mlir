// RUN: moe-opt %s -split-input-file -verify-diagnostics

func.func @ids_type(%ids: tensor<?x2xindex>) {
  // expected-error @+1 {{operand #0 must be 2D tensor of 32-bit signless integer values, but got 'tensor<?x2xindex>'}}
  %n, %o, %p = moe.route %ids experts(8) : tensor<?x2xindex>
  return
}

// -----

func.func @dynamic_choices(%ids: tensor<?x?xi32>) {
  // expected-error @+1 {{expected ids with a static, positive number of choices, got 'tensor<?x?xi32>'}}
  %n, %o, %p = moe.route %ids experts(8) : tensor<?x?xi32>
  return
}

// -----

func.func @no_choices(%ids: tensor<?x0xi32>) {
  // expected-error @+1 {{expected ids with a static, positive number of choices, got 'tensor<?x0xi32>'}}
  %n, %o, %p = moe.route %ids experts(8) : tensor<?x0xi32>
  return
}

// -----

func.func @weights_shape(%ids: tensor<?x2xi32>, %w: tensor<?x3xf32>) {
  // expected-error @+1 {{expected weights of shape ?x2, got ?x3}}
  %n, %o, %p = moe.route %ids weights(%w : tensor<?x3xf32>) experts(8) : tensor<?x2xi32>
  return
}

// -----

func.func @probability_without_weights(%ids: tensor<?x2xi32>) {
  // expected-error @+1 {{priority(probability) needs weights}}
  %n, %o, %p = moe.route %ids experts(8) priority(probability) : tensor<?x2xi32>
  return
}

// -----

func.func @choices(%ids: tensor<?x2xi32>) {
  // expected-error @+1 {{expected choices between 1 and 2, got 3}}
  %n, %o, %p = moe.route %ids experts(8) choices(3) : tensor<?x2xi32>
  return
}

// -----

func.func @next_choice_without_capacity(%ids: tensor<?x2xi32>) {
  // expected-error @+1 {{overflow(next_choice) needs a capacity}}
  %n, %o, %p = moe.route %ids experts(8) overflow(next_choice) : tensor<?x2xi32>
  return
}

// -----

func.func @next_choice_by_probability(%ids: tensor<?x2xi32>, %w: tensor<?x2xf32>) {
  // expected-error @+1 {{overflow(next_choice) needs an order to retry in: priority position or choice, got probability}}
  %n, %o, %p = moe.route %ids weights(%w : tensor<?x2xf32>) experts(8) capacity(<fixed = 2>)
    priority(probability) overflow(next_choice) : tensor<?x2xi32>
  return
}
