//===- target_test.cpp - Triples and CPU features -------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cpu/target.h"
#include "testing.h"

using namespace moe::rt;
using namespace moe::test;

namespace {

#if defined(__x86_64__)

/// Whether the runtime says that this CPU has the feature.
bool has(const char *feature) {
  Result result(checkFeatures({feature}));
  EXPECT_EQ(result.message.find("does not know"), std::string::npos) << feature;
  return result.code == MOE_RT_OK;
}

// The compiler's own answer must be the same.
#define EXPECT_SAME(name, builtin)                                             \
  EXPECT_EQ(has(name), __builtin_cpu_supports(builtin) != 0) << name

TEST(TargetTest, AgreesWithTheCompiler) {
  EXPECT_SAME("cmov", "cmov");
  EXPECT_SAME("mmx", "mmx");
  EXPECT_SAME("sse", "sse");
  EXPECT_SAME("sse2", "sse2");
  EXPECT_SAME("sse3", "sse3");
  EXPECT_SAME("ssse3", "ssse3");
  EXPECT_SAME("sse4a", "sse4a");
  EXPECT_SAME("sse4.1", "sse4.1");
  EXPECT_SAME("sse4.2", "sse4.2");
  EXPECT_SAME("popcnt", "popcnt");
  EXPECT_SAME("aes", "aes");
  EXPECT_SAME("pclmul", "pclmul");
  EXPECT_SAME("avx", "avx");
  EXPECT_SAME("avx2", "avx2");
  EXPECT_SAME("fma", "fma");
  EXPECT_SAME("bmi", "bmi");
  EXPECT_SAME("bmi2", "bmi2");
  EXPECT_SAME("gfni", "gfni");
  EXPECT_SAME("vpclmulqdq", "vpclmulqdq");
  EXPECT_SAME("avx512f", "avx512f");
  EXPECT_SAME("avx512vl", "avx512vl");
  EXPECT_SAME("avx512bw", "avx512bw");
  EXPECT_SAME("avx512dq", "avx512dq");
  EXPECT_SAME("avx512cd", "avx512cd");
  EXPECT_SAME("avx512vbmi", "avx512vbmi");
  EXPECT_SAME("avx512vbmi2", "avx512vbmi2");
  EXPECT_SAME("avx512ifma", "avx512ifma");
  EXPECT_SAME("avx512vnni", "avx512vnni");
  EXPECT_SAME("avx512bitalg", "avx512bitalg");
  EXPECT_SAME("avx512vpopcntdq", "avx512vpopcntdq");
  EXPECT_SAME("avx512bf16", "avx512bf16");
  EXPECT_SAME("avx512vp2intersect", "avx512vp2intersect");
}

TEST(TargetTest, KnowsTheBaseline) {
  for (const char *name : {"sse2", "cx8", "fxsr", "64bit", "cmov", "mmx"})
    EXPECT_TRUE(has(name)) << name;
}

#endif

TEST(TargetTest, NamesWhatIsMissing) {
  EXPECT_ERROR(checkFeatures({"frobnicate"}), MOE_RT_FAILED_PRECONDITION,
               "'frobnicate', which this runtime does not know");
  EXPECT_ERROR(checkFeatures({""}), MOE_RT_FAILED_PRECONDITION, "''");
  EXPECT_OK(checkFeatures({}));
}

} // namespace
