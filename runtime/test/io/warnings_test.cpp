//===- warnings_test.cpp - What the compiler warned of --------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "testing.h"

#include "moe_rt/io.h"

using namespace moe::io;

namespace {

TEST(WarningsTest, AreThoseOfTheMetadata) {
  EXPECT_EQ(readWarnings(R"({"format": 3, "warnings": ["a:1:2: slow", "b"]})"),
            (std::vector<std::string>{"a:1:2: slow", "b"}));
}

TEST(WarningsTest, AreNoneWhereNothingSaysSo) {
  for (const char *metadata :
       {"{}", "[]", "", "{", R"({"warnings": "a"})",
        R"({"warnings": {"a": "b"}})", R"({"warnings": [1, null]})"})
    EXPECT_TRUE(readWarnings(metadata).empty()) << metadata;
}

} // namespace
