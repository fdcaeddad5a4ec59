// RUN: moe-opt %s -convert-moe-to-cpu="vector-bits=128" | FileCheck %s

// A step has four bytes of a row, and a block two steps. The codes of four columns are loaded as four words,
// and those that move by the same distance are moved at once: 0, 2, 5 and 7 stay, 4 and 6 move by 12 bits to
// the right, 1 and 3 to the left. A panel without all of its columns is packed code by code.
#four = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4>]>, offset = 8,
                    scales = [#moe.field<element = f16, operand = 1, block = [1, 16]>]>
// CHECK-LABEL: func.func @words_of_a_step(
// CHECK:         scf.if
// CHECK-NOT:       vector<4xi32>
// CHECK:         } else {
// CHECK-NOT:       vector.shuffle
// CHECK-COUNT-4:   vector.load %{{.*}} : memref<?xi8>, vector<4xi8>
// CHECK:           %[[W:.*]] = vector.from_elements %{{.*}} : vector<4xi32>
// CHECK:           arith.andi %[[W]], %{{.*}} : vector<4xi32>
// CHECK:           arith.shrui %[[W]], %{{.*}} : vector<4xi32>
// CHECK:           arith.shli %[[W]], %{{.*}} : vector<4xi32>
// CHECK:           vector.store %{{.*}} : memref<?xi8>, vector<16xi8>
func.func @words_of_a_step(%w: memref<2x20x32xi8>, %s: memref<2x20x4xf16>, %p: memref<2x3x320xi8>) {
  moe.pack %w, %s transposed panels(<matmuls = 1, columns = 8, depth = 8, format = #four>) extents([64, 20])
    outs(%p : memref<2x3x320xi8>) : memref<2x20x32xi8>, memref<2x20x4xf16>
  return
}

// Where a block has a whole chunk of 16 bytes of a row, the chunks of four columns are loaded and transposed
// to the words of four steps, each the row of a step of its own.
#chunks = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4>]>, offset = 8,
                      scales = [#moe.field<element = f16, operand = 1, block = [1, 32]>]>
// CHECK-LABEL: func.func @chunks(
// CHECK-COUNT-4: vector.load %{{.*}} : memref<?xi8>, vector<16xi8>
// CHECK-NOT:     vector.load
// CHECK:         %[[E01:.*]] = vector.shuffle %[[R0:.*]], %[[R2:.*]] [0, 4, 1, 5]
// CHECK-NEXT:    %[[O01:.*]] = vector.shuffle %[[R1:.*]], %[[R3:.*]] [0, 4, 1, 5]
// CHECK-NEXT:    %[[E23:.*]] = vector.shuffle %[[R0]], %[[R2]] [2, 6, 3, 7]
// CHECK-NEXT:    %[[O23:.*]] = vector.shuffle %[[R1]], %[[R3]] [2, 6, 3, 7]
// CHECK-NEXT:    vector.shuffle %[[E01]], %[[O01]] [0, 4, 1, 5]
// CHECK-NEXT:    vector.shuffle %[[E01]], %[[O01]] [2, 6, 3, 7]
// CHECK-NEXT:    vector.shuffle %[[E23]], %[[O23]] [0, 4, 1, 5]
// CHECK-NEXT:    vector.shuffle %[[E23]], %[[O23]] [2, 6, 3, 7]
// CHECK-COUNT-4: vector.store %{{.*}} : memref<?xi8>, vector<16xi8>
func.func @chunks(%w: memref<2x8x32xi8>, %s: memref<2x8x2xf16>, %p: memref<2x1x288xi8>) {
  moe.pack %w, %s transposed panels(<matmuls = 1, columns = 8, depth = 8, format = #chunks>) extents([64, 8])
    outs(%p : memref<2x1x288xi8>) : memref<2x8x32xi8>, memref<2x8x2xf16>
  return
}

// A k that ends within a chunk: its last step is loaded as words.
// CHECK-LABEL: func.func @rest(
// CHECK-COUNT-4: vector.load %{{.*}} : memref<?xi8>, vector<16xi8>
// CHECK-COUNT-4: vector.load %{{.*}} : memref<?xi8>, vector<4xi8>
func.func @rest(%w: memref<2x8x20xi8>, %s: memref<2x8x2xf16>, %p: memref<2x1x192xi8>) {
  moe.pack %w, %s transposed panels(<matmuls = 1, columns = 8, depth = 8, format = #chunks>) extents([40, 8])
    outs(%p : memref<2x1x192xi8>) : memref<2x8x20xi8>, memref<2x8x2xf16>
  return
}

// The halves of the bytes of a run: the bytes of the words are put in the order of a panel once; then half of
// the bits of each word stay. The scales of four columns are the first two bytes of their records.
#runs = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4, byte = 2, run = 16>]>, record = [32, 18],
                    offset = 8, scales = [#moe.field<element = f16, block = [1, 32], bits = [#moe.bits<width = 16>]>]>
// CHECK-LABEL: func.func @runs(
// CHECK-COUNT-4: vector.load %{{.*}} : memref<?xi8>, vector<16xi8>
// CHECK-COUNT-4: vector.shuffle %{{.*}} [0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15]
// CHECK-COUNT-4: vector.store %{{.*}} : memref<?xi8>, vector<16xi8>
// CHECK-COUNT-4: vector.load %{{.*}} : memref<?xi8>, vector<16xi8>
// CHECK:         %[[SCALES:.*]] = arith.trunci %{{.*}} : vector<4xi32> to vector<4xi16>
// CHECK:         %[[BYTES:.*]] = vector.bitcast %[[SCALES]] : vector<4xi16> to vector<8xi8>
// CHECK:         vector.store %[[BYTES]], %{{.*}} : memref<?xi8>, vector<8xi8>
// CHECK-NOT:     scf.for
// CHECK:         return
func.func @runs(%w: memref<2x8x36xi8>, %p: memref<2x1x288xi8>) {
  moe.pack %w transposed panels(<matmuls = 1, columns = 8, depth = 8, format = #runs>) extents([64, 8])
    outs(%p : memref<2x1x288xi8>) : memref<2x8x36xi8>
  return
}

// A chunk has the low halves of steps of one group and the high ones of those of the next, which is 136 bytes
// further on. The scales are loaded once, with the end of the record.
#groups = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4, run = 32>]>, record = [64, 36],
                      scales = [#moe.field<element = ui6, block = [1, 32], bits = [#moe.bits<width = 6, byte = 32>]>,
                                #moe.field<element = f16, block = [1, 64], bits = [#moe.bits<width = 16, byte = 34>]>]>
// CHECK-LABEL: func.func @groups(
// CHECK-COUNT-8: vector.load %{{.*}} : memref<?xi8>, vector<16xi8>
// CHECK:         %[[GROUP:.*]] = arith.constant 136 : index
// CHECK-NEXT:    arith.addi %{{.*}}, %[[GROUP]] : index
// CHECK:         %[[END:.*]] = arith.constant 20 : index
// CHECK-NEXT:    arith.addi %{{.*}}, %[[END]] : index
// CHECK-COUNT-4: vector.load %{{.*}} : memref<?xi8>, vector<16xi8>
// CHECK-NOT:     vector.load
// CHECK:         arith.trunci %{{.*}} : vector<4xi32> to vector<4xi16>
// CHECK-COUNT-2: arith.trunci %{{.*}} : vector<4xi32> to vector<4xi8>
// CHECK-NOT:     scf.for
// CHECK:         return
func.func @groups(%w: memref<2x8x36xi8>, %p: memref<2x1x288xi8>) {
  moe.pack %w transposed panels(<matmuls = 1, columns = 8, depth = 8, format = #groups>) extents([64, 8])
    outs(%p : memref<2x1x288xi8>) : memref<2x8x36xi8>
  return
}

// Scales with a sign of fewer bits than a byte are widened one by one.
#signed = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4, byte = 1, run = 16>]>, record = [32, 17],
                      scales = [#moe.field<element = si6, block = [1, 32], bits = [#moe.bits<width = 6>]>]>
// CHECK-LABEL: func.func @signed(
// CHECK-COUNT-4: vector.load %{{.*}} : memref<?xi8>, vector<16xi8>
// CHECK-NOT:     vector<4xi8>
// CHECK:         arith.extsi %{{.*}} : i6 to i8
func.func @signed(%w: memref<2x8x34xi8>, %p: memref<2x1x272xi8>) {
  moe.pack %w transposed panels(<matmuls = 1, columns = 8, depth = 8, format = #signed>) extents([64, 8])
    outs(%p : memref<2x1x272xi8>) : memref<2x8x34xi8>
  return
}

// Records of less than a chunk are packed by words and one by one.
#short = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4, byte = 1, run = 8>]>, record = [16, 9],
                     scales = [#moe.field<element = f8E8M0FNU, block = [1, 16], bits = [#moe.bits<width = 8>]>]>
// CHECK-LABEL: func.func @short(
// CHECK-NOT:     vector.load %{{.*}}, vector<16xi8>
// CHECK:         return
func.func @short(%w: memref<2x8x36xi8>, %p: memref<2x1x288xi8>) {
  moe.pack %w transposed panels(<matmuls = 1, columns = 8, depth = 8, format = #short>) extents([64, 8])
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
