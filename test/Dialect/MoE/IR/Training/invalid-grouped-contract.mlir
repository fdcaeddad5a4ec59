// RUN: moe-opt %s -split-input-file -verify-diagnostics

func.func @rank(%x: tensor<?x4xf32>, %y: tensor<?x6xf32>, %o: tensor<4x6xf32>) {
  // expected-error @+1 {{operand #2 must be 3-D tensor or memref of f32, f16 or bf16, but got 'tensor<4x6xf32>'}}
  %w = moe.grouped_contract %x, %y outs(%o : tensor<4x6xf32>) : tensor<?x4xf32>, tensor<?x6xf32> -> tensor<4x6xf32>
  return
}

// -----

func.func @mixed(%x: tensor<?x4xf32>, %y: memref<?x6xf32>, %o: tensor<1x4x6xf32>) {
  // expected-error @+1 {{expected operands that are all tensors or all memrefs, got 'tensor<1x4x6xf32>' and 'memref<?x6xf32>'}}
  %w = moe.grouped_contract %x, %y outs(%o : tensor<1x4x6xf32>) : tensor<?x4xf32>, memref<?x6xf32> -> tensor<1x4x6xf32>
  return
}

// -----

func.func @no_result(%x: tensor<?x4xf32>, %y: tensor<?x6xf32>, %o: tensor<1x4x6xf32>) {
  // expected-error @+1 {{expected a result for a destination that is a tensor}}
  moe.grouped_contract %x, %y outs(%o : tensor<1x4x6xf32>) : tensor<?x4xf32>, tensor<?x6xf32>
  return
}

// -----

func.func @result_on_buffers(%x: memref<?x4xf32>, %y: memref<?x6xf32>, %o: memref<1x4x6xf32>) {
  // expected-error @+1 {{expected no result for a destination that is a memref}}
  %w = moe.grouped_contract %x, %y outs(%o : memref<1x4x6xf32>) : memref<?x4xf32>, memref<?x6xf32> -> tensor<1x4x6xf32>
  return
}

// -----

func.func @result_type(%x: tensor<?x4xf32>, %y: tensor<?x6xf32>, %o: tensor<1x4x6xf32>) {
  // expected-error @+1 {{expected a result of the type of the destination, 'tensor<1x4x6xf32>', got 'tensor<1x4x6xbf16>'}}
  %w = moe.grouped_contract %x, %y outs(%o : tensor<1x4x6xf32>) : tensor<?x4xf32>, tensor<?x6xf32> -> tensor<1x4x6xbf16>
  return
}

// -----

func.func @columns(%x: tensor<?x?xf32>, %y: tensor<?x6xf32>, %o: tensor<1x4x6xf32>) {
  // expected-error @+1 {{expected rows with static columns, got 'tensor<?x?xf32>' and 'tensor<?x6xf32>'}}
  %w = moe.grouped_contract %x, %y outs(%o : tensor<1x4x6xf32>) : tensor<?x?xf32>, tensor<?x6xf32> -> tensor<1x4x6xf32>
  return
}

// -----

func.func @types(%x: tensor<?x4xf32>, %y: tensor<?x6xbf16>, %o: tensor<1x4x6xf32>) {
  // expected-error @+1 {{expected rows of one type, got 'f32' and 'bf16'}}
  %w = moe.grouped_contract %x, %y outs(%o : tensor<1x4x6xf32>) : tensor<?x4xf32>, tensor<?x6xbf16> -> tensor<1x4x6xf32>
  return
}

// -----

func.func @dynamic_experts(%x: tensor<?x4xf32>, %y: tensor<?x6xf32>, %e: tensor<3xi32>, %o: tensor<?x4x6xf32>) {
  // expected-error @+1 {{expected a destination of a static, positive number of experts, got 'tensor<?x4x6xf32>'}}
  %w = moe.grouped_contract %x, %y offsets(%e : tensor<3xi32>) outs(%o : tensor<?x4x6xf32>) : tensor<?x4xf32>, tensor<?x6xf32> -> tensor<?x4x6xf32>
  return
}

// -----

func.func @no_experts(%x: tensor<?x4xf32>, %y: tensor<?x6xf32>, %e: tensor<1xi32>, %o: tensor<0x4x6xf32>) {
  // expected-error @+1 {{expected a destination of a static, positive number of experts, got 'tensor<0x4x6xf32>'}}
  %w = moe.grouped_contract %x, %y offsets(%e : tensor<1xi32>) outs(%o : tensor<0x4x6xf32>) : tensor<?x4xf32>, tensor<?x6xf32> -> tensor<0x4x6xf32>
  return
}

// -----

func.func @shape(%x: tensor<?x4xf32>, %y: tensor<?x6xf32>, %o: tensor<1x6x4xf32>) {
  // expected-error @+1 {{expected a destination of shape 1x4x6, got 1x6x4}}
  %w = moe.grouped_contract %x, %y outs(%o : tensor<1x6x4xf32>) : tensor<?x4xf32>, tensor<?x6xf32> -> tensor<1x6x4xf32>
  return
}

// -----

func.func @dynamic_shape(%x: tensor<?x4xf32>, %y: tensor<?x6xf32>, %o: tensor<1x4x?xf32>) {
  // expected-error @+1 {{expected a destination of static shape, got 'tensor<1x4x?xf32>'}}
  %w = moe.grouped_contract %x, %y outs(%o : tensor<1x4x?xf32>) : tensor<?x4xf32>, tensor<?x6xf32> -> tensor<1x4x?xf32>
  return
}

// -----

func.func @dynamic_offsets(%x: tensor<?x4xf32>, %y: tensor<?x6xf32>, %e: tensor<?xi32>, %o: tensor<2x4x6xf32>) {
  // expected-error @+1 {{expected static offsets, got 'tensor<?xi32>'}}
  %w = moe.grouped_contract %x, %y offsets(%e : tensor<?xi32>) outs(%o : tensor<2x4x6xf32>) : tensor<?x4xf32>, tensor<?x6xf32> -> tensor<2x4x6xf32>
  return
}

// -----

func.func @first(%x: tensor<?x4xf32>, %y: tensor<?x6xf32>, %e: tensor<4xi32>, %o: tensor<2x4x6xf32>) {
  // expected-error @+1 {{expected first between 0 and 1, got 2}}
  %w = moe.grouped_contract %x, %y offsets(%e : tensor<4xi32>) first(2) outs(%o : tensor<2x4x6xf32>) : tensor<?x4xf32>, tensor<?x6xf32> -> tensor<2x4x6xf32>
  return
}

// -----

// More experts than the offsets have.
func.func @few_offsets(%x: tensor<?x4xf32>, %y: tensor<?x6xf32>, %e: tensor<2xi32>, %o: tensor<2x4x6xf32>) {
  // expected-error @+1 {{expected first between 0 and -1, got 0}}
  %w = moe.grouped_contract %x, %y offsets(%e : tensor<2xi32>) outs(%o : tensor<2x4x6xf32>) : tensor<?x4xf32>, tensor<?x6xf32> -> tensor<2x4x6xf32>
  return
}

// -----

func.func @experts_without_offsets(%x: tensor<?x4xf32>, %y: tensor<?x6xf32>, %o: tensor<2x4x6xf32>) {
  // expected-error @+1 {{expected one expert and no first where there are no offsets, got 2 experts}}
  %w = moe.grouped_contract %x, %y outs(%o : tensor<2x4x6xf32>) : tensor<?x4xf32>, tensor<?x6xf32> -> tensor<2x4x6xf32>
  return
}

// -----

func.func @first_without_offsets(%x: tensor<?x4xf32>, %y: tensor<?x6xf32>, %o: tensor<1x4x6xf32>) {
  // expected-error @+1 {{expected one expert and no first where there are no offsets, got 1 experts}}
  %w = moe.grouped_contract %x, %y first(0) outs(%o : tensor<1x4x6xf32>) : tensor<?x4xf32>, tensor<?x6xf32> -> tensor<1x4x6xf32>
  return
}

// -----

func.func @rows(%x: tensor<5x4xf32>, %g: tensor<7xi32>, %y: tensor<5x6xf32>, %o: tensor<1x4x6xf32>) {
  // expected-error @+1 {{expected as many rows on both sides, got 7 and 5}}
  %w = moe.grouped_contract %x gather(%g : tensor<7xi32>), %y outs(%o : tensor<1x4x6xf32>) : tensor<5x4xf32>, tensor<5x6xf32> -> tensor<1x4x6xf32>
  return
}
