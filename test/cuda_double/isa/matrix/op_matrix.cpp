//===- op_matrix.cpp - Warp-level matrix instructions ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// PTX ISA 9.7.14 "Warp Level Matrix Multiply-Accumulate Instructions":
// ldmatrix, stmatrix, movmatrix and mma.sync, with the fragments of 9.7.14.5.
//
//===----------------------------------------------------------------------===//

#include "isa/numeric.h"
#include "isa/ops.h"
#include "matrix.h"

#include <algorithm>

using namespace moe::gpu;

//===----------------------------------------------------------------------===//
// Products
//===----------------------------------------------------------------------===//

static std::vector<float> makeTable(const Format &format) {
  std::vector<float> table(size_t(1) << format.bits());
  for (size_t bits = 0; bits < table.size(); ++bits)
    table[bits] =
        static_cast<float>(decode(format, static_cast<uint32_t>(bits)));
  return table;
}

ElementReader::ElementReader(Type type) : type(type) {
  static const std::vector<float> half = makeTable(formatF16),
                                  e4m3 = makeTable(formatE4M3),
                                  e5m2 = makeTable(formatE5M2);
  if (type == Type::F16)
    table = half.data();
  else if (type == Type::E4M3)
    table = e4m3.data();
  else if (type == Type::E5M2)
    table = e5m2.data();
}

float ElementReader::wide(uint32_t bits) const {
  switch (type) {
  case Type::BF16:
    return bitCast<float>(bits << 16);
  case Type::TF32:
    // The tensor core ignores the lower 13 bits of tf32.
    return bitCast<float>(bits & 0xFFFFE000);
  case Type::S8:
    return static_cast<int8_t>(bits);
  case Type::U8:
    return static_cast<float>(bits);
  default:
    return bitCast<float>(bits);
  }
}

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&         \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
__attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3")))
#endif
void moe::gpu::multiply(int m, int n, int k, const float *__restrict a,
                        const float *__restrict b, double *__restrict c) {
  // The accumulators of 4 rows stay in registers; each adds in the order of k.
  typedef float Floats __attribute__((vector_size(32)));
  typedef double Doubles __attribute__((vector_size(64)));
  constexpr int rows = 4, columns = 8;
  for (int row = 0; row < m; row += rows)
    for (int column = 0; column < n; column += columns) {
      double *at = c + row * n + column;
      Doubles sums[rows];
      for (int r = 0; r < rows; ++r)
        std::memcpy(&sums[r], at + r * n, sizeof(Doubles));
      for (int i = 0; i < k; ++i) {
        Floats line;
        std::memcpy(&line, b + i * n + column, sizeof(Floats));
        Doubles factors = __builtin_convertvector(line, Doubles);
        for (int r = 0; r < rows; ++r)
          sums[r] += static_cast<double>(a[(row + r) * k + i]) * factors;
      }
      for (int r = 0; r < rows; ++r)
        std::memcpy(at + r * n, &sums[r], sizeof(Doubles));
    }
}

//===----------------------------------------------------------------------===//
// mma
//===----------------------------------------------------------------------===//

namespace {

/// The shape and types of an mma, stored in Instruction::data.
struct MmaShape {
  int k;
  Type a, b, d, c;
};
constexpr int mmaM = 16, mmaN = 8;

/// list: the slots of D, then of A, B and C.
void mma(Warp &warp, const Instruction &i, uint32_t) {
  const auto &shape = *static_cast<const MmaShape *>(i.data);
  int registersA = mmaM * shape.k * bitsOf(shape.a) / 32 / 32;
  int registersB = registersA / 2;
  int registersD = shape.d == Type::F16 ? 2 : 4;
  const uint32_t *slotsD = i.list, *slotsA = slotsD + registersD,
                 *slotsB = slotsA + registersA, *slotsC = slotsB + registersB;

  float a[mmaM * 32], b[32 * mmaN];
  double sums[mmaM * mmaN];
  withReader(shape.a, [&](auto reader, auto bits) {
    constexpr int perRegister = 32 / bits;
    for (int lane = 0; lane < 32; ++lane) {
      const Thread &thread = warp.threads[lane];
      int group = lane / 4, inGroup = lane % 4;
      for (int r = 0; r < registersA; ++r) {
        uint32_t word = thread.get<uint32_t>(slotsA[r]);
        int row = group + 8 * (r & 1);
        int column = inGroup * perRegister + 4 * perRegister * (r >> 1);
        for (int e = 0; e < perRegister; ++e)
          a[row * shape.k + column + e] = reader(elementOf<bits>(word, e));
      }
    }
  });
  withReader(shape.b, [&](auto reader, auto bits) {
    constexpr int perRegister = 32 / bits;
    for (int lane = 0; lane < 32; ++lane) {
      const Thread &thread = warp.threads[lane];
      int group = lane / 4, inGroup = lane % 4;
      for (int r = 0; r < registersB; ++r) {
        uint32_t word = thread.get<uint32_t>(slotsB[r]);
        int row = inGroup * perRegister + 4 * perRegister * r;
        for (int e = 0; e < perRegister; ++e)
          b[(row + e) * mmaN + group] = reader(elementOf<bits>(word, e));
      }
    }
  });
  for (int lane = 0; lane < 32; ++lane) {
    const Thread &thread = warp.threads[lane];
    int group = lane / 4, inGroup = lane % 4;
    for (int e = 0; e < 4; ++e) {
      double &sum = sums[(group + 8 * (e / 2)) * mmaN + inGroup * 2 + e % 2];
      if (shape.c == Type::F16)
        sum = halfToFloat(static_cast<uint16_t>(
            thread.get<uint32_t>(slotsC[e / 2]) >> (16 * (e % 2))));
      else if (shape.c == Type::S32)
        sum = thread.get<int32_t>(slotsC[e]);
      else
        sum = thread.get<float>(slotsC[e]);
    }
  }
  multiply(mmaM, mmaN, shape.k, a, b, sums);
  for (int lane = 0; lane < 32; ++lane) {
    Thread &thread = warp.threads[lane];
    int group = lane / 4, inGroup = lane % 4;
    auto sum = [&](int e) {
      return sums[(group + 8 * (e / 2)) * mmaN + inGroup * 2 + e % 2];
    };
    if (shape.d == Type::F16) {
      for (int r = 0; r < 2; ++r)
        thread.set<uint32_t>(slotsD[r], uint32_t(floatToHalf(sum(2 * r + 1)))
                                                << 16 |
                                            floatToHalf(sum(2 * r)));
    } else {
      for (int e = 0; e < 4; ++e)
        if (shape.d == Type::S32 && i.flags[0])
          thread.set<int32_t>(
              slotsD[e], static_cast<int32_t>(std::max(
                             -2147483648.0, std::min(2147483647.0, sum(e)))));
        else if (shape.d == Type::S32)
          thread.set<int32_t>(
              slotsD[e], static_cast<int32_t>(static_cast<int64_t>(sum(e))));
        else
          thread.set<float>(slotsD[e], static_cast<float>(sum(e)));
    }
  }
}

//===----------------------------------------------------------------------===//
// ldmatrix, stmatrix, movmatrix
//===----------------------------------------------------------------------===//

// count: matrices; list: their registers; flags: 0 and 1 as set by setAddress,
// 2 .trans.

/// The 16-byte row at the address of a lane.
uint8_t *row(Warp &warp, const Instruction &i, uint32_t lane, Access kind) {
  Thread &thread = warp.threads[lane];
  uint64_t address = thread.effective(i);
  auto space = static_cast<Space>(i.flags[1]);
  if (space == Space::Generic &&
      address - windows().shared >= GenericWindows::sharedBytes)
    fail(CUDA_ERROR_INVALID_ADDRESS_SPACE, "lane ", lane,
         " has an address that is not in shared memory");
  try {
    return thread.access(space, address, 16, kind, i);
  } catch (Fault &fault) {
    fault.message = text("lane ", lane, " ", fault.message);
    throw;
  }
}

void ldmatrix(Warp &warp, const Instruction &i, uint32_t) {
  for (uint32_t m = 0; m < i.count; ++m) {
    uint16_t matrix[8][8];
    for (uint32_t r = 0; r < 8; ++r)
      std::memcpy(matrix[r], row(warp, i, 8 * m + r, Access::Read), 16);
    for (uint32_t lane = 0; lane < 32; ++lane) {
      uint32_t x = lane / 4, y = lane % 4 * 2;
      uint32_t low = i.flags[2] ? matrix[y][x] : matrix[x][y];
      uint32_t high = i.flags[2] ? matrix[y + 1][x] : matrix[x][y + 1];
      warp.threads[lane].set<uint32_t>(i.list[m], high << 16 | low);
    }
  }
}

void stmatrix(Warp &warp, const Instruction &i, uint32_t) {
  for (uint32_t m = 0; m < i.count; ++m) {
    uint16_t matrix[8][8];
    for (uint32_t lane = 0; lane < 32; ++lane) {
      uint32_t word = warp.threads[lane].get<uint32_t>(i.list[m]);
      uint32_t x = lane / 4, y = lane % 4 * 2;
      auto low = static_cast<uint16_t>(word);
      auto high = static_cast<uint16_t>(word >> 16);
      (i.flags[2] ? matrix[y][x] : matrix[x][y]) = low;
      (i.flags[2] ? matrix[y + 1][x] : matrix[x][y + 1]) = high;
    }
    for (uint32_t r = 0; r < 8; ++r)
      std::memcpy(row(warp, i, 8 * m + r, Access::Write), matrix[r], 16);
  }
}

void movmatrix(Warp &warp, const Instruction &i, uint32_t) {
  uint16_t matrix[8][8];
  for (uint32_t lane = 0; lane < 32; ++lane) {
    uint32_t word = warp.threads[lane].get<uint32_t>(i.a);
    matrix[lane / 4][lane % 4 * 2] = static_cast<uint16_t>(word);
    matrix[lane / 4][lane % 4 * 2 + 1] = static_cast<uint16_t>(word >> 16);
  }
  for (uint32_t lane = 0; lane < 32; ++lane)
    warp.threads[lane].set<uint32_t>(
        i.d, uint32_t(matrix[lane % 4 * 2 + 1][lane / 4]) << 16 |
                 matrix[lane % 4 * 2][lane / 4]);
}

/// .aligned: all 32 threads of the warp must execute the instruction.
template <Warp::Collective execute>
Step wholeWarp(Thread &thread, const Instruction &i) {
  if (thread.warp->exists != 0xFFFFFFFF)
    undefined("the warp has fewer than 32 threads");
  return thread.warp->arrive(thread, i, 0xFFFFFFFF, execute);
}

} // namespace

//===----------------------------------------------------------------------===//
// Decoding
//===----------------------------------------------------------------------===//

static void decodeMma(Decoder &d) {
  d.need(".sync");
  d.need(".aligned");
  auto shape = std::make_unique<MmaShape>();
  std::optional<std::string_view> k = d.startingWith(".m16n8k");
  if (!k)
    d.error("shape is not supported");
  shape->k = std::atoi(std::string(*k).c_str());
  d.need(".row");
  d.need(".col");
  d.out.flags[0] = d.has(".satfinite");
  d.has(".kind::f8f6f4");
  shape->d = d.type();
  shape->a = d.type();
  shape->b = d.type();
  shape->c = d.type();
  int bits = bitsOf(shape->a);
  bool integer = shape->a == Type::S8 || shape->a == Type::U8;
  bool supported =
      bits == bitsOf(shape->b) &&
      (shape->k * bits == 256 || shape->k * bits == 128) &&
      (integer ? shape->d == Type::S32 && shape->c == Type::S32
               : (shape->d == Type::F32 || shape->d == Type::F16) &&
                     shape->c == shape->d);
  if (!supported ||
      (bits == 16 && shape->a != Type::F16 && shape->a != Type::BF16) ||
      (bits == 32 && shape->a != Type::TF32))
    d.error("types or shape are not supported");
  size_t registersA = static_cast<size_t>(mmaM * shape->k * bits / 1024);
  size_t registersD = shape->d == Type::F16 ? 2 : 4;
  size_t counts[] = {registersD, registersA, registersA / 2, registersD};
  d.expectOperands(4, 4);
  std::vector<uint32_t> list;
  for (size_t o = 0; o < 4; ++o) {
    std::vector<uint32_t> part =
        o == 0 ? d.destinations(0, Type::B32) : d.sources(o, Type::B32);
    if (part.size() != counts[o])
      d.error("operand ", o + 1, " has ", part.size(), " registers, not ",
              counts[o]);
    list.insert(list.end(), part.begin(), part.end());
  }
  d.out.count = static_cast<uint32_t>(list.size());
  d.out.list = d.keep(std::move(list));
  d.out.data = d.own(std::move(shape));
  d.out.run = wholeWarp<mma>;
}

static void decodeMatrixAccess(Decoder &d) {
  bool load = d.name() == "ldmatrix";
  d.need(".sync");
  d.need(".aligned");
  d.need(".m8n8");
  uint32_t count = d.has(".x4") ? 4 : d.has(".x2") ? 2 : 1;
  if (count == 1)
    d.need(".x1");
  d.out.flags[2] = d.has(".trans");
  Space space = d.space();
  d.need(".b16");
  d.expectOperands(2, 2);
  size_t registers = load ? 0 : 1;
  std::vector<uint32_t> list = load ? d.destinations(registers, Type::B32)
                                    : d.sources(registers, Type::B32);
  if (list.size() != count)
    d.error("expected ", count, " registers");
  d.setAddress(d.address(1 - registers, space));
  d.out.site = d.newSite();
  d.out.count = count;
  d.out.list = d.keep(std::move(list));
  d.out.run = load ? wholeWarp<ldmatrix> : wholeWarp<stmatrix>;
}

static void decodeMovmatrix(Decoder &d) {
  d.need(".sync");
  d.need(".aligned");
  d.need(".m8n8");
  d.need(".trans");
  d.need(".b16");
  decodeSame(d, Type::B32, 1);
  d.out.run = wholeWarp<movmatrix>;
}

static constexpr DecodeEntry entries[] = {
    {"mma", decodeMma},
    {"ldmatrix", decodeMatrixAccess},
    {"stmatrix", decodeMatrixAccess},
    {"movmatrix", decodeMovmatrix},
};
const DecodeTable moe::gpu::matrixInstructions = tableOf(entries);
