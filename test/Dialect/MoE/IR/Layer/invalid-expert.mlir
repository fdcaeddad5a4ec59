// RUN: moe-opt %s -split-input-file -verify-diagnostics

//===----------------------------------------------------------------------===//
// Offsets and the range of experts
//===----------------------------------------------------------------------===//

func.func @dynamic_offsets(%g: tensor<?x4xf32>, %o: tensor<?xi32>) {
  // expected-error @+1 {{expected static offsets of at least 2, one more than experts, got 'tensor<?xi32>'}}
  %y = moe.expert %g, %o {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<?xi32> -> tensor<?x4xf32>
  return
}

// -----

func.func @no_experts(%g: tensor<?x4xf32>, %o: tensor<1xi32>) {
  // expected-error @+1 {{expected static offsets of at least 2, one more than experts, got 'tensor<1xi32>'}}
  %y = moe.expert %g, %o {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<1xi32> -> tensor<?x4xf32>
  return
}

// -----

func.func @first(%g: tensor<?x4xf32>, %o: tensor<3xi32>) {
  // expected-error @+1 {{expected first between 0 and 1, got 2}}
  %y = moe.expert %g, %o first(2) {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return
}

// -----

func.func @first_negative(%g: tensor<?x4xf32>, %o: tensor<3xi32>) {
  // expected-error @+1 {{expected first between 0 and 1, got -9223372036854775808}}
  %y = moe.expert %g, %o first(-9223372036854775808) {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return
}

// -----

func.func @count(%g: tensor<?x4xf32>, %o: tensor<3xi32>) {
  // expected-error @+1 {{expected count between 1 and 1, got 2}}
  %y = moe.expert %g, %o first(1) count(2) {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return
}

// -----

func.func @count_zero(%g: tensor<?x4xf32>, %o: tensor<3xi32>) {
  // expected-error @+1 {{expected count between 1 and 2, got 0}}
  %y = moe.expert %g, %o count(0) {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return
}

// -----

//===----------------------------------------------------------------------===//
// Operands and result
//===----------------------------------------------------------------------===//

func.func @param_of_all(%g: tensor<?x4xf32>, %o: tensor<3xi32>, %w: tensor<2x4xf32>) {
  // expected-error @+1 {{expected parameter 0 with a leading dimension of 1, one slice for each expert, got 'tensor<2x4xf32>'}}
  %y = moe.expert %g, %o params(%w : tensor<2x4xf32>) first(1) {
  ^bb0(%r: tensor<?x4xf32>, %p: tensor<4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return
}

// -----

func.func @param_dynamic(%g: tensor<?x4xf32>, %o: tensor<3xi32>, %v: tensor<2xf32>, %w: tensor<?x4xf32>) {
  // expected-error @+1 {{expected parameter 1 with a leading dimension of 2, one slice for each expert, got 'tensor<?x4xf32>'}}
  %y = moe.expert %g, %o params(%v, %w : tensor<2xf32>, tensor<?x4xf32>) {
  ^bb0(%r: tensor<?x4xf32>, %q: tensor<f32>, %p: tensor<4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return
}

// -----

func.func @param_scalar(%g: tensor<?x4xf32>, %o: tensor<2xi32>, %w: tensor<f32>) {
  // expected-error @+1 {{expected parameter 0 with a leading dimension of 1, one slice for each expert, got 'tensor<f32>'}}
  %y = moe.expert %g, %o params(%w : tensor<f32>) {
  ^bb0(%r: tensor<?x4xf32>, %p: tensor<f32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<2xi32> -> tensor<?x4xf32>
  return
}

// -----

func.func @rows(%g: tensor<6x4xf32>, %o: tensor<3xi32>) {
  // expected-error @+1 {{expected as many rows out as in, 6, got 5}}
  %y = moe.expert %g, %o {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<6x4xf32>, tensor<3xi32> -> tensor<5x4xf32>
  return
}

// -----

func.func @columns(%g: tensor<?x?xf32>, %o: tensor<3xi32>) {
  // expected-error @+1 {{expected a result with static columns, got 'tensor<?x?xf32>'}}
  %y = moe.expert %g, %o {
  ^bb0(%r: tensor<?x?xf32>):
    moe.yield %r : tensor<?x?xf32>
  } : tensor<?x?xf32>, tensor<3xi32> -> tensor<?x?xf32>
  return
}

// -----

func.func @init_type(%g: tensor<?x4xf32>, %o: tensor<3xi32>, %i: tensor<?x4xf16>) {
  // expected-error @+1 {{expected init of the type of the result, 'tensor<?x4xf32>', got 'tensor<?x4xf16>'}}
  %y = moe.expert %g, %o init(%i : tensor<?x4xf16>) {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return
}

// -----

func.func @init_and_zero(%g: tensor<?x4xf32>, %o: tensor<3xi32>) {
  // expected-error @+1 {{init already says what the uncovered rows are; uncovered(zero) contradicts it}}
  %y = moe.expert %g, %o init(%g : tensor<?x4xf32>) uncovered(zero) {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return
}

// -----

//===----------------------------------------------------------------------===//
// The region
//===----------------------------------------------------------------------===//

func.func @empty_region(%g: tensor<?x4xf32>, %o: tensor<3xi32>) {
  // expected-error @+1 {{expects a non-empty block}}
  %y = moe.expert %g, %o {
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return
}

// -----

func.func @two_blocks(%g: tensor<?x4xf32>, %o: tensor<3xi32>) {
  // expected-error @+1 {{expects region #0 to have 0 or 1 blocks}}
  %y = moe.expert %g, %o {
  ^bb0(%r: tensor<?x4xf32>):
    cf.br ^bb1
  ^bb1:
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return
}

// -----

func.func @arguments(%g: tensor<?x4xf32>, %o: tensor<3xi32>, %w: tensor<2x4xf32>) {
  // expected-error @+1 {{expected a region with 2 arguments, the rows and a slice of each parameter, got 1}}
  %y = moe.expert %g, %o params(%w : tensor<2x4xf32>) {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return
}

// -----

func.func @static_rows(%g: tensor<6x4xf32>, %o: tensor<3xi32>, %x: tensor<?x4xf32>) {
  // expected-error @+1 {{expected the rows in the region to be 'tensor<?x4xf32>', got 'tensor<6x4xf32>'}}
  %y = moe.expert %g, %o {
  ^bb0(%r: tensor<6x4xf32>):
    moe.yield %x : tensor<?x4xf32>
  } : tensor<6x4xf32>, tensor<3xi32> -> tensor<6x4xf32>
  return
}

// -----

func.func @slice(%g: tensor<?x4xf32>, %o: tensor<3xi32>, %w: tensor<2x4x5xf32>) {
  // expected-error @+1 {{expected the slice of parameter 0 in the region to be 'tensor<4x5xf32>', got 'tensor<2x4x5xf32>'}}
  %y = moe.expert %g, %o params(%w : tensor<2x4x5xf32>) {
  ^bb0(%r: tensor<?x4xf32>, %p: tensor<2x4x5xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return
}

// -----

func.func @terminator(%g: tensor<?x4xf32>, %o: tensor<3xi32>) {
  // expected-error @+1 {{expected a region that ends with moe.yield, got llvm.unreachable}}
  %y = moe.expert %g, %o {
  ^bb0(%r: tensor<?x4xf32>):
    llvm.unreachable
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return
}

// -----

func.func @yielded(%g: tensor<?x4xf32>, %o: tensor<3xi32>) {
  %y = moe.expert %g, %o {
  ^bb0(%r: tensor<?x4xf32>):
    // expected-error @+1 {{expected to yield 'tensor<?x5xf32>', got 'tensor<?x4xf32>'}}
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x5xf32>
  return
}

// -----

func.func @yielded_static(%g: tensor<6x4xf32>, %o: tensor<3xi32>, %x: tensor<6x4xf32>) {
  %y = moe.expert %g, %o {
  ^bb0(%r: tensor<?x4xf32>):
    // expected-error @+1 {{expected to yield 'tensor<?x4xf32>', got 'tensor<6x4xf32>'}}
    moe.yield %x : tensor<6x4xf32>
  } : tensor<6x4xf32>, tensor<3xi32> -> tensor<6x4xf32>
  return
}

// -----

func.func @yield_elsewhere(%x: tensor<?x4xf32>) {
  // expected-error @+1 {{expects parent op to be one of 'moe.expert, moe.grouped_matmul, moe.fused'}}
  moe.yield %x : tensor<?x4xf32>
}
