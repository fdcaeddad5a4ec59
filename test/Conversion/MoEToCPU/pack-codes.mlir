// RUN: moe-opt %s -convert-moe-to-cpu="vector-bits=128" | FileCheck %s

// The codes of four columns are loaded as four words, and those that move by the same distance are moved
// at once: 0, 2, 5 and 7 stay, 4 and 6 move by 12 bits to the right, 1 and 3 to the left. A panel without
// all of its columns is packed code by code.
#four = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4>]>, offset = 8,
                    scales = [#moe.field<element = f16, operand = 1, block = [1, 32]>]>
// CHECK-LABEL: func.func @neighbours_share_a_byte(
// CHECK:         scf.if
// CHECK-NOT:       vector<4xi32>
// CHECK:         } else {
// CHECK-COUNT-4:   vector.load %{{.*}} : memref<?xi8>, vector<4xi8>
// CHECK:           %[[W:.*]] = vector.from_elements %{{.*}} : vector<4xi32>
// CHECK:           arith.andi %[[W]], %{{.*}} : vector<4xi32>
// CHECK:           arith.shrui %[[W]], %{{.*}} : vector<4xi32>
// CHECK:           arith.shli %[[W]], %{{.*}} : vector<4xi32>
// CHECK:           vector.store %{{.*}} : memref<?xi8>, vector<16xi8>
func.func @neighbours_share_a_byte(%w: memref<2x20x32xi8>, %s: memref<2x20x2xf16>, %p: memref<2x3x288xi8>) {
  moe.pack %w, %s transposed panels(<matmuls = 1, columns = 8, depth = 8, format = #four>) extents([64, 20])
    outs(%p : memref<2x3x288xi8>) : memref<2x20x32xi8>, memref<2x20x2xf16>
  return
}

// The halves of the bytes of a run: two words of four bytes, shifted alike.
#runs = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4, byte = 2, run = 16>]>, record = [32, 18],
                    offset = 8, scales = [#moe.field<element = f16, block = [1, 32], bits = [#moe.bits<width = 16>]>]>
// CHECK-LABEL: func.func @runs(
// CHECK:         %[[W0:.*]] = vector.from_elements %{{.*}} : vector<4xi32>
// CHECK:         arith.shrui %[[W0]], %{{.*}} : vector<4xi32>
// CHECK:         %[[W1:.*]] = vector.from_elements %{{.*}} : vector<4xi32>
// CHECK:         arith.shrui %[[W1]], %{{.*}} : vector<4xi32>
func.func @runs(%w: memref<2x8x36xi8>, %p: memref<2x1x288xi8>) {
  moe.pack %w transposed panels(<matmuls = 1, columns = 8, depth = 8, format = #runs>) extents([64, 8])
    outs(%p : memref<2x1x288xi8>) : memref<2x8x36xi8>
  return
}

// Values 0 to 31 are elsewhere than the others: the place of a code depends on the step.
#parts = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4, count = 32>, #moe.bits<width = 4, byte = 16, first = 32>]>,
                     offset = 8, scales = [#moe.field<element = f16, operand = 1, block = [1, 32]>]>
// CHECK-LABEL: func.func @parts(
// CHECK-NOT:     vector<4xi32>
// CHECK:         return
func.func @parts(%w: memref<2x8x32xi8>, %s: memref<2x8x2xf16>, %p: memref<2x1x288xi8>) {
  moe.pack %w, %s transposed panels(<matmuls = 1, columns = 8, depth = 8, format = #parts>) extents([64, 8])
    outs(%p : memref<2x1x288xi8>) : memref<2x8x32xi8>, memref<2x8x2xf16>
  return
}
