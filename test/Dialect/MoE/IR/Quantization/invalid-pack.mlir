// RUN: moe-opt %s -split-input-file -verify-diagnostics

func.func @mixed(%w: memref<1x4x8xf32>, %o: tensor<1x2x4x4x1xf32>) {
  // expected-error @+1 {{expected operands that are all tensors or all memrefs, got 'tensor<1x2x4x4x1xf32>' and 'memref<1x4x8xf32>'}}
  %p = moe.pack %w panels(<matmuls = 1, columns = 4, depth = 1>) outs(%o : tensor<1x2x4x4x1xf32>) : memref<1x4x8xf32> -> tensor<1x2x4x4x1xf32>
  return
}

// -----

func.func @no_result(%w: tensor<1x4x8xf32>, %o: tensor<1x2x4x4x1xf32>) {
  // expected-error @+1 {{expected a result for a destination that is a tensor}}
  moe.pack %w panels(<matmuls = 1, columns = 4, depth = 1>) outs(%o : tensor<1x2x4x4x1xf32>) : tensor<1x4x8xf32>
  return
}

// -----

func.func @result_on_buffers(%w: memref<1x4x8xf32>, %o: memref<1x2x4x4x1xf32>) {
  // expected-error @+1 {{expected no result for a destination that is a memref}}
  %p = moe.pack %w panels(<matmuls = 1, columns = 4, depth = 1>) outs(%o : memref<1x2x4x4x1xf32>) : memref<1x4x8xf32> -> tensor<1x2x4x4x1xf32>
  return
}

// -----

func.func @result_type(%w: tensor<1x4x8xf32>, %o: tensor<1x2x4x4x1xf32>) {
  // expected-error @+1 {{expected a result of the type of the destination, 'tensor<1x2x4x4x1xf32>', got 'tensor<?x2x4x4x1xf32>'}}
  %p = moe.pack %w panels(<matmuls = 1, columns = 4, depth = 1>) outs(%o : tensor<1x2x4x4x1xf32>) : tensor<1x4x8xf32> -> tensor<?x2x4x4x1xf32>
  return
}

// -----

func.func @weights(%w: tensor<1x4x8xf32>, %o: tensor<1x2x4x4x1xf32>) {
  // expected-error @+1 {{expected weights of 1 matmuls, got 2}}
  %p = moe.pack %w, %w panels(<matmuls = 1, columns = 4, depth = 1>) outs(%o : tensor<1x2x4x4x1xf32>) : tensor<1x4x8xf32>, tensor<1x4x8xf32> -> tensor<1x2x4x4x1xf32>
  return
}

// -----

func.func @one_of_two(%w: tensor<1x4x8xf32>, %o: tensor<1x2x4x4x1xf32>) {
  // expected-error @+1 {{expected weights of 2 matmuls, got 1}}
  %p = moe.pack %w panels(<matmuls = 2, columns = 8, depth = 1>) outs(%o : tensor<1x2x4x4x1xf32>) : tensor<1x4x8xf32> -> tensor<1x2x4x4x1xf32>
  return
}

// -----

func.func @rank(%w: tensor<4x8xf32>, %o: tensor<1x2x4x4x1xf32>) {
  // expected-error @+1 {{expected weights of rank 3 with static rows and columns, got 'tensor<4x8xf32>'}}
  %p = moe.pack %w panels(<matmuls = 1, columns = 4, depth = 1>) outs(%o : tensor<1x2x4x4x1xf32>) : tensor<4x8xf32> -> tensor<1x2x4x4x1xf32>
  return
}

// -----

func.func @dynamic_rows(%w: tensor<1x?x8xf32>, %o: tensor<1x2x4x4x1xf32>) {
  // expected-error @+1 {{expected weights of rank 3 with static rows and columns, got 'tensor<1x?x8xf32>'}}
  %p = moe.pack %w panels(<matmuls = 1, columns = 4, depth = 1>) outs(%o : tensor<1x2x4x4x1xf32>) : tensor<1x?x8xf32> -> tensor<1x2x4x4x1xf32>
  return
}

// -----

func.func @dynamic_columns(%w: tensor<1x4x?xf32>, %o: tensor<1x2x4x4x1xf32>) {
  // expected-error @+1 {{expected weights of rank 3 with static rows and columns, got 'tensor<1x4x?xf32>'}}
  %p = moe.pack %w panels(<matmuls = 1, columns = 4, depth = 1>) outs(%o : tensor<1x2x4x4x1xf32>) : tensor<1x4x?xf32> -> tensor<1x2x4x4x1xf32>
  return
}

// -----

func.func @second_weights(%w: tensor<1x4x8xf32>, %v: tensor<1x4x9xf32>, %o: tensor<1x2x4x8x1xf32>) {
  // expected-error @+1 {{expected weights of shape 1x4x8, got 1x4x9}}
  %p = moe.pack %w, %v panels(<matmuls = 2, columns = 8, depth = 1>) outs(%o : tensor<1x2x4x8x1xf32>) : tensor<1x4x8xf32>, tensor<1x4x9xf32> -> tensor<1x2x4x8x1xf32>
  return
}

// -----

func.func @type(%w: tensor<1x4x8xf32>, %o: tensor<1x2x4x4x1xbf16>) {
  // expected-error @+1 {{expected weights of the type of the destination, 'bf16', got 'f32'}}
  %p = moe.pack %w panels(<matmuls = 1, columns = 4, depth = 1>) outs(%o : tensor<1x2x4x4x1xbf16>) : tensor<1x4x8xf32> -> tensor<1x2x4x4x1xbf16>
  return
}

// -----

func.func @destination(%w: tensor<1x4x8xf32>, %o: tensor<1x2x4x8x1xf32>) {
  // expected-error @+1 {{expected a destination of shape 1x2x4x4x1, got 1x2x4x8x1}}
  %p = moe.pack %w panels(<matmuls = 1, columns = 4, depth = 1>) outs(%o : tensor<1x2x4x8x1xf32>) : tensor<1x4x8xf32> -> tensor<1x2x4x8x1xf32>
  return
}

// -----

func.func @destination_rank(%w: tensor<1x4x8xf32>, %o: tensor<1x2x4x4xf32>) {
  // expected-error @+1 {{expected a destination of shape 1x2x4x4x1, got 1x2x4x4}}
  %p = moe.pack %w panels(<matmuls = 1, columns = 4, depth = 1>) outs(%o : tensor<1x2x4x4xf32>) : tensor<1x4x8xf32> -> tensor<1x2x4x4xf32>
  return
}

// -----

func.func @transposed_destination(%w: tensor<1x4x8xf32>, %o: tensor<1x2x4x4x1xf32>) {
  // expected-error @+1 {{expected a destination of shape 1x1x8x4x1, got 1x2x4x4x1}}
  %p = moe.pack %w transposed panels(<matmuls = 1, columns = 4, depth = 1>) outs(%o : tensor<1x2x4x4x1xf32>) : tensor<1x4x8xf32> -> tensor<1x2x4x4x1xf32>
  return
}

// -----

// expected-error @+1 {{expected a format of codes of 4, 6 or 8 bits with scales of groups of a multiple of 16 elements, got}}
func.func private @f() attributes {a = #moe.panels<matmuls = 1, columns = 64, depth = 8, format = <codes = <element = si8>>>}

// -----

#q4 = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4>]>, scales = [#moe.field<element = f16, operand = 1, block = [1, 32]>]>
// expected-error @+1 {{expected a depth of 8 for this format, got 1}}
func.func private @f() attributes {a = #moe.panels<matmuls = 1, columns = 64, depth = 1, format = #q4>}

// -----

#q4 = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4>]>, scales = [#moe.field<element = f16, operand = 1, block = [1, 32]>]>
func.func @fields(%w: tensor<2x20x16xi8>, %init: tensor<2x1x1152xi8>) {
  // expected-error @+1 {{expected 2 fields for each of 1 matmuls, got 1}}
  moe.pack %w transposed panels(<matmuls = 1, columns = 64, depth = 8, format = #q4>) extents([32, 20])
    outs(%init : tensor<2x1x1152xi8>) : tensor<2x20x16xi8> -> tensor<2x1x1152xi8>
  return
}

// -----

#q4 = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4>]>, scales = [#moe.field<element = f16, operand = 1, block = [1, 32]>]>
func.func @extents(%w: tensor<2x20x16xi8>, %s: tensor<2x20x1xf16>, %init: tensor<2x1x1152xi8>) {
  // expected-error @+1 {{expected extents [K, N] with a K that is a multiple of 8}}
  moe.pack %w, %s transposed panels(<matmuls = 1, columns = 64, depth = 8, format = #q4>) extents([30, 20])
    outs(%init : tensor<2x1x1152xi8>) : tensor<2x20x16xi8>, tensor<2x20x1xf16> -> tensor<2x1x1152xi8>
  return
}

// -----

#q4 = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4>]>, scales = [#moe.field<element = f16, operand = 1, block = [1, 32]>]>
func.func @destination(%w: tensor<2x20x16xi8>, %s: tensor<2x20x1xf16>, %init: tensor<2x1x1000xi8>) {
  // expected-error @+1 {{expected a destination of shape 2x1x1152, got 2x1x1000}}
  moe.pack %w, %s transposed panels(<matmuls = 1, columns = 64, depth = 8, format = #q4>) extents([32, 20])
    outs(%init : tensor<2x1x1000xi8>) : tensor<2x20x16xi8>, tensor<2x20x1xf16> -> tensor<2x1x1000xi8>
  return
}

// -----

#q8 = #moe.format<codes = <element = si8>, scales = [#moe.field<element = f32, operand = 1, block = [1, 32]>]>

func.func @steps(%x: tensor<?x44xf32>, %w: tensor<1x1x3328xi8>, %y: tensor<?x50xf32>) -> tensor<?x50xf32> {
  // expected-error @+1 {{expected rows of a multiple of 8 elements for this format, got 44}}
  %r = moe.grouped_matmul %x weights(%w : tensor<1x1x3328xi8>) panels(<matmuls = 1, columns = 64, depth = 8, format = #q8>)
      outs(%y : tensor<?x50xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : tensor<?x44xf32> -> tensor<?x50xf32>
  return %r : tensor<?x50xf32>
}

// -----

#q8 = #moe.format<codes = <element = si8>, scales = [#moe.field<element = f32, operand = 1, block = [1, 32]>]>

func.func @float8_rows(%x: tensor<?x64xf8E4M3FN>, %w: tensor<1x1x4608xi8>, %y: tensor<?x50xf32>) -> tensor<?x50xf32> {
  // expected-error @+1 {{expected rows of f32, f16, bf16 or i8 for weights packed with a format, got 'f8E4M3FN'}}
  %r = moe.grouped_matmul %x weights(%w : tensor<1x1x4608xi8>) panels(<matmuls = 1, columns = 64, depth = 8, format = #q8>)
      outs(%y : tensor<?x50xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : tensor<?x64xf8E4M3FN> -> tensor<?x50xf32>
  return %r : tensor<?x50xf32>
}

// -----

#q8 = #moe.format<codes = <element = si8>, scales = [#moe.field<element = f32, operand = 1, block = [1, 32]>]>

func.func @fields(%w: tensor<2x32x4xi8>, %s: tensor<2x32x2xf32>, %o: tensor<2x1x4608xi8>) {
  // expected-error @+1 {{field 0: expected numbers for 32 x 64 blocks, got 'tensor<2x32x4xi8>'}}
  %p = moe.pack %w, %s transposed panels(<matmuls = 1, columns = 64, depth = 8, format = #q8>) extents([64, 32])
    outs(%o : tensor<2x1x4608xi8>) : tensor<2x32x4xi8>, tensor<2x32x2xf32> -> tensor<2x1x4608xi8>
  return
}

// -----

#q8 = #moe.format<codes = <element = si8>, scales = [#moe.field<element = f32, operand = 1, block = [1, 32]>]>

func.func @experts(%w: tensor<2x32x64xi8>, %s: tensor<1x32x2xf32>, %o: tensor<2x1x4608xi8>) {
  // expected-error @+1 {{field 1: expected leading dimensions of [2], got 'tensor<1x32x2xf32>'}}
  %p = moe.pack %w, %s transposed panels(<matmuls = 1, columns = 64, depth = 8, format = #q8>) extents([64, 32])
    outs(%o : tensor<2x1x4608xi8>) : tensor<2x32x64xi8>, tensor<1x32x2xf32> -> tensor<2x1x4608xi8>
  return
}

// -----

// expected-error @+2 {{expected a format of codes of 4, 6 or 8 bits with scales of groups of a multiple of 16 elements, got}}
func.func private @no_scales() attributes {
  p = #moe.panels<matmuls = 1, columns = 64, depth = 8, format = <codes = <element = si8>, scales = [],
                  mins = [#moe.field<element = f32, operand = 1, block = [1, 32]>]>>}

// -----

// A slice of rows would have to be two slices of operand 1.
// expected-error @+2 {{expected a format of codes of 4, 6 or 8 bits with scales of groups of a multiple of 16 elements, got}}
func.func private @unequal_rows() attributes {
  p = #moe.panels<matmuls = 1, columns = 64, depth = 8, format = <codes = <element = ui8>,
                  scales = [#moe.field<element = f32, operand = 1, block = [128, 32]>],
                  zero = <element = f32, operand = 1, block = [100, 32]>>>}

// -----

// No field uses operand 1.
// expected-error @+2 {{expected a format of codes of 4, 6 or 8 bits with scales of groups of a multiple of 16 elements, got}}
func.func private @unused_operand() attributes {
  p = #moe.panels<matmuls = 1, columns = 64, depth = 8, format = <codes = <element = ui8>,
                  scales = [#moe.field<element = f32, operand = 2, block = [1, 32]>]>>}

// -----

#q8 = #moe.format<codes = <element = si8>, scales = [#moe.field<element = f32, operand = 1, block = [1, 32]>]>

func.func @no_experts(%w: tensor<i8>, %s: tensor<2x32x2xf32>, %o: tensor<2x1x4608xi8>) {
  // expected-error @+1 {{expected fields with a dimension of experts, got 'tensor<i8>'}}
  %p = moe.pack %w, %s transposed panels(<matmuls = 1, columns = 64, depth = 8, format = #q8>) extents([64, 32])
    outs(%o : tensor<2x1x4608xi8>) : tensor<i8>, tensor<2x32x2xf32> -> tensor<2x1x4608xi8>
  return
}

// -----

#q4 = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4>]>,
                  scales = [#moe.field<element = f32, operand = 1, block = [1, 32]>]>

func.func @storage(%w: tensor<2x32x64xi4>, %s: tensor<2x32x2xf32>, %o: tensor<2x1x2560xi8>) {
  // expected-error @+1 {{field 0: expected elements of whole bytes, got 'tensor<2x32x64xi4>'}}
  %p = moe.pack %w, %s transposed panels(<matmuls = 1, columns = 64, depth = 8, format = #q4>) extents([64, 32])
    outs(%o : tensor<2x1x2560xi8>) : tensor<2x32x64xi4>, tensor<2x32x2xf32> -> tensor<2x1x2560xi8>
  return
}
