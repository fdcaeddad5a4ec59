//===- MarkStages.cpp - Stages that the runtime can time ------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/IR/MoEABI.h"
#include "moe/Dialect/MoERuntime/IR/MoERuntime.h"
#include "moe/Dialect/MoERuntime/Transforms/Passes.h"
#include "moe/Dialect/MoERuntime/Transforms/Stage.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/SetVector.h"

using namespace mlir;
using namespace mlir::moe;
using moe_rt::ParallelOp;
using moe_rt::StageOp;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEMARKSTAGES
#include "moe/Dialect/MoERuntime/Transforms/Passes.h.inc"
} // namespace mlir::moe

static constexpr StringLiteral kernelPrefix = "moe_kernel_";

namespace {
/// Marks the stages of one function.
class Marker {
public:
  Marker(func::FuncOp function, Value executor)
      : function(function), executor(executor), builder(function.getContext()) {
  }

  size_t run();

private:
  void mark(Block &block);
  std::optional<size_t> stageOf(Operation *op);

  func::FuncOp function;
  Value executor;
  OpBuilder builder;
  // The kernels of each stage, by its name.
  llvm::MapVector<StringAttr, llvm::SetVector<StringRef>> stages;
  std::optional<size_t> current;
};
} // namespace

/// Returns the stage of a loop, a task or a call; nothing if it has no name.
std::optional<size_t> Marker::stageOf(Operation *op) {
  SmallVector<StringAttr> names;
  llvm::SetVector<StringRef> kernels;
  op->walk<WalkOrder::PreOrder>([&](Operation *inner) {
    // Constants and views are where they were first used.
    if (inner->getNumRegions() > 0 || !isPure(inner))
      findStages(inner->getLoc(), names);
    if (auto call = dyn_cast<func::CallOp>(inner)) {
      StringRef callee = call.getCallee();
      if (callee.consume_front(kernelPrefix))
        kernels.insert(callee);
    }
  });
  if (names.empty())
    return std::nullopt;
  std::string name = llvm::join(
      llvm::map_range(names, [](StringAttr each) { return each.getValue(); }),
      "+");
  auto [stage, isNew] = stages.insert({builder.getStringAttr(name), {}});
  stage->second.insert(kernels.begin(), kernels.end());
  return stage - stages.begin();
}

void Marker::mark(Block &block) {
  for (Operation &op : llvm::make_early_inc_range(block)) {
    bool hasTasks = op.walk([](ParallelOp) {
                        return WalkResult::interrupt();
                      }).wasInterrupted();
    if (hasTasks && !isa<ParallelOp>(op)) {
      // Of chunks of tokens: the stage before a loop ends with its first turn.
      for (Region &region : op.getRegions())
        for (Block &inner : region) {
          current.reset();
          mark(inner);
        }
      current.reset();
      continue;
    }
    if (op.getNumRegions() == 0 &&
        !isa<func::CallOp, memref::CopyOp, memref::StoreOp>(op))
      continue;
    std::optional<size_t> stage = stageOf(&op);
    if (stage && isa<ParallelOp>(op))
      op.setAttr(stageAttrName, (stages.begin() + *stage)->first);
    if (!stage || stage == current)
      continue;
    current = stage;
    builder.setInsertionPoint(&op);
    StageOp::create(builder, op.getLoc(), executor,
                    builder.getI64IntegerAttr(*stage));
  }
}

size_t Marker::run() {
  for (Block &block : function.getBody())
    mark(block);
  SmallVector<Attribute> described;
  for (auto &[name, kernels] : stages)
    described.push_back(builder.getDictionaryAttr(
        {builder.getNamedAttr("name", name),
         builder.getNamedAttr(
             "kernels", builder.getStrArrayAttr(kernels.getArrayRef()))}));
  function->setAttr(stagesAttrName, builder.getArrayAttr(described));
  return described.size();
}

namespace {
struct MoEMarkStages : moe::impl::MoEMarkStagesBase<MoEMarkStages> {
  void runOnOperation() override {
    for (auto function : getOperation().getOps<func::FuncOp>()) {
      Value executor;
      function.walk([&](ParallelOp tasks) { executor = tasks.getExecutor(); });
      if (isExported(function) && executor &&
          !function->hasAttr(preparesAttrName))
        numStages += Marker(function, executor).run();
    }
  }
};
} // namespace
