//===- CapacityPlanTest.cpp - Bounds of a dispatch are never too small ----===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/CapacityPlan.h"

#include "mlir/IR/AffineExpr.h"
#include "mlir/Parser/Parser.h"
#include "gtest/gtest.h"

using namespace mlir;
using namespace mlir::moe;

namespace {
class CapacityPlanTest : public testing::Test {
protected:
  CapacityPlanTest() {
    context.loadDialect<MoEDialect, func::FuncDialect, tensor::TensorDialect>();
  }

  /// A dispatch of what a gate chose, K = 2.
  DispatchOp dispatch(int64_t experts, const std::string &capacity) {
    std::string e = std::to_string(experts);
    module = parseSourceString<ModuleOp>(
        "func.func @f(%l: tensor<?x" + e +
            "xf32>, %x: tensor<?x4xf32>) {"
            "%w, %i = moe.gate %l top_k(2) : tensor<?x" +
            e +
            "xf32>"
            "%g, %o, %p = moe.dispatch %x, %i experts(" +
            e + ")" + capacity + ": tensor<?x4xf32>, tensor<?x2xi32> return }",
        &context);
    EXPECT_TRUE(module);
    DispatchOp found;
    module->walk([&](DispatchOp op) { found = op; });
    return found;
  }

  std::vector<int64_t> manyTokens() {
    std::vector<int64_t> all;
    for (int64_t tokens = 0; tokens < 3000; ++tokens)
      all.push_back(tokens);
    for (int64_t tokens = 4096; tokens <= INT32_MAX / 2; tokens *= 2)
      for (int64_t near : {tokens - 1, tokens, tokens + 1, tokens + 12345})
        all.push_back(near);
    return all;
  }

  MLIRContext context;
  OwningOpRef<ModuleOp> module;
};
} // namespace

// CapacityAttr::evaluate is what the code computes; AttributesTest compares it
// with numpy.
TEST_F(CapacityPlanTest, BoundsOfEveryCapacity) {
  struct Case {
    std::string capacity;
    bool exact;
  };
  for (int64_t experts : {2, 3, 8, 200})
    for (const Case &each : std::initializer_list<Case>{
             {"", true},
             {"capacity(<fixed = 0>)", true},
             {"capacity(<fixed = 7>)", true},
             {"capacity(<factor = 1.0>)", true},
             {"capacity(<factor = 1.25>)", true},
             {"capacity(<factor = 1.25, rounding = floor>)", true},
             {"capacity(<factor = 0.1>)", false},
             {"capacity(<factor = 0.1, rounding = floor>)", false},
             {"capacity(<factor = 2.5, minimum = 4, at_most_tokens>)", false},
             {"capacity(<factor = 2.5, at_most_tokens>)", true},
             {"capacity(<factor = 1.0e300>)", true},
             {"capacity(<factor = 1.0e-300>)", false}}) {
      DispatchOp op = dispatch(experts, each.capacity);
      ASSERT_TRUE(op);
      AffineMap rows = boundOfRows(op), one = boundOfFullest(op);
      for (int64_t tokens : manyTokens()) {
        int64_t most = INT32_MAX;
        if (std::optional<CapacityAttr> capacity = op.getCapacity())
          most = capacity->evaluate(tokens, experts);
        int64_t needed = std::min(2 * tokens, experts * most);
        std::optional<int64_t> bound = evaluateBound(rows, tokens);
        std::optional<int64_t> fullest = evaluateBound(one, tokens);
        ASSERT_TRUE(bound && fullest);
        ASSERT_GE(*bound, needed) << each.capacity << " of " << tokens;
        ASSERT_GE(*fullest, std::min(tokens, most));
        if (each.exact) {
          ASSERT_EQ(*bound, needed) << each.capacity << " of " << tokens;
          ASSERT_EQ(*fullest, std::min(tokens, most));
        }
      }
    }
}

TEST_F(CapacityPlanTest, TilesAndPaddingAreThoseOfImbalance) {
  DispatchOp op = dispatch(8, "");
  for (int64_t tile : {1, 8, 128})
    for (int64_t tokens : manyTokens()) {
      AffineMap rows = boundOfRows(op);
      EXPECT_EQ(evaluateBound(boundOfTiles(rows, 8, tile), tokens),
                maxTiles(2 * tokens, 8, tile));
      EXPECT_EQ(*evaluateBound(boundOfPadding(rows, 8, tile), tokens) +
                    2 * tokens,
                *maxPaddedRows(2 * tokens, 8, tile));
    }
}

TEST_F(CapacityPlanTest, EvaluationIsChecked) {
  AffineExpr tokens = getAffineDimExpr(0, &context);
  auto evaluate = [&](AffineExpr expr, int64_t t) {
    return evaluateBound(AffineMap::get(1, 0, expr), t);
  };
  EXPECT_EQ(evaluate(tokens * 4, INT64_MAX / 4), INT64_MAX - 3);
  EXPECT_EQ(evaluate(tokens * 4, INT64_MAX / 4 + 1), std::nullopt);
  EXPECT_EQ(evaluate(tokens + 1, INT64_MAX), std::nullopt);
  EXPECT_EQ(evaluate((tokens - 9).floorDiv(4), 2), -2);
  EXPECT_EQ(evaluate((tokens - 9).ceilDiv(4), 2), -1);
  EXPECT_EQ(evaluate((tokens - 9) % 4, 2), 1);
}

TEST_F(CapacityPlanTest, OverflowIsImpossibleOnlyWhereProved) {
  auto policy = [&](const std::string &capacity, int64_t tokens) {
    return overflowPolicy(dispatch(8, capacity), tokens);
  };
  EXPECT_EQ(policy("", INT32_MAX), OverflowPolicy::Impossible);
  EXPECT_EQ(policy("capacity(<fixed = 7>)", 7), OverflowPolicy::Impossible);
  EXPECT_EQ(policy("capacity(<fixed = 7>)", 8), OverflowPolicy::Drop);
  EXPECT_EQ(policy("capacity(<factor = 8.0, at_most_tokens>)", 100),
            OverflowPolicy::Impossible);
  EXPECT_EQ(policy("capacity(<factor = 7.9>)", 100), OverflowPolicy::Drop);
  EXPECT_EQ(policy("capacity(<factor = 1.0, minimum = 100>)", 100),
            OverflowPolicy::Impossible);
  EXPECT_EQ(
      policy("capacity(<factor = 1.0>) overflow(next_choice) choices(1)", 100),
      OverflowPolicy::NextChoice);
}

// On a GPU with tiles for 8, 64 and 128 rows: the first for the rows on
// average.
TEST(CapacityPlan, TilesByRows) {
  PlanTarget target;
  target.variants = {{"low", 8}, {"middle", 64}, {"high", 128}};
  auto chosen = [&](std::optional<int64_t> rows, int64_t experts) {
    return tileByRows(target, rows, experts).name;
  };
  EXPECT_EQ(chosen(0, 40), "low");
  EXPECT_EQ(chosen(320, 40), "low");
  EXPECT_EQ(chosen(321, 40), "middle");
  EXPECT_EQ(chosen(40 * 64, 40), "middle");
  EXPECT_EQ(chosen(40 * 64 + 1, 40), "high");
  EXPECT_EQ(chosen(64, 1), "middle");
  EXPECT_EQ(chosen(65, 1), "high");
  EXPECT_EQ(chosen(257, 1), "high");
  EXPECT_EQ(chosen(std::nullopt, 40), "high");
  // Tiles that are alike are no choice.
  target.variants = {{"one", 8}, {"other", 8}};
  EXPECT_EQ(chosen(1000, 1000), "one");
  target.variants = {{"only", 8}};
  EXPECT_EQ(chosen(1000, 8), "only");
}
