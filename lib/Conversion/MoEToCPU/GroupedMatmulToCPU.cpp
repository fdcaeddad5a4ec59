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

using namespace mlir;
using namespace mlir::moe;

namespace {
class GroupedMatmulLowering {
public:
  GroupedMatmulLowering(GroupedMatmulOp op, const CPUDescription &cpu)
      : op(op), kernel(chooseKernel(cpu, elementOf(op), *op.getPanels())),
        b(op.getLoc(), op) {}

  LogicalResult run();

private:
  static Type elementOf(GroupedMatmulOp op) {
    return cast<MemRefType>(op.getLhs().getType()).getElementType();
  }

  /// Rows of a task at most: many enough that a panel is read from memory a few
  /// times only, few enough for their sums to fit the second-level cache.
  int64_t taskRows() { return 192 / kernel.maxRows * kernel.maxRows; }
  /// Panels of a task.
  int64_t taskPanels() { return std::min<int64_t>(4, panels()); }
  int64_t groups() { return llvm::divideCeil(panels(), taskPanels()); }
  int64_t panels() {
    return llvm::divideCeil(op.getN(), op.getPanels()->getShare());
  }
  /// Steps along k in all, and in a block.
  int64_t wholeSteps() { return op.getK() / kernel.depth; }
  int64_t tail() { return op.getK() % kernel.depth; }
  int64_t blockSteps() { return kernel.getBlock() / kernel.depth; }
  bool oneBlock() { return wholeSteps() <= blockSteps(); }

  /// The first row of an expert, held to the rows that there are.
  Value boundary(Value expert);
  Value countTasks();
  void buildTask(Value task);
  void buildPanel(Value expert, Value panel, Value firstRow, Value rows);
  void buildTile(Value expert, Value panel, Value row, Value count, Value block,
                 Value sumsStart);
  void forEachTile(Value rows, llvm::function_ref<void(Value, Value)> body);
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

/// Tiles of as equal a height as can be: (first row, rows) of each.
void GroupedMatmulLowering::forEachTile(
    Value rows, llvm::function_ref<void(Value, Value)> body) {
  Value tiles = b.ceilDiv(rows, kernel.maxRows);
  Value height = arith::DivUIOp::create(b, rows, tiles);
  Value taller = arith::RemUIOp::create(b, rows, tiles);
  b.forEach(b.index(0), tiles, [&](Value tile) {
    Value row = b.add(b.mul(tile, height), b.min(tile, taller));
    Value extra = arith::SelectOp::create(b, b.less(tile, taller), b.index(1),
                                          b.index(0));
    body(row, b.add(height, extra));
  });
}

/// One tile along one block of k: into, or on top of, the sums from `sumsStart`.
void GroupedMatmulLowering::buildTile(Value expert, Value panel, Value row,
                                      Value count, Value block,
                                      Value sumsStart) {
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
  start = b.add(b.mul(start, kernel.getColumns() * kernel.depth), weights.offset);
  Value done = b.mul(block, blockSteps());
  Value left = b.sub(b.index(wholeSteps()), done);
  Value steps = b.min(left, b.index(blockSteps()));
  // The odd element of a row comes with its last block.
  Value isLast = b.less(left, b.index(blockSteps() + 1));
  Value rest = arith::SelectOp::create(b, isLast, b.index(tail()), b.index(0));
  Value resume = b.less(b.index(0), block);

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
                   sumsStart, steps, rest, resume});
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
void GroupedMatmulLowering::buildPanel(Value expert, Value panel,
                                       Value firstRow, Value rows) {
  if (oneBlock()) {
    forEachTile(rows, [&](Value tileRow, Value count) {
      Value row = b.add(firstRow, tileRow), start = b.index(0);
      buildTile(expert, panel, row, count, b.index(0), start);
      buildEpilogueOfRows(expert, panel, row, count, start);
    });
    return;
  }
  Value blocks = b.index(llvm::divideCeil(wholeSteps(), blockSteps()));
  b.forEach(b.index(0), blocks, [&](Value block) {
    forEachTile(rows, [&](Value tileRow, Value count) {
      buildTile(expert, panel, b.add(firstRow, tileRow), count, block,
                b.mul(tileRow, kernel.getColumns()));
    });
  });
  buildEpilogueOfRows(expert, panel, firstRow, rows, b.index(0));
}

void GroupedMatmulLowering::buildTask(Value task) {
  int64_t scratchRows = oneBlock() ? kernel.maxRows : taskRows();
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
    buildPanel(expert, each, row, rows);
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
