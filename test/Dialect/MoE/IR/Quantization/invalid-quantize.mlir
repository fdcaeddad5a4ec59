// RUN: moe-opt %s -split-input-file -verify-diagnostics

#scale = #moe.field<element = f32, operand = 1, block = [1, 8]>
func.func @columns(%x: tensor<4x?xf32>) {
  // expected-error @+1 {{expected matrices with static columns, and with static rows where they share scales, got 'tensor<4x?xf32>'}}
  moe.quantize %x format(<codes = <element = f8E4M3FN>, scales = [#scale]>) : tensor<4x?xf32> -> tensor<4x?xf8E4M3FN>, tensor<4x?xf32>
  return
}

// -----

#scale = #moe.field<element = f32, operand = 1, block = [2, 8]>
func.func @rows(%x: tensor<?x8xf32>) {
  // expected-error @+1 {{expected matrices with static columns, and with static rows where they share scales, got 'tensor<?x8xf32>'}}
  moe.quantize %x format(<codes = <element = f8E4M3FN>, scales = [#scale]>) : tensor<?x8xf32> -> tensor<?x8xf8E4M3FN>, tensor<?x1xf32>
  return
}

// -----

#scale = #moe.field<element = f32, operand = 1, block = [1, 8]>
func.func @type(%x: tensor<4x8xi32>) {
  // expected-error @+1 {{operand #0 must be ranked tensor of f32, f16 or bf16 values, but got 'tensor<4x8xi32>'}}
  moe.quantize %x format(<codes = <element = f8E4M3FN>, scales = [#scale]>) : tensor<4x8xi32> -> tensor<4x8xf8E4M3FN>, tensor<4x1xf32>
  return
}

// -----

#scale = #moe.field<element = f32, operand = 1, block = [1, 8]>
func.func @vector(%x: tensor<8xf32>) {
  // expected-error @+2 {{expected matrices, got 'tensor<8xf32>'}}
  // expected-error @+1 {{failed to infer returned types}}
  moe.quantize %x format(<codes = <element = f8E4M3FN>, scales = [#scale]>) : tensor<8xf32> -> tensor<8xf8E4M3FN>, tensor<1xf32>
  return
}

// -----

#scale = #moe.field<element = f32, operand = 1, block = [1, 8]>
func.func @results(%x: tensor<4x12xf32>) {
  // expected-error @+2 {{failed to infer returned types}}
  // expected-error @+1 {{inferred type(s) 'tensor<4x12xf8E4M3FN>', 'tensor<4x2xf32>' are incompatible with return type(s) of operation 'tensor<4x12xf8E4M3FN>', 'tensor<4x1xf32>'}}
  moe.quantize %x format(<codes = <element = f8E4M3FN>, scales = [#scale]>) : tensor<4x12xf32> -> tensor<4x12xf8E4M3FN>, tensor<4x1xf32>
  return
}

// -----

#scale = #moe.field<element = f32, operand = 1, block = [1, 8]>
func.func @codes(%x: tensor<4x8xf32>) {
  // expected-error @+1 {{expected codes of f8E4M3FN, f4E2M1FN or integers of 4 to 8 bits}}
  moe.quantize %x format(<codes = <element = f16>, scales = [#scale]>) : tensor<4x8xf32> -> tensor<4x8xf16>, tensor<4x1xf32>
  return
}

// -----

#scale = #moe.field<element = f32, operand = 1, block = [1, 8]>
func.func @no_bits(%x: tensor<4x8xf32>) {
  // expected-error @+1 {{expected bits of codes if, and only if, they have less than 8}}
  moe.quantize %x format(<codes = <element = si4>, scales = [#scale]>) : tensor<4x8xf32> -> tensor<4x8xi8>, tensor<4x1xf32>
  return
}

// -----

#scale = #moe.field<element = f32, operand = 1, block = [1, 8]>
func.func @runs(%x: tensor<4x8xf32>) {
  // expected-error @+1 {{expected bits of codes that share bytes with their neighbours}}
  moe.quantize %x format(<codes = <element = si4, bits = [#moe.bits<width = 4, run = 4>]>, scales = [#scale]>) : tensor<4x8xf32> -> tensor<4x4xi8>, tensor<4x1xf32>
  return
}

// -----

func.func @no_scale(%x: tensor<4x8xf32>) {
  // expected-error @+1 {{expected one scale}}
  moe.quantize %x format(<codes = <element = f8E4M3FN>>) : tensor<4x8xf32> -> tensor<4x8xf8E4M3FN>, tensor<4x1xf32>
  return
}

// -----

#scale = #moe.field<element = f32, operand = 1, block = [1, 8], divide = true>
func.func @divides(%x: tensor<4x8xf32>) {
  // expected-error @+1 {{expected a scale of f32, f16, bf16 or f8E8M0FNU that multiplies, in operand 1}}
  moe.quantize %x format(<codes = <element = f8E4M3FN>, scales = [#scale]>) : tensor<4x8xf32> -> tensor<4x8xf8E4M3FN>, tensor<4x1xf32>
  return
}

// -----

#scale = #moe.field<element = f32, operand = 1, block = [1, 8]>
func.func @table(%x: tensor<4x8xf32>) {
  // expected-error @+1 {{expected no records, table, mins or zero point}}
  moe.quantize %x format(<codes = <element = si8>, scales = [#scale], mins = [#scale]>) : tensor<4x8xf32> -> tensor<4x8xi8>, tensor<4x1xf32>
  return
}

// -----

#scale = #moe.field<element = f8E8M0FNU, operand = 1, block = [1, 8]>
func.func @no_sign(%x: tensor<4x8xf32>) {
  // expected-error @+1 {{expected a scale with a sign, f32, f16 or bf16, for codes of integers}}
  moe.quantize %x format(<codes = <element = si8>, scales = [#scale]>) : tensor<4x8xf32> -> tensor<4x8xi8>, tensor<4x1xf8E8M0FNU>
  return
}
