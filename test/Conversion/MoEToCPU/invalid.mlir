// RUN: moe-opt %s -convert-moe-to-cpu -split-input-file -verify-diagnostics

func.func @product_of_tensors(%x: tensor<?x4xf32>, %w: tensor<1x1x4x4x1xf32>, %o: tensor<?x4xf32>) -> tensor<?x4xf32> {
  // expected-error @+1 {{is on tensors; bufferize it before convert-moe-to-cpu}}
  %y = moe.grouped_matmul %x weights(%w : tensor<1x1x4x4x1xf32>) panels(<matmuls = 1, columns = 4, depth = 1>) outs(%o : tensor<?x4xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// -----

func.func @pack_of_tensors(%w: tensor<1x4x4xf32>, %o: tensor<1x1x4x4x1xf32>) -> tensor<1x1x4x4x1xf32> {
  // expected-error @+1 {{is on tensors; bufferize it before convert-moe-to-cpu}}
  %p = moe.pack %w panels(<matmuls = 1, columns = 4, depth = 1>) outs(%o : tensor<1x1x4x4x1xf32>) : tensor<1x4x4xf32> -> tensor<1x1x4x4x1xf32>
  return %p : tensor<1x1x4x4x1xf32>
}

// -----

func.func @sum_of_tensors(%x: tensor<?x4xf32>, %p: tensor<?x2xi32>, %o: tensor<?x4xf32>) -> tensor<?x4xf32> {
  // expected-error @+1 {{is on tensors; bufferize it before convert-moe-to-cpu}}
  %y = moe.gather_sum %x, %p outs(%o : tensor<?x4xf32>) : tensor<?x4xf32>, tensor<?x2xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// -----

func.func @not_packed(%x: memref<?x4xf32>, %w: memref<1x4x4xf32>, %o: memref<?x4xf32>) {
  // expected-error @+1 {{expected weights packed in whole vectors of 4 lanes; run moe-pack-weights}}
  moe.grouped_matmul %x weights(%w : memref<1x4x4xf32>) outs(%o : memref<?x4xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : memref<?x4xf32>
  return
}

// -----

func.func @part_of_a_vector(%x: memref<?x4xf32>, %w: memref<1x1x4x6x1xf32>, %o: memref<?x4xf32>) {
  // expected-error @+1 {{expected weights packed in whole vectors of 4 lanes; run moe-pack-weights}}
  moe.grouped_matmul %x weights(%w : memref<1x1x4x6x1xf32>) panels(<matmuls = 1, columns = 6, depth = 1>) outs(%o : memref<?x4xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : memref<?x4xf32>
  return
}

// -----

func.func @part_of_a_vector_each(%x: memref<?x4xf32>, %w: memref<1x2x4x4x1xf32>, %o: memref<?x4xf32>) {
  // expected-error @+1 {{expected weights packed in whole vectors of 4 lanes; run moe-pack-weights}}
  moe.grouped_matmul %x weights(%w : memref<1x2x4x4x1xf32>) panels(<matmuls = 2, columns = 4, depth = 1>) outs(%o : memref<?x4xf32>) {
  ^bb0(%s: f32, %t: f32):
    moe.yield %s : f32
  } : memref<?x4xf32>
  return
}

// -----

func.func @pairs_without_dot_products(%x: memref<?x4xbf16>, %w: memref<1x1x2x4x2xbf16>, %o: memref<?x4xf32>) {
  // expected-error @+1 {{expected weights packed to a depth of at most 1, for 'bf16' on this processor, got 2}}
  moe.grouped_matmul %x weights(%w : memref<1x1x2x4x2xbf16>) panels(<matmuls = 1, columns = 4, depth = 2>) outs(%o : memref<?x4xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : memref<?x4xbf16>
  return
}

// -----

func.func @strided_rows(%x: memref<?x4xf32, strided<[8, 2]>>, %w: memref<1x1x4x4x1xf32>, %o: memref<?x4xf32>) {
  // expected-error @+1 {{expected contiguous rows, got 'memref<?x4xf32, strided<[8, 2]>>'}}
  moe.grouped_matmul %x weights(%w : memref<1x1x4x4x1xf32>) panels(<matmuls = 1, columns = 4, depth = 1>) outs(%o : memref<?x4xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : memref<?x4xf32, strided<[8, 2]>>
  return
}

// -----

func.func @no_columns(%x: memref<?x4xf32>, %w: memref<1x0x4x4x1xf32>, %o: memref<?x0xf32>) {
  // expected-error @+1 {{expected rows and weights with columns, got none}}
  moe.grouped_matmul %x weights(%w : memref<1x0x4x4x1xf32>) panels(<matmuls = 1, columns = 4, depth = 1>) outs(%o : memref<?x0xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : memref<?x4xf32>
  return
}

// -----

func.func @no_steps(%x: memref<?x0xf32>, %w: memref<1x1x0x4x1xf32>, %o: memref<?x4xf32>) {
  // expected-error @+1 {{expected rows and weights with columns, got none}}
  moe.grouped_matmul %x weights(%w : memref<1x1x0x4x1xf32>) panels(<matmuls = 1, columns = 4, depth = 1>) outs(%o : memref<?x4xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : memref<?x0xf32>
  return
}

// -----

func.func @strided_destination_of_pack(%w: memref<1x4x4xf32>, %o: memref<1x1x4x4x1xf32, strided<[32, 32, 8, 2, 1]>>) {
  // expected-error @+1 {{expected a compact destination, got 'memref<1x1x4x4x1xf32, strided<[32, 32, 8, 2, 1]>>'}}
  moe.pack %w panels(<matmuls = 1, columns = 4, depth = 1>) outs(%o : memref<1x1x4x4x1xf32, strided<[32, 32, 8, 2, 1]>>) : memref<1x4x4xf32>
  return
}

// -----

func.func @strided_rows_of_a_sum(%x: memref<?x4xf32, strided<[8, 2]>>, %p: memref<?x2xi32>, %o: memref<?x4xf32>) {
  // expected-error @+1 {{expected contiguous rows, got 'memref<?x4xf32, strided<[8, 2]>>'}}
  moe.gather_sum %x, %p outs(%o : memref<?x4xf32>) : memref<?x4xf32, strided<[8, 2]>>, memref<?x2xi32>
  return
}

// -----

func.func @strided_destination_of_a_sum(%x: memref<?x4xf32>, %p: memref<?x2xi32>, %o: memref<?x4xf32, strided<[8, 2]>>) {
  // expected-error @+1 {{expected contiguous rows, got 'memref<?x4xf32, strided<[8, 2]>>'}}
  moe.gather_sum %x, %p outs(%o : memref<?x4xf32, strided<[8, 2]>>) : memref<?x4xf32>, memref<?x2xi32>
  return
}

// -----

func.func @strided_dropped(%x: memref<?x4xf32>, %p: memref<?x2xi32>, %d: memref<?x4xf32, strided<[8, 2]>>, %o: memref<?x4xf32>) {
  // expected-error @+1 {{expected contiguous rows, got 'memref<?x4xf32, strided<[8, 2]>>'}}
  moe.gather_sum %x, %p dropped(%d : memref<?x4xf32, strided<[8, 2]>>) outs(%o : memref<?x4xf32>) : memref<?x4xf32>, memref<?x2xi32>
  return
}

// -----

func.func @depth(%x: memref<?x6xf32>, %w: memref<1x1x2x4x3xf32>, %o: memref<?x4xf32>) {
  // expected-error @+1 {{expected weights packed to a depth of at most 1, for 'f32' on this processor, got 3}}
  moe.grouped_matmul %x weights(%w : memref<1x1x2x4x3xf32>) panels(<matmuls = 1, columns = 4, depth = 3>) outs(%o : memref<?x4xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : memref<?x6xf32>
  return
}

// -----

func.func @strided_destination(%x: memref<?x4xf32>, %w: memref<1x1x4x4x1xf32>, %o: memref<?x4xf32, strided<[8, 2]>>) {
  // expected-error @+1 {{expected contiguous rows, got 'memref<?x4xf32, strided<[8, 2]>>'}}
  moe.grouped_matmul %x weights(%w : memref<1x1x4x4x1xf32>) panels(<matmuls = 1, columns = 4, depth = 1>) outs(%o : memref<?x4xf32, strided<[8, 2]>>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : memref<?x4xf32>
  return
}

// -----

func.func @strided_weights(%x: memref<?x4xf32>, %w: memref<1x1x4x4x1xf32, strided<[64, 32, 8, 1, 1]>>, %o: memref<?x4xf32>) {
  // expected-error @+1 {{expected compact weights, got 'memref<1x1x4x4x1xf32, strided<[64, 32, 8, 1, 1]>>'}}
  moe.grouped_matmul %x weights(%w : memref<1x1x4x4x1xf32, strided<[64, 32, 8, 1, 1]>>) panels(<matmuls = 1, columns = 4, depth = 1>) outs(%o : memref<?x4xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : memref<?x4xf32>
  return
}

// -----

#q4 = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4>]>,
                  scales = [#moe.field<element = f16, operand = 1, block = [1, 32]>]>

// The default processor has vectors of 128 bits.
func.func @packed_with_a_format(%x: memref<?x32xf32>, %w: memref<1x1x288xi8>, %o: memref<?x16xf32>) {
  // expected-error @+1 {{expected a processor with vectors of 256 or 512 bits for weights packed with a format}}
  moe.grouped_matmul %x weights(%w : memref<1x1x288xi8>) panels(<matmuls = 1, columns = 16, depth = 8, format = #q4>) outs(%o : memref<?x16xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : memref<?x32xf32>
  return
}

// -----

func.func @rows_of_tensors(%x: tensor<?x32xf32>, %o: tensor<?x48xi8>) -> tensor<?x48xi8> {
  // expected-error @+1 {{is on tensors; bufferize it before convert-moe-to-cpu}}
  %q = moe.quantize_rows %x outs(%o : tensor<?x48xi8>) : tensor<?x32xf32> -> tensor<?x48xi8>
  return %q : tensor<?x48xi8>
}

// -----

func.func @rows_are_strided(%x: memref<?x32xf32, strided<[64, 2]>>, %o: memref<?x48xi8>) {
  // expected-error @+1 {{expected contiguous rows, got 'memref<?x32xf32, strided<[64, 2]>>'}}
  moe.quantize_rows %x outs(%o : memref<?x48xi8>) : memref<?x32xf32, strided<[64, 2]>>
  return
}

// -----

func.func @rounded_codes(%w: memref<2x64xf32>, %q: memref<2x64xi8>, %s: memref<2x1xf32>) {
  // expected-error @+1 {{expected codes of 4 or 8 bits}}
  moe.round_matrices %w format(<codes = <element = si5, bits = [#moe.bits<width = 5>]>,
                                scales = [#moe.field<element = f32, operand = 1, block = [1, 64]>]>)
      outs(%q, %s : memref<2x64xi8>, memref<2x1xf32>) : memref<2x64xf32>
  return
}
