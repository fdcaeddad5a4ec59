// RUN: moe-opt %s -convert-moe-to-cpu=vector-bits=256 | FileCheck %s
// RUN: moe-opt %s -convert-moe-to-cpu="vector-bits=512 vector-registers=32 bf16-dot" | FileCheck %s --check-prefix=DOT

// A task of at least 8 rows widens 128 elements of its rows and of a panel at a time and calls the kernel of f32.
// CHECK-DAG:   func.func private @moe_kernel_f32_6x2x8(
// CHECK-DAG:   func.func private @moe_kernel_bf16_6x2x8(
// CHECK-LABEL: func.func @rows(
// CHECK:         %[[ROWS:.*]] = memref.alloca(%{{.*}}) {alignment = 64 : i64} : memref<?xf32>
// CHECK:         %[[PANEL:.*]] = memref.alloca(%{{.*}}) {alignment = 64 : i64} : memref<?xf32>
// CHECK:         %[[FEW:.*]] = arith.cmpi slt, %{{.*}}, %c8
// CHECK:         scf.if %[[FEW]] {
// CHECK:           func.call @moe_kernel_bf16_6x2x8(
// CHECK:         } else {
// CHECK:           arith.extf %{{.*}} : vector<8xbf16> to vector<8xf32>
// CHECK:           vector.store %{{.*}}, %[[ROWS]]
// CHECK:           vector.store %{{.*}}, %[[PANEL]]
// CHECK:           memref.prefetch
// CHECK:           func.call @moe_kernel_f32_6x2x8(%[[ROWS]], %{{.*}}, %[[PANEL]],
// DOT-LABEL:   func.func @rows(
// DOT-NOT:       @moe_kernel_f32
func.func @rows(%x: memref<?x600xbf16>, %w: memref<1x2x600x16x1xbf16>, %y: memref<?x32xf32>) {
  moe.grouped_matmul %x weights(%w : memref<1x2x600x16x1xbf16>) panels(<matmuls = 1, columns = 16, depth = 1>)
      outs(%y : memref<?x32xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : memref<?x600xbf16>
  return
}
