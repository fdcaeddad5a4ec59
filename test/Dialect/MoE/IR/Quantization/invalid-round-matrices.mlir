// RUN: moe-opt %s -split-input-file -verify-diagnostics

#int8 = #moe.format<codes = <element = si8>, scales = [#moe.field<element = f32, operand = 1, block = [1, 64]>]>

func.func @count(%w: memref<2x8x64xf32>) {
  // expected-error @+1 {{expected one destination or two, got 3}}
  moe.round_matrices %w format(#int8) outs(%w, %w, %w : memref<2x8x64xf32>, memref<2x8x64xf32>, memref<2x8x64xf32>) : memref<2x8x64xf32>
  return
}

// -----

#int8 = #moe.format<codes = <element = si8>, scales = [#moe.field<element = f32, operand = 1, block = [1, 64]>]>

func.func @mixed(%w: memref<2x8x64xf32>, %e: tensor<2xf32>) {
  // expected-error @+1 {{expected operands that are all tensors or all memrefs, got 'memref<2x8x64xf32>' and 'tensor<2xf32>'}}
  %r = moe.round_matrices %w format(#int8) outs(%e : tensor<2xf32>) : memref<2x8x64xf32> -> tensor<2xf32>
  return
}

// -----

#int8 = #moe.format<codes = <element = si8>, scales = [#moe.field<element = f32, operand = 1, block = [1, 64]>]>

func.func @columns(%w: memref<2x8x?xf32>, %e: memref<2xf32>) {
  // expected-error @+1 {{expected matrices with static columns, got 'memref<2x8x?xf32>'}}
  moe.round_matrices %w format(#int8) outs(%e : memref<2xf32>) : memref<2x8x?xf32>
  return
}

// -----

#int8 = #moe.format<codes = <element = si8>, scales = [#moe.field<element = f32, operand = 1, block = [1, 64]>]>

func.func @errors(%w: memref<8x64xf32>, %e: memref<8xf32>) {
  // expected-error @+1 {{expected matrices with one dimension before them, and errors in f32, got 'memref<8x64xf32>' and 'memref<8xf32>'}}
  moe.round_matrices %w format(#int8) outs(%e : memref<8xf32>) : memref<8x64xf32>
  return
}

// -----

#int8 = #moe.format<codes = <element = si8>, scales = [#moe.field<element = f32, operand = 1, block = [1, 64]>]>

func.func @scales(%w: memref<8x64xf32>, %q: memref<8x64xi8>, %s: memref<8x2xf32>) {
  // expected-error @+1 {{expected field 1 of shape 8x1, got 8x2}}
  moe.round_matrices %w format(#int8) outs(%q, %s : memref<8x64xi8>, memref<8x2xf32>) : memref<8x64xf32>
  return
}

// -----

#int8 = #moe.format<codes = <element = si8>, scales = [#moe.field<element = f32, operand = 1, block = [1, 64]>]>

func.func @element(%w: memref<8x64xf32>, %q: memref<8x64xi16>, %s: memref<8x1xf32>) {
  // expected-error @+1 {{expected field 0 of 'i8', got 'memref<8x64xi16>'}}
  moe.round_matrices %w format(#int8) outs(%q, %s : memref<8x64xi16>, memref<8x1xf32>) : memref<8x64xf32>
  return
}

// -----

#table = #moe.format<codes = <element = si8>>

func.func @format(%w: memref<2x64xf32>, %e: memref<2xf32>) {
  // expected-error @+1 {{expected one scale}}
  moe.round_matrices %w format(#table) outs(%e : memref<2xf32>) : memref<2x64xf32>
  return
}
