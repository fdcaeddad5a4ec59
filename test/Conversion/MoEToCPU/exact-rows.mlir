// RUN: moe-opt %s -convert-moe-to-cpu="vector-bits=512 vector-registers=32" | FileCheck %s
// RUN: moe-opt %s -convert-moe-to-cpu="vector-bits=512 vector-registers=32 bf16-dot=true" | FileCheck %s --check-prefix=DOT

#zero = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4>]>,
                    scales = [#moe.field<element = f16, operand = 1, block = [1, 32]>],
                    zero = #moe.field<element = ui8, operand = 2, block = [1, 32]>>

// A row of a panel with a NaN is computed again: each weight less its minimum, times the element.
// CHECK-LABEL: func.func private @moe_exact_q4_bf16_1x4x16(
// CHECK:         scf.for
// CHECK:           arith.negf
// CHECK:           scf.for
// CHECK:             %[[W:.*]] = vector.fma %{{.*}}, %{{.*}}, %{{.*}} : vector<16xf32>
// CHECK-NEXT:        vector.fma %{{.*}}, %[[W]], %{{.*}} : vector<16xf32>
// Both elements of a pair, with the values of bf16 in the high halves of words.
// DOT-LABEL: func.func private @moe_exact_q4_bf16_1x4x16_dot(
// DOT:         arith.shli {{.*}} : vector<16xi32>
// DOT:         vector.fma
// DOT:         arith.andi {{.*}} : vector<16xi32>
// CHECK-LABEL: func.func @subtracted(
// CHECK:         scf.index_switch
// CHECK-COUNT-4: arith.cmpf uno
// CHECK:         %[[IS_NAN:.*]] = vector.reduction <or>, %{{.*}} : vector<16xi1> into i1
// CHECK:         scf.if %[[IS_NAN]] {
// CHECK:           func.call @moe_exact_q4_bf16_1x4x16(
func.func @subtracted(%x: memref<?x64xbf16>, %w: memref<1x1x2432xi8>, %y: memref<?x50xf32>) {
  moe.grouped_matmul %x weights(%w : memref<1x1x2432xi8>) panels(<matmuls = 1, columns = 64, depth = 8, format = #zero>)
      outs(%y : memref<?x50xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : memref<?x64xbf16>
  return
}

#scaled = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4>]>, offset = 8,
                      scales = [#moe.field<element = f16, operand = 1, block = [1, 32]>]>

// Where nothing is subtracted, no difference of infinities arises.
// CHECK-LABEL: func.func @scaled(
// CHECK-NOT:     arith.cmpf uno
// CHECK-NOT:     @moe_exact
// CHECK:         return
func.func @scaled(%x: memref<?x64xbf16>, %w: memref<1x1x2304xi8>, %y: memref<?x50xf32>) {
  moe.grouped_matmul %x weights(%w : memref<1x1x2304xi8>) panels(<matmuls = 1, columns = 64, depth = 8, format = #scaled>)
      outs(%y : memref<?x50xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : memref<?x64xbf16>
  return
}
