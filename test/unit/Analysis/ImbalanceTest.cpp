//===- ImbalanceTest.cpp - Against scipy's binomial distribution ----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The numbers are of scipy 1.x: sums over stats.binom(T, p).pmf, cdf and sf of
// all experts, with p from optimize.brentq on Σ min(1, c·w) = K.
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/Imbalance.h"

#include "llvm/Support/FileSystem.h"
#include "llvm/Support/raw_ostream.h"
#include "gtest/gtest.h"

#include <cmath>
#include <functional>
#include <random>

using namespace mlir::moe;

static RowDistribution model(llvm::StringRef text, int64_t experts,
                             int64_t topK) {
  llvm::Expected<Imbalance> imbalance = Imbalance::parse(text);
  if (!imbalance) {
    ADD_FAILURE() << llvm::toString(imbalance.takeError());
    return RowDistribution::worst(experts, topK);
  }
  auto rows = imbalance->distribution(0, experts, topK);
  if (!rows) {
    ADD_FAILURE() << llvm::toString(rows.takeError());
    return RowDistribution::worst(experts, topK);
  }
  return *rows;
}

static std::string errorOf(llvm::StringRef text) {
  llvm::Expected<Imbalance> imbalance = Imbalance::parse(text);
  if (imbalance)
    return "";
  return llvm::toString(imbalance.takeError());
}

#define EXPECT_CLOSE(actual, expected)                                         \
  EXPECT_NEAR(actual, expected, 2e-8 * std::abs(expected))

//===----------------------------------------------------------------------===//
// Bounds
//===----------------------------------------------------------------------===//

// Every way to give R rows to E experts, by brute force.
TEST(Imbalance, TilesOfEveryRouting) {
  for (int64_t experts = 1; experts <= 4; ++experts)
    for (int64_t tile : {1, 2, 3, 8})
      for (int64_t rows = 0; rows <= 12; ++rows) {
        int64_t most = 0;
        std::vector<int64_t> counts(experts, 0);
        std::function<void(int64_t, int64_t)> give = [&](int64_t e,
                                                         int64_t left) {
          if (e + 1 == experts) {
            counts[e] = left;
            int64_t tiles = 0;
            for (int64_t count : counts)
              tiles += (count + tile - 1) / tile;
            most = std::max(most, tiles);
            return;
          }
          for (counts[e] = 0; counts[e] <= left; ++counts[e])
            give(e + 1, left - counts[e]);
        };
        give(0, rows);
        EXPECT_EQ(maxTiles(rows, experts, tile), most);
        EXPECT_LE(most * tile, *maxPaddedRows(rows, experts, tile));
      }
}

TEST(Imbalance, BoundsAreChecked) {
  EXPECT_EQ(maxPaddedRows(32768, 256, 128), 32768 + 256 * 127);
  EXPECT_EQ(maxPaddedRows(8, 256, 128), 8 * 128);
  EXPECT_EQ(maxPaddedRows(INT64_MAX - 6, 2, 4), INT64_MAX);
  EXPECT_EQ(maxPaddedRows(INT64_MAX - 5, 2, 4), std::nullopt);
  EXPECT_EQ(maxPaddedRows(int64_t(1) << 40, int64_t(1) << 40, int64_t(1) << 40),
            std::nullopt);
  EXPECT_EQ(maxTiles(INT64_MAX, 2, 4), std::nullopt);
}

//===----------------------------------------------------------------------===//
// Models
//===----------------------------------------------------------------------===//

TEST(Imbalance, Worst) {
  RowDistribution rows = model("worst", 256, 8);
  EXPECT_EQ(rows.boundOfFullest(4096), 4096);
  EXPECT_EQ(rows.expectedActive(2), 16);
  EXPECT_EQ(rows.expectedActive(int64_t(1) << 62), 256);
  EXPECT_EQ(rows.overflowProbability(4096, 4096), 0);
  EXPECT_EQ(rows.overflowProbability(4096, 4095), 1);
  EXPECT_EQ(rows.expectedDropped(4096, 1024), 0.75);
  EXPECT_EQ(rows.method(7), Method::Proved);
}

TEST(Imbalance, Uniform) {
  RowDistribution rows = model("uniform:1e-6", 256, 8);
  EXPECT_EQ(rows.method(4096), Method::Exact);
  EXPECT_CLOSE(rows.expectedFullest(1), 0.999704744);
  EXPECT_CLOSE(rows.expectedFullest(64), 6.8464061);
  EXPECT_CLOSE(rows.expectedFullest(4096), 160.560004);
  EXPECT_EQ(rows.boundOfFullest(0), 0);
  EXPECT_EQ(rows.boundOfFullest(1), 1);
  EXPECT_EQ(rows.boundOfFullest(64), 14);
  EXPECT_EQ(rows.boundOfFullest(4096), 197);
  EXPECT_EQ(rows.expectedActive(0), 0);
  EXPECT_CLOSE(rows.expectedActive(1), 8.0);
  EXPECT_CLOSE(rows.expectedActive(64), 222.442488);
  EXPECT_CLOSE(rows.expectedPadded(64, 8), 1779.87829);
  EXPECT_CLOSE(rows.expectedPadded(64, 128), 28472.6384);
  EXPECT_CLOSE(rows.expectedPadded(4096, 8), 33664.0);
  EXPECT_CLOSE(rows.expectedPadded(4096, 128), 48382.3646);
  EXPECT_CLOSE(rows.overflowProbability(64, 10), 0.00114243177);
  EXPECT_CLOSE(rows.overflowProbability(4096, 160), 0.607597203);
  EXPECT_CLOSE(rows.overflowProbability(4096, 200), 2.00424469e-07);
  EXPECT_CLOSE(rows.expectedDropped(64, 3), 0.104746158);
  EXPECT_CLOSE(rows.expectedDropped(4096, 160), 7.59161692e-05);
}

TEST(Imbalance, UniformChoosesEveryExpert) {
  RowDistribution rows = model("uniform", 8, 8);
  EXPECT_EQ(rows.expectedFullest(100), 100);
  EXPECT_EQ(rows.boundOfFullest(100), 100);
  EXPECT_EQ(rows.expectedActive(1), 8);
  EXPECT_EQ(rows.expectedPadded(100, 64), 8 * 128);
  EXPECT_EQ(rows.overflowProbability(100, 99), 1);
  EXPECT_EQ(rows.expectedFullest(0), 0);
}

// At factor 1.25 it drops 17 %.
TEST(Imbalance, Zipf) {
  RowDistribution rows = model("zipf:0.5", 256, 8);
  EXPECT_CLOSE(rows.expectedFullest(4096), 1071.86951);
  EXPECT_EQ(rows.boundOfFullest(4096), 1207);
  EXPECT_CLOSE(rows.expectedPadded(4096, 128), 46072.6798);
  EXPECT_CLOSE(rows.expectedDropped(4096, 160), 0.175132426);
  EXPECT_CLOSE(rows.expectedDropped(4096, 700), 0.0131187072);
}

// The first expert would be chosen more than once by every token: it is chosen
// by all, and the others share what is left.
TEST(Imbalance, ZipfWithACertainExpert) {
  RowDistribution rows = model("zipf:1.5:1e-3", 8, 2);
  EXPECT_CLOSE(rows.expectedFullest(100), 100.0);
  EXPECT_CLOSE(rows.expectedActive(100), 7.98945522);
  EXPECT_CLOSE(rows.expectedPadded(100, 16), 271.127743);
  EXPECT_CLOSE(rows.expectedDropped(100, 50), 0.250064913);
  EXPECT_CLOSE(rows.expectedDropped(100, 90), 0.05);
}

// Simulated: tokens that choose 8 of 256, all sets alike, 400 times.
TEST(Imbalance, FullestOfSimulatedTokens) {
  RowDistribution rows = model("uniform", 256, 8);
  std::mt19937 random(3);
  double sum = 0;
  for (int round = 0; round < 400; ++round) {
    std::vector<int> counts(256, 0), experts(256);
    for (int e = 0; e < 256; ++e)
      experts[e] = e;
    for (int token = 0; token < 64; ++token)
      for (int k = 0; k < 8; ++k) {
        std::swap(experts[k], experts[k + random() % (256 - k)]);
        ++counts[experts[k]];
      }
    sum += *std::max_element(counts.begin(), counts.end());
  }
  // The deviation of one is 0.8, of their mean 0.04.
  EXPECT_NEAR(rows.expectedFullest(64), sum / 400, 0.15);
}

// For 2^31 tokens no probability is added up one by one; the bound is a little
// above the quantile, and 1 + z·σ/μ is its leading term.
TEST(Imbalance, ManyTokens) {
  RowDistribution rows = model("uniform:1e-6", 8, 4);
  EXPECT_EQ(rows.method(100000000), Method::Bound);
  EXPECT_EQ(rows.method(1000000), Method::Exact);
  int64_t bound = rows.boundOfFullest(100000000);
  EXPECT_GE(bound, 50025789); // scipy: binom(1e8, 0.5).isf(1e-6 / 8)
  double leading = 5e7 + std::sqrt(2 * std::log(8 / 1e-6)) * std::sqrt(2.5e7);
  EXPECT_NEAR(double(bound), leading, 20);
  EXPECT_LE(rows.overflowProbability(100000000, bound), 1e-6);
  EXPECT_GT(rows.overflowProbability(100000000, bound - 5), 0.9e-6);
  EXPECT_NEAR(rows.expectedPadded(100000000, 128), 8 * (5e7 + 63.5), 1e-3);
  // E[max] of 8 normal variables is 1.4236 deviations.
  EXPECT_NEAR(rows.expectedFullest(100000000), 5e7 + 1.4236 * 5000, 10);
  EXPECT_NEAR(rows.expectedDropped(100000000, 50000000),
              8 * 5000 / std::sqrt(2 * M_PI) / 4e8, 1e-9);
  EXPECT_GT(model("zipf:1", 512, 8).boundOfFullest(INT32_MAX), 0);
}

TEST(Imbalance, Names) {
  EXPECT_EQ(errorOf("worst"), "");
  EXPECT_EQ(errorOf("uniform"), "");
  EXPECT_EQ(errorOf("zipf:0"), "");
  for (llvm::StringRef bad : {"", "worst:", "worst:1", "uniform:", "even"})
    EXPECT_EQ(
        errorOf(bad),
        ("expected an imbalance of worst, uniform[:DELTA], zipf:S[:DELTA] "
         "or histogram:FILE[:DELTA], got '" +
         bad + "'")
            .str());
  for (llvm::StringRef bad : {"uniform:0", "uniform:1", "uniform:x",
                              "uniform:nan", "zipf:1:-1", "uniform:1e-31"})
    EXPECT_NE(errorOf(bad).find("expected a probability of at least 1e-30"),
              std::string::npos)
        << bad.str();
  for (llvm::StringRef bad :
       {"zipf", "zipf:", "zipf:-1", "zipf:nan", "zipf:65"})
    EXPECT_NE(errorOf(bad).find("expected zipf:S with an exponent S"),
              std::string::npos)
        << bad.str();
}

//===----------------------------------------------------------------------===//
// Histograms
//===----------------------------------------------------------------------===//

namespace {
class HistogramTest : public testing::Test {
protected:
  HistogramTest() {
    int descriptor;
    llvm::cantFail(llvm::errorCodeToError(llvm::sys::fs::createTemporaryFile(
        "routing", "json", descriptor, path)));
    llvm::sys::fs::closeFile(descriptor);
  }
  ~HistogramTest() override { llvm::sys::fs::remove(path); }

  std::string name(llvm::StringRef text, llvm::StringRef suffix = "") {
    std::error_code error;
    llvm::raw_fd_ostream(path, error) << text;
    return ("histogram:" + path + suffix).str();
  }
  /// A file with this as its only dispatch.
  std::string dispatch(llvm::StringRef text) {
    return name(R"({"format": 1, "dispatches": [{)" + text.str() + "}]}");
  }

  llvm::SmallString<64> path;
};
} // namespace

TEST_F(HistogramTest, IsTheModel) {
  std::string text = R"({"format": 1, "dispatches": [
      {"num_experts": 4, "top_k": 1, "calls": 2, "choices": 100, "dropped": 0,
       "tokens_per_expert": [10, 0, 30, 60]}]})";
  RowDistribution rows = model(name(text, ":1e-4"), 4, 1);
  EXPECT_EQ(rows.getDelta(), 1e-4);
  EXPECT_CLOSE(rows.expectedFullest(50), 30.0013087);
  EXPECT_EQ(rows.boundOfFullest(50), 42);
  EXPECT_CLOSE(rows.expectedActive(50), 2.99484621);
  EXPECT_CLOSE(rows.expectedPadded(50, 16), 72.7646283);
  EXPECT_CLOSE(rows.overflowProbability(50, 40), 0.000757296583);
  EXPECT_CLOSE(rows.expectedDropped(50, 40), 2.13224643e-05);
}

TEST_F(HistogramTest, OfAnotherLayer) {
  auto imbalance = Imbalance::parse(dispatch(
      R"("num_experts": 2, "top_k": 1, "choices": 3, "dropped": 0,
         "tokens_per_expert": [1, 2])"));
  ASSERT_TRUE(bool(imbalance));
  auto errorOf = [&](size_t index, int64_t experts, int64_t topK) {
    auto rows = imbalance->distribution(index, experts, topK);
    return rows ? "" : llvm::toString(rows.takeError());
  };
  EXPECT_EQ(errorOf(0, 2, 1), "");
  EXPECT_NE(
      errorOf(0, 8, 1).find("is of another layer: dispatch 0 has 8 experts "
                            "and top_k 1, the histogram 2 and 1"),
      std::string::npos);
  EXPECT_NE(errorOf(0, 2, 2).find("is of another layer"), std::string::npos);
  EXPECT_NE(
      errorOf(1, 2, 1).find("has 1 dispatches, expected one for dispatch 1"),
      std::string::npos);
}

TEST_F(HistogramTest, BadFiles) {
  auto expectError = [&](const std::string &text, llvm::StringRef message) {
    std::string error = errorOf(text);
    EXPECT_NE(error.find(message.str()), std::string::npos) << error;
  };
  expectError("histogram:/no/such/file", "No such file");
  expectError("histogram:", "expected an imbalance of worst");
  expectError(name(""), "Unexpected EOF");
  expectError(name("[]"), "expected an object with 'format' 1");
  expectError(name(R"({"format": 2})"), "expected an object with 'format' 1");
  expectError(name(R"({"format": 1})"), "expected 'dispatches' to be a list");
  expectError(name(R"({"format": 1, "dispatches": [7]})"),
              "expected an object");
  expectError(dispatch(""), "expected 'num_experts' to be an integer");
  expectError(dispatch(R"("num_experts": 2, "top_k": -1)"),
              "expected 'top_k' to be an integer of at least 0");
  auto counts = [&](llvm::StringRef rest) {
    return dispatch(R"("num_experts": 2, "top_k": 1, )" + rest.str());
  };
  expectError(
      counts(R"("choices": 3, "dropped": 0)"),
      "expected one number of 'tokens_per_expert' for each of 2 experts, "
      "got 0");
  expectError(counts(R"("choices": 3, "dropped": 0,
                        "tokens_per_expert": [1, -2])"),
              "expected 'tokens_per_expert' to be integers");
  expectError(counts(R"("choices": 3, "dropped": 0, "tokens_per_expert":
                        [9223372036854775807, 1])"),
              "with a sum within 64 bits");
  expectError(counts(R"("choices": 3, "dropped": 1,
                        "tokens_per_expert": [1, 1])"),
              "expected a routing without drops, got 1 dropped choices");
  expectError(
      counts(R"("choices": 3, "dropped": 0,
                        "tokens_per_expert": [1, 1])"),
      "expected the tokens of the experts to sum to the 3 choices, got 2");
  expectError(counts(R"("choices": 0, "dropped": 0,
                        "tokens_per_expert": [0, 0])"),
              "expected at least one choice");
}
