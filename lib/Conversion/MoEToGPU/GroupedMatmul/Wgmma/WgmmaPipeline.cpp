//===- WgmmaPipeline.cpp - Pipeline of a wgmma kernel ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "WgmmaPipeline.h"

#include "mlir/IR/Matchers.h"

using namespace mlir;
using namespace mlir::moe;

void WgmmaPipeline::startPipeline() {
  memory = b.sharedMemory();
  barriers = b.sharedAt(memory, stages * stageBytes);
  thread = b.thread();
}

//===----------------------------------------------------------------------===//
// Pipeline
//===----------------------------------------------------------------------===//

WgmmaPipeline::PipelineState WgmmaPipeline::advance(PipelineState state) {
  Value stage = b.add(state.stage, 1);
  Value wraps = b.equal(stage, stages);
  return {b.select(wraps, b.i32(0), stage),
          b.select(wraps, b.bitXor(state.phase, 1), state.phase)};
}

WgmmaPipeline::PipelineState WgmmaPipeline::advance(PipelineState state,
                                                    int64_t count) {
  Value stage = b.add(state.stage, count % stages);
  Value wraps = b.logicalNot(b.less(stage, stages));
  Value phase = b.bitXor(state.phase, count / stages % 2);
  return {b.select(wraps, b.sub(stage, stages), stage),
          b.select(wraps, b.bitXor(phase, 1), phase)};
}

Value WgmmaPipeline::fullBarrier(Value stage) {
  return b.sharedAt(barriers, b.shiftLeft(stage, 3));
}

Value WgmmaPipeline::emptyBarrier(Value stage) {
  return b.sharedAt(barriers, b.add(b.shiftLeft(stage, 3), stages * 8));
}

void WgmmaPipeline::waitBarrier(Value barrier, Value phase) {
  // The time limit of a suspended wait, in nanoseconds; it only bounds the
  // sleep.
  NVVM::MBarrierTryWaitParityOp::create(b, barrier, phase, b.i32(10000000));
}

void WgmmaPipeline::arrive(Value barrier) {
  auto scope =
      NVVM::MemScopeKindAttr::get(b.getContext(), NVVM::MemScopeKind::CTA);
  NVVM::MBarrierArriveOp::create(b, b.getI64Type(), barrier, Value(), scope);
}

void WgmmaPipeline::initBarriers(int64_t fullArrivals, ValueRange maps) {
  for (Value map : maps)
    NVVM::PrefetchOp::create(b, NVVM::PrefetchCacheLevelAttr(),
                             NVVM::CacheEvictionPriorityAttr(), map, Value(),
                             b.getUnitAttr());
  for (int64_t stage = 0; stage < stages; ++stage) {
    NVVM::MBarrierInitOp::create(b, fullBarrier(b.i32(stage)),
                                 b.i32(fullArrivals), Value());
    NVVM::MBarrierInitOp::create(b, emptyBarrier(b.i32(stage)),
                                 b.i32(emptyArrivals), Value());
  }
}

static void fenceAsyncProxy(GPUBuilder &b) {
  auto kind =
      NVVM::ProxyKindAttr::get(b.getContext(), NVVM::ProxyKind::async_shared);
  auto space =
      NVVM::SharedSpaceAttr::get(b.getContext(), NVVM::SharedSpace::shared_cta);
  NVVM::FenceProxyOp::create(b, kind, space);
}

void WgmmaPipeline::waitFull(PipelineState state, bool fences) {
  waitBarrier(fullBarrier(state.stage), state.phase);
  if (fences)
    fenceAsyncProxy(b);
}

void WgmmaPipeline::releaseStage(Value stage) {
  Value index = b.bitAnd(thread, warpgroupSize - 1);
  if (blocks == 1)
    return b.ifThen(b.equal(index, 0), [&] { arrive(emptyBarrier(stage)); });
  // One thread for each block. A release at the scope of the cluster is a fence
  // in the machine code; what this one orders are reads that wgmma has
  // finished, as in ClusterBarrier::arrive of CUTLASS.
  b.ifThen(b.below(index, blocks), [&] {
    auto scope =
        NVVM::MemScopeKindAttr::get(b.getContext(), NVVM::MemScopeKind::CTA);
    NVVM::MBarrierArriveOp::create(b, /*res=*/Type(),
                                   b.mapToBlock(emptyBarrier(stage), index),
                                   Value(), scope);
  });
}

void WgmmaPipeline::syncBlocks(bool aligned) {
  b.arriveCluster(aligned);
  b.waitCluster(aligned);
}

//===----------------------------------------------------------------------===//
// Producer
//===----------------------------------------------------------------------===//

void WgmmaPipeline::issueTMA(Value target, Value map, ValueRange coordinates,
                             Value barrier, bool multicast) {
  auto cluster = LLVM::LLVMPointerType::get(
      b.getContext(), unsigned(NVVM::NVVMMemorySpace::SharedCluster));
  target = LLVM::AddrSpaceCastOp::create(b, cluster, target);
  auto mode =
      NVVM::TMALoadModeAttr::get(b.getContext(), NVVM::TMALoadMode::TILE);
  Value mask;
  if (multicast)
    mask = arith::ConstantIntOp::create(b, (int64_t(1) << blocks) - 1, 16);
  NVVM::CpAsyncBulkTensorGlobalToSharedClusterOp::create(
      b, target, map, coordinates, barrier, ValueRange(), mask, Value(), mode,
      b.getBoolAttr(false), NVVM::CTAGroupKindAttr(), Value());
}

void WgmmaPipeline::expectBytes(Value barrier, Value bytes) {
  auto scope =
      NVVM::MemScopeKindAttr::get(b.getContext(), NVVM::MemScopeKind::CTA);
  NVVM::MBarrierArriveExpectTxOp::create(b, /*res=*/Type(), barrier, bytes,
                                         scope, b.getBoolAttr(false), Value());
}

WgmmaPipeline::PipelineState WgmmaPipeline::fillStages(
    PipelineState start, Value steps,
    function_ref<void(Value step, Value stage, Value full)> fill) {
  SmallVector<Value> end =
      b.loop(b.i32(0), steps, b.i32(1), {start.stage, start.phase},
             [&](Value step, ValueRange carried) {
               PipelineState now{carried[0], carried[1]};
               waitBarrier(emptyBarrier(now.stage), now.phase);
               fill(step, now.stage, fullBarrier(now.stage));
               PipelineState next = advance(now);
               return SmallVector<Value>{next.stage, next.phase};
             });
  return {end[0], end[1]};
}

void WgmmaPipeline::copyChunk(Value target, Value source, Value bytes) {
  NVVM::CpAsyncOp::create(b, target, source, b.getI32IntegerAttr(16),
                          NVVM::LoadCacheModifierKindAttr::get(
                              b.getContext(), NVVM::LoadCacheModifierKind::CG),
                          bytes);
}

void WgmmaPipeline::signalFull(Value stage) {
  fenceAsyncProxy(b);
  arrive(fullBarrier(stage));
}

/// Returns the stage `count` stages before `stage`.
Value WgmmaPipeline::stageBefore(Value stage, int64_t count) {
  Value earlier = b.sub(stage, count % stages);
  return b.select(b.less(earlier, 0), b.add(earlier, stages), earlier);
}

void WgmmaPipeline::commitCopies(Value stage, Value step) {
  NVVM::CpAsyncCommitGroupOp::create(b);
  NVVM::CpAsyncWaitGroupOp::create(b, b.getI32IntegerAttr(cpAsyncStages));
  b.ifThen(b.logicalNot(b.less(step, cpAsyncStages)),
           [&] { signalFull(stageBefore(stage, cpAsyncStages)); });
}

void WgmmaPipeline::finishCopies(Value next, Value steps) {
  NVVM::CpAsyncWaitGroupOp::create(b, b.getI32IntegerAttr(0));
  for (int64_t behind = cpAsyncStages; behind > 0; --behind) {
    auto signal = [&] { signalFull(stageBefore(next, behind)); };
    APInt known;
    if (!matchPattern(steps, m_ConstantInt(&known)))
      b.ifThen(b.logicalNot(b.less(steps, behind)), signal);
    else if (known.getSExtValue() >= behind)
      signal();
  }
}

//===----------------------------------------------------------------------===//
// Consumers
//===----------------------------------------------------------------------===//

Value WgmmaPipeline::stageAddress(Value stage) {
  Value base = LLVM::PtrToIntOp::create(b, b.getI32Type(), memory);
  return b.add(base, b.mul(stage, stageBytes));
}

Value WgmmaPipeline::descriptor(Value address, int64_t leading) {
  constexpr int64_t swizzle128 = int64_t(1) << 62;
  constexpr int64_t eightRows = 8 * swizzleBytes;
  int64_t constant =
      swizzle128 | ((eightRows >> 4) << 32) | ((leading >> 4) << 16);
  Value start = b.shiftRight(b.bitAnd(address, 0x3FFFF), 4);
  Value wide = arith::ExtUIOp::create(b, b.getI64Type(), start);
  return b.bitOr(wide, b.i64(constant));
}

static Type accumulatorType(MLIRContext *context, int64_t columns) {
  return LLVM::LLVMStructType::getLiteral(
      context, SmallVector<Type>(columns / 2, Float32Type::get(context)));
}

Value WgmmaPipeline::undefinedAccumulators(int64_t columns) {
  return LLVM::UndefOp::create(b, accumulatorType(b.getContext(), columns));
}

Value WgmmaPipeline::wgmma(Value accumulators, Value lhs, Value rhs,
                           int64_t columns, bool lhsKMajor, bool rhsKMajor,
                           bool clear) {
  MLIRContext *context = b.getContext();
  auto layout = [&](NVVM::MMALayout kind) {
    return NVVM::MMALayoutAttr::get(context, kind);
  };
  bool fp8 = isa<Float8E4M3FNType>(operand);
  auto type = NVVM::WGMMATypesAttr::get(context, fp8 ? NVVM::WGMMATypes::e4m3
                                                 : operand.isF16()
                                                     ? NVVM::WGMMATypes::f16
                                                     : NVVM::WGMMATypes::bf16);
  auto f32 = NVVM::WGMMATypesAttr::get(context, NVVM::WGMMATypes::f32);
  auto one = NVVM::WGMMAScaleInAttr::get(context, NVVM::WGMMAScaleIn::one);
  auto scaleD = NVVM::WGMMAScaleOutAttr::get(
      context, clear ? NVVM::WGMMAScaleOut::zero : NVVM::WGMMAScaleOut::one);
  auto shape = NVVM::MMAShapeAttr::get(context, wgmmaM, columns, fp8 ? 32 : 16);
  constexpr auto row = NVVM::MMALayout::row, col = NVVM::MMALayout::col;
  return NVVM::WgmmaMmaAsyncOp::create(
      b, accumulatorType(context, columns), accumulators, lhs, rhs, shape, type,
      type, f32, scaleD, one, one, layout(lhsKMajor ? row : col),
      layout(rhsKMajor ? col : row), NVVM::MMAIntOverflowAttr());
}

// NVVM has only the form with both operands in shared memory.
Value WgmmaPipeline::wgmmaOfRegisters(Value accumulators, ArrayRef<Value> lhs,
                                      Value rhs, int64_t columns, bool clear) {
  assert(lhs.size() == 4 && "expected the registers of m64k16");
  int64_t count = columns / 2;
  SmallVector<Value> operands;
  for (int64_t i = 0; i < count; ++i)
    operands.push_back(LLVM::ExtractValueOp::create(b, accumulators, i));
  llvm::append_range(operands, lhs);
  operands.push_back(rhs);
  std::string results, constraints, tied;
  for (int64_t i = 0; i < count; ++i) {
    results += (i ? ", $" : "$") + std::to_string(i);
    constraints += "=f,";
    tied += std::to_string(i) + ",";
  }
  auto at = [&](int64_t i) { return "$" + std::to_string(2 * count + i); };
  std::string type = operand.isF16() ? "f16" : "bf16";
  std::string ptx =
      "{\n.reg .pred p;\nsetp.ne.b32 p, " + std::string(clear ? "0" : "1") +
      ", 0;\nwgmma.mma_async.sync.aligned.m64n" + std::to_string(columns) +
      "k16.f32." + type + "." + type + " {" + results + "}, {" + at(0) + ", " +
      at(1) + ", " + at(2) + ", " + at(3) + "}, " + at(4) + ", p, 1, 1, 0;\n}";
  return LLVM::InlineAsmOp::create(
             b, accumulatorType(b.getContext(), columns), operands, ptx,
             constraints + tied + "r,r,r,r,l", /*has_side_effects=*/true,
             /*is_align_stack=*/false, LLVM::TailCallKind::None,
             LLVM::AsmDialectAttr::get(b.getContext(),
                                       LLVM::AsmDialect::AD_ATT),
             /*operand_attrs=*/ArrayAttr())
      .getRes();
}

void WgmmaPipeline::waitWgmma(int64_t pending) {
  NVVM::WgmmaWaitGroupSyncOp::create(b, b.getI64IntegerAttr(pending));
}

WgmmaPipeline::MainloopResult
WgmmaPipeline::mainloop(PipelineState start, Value steps, int64_t count,
                        int64_t columns, MultiplyStage multiply, bool fences) {
  waitFull(start, fences);
  SmallVector<Value> accumulators(count, undefinedAccumulators(columns));
  accumulators = multiply(accumulators, start.stage, /*first=*/true);
  PipelineState second = advance(start);
  SmallVector<Value> inits{second.stage, second.phase, start.stage};
  llvm::append_range(inits, accumulators);
  SmallVector<Value> end =
      b.loop(b.i32(1), steps, b.i32(1), inits, [&](Value, ValueRange carried) {
        PipelineState now{carried[0], carried[1]};
        waitFull(now, fences);
        SmallVector<Value> accumulators =
            multiply(carried.drop_front(3), now.stage, /*first=*/false);
        // The wgmmas of the stage before have finished; it can be refilled.
        waitWgmma(1);
        releaseStage(carried[2]);
        PipelineState next = advance(now);
        SmallVector<Value> results{next.stage, next.phase, now.stage};
        llvm::append_range(results, accumulators);
        return results;
      });
  return {
      {end[0], end[1]}, end[2], SmallVector<Value>(llvm::drop_begin(end, 3))};
}
