//===- GroupedMatmulToCPU.cpp - moe.grouped_matmul ------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A task is a block of rows of one expert times a few panels of its weights. The
// number of tasks of each expert follows from its rows, so that a full expert is
// as many tasks as it needs and an empty one is none; the executor hands them out
// as threads become free.
//
// In a task each panel meets all rows before the next, in blocks along k that
// stay in the second-level cache. The sums of a tile go from registers through a
// scratch buffer to the epilogue.
//
//===----------------------------------------------------------------------===//

#include "Epilogue.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"

using namespace mlir;
using namespace mlir::moe;

/// Rows of a tile at most, as the plan of the function has it.
static int64_t plannedRows(GroupedMatmulOp op) {
  auto function = op->getParentOfType<func::FuncOp>();
  auto plan = function ? function->getAttrOfType<PlanAttr>(planAttrName) : PlanAttr();
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

namespace {
class GroupedMatmulLowering {
public:
  GroupedMatmulLowering(GroupedMatmulOp op, const CPUDescription &cpu)
      : op(op), kernel(chooseKernel(cpu, elementOf(op), *op.getPanels())),
        b(op.getLoc(), op) {
    kernel.maxRows = std::min(kernel.maxRows, plannedRows(op));
  }

  LogicalResult run();

private:
  static Type elementOf(GroupedMatmulOp op) {
    return cast<MemRefType>(op.getLhs().getType()).getElementType();
  }

  /// Rows of a task at most: many enough that a panel is read from memory a few
  /// times only, few enough for their sums to fit the second-level cache.
  int64_t taskRows() { return 192 / kernel.maxRows * kernel.maxRows; }
  /// Panels of a task.
  int64_t taskPanels() { return std::min<int64_t>(8, panels()); }
  int64_t groups() { return llvm::divideCeil(panels(), taskPanels()); }
  int64_t panels() {
    return llvm::divideCeil(op.getN(), op.getPanels()->getShare());
  }
  /// Steps along k in all, and in a block.
  int64_t wholeSteps() { return op.getK() / kernel.depth; }
  int64_t tail() { return op.getK() % kernel.depth; }
  /// As equal as can be, and small enough that one and the next stay in the
  /// second-level cache while the rows pass by.
  int64_t blocks() {
    int64_t most = kernel.elementsIn(256 << 10) / kernel.getStep();
    return std::max<int64_t>(1, llvm::divideCeil(wholeSteps(), most));
  }
  int64_t blockSteps() {
    return llvm::alignTo(llvm::divideCeil(wholeSteps(), blocks()),
                         Kernel::unroll);
  }

  /// The first row of an expert, held to the rows that there are.
  Value boundary(Value expert);
  Value countTasks();
  void buildTask(Value task);
  /// A block of k of a panel of an expert.
  struct Part {
    Value expert, panel, block;
    Value isFirst, isLast; // of the task
  };
  /// Some of the rows of a task, which are `total` tiles.
  struct Tile {
    Value number, total, row, count;
  };
  struct Ahead {
    Value start, step;
  };
  void buildPanel(Part part, Value firstRow, Value rows);
  Ahead prefetch(const Part &part, const Tile &tile, Value start, Value steps);
  void buildTile(const Part &part, const Tile &tile, Value firstRow,
                 Value sumsStart);
  void forEachTile(Value rows, llvm::function_ref<void(const Tile &)> body);
  void buildEpilogueOfRows(Value expert, Value panel, Value row, Value count,
                           Value sumsStart);

  GroupedMatmulOp op;
  Kernel kernel;
  CPUBuilder b;
  FlatBuffer lhs, weights;
  Value resultRows, lastLhsRow;
  Value starts;       // the first task of each expert, and the end: [E + 1]
  Value sums, firsts; // scratch of a task
};
} // namespace

Value GroupedMatmulLowering::boundary(Value expert) {
  expert = b.add(expert, op.getFirstExpert());
  Value row = memref::LoadOp::create(b, op.getOffsets(), expert);
  return b.hold(b.toIndex(row), resultRows);
}

/// Fill `starts`; the number of tasks.
Value GroupedMatmulLowering::countTasks() {
  auto tasksOf = [&](Value rows) {
    return b.mul(b.ceilDiv(rows, taskRows()), groups());
  };
  if (!op.getOffsets())
    return tasksOf(resultRows);
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
  Value tasks = tasksOf(b.hold(rows, resultRows));
  scf::YieldOp::create(b, b.add(first, tasks));
  b.setInsertionPointAfter(loop);
  memref::StoreOp::create(b, loop.getResult(0), starts, b.index(experts));
  return loop.getResult(0);
}

/// Tiles of as equal a height as can be.
void GroupedMatmulLowering::forEachTile(
    Value rows, llvm::function_ref<void(const Tile &)> body) {
  Value tiles = b.ceilDiv(rows, kernel.maxRows);
  Value height = arith::DivUIOp::create(b, rows, tiles);
  Value taller = arith::RemUIOp::create(b, rows, tiles);
  b.forEach(b.index(0), tiles, [&](Value tile) {
    Value row = b.add(b.mul(tile, height), b.min(tile, taller));
    Value extra = arith::SelectOp::create(b, b.less(tile, taller), b.index(1),
                                          b.index(0));
    body({tile, tiles, row, b.add(height, extra)});
  });
}

/// What to bring into the cache during a tile: the part after this one, which
/// lies behind it, is spread over all tiles. Nobody did so for the first part of a
/// task, where the first tile looks ahead in the part itself, as the only tile of
/// any part does; and what follows its last part is another task's.
GroupedMatmulLowering::Ahead
GroupedMatmulLowering::prefetch(const Part &part, const Tile &tile, Value start,
                                Value steps) {
  auto choose = [&](Value condition, Value yes, Value no) -> Value {
    return arith::SelectOp::create(b, condition, yes, no);
  };
  Value before = choose(part.isFirst, b.index(1), b.index(0));
  Value number = b.sub(tile.number, before);
  Value own = arith::OrIOp::create(b, b.less(number, b.index(0)),
                                   b.less(tile.total, b.index(2)));
  // Two at least: a kernel asks for half of what it reads.
  Value sharing =
      arith::MaxSIOp::create(b, b.sub(tile.total, before), b.index(2));
  Value elements = b.mul(steps, kernel.getStep());
  Value done = arith::DivUIOp::create(b, b.mul(number, elements), sharing);
  Value next = b.add(b.add(start, elements), done);
  Value step = arith::DivUIOp::create(
      b, b.index(kernel.getStep() * Kernel::unroll), sharing);
  return {choose(part.isLast, start, next),
          choose(own, b.index(0), choose(part.isLast, b.index(1), step))};
}

/// One tile along one block of k: into, or on top of, the sums from `sumsStart`.
void GroupedMatmulLowering::buildTile(const Part &part, const Tile &tile,
                                      Value firstRow, Value sumsStart) {
  auto [expert, panel, block, isFirst, isLast] = part;
  Value row = b.add(firstRow, tile.row), count = tile.count;
  // Where the parts of the rows start.
  Value column = b.mul(block, blockSteps() * kernel.depth);
  b.forEach(b.index(0), count, [&](Value i) {
    Value source = b.add(row, i);
    if (op.getGather())
      source = b.hold(
          b.toIndex(memref::LoadOp::create(b, op.getGather(), source)),
          lastLhsRow);
    Value first = b.add(b.mul(source, lhs.strides[0]), lhs.offset);
    memref::StoreOp::create(b, b.add(first, column), firsts, i);
  });
  int64_t panelSteps = wholeSteps() + tail();
  Value start = b.add(b.mul(expert, panels()), panel);
  start = b.add(b.mul(start, panelSteps), b.mul(block, blockSteps()));
  start = b.add(b.mul(start, kernel.getStep()), weights.offset);
  Value done = b.mul(block, blockSteps());
  Value left = b.sub(b.index(wholeSteps()), done);
  Value steps = b.min(left, b.index(blockSteps()));
  // The odd element of a row comes with its last block.
  Value ends = b.less(left, b.index(blockSteps() + 1));
  Value rest = arith::SelectOp::create(b, ends, b.index(tail()), b.index(0));
  Value resume = b.less(b.index(0), block);
  Ahead ahead = prefetch(part, tile, start, b.add(steps, rest));

  SmallVector<int64_t> heights =
      llvm::to_vector(llvm::seq_inclusive<int64_t>(1, kernel.maxRows));
  auto choice = scf::IndexSwitchOp::create(b, TypeRange(), count, heights,
                                           heights.size());
  OpBuilder::InsertionGuard guard(b);
  auto module = op->getParentOfType<ModuleOp>();
  for (auto [height, region] : llvm::zip(heights, choice.getCaseRegions())) {
    b.createBlock(&region);
    func::CallOp::create(
        b, getOrCreateKernel(module, kernel, height),
        ValueRange{lhs.elements, firsts, weights.elements, start, sums,
                   sumsStart, steps, rest, ahead.start, ahead.step, resume});
    scf::YieldOp::create(b);
  }
  b.createBlock(&choice.getDefaultRegion());
  scf::YieldOp::create(b);
}

void GroupedMatmulLowering::buildEpilogueOfRows(Value expert, Value panel,
                                                Value row, Value count,
                                                Value sumsStart) {
  b.forEach(b.index(0), count, [&](Value i) {
    buildEpilogue(b, op, kernel, {expert, b.add(row, i), panel}, sums,
                  b.add(sumsStart, b.mul(i, kernel.getColumns())));
  });
}

/// All rows of a task times one panel.
void GroupedMatmulLowering::buildPanel(Part part, Value firstRow, Value rows) {
  if (blocks() == 1) {
    forEachTile(rows, [&](const Tile &tile) {
      buildTile(part, tile, firstRow, b.index(0));
      buildEpilogueOfRows(part.expert, part.panel, b.add(firstRow, tile.row),
                          tile.count, b.index(0));
    });
    return;
  }
  b.forEach(b.index(0), b.index(blocks()), [&](Value block) {
    Part each = part;
    each.block = block;
    each.isFirst = arith::AndIOp::create(b, part.isFirst,
                                         b.less(block, b.index(1)));
    each.isLast = arith::AndIOp::create(
        b, part.isLast, b.less(b.index(blocks() - 2), block));
    forEachTile(rows, [&](const Tile &tile) {
      buildTile(each, tile, firstRow, b.mul(tile.row, kernel.getColumns()));
    });
  });
  buildEpilogueOfRows(part.expert, part.panel, firstRow, rows, b.index(0));
}

void GroupedMatmulLowering::buildTask(Value task) {
  int64_t scratchRows = blocks() == 1 ? kernel.maxRows : taskRows();
  sums = memref::AllocaOp::create(
      b, MemRefType::get({ShapedType::kDynamic}, b.getF32Type()),
      ValueRange(b.index(scratchRows * kernel.getColumns())),
      b.getI64IntegerAttr(64));
  firsts = memref::AllocaOp::create(
      b, MemRefType::get({ShapedType::kDynamic}, b.getIndexType()),
      ValueRange(b.index(kernel.maxRows)));

  Value expert = b.index(0), begin = b.index(0), end = resultRows;
  Value number = task;
  if (op.getOffsets()) {
    // The expert whose tasks these are: as many as end at or before this one.
    auto search = scf::ForOp::create(
        b, b.index(1), b.index(op.getExpertCount()), b.index(1),
        ValueRange(b.index(0)));
    {
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointToStart(search.getBody());
      Value start =
          memref::LoadOp::create(b, starts, search.getInductionVar());
      Value before = arith::CmpIOp::create(b, arith::CmpIPredicate::sle, start,
                                           task);
      Value one = arith::SelectOp::create(b, before, b.index(1), b.index(0));
      scf::YieldOp::create(b, b.add(search.getRegionIterArgs()[0], one));
    }
    expert = search.getResult(0);
    begin = boundary(expert);
    end = boundary(b.add(expert, 1));
    Value first = memref::LoadOp::create(b, starts, expert);
    number = b.sub(task, first);
  }
  Value row = b.add(begin, b.mul(b.div(number, groups()), taskRows()));
  Value rows = b.min(b.sub(end, row), b.index(taskRows()));
  Value panel = b.mul(b.rem(number, groups()), taskPanels());
  Value lastPanel = b.min(b.add(panel, taskPanels()), b.index(panels()));
  b.forEach(panel, lastPanel, [&](Value each) {
    Value isFirst = b.less(each, b.add(panel, 1));
    Value isLast = b.less(b.sub(lastPanel, b.index(2)), each);
    buildPanel({expert, each, b.index(0), isFirst, isLast}, row, rows);
  });
}

LogicalResult GroupedMatmulLowering::run() {
  for (Value rows : {op.getLhs(), op.getInit()})
    if (!cast<MemRefType>(rows.getType()).isLastDimUnitStride())
      return op.emitOpError("expected rows whose elements lie beside each "
                            "other, got ")
             << rows.getType();
  if (Type type = op.getWeights().front().getType();
      !cast<MemRefType>(type).getLayout().isIdentity())
    return op.emitOpError("expected compact weights, got ") << type;
  if (op.getK() == 0 || op.getN() == 0)
    return op.emitOpError("expected rows and weights with columns, got none");
  lhs = flatten(b, op.getLhs());
  weights = flatten(b, op.getWeights().front());
  resultRows = memref::DimOp::create(b, op.getInit(), 0);
  if (op.getGather()) {
    // Where there is nothing to gather there is nothing to do.
    lastLhsRow = b.sub(memref::DimOp::create(b, op.getLhs(), 0), b.index(1));
    resultRows = arith::SelectOp::create(
        b, b.less(lastLhsRow, b.index(0)), b.index(0), resultRows);
  }
  b.forEachTask(countTasks(), [&](Value task) { buildTask(task); });
  op.erase();
  return success();
}

LogicalResult mlir::moe::lowerToCPU(GroupedMatmulOp op,
                                    const CPUDescription &cpu) {
  return GroupedMatmulLowering(op, cpu).run();
}
