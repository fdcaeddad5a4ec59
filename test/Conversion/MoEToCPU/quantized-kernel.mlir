// RUN: moe-opt %s -split-input-file -convert-moe-to-cpu="vector-bits=512 vector-registers=32 bf16-dot=true" | FileCheck %s
// RUN: moe-opt %s -split-input-file -convert-moe-to-cpu="vector-bits=256" | FileCheck %s --check-prefix=AVX2

#mxfp4 = #moe.format<codes = <element = f4E2M1FN, bits = [#moe.bits<width = 4>]>,
                     scales = [#moe.field<element = f8E8M0FNU, operand = 1, block = [1, 32]>]>

// Words of 16 bits are shifted and looked up as pairs of bf16; a scale multiplies the sum of its group.
// CHECK-LABEL: func.func private @moe_kernel_q4_bf16_1x4x16_dot(
// CHECK-SAME:    %[[X:[a-z0-9]+]]: memref<?xbf16>, %{{.*}}: memref<?xindex>, %[[W:[a-z0-9]+]]: memref<?xi8>
// CHECK:         %[[TABLE:.*]] = arith.constant dense<{{.*}}> : vector<32xi16>
// CHECK:         scf.for
// CHECK:           scf.for {{.*}} -> (vector<16xf32>, vector<16xf32>, vector<16xf32>, vector<16xf32>)
// CHECK:             vector.load %[[W]]{{.*}} : memref<?xi8>, vector<64xi8>
// CHECK:             llvm.call_intrinsic "llvm.x86.avx512.permvar.hi.512"(%[[TABLE]], %{{.*}}) : (vector<32xi16>, vector<32xi16>) -> vector<32xi16>
// CHECK:             vector.load %[[X]]{{.*}} : memref<?xbf16>, vector<2xbf16>
// CHECK:             x86vector.avx512.dot
// CHECK:           arith.maxui
// CHECK:           vector.fma
// CHECK:       func.func @matmul(
// CHECK:         scf.forall
// CHECK:           func.call @moe_kernel_q4_bf16_1x4x16_dot(
// CHECK:           func.call @moe_kernel_q4_bf16_4x4x16_dot(
// The values of the codes are symmetric: one lookup, and the sign.
// AVX2-LABEL: func.func private @moe_kernel_q4_bf16_1x8x8(
// AVX2:         llvm.call_intrinsic "llvm.x86.avx2.permps"
// AVX2:         arith.xori
// AVX2-NOT:     arith.select {{.*}} vector<8xf32>
// AVX2:         vector.fma
func.func @matmul(%x: memref<?x64xbf16>, %w: memref<1x1x2176xi8>, %y: memref<?x50xf32>) {
  moe.grouped_matmul %x weights(%w : memref<1x1x2176xi8>) panels(<matmuls = 1, columns = 64, depth = 8, format = #mxfp4>)
      outs(%y : memref<?x50xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : memref<?x64xbf16>
  return
}

// -----

#table = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4>]>, offset = 8,
                     scales = [#moe.field<element = f16, operand = 1, block = [1, 32]>]>

// Other values need both halves of the table.
// CHECK-LABEL: func.func private @moe_kernel_q4_f32_1x4x16(
// CHECK:         llvm.call_intrinsic "llvm.x86.avx512.permvar.sf.512"
// CHECK:         arith.extf %{{.*}} : vector<16xf16> to vector<16xf32>
// AVX2-LABEL: func.func private @moe_kernel_q4_f32_1x8x8(
// AVX2-COUNT-2: llvm.call_intrinsic "llvm.x86.avx2.permps"
// AVX2:         arith.select {{.*}} vector<8xf32>
func.func @others(%x: memref<?x32xf32>, %w: memref<1x1x1152xi8>, %y: memref<?x50xf32>) {
  moe.grouped_matmul %x weights(%w : memref<1x1x1152xi8>) panels(<matmuls = 1, columns = 64, depth = 8, format = #table>)
      outs(%y : memref<?x50xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : memref<?x32xf32>
  return
}
