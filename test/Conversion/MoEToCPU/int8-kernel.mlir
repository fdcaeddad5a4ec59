// RUN: moe-opt %s -split-input-file -convert-moe-to-cpu="vector-bits=512 vector-registers=32 int8-dot=true" | FileCheck %s
// RUN: moe-opt %s -split-input-file -convert-moe-to-cpu="vector-bits=256" | FileCheck %s --check-prefix=AVX2

#q4 = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4>]>, offset = 8,
                  scales = [#moe.field<element = f16, operand = 1, block = [1, 32]>]>

// Codes are multiplied as they are; accumulators start with -8 times the sum of the row.
// CHECK-LABEL: func.func private @moe_kernel_q4_i8_1x4x16_dot(
// CHECK-SAME:    %[[X:[a-z0-9]+]]: memref<?xi8>, %{{.*}}: memref<?xindex>, %[[W:[a-z0-9]+]]: memref<?xi8>
// CHECK:         scf.for
// CHECK:           vector.load %[[X]]
// CHECK:           %[[START:.*]] = llvm.call_intrinsic "llvm.x86.avx512.pmaddw.d.512"(%{{.*}}, %cst{{.*}})
// CHECK:           scf.for {{.*}} iter_args(%{{.*}} = %[[START]], %{{.*}} = %[[START]], %{{.*}} = %[[START]], %{{.*}} = %[[START]])
// CHECK:             vector.load %[[W]]{{.*}} : memref<?xi8>, vector<64xi8>
// CHECK-NOT:         pshuf
// CHECK-COUNT-8:     llvm.call_intrinsic "llvm.x86.avx512.vpdpbusd.512"(%{{.*}}, %{{.*}}, %{{.*}}) : (vector<16xi32>, vector<64xi8>, vector<64xi8>) -> vector<16xi32>
// CHECK:           arith.sitofp
// CHECK:           vector.fma
// CHECK:       func.func @matmul(
// CHECK:         func.call @moe_kernel_q4_i8_4x4x16_dot(
// AVX2-LABEL: func.func private @moe_kernel_q4_i8_1x8x8_dot(
// AVX2:         arith.muli {{.*}} : vector<16xi16>
// AVX2-COUNT-16: llvm.call_intrinsic "llvm.x86.avx2.pmadd.ub.sw"
// AVX2:         llvm.call_intrinsic "llvm.x86.avx2.pmadd.wd"
func.func @matmul(%x: memref<?x80xi8>, %w: memref<1x1x2304xi8>, %y: memref<?x50xf32>) {
  moe.grouped_matmul %x weights(%w : memref<1x1x2304xi8>) panels(<matmuls = 1, columns = 64, depth = 8, format = #q4>)
      outs(%y : memref<?x50xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : memref<?x80xi8>
  return
}

// -----

#mxfp4 = #moe.format<codes = <element = f4E2M1FN, bits = [#moe.bits<width = 4>]>,
                     scales = [#moe.field<element = f8E8M0FNU, operand = 1, block = [1, 64]>]>

// Values of f4E2M1FN are doubled, looked up with an offset of 12, and the result is halved. A group of 64
// has two scales of a row.
// CHECK-LABEL: func.func private @moe_kernel_q4_i8_1x4x16_dot(
// CHECK:         %[[TABLE:.*]] = arith.constant dense<{{.*}}> : vector<64xi8>
// CHECK:         scf.for
// CHECK:           scf.for
// CHECK:             scf.for
// CHECK:               llvm.call_intrinsic "llvm.x86.avx512.pshuf.b.512"(%[[TABLE]]
// CHECK:           arith.maxui
// CHECK:         %[[HALF:.*]] = arith.constant dense<5.000000e-01> : vector<16xf32>
// CHECK:         arith.mulf %{{.*}}, %[[HALF]]
// CHECK:         vector.store
func.func @doubled(%x: memref<?x80xi8>, %w: memref<1x1x2112xi8>, %y: memref<?x50xf32>) {
  moe.grouped_matmul %x weights(%w : memref<1x1x2112xi8>) panels(<matmuls = 1, columns = 64, depth = 8, format = #mxfp4>)
      outs(%y : memref<?x50xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : memref<?x80xi8>
  return
}
