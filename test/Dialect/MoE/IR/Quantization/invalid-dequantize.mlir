// RUN: moe-opt %s -split-input-file -verify-diagnostics

// expected-error @+1 {{expected a width of 1 to 8, 16 or 32 bits, got 12}}
func.func private @f() attributes {a = #moe.bits<width = 12>}

// -----

// expected-error @+1 {{expected 4 bits within a byte, got them from bit 6 on}}
func.func private @f() attributes {a = #moe.bits<width = 4, bit = 6>}

// -----

// expected-error @+1 {{expected a run of at least 1, or 1 where values have whole bytes, got 4}}
func.func private @f() attributes {a = #moe.bits<width = 8, run = 4>}

// -----

// expected-error @+1 {{expected numbers from 0 to 2^20, got -1}}
func.func private @f() attributes {a = #moe.bits<width = 4, first = -1>}

// -----

// expected-error @+1 {{expected a value of at most 32 bits, got bits 28 to 36}}
func.func private @f() attributes {a = #moe.bits<width = 8, shift = 28>}

// -----

// expected-error @+1 {{or an integer of at most 16 bits with its sign, got 'i8'}}
func.func private @f() attributes {a = #moe.field<element = i8>}

// -----

// expected-error @+1 {{expected an operand from 0 to 15, got 16}}
func.func private @f() attributes {a = #moe.field<element = f32, operand = 16>}

// -----

// expected-error @+1 {{expected a block of positive extents, got [1, 0]}}
func.func private @f() attributes {a = #moe.field<element = f32, block = [1, 0]>}

// -----

// expected-error @+1 {{expected bits where there is an axis}}
func.func private @f() attributes {a = #moe.field<element = f32, axis = 0>}

// -----

// expected-error @+1 {{expected bits for each of the 6 bits of 'ui6', and for no other}}
func.func private @f() attributes {a = #moe.field<element = ui6, bits = [#moe.bits<width = 4>]>}

// -----

// expected-error @+1 {{expected codes of each element in operand 0}}
func.func private @f() attributes {a = #moe.format<codes = <element = si8, operand = 1>>}

// -----

// expected-error @+1 {{expected codes of integers where there is an offset, a zero point or a table, got 'f8E4M3FN'}}
func.func private @f() attributes {a = #moe.format<codes = <element = f8E4M3FN>, offset = 8>}

// -----

// expected-error @+1 {{expected a table with a value for each code of 'ui2', got 3}}
func.func private @f() attributes {a = #moe.format<codes = <element = ui2, bits = [#moe.bits<width = 2>]>, table = [0.0, 1.0, 2.0]>}

// -----

// expected-error @+1 {{expected fields of a record to be packed in a row}}
func.func private @f() attributes {a = #moe.format<codes = <element = si8>, record = [32, 34]>}

// -----

// expected-error @+1 {{expected blocks that divide a record of 32 elements, got 24}}
func.func private @f() attributes {a = #moe.format<codes = <element = si8, bits = [#moe.bits<width = 8>]>, record = [32, 40],
    scales = [#moe.field<element = f16, block = [1, 24], bits = [#moe.bits<width = 16, byte = 32>]>]>}

// -----

// expected-error @+1 {{expected fields within a record of 33 bytes, got one that ends at byte 34}}
func.func private @f() attributes {a = #moe.format<codes = <element = si8, bits = [#moe.bits<width = 8, byte = 2>]>, record = [32, 33]>}

// -----

func.func @fields(%w: tensor<4x8xi8>) {
  // expected-error @+1 {{expected 2 fields, as the format has, got 1}}
  moe.dequantize %w format(<codes = <element = si8>, scales = [#moe.field<element = f32, operand = 1>]>) : tensor<4x8xi8> -> tensor<4x8xf32>
  return
}

// -----

func.func @dynamic(%w: tensor<4x?xi8>) {
  // expected-error @+1 {{expected a result with static rows and columns, got 'tensor<4x?xf32>'}}
  moe.dequantize %w format(<codes = <element = si8>>) : tensor<4x?xi8> -> tensor<4x?xf32>
  return
}

// -----

func.func @type(%w: tensor<4x8xi16>) {
  // expected-error @+1 {{field 0: expected elements of 'si8' or integers of as many bits, got 'tensor<4x8xi16>'}}
  moe.dequantize %w format(<codes = <element = si8>>) : tensor<4x8xi16> -> tensor<4x8xf32>
  return
}

// -----

func.func @blocks(%w: tensor<4x8xi8>, %s: tensor<4x2xf32>) {
  // expected-error @+1 {{field 1: expected numbers for 4 x 3 blocks, got 'tensor<4x2xf32>'}}
  moe.dequantize %w, %s format(<codes = <element = si8>, scales = [#moe.field<element = f32, operand = 1, block = [1, 3]>]>)
    : tensor<4x8xi8>, tensor<4x2xf32> -> tensor<4x8xf32>
  return
}

// -----

func.func @bytes(%w: tensor<4x3xi8>) {
  // expected-error @+1 {{field 0: expected 4 rows of 4 bytes, got 'tensor<4x3xi8>'}}
  moe.dequantize %w format(<codes = <element = ui4, bits = [#moe.bits<width = 4>]>>) : tensor<4x3xi8> -> tensor<4x7xf32>
  return
}

// -----

func.func @words(%w: tensor<9x8xi8>, %z: tensor<1x8xi32>) {
  // expected-error @+1 {{field 1: expected 2 x 8 words, got 'tensor<1x8xi32>'}}
  moe.dequantize %w, %z format(<codes = <element = si8>, zero = <element = ui4, operand = 1, bits = [#moe.bits<width = 4>], axis = 0>>)
    : tensor<9x8xi8>, tensor<1x8xi32> -> tensor<9x8xf32>
  return
}

// -----

func.func @leading(%w: tensor<2x4x8xi8>) {
  // expected-error @+1 {{field 0: expected leading dimensions of [3], got 'tensor<2x4x8xi8>'}}
  moe.dequantize %w format(<codes = <element = si8>>) : tensor<2x4x8xi8> -> tensor<3x4x8xf32>
  return
}
