//===- InitAllTest.cpp - What registerAll... registers --------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A context of a process that registers nothing else parses a layer, runs every
// pipeline and translates the result.
//
//===----------------------------------------------------------------------===//

#include "moe/InitAll.h"

#include "mlir/IR/BuiltinOps.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassRegistry.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "llvm/IR/LLVMContext.h"
#include "llvm/IR/Module.h"

#include "gtest/gtest.h"

using namespace mlir;

namespace {

// A router, and experts that call a function: products, a gate, mathematics.
constexpr char layer[] = R"(
#rows = affine_map<(d0, d1) -> (d0, d1)>
func.func private @exp(%h: tensor<?x16xf32>, %n: index) -> tensor<?x16xf16> {
  %e = tensor.empty(%n) : tensor<?x16xf16>
  %0 = linalg.generic {indexing_maps = [#rows, #rows], iterator_types = ["parallel", "parallel"]}
      ins(%h : tensor<?x16xf32>) outs(%e : tensor<?x16xf16>) {
  ^bb0(%a: f32, %o: f16):
    %x = math.exp %a : f32
    %t = arith.truncf %x : f32 to f16
    linalg.yield %t : f16
  } -> tensor<?x16xf16>
  return %0 : tensor<?x16xf16>
}
func.func @layer(%x: tensor<?x16xf16>, %r: tensor<16x4xf16> {moe.role = "weight"},
                 %w: tensor<4x16x16xf16> {moe.role = "weight"}) -> tensor<?x16xf16> {
  %zero = arith.constant 0.0 : f32
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x16xf16>
  %e = tensor.empty(%n) : tensor<?x4xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x4xf32>) -> tensor<?x4xf32>
  %l = linalg.matmul ins(%x, %r : tensor<?x16xf16>, tensor<16x4xf16>)
      outs(%f : tensor<?x4xf32>) -> tensor<?x4xf32>
  %weights, %ids = moe.gate %l top_k(2) : tensor<?x4xf32>
  %g, %o, %p = moe.dispatch %x, %ids experts(4) : tensor<?x16xf16>, tensor<?x2xi32>
  %y = moe.expert %g, %o params(%w : tensor<4x16x16xf16>) {
  ^bb0(%rows: tensor<?x16xf16>, %v: tensor<16x16xf16>):
    %m = tensor.dim %rows, %c0 : tensor<?x16xf16>
    %e1 = tensor.empty(%m) : tensor<?x16xf32>
    %f1 = linalg.fill ins(%zero : f32) outs(%e1 : tensor<?x16xf32>) -> tensor<?x16xf32>
    %h = linalg.matmul ins(%rows, %v : tensor<?x16xf16>, tensor<16x16xf16>)
        outs(%f1 : tensor<?x16xf32>) -> tensor<?x16xf32>
    %q = func.call @exp(%h, %m) : (tensor<?x16xf32>, index) -> tensor<?x16xf16>
    moe.yield %q : tensor<?x16xf16>
  } : tensor<?x16xf16>, tensor<5xi32> -> tensor<?x16xf16>
  %z = moe.combine %y, %p weights(%weights : tensor<?x2xf32>)
      : tensor<?x16xf16>, tensor<?x2xi32>
  return %z : tensor<?x16xf16>
}
)";

class InitAll : public ::testing::TestWithParam<const char *> {
protected:
  static void SetUpTestSuite() {
    moe::registerAllPasses();
    moe::registerAllPipelines();
  }
};

TEST_P(InitAll, IsEnoughForAPipeline) {
  DialectRegistry registry;
  moe::registerAllDialects(registry);
  moe::registerAllExtensions(registry);
  MLIRContext context(registry);
  auto module = parseSourceString<ModuleOp>(layer, &context);
  ASSERT_TRUE(module);
  PassManager manager(&context);
  ASSERT_TRUE(succeeded(parsePassPipeline(GetParam(), manager)));
  ASSERT_TRUE(succeeded(manager.run(*module)));
  llvm::LLVMContext llvmContext;
  EXPECT_TRUE(translateModuleToLLVMIR(*module, llvmContext));
}

INSTANTIATE_TEST_SUITE_P(
    Pipelines, InitAll,
    ::testing::Values("moe-reference", "moe-cpu{vector-bits=256}",
                      "moe-gpu{arch=sm_80}",
                      // What they are made of, as a text may say it.
                      "inline,canonicalize,cse,moe-plan-capacity{tokens=1:8},"
                      "moe-reference"));

} // namespace
