//===- random.cpp - Reproducible random tensors ---------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "io/float.h"
#include "support/dtype.h"
#include "support/usable_cores.h"

#include "moe_rt/io.h"

#include <algorithm>
#include <cmath>
#include <thread>

using namespace moe::io;

// splitmix64 of Steele, Lea and Flood: its state is a counter, so any number of
// the stream can be computed alone.
static constexpr uint64_t gamma64 = 0x9e3779b97f4a7c15;

static uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

int64_t moe::io::countCores() { return moe::rt::usableCores(); }

uint64_t moe::io::randomBits(uint64_t seed, uint64_t index) {
  return mix(seed + (index + 1) * gamma64);
}

uint64_t moe::io::mixSeed(uint64_t seed, std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325; // FNV-1a
  for (char c : name)
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return mix(mix(seed + gamma64) ^ hash);
}

/// Two independent normal numbers from one 64-bit number.
static void boxMuller(uint64_t bits, float &first, float &second) {
  // In (0, 1], so that the logarithm is finite.
  float u = static_cast<float>((bits >> 40) + 1) * 0x1p-24f;
  float angle =
      static_cast<float>(bits & 0xffffff) * 0x1p-24f * 6.283185307179586f;
  float radius = std::sqrt(-2.0f * std::log(u));
  first = radius * std::cos(angle);
  second = radius * std::sin(angle);
}

/// Normally distributed elements [begin, end) of a tensor; `data` is where the
/// first of them goes.
template <typename T, typename Convert>
static void fillPairs(T *data, uint64_t begin, uint64_t end, uint64_t seed,
                      Convert convert) {
  // They come in pairs, of which the range may cut the first and the last.
  for (uint64_t i = begin & ~uint64_t(1); i < end; i += 2) {
    float pair[2];
    boxMuller(randomBits(seed, i / 2), pair[0], pair[1]);
    for (uint64_t j = i < begin ? 1 : 0; j < 2 && i + j < end; ++j)
      data[i + j - begin] = convert(pair[j]);
  }
}

/// Elements of a tensor on all cores: `fillRange(data, begin, end)` of each
/// part.
template <typename T, typename FillRange>
static void fillParts(void *memory, uint64_t begin, uint64_t count,
                      FillRange fillRange) {
  static constexpr uint64_t chunk = 1 << 20;
  T *data = static_cast<T *>(memory);
  uint64_t chunks = (count + chunk - 1) / chunk;
  uint64_t threads =
      std::min(static_cast<uint64_t>(moe::rt::usableCores()), chunks);
  auto work = [=](uint64_t thread) {
    for (uint64_t i = thread; i < chunks; i += threads)
      fillRange(data + i * chunk, begin + i * chunk,
                begin + std::min(count, (i + 1) * chunk));
  };
  std::vector<std::thread> others;
  for (uint64_t thread = 1; thread < threads; ++thread)
    others.emplace_back(work, thread);
  if (threads > 0)
    work(0);
  for (std::thread &other : others)
    other.join();
}

template <typename T, typename Convert>
static void fill(void *memory, uint64_t begin, uint64_t count, uint64_t seed,
                 Convert convert) {
  fillParts<T>(memory, begin, count,
               [=](T *data, uint64_t first, uint64_t end) {
                 fillPairs(data, first, end, seed, convert);
               });
}

/// Elements that `convert` makes of 64 random bits each.
template <typename T, typename Convert>
static void fillBits(void *memory, uint64_t begin, uint64_t count,
                     uint64_t seed, Convert convert) {
  fillParts<T>(
      memory, begin, count, [=](T *data, uint64_t first, uint64_t end) {
        for (uint64_t i = first; i < end; ++i)
          data[i - first] = static_cast<T>(convert(randomBits(seed, i)));
      });
}

bool moe::io::fillNormal(DLDataType type, void *data, uint64_t begin,
                         uint64_t count, uint64_t seed, double deviation) {
  auto scale = static_cast<float>(deviation);
  if (type.lanes != 1)
    return false;
  switch (type.code << 8 | type.bits) {
  case kDLFloat << 8 | 64:
    fill<double>(data, begin, count, seed, [=](float value) {
      return static_cast<double>(value) * deviation;
    });
    return true;
  case kDLFloat << 8 | 32:
    fill<float>(data, begin, count, seed,
                [=](float value) { return value * scale; });
    return true;
  case kDLFloat << 8 | 16:
    fill<uint16_t>(data, begin, count, seed,
                   [=](float value) { return floatToHalf(value * scale); });
    return true;
  case kDLBfloat << 8 | 16:
    fill<uint16_t>(data, begin, count, seed,
                   [=](float value) { return floatToBfloat(value * scale); });
    return true;
  case dlFloat8E4M3FN << 8 | 8:
    fill<uint8_t>(data, begin, count, seed,
                  [=](float value) { return floatToFloat8(value * scale); });
    return true;
  case dlFloat8E5M2 << 8 | 8:
    fill<uint8_t>(data, begin, count, seed, [=](float value) {
      return floatToFloat8E5M2(value * scale);
    });
    return true;
  default:
    return false;
  }
}

bool moe::io::fillNormal(const Tensor &tensor, uint64_t seed,
                         double deviation) {
  DLDataType type = tensor.dtype();
  uint64_t count = type.bits ? tensor.bytes() * 8 / type.bits : 0;
  return fillNormal(type, tensor.data(), 0, count, seed, deviation);
}

bool moe::io::fillWeight(DLDataType type, void *data, uint64_t begin,
                         uint64_t count, uint64_t seed, double deviation) {
  auto all = [](uint64_t bits) { return bits >> 32; };
  if (type.lanes != 1)
    return false;
  switch (type.code << 8 | type.bits) {
  case kDLInt << 8 | 8:
    fillBits<uint8_t>(data, begin, count, seed, all);
    return true;
  case kDLInt << 8 | 16:
    fillBits<uint16_t>(data, begin, count, seed, all);
    return true;
  case kDLInt << 8 | 32:
    fillBits<uint32_t>(data, begin, count, seed, all);
    return true;
  case kDLInt << 8 | 64:
    fillBits<uint64_t>(data, begin, count, seed,
                       [](uint64_t bits) { return bits; });
    return true;
  case dlFloat8E8M0FNU << 8 | 8:
    fillBits<uint8_t>(data, begin, count, seed,
                      [](uint64_t bits) { return 123 + (bits >> 32) % 9; });
    return true;
  default:
    return fillNormal(type, data, begin, count, seed, deviation);
  }
}
