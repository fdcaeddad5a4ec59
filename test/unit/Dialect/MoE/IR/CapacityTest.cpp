//===- CapacityTest.cpp - Capacities at compile time and at run time ------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/Matchers.h"
#include "mlir/IR/Verifier.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Transforms/Passes.h"
#include "gtest/gtest.h"

#include <cmath>
#include <limits>

using namespace mlir;
using namespace mlir::moe;

namespace {
class CapacityTest : public testing::Test {
protected:
  CapacityTest() {
    context.loadDialect<MoEDialect, arith::ArithDialect, func::FuncDialect>();
  }
  CapacityAttr fixed(int64_t rows) {
    return CapacityAttr::get(&context, rows, 0.0, Rounding::Ceil, 0, false);
  }
  CapacityAttr factor(double value, Rounding rounding = Rounding::Ceil,
                      int64_t minimum = 0, bool atMostTokens = false) {
    return CapacityAttr::get(&context, -1, value, rounding, minimum,
                             atMostTokens);
  }
  MLIRContext context;
};
} // namespace

TEST_F(CapacityTest, Formula) {
  // Mesh-TensorFlow, DeepSpeed and Switch, by hand.
  CapacityAttr mesh = factor(1.25, Rounding::Floor, 4, true);
  EXPECT_EQ(mesh.evaluate(100, 8), 15); // 15.625
  EXPECT_EQ(mesh.evaluate(8, 8), 4);    // 1.25, at least 4
  EXPECT_EQ(mesh.evaluate(2, 1), 4);    // 2.5, at most 2 tokens, at least 4
  EXPECT_EQ(mesh.evaluate(1000, 1), 1000);
  CapacityAttr deepspeed = factor(2.0, Rounding::Ceil, 4);
  EXPECT_EQ(deepspeed.evaluate(100, 8), 25);
  EXPECT_EQ(deepspeed.evaluate(101, 8), 26); // 25.25
  EXPECT_EQ(deepspeed.evaluate(0, 8), 4);
  EXPECT_EQ(deepspeed.evaluate(100, 1), 200);
  EXPECT_EQ(fixed(64).evaluate(1, 8), 64);
  EXPECT_EQ(fixed(0).evaluate(100, 8), 0);
}

TEST_F(CapacityTest, Extremes) {
  EXPECT_EQ(factor(1e308).evaluate(1, 1), INT32_MAX);
  EXPECT_EQ(factor(1e308).evaluate(INT32_MAX, 1), INT32_MAX); // infinite
  EXPECT_EQ(factor(1e308).evaluate(0, 1), 0);
  EXPECT_EQ(factor(5e-324).evaluate(INT32_MAX, INT32_MAX - 1), 1);
  EXPECT_EQ(factor(5e-324, Rounding::Floor).evaluate(INT32_MAX, 1), 0);
  EXPECT_EQ(factor(1.0).evaluate(INT32_MAX, 1), INT32_MAX);
  EXPECT_EQ(factor(1.0, Rounding::Ceil, INT32_MAX).evaluate(0, 8), INT32_MAX);
}

/// buildCapacity for every combination, folded with constant numbers of tokens,
/// says what CapacityAttr::evaluate says.
TEST_F(CapacityTest, BuiltArithmeticIsEvaluate) {
  const double factors[] = {1.0, 1.25,        2.0,    0.1,    1.0 / 3, 0.7,
                            2.5, 3.0 + 1e-15, 5e-324, 1e-300, 1e10,    1e308};
  const int64_t experts[] = {
      1, 2, 3, 7, 8, 60, 64, 128, 384, 1000000000, INT32_MAX - 1};
  const int64_t tokens[] = {0,  1,   2,    3,    4,       5,         7,
                            8,  9,   15,   16,   100,     127,       1023,
                            64, 384, 4096, 4097, 1000003, 715827882, INT32_MAX};
  const int64_t minima[] = {0, 4, INT32_MAX};

  SmallVector<CapacityAttr> capacities{fixed(0), fixed(64), fixed(INT32_MAX)};
  for (double value : factors)
    for (Rounding rounding : {Rounding::Ceil, Rounding::Floor})
      for (int64_t minimum : minima)
        for (bool atMostTokens : {false, true})
          capacities.push_back(factor(value, rounding, minimum, atMostTokens));

  Location loc = UnknownLoc::get(&context);
  OwningOpRef<ModuleOp> module = ModuleOp::create(loc);
  OpBuilder b(&context);
  SmallVector<std::pair<func::FuncOp, CapacityAttr>> functions;
  for (CapacityAttr capacity : capacities) {
    SmallVector<Type> types(std::size(experts) * std::size(tokens),
                            b.getIndexType());
    b.setInsertionPointToEnd(module->getBody());
    auto function =
        func::FuncOp::create(b, loc, "f" + std::to_string(functions.size()),
                             b.getFunctionType({}, types));
    b.setInsertionPointToStart(function.addEntryBlock());
    SmallVector<Value> values;
    for (int64_t e : experts)
      for (int64_t t : tokens)
        values.push_back(buildCapacity(
            b, loc, capacity, arith::ConstantIndexOp::create(b, loc, t), e));
    func::ReturnOp::create(b, loc, values);
    functions.push_back({function, capacity});
  }
  ASSERT_TRUE(succeeded(verify(*module)));
  PassManager manager(&context);
  manager.addPass(createCanonicalizerPass());
  ASSERT_TRUE(succeeded(manager.run(*module)));

  for (auto [function, capacity] : functions) {
    Operation *returned = function.getBody().front().getTerminator();
    unsigned index = 0;
    for (int64_t e : experts)
      for (int64_t t : tokens) {
        APInt value;
        ASSERT_TRUE(
            matchPattern(returned->getOperand(index++), m_ConstantInt(&value)));
        std::string text;
        llvm::raw_string_ostream(text) << capacity;
        ASSERT_EQ(value.getSExtValue(), capacity.evaluate(t, e))
            << text << " of " << t << " tokens, " << e << " experts";
      }
  }
}
