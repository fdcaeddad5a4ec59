// RUN: moe-opt %s -split-input-file -verify-diagnostics

func.func @rows_type(%x: tensor<?x4xf64>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>) {
  // expected-error @+1 {{operand #0 must be 2-D tensor or memref of f32, f16, bf16, f8E4M3FN or i8, but got 'tensor<?x4xf64>'}}
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf64> -> tensor<?x8xf32>
  return
}

// -----

func.func @mixed(%x: memref<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>) {
  // expected-error @+1 {{expected operands that are all tensors or all memrefs, got 'tensor<?x8xf32>' and 'memref<?x4xf32>'}}
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : memref<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @no_result(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>) {
  // expected-error @+1 {{expected a result for a destination that is a tensor}}
  moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32>
  return
}

// -----

func.func @result_on_buffers(%x: memref<?x4xf32>, %w: memref<1x4x8xf32>, %o: memref<?x8xf32>) {
  // expected-error @+1 {{expected no result for a destination that is a memref}}
  %y = moe.grouped_matmul %x weights(%w : memref<1x4x8xf32>) outs(%o : memref<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : memref<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @result_type(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>) {
  // expected-error @+1 {{expected a result of the type of the destination, 'tensor<?x8xf32>', got 'tensor<5x8xf32>'}}
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<5x8xf32>
  return
}

// -----

func.func @dynamic_columns_of_rows(%x: tensor<?x?xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>) {
  // expected-error @+1 {{expected rows and a destination with static columns, got 'tensor<?x?xf32>' and 'tensor<?x8xf32>'}}
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x?xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @dynamic_columns(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x?xf32>) {
  // expected-error @+1 {{expected rows and a destination with static columns, got 'tensor<?x4xf32>' and 'tensor<?x?xf32>'}}
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) outs(%o : tensor<?x?xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x?xf32>
  return
}

// -----

func.func @no_weights(%x: tensor<?x4xf32>, %o: tensor<?x8xf32>) {
  // expected-error @+1 {{expected at least one operand of weights}}
  %y = "moe.grouped_matmul"(%x, %o) <{operandSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 1>}> ({
  ^bb0:
    %z = arith.constant 0.0 : f32
    moe.yield %z : f32
  }) : (tensor<?x4xf32>, tensor<?x8xf32>) -> tensor<?x8xf32>
  return
}

// -----

func.func @weights_shape(%x: tensor<?x4xf32>, %w: tensor<1x8x4xf32>, %o: tensor<?x8xf32>) {
  // expected-error @+1 {{expected weights 0 of shape 1x4x8, got 1x8x4}}
  %y = moe.grouped_matmul %x weights(%w : tensor<1x8x4xf32>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @weights_rank(%x: tensor<?x4xf32>, %w: tensor<4x8xf32>, %o: tensor<?x8xf32>) {
  // expected-error @+1 {{expected weights of rank 3, got 'tensor<4x8xf32>'}}
  %y = moe.grouped_matmul %x weights(%w : tensor<4x8xf32>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @transposed_shape(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>) {
  // expected-error @+1 {{expected weights 0 of shape 1x8x4, got 1x4x8}}
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) transposed outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @second_weights(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %v: tensor<1x4x9xf32>, %o: tensor<?x8xf32>) {
  // expected-error @+1 {{expected weights 1 of shape 1x4x8, got 1x4x9}}
  %y = moe.grouped_matmul %x weights(%w, %v : tensor<1x4x8xf32>, tensor<1x4x9xf32>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32, %t: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @weights_type(%x: tensor<?x4xf32>, %w: tensor<1x4x8xbf16>, %o: tensor<?x8xf32>) {
  // expected-error @+1 {{expected weights of the type of the rows, 'f32', got 'bf16'}}
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xbf16>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @packed_shape(%x: tensor<?x4xf32>, %w: tensor<1x1x4x8x1xf32>, %o: tensor<?x8xf32>) {
  // expected-error @+1 {{expected weights 0 of shape 1x2x4x4x1, got 1x1x4x8x1}}
  %y = moe.grouped_matmul %x weights(%w : tensor<1x1x4x8x1xf32>) panels(<matmuls = 1, columns = 4, depth = 1>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @packed_and_transposed(%x: tensor<?x4xf32>, %w: tensor<1x2x4x4x1xf32>, %o: tensor<?x8xf32>) {
  // expected-error @+1 {{expected one operand of packed weights, not transposed}}
  %y = moe.grouped_matmul %x weights(%w : tensor<1x2x4x4x1xf32>) transposed panels(<matmuls = 1, columns = 4, depth = 1>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @packed_operands(%x: tensor<?x4xf32>, %w: tensor<1x2x4x4x1xf32>, %o: tensor<?x8xf32>) {
  // expected-error @+1 {{expected one operand of packed weights, not transposed}}
  %y = moe.grouped_matmul %x weights(%w, %w : tensor<1x2x4x4x1xf32>, tensor<1x2x4x4x1xf32>) panels(<matmuls = 1, columns = 4, depth = 1>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @no_maps(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>, %b: tensor<1x8xf32>) {
  // expected-error @+1 {{expected a map for each of 1 operands, got 0}}
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) operands(%b : tensor<1x8xf32>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @maps_without_operands(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>) {
  // expected-error @+1 {{expected a map for each of 0 operands, got 1}}
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) maps([affine_map<(e, r, n) -> (e, n)>]) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @map_dims(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>, %b: tensor<1x8xf32>) {
  // expected-error @+1 {{expected map 0 to be a projection of (e, r, n), got affine_map<(d0, d1) -> (d0, d1)>}}
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) operands(%b : tensor<1x8xf32>) maps([affine_map<(e, n) -> (e, n)>]) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32, %v: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @map_symbol(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>, %b: tensor<1x8xf32>) {
  // expected-error @+1 {{expected map 0 to be a projection of (e, r, n), got affine_map<(d0, d1, d2)[s0] -> (d0, d2)>}}
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) operands(%b : tensor<1x8xf32>) maps([affine_map<(e, r, n)[s] -> (e, n)>]) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32, %v: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @map_sum(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>, %b: tensor<8xf32>) {
  // expected-error @+1 {{expected map 0 to be a projection of (e, r, n), got affine_map<(d0, d1, d2) -> (d0 + d1)>}}
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) operands(%b : tensor<8xf32>) maps([affine_map<(e, r, n) -> (e + r)>]) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32, %v: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @map_twice(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>, %b: tensor<8x8xf32>) {
  // expected-error @+1 {{expected map 0 to be a projection of (e, r, n), got affine_map<(d0, d1, d2) -> (d2, d2)>}}
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) operands(%b : tensor<8x8xf32>) maps([affine_map<(e, r, n) -> (n, n)>]) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32, %v: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @operand_shape(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>, %b: tensor<8x1xf32>) {
  // expected-error @+1 {{expected operand 0 of shape 1x8, got 8x1}}
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) operands(%b : tensor<8x1xf32>) maps([affine_map<(e, r, n) -> (e, n)>]) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32, %v: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @operand_rank(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>, %b: tensor<8xf32>) {
  // expected-error @+1 {{expected operand 0 of shape 1x8, got 8}}
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) operands(%b : tensor<8xf32>) maps([affine_map<(e, r, n) -> (e, n)>]) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32, %v: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @operand_type(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>, %b: tensor<1x8xindex>) {
  // expected-error @+1 {{expected operand 0 of integers or floats, got 'tensor<1x8xindex>'}}
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) operands(%b : tensor<1x8xindex>) maps([affine_map<(e, r, n) -> (e, n)>]) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32, %v: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @dynamic_experts(%x: tensor<?x4xf32>, %w: tensor<?x4x8xf32>, %o: tensor<?x8xf32>) {
  // expected-error @+1 {{expected weights of a static, positive number of experts}}
  %y = moe.grouped_matmul %x weights(%w : tensor<?x4x8xf32>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @no_experts(%x: tensor<?x4xf32>, %w: tensor<0x4x8xf32>, %o: tensor<?x8xf32>) {
  // expected-error @+1 {{expected weights of a static, positive number of experts}}
  %y = moe.grouped_matmul %x weights(%w : tensor<0x4x8xf32>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @dynamic_offsets(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>, %p: tensor<?xi32>) {
  // expected-error @+1 {{expected static offsets, got 'tensor<?xi32>'}}
  %y = moe.grouped_matmul %x offsets(%p : tensor<?xi32>) weights(%w : tensor<1x4x8xf32>)  outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @first_too_large(%x: tensor<?x4xf32>, %w: tensor<2x4x8xf32>, %o: tensor<?x8xf32>, %p: tensor<5xi32>) {
  // expected-error @+1 {{expected first between 0 and 2, got 3}}
  %y = moe.grouped_matmul %x offsets(%p : tensor<5xi32>) weights(%w : tensor<2x4x8xf32>) first(3) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @first_negative(%x: tensor<?x4xf32>, %w: tensor<2x4x8xf32>, %o: tensor<?x8xf32>, %p: tensor<5xi32>) {
  // expected-error @+1 {{expected first between 0 and 2, got -1}}
  %y = moe.grouped_matmul %x offsets(%p : tensor<5xi32>) weights(%w : tensor<2x4x8xf32>) first(-1) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @experts_without_offsets(%x: tensor<?x4xf32>, %w: tensor<2x4x8xf32>, %o: tensor<?x8xf32>) {
  // expected-error @+1 {{expected one expert and no first where there are no offsets, got 2 experts}}
  %y = moe.grouped_matmul %x weights(%w : tensor<2x4x8xf32>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @first_without_offsets(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>) {
  // expected-error @+1 {{expected one expert and no first where there are no offsets, got 1 experts}}
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) first(0) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @rows(%x: tensor<7x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<5x8xf32>) {
  // expected-error @+1 {{expected a destination of 7 rows, got 5}}
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) outs(%o : tensor<5x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<7x4xf32> -> tensor<5x8xf32>
  return
}

// -----

func.func @gathered_rows(%x: tensor<7x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<7x8xf32>, %n: tensor<9xi32>) {
  // expected-error @+1 {{expected a destination of 9 rows, got 7}}
  %y = moe.grouped_matmul %x gather(%n : tensor<9xi32>) weights(%w : tensor<1x4x8xf32>)  outs(%o : tensor<7x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<7x4xf32> -> tensor<7x8xf32>
  return
}

// -----

func.func @no_block(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>) {
  // expected-error @+1 {{region #0 ('epilogue') failed to verify constraint: region with 1 blocks}}
  %y = "moe.grouped_matmul"(%x, %w, %o) <{operandSegmentSizes = array<i32: 1, 0, 0, 1, 0, 0, 0, 1>}> ({
  }) : (tensor<?x4xf32>, tensor<1x4x8xf32>, tensor<?x8xf32>) -> tensor<?x8xf32>
  return
}

// -----

func.func @too_few_arguments(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>) {
  // expected-error @+1 {{expected an epilogue that takes 'f32', 'f32', the accumulators and the elements of the operands, got 'f32'}}
  %y = moe.grouped_matmul %x weights(%w, %w : tensor<1x4x8xf32>, tensor<1x4x8xf32>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @sums_in_f32(%x: tensor<?x4xbf16>, %w: tensor<1x4x8xbf16>, %o: tensor<?x8xbf16>) {
  // expected-error @+1 {{expected an epilogue that takes 'f32', the accumulators and the elements of the operands, got 'bf16'}}
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xbf16>) outs(%o : tensor<?x8xbf16>) {
  ^bb0(%s: bf16):
    moe.yield %s : bf16
  } : tensor<?x4xbf16> -> tensor<?x8xbf16>
  return
}

// -----

func.func @argument_of_operand(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>, %b: tensor<1x8xbf16>) {
  // expected-error @+1 {{expected an epilogue that takes 'f32', 'bf16', the accumulators and the elements of the operands, got 'f32', 'f32'}}
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) operands(%b : tensor<1x8xbf16>) maps([affine_map<(e, r, n) -> (e, n)>]) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32, %v: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @terminator(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>) {
  // expected-error @+1 {{expected an epilogue that ends with moe.yield, got llvm.unreachable}}
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    llvm.unreachable
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @yielded_type(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xbf16>) {
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) outs(%o : tensor<?x8xbf16>) {
  ^bb0(%s: f32):
    // expected-error @+1 {{expected to yield 'bf16', got 'f32'}}
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xbf16>
  return
}

// -----

func.func @side_effects(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>, %m: memref<f32>) {
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    // expected-error @+1 {{expected an epilogue of elementwise operations without side effects}}
    memref.store %s, %m[] : memref<f32>
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @not_elementwise(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>, %v: tensor<8xf32>, %i: index) {
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    // expected-error @+1 {{expected an epilogue of elementwise operations without side effects}}
    %t = tensor.extract %v[%i] : tensor<8xf32>
    moe.yield %t : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @scalar_weights(%x: tensor<?x4xf32>, %w: tensor<f32>, %o: tensor<?x8xf32>) {
  // expected-error @+1 {{expected weights of rank 3, got 'tensor<f32>'}}
  %y = moe.grouped_matmul %x weights(%w : tensor<f32>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @packed_rank(%x: tensor<?x4xf32>, %w: tensor<1x2x4x4xf32>, %o: tensor<?x8xf32>) {
  // expected-error @+1 {{expected weights of rank 5, got 'tensor<1x2x4x4xf32>'}}
  %y = moe.grouped_matmul %x weights(%w : tensor<1x2x4x4xf32>) panels(<matmuls = 1, columns = 4, depth = 1>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @vectors(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>, %v: vector<4xf32>) {
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    // expected-error @+1 {{expected an epilogue of operations on scalars}}
    %t = arith.addf %v, %v : vector<4xf32>
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @dynamic_weights(%x: tensor<?x4xf32>, %w: tensor<1x?x8xf32>, %o: tensor<?x8xf32>) {
  // expected-error @+1 {{expected weights with static rows and columns, got 'tensor<1x?x8xf32>'}}
  %y = moe.grouped_matmul %x weights(%w : tensor<1x?x8xf32>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @one_of_two_results(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>) {
  // expected-error @+1 {{expected a result for a destination that is a tensor}}
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) outs(%o, %o : tensor<?x8xf32>, tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s, %s : f32, f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @shapes_of_destinations(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>, %p: tensor<?x9xf32>) {
  // expected-error @+1 {{expected destinations of shape ?x8, got ?x9}}
  %y:2 = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) outs(%o, %p : tensor<?x8xf32>, tensor<?x9xf32>) {
  ^bb0(%s: f32):
    moe.yield %s, %s : f32, f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>, tensor<?x9xf32>
  return
}

// -----

func.func @yields_of_two(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>) {
  %y:2 = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) outs(%o, %o : tensor<?x8xf32>, tensor<?x8xf32>) {
  ^bb0(%s: f32):
    // expected-error @+1 {{expected to yield 'f32', 'f32', got 'f32'}}
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>, tensor<?x8xf32>
  return
}

// -----

func.func @no_destination(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>) {
  // expected-error @+1 {{expected at least one destination}}
  "moe.grouped_matmul"(%x, %w) <{operandSegmentSizes = array<i32: 1, 0, 0, 1, 0, 0, 0, 0>}> ({
  ^bb0(%s: f32):
    moe.yield %s : f32
  }) : (tensor<?x4xf32>, tensor<1x4x8xf32>) -> ()
  return
}
