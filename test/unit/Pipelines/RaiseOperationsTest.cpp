//===- RaiseOperationsTest.cpp - Operations of other dialects -------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/InitAll.h"
#include "moe/Transforms/RaisableOpInterface.h"

#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/Remarks.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Pass/PassManager.h"

#include "gtest/gtest.h"

using namespace mlir;

namespace {

/// The absolute value stands for an operation of another dialect. An attribute
/// says what its model does.
struct Model : moe::RaisableOpInterface::ExternalModel<Model, math::AbsFOp> {
  FailureOr<SmallVector<Value>> raise(Operation *op, RewriterBase &rewriter,
                                      std::string &why) const {
    if (op->hasAttr("test.none")) {
      why = "it has no equal";
      return failure();
    }
    if (op->hasAttr("test.wrong"))
      return SmallVector<Value>{};
    return SmallVector<Value>{
        arith::NegFOp::create(rewriter, op->getLoc(), op->getOperand(0))};
  }
};

struct Streamer : remark::detail::MLIRRemarkStreamerBase {
  explicit Streamer(std::string &text) : text(text) {}
  void streamOptimizationRemark(const remark::detail::Remark &remark) override {
    for (const remark::detail::Remark::Arg &each : remark.getArgs())
      text += each.val;
  }
  std::string &text;
};

struct RaiseOperationsTest : testing::Test {
  RaiseOperationsTest() {
    DialectRegistry registry;
    moe::registerAllDialects(registry);
    moe::registerAllExtensions(registry);
    registry.addExtension(+[](MLIRContext *context, math::MathDialect *) {
      math::AbsFOp::attachInterface<Model>(*context);
    });
    context.appendDialectRegistry(registry);
    remark::RemarkCategories categories;
    categories.missed = "moe-raise";
    EXPECT_TRUE(succeeded(remark::enableOptimizationRemarks(
        context, std::make_unique<Streamer>(remarks),
        std::make_unique<remark::RemarkEmittingPolicyAll>(), categories)));
  }

  /// Runs the pass on a function that applies the operation twice.
  bool run(StringRef attributes) {
    std::string text = "func.func @f(%x: f32) -> f32 {\n"
                       "  %0 = math.absf %x : f32\n"
                       "  %1 = math.absf %0 {" +
                       attributes.str() +
                       "} : f32\n"
                       "  return %1 : f32\n}";
    module = parseSourceString<ModuleOp>(text, &context);
    ScopedDiagnosticHandler handler(&context, [&](Diagnostic &diagnostic) {
      errors += diagnostic.str();
      return success();
    });
    PassManager manager(&context);
    manager.addPass(moe::createMoERaiseOperations());
    return module && succeeded(manager.run(*module));
  }

  template <typename OpT> int count() {
    int number = 0;
    module->walk([&](OpT) { ++number; });
    return number;
  }

  MLIRContext context;
  OwningOpRef<ModuleOp> module;
  std::string remarks, errors;
};

TEST_F(RaiseOperationsTest, Replaces) {
  EXPECT_TRUE(run(""));
  EXPECT_EQ(count<arith::NegFOp>(), 2);
  EXPECT_EQ(count<math::AbsFOp>(), 0);
  EXPECT_EQ(remarks + errors, "");
}

TEST_F(RaiseOperationsTest, KeepsWithReason) {
  EXPECT_TRUE(run("test.none"));
  EXPECT_EQ(count<arith::NegFOp>(), 1);
  EXPECT_EQ(count<math::AbsFOp>(), 1);
  EXPECT_EQ(remarks, "not raised: math.absf: it has no equal");
  EXPECT_EQ(errors, "");
}

TEST_F(RaiseOperationsTest, RejectsOtherTypes) {
  EXPECT_FALSE(run("test.wrong"));
  EXPECT_EQ(errors, "'math.absf' op expected its raise() to return values of "
                    "types ('f32'), got ()");
}

} // namespace
