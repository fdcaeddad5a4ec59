// RUN: moe-opt %s -split-input-file -verify-diagnostics

func.func @positions_type(%x: tensor<?x4xf32>, %p: tensor<?x2xi64>, %o: tensor<?x4xf32>) {
  // expected-error @+1 {{operand #1 must be 2-D tensor or memref of i32, but got 'tensor<?x2xi64>'}}
  %y = moe.gather_sum %x, %p outs(%o : tensor<?x4xf32>) : tensor<?x4xf32>, tensor<?x2xi64> -> tensor<?x4xf32>
  return
}

// -----

func.func @mixed(%x: tensor<?x4xf32>, %p: memref<?x2xi32>, %o: tensor<?x4xf32>) {
  // expected-error @+1 {{expected operands that are all tensors or all memrefs, got 'tensor<?x4xf32>' and 'memref<?x2xi32>'}}
  %y = moe.gather_sum %x, %p outs(%o : tensor<?x4xf32>) : tensor<?x4xf32>, memref<?x2xi32> -> tensor<?x4xf32>
  return
}

// -----

func.func @no_result(%x: tensor<?x4xf32>, %p: tensor<?x2xi32>, %o: tensor<?x4xf32>) {
  // expected-error @+1 {{expected a result for a destination that is a tensor}}
  moe.gather_sum %x, %p outs(%o : tensor<?x4xf32>) : tensor<?x4xf32>, tensor<?x2xi32>
  return
}

// -----

func.func @result_on_buffers(%x: memref<?x4xf32>, %p: memref<?x2xi32>, %o: memref<?x4xf32>) {
  // expected-error @+1 {{expected no result for a destination that is a memref}}
  %y = moe.gather_sum %x, %p outs(%o : memref<?x4xf32>) : memref<?x4xf32>, memref<?x2xi32> -> tensor<?x4xf32>
  return
}

// -----

func.func @result_type(%x: tensor<?x4xf32>, %p: tensor<?x2xi32>, %o: tensor<?x4xf32>) {
  // expected-error @+1 {{expected a result of the type of the destination, 'tensor<?x4xf32>', got 'tensor<3x4xf32>'}}
  %y = moe.gather_sum %x, %p outs(%o : tensor<?x4xf32>) : tensor<?x4xf32>, tensor<?x2xi32> -> tensor<3x4xf32>
  return
}

// -----

func.func @dynamic_choices(%x: tensor<?x4xf32>, %p: tensor<?x?xi32>, %o: tensor<?x4xf32>) {
  // expected-error @+1 {{expected positions with a static, positive number of choices, got 'tensor<?x?xi32>'}}
  %y = moe.gather_sum %x, %p outs(%o : tensor<?x4xf32>) : tensor<?x4xf32>, tensor<?x?xi32> -> tensor<?x4xf32>
  return
}

// -----

func.func @no_choices(%x: tensor<?x4xf32>, %p: tensor<?x0xi32>, %o: tensor<?x4xf32>) {
  // expected-error @+1 {{expected positions with a static, positive number of choices, got 'tensor<?x0xi32>'}}
  %y = moe.gather_sum %x, %p outs(%o : tensor<?x4xf32>) : tensor<?x4xf32>, tensor<?x0xi32> -> tensor<?x4xf32>
  return
}

// -----

func.func @weights_shape(%x: tensor<?x4xf32>, %p: tensor<?x2xi32>, %o: tensor<?x4xf32>, %w: tensor<?x3xf32>) {
  // expected-error @+1 {{expected weights of shape ?x2, got ?x3}}
  %y = moe.gather_sum %x, %p weights(%w : tensor<?x3xf32>) outs(%o : tensor<?x4xf32>) : tensor<?x4xf32>, tensor<?x2xi32> -> tensor<?x4xf32>
  return
}

// -----

func.func @weights_type(%x: tensor<?x4xf32>, %p: tensor<?x2xi32>, %o: tensor<?x4xf32>, %w: tensor<?x2xbf16>) {
  // expected-error @+1 {{operand #2 must be 2-D tensor or memref of f32, but got 'tensor<?x2xbf16>'}}
  %y = moe.gather_sum %x, %p weights(%w : tensor<?x2xbf16>) outs(%o : tensor<?x4xf32>) : tensor<?x4xf32>, tensor<?x2xi32> -> tensor<?x4xf32>
  return
}

// -----

func.func @columns(%x: tensor<?x4xf32>, %p: tensor<?x2xi32>, %o: tensor<?x5xf32>) {
  // expected-error @+1 {{expected a destination of shape ?x4, got ?x5}}
  %y = moe.gather_sum %x, %p outs(%o : tensor<?x5xf32>) : tensor<?x4xf32>, tensor<?x2xi32> -> tensor<?x5xf32>
  return
}

// -----

func.func @tokens(%x: tensor<?x4xf32>, %p: tensor<7x2xi32>, %o: tensor<6x4xf32>) {
  // expected-error @+1 {{expected a destination of shape 7x4, got 6x4}}
  %y = moe.gather_sum %x, %p outs(%o : tensor<6x4xf32>) : tensor<?x4xf32>, tensor<7x2xi32> -> tensor<6x4xf32>
  return
}

// -----

func.func @dropped_shape(%x: tensor<?x4xf32>, %p: tensor<?x2xi32>, %o: tensor<?x4xf32>, %d: tensor<?x5xf32>) {
  // expected-error @+1 {{expected dropped of shape ?x4, got ?x5}}
  %y = moe.gather_sum %x, %p dropped(%d : tensor<?x5xf32>) outs(%o : tensor<?x4xf32>) : tensor<?x4xf32>, tensor<?x2xi32> -> tensor<?x4xf32>
  return
}

// -----

func.func @destination_type(%x: tensor<?x4xf32>, %p: tensor<?x2xi32>, %o: tensor<?x4xbf16>) {
  // expected-error @+1 {{expected rows of one type, got 'f32' and 'bf16'}}
  %y = moe.gather_sum %x, %p outs(%o : tensor<?x4xbf16>) : tensor<?x4xf32>, tensor<?x2xi32> -> tensor<?x4xbf16>
  return
}

// -----

func.func @dropped_type(%x: tensor<?x4xf32>, %p: tensor<?x2xi32>, %o: tensor<?x4xf32>, %d: tensor<?x4xf16>) {
  // expected-error @+1 {{expected rows of one type, got 'f32' and 'f16'}}
  %y = moe.gather_sum %x, %p dropped(%d : tensor<?x4xf16>) outs(%o : tensor<?x4xf32>) : tensor<?x4xf32>, tensor<?x2xi32> -> tensor<?x4xf32>
  return
}

// -----

func.func @dynamic_columns(%x: tensor<?x?xf32>, %p: tensor<?x2xi32>, %o: tensor<?x?xf32>) {
  // expected-error @+1 {{expected rows with static columns, got 'tensor<?x?xf32>'}}
  %y = moe.gather_sum %x, %p outs(%o : tensor<?x?xf32>) : tensor<?x?xf32>, tensor<?x2xi32> -> tensor<?x?xf32>
  return
}
