// RUN: moe-opt %s -split-input-file -verify-diagnostics

func.func @counters_used(%x: tensor<4xf32>, %counters: tensor<64xi32>) -> tensor<64xi32> {
  // expected-error @+1 {{expected counters without other uses}}
  %result = moe.fused counters(%counters : tensor<64xi32>) {
    moe.yield %x : tensor<4xf32>
  } -> tensor<4xf32>
  return %counters : tensor<64xi32>
}

// -----

func.func @type(%x: tensor<4xf32>) {
  %result = moe.fused {
    // expected-error @+1 {{expected to yield 'tensor<5xf32>', got 'tensor<4xf32>'}}
    moe.yield %x : tensor<4xf32>
  } -> tensor<5xf32>
  return
}

// -----

func.func @count(%x: tensor<4xf32>) {
  %result = moe.fused {
    // expected-error @+1 {{expected to yield 'tensor<4xf32>', got 'tensor<4xf32>', 'tensor<4xf32>'}}
    moe.yield %x, %x : tensor<4xf32>, tensor<4xf32>
  } -> tensor<4xf32>
  return
}

// -----

func.func @terminator(%x: tensor<4xf32>) {
  // expected-error @+1 {{expected a region that ends with moe.yield, got llvm.unreachable}}
  %result = moe.fused {
    llvm.unreachable
  } -> tensor<4xf32>
  return
}

// -----

// An epilogue yields one element.
func.func @epilogue(%x: tensor<?x64xf32>, %w: tensor<1x64x8xf32>, %e: tensor<?x8xf32>) {
  %l = moe.grouped_matmul %x weights(%w : tensor<1x64x8xf32>) outs(%e : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    // expected-error @+1 {{expected to yield 'f32', got 'f32', 'f32'}}
    moe.yield %s, %s : f32, f32
  } : tensor<?x64xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @nothing(%x: tensor<?x64xf32>, %w: tensor<1x64x8xf32>, %e: tensor<?x8xf32>) {
  %l = moe.grouped_matmul %x weights(%w : tensor<1x64x8xf32>) outs(%e : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    // expected-error @+1 {{expected to yield 'f32', got nothing}}
    "moe.yield"() : () -> ()
  } : tensor<?x64xf32> -> tensor<?x8xf32>
  return
}
