// RUN: moe-opt %s -moe-gpu-to-buffers -split-input-file -o %t.mlir
// RUN: FileCheck %s --input-file=%t.mlir
// RUN: moe-opt %s -moe-gpu-to-buffers -split-input-file -o /dev/null --remarks-filter-missed=moe-gpu 2>&1 | FileCheck %s --check-prefix=MISSED

// What no kernel fits goes by way of linalg and becomes kernels of loops.

// Products in f32 have no tensor cores: a thread for each element of the result.
// MISSED:       'moe.grouped_matmul' not lowered to a GPU kernel
// CHECK:        gpu.func @[[FILL:.*]](%{{.*}}) kernel attributes {known_block_size = array<i32: 256, 1, 1>}
// CHECK:          scf.for
// CHECK:            scf.for
// CHECK:              arith.mulf
// CHECK:              arith.addf
// CHECK:        func.func @f32(
// CHECK-NOT:      memref.{{load|store}}
// CHECK:          moe_rt.launch
// CHECK:          return
func.func @f32(%x: tensor<?x24xf32>, %w: tensor<24x16xf32> {moe.role = "weight", moe.name = "w"}) -> tensor<?x16xf32> {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %t = tensor.dim %x, %c0 : tensor<?x24xf32>
  %e = tensor.empty(%t) : tensor<?x16xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x16xf32>) -> tensor<?x16xf32>
  %y = linalg.matmul ins(%x, %w : tensor<?x24xf32>, tensor<24x16xf32>) outs(%f : tensor<?x16xf32>) -> tensor<?x16xf32>
  return %y : tensor<?x16xf32>
}

// -----

// Scores over tokens are reductions of columns, and the choice of each token a loop.
// MISSED:       'moe.gate' not lowered to a GPU kernel: score_axis(tokens)
// CHECK:        func.func @tokens(
// CHECK-NOT:      memref.{{load|store}}
// CHECK:          moe_rt.launch
// CHECK:          return
func.func @tokens(%l: tensor<?x8xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>) {
  %w, %i = moe.gate %l top_k(2) score_axis(tokens) : tensor<?x8xf32>
  return %w, %i : tensor<?x2xf32>, tensor<?x2xi32>
}

// -----

// A constant is written on the device; a loop around it is one of one thread.
// CHECK:        gpu.func @loop(
// CHECK:        func.func @constant(
// CHECK-NOT:      memref.{{load|store|get_global|copy}}
// CHECK:          moe_rt.launch
// CHECK:          return
func.func @constant(%x: tensor<?x3xf32>) -> tensor<?x3xf32> {
  %c0 = arith.constant 0 : index
  %scale = arith.constant dense<[1.0, 2.0, 4.0]> : tensor<3xf32>
  %t = tensor.dim %x, %c0 : tensor<?x3xf32>
  %e = tensor.empty(%t) : tensor<?x3xf32>
  %y = linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (j)>, affine_map<(i, j) -> (i, j)>], iterator_types = ["parallel", "parallel"]}
      ins(%x, %scale : tensor<?x3xf32>, tensor<3xf32>) outs(%e : tensor<?x3xf32>) {
  ^bb0(%a: f32, %s: f32, %old: f32):
    %m = arith.mulf %a, %s : f32
    linalg.yield %m : f32
  } -> tensor<?x3xf32>
  return %y : tensor<?x3xf32>
}
