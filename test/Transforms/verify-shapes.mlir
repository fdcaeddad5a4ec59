// RUN: moe-opt %s -moe-verify-shapes -split-input-file -verify-diagnostics
// RUN: not moe-opt %s -moe-reference -split-input-file -o /dev/null 2>&1 | FileCheck %s
// RUN: not moe-opt %s -moe-cpu -split-input-file -o /dev/null 2>&1 | FileCheck %s
// RUN: not moe-opt %s -moe-gpu -split-input-file -o /dev/null 2>&1 | FileCheck %s
// RUN: not moe-opt %s -moe-fuse -split-input-file -o /dev/null 2>&1 | FileCheck %s --check-prefix=FUSE

// Every pipeline says so before it lowers anything.
// CHECK-COUNT-7: error: 'linalg.{{.*}}' op expected dimension
// FUSE-COUNT-6: error: 'linalg.{{.*}}' op expected dimension

func.func @inner(%x: tensor<?x17xf32>, %w: tensor<32x8xf32>, %y: tensor<?x8xf32>) -> tensor<?x8xf32> {
  // expected-error @+1 {{expected dimension 0 of operand #1 to have the extent 17 that operand #0 has, got 32}}
  %z = linalg.matmul ins(%x, %w : tensor<?x17xf32>, tensor<32x8xf32>) outs(%y : tensor<?x8xf32>) -> tensor<?x8xf32>
  return %z : tensor<?x8xf32>
}

// -----

func.func @outer(%x: tensor<?x4xf32>, %w: tensor<4x8xf32>, %y: tensor<?x9xf32>) -> tensor<?x9xf32> {
  // expected-error @+1 {{expected dimension 1 of operand #2 to have the extent 8 that operand #1 has, got 9}}
  %z = linalg.matmul ins(%x, %w : tensor<?x4xf32>, tensor<4x8xf32>) outs(%y : tensor<?x9xf32>) -> tensor<?x9xf32>
  return %z : tensor<?x9xf32>
}

// -----

// In an expert, in a branch.
func.func @nested(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %w: tensor<2x5x4xf32>, %f: tensor<2xi1>) -> tensor<?x4xf32> {
  %y = moe.expert %x, %o params(%w, %f : tensor<2x5x4xf32>, tensor<2xi1>) {
  ^bb0(%r: tensor<?x4xf32>, %v: tensor<5x4xf32>, %fe: tensor<i1>):
    %c = tensor.extract %fe[] : tensor<i1>
    %z = scf.if %c -> tensor<?x4xf32> {
      // expected-error @+1 {{expected dimension 0 of operand #1 to have the extent 4 that operand #0 has, got 5}}
      %p = linalg.matmul ins(%r, %v : tensor<?x4xf32>, tensor<5x4xf32>) outs(%r : tensor<?x4xf32>) -> tensor<?x4xf32>
      scf.yield %p : tensor<?x4xf32>
    } else {
      scf.yield %r : tensor<?x4xf32>
    }
    moe.yield %z : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// -----

func.func @elementwise(%x: tensor<?x4xf32>, %b: tensor<5xf32>) -> tensor<?x4xf32> {
  // expected-error @+1 {{expected dimension 0 of operand #1 to have the extent 4 that operand #0 has, got 5}}
  %y = linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (j)>, affine_map<(i, j) -> (i, j)>], iterator_types = ["parallel", "parallel"]}
      ins(%x, %b : tensor<?x4xf32>, tensor<5xf32>) outs(%x : tensor<?x4xf32>) {
  ^bb0(%a: f32, %c: f32, %old: f32):
    %m = arith.addf %a, %c : f32
    linalg.yield %m : f32
  } -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// -----

// A window that goes beyond the end, and blocks of scales that are too few.
func.func @window(%x: tensor<?x2x6xf32>, %w: tensor<3x2x3xf32>, %y: tensor<?x3x5xf32>) -> tensor<?x3x5xf32> {
  // expected-error @+1 {{expected dimension 2 of operand #0 to have an extent of at least 7, got 6}}
  %z = linalg.conv_1d_ncw_fcw ins(%x, %w : tensor<?x2x6xf32>, tensor<3x2x3xf32>) outs(%y : tensor<?x3x5xf32>) -> tensor<?x3x5xf32>
  return %z : tensor<?x3x5xf32>
}

// -----

func.func @blocks(%x: tensor<?x9xf32>, %s: tensor<?x2xf32>) -> tensor<?x9xf32> {
  // expected-error @+1 {{expected dimension 1 of operand #1 to have an extent of at least 3, got 2}}
  %y = linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i, j floordiv 4)>, affine_map<(i, j) -> (i, j)>], iterator_types = ["parallel", "parallel"]}
      ins(%x, %s : tensor<?x9xf32>, tensor<?x2xf32>) outs(%x : tensor<?x9xf32>) {
  ^bb0(%a: f32, %c: f32, %old: f32):
    %m = arith.mulf %a, %c : f32
    linalg.yield %m : f32
  } -> tensor<?x9xf32>
  return %y : tensor<?x9xf32>
}

// -----

// What may fit is no error.
func.func @fits(%x: tensor<?x9xf32>, %s: tensor<?x3xf32>, %w: tensor<9x?xf32>, %y: tensor<?x8xf32>) -> (tensor<?x9xf32>, tensor<?x8xf32>) {
  %z = linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i, j floordiv 4)>, affine_map<(i, j) -> (i, j)>], iterator_types = ["parallel", "parallel"]}
      ins(%x, %s : tensor<?x9xf32>, tensor<?x3xf32>) outs(%x : tensor<?x9xf32>) {
  ^bb0(%a: f32, %c: f32, %old: f32):
    %m = arith.mulf %a, %c : f32
    linalg.yield %m : f32
  } -> tensor<?x9xf32>
  %p = linalg.matmul ins(%x, %w : tensor<?x9xf32>, tensor<9x?xf32>) outs(%y : tensor<?x8xf32>) -> tensor<?x8xf32>
  return %z, %p : tensor<?x9xf32>, tensor<?x8xf32>
}

// -----

// Known only after a cast is folded.
func.func @cast(%x: tensor<?x4xf32>, %w: tensor<5x8xf32>, %y: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %v = tensor.cast %w : tensor<5x8xf32> to tensor<?x8xf32>
  %z = linalg.matmul ins(%x, %v : tensor<?x4xf32>, tensor<?x8xf32>) outs(%y : tensor<?x8xf32>) -> tensor<?x8xf32>
  return %z : tensor<?x8xf32>
}
