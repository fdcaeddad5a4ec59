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
func.func @matmul(%x: memref<?x96xi8>, %w: memref<1x1x2304xi8>, %y: memref<?x50xf32>) {
  moe.grouped_matmul %x weights(%w : memref<1x1x2304xi8>) panels(<matmuls = 1, columns = 64, depth = 8, format = #q4>)
      outs(%y : memref<?x50xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : memref<?x96xi8>
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
func.func @doubled(%x: memref<?x96xi8>, %w: memref<1x1x2112xi8>, %y: memref<?x50xf32>) {
  moe.grouped_matmul %x weights(%w : memref<1x1x2112xi8>) panels(<matmuls = 1, columns = 64, depth = 8, format = #mxfp4>)
      outs(%y : memref<?x50xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : memref<?x96xi8>
  return
}

// -----

// 6 bits: the upper two are shifted next to the lower four. A group of 16 has half of a scale of a row.
#q6 = #moe.format<codes = <element = ui6, bits = [#moe.bits<width = 4, run = 64>, #moe.bits<width = 2, byte = 128, run = 32, shift = 4>]>,
                  record = [256, 210], offset = 32,
                  scales = [#moe.field<element = f16, block = [1, 256], bits = [#moe.bits<width = 16, byte = 208>]>,
                            #moe.field<element = si8, block = [1, 16], bits = [#moe.bits<width = 8, byte = 192>]>]>
// CHECK-LABEL: func.func private @moe_kernel_q6_i8_1x4x16_dot(
// CHECK:         scf.for
// CHECK:           scf.for
// CHECK:             arith.ori {{.*}} : vector<16xi32>
// CHECK:             llvm.call_intrinsic "llvm.x86.avx512.vpdpbusd.512"
// CHECK:             arith.extf %{{.*}} : vector<16xf16> to vector<16xf32>
// CHECK:             arith.sitofp %{{.*}} : vector<16xi8> to vector<16xf32>
// CHECK:             arith.mulf
// CHECK:             vector.fma
// Sums of 16 products fit 16 bits.
// AVX2-LABEL: func.func private @moe_kernel_q6_i8_1x8x8_dot(
// AVX2:         llvm.call_intrinsic "llvm.x86.avx2.pmadd.ub.sw"
// AVX2-NOT:     psign
// AVX2:       func.func @six(
func.func @six(%x: memref<?x384xi8>, %w: memref<1x1x13440xi8>, %y: memref<?x50xf32>) {
  moe.grouped_matmul %x weights(%w : memref<1x1x13440xi8>) panels(<matmuls = 1, columns = 64, depth = 16, format = #q6>)
      outs(%y : memref<?x50xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : memref<?x384xi8>
  return
}

// -----

// Minima are subtracted times the sum of the row.
#q4k = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4, byte = 16, run = 32>]>, record = [256, 144],
                   scales = [#moe.field<element = f16, block = [1, 256], bits = [#moe.bits<width = 16>]>,
                             #moe.field<element = ui6, block = [1, 32], bits = [#moe.bits<width = 6, byte = 4>]>],
                   mins = [#moe.field<element = f16, block = [1, 256], bits = [#moe.bits<width = 16, byte = 2>]>,
                           #moe.field<element = ui6, block = [1, 32], bits = [#moe.bits<width = 6, byte = 10>]>]>
// CHECK-LABEL: func.func private @moe_kernel_q4_i8_1x4x16_dot(
// CHECK:         llvm.call_intrinsic "llvm.x86.avx512.vpdpbusd.512"
// CHECK:         llvm.call_intrinsic "llvm.x86.avx512.pmaddw.d.512"
// CHECK:         arith.uitofp %{{.*}} : vector<16xi8> to vector<16xf32>
// CHECK:         arith.negf
// CHECK-COUNT-2: vector.fma
func.func @minima(%x: memref<?x384xi8>, %w: memref<1x1x9472xi8>, %y: memref<?x50xf32>) {
  moe.grouped_matmul %x weights(%w : memref<1x1x9472xi8>) panels(<matmuls = 1, columns = 64, depth = 8, format = #q4k>)
      outs(%y : memref<?x50xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : memref<?x384xi8>
  return
}

// -----

// 8 bits do not fit vpmaddubsw with an offset: it multiplies magnitudes.
#q8 = #moe.format<codes = <element = si8>, scales = [#moe.field<element = f32, operand = 1, block = [1, 32]>]>
// CHECK-LABEL: func.func private @moe_kernel_q8_i8_1x4x16_dot(
// CHECK:         arith.xori {{.*}} : vector<64xi8>
// CHECK:         llvm.call_intrinsic "llvm.x86.avx512.vpdpbusd.512"
// AVX2-LABEL: func.func private @moe_kernel_q8_i8_1x8x8_dot(
// AVX2:         llvm.call_intrinsic "llvm.x86.avx2.psign.b"
// AVX2:         math.absi
// AVX2:         llvm.call_intrinsic "llvm.x86.avx2.pmadd.ub.sw"
// AVX2:         llvm.call_intrinsic "llvm.x86.avx2.pmadd.wd"
func.func @eight(%x: memref<?x96xi8>, %w: memref<1x1x4608xi8>, %y: memref<?x50xf32>) {
  moe.grouped_matmul %x weights(%w : memref<1x1x4608xi8>) panels(<matmuls = 1, columns = 64, depth = 8, format = #q8>)
      outs(%y : memref<?x50xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : memref<?x96xi8>
  return
}
