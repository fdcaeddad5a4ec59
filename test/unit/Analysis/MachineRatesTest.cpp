//===- MachineRatesTest.cpp - How fast machines are -----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/MachineRates.h"

#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/MLIRContext.h"

#include "gtest/gtest.h"

using namespace mlir;
using namespace mlir::moe;

namespace {

TEST(MachineRates, GPUs) {
  for (StringRef name : listGPUs()) {
    std::optional<MachineRates> rates = findGPURates(name);
    ASSERT_TRUE(rates) << name.str();
    // Tensor cores are faster than others, and no GPU has less than 300 GB/s.
    EXPECT_GT(rates->f32, 1e13) << name.str();
    EXPECT_GT(rates->f16, rates->f32) << name.str();
    EXPECT_EQ(rates->bf16, rates->f16) << name.str();
    EXPECT_GE(rates->f8, rates->f16) << name.str();
    EXPECT_GE(rates->bandwidth, 3e11) << name.str();
    EXPECT_LT(rates->f8 / rates->bandwidth, 1e3) << name.str();
    EXPECT_FALSE(rates->bandwidthAssumed);
  }
  EXPECT_EQ(findGPURates("h100-sxm")->bandwidth, 3.35e12);
}

TEST(MachineRates, Architectures) {
  auto nameOf = [](StringRef architecture) {
    std::optional<MachineRates> rates = findGPURates(architecture);
    return rates ? rates->name : "none";
  };
  EXPECT_EQ(nameOf("sm_80"), "NVIDIA A100 SXM 80GB");
  EXPECT_EQ(nameOf("sm_90a"), "NVIDIA H100 SXM");
  EXPECT_EQ(nameOf("sm_90"), nameOf("sm_90a"));
  EXPECT_EQ(nameOf("sm_100a"), "NVIDIA B200 (HGX)");
  // One that is not in the table counts as the one before.
  EXPECT_EQ(nameOf("sm_87"), nameOf("sm_86"));
  EXPECT_EQ(nameOf("sm_999"), nameOf("sm_120"));
  for (const char *other : {"", "sm_", "sm_70", "h100", "gfx942", "host"})
    EXPECT_EQ(nameOf(other), "none") << other;
}

TEST(MachineRates, Types) {
  MLIRContext context;
  MachineRates rates;
  rates.f32 = 1;
  rates.f16 = 2;
  rates.bf16 = 3;
  rates.f8 = 4;
  EXPECT_EQ(rates.flops(Float32Type::get(&context)), 1);
  EXPECT_EQ(rates.flops(Float16Type::get(&context)), 2);
  EXPECT_EQ(rates.flops(BFloat16Type::get(&context)), 3);
  EXPECT_EQ(rates.flops(Float8E4M3FNType::get(&context)), 4);
  EXPECT_EQ(rates.flops(Float64Type::get(&context)), 1);
  EXPECT_EQ(rates.flops(IntegerType::get(&context, 8)), 1);
}

/// A processor of 4 cores at 2 GHz.
MachineRates ratesWith(std::vector<std::string> features,
                       StringRef cpu = "generic") {
  ProcessorDescription processor = ProcessorDescription::of(cpu, features);
  processor.cores = 4;
  processor.hertz = 2e9;
  return processor.rates();
}

TEST(MachineRates, Processors) {
  EXPECT_EQ(ratesWith({"sse2"}).f32, 8e9 * 2 * 4);
  EXPECT_EQ(ratesWith({"sse2", "avx2", "fma"}).f32, 8e9 * 2 * 8 * 2);
  MachineRates wide = ratesWith({"avx2", "fma", "avx512f"}, "x86-64-v4");
  EXPECT_EQ(wide.f32, 8e9 * 2 * 16 * 2);
  EXPECT_EQ(wide.bf16, wide.f32);
  EXPECT_EQ(wide.name,
            "x86-64-v4, 4 cores at 2.00 GHz with vectors of 512 bits");
  MachineRates dots = ratesWith({"avx2", "fma", "avx512f", "avx512bf16"});
  EXPECT_EQ(dots.bf16, 2 * dots.f32);
  EXPECT_EQ(dots.f16, dots.f32);
  // Vectors of 512 bits as two halves.
  EXPECT_EQ(ratesWith({"avx512f"}, "znver4").f32, wide.f32 / 2);
  EXPECT_EQ(ratesWith({"neon"}).f32, 8e9 * 2 * 4 * 2);
  EXPECT_EQ(wide.bandwidth, 8e10);
  EXPECT_TRUE(wide.bandwidthAssumed);

  // Whatever this machine is.
  MachineRates here = ProcessorDescription::host().rates();
  EXPECT_GT(here.f32, 1e9);
  EXPECT_LT(here.f32, 1e15);
  EXPECT_GE(here.bandwidth, 2e10);
}

} // namespace
