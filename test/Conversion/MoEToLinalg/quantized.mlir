// RUN: moe-opt %s -convert-moe-to-linalg -canonicalize -cse | FileCheck %s --check-prefixes=CHECK,LINALG
// RUN: moe-opt %s -convert-moe-routing-to-linalg -canonicalize -cse | FileCheck %s --check-prefixes=CHECK,KERNEL

// Grouped matmuls of 8-bit operands are lowered even where others are left to kernels.

// CHECK-DAG:   #[[STEPS:.*]] = affine_map<(d0, d1, d2) -> (d2)>
// CHECK-DAG:   #[[SUMS:.*]] = affine_map<(d0, d1, d2) -> (d0, d1)>

// CHECK-LABEL: func.func @scaled(
// CHECK-SAME:    %[[X:[^:]*]]: tensor<?x200xf8E4M3FN>, %[[XS:[^:]*]]: tensor<?x2xf32>, %[[W:[^:]*]]: tensor<1x40x200xf8E4M3FN>, %[[WS:[^:]*]]: tensor<1x3x2xf32>
// The sum of the blocks that are complete, and that of the one at work.
// CHECK:         linalg.generic {indexing_maps = [#[[STEPS]], #[[SUMS]], #[[SUMS]]], iterator_types = ["parallel", "parallel", "reduction"]}
// CHECK:         ^bb0(%{{.*}}: f32, %[[SUM:.*]]: f32, %[[BLOCK:.*]]: f32):
// CHECK:           %[[A:.*]] = tensor.extract %[[X]]
// CHECK:           %[[AF:.*]] = arith.extf %[[A]] : f8E4M3FN to f32
// CHECK:           %[[B:.*]] = tensor.extract %[[W]]
// CHECK:           %[[BF:.*]] = arith.extf %[[B]] : f8E4M3FN to f32
// CHECK:           %[[TERM:.*]] = arith.mulf %[[AF]], %[[BF]]
// CHECK:           %[[NEXT:.*]] = arith.addf %[[BLOCK]], %[[TERM]]
// CHECK:           %[[KB:.*]] = arith.divui %{{.*}}, %c128
// CHECK:           %[[S:.*]] = tensor.extract %[[XS]][%{{.*}}, %[[KB]]]
// CHECK:           %[[NB:.*]] = arith.divui %{{.*}}, %c16
// CHECK:           %[[T:.*]] = tensor.extract %[[WS]][%{{.*}}, %[[NB]], %[[KB]]]
// CHECK:           %[[SCALE:.*]] = arith.mulf %[[S]], %[[T]]
// CHECK:           %[[SCALED:.*]] = arith.mulf %[[NEXT]], %[[SCALE]]
// CHECK:           %[[ENDS:.*]] = arith.ori
// CHECK:           %[[TOTAL:.*]] = arith.addf %[[SUM]], %[[SCALED]]
// CHECK:           %[[R0:.*]] = arith.select %[[ENDS]], %[[TOTAL]], %[[SUM]]
// CHECK:           %[[R1:.*]] = arith.select %[[ENDS]], %{{.*}}, %[[NEXT]]
// CHECK:           linalg.yield %[[R0]], %[[R1]]
func.func @scaled(%x: tensor<?x200xf8E4M3FN>, %xs: tensor<?x2xf32>, %w: tensor<1x40x200xf8E4M3FN>,
                  %ws: tensor<1x3x2xf32>, %init: tensor<?x40xf32>) -> tensor<?x40xf32> {
  %y = moe.grouped_matmul %x weights(%w : tensor<1x40x200xf8E4M3FN>) transposed
      lhs_scales(%xs : tensor<?x2xf32>) weight_scales(%ws : tensor<1x3x2xf32>) blocks([128, 16])
      outs(%init : tensor<?x40xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x200xf8E4M3FN> -> tensor<?x40xf32>
  return %y : tensor<?x40xf32>
}

// CHECK-LABEL: func.func @quantize(
// LINALG:        math.absf
// LINALG:        arith.maximumf
// LINALG:        arith.divf %{{.*}}, %[[LARGEST:cst[_0-9]*]] : f32
// LINALG:        arith.cmpf oeq, %[[SCALE:.*]], %{{.*}} : f32
// LINALG:        arith.select
// LINALG:        arith.divf
// LINALG:        arith.minimumf %{{.*}}, %[[LARGEST]]
// LINALG:        arith.maximumf
// LINALG:        arith.truncf %{{.*}} : f32 to f8E4M3FN
// KERNEL:        %[[Q:.*]] = tensor.empty(%{{.*}}) : tensor<?x200xf8E4M3FN>
// KERNEL:        %[[S:.*]] = tensor.empty(%{{.*}}) : tensor<?x2xf32>
// KERNEL:        moe.round_matrices %{{.*}} outs(%[[Q]], %[[S]] :
func.func @quantize(%x: tensor<?x200xbf16>) -> (tensor<?x200xf8E4M3FN>, tensor<?x2xf32>) {
  %q, %s = moe.quantize %x format(<codes = <element = f8E4M3FN>, scales = [#moe.field<element = f32, operand = 1, block = [1, 128]>]>)
      : tensor<?x200xbf16> -> tensor<?x200xf8E4M3FN>, tensor<?x2xf32>
  return %q, %s : tensor<?x200xf8E4M3FN>, tensor<?x2xf32>
}

// Codes that the kernel does not round.
// CHECK-LABEL: func.func @five_bits(
// CHECK-NOT:     moe.
// CHECK:         math.sqrt
func.func @five_bits(%w: tensor<2x8x64xf32>, %init: tensor<2xf32>) -> tensor<2xf32> {
  %e = moe.round_matrices %w format(<codes = <element = si5, bits = [#moe.bits<width = 5>]>, scales = [#moe.field<element = f32, operand = 1, block = [1, 64]>]>)
      outs(%init : tensor<2xf32>) : tensor<2x8x64xf32> -> tensor<2xf32>
  return %e : tensor<2xf32>
}
