//===- UnitsTest.cpp - Values with units ----------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/Units.h"

#include <gtest/gtest.h>

using namespace mlir::moe;

TEST(UnitsTest, Bytes) {
  EXPECT_EQ(parseBytes("4096"), 4096);
  EXPECT_EQ(parseBytes("0"), 0);
  EXPECT_EQ(parseBytes("7B"), 7);
  EXPECT_EQ(parseBytes("64MiB"), 64 << 20);
  EXPECT_EQ(parseBytes("2GB"), 2000000000);
  EXPECT_EQ(parseBytes("0.5GiB"), 1 << 29);
  EXPECT_EQ(parseBytes("1e3KiB"), 1024000);
  // Integers are exact beyond what a double holds.
  EXPECT_EQ(parseBytes("9223372036854775807"), INT64_MAX);
  for (const char *text :
       {"", "B", "GiB", "-4", "+4", "4XB", "4 MiB", "0.3KiB", "9999999999GB",
        "9223372036854775808", "nan", "infB", "0x10", "1e400"})
    EXPECT_EQ(parseBytes(text), std::nullopt) << text;
}

TEST(UnitsTest, Rates) {
  EXPECT_EQ(parseBandwidth("1e11"), 1e11);
  EXPECT_EQ(parseBandwidth("100GB/s"), 1e11);
  EXPECT_EQ(parseBandwidth("0.5GiB/s"), 0x1p29);
  EXPECT_EQ(parseFlops("1e12"), 1e12);
  EXPECT_EQ(parseFlops("2TFLOP/s"), 2e12);
  EXPECT_EQ(parseFlops("250Gflop/s"), 250e9);
  // A unit needs its `/s`; bytes are no operations.
  for (const char *text : {"", "0", "-1", "nan", "inf", "5GB", "GB/s", "/s",
                           "2Tflop", "0GB/s", "1e400"}) {
    EXPECT_EQ(parseBandwidth(text), std::nullopt) << text;
    EXPECT_EQ(parseFlops(text), std::nullopt) << text;
  }
  EXPECT_EQ(parseFlops("5GB/s"), std::nullopt);
  EXPECT_EQ(parseBandwidth("5Gflop/s"), std::nullopt);
}

TEST(UnitsTest, TokenRange) {
  EXPECT_EQ(parseTokenRange("0:0"), std::pair(int64_t(0), int64_t(0)));
  EXPECT_EQ(parseTokenRange("1:4096"), std::pair(int64_t(1), int64_t(4096)));
  for (const char *text : {"", ":", "7", "7:6", "-1:6", "1:2:3", "a:b", "1:"})
    EXPECT_EQ(parseTokenRange(text), std::nullopt) << text;
}
