// RUN: moe-opt %s -moe-export -moe-chunk-tokens=chunk=16 | FileCheck %s

// Each row is quantized by itself, so a chunk of them can be.
// CHECK-LABEL: func.func @layer(
// CHECK:         scf.for
// CHECK:           %[[ROWS:.*]] = tensor.extract_slice
// CHECK:           moe.quantize %[[ROWS]] block(32) : tensor<?x64xbf16>
func.func @layer(%x: tensor<?x64xbf16>) -> tensor<?x2xf32> {
  %q, %s = moe.quantize %x block(32) : tensor<?x64xbf16>
  return %s : tensor<?x2xf32>
}
