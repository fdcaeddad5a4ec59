// RUN: moe-opt %s -moe-reference -split-input-file -verify-diagnostics
// RUN: moe-opt %s -moe-cpu -split-input-file -verify-diagnostics
// RUN: moe-opt %s -moe-gpu -split-input-file -verify-diagnostics
// RUN: moe-opt %s -moe-reference-to-buffers -split-input-file -verify-diagnostics

// What no pipeline lowers is an error with its name and place.

func.func @complex(%x: tensor<?x4xf32>) -> tensor<?x4xf32> {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x4xf32>
  %e = tensor.empty(%n) : tensor<?x4xf32>
  %y = linalg.map ins(%x : tensor<?x4xf32>) outs(%e : tensor<?x4xf32>) (%v: f32, %old: f32) {
    // expected-error @+1 {{'complex.create' op was not lowered; expected only operations of 'arith', 'cf'}}
    %c = complex.create %v, %v : complex<f32>
    %d = complex.mul %c, %c : complex<f32>
    %r = complex.re %d : complex<f32>
    linalg.yield %r : f32
  }
  return %y : tensor<?x4xf32>
}
