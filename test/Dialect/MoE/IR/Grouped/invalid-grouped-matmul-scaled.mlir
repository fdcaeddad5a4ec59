// RUN: moe-opt %s -split-input-file -verify-diagnostics

func.func @no_blocks(%x: tensor<?x200xf8E4M3FN>, %e: tensor<3xi32>, %w: tensor<2x200x40xf8E4M3FN>, %o: tensor<?x40xf32>, %a: tensor<?x2xf32>) {
  // expected-error @+1 {{expected blocks where there are scales, and only there}}
  %y = moe.grouped_matmul %x offsets(%e : tensor<3xi32>) weights(%w : tensor<2x200x40xf8E4M3FN>) lhs_scales(%a : tensor<?x2xf32>) outs(%o : tensor<?x40xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x200xf8E4M3FN> -> tensor<?x40xf32>
  return
}

// -----

func.func @blocks_alone(%x: tensor<?x200xf8E4M3FN>, %e: tensor<3xi32>, %w: tensor<2x200x40xf8E4M3FN>, %o: tensor<?x40xf32>) {
  // expected-error @+1 {{expected blocks where there are scales, and only there}}
  %y = moe.grouped_matmul %x offsets(%e : tensor<3xi32>) weights(%w : tensor<2x200x40xf8E4M3FN>) blocks([128, 128]) outs(%o : tensor<?x40xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x200xf8E4M3FN> -> tensor<?x40xf32>
  return
}

// -----

func.func @three_blocks(%x: tensor<?x200xf8E4M3FN>, %e: tensor<3xi32>, %w: tensor<2x200x40xf8E4M3FN>, %o: tensor<?x40xf32>, %a: tensor<?x2xf32>) {
  // expected-error @+1 {{expected two positive extents of blocks, got [1, 128, 128]}}
  %y = moe.grouped_matmul %x offsets(%e : tensor<3xi32>) weights(%w : tensor<2x200x40xf8E4M3FN>) lhs_scales(%a : tensor<?x2xf32>) blocks([1, 128, 128]) outs(%o : tensor<?x40xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x200xf8E4M3FN> -> tensor<?x40xf32>
  return
}

// -----

func.func @empty_blocks(%x: tensor<?x200xf8E4M3FN>, %e: tensor<3xi32>, %w: tensor<2x200x40xf8E4M3FN>, %o: tensor<?x40xf32>, %a: tensor<?x2xf32>) {
  // expected-error @+1 {{expected two positive extents of blocks, got [0, 128]}}
  %y = moe.grouped_matmul %x offsets(%e : tensor<3xi32>) weights(%w : tensor<2x200x40xf8E4M3FN>) lhs_scales(%a : tensor<?x2xf32>) blocks([0, 128]) outs(%o : tensor<?x40xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x200xf8E4M3FN> -> tensor<?x40xf32>
  return
}

// -----

func.func @row_scales(%x: tensor<?x200xf8E4M3FN>, %e: tensor<3xi32>, %w: tensor<2x200x40xf8E4M3FN>, %o: tensor<?x40xf32>, %a: tensor<?x3xf32>) {
  // expected-error @+1 {{expected lhs_scales of shape ?x2, got ?x3}}
  %y = moe.grouped_matmul %x offsets(%e : tensor<3xi32>) weights(%w : tensor<2x200x40xf8E4M3FN>) lhs_scales(%a : tensor<?x3xf32>) blocks([128, 128]) outs(%o : tensor<?x40xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x200xf8E4M3FN> -> tensor<?x40xf32>
  return
}

// -----

func.func @weight_scales(%x: tensor<?x200xf8E4M3FN>, %e: tensor<3xi32>, %w: tensor<2x200x40xf8E4M3FN>, %o: tensor<?x40xf32>, %a: tensor<2x1x2xf32>) {
  // expected-error @+1 {{expected weight_scales 0 of shape 2x2x1, got 2x1x2}}
  %y = moe.grouped_matmul %x offsets(%e : tensor<3xi32>) weights(%w : tensor<2x200x40xf8E4M3FN>) weight_scales(%a : tensor<2x1x2xf32>) blocks([128, 128]) outs(%o : tensor<?x40xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x200xf8E4M3FN> -> tensor<?x40xf32>
  return
}

// -----

func.func @weight_scales_t(%x: tensor<?x200xf8E4M3FN>, %e: tensor<3xi32>, %w: tensor<2x40x200xf8E4M3FN>, %o: tensor<?x40xf32>, %a: tensor<2x2x1xf32>) {
  // expected-error @+1 {{expected weight_scales 0 of shape 2x1x2, got 2x2x1}}
  %y = moe.grouped_matmul %x offsets(%e : tensor<3xi32>) weights(%w : tensor<2x40x200xf8E4M3FN>) transposed weight_scales(%a : tensor<2x2x1xf32>) blocks([128, 128]) outs(%o : tensor<?x40xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x200xf8E4M3FN> -> tensor<?x40xf32>
  return
}

// -----

func.func @two_scales(%x: tensor<?x200xf8E4M3FN>, %e: tensor<3xi32>, %w: tensor<2x200x40xf8E4M3FN>, %o: tensor<?x40xf32>, %a: tensor<2x2x1xf32>) {
  // expected-error @+1 {{expected scales for each of 1 weights, got 2}}
  %y = moe.grouped_matmul %x offsets(%e : tensor<3xi32>) weights(%w : tensor<2x200x40xf8E4M3FN>) weight_scales(%a, %a : tensor<2x2x1xf32>, tensor<2x2x1xf32>) blocks([128, 128]) outs(%o : tensor<?x40xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x200xf8E4M3FN> -> tensor<?x40xf32>
  return
}

// -----

func.func @scale_type(%x: tensor<?x200xf8E4M3FN>, %e: tensor<3xi32>, %w: tensor<2x200x40xf8E4M3FN>, %o: tensor<?x40xf32>, %a: tensor<?x2xbf16>) {
  // expected-error @+1 {{must be 2-D tensor or memref of f32, but got 'tensor<?x2xbf16>'}}
  %y = moe.grouped_matmul %x offsets(%e : tensor<3xi32>) weights(%w : tensor<2x200x40xf8E4M3FN>) lhs_scales(%a : tensor<?x2xbf16>) blocks([128, 128]) outs(%o : tensor<?x40xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x200xf8E4M3FN> -> tensor<?x40xf32>
  return
}

// -----

func.func @wide_weights(%x: tensor<?x200xf8E4M3FN>, %e: tensor<3xi32>, %w: tensor<2x200x40xbf16>, %o: tensor<?x40xf32>) {
  // expected-error @+1 {{expected weights of the type of the rows, 'f8E4M3FN', got 'bf16'}}
  %y = moe.grouped_matmul %x offsets(%e : tensor<3xi32>) weights(%w : tensor<2x200x40xbf16>) outs(%o : tensor<?x40xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x200xf8E4M3FN> -> tensor<?x40xf32>
  return
}

// -----

func.func @packed(%x: tensor<?x200xf32>, %e: tensor<3xi32>, %w: tensor<2x1x200x64x1xf32>, %o: tensor<?x40xf32>, %a: tensor<?x2xf32>) {
  // expected-error @+1 {{expected no scales with packed weights}}
  %y = moe.grouped_matmul %x offsets(%e : tensor<3xi32>) weights(%w : tensor<2x1x200x64x1xf32>) panels(<matmuls = 1, columns = 64, depth = 1>) lhs_scales(%a : tensor<?x2xf32>) blocks([128, 128]) outs(%o : tensor<?x40xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x200xf32> -> tensor<?x40xf32>
  return
}
