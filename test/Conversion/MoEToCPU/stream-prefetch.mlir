// Weights that a kernel reads from memory are prefetched a chunk ahead, from all of
// its pages side by side.
// RUN: moe-opt %s -convert-moe-to-cpu="vector-bits=512 vector-registers=32 prefetched-pages=16" | FileCheck %s
// RUN: moe-opt %s -convert-moe-to-cpu="vector-bits=512 vector-registers=32 prefetched-pages=16" | FileCheck %s --check-prefix=Q4
// RUN: moe-opt %s -convert-moe-to-cpu="vector-bits=512 vector-registers=32 prefetched-pages=16" | FileCheck %s --check-prefix=ROW
// RUN: moe-opt %s -convert-moe-to-cpu="vector-bits=512 vector-registers=32" | FileCheck %s --check-prefix=NONE

// Several rows: nothing, the own weights, or those of the next part.
// CHECK-LABEL: func.func private @moe_kernel_f32_2x4x16(
// CHECK:         scf.index_switch
// CHECK:         case 0 {
// CHECK-NOT:       memref.prefetch
// CHECK:         case -1 {
// CHECK-COUNT-16:  memref.prefetch {{.*}} locality<3>
// CHECK:         default {
// CHECK-COUNT-8:   memref.prefetch {{.*}} locality<2>

// One row: an iteration reads 4 steps of 64 columns, 16 lines, and prefetches a
// line of each of 16 pages of 1024 elements; not beyond the weights of the task.
// CHECK-LABEL: func.func private @moe_kernel_f32_1x4x16(
// CHECK-SAME:    %[[W:[a-z0-9]+]]: memref<?xf32>, %[[START:[a-z0-9]+]]: index, %{{[a-z0-9]+}}: memref<?xf32>, %{{[a-z0-9]+}}: index, %{{[a-z0-9]+}}: index, %{{[a-z0-9]+}}: index, %[[END:[a-z0-9]+]]: index
// CHECK:         scf.for
// CHECK:           %[[LAST:.*]] = arith.subi %[[END]], %c16384
// CHECK:           %[[CLAMPED:.*]] = arith.minsi %{{.*}}, %[[LAST]]
// CHECK:           arith.maxsi %[[CLAMPED]], %[[START]]
// CHECK-COUNT-16:  memref.prefetch %[[W]][%{{.*}}], read, locality<3>, data
// CHECK-NOT:       memref.prefetch
// CHECK:           vector.fma

// A group of 32 codes of 4 bits and its scales: 1152 bytes, two lines of a page.
// Q4-LABEL: func.func private @moe_kernel_q4_f32_1x4x16(
// Q4:         scf.for
// Q4-COUNT-32:  memref.prefetch {{.*}} locality<3>
// Q4-NOT:       memref.prefetch
// Q4:           vector.fma

// NONE-LABEL: func.func private @moe_kernel_f32_1x4x16(
// NONE-NOT:     memref.prefetch
// NONE:         return
func.func @dense(%x: memref<?x128xf32>, %w: memref<1x1x128x64x1xf32>, %y: memref<?x64xf32>) {
  moe.grouped_matmul %x weights(%w : memref<1x1x128x64x1xf32>) panels(<matmuls = 1, columns = 64, depth = 1>) outs(%y : memref<?x64xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : memref<?x128xf32>
  return
}

#table = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4>]>, offset = 8,
                     scales = [#moe.field<element = f16, operand = 1, block = [1, 32]>]>
func.func @quantized(%x: memref<?x128xf32>, %w: memref<1x1x4608xi8>, %y: memref<?x64xf32>) {
  moe.grouped_matmul %x weights(%w : memref<1x1x4608xi8>) panels(<matmuls = 1, columns = 64, depth = 8, format = #table>)
      outs(%y : memref<?x64xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : memref<?x128xf32>
  return
}

// A group that is a whole row is read by a loop over its steps, which prefetches: 256 bytes, four lines. A last
// group of fewer steps does so, too.
#row = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4>]>, offset = 8,
                   scales = [#moe.field<element = f16, operand = 1, block = [1, 4096]>]>
// ROW-LABEL: func.func private @moe_kernel_q4_bf16_1x4x16(
// ROW:         scf.for
// ROW-NOT:       memref.prefetch
// ROW:           scf.for
// ROW-COUNT-4:     memref.prefetch {{.*}} locality<3>
// ROW-NOT:         memref.prefetch
// ROW:         scf.if
// ROW-COUNT-4:     memref.prefetch {{.*}} locality<3>
// ROW-NOT:     memref.prefetch
// ROW:         return
func.func @rows(%x: memref<?x4096xbf16>, %w: memref<1x1x131200xi8>, %y: memref<?x64xf32>) {
  moe.grouped_matmul %x weights(%w : memref<1x1x131200xi8>) panels(<matmuls = 1, columns = 64, depth = 8, format = #row>)
      outs(%y : memref<?x64xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : memref<?x4096xbf16>
  return
}
