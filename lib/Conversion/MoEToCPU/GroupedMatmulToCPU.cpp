//===- GroupedMatmulToCPU.cpp - moe.grouped_matmul ------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A task computes a block of rows of one expert and a few panels of its
// weights. The number of tasks of an expert follows from its rows; an expert
// without rows has none. The executor balances tasks dynamically.
//
// A task processes one panel after the other, each for all rows, in blocks of k
// that stay in the L2 cache. The accumulators of a tile go from registers
// through a scratch buffer to the epilogue.
//
// Tasks of many rows may work in blocks of decoded weights instead, see
// GroupedMatmulInBlocks.cpp. The bits are the same.
//
//===----------------------------------------------------------------------===//

#include "GroupedMatmulLowering.h"

#include "Epilogue.h"
#include "Quantized/QuantizedKernel.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"

using namespace mlir;
using namespace mlir::moe;

/// Returns the maximum rows of a tile in the plan of the function.
static int64_t plannedRows(GroupedMatmulOp op) {
  auto function = op->getParentOfType<func::FuncOp>();
  auto plan =
      function ? function->getAttrOfType<PlanAttr>(planAttrName) : PlanAttr();
  if (!plan || plan.getDispatches().empty())
    return INT64_MAX;
  int64_t rows = 1;
  if (!op.getOffsets())
    return std::max(rows, plan.getMaxTokensAtOnce());
  for (auto dispatch : plan.getDispatches().getAsRange<DispatchPlanAttr>())
    for (auto range : dispatch.getRanges().getAsRange<TileRangeAttr>())
      rows = std::max(rows, range.getRows());
  return rows;
}

GroupedMatmulLowering::GroupedMatmulLowering(GroupedMatmulOp op,
                                             const CPUDescription &cpu)
    : op(op), kernel(chooseKernel(cpu, elementOf(op), *op.getPanels())),
      b(op.getLoc(), op) {
  int64_t most = plannedRows(op);
  kernel.maxRows = std::min(kernel.maxRows, most);
  blockKernel = chooseBlockKernel(cpu);
  if (blockKernel && most < blockKernel->maxRows)
    blockKernel.reset(); // no task has many rows
}

Value GroupedMatmulLowering::boundary(Value expert) {
  expert = b.add(expert, op.getFirstExpert());
  Value row = memref::LoadOp::create(b, op.getOffsets(), expert);
  return b.clamp(b.toIndex(row), resultRows);
}

int64_t GroupedMatmulLowering::fewestTaskPanels() {
  int64_t columns = kernel.getColumns();
  int64_t bytes = format() ? packed().getPanelBytes(columns, op.getK())
                           : kernel.bytesOf(columns * op.getK());
  return std::clamp<int64_t>(llvm::divideCeil(128 << 10, bytes), 1,
                             mostTaskPanels());
}

/// Fills `starts` and returns the number of blocks of rows.
Value GroupedMatmulLowering::countRowBlocks() {
  if (!op.getOffsets())
    return b.ceilDiv(resultRows, taskRows());
  int64_t experts = op.getExpertCount();
  starts = memref::AllocOp::create(
      b, MemRefType::get({experts + 1}, b.getIndexType()));
  auto loop = scf::ForOp::create(b, b.index(0), b.index(experts), b.index(1),
                                 ValueRange(b.index(0)));
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(loop.getBody());
  Value expert = loop.getInductionVar(), first = loop.getRegionIterArgs()[0];
  memref::StoreOp::create(b, first, starts, expert);
  Value rows = b.sub(boundary(b.add(expert, 1)), boundary(expert));
  Value blocks = b.ceilDiv(b.clamp(rows, resultRows), taskRows());
  scf::YieldOp::create(b, b.add(first, blocks));
  b.setInsertionPointAfter(loop);
  memref::StoreOp::create(b, loop.getResult(0), starts, b.index(experts));
  return loop.getResult(0);
}

/// Sets `taskPanels`: few if there are few blocks of rows, as with few tokens,
/// so that many threads have tasks and end at about the same time.
void GroupedMatmulLowering::chooseTaskPanels(Value rowBlocks) {
  constexpr int64_t enoughTasks = 256;
  Value each = b.div(b.mul(rowBlocks, panels()), enoughTasks);
  Value fewest = b.index(fewestTaskPanels());
  taskPanels = arith::MaxUIOp::create(b, each, fewest);
  taskPanels = b.min(taskPanels, b.index(mostTaskPanels()));
  groups = arith::CeilDivUIOp::create(b, b.index(panels()), taskPanels);
}

/// Chooses what to prefetch during a tile. The tiles of a part share the
/// prefetch of the next part, which is adjacent in memory, while this one is in
/// the cache. The first tile of a task and a tile that is alone in its part
/// read their own weights from memory up to `end`. The last part prefetches
/// nothing: what follows belongs to another task.
GroupedMatmulLowering::Ahead
GroupedMatmulLowering::prefetch(const Part &part, const Tile &tile, Value start,
                                Value steps, Value end) {
  auto choose = [&](Value condition, Value yes, Value no) -> Value {
    return arith::SelectOp::create(b, condition, yes, no);
  };
  Value before = choose(part.isFirst, b.index(1), b.index(0));
  Value index = b.sub(tile.index, before);
  Value own = arith::OrIOp::create(b, b.less(index, b.index(0)),
                                   b.less(tile.total, b.index(2)));
  // At least two, since a kernel prefetches at most half of what it reads.
  Value sharing =
      arith::MaxSIOp::create(b, b.sub(tile.total, before), b.index(2));
  Value elements = b.mul(steps, kernel.getStep());
  Value done = arith::DivUIOp::create(b, b.mul(index, elements), sharing);
  Value next = b.add(b.add(start, elements), done);
  Value step = arith::DivUIOp::create(
      b, b.index(kernel.getStep() * Kernel::unroll), sharing);
  Value isNothing = arith::OrIOp::create(b, own, part.isLast);
  Ahead ahead = {next, choose(isNothing, b.index(0), step)};
  if (kernel.prefetchedPages > 0)
    ahead = {choose(own, end, ahead.start),
             choose(own, b.index(aheadIsEnd), ahead.step)};
  return ahead;
}

/// Stores the first element of each row of a tile, from `column` on.
void GroupedMatmulLowering::buildFirsts(const Tile &tile, Value firstRow,
                                        Value column) {
  Value row = b.add(firstRow, tile.row);
  b.forEach(b.index(0), tile.count, [&](Value i) {
    Value source = b.add(row, i);
    if (op.getGather())
      source =
          b.clamp(b.toIndex(memref::LoadOp::create(b, op.getGather(), source)),
                  lastLhsRow);
    Value first = b.add(b.mul(source, lhs.strides[0]), lhs.offset);
    memref::StoreOp::create(b, b.add(first, column), firsts, i);
  });
}

/// Computes one tile along all of k from weights that stay quantised.
void GroupedMatmulLowering::buildQuantizedTile(const Part &part,
                                               const Tile &tile,
                                               Value firstRow) {
  PackedFormat packed = *PackedFormat::get(format());
  buildFirsts(tile, firstRow, b.index(0));
  Value start = startOf(part.expert, part.panel, b.index(0));
  Value rest = b.index(op.getK() % packed.group / packed.getStep());
  // The first tile of a panel brings it to the caches.
  Value end = startOf(part.expert, part.lastPanel, b.index(0));
  end = arith::SelectOp::create(b, b.less(tile.index, b.index(1)), end, start);
  auto module = op->getParentOfType<ModuleOp>();
  b.callKernel(tile.count, kernel.maxRows,
               {lhs.elements, firsts, weights.elements, start, accumulators,
                b.index(0), b.index(op.getK() / packed.group), rest, end},
               [&](int64_t rows) {
                 return getOrCreateQuantizedKernel(module, kernel, format(),
                                                   rows);
               });
}

/// Computes a row of a panel again if its accumulators, from `start` on, have a
/// NaN that may come from the difference of two infinities.
void GroupedMatmulLowering::repairRow(Value expert, Value panel, Value row,
                                      Value start) {
  auto f32 = VectorType::get(kernel.lanes, b.getF32Type());
  Value isNaN;
  for (int64_t j = 0; j < kernel.vectors; ++j) {
    Value x = vector::LoadOp::create(b, f32, accumulators,
                                     b.add(start, j * kernel.lanes));
    Value each = arith::CmpFOp::create(b, arith::CmpFPredicate::UNO, x, x);
    isNaN = isNaN ? arith::OrIOp::create(b, isNaN, each).getResult() : each;
  }
  isNaN = vector::ReductionOp::create(b, vector::CombiningKind::OR, isNaN);
  b.ifThen(isNaN, [&] {
    buildFirsts({b.index(0), b.index(1), b.index(0), b.index(1)}, row,
                b.index(0));
    PackedFormat packed = *PackedFormat::get(format());
    Value first = startOf(expert, panel, b.index(0));
    func::CallOp::create(
        b,
        getOrCreateExactKernel(op->getParentOfType<ModuleOp>(), kernel,
                               format()),
        ValueRange{lhs.elements, firsts, weights.elements, first, accumulators,
                   start, b.index(op.getK() / packed.group),
                   b.index(op.getK() % packed.group / packed.getStep()),
                   first});
  });
}

/// Computes one tile along one block of k; overwrites or adds to the
/// accumulators from `accumulatorsStart` on.
void GroupedMatmulLowering::buildTile(const Part &part, const Tile &tile,
                                      Value firstRow, Value accumulatorsStart) {
  auto [expert, panel, block, isFirst, isLast, lastPanel] = part;
  // The first element of each row in this block of k.
  buildFirsts(tile, firstRow, b.mul(block, blockSteps() * kernel.depth));
  int64_t panelSteps = wholeSteps() + tail();
  auto placeOf = [&](Value each, Value step) {
    Value start = b.add(b.mul(expert, panels()), each);
    start = b.add(b.mul(start, panelSteps), step);
    return b.add(b.mul(start, kernel.getStep()), weights.offset);
  };
  Value start = placeOf(panel, b.mul(block, blockSteps()));
  Value done = b.mul(block, blockSteps());
  Value left = b.sub(b.index(wholeSteps()), done);
  Value steps = b.min(left, b.index(blockSteps()));
  // The odd element of a row belongs to the last block.
  Value ends = b.less(left, b.index(blockSteps() + 1));
  Value rest = arith::SelectOp::create(b, ends, b.index(tail()), b.index(0));
  Value resume = b.less(b.index(0), block);
  Ahead ahead = prefetch(part, tile, start, b.add(steps, rest),
                         placeOf(lastPanel, b.index(0)));
  auto module = op->getParentOfType<ModuleOp>();
  b.callKernel(
      tile.count, kernel.maxRows,
      {lhs.elements, firsts, weights.elements, start, accumulators,
       accumulatorsStart, steps, rest, ahead.start, ahead.step, resume},
      [&](int64_t rows) { return getOrCreateKernel(module, kernel, rows); });
}

void GroupedMatmulLowering::buildEpilogueOfRows(Value expert, Value panel,
                                                Value row, Value count,
                                                Value accumulatorsStart) {
  b.forEach(b.index(0), count, [&](Value i) {
    Value start = b.add(accumulatorsStart, b.mul(i, kernel.getColumns()));
    if (subtractsRowSums() && !kernel.element.isInteger(8))
      repairRow(expert, panel, b.add(row, i), start);
    buildEpilogue(b, op, kernel, {expert, b.add(row, i), panel}, accumulators,
                  start);
  });
}

/// Computes one panel for all rows of a task.
void GroupedMatmulLowering::buildPanel(Part part, Value firstRow, Value rows) {
  if (blocks() == 1) {
    b.forEachTile(rows, kernel.maxRows, [&](const Tile &tile) {
      if (format())
        buildQuantizedTile(part, tile, firstRow);
      else
        buildTile(part, tile, firstRow, b.index(0));
      buildEpilogueOfRows(part.expert, part.panel, b.add(firstRow, tile.row),
                          tile.count, b.index(0));
    });
    return;
  }
  b.forEach(b.index(0), b.index(blocks()), [&](Value block) {
    Part each = part;
    each.block = block;
    each.isFirst =
        arith::AndIOp::create(b, part.isFirst, b.less(block, b.index(1)));
    each.isLast = arith::AndIOp::create(b, part.isLast,
                                        b.less(b.index(blocks() - 2), block));
    b.forEachTile(rows, kernel.maxRows, [&](const Tile &tile) {
      buildTile(each, tile, firstRow, b.mul(tile.row, kernel.getColumns()));
    });
  });
  buildEpilogueOfRows(part.expert, part.panel, firstRow, rows, b.index(0));
}

void GroupedMatmulLowering::buildTask(Value task) {
  int64_t scratchRows = blocks() == 1 ? kernel.maxRows : taskRows();
  if (blockKernel) {
    scratchRows = taskRows() * panelsAtOnce();
    allocateBlocks();
  }
  accumulators =
      b.allocateScratch(b.getF32Type(), scratchRows * kernel.getColumns());
  int64_t maxRows = kernel.maxRows;
  if (blockKernel)
    maxRows = std::max(maxRows, blockKernel->maxRows);
  firsts = b.allocateScratch(b.getIndexType(), maxRows);

  Value expert = b.index(0), begin = b.index(0), end = resultRows;
  Value index = arith::DivUIOp::create(b, task, groups);
  Value group = arith::RemUIOp::create(b, task, groups);
  if (op.getOffsets()) {
    // The expert of this task: count the experts whose first block is not after
    // it.
    auto search =
        scf::ForOp::create(b, b.index(1), b.index(op.getExpertCount()),
                           b.index(1), ValueRange(b.index(0)));
    {
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointToStart(search.getBody());
      Value start = memref::LoadOp::create(b, starts, search.getInductionVar());
      Value before =
          arith::CmpIOp::create(b, arith::CmpIPredicate::sle, start, index);
      Value one = arith::SelectOp::create(b, before, b.index(1), b.index(0));
      scf::YieldOp::create(b, b.add(search.getRegionIterArgs()[0], one));
    }
    expert = search.getResult(0);
    begin = boundary(expert);
    end = boundary(b.add(expert, 1));
    Value first = memref::LoadOp::create(b, starts, expert);
    index = b.sub(index, first);
  }
  Value row = b.add(begin, b.mul(index, taskRows()));
  Value rows = b.min(b.sub(end, row), b.index(taskRows()));
  Value panel = b.mul(group, taskPanels);
  Value lastPanel = b.min(b.add(panel, taskPanels), b.index(panels()));
  auto buildPanels = [&] {
    b.forEach(panel, lastPanel, [&](Value each) {
      Value isFirst = b.less(each, b.add(panel, 1));
      Value isLast = b.less(b.sub(lastPanel, b.index(2)), each);
      buildPanel({expert, each, b.index(0), isFirst, isLast, lastPanel}, row,
                 rows);
    });
  };
  if (!blockKernel)
    return buildPanels();
  b.ifElse(b.less(rows, b.index(leastRows())), buildPanels,
           [&] { buildInBlocks(expert, panel, lastPanel, row, rows); });
}

LogicalResult GroupedMatmulLowering::run() {
  SmallVector<Value> matrices(op.getInits());
  matrices.push_back(op.getLhs());
  for (Value rows : matrices)
    if (!cast<MemRefType>(rows.getType()).isLastDimUnitStride())
      return op.emitOpError("expected contiguous rows, got ") << rows.getType();
  if (Type type = op.getWeights().front().getType();
      !cast<MemRefType>(type).getLayout().isIdentity())
    return op.emitOpError("expected compact weights, got ") << type;
  if (op.getK() == 0 || op.getN() == 0)
    return op.emitOpError("expected rows and weights with columns, got none");
  lhs = flatten(b, op.getLhs());
  weights = flatten(b, op.getWeights().front());
  resultRows = memref::DimOp::create(b, op.getInit(), 0);
  if (op.getGather()) {
    // Without source rows nothing can be gathered.
    lastLhsRow = b.sub(memref::DimOp::create(b, op.getLhs(), 0), b.index(1));
    resultRows = arith::SelectOp::create(b, b.less(lastLhsRow, b.index(0)),
                                         b.index(0), resultRows);
  }
  Value rowBlocks = countRowBlocks();
  chooseTaskPanels(rowBlocks);
  b.forEachTask(b.mul(rowBlocks, groups), [&](Value task) { buildTask(task); });
  op.erase();
  return success();
}

/// Checks that a kernel multiplies rows of this type with this format.
static LogicalResult verifyFormat(GroupedMatmulOp op,
                                  const CPUDescription &cpu) {
  if (!hasQuantizedKernels(cpu))
    return op->emitOpError("expected a processor with vectors of 256 or 512 "
                           "bits for weights packed with a format");
  FormatAttr format = op.getPanels()->getFormat();
  if (op.hasQuantizedRows() && !hasInt8Kernel(cpu, *PackedFormat::get(format)))
    return op->emitOpError("expected a format that kernels of this "
                           "processor multiply with rows of i8, got ")
           << format;
  return success();
}

/// Checks that the weights are packed in a layout that the kernels read.
static LogicalResult verifyPanels(GroupedMatmulOp op,
                                  const CPUDescription &cpu) {
  std::optional<PanelsAttr> panels = op.getPanels();
  if (!panels || panels->getColumns() % cpu.getLanes() != 0 ||
      panels->getShare() % cpu.getLanes() != 0)
    return op->emitOpError("expected weights packed in whole vectors of ")
           << cpu.getLanes() << " lanes; run moe-pack-weights";
  Type element = cast<MemRefType>(op.getLhs().getType()).getElementType();
  if (panels->getFormat())
    return verifyFormat(op, cpu);
  int64_t maxDepth = cpu.bf16Dot && element.isBF16() ? 2 : 1;
  if (panels->getDepth() > maxDepth)
    return op->emitOpError("expected weights packed to a depth of at most ")
           << maxDepth << ", for " << element << " on this processor, got "
           << panels->getDepth();
  return success();
}

LogicalResult mlir::moe::lowerToCPU(GroupedMatmulOp op,
                                    const CPUDescription &cpu) {
  if (failed(verifyPanels(op, cpu)))
    return failure();
  return GroupedMatmulLowering(op, cpu).run();
}
