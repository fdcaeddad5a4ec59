// RUN: moe-opt %s -split-input-file -verify-diagnostics

func.func @ids_missing(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{load_balance needs ids}}
  %0 = moe.auxiliary_loss load_balance %l : tensor<?x8xf32>
  return
}

// -----

func.func @z_ids(%l: tensor<?x8xf32>, %i: tensor<?x2xi32>) {
  // expected-error @+1 {{router_z takes no ids}}
  %0 = moe.auxiliary_loss router_z %l ids(%i : tensor<?x2xi32>) : tensor<?x8xf32>
  return
}

// -----

func.func @experts_missing(%l: tensor<?x2xf32>, %i: tensor<?x2xi32>) {
  // expected-error @+1 {{importance needs num_experts}}
  %0 = moe.auxiliary_loss importance %l ids(%i : tensor<?x2xi32>) : tensor<?x2xf32>
  return
}

// -----

func.func @experts_given(%l: tensor<?x8xf32>, %i: tensor<?x2xi32>) {
  // expected-error @+1 {{load_balance has as many experts as logits, and takes no num_experts}}
  %0 = moe.auxiliary_loss load_balance %l ids(%i : tensor<?x2xi32>) num_experts(8) : tensor<?x8xf32>
  return
}

// -----

func.func @experts_range(%l: tensor<?x2xf32>, %i: tensor<?x2xi32>) {
  // expected-error @+1 {{expected num_experts between 1 and 2147483646, got 0}}
  %0 = moe.auxiliary_loss importance %l ids(%i : tensor<?x2xi32>) num_experts(0) : tensor<?x2xf32>
  return
}

// -----

func.func @dynamic_experts(%l: tensor<?x?xf32>) {
  // expected-error @+1 {{expected logits with a static number of experts, got 'tensor<?x?xf32>'}}
  %0 = moe.auxiliary_loss router_z %l : tensor<?x?xf32>
  return
}

// -----

func.func @sequences_of_z(%l: tensor<?x8xf32>, %s: tensor<3xi32>) {
  // expected-error @+1 {{router_z takes no sequences}}
  %0 = moe.auxiliary_loss router_z %l sequences(%s : tensor<3xi32>) : tensor<?x8xf32>
  return
}

// -----

func.func @few_sequences(%l: tensor<?x8xf32>, %i: tensor<?x2xi32>, %s: tensor<1xi32>) {
  // expected-error @+1 {{expected static offsets of at least 2, one more than sequences, got 'tensor<1xi32>'}}
  %0 = moe.auxiliary_loss load_balance %l ids(%i : tensor<?x2xi32>) sequences(%s : tensor<1xi32>) : tensor<?x8xf32>
  return
}

// -----

func.func @dynamic_sequences(%l: tensor<?x8xf32>, %i: tensor<?x2xi32>, %s: tensor<?xi32>) {
  // expected-error @+1 {{expected static offsets of at least 2, one more than sequences, got 'tensor<?xi32>'}}
  %0 = moe.auxiliary_loss load_balance %l ids(%i : tensor<?x2xi32>) sequences(%s : tensor<?xi32>) : tensor<?x8xf32>
  return
}

// -----

func.func @choices_of_z(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{router_z takes no choices}}
  %0 = moe.auxiliary_loss router_z %l choices(1) : tensor<?x8xf32>
  return
}

// -----

func.func @choices_range(%l: tensor<?x8xf32>, %i: tensor<?x2xi32>) {
  // expected-error @+1 {{expected choices between 1 and 2, got 3}}
  %0 = moe.auxiliary_loss load_balance %l ids(%i : tensor<?x2xi32>) choices(3) : tensor<?x8xf32>
  return
}

// -----

func.func @score(%l: tensor<?x8xf32>, %i: tensor<?x2xi32>) {
  // expected-error @+1 {{load_balance takes no score(relu)}}
  %0 = moe.auxiliary_loss load_balance %l ids(%i : tensor<?x2xi32>) score(relu) : tensor<?x8xf32>
  return
}

// -----

func.func @score_of_z(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{router_z takes no score(sigmoid)}}
  %0 = moe.auxiliary_loss router_z %l score(sigmoid) : tensor<?x8xf32>
  return
}

// -----

func.func @ids_tokens(%l: tensor<5x8xf32>, %i: tensor<4x2xi32>) {
  // expected-error @+1 {{expected ids of shape 5x2, got 4x2}}
  %0 = moe.auxiliary_loss load_balance %l ids(%i : tensor<4x2xi32>) : tensor<5x8xf32>
  return
}

// -----

func.func @dynamic_choices(%l: tensor<?x8xf32>, %i: tensor<?x?xi32>) {
  // expected-error @+1 {{expected ids with a static, positive number of choices, got 'tensor<?x?xi32>'}}
  %0 = moe.auxiliary_loss load_balance %l ids(%i : tensor<?x?xi32>) : tensor<?x8xf32>
  return
}

// -----

func.func @weights(%l: tensor<?x3xf32>, %i: tensor<?x2xi32>) {
  // expected-error @+1 {{expected weights of shape ?x2, got ?x3}}
  %0 = moe.auxiliary_loss importance %l ids(%i : tensor<?x2xi32>) num_experts(8) : tensor<?x3xf32>
  return
}

// -----

func.func @mask_tokens(%l: tensor<5x8xf32>, %m: tensor<4xi32>) {
  // expected-error @+1 {{expected mask of shape 5, got 4}}
  %0 = moe.auxiliary_loss router_z %l mask(%m : tensor<4xi32>) : tensor<5x8xf32>
  return
}

// -----

func.func @mask_type(%l: tensor<?x8xf32>, %m: tensor<?xf32>) {
  // expected-error @+1 {{operand #1 must be 1D tensor of 8-bit signless integer or 32-bit signless integer or 64-bit signless integer values, but got 'tensor<?xf32>'}}
  %0 = moe.auxiliary_loss router_z %l mask(%m : tensor<?xf32>) : tensor<?x8xf32>
  return
}

// -----

func.func @coefficient(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{expected a coefficient that is finite in f32}}
  %0 = moe.auxiliary_loss router_z %l coefficient(1.0e39) : tensor<?x8xf32>
  return
}

// -----

func.func @gradient_ids(%l: tensor<?x8xf32>, %g: tensor<f32>) {
  // expected-error @+1 {{load_balance needs ids}}
  %0 = moe.auxiliary_loss_gradient load_balance %l, %g : tensor<?x8xf32>, tensor<f32>
  return
}

// -----

func.func @load_experts(%i: tensor<?x2xi32>) {
  // expected-error @+1 {{expected a number of experts between 1 and 2^31 - 2, got 0}}
  %0 = moe.expert_load %i num_experts(0) : tensor<?x2xi32>
  return
}

// -----

func.func @load_mask(%i: tensor<5x2xi32>, %m: tensor<4xi32>) {
  // expected-error @+1 {{expected mask of shape 5, got 4}}
  %0 = moe.expert_load %i mask(%m : tensor<4xi32>) num_experts(8) : tensor<5x2xi32>
  return
}

// -----

func.func @bias_shape(%n: tensor<8xi32>, %b: tensor<7xf32>) {
  // expected-error @+1 {{expected bias of shape 8, got 7}}
  %0 = moe.update_bias %n rate(1.0e-3) outs(%b : tensor<7xf32>) : tensor<8xi32>
  return
}

// -----

func.func @bias_dynamic(%n: tensor<?xi32>, %b: tensor<?xf32>) {
  // expected-error @+1 {{expected a load of a static, positive number of experts, got 'tensor<?xi32>'}}
  %0 = moe.update_bias %n rate(1.0e-3) outs(%b : tensor<?xf32>) : tensor<?xi32>
  return
}

// -----

func.func @rate(%n: tensor<8xi32>, %b: tensor<8xf32>) {
  // expected-error @+1 {{expected a rate that is finite in f32}}
  %0 = moe.update_bias %n rate(0x7FF8000000000000) outs(%b : tensor<8xf32>) : tensor<8xi32>
  return
}
