// RUN: moe-opt %s -moe-export -moe-chunk-tokens=chunk=16 | FileCheck %s

// Each row is quantized by itself, so a chunk of them can be.
// CHECK-LABEL: func.func @layer(
// CHECK:         scf.for
// CHECK:           %[[ROWS:.*]] = tensor.extract_slice
// CHECK:           moe.quantize %[[ROWS]] format(<{{.*}}block = [1, 32]>]>) : tensor<?x64xbf16>
func.func @layer(%x: tensor<?x64xbf16>) -> tensor<?x2xf32> {
  %q, %s = moe.quantize %x format(<codes = <element = f8E4M3FN>, scales = [#moe.field<element = f32, operand = 1, block = [1, 32]>]>)
      : tensor<?x64xbf16> -> tensor<?x64xf8E4M3FN>, tensor<?x2xf32>
  return %s : tensor<?x2xf32>
}
