// RUN: moe-opt %s -convert-moe-to-cpu="vector-bits=512 vector-registers=32" | FileCheck %s
// RUN: moe-opt %s -convert-moe-to-cpu="vector-bits=512 vector-registers=32 bf16-dot" | FileCheck %s --check-prefix=DOT

// A task is 96 rows of a matrix, here an eighth, and at most 6 panels of 64 columns, here of 21.
// CHECK-LABEL: func.func @gathered(
// CHECK-SAME:    %[[X:[a-z0-9]+]]: memref<?x768xf32>, %[[G:[a-z0-9]+]]: memref<?xi32>, %[[Y:[a-z0-9]+]]: memref<?x1344xf32>, %[[O:[a-z0-9]+]]: memref<4xi32>, %{{[a-z0-9]+}}: memref<3x768x1344xf32>)
// None are contracted where there are none to gather from.
// CHECK:         arith.select %{{.*}}, %c0{{.*}}, %{{.*}} : index
// CHECK:         scf.forall (%{{.*}}) in (%c96)
// CHECK:           %[[LHS:.*]] = memref.alloca(%{{.*}}) {alignment = 64 : i64} : memref<?xf32>
// CHECK:           %[[PANEL:.*]] = memref.alloca(%{{.*}}) {alignment = 64 : i64} : memref<?xf32>
// CHECK:           %[[SUMS:.*]] = memref.alloca(%{{.*}}) {alignment = 64 : i64} : memref<?xf32>
// CHECK:           memref.load %[[O]]
// CHECK:           memref.load %[[O]]
// An expert without rows has zeros.
// CHECK:           scf.if
// CHECK:             %[[ZERO:.*]] = arith.constant dense<0.0{{.*}}> : vector<16xf32>
// CHECK:             vector.store %[[ZERO]]
// CHECK:           memref.load %[[G]]
// CHECK:           arith.maxsi
// CHECK:           arith.minsi
// CHECK-COUNT-16:  vector.load %{{.*}} : memref<?xf32>, vector<16xf32>
// CHECK-COUNT-64:  vector.shuffle
// CHECK-COUNT-16:  vector.store %{{.*}}, %[[LHS]]
// CHECK-COUNT-4:   vector.store %{{.*}}, %[[PANEL]]
// The next panel comes to the cache meanwhile, and what a tile writes.
// CHECK-COUNT-4:   memref.prefetch %{{.*}}, read, locality<2>
// CHECK-COUNT-4:   memref.prefetch %{{.*}}, write, locality<3>
// CHECK:           func.call @moe_kernel_f32_6x4x16(%[[LHS]], %{{.*}}, %[[PANEL]], %{{.*}}, %[[SUMS]]
// CHECK-NOT:     moe.
func.func @gathered(%x: memref<?x768xf32>, %g: memref<?xi32>, %y: memref<?x1344xf32>, %o: memref<4xi32>, %i: memref<3x768x1344xf32>) {
  moe.grouped_contract %x gather(%g : memref<?xi32>), %y offsets(%o : memref<4xi32>) outs(%i : memref<3x768x1344xf32>)
    : memref<?x768xf32>, memref<?x1344xf32>
  return
}

// 16 bits are widened; for dot products pairs of rows are interleaved, and those are transposed as 32 bits.
// CHECK-LABEL: func.func @pairs(
// CHECK:         arith.extf %{{.*}} : vector<16xbf16> to vector<16xf32>
// CHECK:         vector.shuffle %{{.*}} : vector<16xf32>, vector<16xf32>
// The sums start from the destination.
// CHECK:         arith.extf %{{.*}} : vector<16xbf16> to vector<16xf32>
// CHECK:         func.call @moe_kernel_f32_6x4x16({{.*}}, %true
// CHECK:         arith.truncf %{{.*}} : vector<16xf32> to vector<16xbf16>
// DOT-LABEL:   func.func @pairs(
// DOT:           arith.select %{{.*}} : vector<16xbf16>
// DOT:           vector.interleave %{{.*}} : vector<16xbf16> -> vector<32xbf16>
// DOT:           vector.bitcast %{{.*}} : vector<32xbf16> to vector<16xi32>
// DOT:           vector.shuffle %{{.*}} : vector<16xi32>, vector<16xi32>
// DOT:           func.call @moe_kernel_bf16_6x4x16_dot(
func.func @pairs(%x: memref<?x64xbf16>, %y: memref<?x64xbf16>, %i: memref<1x64x64xbf16>) {
  moe.grouped_contract %x, %y accumulate outs(%i : memref<1x64x64xbf16>) : memref<?x64xbf16>, memref<?x64xbf16>
  return
}

// CHECK-LABEL: func.func @no_columns(
// CHECK-NEXT:    return
func.func @no_columns(%x: memref<?x0xf32>, %y: memref<?x6xf32>, %i: memref<1x0x6xf32>) {
  moe.grouped_contract %x, %y outs(%i : memref<1x0x6xf32>) : memref<?x0xf32>, memref<?x6xf32>
  return
}

// A result that no cache holds is stored past the caches if all its rows are aligned, and is not prefetched then.
// CHECK-LABEL: func.func @streamed(
// CHECK:         memref.extract_aligned_pointer_as_index
// CHECK:         %[[REST:.*]] = arith.remui %{{.*}}, %c64
// CHECK:         %[[ALIGNED:.*]] = arith.cmpi slt, %[[REST]], %c1
// CHECK:         scf.if %[[ALIGNED]] {
// CHECK:           vector.store {{.*}} {alignment = 64 : i64, nontemporal = true}
// CHECK:         } else {
// CHECK-NOT:       nontemporal
// CHECK:           memref.prefetch %{{.*}}, write
// CHECK:         func.call @moe_kernel_f32_6x4x16(
// CHECK:         scf.if %[[ALIGNED]] {
// CHECK:           vector.store {{.*}} {alignment = 64 : i64, nontemporal = true}
// CHECK:         llvm.fence seq_cst
func.func @streamed(%x: memref<?x2048xf32>, %y: memref<?x1024xf32>, %o: memref<3xi32>, %i: memref<2x2048x1024xf32, strided<[?, 1024, 1], offset: ?>>) {
  moe.grouped_contract %x, %y offsets(%o : memref<3xi32>) outs(%i : memref<2x2048x1024xf32, strided<[?, 1024, 1], offset: ?>>)
    : memref<?x2048xf32>, memref<?x1024xf32>
  return
}
