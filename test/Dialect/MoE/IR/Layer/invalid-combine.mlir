// RUN: moe-opt %s -split-input-file -verify-diagnostics

func.func @rank(%g: tensor<?xf32>, %p: tensor<?x2xi32>) {
  // expected-error @+1 {{expected grouped rows and positions of rank 2}}
  %y = moe.combine %g, %p : tensor<?xf32>, tensor<?x2xi32>
  return
}

// -----

func.func @positions_type(%g: tensor<?x4xf32>, %p: tensor<?x2xindex>) {
  // expected-error @+1 {{operand #1 must be 2D tensor of 32-bit signless integer values, but got 'tensor<?x2xindex>'}}
  %y = moe.combine %g, %p : tensor<?x4xf32>, tensor<?x2xindex>
  return
}

// -----

func.func @result_type(%g: tensor<?x4xf32>, %p: tensor<5x2xi32>) {
  // expected-error @+2 {{inferred type(s) 'tensor<5x4xf32>' are incompatible with return type(s) of operation 'tensor<4x4xf32>'}}
  // expected-error @+1 {{failed to infer returned types}}
  %y = "moe.combine"(%g, %p) <{operandSegmentSizes = array<i32: 1, 1, 0, 0>}>
    : (tensor<?x4xf32>, tensor<5x2xi32>) -> tensor<4x4xf32>
  return
}

// -----

func.func @dynamic_choices(%g: tensor<?x4xf32>, %p: tensor<?x?xi32>) {
  // expected-error @+1 {{expected positions with a static, positive number of choices, got 'tensor<?x?xi32>'}}
  %y = moe.combine %g, %p : tensor<?x4xf32>, tensor<?x?xi32>
  return
}

// -----

func.func @no_choices(%g: tensor<?x4xf32>, %p: tensor<?x0xi32>) {
  // expected-error @+1 {{expected positions with a static, positive number of choices, got 'tensor<?x0xi32>'}}
  %y = moe.combine %g, %p : tensor<?x4xf32>, tensor<?x0xi32>
  return
}

// -----

func.func @weights_shape(%g: tensor<?x4xf32>, %p: tensor<5x2xi32>, %w: tensor<4x2xf32>) {
  // expected-error @+1 {{expected weights of shape 5x2, got 4x2}}
  %y = moe.combine %g, %p weights(%w : tensor<4x2xf32>) : tensor<?x4xf32>, tensor<5x2xi32>
  return
}

// -----

func.func @normalize_needs_weights(%g: tensor<?x4xf32>, %p: tensor<?x2xi32>) {
  // expected-error @+1 {{normalize needs weights}}
  %y = moe.combine %g, %p normalize(<sum>) : tensor<?x4xf32>, tensor<?x2xi32>
  return
}

// -----

func.func @dropped_shape(%g: tensor<?x4xf32>, %p: tensor<?x2xi32>, %d: tensor<?x5xf32>) {
  // expected-error @+1 {{expected dropped of shape ?x4, got ?x5}}
  %y = moe.combine %g, %p dropped(%d : tensor<?x5xf32>) : tensor<?x4xf32>, tensor<?x2xi32>
  return
}

// -----

func.func @dropped_type(%g: tensor<?x4xf32>, %p: tensor<?x2xi32>, %d: tensor<?x4xbf16>) {
  // expected-error @+1 {{expected dropped rows of 'f32', got 'bf16'}}
  %y = moe.combine %g, %p dropped(%d : tensor<?x4xbf16>) : tensor<?x4xf32>, tensor<?x2xi32>
  return
}
