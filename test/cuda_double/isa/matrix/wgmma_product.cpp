//===- wgmma_product.cpp - The product of one wgmma -----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The matrix descriptors and the layouts of operands in shared memory of PTX
// ISA 9.7.15.5.1, the fragments of 9.7.15.5.2, and what becomes of them.
//
//===----------------------------------------------------------------------===//

#include "wgmma_product.h"
#include "isa/numeric.h"
#include "machine/memory/tensor_map.h"
#include "matrix.h"

#include <algorithm>

using namespace moe::gpu;

namespace {

//===----------------------------------------------------------------------===//
// Operands in shared memory
//===----------------------------------------------------------------------===//

/// A matrix descriptor. Offsets are in bytes.
struct MatrixDescriptor {
  uint32_t start, leading, stride, span;

  explicit MatrixDescriptor(uint64_t bits)
      : start((bits & 0x3FFF) << 4), leading((bits >> 16 & 0x3FFF) << 4),
        stride((bits >> 32 & 0x3FFF) << 4) {
    static constexpr uint32_t spans[] = {16, 128, 64, 32};
    span = spans[bits >> 62];
    if (bits >> 49 & 7)
      fail(CUDA_ERROR_NOT_SUPPORTED,
           "a matrix descriptor with a base offset is not modelled");
    // The swizzle repeats after eight rows. The start may be at any offset
    // along k within a row.
    if (span > 16 && start / span % 8 != 0)
      undefined("the matrix descriptor ", Hex{bits}, " starts at ", start,
                ", in row ", start / span % 8, " of a swizzle of ", span,
                " bytes: eight rows have to begin at a multiple of ", 8 * span,
                ", or the base offset says so");
    uint64_t unused = bits & 0x3FF1C000C000C000;
    if (unused)
      undefined("bits ", Hex{unused}, " of the matrix descriptor ", Hex{bits},
                " are set, which mean nothing");
  }

  /// The address of a 16-byte chunk in the canonical layouts: contiguous along
  /// k for a K-major operand, along m or n for an MN-major one. The swizzle is
  /// a function of the address bits.
  uint32_t chunkK(uint32_t row, uint32_t chunk) const {
    uint32_t pitch = span;
    uint32_t along = span == 16 ? chunk * leading : chunk * 16;
    return swizzle(start + row / 8 * stride + row % 8 * pitch + along);
  }
  uint32_t chunkMN(uint32_t chunk, uint32_t k) const {
    uint32_t perSpan = span / 16;
    if (span == 16)
      return swizzle(start + chunk * stride + k % 8 * 16 + k / 8 * leading);
    return swizzle(start + chunk % perSpan * 16 + chunk / perSpan * leading +
                   k % 8 * span + k / 8 * stride);
  }

private:
  uint32_t swizzle(uint32_t address) const {
    address &= 0x3FFFF;
    return span > 16 ? swizzled(address, span) : address;
  }
};

/// Calls `body` with the address, row and column of each 16-byte chunk of an
/// operand of `rows` by k elements. Columns are along k, rows along m or n; the
/// elements of a chunk are along k, or along the rows if it is transposed.
template <typename Body>
void forChunks(const MatrixDescriptor &descriptor, int rows, int bits,
               bool transposed, Body body) {
  int perChunk = 128 / bits, k = wgmmaRowBytes * 8 / bits;
  if (transposed) {
    for (int column = 0; column < k; ++column)
      for (int row = 0; row < rows; row += perChunk)
        body(descriptor.chunkMN(static_cast<uint32_t>(row / perChunk),
                                static_cast<uint32_t>(column)),
             row, column);
    return;
  }
  for (int row = 0; row < rows; ++row)
    for (int chunk = 0; chunk < 2; ++chunk)
      body(descriptor.chunkK(static_cast<uint32_t>(row),
                             static_cast<uint32_t>(chunk)),
           row, chunk * perChunk);
}

uint32_t offsetOf(const Block &block, uint32_t address) {
  uint32_t offset = address - block.machine->settings.sharedReserved();
  uint32_t size = block.shared.size();
  if (offset < size && size - offset >= 16)
    return offset;
  SharedLocation location = block.machine->sharedLocation(
      address | uint64_t(block.rank) << 24, 16, block);
  return location.offset;
}

void checkOperand(Warp &warp, Epoch now, const MatrixDescriptor &descriptor,
                  int rows, int bits, bool transposed) {
  Block &block = *warp.block;
  forChunks(
      descriptor, rows, bits, transposed, [&](uint32_t address, int, int) {
        block.shared.asyncReadIssued(warp, now, offsetOf(block, address), 16);
      });
}

/// Reads an operand into a matrix whose element (row, column) is at
/// row * rowStep + column * columnStep.
void readOperand(Block &block, const MatrixDescriptor &descriptor, int rows,
                 Type type, bool transposed, bool negate, float *to,
                 int rowStep, int columnStep) {
  int step = transposed ? rowStep : columnStep;
  withReader(type, [&](auto reader, auto bits) {
    constexpr int perWord = 32 / bits;
    forChunks(descriptor, rows, bits, transposed,
              [&](uint32_t address, int row, int column) {
                uint32_t offset = offsetOf(block, address);
                block.shared.asyncRead(offset, 16);
                uint32_t words[4];
                std::memcpy(words, block.shared.data(offset), 16);
                float *element = to + row * rowStep + column * columnStep;
                for (int e = 0; e < 4 * perWord; ++e, element += step) {
                  float value =
                      reader(elementOf<bits>(words[e / perWord], e % perWord));
                  *element = negate ? -value : value;
                }
              });
  });
}

//===----------------------------------------------------------------------===//
// Fragments
//===----------------------------------------------------------------------===//

void readFragments(Warp *warps, const WgmmaShape &shape, const uint32_t *slots,
                   float *to) {
  int k = shape.k();
  withReader(shape.a, [&](auto reader, auto bits) {
    constexpr int perRegister = 32 / bits;
    for (int t = 0; t < 128; ++t) {
      const Thread &thread = warps[t / 32].threads[t % 32];
      int group = t % 32 / 4, inGroup = t % 4;
      for (uint32_t r = 0; r < shape.fragments; ++r) {
        uint32_t word = thread.get<uint32_t>(slots[r]);
        int row = t / 32 * 16 + group + 8 * int(r & 1);
        int column = inGroup * perRegister + 4 * perRegister * int(r >> 1);
        for (int e = 0; e < perRegister; ++e) {
          float value = reader(elementOf<bits>(word, e));
          to[row * k + column + e] = shape.negateA ? -value : value;
        }
      }
    }
  });
}

/// Calls `body` with each thread and, for each accumulator of it, its index in
/// the thread and its offset in D. Of each four accumulators, two are in one
/// row and two in the row eight below.
template <typename Body> void forAccumulators(Warp *warps, int n, Body body) {
  for (int t = 0; t < 128; ++t) {
    Thread &thread = warps[t / 32].threads[t % 32];
    int at = (t / 32 * 16 + t % 32 / 4) * n + t % 4 * 2;
    for (int index = 0; index < n / 2; index += 4, at += 8) {
      body(thread, index, at);
      body(thread, index + 1, at + 1);
      body(thread, index + 2, at + 8 * n);
      body(thread, index + 3, at + 8 * n + 1);
    }
  }
}

void readAccumulators(Warp *warps, const WgmmaShape &shape,
                      const uint32_t *slots, double *sums) {
  if (shape.d == Type::F16)
    forAccumulators(warps, shape.n, [&](Thread &thread, int index, int at) {
      uint32_t word = thread.get<uint32_t>(slots[index / 2]);
      sums[at] =
          halfToFloat(static_cast<uint16_t>(elementOf<16>(word, index % 2)));
    });
  else if (shape.d == Type::S32)
    forAccumulators(warps, shape.n, [&](Thread &thread, int index, int at) {
      sums[at] = thread.get<int32_t>(slots[index]);
    });
  else
    forAccumulators(warps, shape.n, [&](Thread &thread, int index, int at) {
      sums[at] = thread.get<float>(slots[index]);
    });
}

void writeAccumulators(Warp *warps, const WgmmaShape &shape,
                       const uint32_t *slots, const double *sums) {
  if (shape.d == Type::F16)
    forAccumulators(warps, shape.n, [&](Thread &thread, int index, int at) {
      uint32_t word = thread.get<uint32_t>(slots[index / 2]);
      uint32_t half = floatToHalf(sums[at]);
      word =
          index % 2 ? (word & 0xFFFF) | half << 16 : (word & 0xFFFF0000) | half;
      thread.set<uint32_t>(slots[index / 2], word);
    });
  else if (shape.d == Type::S32)
    forAccumulators(warps, shape.n, [&](Thread &thread, int index, int at) {
      double sum = sums[at];
      if (shape.saturate)
        sum = std::max(-2147483648.0, std::min(2147483647.0, sum));
      thread.set<int32_t>(slots[index],
                          static_cast<int32_t>(static_cast<int64_t>(sum)));
    });
  else
    forAccumulators(warps, shape.n, [&](Thread &thread, int index, int at) {
      thread.set<float>(slots[index], static_cast<float>(sums[at]));
    });
}

} // namespace

void moe::gpu::checkOperands(Warp &warp, Epoch now, const WgmmaShape &shape,
                             uint64_t a, uint64_t b) {
  if (!shape.aInRegisters)
    checkOperand(warp, now, MatrixDescriptor(a), wgmmaM, bitsOf(shape.a),
                 shape.transposeA);
  checkOperand(warp, now, MatrixDescriptor(b), shape.n, bitsOf(shape.b),
               shape.transposeB);
}

void moe::gpu::perform(Block &block, uint32_t group,
                       WgmmaOperation &operation) {
  const WgmmaShape &shape = shapeOf(*operation.at);
  const uint32_t *slots = operation.at->list;
  Warp *warps = &block.warps[group * 4];
  int k = shape.k(), n = shape.n;
  // Too large for the stack; allocated once for each host thread.
  static thread_local struct {
    float a[wgmmaM * wgmmaRowBytes], b[wgmmaRowBytes * wgmmaMaxN];
    double sums[wgmmaM * wgmmaMaxN];
  } matrices;
  auto &[a, b, sums] = matrices;
  if (shape.aInRegisters)
    readFragments(warps, shape, slots + shape.accumulators, a);
  else
    readOperand(block, MatrixDescriptor(operation.a), wgmmaM, shape.a,
                shape.transposeA, shape.negateA, a, k, 1);
  readOperand(block, MatrixDescriptor(operation.b), n, shape.b,
              shape.transposeB, shape.negateB, b, 1, n);
  if (operation.accumulate)
    readAccumulators(warps, shape, slots, sums);
  else
    std::fill_n(sums, wgmmaM * n, 0.0);
  multiply(wgmmaM, n, k, a, b, sums);
  writeAccumulators(warps, shape, slots, sums);
  operation.done = true;
  ++block.machine->effects;
}
