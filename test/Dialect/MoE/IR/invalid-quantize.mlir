// RUN: moe-opt %s -split-input-file -verify-diagnostics

func.func @block(%x: tensor<?x320xf32>) {
  // expected-error @+1 {{expected a positive block, got 0}}
  moe.quantize %x block(0) : tensor<?x320xf32>
  return
}

// -----

func.func @columns(%x: tensor<4x?xf32>) {
  // expected-error @+1 {{expected rows with static columns, got 'tensor<4x?xf32>'}}
  moe.quantize %x block(8) : tensor<4x?xf32>
  return
}

// -----

func.func @type(%x: tensor<4x8xi32>) {
  // expected-error @+1 {{operand #0 must be 2D tensor of f32, f16 or bf16 values, but got 'tensor<4x8xi32>'}}
  moe.quantize %x block(8) : tensor<4x8xi32>
  return
}
