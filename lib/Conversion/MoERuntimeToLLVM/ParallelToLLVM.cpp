//===- ParallelToLLVM.cpp - Tasks become functions ------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Conversion/MoERuntimeToLLVM/MoERuntimeToLLVM.h"
#include "moe/Dialect/MoERuntime/IR/MoERuntime.h"
#include "moe/Dialect/MoERuntime/Transforms/Stage.h"

#include "moe_rt/abi.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/IR/Matchers.h"
#include "mlir/Transforms/RegionUtils.h"
#include "llvm/ADT/SetVector.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe_rt;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEOUTLINETASKS
#include "moe/Conversion/Passes.h.inc"
} // namespace mlir::moe

namespace {
/// The outlining of one operation.
class Outliner {
public:
  Outliner(ParallelOp op, unsigned number)
      : op(op), module(op->getParentOfType<ModuleOp>()), number(number),
        b(op.getLoc(), op),
        pointer(LLVM::LLVMPointerType::get(b.getContext())) {}

  LogicalResult run();

private:
  void sinkConstants();
  LLVM::LLVMFuncOp buildTask();
  void buildCall(LLVM::LLVMFuncOp task);
  Value field(Value object, Type type, unsigned index, Type loaded);

  ParallelOp op;
  ModuleOp module;
  unsigned number;
  ImplicitLocOpBuilder b;
  Type pointer;
  llvm::SetVector<Value> captured;
  LLVM::LLVMStructType context;
};
} // namespace

/// Constants are cheaper to make again than to pass.
void Outliner::sinkConstants() {
  llvm::SetVector<Value> used;
  getUsedValuesDefinedAbove(op.getBody(), used);
  b.setInsertionPointToStart(&op.getBody().front());
  for (Value value : used) {
    Operation *constant = value.getDefiningOp();
    if (!constant || !isa<LLVM::ConstantOp, LLVM::ZeroOp, LLVM::PoisonOp,
                          LLVM::UndefOp, LLVM::AddressOfOp>(constant)) {
      captured.insert(value);
      continue;
    }
    Value copy = b.clone(*constant)->getResult(0);
    replaceAllUsesInRegionWith(value, copy, op.getBody());
  }
}

/// Load element `index` of a structure.
Value Outliner::field(Value object, Type type, unsigned index, Type loaded) {
  Value place = LLVM::GEPOp::create(b, pointer, type, object,
                                    ArrayRef<LLVM::GEPArg>{0, int32_t(index)});
  return LLVM::LoadOp::create(b, loaded, place);
}

/// void task(void *context, i64 index)
LLVM::LLVMFuncOp Outliner::buildTask() {
  auto parent = op->getParentOfType<LLVM::LLVMFuncOp>();
  b.setInsertionPoint(parent);
  std::string name = (parent.getName() + "__task" + Twine(number)).str();
  // Profilers show it.
  if (auto stage = op->getAttrOfType<StringAttr>(stageAttrName)) {
    name = (parent.getName() + "__" + stage.getValue()).str();
    std::replace(name.begin(), name.end(), '+', '_');
  }
  while (module.lookupSymbol(name))
    name += '_';
  auto task = LLVM::LLVMFuncOp::create(
      b, name,
      LLVM::LLVMFunctionType::get(LLVM::LLVMVoidType::get(b.getContext()),
                                  {pointer, b.getI64Type()}));
  task.setLinkage(LLVM::Linkage::Internal);
  task.getBody().takeBody(op.getBody());
  Block *entry = &task.getBody().front();
  Value argument = entry->insertArgument(0u, pointer, b.getLoc());
  b.setInsertionPointToStart(entry);
  for (auto [index, value] : llvm::enumerate(captured)) {
    Value inside = field(argument, context, index, value.getType());
    replaceAllUsesInRegionWith(value, inside, task.getBody());
  }
  SmallVector<DoneOp> ends;
  task.walk([&](DoneOp done) { ends.push_back(done); });
  for (DoneOp done : ends) {
    b.setInsertionPoint(done);
    LLVM::ReturnOp::create(b, ValueRange());
    done.erase();
  }
  return task;
}

/// executor->parallel_for(executor->user, count, task, &captured)
void Outliner::buildCall(LLVM::LLVMFuncOp task) {
  Type i64 = b.getI64Type();
  auto executorType =
      LLVM::LLVMStructType::getLiteral(b.getContext(), {pointer, i64, pointer});
  // On the stack once, however often this runs.
  auto parent = op->getParentOfType<LLVM::LLVMFuncOp>();
  auto constant = [&](int64_t value) -> Value {
    return LLVM::ConstantOp::create(b, i64, b.getI64IntegerAttr(value));
  };
  b.setInsertionPointToStart(&parent.getBody().front());
  Value storage = LLVM::AllocaOp::create(b, pointer, context, constant(1));
  b.setInsertionPoint(op);
  for (auto [index, value] : llvm::enumerate(captured)) {
    Value place =
        LLVM::GEPOp::create(b, pointer, context, storage,
                            ArrayRef<LLVM::GEPArg>{0, int32_t(index)});
    LLVM::StoreOp::create(b, value, place);
  }
  // A single task needs nobody's help.
  Value single = LLVM::ICmpOp::create(b, LLVM::ICmpPredicate::eq, op.getCount(),
                                      constant(1));
  Block *before = op->getBlock();
  Block *after = before->splitBlock(op);
  Block *alone = b.createBlock(after), *shared = b.createBlock(after);
  b.setInsertionPointToEnd(before);
  LLVM::CondBrOp::create(b, single, alone, shared);
  b.setInsertionPointToEnd(alone);
  LLVM::CallOp::create(b, task, ValueRange{storage, constant(0)});
  LLVM::BrOp::create(b, after);
  b.setInsertionPointToEnd(shared);
  // Each field has the size of a pointer.
  constexpr size_t userOffset = offsetof(moe_rt_executor_t, user);
  constexpr size_t runOffset = offsetof(moe_rt_executor_t, parallel_for);
  Value user = field(op.getExecutor(), executorType,
                     userOffset / sizeof(void *), pointer);
  Value run = field(op.getExecutor(), executorType, runOffset / sizeof(void *),
                    pointer);
  Value address = LLVM::AddressOfOp::create(b, task);
  LLVM::CallOp::create(
      b,
      LLVM::LLVMFunctionType::get(LLVM::LLVMVoidType::get(b.getContext()),
                                  {pointer, i64, pointer, pointer}),
      ValueRange{run, user, op.getCount(), address, storage});
  LLVM::BrOp::create(b, after);
}

/// if (tasks->begin_stage) tasks->begin_stage(tasks->profile, index)
static LogicalResult lowerStage(StageOp op) {
  if (!op->getParentOfType<LLVM::LLVMFuncOp>() ||
      !isa<LLVM::LLVMPointerType>(op.getExecutor().getType()))
    return op.emitOpError("expected a function of the LLVM dialect; run "
                          "moe-outline-tasks after the conversion to llvm");
  ImplicitLocOpBuilder b(op.getLoc(), op);
  auto pointer = LLVM::LLVMPointerType::get(b.getContext());
  auto field = [&](size_t offset) -> Value {
    Value place =
        LLVM::GEPOp::create(b, pointer, b.getI8Type(), op.getExecutor(),
                            ArrayRef<LLVM::GEPArg>{int32_t(offset)});
    return LLVM::LoadOp::create(b, pointer, place);
  };
  Value begin = field(offsetof(moe_rt_tasks_t, begin_stage));
  Value profiled = LLVM::ICmpOp::create(b, LLVM::ICmpPredicate::ne, begin,
                                        LLVM::ZeroOp::create(b, pointer));
  Block *before = op->getBlock();
  Block *after = before->splitBlock(op);
  Block *call = b.createBlock(after);
  b.setInsertionPointToEnd(before);
  LLVM::CondBrOp::create(b, profiled, call, after);
  b.setInsertionPointToEnd(call);
  Value index = LLVM::ConstantOp::create(b, b.getI64Type(), op.getIndexAttr());
  Value profile = field(offsetof(moe_rt_tasks_t, profile));
  LLVM::CallOp::create(
      b,
      LLVM::LLVMFunctionType::get(LLVM::LLVMVoidType::get(b.getContext()),
                                  {pointer, b.getI64Type()}),
      ValueRange{begin, profile, index});
  LLVM::BrOp::create(b, after);
  op.erase();
  return success();
}

LogicalResult Outliner::run() {
  if (!op->getParentOfType<LLVM::LLVMFuncOp>() ||
      !isa<LLVM::LLVMPointerType>(op.getExecutor().getType()))
    return op.emitOpError("expected a function of the LLVM dialect; run "
                          "moe-outline-tasks after the conversion to llvm");
  sinkConstants();
  context = LLVM::LLVMStructType::getLiteral(
      b.getContext(), llvm::map_to_vector(captured, [](Value value) {
        return value.getType();
      }));
  for (Type type : context.getBody())
    if (!LLVM::isCompatibleType(type))
      return op.emitOpError("expected a task that uses values of the LLVM "
                            "dialect only, got ")
             << type;
  buildCall(buildTask());
  op.erase();
  return success();
}

namespace {
struct MoEOutlineTasks : moe::impl::MoEOutlineTasksBase<MoEOutlineTasks> {
  void runOnOperation() override {
    SmallVector<ParallelOp> tasks;
    getOperation().walk([&](ParallelOp op) { tasks.push_back(op); });
    for (auto [number, op] : llvm::enumerate(tasks))
      if (failed(Outliner(op, number).run()))
        return signalPassFailure();
    SmallVector<StageOp> stages;
    getOperation().walk([&](StageOp op) { stages.push_back(op); });
    for (StageOp op : stages)
      if (failed(lowerStage(op)))
        return signalPassFailure();
  }
};
} // namespace
