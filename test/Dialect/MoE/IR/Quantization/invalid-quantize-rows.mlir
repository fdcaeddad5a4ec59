// RUN: moe-opt %s -split-input-file -verify-diagnostics

func.func @columns(%x: tensor<?x40xf32>, %o: tensor<?x96xi8>) {
  // expected-error @+1 {{expected rows of a multiple of 32 columns, got 'tensor<?x40xf32>'}}
  %q = moe.quantize_rows %x outs(%o : tensor<?x96xi8>) : tensor<?x40xf32> -> tensor<?x96xi8>
  return
}

// -----

func.func @destination(%x: tensor<?x64xf32>, %o: tensor<?x64xi8>) {
  // expected-error @+1 {{expected a destination of shape ?x96, got ?x64}}
  %q = moe.quantize_rows %x outs(%o : tensor<?x64xi8>) : tensor<?x64xf32> -> tensor<?x64xi8>
  return
}

// -----

func.func @mixed(%x: tensor<?x64xf32>, %o: memref<?x96xi8>) {
  // expected-error @+1 {{expected operands that are all tensors or all memrefs}}
  moe.quantize_rows %x outs(%o : memref<?x96xi8>) : tensor<?x64xf32>
  return
}

// -----

#q4 = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4>]>, offset = 8,
                  scales = [#moe.field<element = f16, operand = 1, block = [1, 32]>]>

func.func @row_bytes(%x: memref<?x64xi8>, %w: memref<1x1x2304xi8>, %y: memref<?x50xf32>) {
  // expected-error @+1 {{expected quantized rows of 48 bytes for each group, got 'memref<?x64xi8>'}}
  moe.grouped_matmul %x weights(%w : memref<1x1x2304xi8>) panels(<matmuls = 1, columns = 64, depth = 8, format = #q4>)
      outs(%y : memref<?x50xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : memref<?x64xi8>
  return
}

// -----

func.func @float_weights(%x: memref<?x96xi8>, %w: memref<1x64x50xf32>, %y: memref<?x50xf32>) {
  // expected-error @+1 {{expected weights packed with a format for rows of i8, got 'memref<1x64x50xf32>'}}
  moe.grouped_matmul %x weights(%w : memref<1x64x50xf32>) outs(%y : memref<?x50xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : memref<?x96xi8>
  return
}

// -----

// expected-error @+1 {{expected moe.activations of an operation to be "exact" or "int8", got "int4"}}
func.func private @activations() attributes {moe.activations = "int4"}
