// RUN: moe-opt %s | moe-opt | FileCheck %s
// RUN: moe-opt %s -resolve-shaped-type-result-dims -canonicalize | FileCheck %s --check-prefix=DIMS

// CHECK-LABEL: func.func @rows(
// CHECK:         %[[Q:quantized]], %[[S:scales]] = moe.quantize %{{.*}} block(128) : tensor<?x320xbf16>
// CHECK:         return %[[Q]], %[[S]] : tensor<?x320xf8E4M3FN>, tensor<?x3xf32>
func.func @rows(%x: tensor<?x320xbf16>) -> (tensor<?x320xf8E4M3FN>, tensor<?x3xf32>) {
  %q, %s = moe.quantize %x block(128) : tensor<?x320xbf16>
  return %q, %s : tensor<?x320xf8E4M3FN>, tensor<?x3xf32>
}

// DIMS-LABEL: func.func @dims(
// DIMS-SAME:    %[[X:.*]]: tensor<?x320xf32>)
// DIMS:         %[[DIM:.*]] = tensor.dim %[[X]], %c0
// DIMS:         return %[[DIM]] : index
func.func @dims(%x: tensor<?x320xf32>) -> index {
  %q, %s = moe.quantize %x block(64) : tensor<?x320xf32>
  %c0 = arith.constant 0 : index
  %d = tensor.dim %s, %c0 : tensor<?x5xf32>
  return %d : index
}
