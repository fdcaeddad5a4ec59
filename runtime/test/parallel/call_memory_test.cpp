//===- call_memory_test.cpp - The memory of calls over ranks --------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "parallel/call_memory.h"
#include "parallel/parallel_testing.h"

#include <algorithm>

using namespace moe::rt;
using namespace moe::test;

namespace {

class CallMemoryTest : public ::testing::Test {
protected:
  CallMemoryTest() {
    std::string text = parallelMetadata({});
    EXPECT_OK(parseMetadata(text.data(), text.size(), metadata));
    for (Function &function : metadata.variants[0].functions)
      function.workspaceFn = [](int64_t rows) { return 10 * rows; };
  }
  const ParallelFunction &layer() { return *metadata.variants[0].parallel[0]; }

  Metadata metadata;
};

/// Without rounding up.
constexpr int64_t bytesHome =
    4 * (K /*index*/ + K * K /*slots*/ + K /*positions*/ + K * H /*back*/);
constexpr int64_t bytesReceived =
    4 *
    (H /*rx*/ + K /*rslots*/ + K * H /*made*/ + K /*order*/ + K * H /*packed*/);

TEST_F(CallMemoryTest, CountsBeyond32Bits) {
  CallMemory memory(layer(), metadata.variants[0]);
  for (int64_t tokens : {int64_t(7), int64_t(1) << 31, int64_t(1) << 40}) {
    auto count = static_cast<uint64_t>(tokens);
    uint64_t home = memory.layoutHome(tokens);
    EXPECT_GE(home, count * bytesHome);
    EXPECT_LT(home, count * bytesHome + 2048);
    uint64_t received = memory.layoutReceived(tokens);
    EXPECT_GE(received, count * bytesReceived);
    EXPECT_LT(received, count * bytesReceived + 2048);
    // Values lie behind one another, aligned as their parts want.
    std::vector<std::pair<uint64_t, uint64_t>> ranges[2];
    for (size_t i = 0; i < layer().values.size(); ++i) {
      const Value &value = layer().values[i];
      if (value.kind != Value::Kind::made)
        continue;
      uint64_t begin = memory.offsetOf(i);
      EXPECT_EQ(begin % value.type.alignment, 0u) << value.type.name;
      EXPECT_EQ(begin % 64, 0u) << value.type.name;
      uint64_t bytes =
          4 * countElements(value.type, tokens, value.type.shape.size());
      ranges[value.rows == Rows::received].push_back({begin, begin + bytes});
    }
    for (auto &list : ranges) {
      std::sort(list.begin(), list.end());
      for (size_t i = 1; i < list.size(); ++i)
        EXPECT_GE(list[i].first, list[i - 1].second);
    }
    EXPECT_LE(ranges[0].back().second, home);
    EXPECT_LE(ranges[1].back().second, received);
    EXPECT_EQ(memory.workspace(Rows::received, tokens), 10 * count);
    EXPECT_GE(memory.packedBytes(layer().steps[1].exchange, count, tokens),
              count * H * 4);
  }
}

TEST_F(CallMemoryTest, SaturatesWhereItWouldOverflow) {
  CallMemory memory(layer(), metadata.variants[0]);
  EXPECT_EQ(memory.layoutHome(INT64_MAX), UINT64_MAX);
  EXPECT_EQ(memory.layoutReceived(INT64_MAX), UINT64_MAX);
  EXPECT_EQ(memory.packedBytes(layer().steps[1].exchange, UINT64_MAX, 1),
            UINT64_MAX);
  EXPECT_EQ(memory.layoutHome(0), memory.layoutHome(0));
  EXPECT_EQ(memory.layoutReceived(0), 0u);
  EXPECT_EQ(memory.maxReceived(), 100000);
}

TEST_F(CallMemoryTest, AlignsABlock) {
  CallMemory memory(layer(), metadata.variants[0]);
  // Part 0 wants 256 bytes for one of its outputs.
  alignas(256) char block[1024];
  for (size_t shift : {size_t(0), size_t(64), size_t(192)}) {
    auto address = reinterpret_cast<uintptr_t>(memory.base(block + shift));
    EXPECT_EQ(address % 256, 0u);
    EXPECT_LE(address - reinterpret_cast<uintptr_t>(block + shift), 192u);
  }
}

} // namespace
