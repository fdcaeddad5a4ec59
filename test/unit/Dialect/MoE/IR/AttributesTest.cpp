//===- AttributesTest.cpp - Attributes made by C++ ------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/AsmParser/AsmParser.h"
#include "mlir/IR/Diagnostics.h"
#include "gtest/gtest.h"

#include <cmath>
#include <limits>
#include <random>

using namespace mlir;
using namespace mlir::moe;

namespace {
class AttributesTest : public testing::Test {
protected:
  AttributesTest() { context.loadDialect<MoEDialect>(); }

  std::string print(Attribute attribute) {
    std::string text;
    llvm::raw_string_ostream(text) << attribute;
    return text;
  }
  /// What is printed parses to the same attribute.
  void expectRoundTrip(Attribute attribute) {
    std::string text = print(attribute);
    EXPECT_EQ(parseAttribute(text, &context), attribute) << text;
  }
  /// getChecked refuses, with a diagnostic.
  template <typename AttrT, typename... Args> bool refuses(Args... args) {
    unsigned errors = 0;
    ScopedDiagnosticHandler handler(&context, [&](Diagnostic &) { ++errors; });
    auto emitError = [&] { return mlir::emitError(UnknownLoc::get(&context)); };
    auto attribute = AttrT::getChecked(emitError, &context, args...);
    return !attribute && errors == 1;
  }
  MLIRContext context;
};
} // namespace

TEST_F(AttributesTest, NumbersKeepTheirBits) {
  std::mt19937_64 random(7);
  unsigned tried = 0;
  while (tried < 2000) {
    double value = llvm::bit_cast<double>(random() & 0x7fffffffffffffff);
    if (!std::isfinite(value) || value == 0.0)
      continue;
    ++tried;
    expectRoundTrip(CapacityAttr::get(&context, -1, value, Rounding::Floor,
                                      int64_t(tried), true));
    expectRoundTrip(NormalizeAttr::get(&context, NormalizeKind::Norm, value,
                                       value, NormalizeGuard::Clamp));
  }
  for (double value : {5e-324, 2.2250738585072014e-308,
                       std::numeric_limits<double>::max(), 0.1, 1.0 / 3})
    expectRoundTrip(NormalizeAttr::get(&context, NormalizeKind::Sum, 2.0, value,
                                       NormalizeGuard::Add));
}

TEST_F(AttributesTest, EveryValidCombinationRoundTrips) {
  for (auto kind :
       {NormalizeKind::Sum, NormalizeKind::Norm, NormalizeKind::Softmax})
    for (double p : {2.0, 1.0, 3.5})
      for (double epsilon : {0.0, 1e-20, 0.5})
        for (auto guard : {NormalizeGuard::Add, NormalizeGuard::Clamp}) {
          ScopedDiagnosticHandler handler(&context, [](Diagnostic &) {});
          auto attribute = NormalizeAttr::getChecked(
              [&] { return mlir::emitError(UnknownLoc::get(&context)); },
              &context, kind, Real(p), Real(epsilon), guard);
          bool valid =
              kind == NormalizeKind::Norm ||
              (p == 2.0 && (kind == NormalizeKind::Sum ||
                            (epsilon == 0.0 && guard == NormalizeGuard::Add)));
          EXPECT_EQ(bool(attribute), valid);
          if (attribute)
            expectRoundTrip(attribute);
        }
  for (auto score : {GroupScore::Max, GroupScore::Top2Sum})
    for (auto fill : {GroupFill::NegInf, GroupFill::Zero})
      expectRoundTrip(GroupsAttr::get(&context, 8, 4, score, fill));
  for (int64_t fixed : {0, 1, INT32_MAX})
    expectRoundTrip(
        CapacityAttr::get(&context, fixed, 0.0, Rounding::Ceil, 0, false));
}

TEST_F(AttributesTest, Refused) {
  double nan = std::numeric_limits<double>::quiet_NaN();
  double inf = std::numeric_limits<double>::infinity();
  auto capacity = [&](int64_t fixed, double factor, Rounding rounding,
                      int64_t minimum, bool atMostTokens) {
    return refuses<CapacityAttr>(fixed, Real(factor), rounding, minimum,
                                 atMostTokens);
  };
  for (double factor : {0.0, -0.0, -1.0, nan, inf, -inf})
    EXPECT_TRUE(capacity(-1, factor, Rounding::Ceil, 0, false));
  EXPECT_TRUE(capacity(4, 1.0, Rounding::Ceil, 0, false));
  EXPECT_TRUE(capacity(4, -0.0, Rounding::Ceil, 0, false));
  EXPECT_TRUE(capacity(4, nan, Rounding::Ceil, 0, false));
  EXPECT_TRUE(capacity(4, 0.0, Rounding::Floor, 0, false));
  EXPECT_TRUE(capacity(4, 0.0, Rounding::Ceil, 1, false));
  EXPECT_TRUE(capacity(4, 0.0, Rounding::Ceil, 0, true));
  EXPECT_TRUE(capacity(int64_t(INT32_MAX) + 1, 0.0, Rounding::Ceil, 0, false));
  EXPECT_TRUE(capacity(-1, 1.0, Rounding::Ceil, -1, false));
  EXPECT_TRUE(capacity(-1, 1.0, Rounding::Ceil, INT64_MAX, false));

  auto normalize = [&](double p, double epsilon) {
    return refuses<NormalizeAttr>(NormalizeKind::Norm, Real(p), Real(epsilon),
                                  NormalizeGuard::Add);
  };
  for (double p : {0.0, -0.0, -1.0, nan, inf})
    EXPECT_TRUE(normalize(p, 0.0));
  for (double epsilon : {-0.0, -1.0, nan, inf})
    EXPECT_TRUE(normalize(2.0, epsilon));
}
