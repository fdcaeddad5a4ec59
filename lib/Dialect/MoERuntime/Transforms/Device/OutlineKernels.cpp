//===- OutlineKernels.cpp - Outline device code into kernels --------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A layer's function runs on the host, its buffers are in device memory:
// operations that read or write elements must be in a kernel. Those without a
// dedicated kernel are outlined here: a parallel loop becomes a kernel with a
// thread for each iteration, anything else a kernel of one thread. Sizes and
// offsets that a kernel takes are computed on the host.
//
//===----------------------------------------------------------------------===//

#include "DeviceWork.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"
#include "moe/Dialect/MoERuntime/Transforms/Passes.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/IR/IRMapping.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/IR/Matchers.h"
#include "mlir/Interfaces/CallInterfaces.h"
#include "mlir/Transforms/RegionUtils.h"
#include "llvm/ADT/SetVector.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEOUTLINEKERNELS
#include "moe/Dialect/MoERuntime/Transforms/Passes.h.inc"
} // namespace mlir::moe

static constexpr int64_t threads = 256;

namespace {
/// Outlines code into the kernels of one module.
class Outliner {
public:
  explicit Outliner(gpu::GPUModuleOp kernels) : kernels(kernels) {}

  LogicalResult run(Block &block);

  int64_t numParallel = 0, numSerial = 0;

private:
  LogicalResult verifyWork(Operation *op);
  LogicalResult outlineParallel(scf::ParallelOp loop);
  LogicalResult outlineSerial(ArrayRef<Operation *> work);
  gpu::GPUFuncOp createKernel(ImplicitLocOpBuilder &b, ArrayRef<Value> captured,
                              int64_t numThreads);
  void launch(OpBuilder &builder, Location loc, gpu::GPUFuncOp kernel,
              Value blocks, ArrayRef<Value> captured);

  gpu::GPUModuleOp kernels;
};
} // namespace

/// Returns the non-constant values that `work` uses from outside.
static SmallVector<Value> capturedBy(ArrayRef<Operation *> work) {
  llvm::SetVector<Value> used;
  for (Operation *op : work) {
    used.insert(op->operand_begin(), op->operand_end());
    getUsedValuesDefinedAbove(op->getRegions(), used);
  }
  return llvm::to_vector(llvm::make_filter_range(used, [&](Value value) {
    return !llvm::is_contained(work, value.getDefiningOp()) &&
           !matchPattern(value, m_Constant());
  }));
}

gpu::GPUFuncOp Outliner::createKernel(ImplicitLocOpBuilder &b,
                                      ArrayRef<Value> captured,
                                      int64_t numThreads) {
  std::string name = "loop";
  for (int64_t i = 1; kernels.lookupSymbol(name); ++i)
    name = "loop_" + std::to_string(i);
  b.setInsertionPointToEnd(kernels.getBody());
  SmallVector<Type> types = llvm::map_to_vector(
      captured, [](Value value) { return value.getType(); });
  auto kernel = gpu::GPUFuncOp::create(b, name, b.getFunctionType(types, {}));
  kernel->setAttr(gpu::GPUDialect::getKernelFuncAttrName(), b.getUnitAttr());
  kernel.setKnownBlockSizeAttr(
      b.getDenseI32ArrayAttr({int32_t(numThreads), 1, 1}));
  b.setInsertionPointToEnd(&kernel.getBody().front());
  auto end = gpu::ReturnOp::create(b);
  b.setInsertionPoint(end);
  return kernel;
}

/// Captured buffers are passed as inits: a kernel may write to any of them.
void Outliner::launch(OpBuilder &builder, Location loc, gpu::GPUFuncOp kernel,
                      Value blocks, ArrayRef<Value> captured) {
  SmallVector<Value> buffers, scalars;
  for (Value value : captured)
    (isa<MemRefType>(value.getType()) ? buffers : scalars).push_back(value);
  moe_rt::LaunchOp::create(
      builder, loc, TypeRange(),
      SymbolRefAttr::get(kernels.getNameAttr(),
                         FlatSymbolRefAttr::get(kernel.getNameAttr())),
      blocks, ValueRange(), buffers, scalars, ArrayAttr());
}

/// Sorts buffers before scalars, the order of launch operands.
static SmallVector<Value> buffersFirst(ArrayRef<Value> values) {
  SmallVector<Value> sorted(values);
  std::stable_partition(sorted.begin(), sorted.end(), [](Value value) {
    return isa<MemRefType>(value.getType());
  });
  return sorted;
}

/// Clones the constants that `op` uses from outside.
static void cloneInto(OpBuilder &b, Operation *op, IRMapping &mapping) {
  op->walk([&](Operation *nested) {
    for (Value operand : nested->getOperands())
      if (!mapping.contains(operand) && matchPattern(operand, m_Constant()) &&
          !op->isAncestor(operand.getDefiningOp())) {
        Operation *constant = b.clone(*operand.getDefiningOp());
        mapping.map(operand, constant->getResult(0));
      }
  });
}

LogicalResult Outliner::outlineParallel(scf::ParallelOp loop) {
  ImplicitLocOpBuilder host(loop.getLoc(), loop);
  SmallVector<Value> captured = buffersFirst(capturedBy(loop.getOperation()));
  Value total = arith::ConstantIndexOp::create(host, 1);
  SmallVector<Value> counts;
  for (auto [from, to, step] : llvm::zip_equal(
           loop.getLowerBound(), loop.getUpperBound(), loop.getStep())) {
    Value count = arith::CeilDivSIOp::create(
        host, arith::SubIOp::create(host, to, from), step);
    count = arith::MaxSIOp::create(host, count,
                                   arith::ConstantIndexOp::create(host, 0));
    counts.push_back(count);
    total = arith::MulIOp::create(host, total, count);
  }
  Value blocks = arith::CeilDivUIOp::create(
      host, total, arith::ConstantIndexOp::create(host, threads));
  // Cap the grid; threads run a grid-stride loop.
  blocks = arith::MinUIOp::create(host, blocks,
                                  arith::ConstantIndexOp::create(host, 4096));
  SmallVector<Value> passed(captured);
  passed.append(counts);
  passed.push_back(total);

  ImplicitLocOpBuilder b(loop.getLoc(), loop.getContext());
  gpu::GPUFuncOp kernel = createKernel(b, passed, threads);
  IRMapping mapping;
  for (auto [value, argument] :
       llvm::zip(captured, kernel.getArguments().take_front(captured.size())))
    mapping.map(value, argument);
  cloneInto(b, loop, mapping);
  auto arguments = kernel.getArguments().drop_front(captured.size());
  Value size = arith::ConstantIndexOp::create(b, threads);
  Value block = gpu::BlockIdOp::create(b, gpu::Dimension::x);
  Value first =
      arith::AddIOp::create(b, arith::MulIOp::create(b, block, size),
                            gpu::ThreadIdOp::create(b, gpu::Dimension::x));
  Value stride = arith::MulIOp::create(
      b, gpu::GridDimOp::create(b, gpu::Dimension::x), size);
  auto each = scf::ForOp::create(b, first, arguments.back(), stride);
  b.setInsertionPointToStart(each.getBody());
  Value rest = each.getInductionVar();
  for (int64_t dim = loop.getNumLoops() - 1; dim >= 0; --dim) {
    Value iteration = rest;
    if (dim > 0) {
      iteration = arith::RemUIOp::create(b, rest, arguments[dim]);
      rest = arith::DivUIOp::create(b, rest, arguments[dim]);
    }
    Value index = arith::AddIOp::create(
        b, mapping.lookupOrDefault(loop.getLowerBound()[dim]),
        arith::MulIOp::create(b, iteration,
                              mapping.lookupOrDefault(loop.getStep()[dim])));
    mapping.map(loop.getInductionVars()[dim], index);
  }
  for (Operation &op : loop.getBody()->without_terminator())
    b.clone(op, mapping);
  OpBuilder builder(loop);
  launch(builder, loop.getLoc(), kernel, blocks, passed);
  loop.erase();
  ++numParallel;
  return success();
}

LogicalResult Outliner::outlineSerial(ArrayRef<Operation *> work) {
  for (Operation *op : work)
    for (Operation *user : op->getUsers())
      if (llvm::none_of(work, [&](Operation *other) {
            return other->isAncestor(user);
          })) {
        InFlightDiagnostic diag = op->emitOpError(
            "computes a value on the device that the host needs");
        diag.attachNote(user->getLoc()) << "used here";
        return diag;
      }
  SmallVector<Value> captured = buffersFirst(capturedBy(work));
  ImplicitLocOpBuilder b(work.front()->getLoc(), work.front()->getContext());
  gpu::GPUFuncOp kernel = createKernel(b, captured, 1);
  IRMapping mapping;
  mapping.map(captured, kernel.getArguments());
  for (Operation *op : work) {
    cloneInto(b, op, mapping);
    b.clone(*op, mapping);
  }
  OpBuilder builder(work.back());
  builder.setInsertionPointAfter(work.back());
  Value one = arith::ConstantIndexOp::create(builder, b.getLoc(), 1);
  launch(builder, b.getLoc(), kernel, one, captured);
  for (Operation *op : llvm::reverse(work))
    op->erase();
  ++numSerial;
  return success();
}

/// Fails if `op` cannot be in a kernel.
LogicalResult Outliner::verifyWork(Operation *op) {
  WalkResult result = op->walk([&](Operation *nested) {
    if (isa<moe_rt::LaunchOp>(nested)) {
      InFlightDiagnostic diag = op->emitOpError(
          "launches kernels under control flow that depends on the device");
      diag.attachNote(nested->getLoc()) << "launched here";
      return WalkResult::interrupt();
    }
    if (isa<CallOpInterface>(nested)) {
      nested->emitOpError(
          "calls a function that cannot be inlined into a kernel");
      return WalkResult::interrupt();
    }
    return WalkResult::advance();
  });
  return failure(result.wasInterrupted());
}

LogicalResult Outliner::run(Block &block) {
  SmallVector<Operation *> serial;
  auto finish = [&]() -> LogicalResult {
    if (serial.empty())
      return success();
    SmallVector<Operation *> work;
    std::swap(work, serial);
    return outlineSerial(work);
  };
  for (Operation &op : llvm::make_early_inc_range(block)) {
    if (isHostWork(&op) && !isHostControl(&op)) {
      if (!isPreparation(&op)) {
        if (failed(finish()))
          return failure();
      } else if (usesAny(&op, [&](Value operand) {
                   return llvm::is_contained(serial, operand.getDefiningOp());
                 })) {
        serial.push_back(&op);
      } else if (!serial.empty()) {
        op.moveBefore(serial.front());
      }
      continue;
    }
    if (isHostControl(&op)) {
      if (failed(finish()))
        return failure();
      for (Region &region : op.getRegions())
        for (Block &inner : region)
          if (failed(run(inner)))
            return failure();
      continue;
    }
    if (failed(verifyWork(&op)))
      return failure();
    // A loop whose bounds the device computes joins the kernel that does so.
    if (!isParallelKernel(&op, [&](Value bound) {
          return llvm::is_contained(serial, bound.getDefiningOp());
        })) {
      serial.push_back(&op);
      continue;
    }
    if (failed(finish()) || failed(outlineParallel(cast<scf::ParallelOp>(op))))
      return failure();
  }
  return finish();
}

namespace {
struct MoEOutlineKernels : moe::impl::MoEOutlineKernelsBase<MoEOutlineKernels> {
  void runOnOperation() override {
    auto modules = getOperation().getOps<gpu::GPUModuleOp>();
    if (modules.empty()) {
      getOperation().emitError("expected a gpu.module for kernels; run "
                               "convert-moe-to-gpu");
      return signalPassFailure();
    }
    Outliner outliner(*modules.begin());
    for (auto function : getOperation().getOps<func::FuncOp>())
      if (isExported(function))
        for (Block &block : function.getBody())
          if (failed(outliner.run(block)))
            return signalPassFailure();
    numParallel = outliner.numParallel;
    numSerial = outliner.numSerial;
  }
};
} // namespace
