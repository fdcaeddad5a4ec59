// RUN: moe-opt %s -convert-moe-to-cpu="vector-bits=512 vector-registers=32 bf16-dot=true" | FileCheck %s
// RUN: moe-opt %s -convert-moe-to-cpu="vector-bits=512 vector-registers=32 bf16-dot=true" | FileCheck %s --check-prefix=F16
// RUN: not moe-opt %s -convert-moe-to-cpu="vector-bits=512 vector-registers=32" 2>&1 | FileCheck %s --check-prefix=WITHOUT
// WITHOUT: error: 'moe.grouped_matmul' op expected weights packed to a depth of at most 1, for 'bf16' on this processor, got 2

// One instruction does two steps along k; the odd last element is paired with zero.
// CHECK-LABEL: func.func private @moe_kernel_bf16_1x1x16_dot(
// CHECK-SAME:    %[[LHS:[a-z0-9]+]]: memref<?xbf16>
// CHECK-SAME:    %[[TAIL:[a-z0-9]+]]: index, %{{[a-z0-9]+}}: index, %{{[a-z0-9]+}}: index, %{{[a-z0-9]+}}: i1)
// CHECK:         %[[PAIR:.*]] = vector.load %[[LHS]][%{{.*}}] : memref<?xbf16>, vector<2xbf16>
// CHECK:         vector.bitcast %[[PAIR]] : vector<2xbf16> to vector<1xi32>
// CHECK:         x86vector.avx512.dot {{.*}} : vector<32xbf16> -> vector<16xf32>
// CHECK:         %[[ODD:.*]] = arith.cmpi ne, %[[TAIL]], %c0
// CHECK:         scf.if %[[ODD]]
// CHECK:           %[[X:.*]] = memref.load %[[LHS]]
// CHECK:           vector.from_elements %[[X]], %{{.*}} : vector<2xbf16>
// CHECK:           x86vector.avx512.dot
// CHECK-NOT:     vector.fma

// CHECK-LABEL: func.func @pairs(
func.func @pairs(%x: memref<?x5xbf16>, %w: memref<1x1x3x16x2xbf16>, %y: memref<?x16xf32>) {
  moe.grouped_matmul %x weights(%w : memref<1x1x3x16x2xbf16>) panels(<matmuls = 1, columns = 16, depth = 2>) outs(%y : memref<?x16xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : memref<?x5xbf16>
  return
}

// Other element types are multiplied in f32.
// F16-LABEL: func.func private @moe_kernel_f16_1x1x16(
// F16-NOT:     x86vector
// F16:         arith.extf %{{.*}} : f16 to f32
// F16:         vector.fma
// F16:         return
func.func @half(%x: memref<?x5xf16>, %w: memref<1x1x5x16x1xf16>, %y: memref<?x16xf32>) {
  moe.grouped_matmul %x weights(%w : memref<1x1x5x16x1xf16>) panels(<matmuls = 1, columns = 16, depth = 1>) outs(%y : memref<?x16xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : memref<?x5xf16>
  return
}
