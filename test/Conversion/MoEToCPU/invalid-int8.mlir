// RUN: moe-opt %s -convert-moe-to-cpu="vector-bits=256" -split-input-file -verify-diagnostics

#q48 = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4>]>, offset = 8,
                   scales = [#moe.field<element = f16, operand = 1, block = [1, 48]>]>

func.func @group_of_48(%x: memref<?x144xi8>, %w: memref<1x1x3328xi8>, %y: memref<?x50xf32>) {
  // expected-error @+1 {{expected a format that kernels of this processor multiply with rows of i8, got #moe.format<}}
  moe.grouped_matmul %x weights(%w : memref<1x1x3328xi8>) panels(<matmuls = 1, columns = 64, depth = 8, format = #q48>)
      outs(%y : memref<?x50xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : memref<?x144xi8>
  return
}
