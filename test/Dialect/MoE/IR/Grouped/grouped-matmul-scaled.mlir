// RUN: moe-opt %s | moe-opt | FileCheck %s
// RUN: moe-opt %s -mlir-print-op-generic | moe-opt | FileCheck %s
// RUN: moe-opt %s -one-shot-bufferize=bufferize-function-boundaries | FileCheck %s --check-prefix=BUFFERS

// CHECK-LABEL: func.func @both(
// CHECK:         moe.grouped_matmul %{{.*}} gather(%{{.*}} : tensor<?xi32>) offsets(%{{.*}} : tensor<3xi32>)
// CHECK-SAME:      weights(%{{.*}}, %{{.*}} : tensor<2x40x200xf8E4M3FN>, tensor<2x40x200xf8E4M3FN>) transposed
// CHECK-SAME:      lhs_scales(%{{.*}} : tensor<?x2xf32>)
// CHECK-SAME:      weight_scales(%{{.*}}, %{{.*}} : tensor<2x3x2xf32>, tensor<2x3x2xf32>) blocks([128, 16])
// CHECK-SAME:      outs(%{{.*}} : tensor<?x40xbf16>)
// BUFFERS-LABEL: func.func @both(
// BUFFERS:         moe.grouped_matmul
// BUFFERS-SAME:      lhs_scales(%{{[^)]*}} : memref<?x2xf32
// BUFFERS-SAME:      weight_scales(%{{.*}}, %{{.*}} : memref<2x3x2xf32
// BUFFERS-SAME:      blocks([128, 16])
func.func @both(%x: tensor<?x200xf8E4M3FN>, %xs: tensor<?x2xf32>, %g: tensor<?xi32>,
                %offsets: tensor<3xi32>, %w: tensor<2x40x200xf8E4M3FN>, %ws: tensor<2x3x2xf32>,
                %init: tensor<?x40xbf16>) -> tensor<?x40xbf16> {
  %y = moe.grouped_matmul %x gather(%g : tensor<?xi32>) offsets(%offsets : tensor<3xi32>)
      weights(%w, %w : tensor<2x40x200xf8E4M3FN>, tensor<2x40x200xf8E4M3FN>) transposed
      lhs_scales(%xs : tensor<?x2xf32>)
      weight_scales(%ws, %ws : tensor<2x3x2xf32>, tensor<2x3x2xf32>) blocks([128, 16])
      outs(%init : tensor<?x40xbf16>) {
  ^bb0(%s: f32, %t: f32):
    %p = arith.mulf %s, %t : f32
    %r = arith.truncf %p : f32 to bf16
    moe.yield %r : bf16
  } : tensor<?x200xf8E4M3FN> -> tensor<?x40xbf16>
  return %y : tensor<?x40xbf16>
}

// Weights alone, not transposed: scales lie as weights do.
// CHECK-LABEL: func.func @weights(
// CHECK-NOT:     lhs_scales
// CHECK:         weight_scales(%{{.*}} : tensor<1x2x3xf32>) blocks([128, 16])
func.func @weights(%x: tensor<?x200xf16>, %w: tensor<1x200x40xf8E4M3FN>, %ws: tensor<1x2x3xf32>,
                   %init: tensor<?x40xf32>) -> tensor<?x40xf32> {
  %y = moe.grouped_matmul %x weights(%w : tensor<1x200x40xf8E4M3FN>)
      weight_scales(%ws : tensor<1x2x3xf32>) blocks([128, 16]) outs(%init : tensor<?x40xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x200xf16> -> tensor<?x40xf32>
  return %y : tensor<?x40xf32>
}

// CHECK-LABEL: func.func @unscaled(
// CHECK-NOT:     blocks
func.func @unscaled(%x: tensor<?x8xf32>, %w: tensor<1x8x4xf8E4M3FN>, %init: tensor<?x4xf32>)
    -> tensor<?x4xf32> {
  %y = moe.grouped_matmul %x weights(%w : tensor<1x8x4xf8E4M3FN>) outs(%init : tensor<?x4xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x8xf32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}
