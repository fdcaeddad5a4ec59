// RUN: moe-opt %s -moe-dense-to-grouped | FileCheck %s

// What sums something else than x · w, or something else than floats, is no
// ordinary product.

#x = affine_map<(i, j, k) -> (i, k)>
#w = affine_map<(i, j, k) -> (k, j)>
#y = affine_map<(i, j, k) -> (i, j)>

// CHECK-LABEL: func.func @function_of_weights(
// CHECK-NOT:     moe.grouped_matmul
// CHECK:         math.exp
func.func @function_of_weights(%x: tensor<?x4xf32>, %w: tensor<4x8xf32>, %e: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %z = arith.constant 0.0 : f32
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
  %y = linalg.generic {indexing_maps = [#x, #w, #y], iterator_types = ["parallel", "parallel", "reduction"]}
    ins(%x, %w : tensor<?x4xf32>, tensor<4x8xf32>) outs(%f : tensor<?x8xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32):
    %d = math.exp %b : f32
    %m = arith.mulf %a, %d : f32
    %s = arith.addf %c, %m : f32
    linalg.yield %s : f32
  } -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// CHECK-LABEL: func.func @negated(
// CHECK-NOT:     moe.grouped_matmul
// CHECK:         arith.negf
func.func @negated(%x: tensor<?x4xf32>, %w: tensor<4x8xf32>, %e: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %z = arith.constant 0.0 : f32
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
  %y = linalg.generic {indexing_maps = [#x, #w, #y], iterator_types = ["parallel", "parallel", "reduction"]}
    ins(%x, %w : tensor<?x4xf32>, tensor<4x8xf32>) outs(%f : tensor<?x8xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32):
    %m = arith.mulf %a, %b : f32
    %n = arith.negf %m : f32
    %s = arith.addf %c, %n : f32
    linalg.yield %s : f32
  } -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// Each term is rounded to bf16 here.
// CHECK-LABEL: func.func @rounded_terms(
// CHECK-NOT:     moe.grouped_matmul
// CHECK:         arith.mulf {{.*}} : bf16
func.func @rounded_terms(%x: tensor<?x4xbf16>, %w: tensor<4x8xbf16>, %e: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %z = arith.constant 0.0 : f32
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
  %y = linalg.generic {indexing_maps = [#x, #w, #y], iterator_types = ["parallel", "parallel", "reduction"]}
    ins(%x, %w : tensor<?x4xbf16>, tensor<4x8xbf16>) outs(%f : tensor<?x8xf32>) {
  ^bb0(%a: bf16, %b: bf16, %c: f32):
    %m = arith.mulf %a, %b : bf16
    %n = arith.extf %m : bf16 to f32
    %s = arith.addf %c, %n : f32
    linalg.yield %s : f32
  } -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// CHECK-LABEL: func.func @integers(
// CHECK-NOT:     moe.grouped_matmul
// CHECK:         linalg.matmul
func.func @integers(%x: tensor<?x4xi8>, %w: tensor<4x8xi8>, %e: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %z = arith.constant 0.0 : f32
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
  %y = linalg.matmul ins(%x, %w : tensor<?x4xi8>, tensor<4x8xi8>) outs(%f : tensor<?x8xf32>) -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// CHECK-LABEL: func.func @double(
// CHECK-NOT:     moe.grouped_matmul
// CHECK:         linalg.matmul
func.func @double(%x: tensor<?x4xf64>, %w: tensor<4x8xf64>, %e: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %z = arith.constant 0.0 : f32
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
  %y = linalg.matmul ins(%x, %w : tensor<?x4xf64>, tensor<4x8xf64>) outs(%f : tensor<?x8xf32>) -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// A moe operation, so that the dialect is there.
func.func @load(%x: tensor<?x4xf32>, %p: tensor<?x2xi32>) -> tensor<?x4xf32> {
  %y = moe.combine %x, %p : tensor<?x4xf32>, tensor<?x2xi32>
  return %y : tensor<?x4xf32>
}
