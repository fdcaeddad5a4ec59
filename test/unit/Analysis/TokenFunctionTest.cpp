//===- TokenFunctionTest.cpp - Checked arithmetic on T --------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/TokenFunction.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/Parser/Parser.h"
#include "gtest/gtest.h"

using namespace mlir;
using namespace mlir::moe;

/// What the function returns for T, which is its first argument.
static std::optional<int64_t> evaluate(const std::string &body,
                                       int64_t tokens) {
  MLIRContext context;
  context.loadDialect<arith::ArithDialect, func::FuncDialect>();
  auto module = parseSourceString<ModuleOp>(
      "func.func @f(%t: index, %other: index) -> index {" + body + "}",
      &context);
  EXPECT_TRUE(module);
  if (!module)
    return std::nullopt;
  func::FuncOp function = *module->getOps<func::FuncOp>().begin();
  TokenFunction at(function.getArgument(0), tokens);
  return at.evaluate(function.getBody().front().getTerminator()->getOperand(0));
}

TEST(TokenFunction, Arithmetic) {
  std::string body = R"(
      %c3 = arith.constant 3 : index
      %c100 = arith.constant 100 : index
      %c-64 = arith.constant -64 : index
      %0 = arith.muli %t, %c3 : index
      %1 = arith.maxsi %0, %c100 : index
      %2 = arith.andi %1, %c-64 : index
      return %2 : index)";
  EXPECT_EQ(evaluate(body, 0), 64);
  EXPECT_EQ(evaluate(body, 50), 128);
  EXPECT_EQ(evaluate(body, int64_t(1) << 40), int64_t(3) << 40);
}

TEST(TokenFunction, Argument) {
  EXPECT_EQ(evaluate("return %t : index", 7), 7);
  EXPECT_EQ(evaluate("return %other : index", 7), std::nullopt);
}

TEST(TokenFunction, SumProductAndDifferenceAreChecked) {
  std::string product = "%0 = arith.muli %t, %t : index return %0 : index";
  EXPECT_EQ(evaluate(product, 3037000499), 9223372030926249001);
  EXPECT_EQ(evaluate(product, 3037000500), std::nullopt);
  std::string sum = "%0 = arith.addi %t, %t : index return %0 : index";
  EXPECT_EQ(evaluate(sum, INT64_MAX / 2), INT64_MAX - 1);
  EXPECT_EQ(evaluate(sum, INT64_MAX / 2 + 1), std::nullopt);
  std::string difference = R"(
      %c-2 = arith.constant -2 : index
      %0 = arith.subi %c-2, %t : index
      return %0 : index)";
  EXPECT_EQ(evaluate(difference, INT64_MAX - 1), INT64_MIN);
  EXPECT_EQ(evaluate(difference, INT64_MAX), std::nullopt);
}

TEST(TokenFunction, OverflowSpreads) {
  EXPECT_EQ(evaluate(R"(
      %c0 = arith.constant 0 : index
      %0 = arith.muli %t, %t : index
      %1 = arith.minsi %0, %c0 : index
      return %1 : index)",
                     INT64_MAX),
            std::nullopt);
}
