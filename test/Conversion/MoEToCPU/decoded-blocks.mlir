// RUN: moe-opt %s -convert-moe-to-cpu=vector-bits=256 | FileCheck %s
// RUN: moe-opt %s -convert-moe-to-cpu="vector-bits=512 vector-registers=32 bf16-dot byte-permute" | FileCheck %s --check-prefix=DOT
// RUN: moe-opt %s -convert-moe-to-cpu="vector-bits=512 vector-registers=32" | FileCheck %s --check-prefix=WIDE

#int4 = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4>]>, offset = 8, scales = [#moe.field<element = f16, operand = 1, block = [1, 32]>]>

// A task of at least 6 rows widens its rows in blocks of 128, decodes each group of a panel and its scales, and adds
// groups to the accumulators; others decode in the kernel.
// CHECK-DAG:   func.func private @moe_kernel_groups_f32_6x2x8({{.*}} attributes {moe.kernel = [32, 0]
// CHECK-DAG:   func.func private @moe_decode_q4_2x8(%{{.*}}: index, %{{.*}}: index, %{{.*}}: memref<?xi8>, %{{.*}}: memref<?xf32>, %{{.*}}: index)
// CHECK-DAG:   func.func private @moe_factors_q4_2x8(
// CHECK-LABEL: func.func @rows(
// CHECK:         scf.if
// CHECK:           func.call @moe_kernel_q4_bf16_4x2x8(
// CHECK:         } else {
// CHECK:           arith.extf %{{.*}} : vector<8xbf16> to vector<8xf32>
// CHECK:           func.call @moe_decode_q4_2x8(
// CHECK:           func.call @moe_factors_q4_2x8(
// CHECK:           func.call @moe_kernel_groups_f32_6x2x8(

// Beside dot products this does not pay for small groups.
// DOT-NOT:     @moe_decode_q4

// WIDE-LABEL:  func.func @rows(
// WIDE:          arith.cmpi slt, %{{.*}}, %c16{{[_0-9]*}} : index
// WIDE-NEXT:     scf.if
// WIDE:          } else {
// WIDE:            func.call @moe_decode_q4_1x16(
func.func @rows(%x: memref<?x64xbf16>, %w: memref<1x2x576xi8>, %y: memref<?x32xf32>) {
  moe.grouped_matmul %x weights(%w : memref<1x2x576xi8>) panels(<matmuls = 1, columns = 16, depth = 8, format = #int4>)
      outs(%y : memref<?x32xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : memref<?x64xbf16>
  return
}

// All of k is one group: the kernel is that of bf16, and the factors follow.
// DOT-LABEL:   func.func @one_group(
// DOT:           scf.if
// DOT:           func.call @moe_kernel_q8_bf16_4x1x16_dot(
// DOT:         } else {
// DOT-NOT:       arith.extf %{{.*}} : vector<16xbf16>
// DOT:           func.call @moe_decode_q8_1x16_dot(
// DOT:           func.call @moe_kernel_bf16_6x1x16_dot(
// DOT:           vector.reduction <add>
// DOT:           func.call @moe_factors_q8_1x16_dot(
// With 16 lanes codes of a byte are decoded for fewer rows than others; f8E4M3FN for the fewest (below).
// WIDE-LABEL:  func.func @one_group(
// WIDE:          arith.cmpi slt, %{{.*}}, %c10{{[_0-9]*}} : index
// WIDE-NEXT:     scf.if
// WIDE:            func.call @moe_decode_q8_1x16
#rows = #moe.format<codes = <element = si8>, scales = [#moe.field<element = f32, operand = 1, block = [1, 512]>]>
func.func @one_group(%x: memref<?x512xbf16>, %w: memref<1x1x8256xi8>, %y: memref<?x16xf32>) {
  moe.grouped_matmul %x weights(%w : memref<1x1x8256xi8>) panels(<matmuls = 1, columns = 16, depth = 8, format = #rows>)
      outs(%y : memref<?x16xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : memref<?x512xbf16>
  return
}

// WIDE-LABEL:  func.func @floats(
// WIDE:          arith.cmpi slt, %{{.*}}, %c6{{[_0-9]*}} : index
// WIDE-NEXT:     scf.if
// WIDE:            func.call @moe_decode_q8_1x16
#fp8 = #moe.format<codes = <element = f8E4M3FN>, scales = [#moe.field<element = f32, operand = 1, block = [128, 128]>]>
func.func @floats(%x: memref<?x256xbf16>, %w: memref<1x1x4224xi8>, %y: memref<?x16xf32>) {
  moe.grouped_matmul %x weights(%w : memref<1x1x4224xi8>) panels(<matmuls = 1, columns = 16, depth = 8, format = #fp8>)
      outs(%y : memref<?x16xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : memref<?x256xbf16>
  return
}
