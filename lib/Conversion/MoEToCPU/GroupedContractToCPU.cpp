//===- GroupedContractToCPU.cpp - moe.grouped_contract --------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A task computes a part of the matrix of one expert: some of its rows k and a
// few panels of its columns n. It goes over the rows r of the expert in blocks.
// Those of lhs are transposed to [k, r], once for all panels; those of rhs are
// copied panel by panel. Then micro-kernels multiply them as they multiply rows
// and packed weights.
//
// f16, and bf16 without dot products, are widened while they are copied. The
// sums of an element run over ascending r, in steps of the kernel's depth from
// the first row of the expert on, so its bits depend on no task.
//
// A result that no cache holds is stored past the caches, where its rows are
// aligned: memory is not read for it.
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"

using namespace mlir;
using namespace mlir::moe;

/// Rows of a block: a panel of rhs stays in the L1 cache.
static constexpr int64_t blockRows = 128;
/// Most rows of a result in a task: a block of lhs and of the accumulators stay
/// in the L2 cache, while rhs is copied a few times only.
static constexpr int64_t mostTaskK = 96;
/// Bytes of a result from which on it is stored past the caches.
static constexpr int64_t leastStreamedBytes = 16 << 20;

namespace {
class GroupedContractLowering {
public:
  GroupedContractLowering(GroupedContractOp op, const CPUDescription &cpu)
      : op(op), kernel(chooseKernelOf(op, cpu)), b(op.getLoc(), op) {}

  LogicalResult run();

private:
  /// An operand, and the first element of each of its rows in a block.
  struct Side {
    Value rows, gather;
    FlatBuffer flat;
    Value lastRow;
    Value firsts; // scratch
  };
  /// What a task computes of the matrix of an expert.
  struct Part {
    Value expert, k, count;  // rows of the matrix
    Value panel, panelCount; // columns
  };
  /// Some rows of an expert: block `index` of `total`.
  struct Block {
    Value index, total, rows, steps;
  };

  static Type elementOf(GroupedContractOp op) {
    return cast<MemRefType>(op.getLhs().getType()).getElementType();
  }
  static Kernel chooseKernelOf(GroupedContractOp op,
                               const CPUDescription &cpu) {
    PanelsAttr panels =
        choosePanels(cpu, elementOf(op), /*matmuls=*/1, op.getN());
    Type f32 = Float32Type::get(op.getContext());
    return chooseKernel(cpu, panels.getDepth() > 1 ? elementOf(op) : f32,
                        panels);
  }

  int64_t panels() { return llvm::divideCeil(op.getN(), kernel.getColumns()); }
  /// Returns the rows of the matrix in a task, whole vectors.
  int64_t taskK();
  int64_t tasksOfK() { return llvm::divideCeil(op.getK(), taskK()); }
  /// Returns the panels of a task, as many as have accumulators on the stack.
  int64_t taskPanels();
  int64_t tasksOfN() { return llvm::divideCeil(panels(), taskPanels()); }
  /// Returns the elements that an operation on vectors copies.
  int64_t unitLanes() { return kernel.lanes * kernel.depth; }

  void forPanels(const Part &part, llvm::function_ref<void(Value)> body) {
    b.forEach(part.panel, b.add(part.panel, part.panelCount), body);
  }
  Side sideOf(Value rows, Value gather);
  Value countRows();
  Value boundary(Value expert, Value rows);
  void findRows(Side &side, Value firstRow, Value rows, Value padded);
  Value loadUnits(const Side &side, Value step, Value rows, Value column,
                  Value remaining, Value mask);
  Value loadElement(const Side &side, Value row, Value rows, Value column);
  void transposeLhs(const Part &part, const Block &block);
  void buildSquare(const Block &block, Value step, Value column, Value row);
  void copyPanel(Value panel, const Block &block);
  void prefetch(const FlatBuffer &buffer, Value start, bool isWrite);
  void prefetchPanel(Value panel, Value from, Value to);
  Type resultElement() {
    return cast<MemRefType>(op.getInit().getType()).getElementType();
  }
  int64_t resultVectorBytes() {
    return kernel.lanes * resultElement().getIntOrFloatBitWidth() / 8;
  }
  Value buildIsStreamed();
  void ifStreamed(llvm::function_ref<void(bool isStreamed)> body);
  void multiplyTile(const Part &part, Value panel, const Tile &tile,
                    const Block &block);
  void storeZeros(const Part &part);
  void buildBlock(const Part &part, const Block &block);
  void buildTask(Value task);
  void forVectors(Value panel,
                  llvm::function_ref<void(int64_t lane, Value column,
                                          Value remaining, Value mask)>
                      body);
  Value place(Value expert, Value k, Value column);
  void store(Value vector, Value expert, Value k, Value column, Value remaining,
             Value mask, bool isStreamed);

  GroupedContractOp op;
  Kernel kernel;
  CPUBuilder b;
  Side lhs, rhs;
  FlatBuffer init;
  Value isStreamed; // null if never
  Value rows;
  // Of a task: lhs `[k, blockRows]`, a panel of rhs, sums `[panel, k, column]`
  // and where rows of a tile start.
  Value lhsBlock, rhsPanel, accumulators, tileFirsts;
};
} // namespace

int64_t GroupedContractLowering::taskK() {
  int64_t most = std::max(llvm::alignDown(mostTaskK, kernel.lanes),
                          uint64_t(kernel.lanes));
  int64_t tasks = llvm::divideCeil(op.getK(), most);
  return llvm::alignTo(llvm::divideCeil(op.getK(), tasks), kernel.lanes);
}

int64_t GroupedContractLowering::taskPanels() {
  int64_t left = stackBytes;
  left -= kernel.bytesOf(taskK() * blockRows);
  left -= kernel.bytesOf(blockRows * kernel.getColumns());
  left -= (2 * blockRows + kernel.maxRows) * int64_t(sizeof(int64_t));
  int64_t bytes = taskK() * kernel.getColumns() * int64_t(sizeof(float));
  int64_t most = std::clamp<int64_t>(left / bytes, 1, panels());
  return llvm::divideCeil(panels(), llvm::divideCeil(panels(), most));
}

//===----------------------------------------------------------------------===//
// Rows
//===----------------------------------------------------------------------===//

GroupedContractLowering::Side GroupedContractLowering::sideOf(Value rows,
                                                              Value gather) {
  Side side{rows, gather, flatten(b, rows), Value(), Value()};
  side.lastRow = b.sub(memref::DimOp::create(b, rows, 0), b.index(1));
  return side;
}

/// Returns how many rows are contracted: none if one side gathers from no rows.
Value GroupedContractLowering::countRows() {
  auto count = [&](const Side &side) -> Value {
    if (!side.gather)
      return b.add(side.lastRow, 1);
    return arith::SelectOp::create(b, b.less(side.lastRow, b.index(0)),
                                   b.index(0),
                                   memref::DimOp::create(b, side.gather, 0));
  };
  return b.min(count(lhs), count(rhs));
}

/// Returns the first row of an expert, clamped to the rows that exist.
Value GroupedContractLowering::boundary(Value expert, Value rows) {
  expert = b.add(expert, op.getFirstExpert());
  Value row = memref::LoadOp::create(b, op.getOffsets(), expert);
  return b.clamp(b.toIndex(row), rows);
}

/// Stores where the rows of a block start; those up to `padded` are the last
/// one again.
void GroupedContractLowering::findRows(Side &side, Value firstRow, Value rows,
                                       Value padded) {
  Value last = b.sub(rows, b.index(1));
  b.forEach(b.index(0), padded, [&](Value i) {
    Value row = b.add(firstRow, b.min(i, last));
    if (side.gather)
      row = b.clamp(b.toIndex(memref::LoadOp::create(b, side.gather, row)),
                    side.lastRow);
    Value first = b.add(b.mul(row, side.flat.strides[0]), side.flat.offset);
    memref::StoreOp::create(b, first, side.firsts, i);
  });
}

/// Loads a vector of columns of a step: for dot products of both its rows,
/// interleaved, where a row that the block lacks is 0.
Value GroupedContractLowering::loadUnits(const Side &side, Value step,
                                         Value rows, Value column,
                                         Value remaining, Value mask) {
  SmallVector<Value> loaded;
  for (int64_t d = 0; d < kernel.depth; ++d) {
    Value row = b.add(b.mul(step, kernel.depth), d);
    Value first = memref::LoadOp::create(b, side.firsts, row);
    Value x = b.loadFirst(kernel.lanes, side.flat.elements,
                          {b.add(first, column)}, remaining, mask);
    if (d > 0)
      x = arith::SelectOp::create(
          b, b.less(row, rows), x,
          arith::ConstantOp::create(b, b.getZeroAttr(x.getType())));
    loaded.push_back(x);
  }
  if (kernel.depth > 1)
    return vector::InterleaveOp::create(b, loaded[0], loaded[1]);
  if (elementOf(op) == kernel.element)
    return loaded[0];
  return arith::ExtFOp::create(b, VectorType::get(kernel.lanes, kernel.element),
                               loaded[0]);
}

/// Loads one element as the kernel multiplies it; 0 after the last row.
Value GroupedContractLowering::loadElement(const Side &side, Value row,
                                           Value rows, Value column) {
  Value first = memref::LoadOp::create(b, side.firsts, row);
  Value x = memref::LoadOp::create(b, side.flat.elements, b.add(first, column));
  if (x.getType() != kernel.element)
    x = arith::ExtFOp::create(b, kernel.element, x);
  Value zero = arith::ConstantOp::create(b, b.getZeroAttr(kernel.element));
  return arith::SelectOp::create(b, b.less(row, rows), x, zero);
}

//===----------------------------------------------------------------------===//
// Blocks of the operands
//===----------------------------------------------------------------------===//

/// Transposes as many columns of lhs, from `column` on, as steps to the block
/// from its row `row` on.
void GroupedContractLowering::buildSquare(const Block &block, Value step,
                                          Value column, Value row) {
  // Pairs of elements are transposed as 32-bit units.
  auto vector = VectorType::get(unitLanes(), kernel.element);
  auto units = VectorType::get(kernel.lanes, b.getI32Type());
  bool hasPairs = kernel.depth > 1;
  SmallVector<Value> square;
  for (int64_t i = 0; i < kernel.lanes; ++i) {
    Value x =
        loadUnits(lhs, b.add(step, i), block.rows, column, Value(), Value());
    square.push_back(hasPairs ? vector::BitCastOp::create(b, units, x) : x);
  }
  square = b.transpose(std::move(square));
  Value first = b.add(b.mul(row, blockRows), b.mul(step, kernel.depth));
  for (auto [i, x] : llvm::enumerate(square)) {
    if (hasPairs)
      x = vector::BitCastOp::create(b, vector, x);
    vector::StoreOp::create(b, x, lhsBlock, b.add(first, i * blockRows));
  }
}

/// Transposes the rows of lhs. Steps up to a multiple of a vector repeat the
/// last one.
void GroupedContractLowering::transposeLhs(const Part &part,
                                           const Block &block) {
  Value zero = b.index(0);
  Value vectors = b.div(part.count, kernel.lanes);
  Value squares = b.ceilDiv(block.steps, kernel.lanes);
  b.forEach(zero, squares, [&](Value i) {
    b.forEach(zero, vectors, [&](Value j) {
      Value row = b.mul(j, kernel.lanes);
      buildSquare(block, b.mul(i, kernel.lanes), b.add(part.k, row), row);
    });
  });
  if (op.getK() % kernel.lanes == 0)
    return;
  b.forEach(b.mul(vectors, kernel.lanes), part.count, [&](Value row) {
    b.forEach(zero, b.mul(block.steps, kernel.depth), [&](Value r) {
      Value x = loadElement(lhs, r, block.rows, b.add(part.k, row));
      memref::StoreOp::create(b, x, lhsBlock, b.add(b.mul(row, blockRows), r));
    });
  });
}

/// Calls `body` for each vector of a panel that has columns of the matrix:
/// `mask` is null if all lanes are.
void GroupedContractLowering::forVectors(
    Value panel, llvm::function_ref<void(int64_t lane, Value column,
                                         Value remaining, Value mask)>
                     body) {
  int64_t columns = kernel.getColumns();
  for (int64_t lane = 0; lane < columns; lane += kernel.lanes) {
    Value column = b.add(b.mul(panel, columns), lane);
    Value remaining = b.sub(b.index(op.getN()), column);
    if (op.getN() % columns == 0) {
      body(lane, column, remaining, Value());
      continue;
    }
    b.ifElse(
        b.less(remaining, b.index(kernel.lanes)),
        [&] {
          b.ifThen(b.less(b.index(0), remaining), [&] {
            auto type = VectorType::get(kernel.lanes, b.getI1Type());
            body(lane, column, remaining,
                 vector::CreateMaskOp::create(b, type, remaining));
          });
        },
        [&] { body(lane, column, remaining, Value()); });
  }
}

/// Copies a panel of the rows of rhs. Columns that the matrix lacks are 0:
/// what the stack has may be slow to multiply.
void GroupedContractLowering::copyPanel(Value panel, const Block &block) {
  auto type = VectorType::get(unitLanes(), kernel.element);
  bool isRagged = op.getN() % kernel.getColumns() != 0;
  b.forEach(b.index(0), block.steps, [&](Value step) {
    Value first = b.mul(step, kernel.getStep());
    if (isRagged) {
      Value zero = arith::ConstantOp::create(b, b.getZeroAttr(type));
      for (int64_t lane = 0; lane < kernel.getColumns(); lane += kernel.lanes)
        vector::StoreOp::create(b, zero, rhsPanel,
                                b.add(first, lane * kernel.depth));
    }
    forVectors(
        panel, [&](int64_t lane, Value column, Value remaining, Value mask) {
          Value x = loadUnits(rhs, step, block.rows, column, remaining, mask);
          vector::StoreOp::create(b, x, rhsPanel,
                                  b.add(first, lane * kernel.depth));
        });
  });
}

/// Prefetches what a panel has of a row, from `start` on.
void GroupedContractLowering::prefetch(const FlatBuffer &buffer, Value start,
                                       bool isWrite) {
  constexpr int64_t lineBytes = 64;
  int64_t bytes =
      cast<MemRefType>(buffer.elements.getType()).getElementTypeBitWidth() / 8;
  for (int64_t at = 0; at < kernel.getColumns() * bytes; at += lineBytes)
    memref::PrefetchOp::create(b, buffer.elements, b.add(start, at / bytes),
                               isWrite, /*localityHint=*/isWrite ? 3 : 2,
                               /*isDataCache=*/true);
}

/// Prefetches a panel of some rows of rhs: hardware follows no stream that
/// takes a part of each row.
void GroupedContractLowering::prefetchPanel(Value panel, Value from, Value to) {
  b.forEach(from, to, [&](Value row) {
    Value first = memref::LoadOp::create(b, rhs.firsts, row);
    prefetch(rhs.flat, b.add(first, b.mul(panel, kernel.getColumns())),
             /*isWrite=*/false);
  });
}

//===----------------------------------------------------------------------===//
// Results
//===----------------------------------------------------------------------===//

/// Returns where an element of the matrix of an expert is.
Value GroupedContractLowering::place(Value expert, Value k, Value column) {
  Value offset = b.add(init.offset, b.mul(expert, init.strides[0]));
  return b.add(b.add(offset, b.mul(k, init.strides[1])), column);
}

/// Returns whether all vectors of the result are aligned, as stores past the
/// caches have to be.
Value GroupedContractLowering::buildIsStreamed() {
  int64_t bytes = resultElement().getIntOrFloatBitWidth() / 8;
  Value address =
      memref::ExtractAlignedPointerAsIndexOp::create(b, op.getInit());
  address = b.add(address, b.mul(init.offset, bytes));
  for (Value stride : ArrayRef(init.strides).drop_back())
    address = arith::OrIOp::create(b, address, b.mul(stride, bytes));
  return b.less(b.rem(address, resultVectorBytes()), b.index(1));
}

/// Builds the body for results that are stored past the caches, and for others.
void GroupedContractLowering::ifStreamed(
    llvm::function_ref<void(bool isStreamed)> body) {
  if (!isStreamed)
    return body(false);
  b.ifElse(isStreamed, [&] { body(true); }, [&] { body(false); });
}

void GroupedContractLowering::store(Value vector, Value expert, Value k,
                                    Value column, Value remaining, Value mask,
                                    bool isStreamed) {
  if (Type element = resultElement(); !element.isF32())
    vector = arith::TruncFOp::create(b, VectorType::get(kernel.lanes, element),
                                     vector);
  if (isStreamed && !mask) {
    vector::StoreOp::create(b, vector, init.elements, place(expert, k, column),
                            /*nontemporal=*/true,
                            llvm::Align(resultVectorBytes()));
    return;
  }
  b.storeFirst(vector, init.elements, {place(expert, k, column)}, remaining,
               mask);
}

/// Adds a block to the sums of a tile, from or to the destination where it is
/// the first or last.
void GroupedContractLowering::multiplyTile(const Part &part, Value panel,
                                           const Tile &tile,
                                           const Block &block) {
  Value zero = b.index(0);
  int64_t columns = kernel.getColumns();
  auto f32 = VectorType::get(kernel.lanes, b.getF32Type());
  b.forEach(zero, tile.count, [&](Value i) {
    memref::StoreOp::create(b, b.mul(b.add(tile.row, i), blockRows), tileFirsts,
                            i);
  });
  // The sums of the only block stay in the L1 cache.
  Value start = b.add(b.mul(b.sub(panel, part.panel), taskK()), tile.row);
  start = arith::SelectOp::create(b, b.less(block.total, b.index(2)), zero,
                                  b.mul(start, columns));
  auto forRows = [&](llvm::function_ref<void(Value k, Value start)> body) {
    b.forEach(zero, tile.count, [&](Value i) {
      body(b.add(b.add(part.k, tile.row), i), b.add(start, b.mul(i, columns)));
    });
  };
  Value resume = b.less(zero, block.index);
  if (op.getAccumulate()) {
    b.ifThen(b.less(block.index, b.index(1)), [&] {
      forRows([&](Value k, Value start) {
        forVectors(panel, [&](int64_t lane, Value column, Value remaining,
                              Value mask) {
          Value x =
              b.loadFirst(kernel.lanes, init.elements,
                          {place(part.expert, k, column)}, remaining, mask);
          if (x.getType() != f32)
            x = arith::ExtFOp::create(b, f32, x);
          vector::StoreOp::create(b, x, accumulators, b.add(start, lane));
        });
      });
    });
    resume = arith::ConstantIntOp::create(b, 1, 1);
  }
  Value isLast = b.less(b.sub(block.total, b.index(2)), block.index);
  auto prefetchResult = [&](bool isStreamed) {
    if (isStreamed)
      return;
    forRows([&](Value k, Value) {
      prefetch(init, place(part.expert, k, b.mul(panel, kernel.getColumns())),
               /*isWrite=*/true);
    });
  };
  auto storeSums = [&](bool isStreamed) {
    forRows([&](Value k, Value start) {
      forVectors(panel, [&](int64_t lane, Value column, Value remaining,
                            Value mask) {
        Value sum =
            vector::LoadOp::create(b, f32, accumulators, b.add(start, lane));
        store(sum, part.expert, k, column, remaining, mask, isStreamed);
      });
    });
  };
  b.ifThen(isLast, [&] { ifStreamed(prefetchResult); });
  b.callKernel(tile.count, kernel.maxRows,
               {lhsBlock, tileFirsts, rhsPanel, zero, accumulators, start,
                block.steps, zero, zero, zero, resume},
               [&](int64_t height) {
                 return getOrCreateKernel(op->getParentOfType<ModuleOp>(),
                                          kernel, height);
               });
  b.ifThen(isLast, [&] { ifStreamed(storeSums); });
}

/// Stores what an expert without rows has.
void GroupedContractLowering::storeZeros(const Part &part) {
  auto f32 = VectorType::get(kernel.lanes, b.getF32Type());
  Value zero = arith::ConstantOp::create(b, b.getZeroAttr(f32));
  ifStreamed([&](bool isStreamed) {
    b.forEach(part.k, b.add(part.k, part.count), [&](Value k) {
      forPanels(part, [&](Value panel) {
        forVectors(
            panel, [&](int64_t, Value column, Value remaining, Value mask) {
              store(zero, part.expert, k, column, remaining, mask, isStreamed);
            });
      });
    });
  });
}

//===----------------------------------------------------------------------===//
// Tasks
//===----------------------------------------------------------------------===//

void GroupedContractLowering::buildBlock(const Part &part, const Block &block) {
  prefetchPanel(part.panel, b.index(0), block.rows);
  transposeLhs(part, block);
  Value lastPanel = b.sub(b.add(part.panel, part.panelCount), b.index(1));
  forPanels(part, [&](Value panel) {
    copyPanel(panel, block);
    b.forEachTile(part.count, kernel.maxRows, [&](const Tile &tile) {
      // Meanwhile the next panel comes to the cache.
      b.ifThen(b.less(panel, lastPanel), [&] {
        Value share = arith::CeilDivUIOp::create(b, block.rows, tile.total);
        Value from = b.mul(tile.index, share);
        prefetchPanel(b.add(panel, 1), from,
                      b.min(b.add(from, share), block.rows));
      });
      multiplyTile(part, panel, tile, block);
    });
  });
}

void GroupedContractLowering::buildTask(Value task) {
  lhsBlock = b.allocateScratch(kernel.element, taskK() * blockRows);
  rhsPanel = b.allocateScratch(kernel.element, blockRows * kernel.getColumns());
  accumulators = b.allocateScratch(b.getF32Type(), taskPanels() * taskK() *
                                                       kernel.getColumns());
  tileFirsts = b.allocateScratch(b.getIndexType(), kernel.maxRows);
  for (Side *side : {&lhs, &rhs})
    side->firsts = b.allocateScratch(b.getIndexType(), blockRows);

  // Tasks of the same columns follow each other: their rhs is in the caches.
  Part part;
  part.expert = b.div(task, tasksOfK() * tasksOfN());
  Value rest = b.rem(task, tasksOfK() * tasksOfN());
  part.k = b.mul(b.rem(rest, tasksOfK()), taskK());
  part.count = b.min(b.sub(b.index(op.getK()), part.k), b.index(taskK()));
  part.panel = b.mul(b.div(rest, tasksOfK()), taskPanels());
  part.panelCount =
      b.min(b.sub(b.index(panels()), part.panel), b.index(taskPanels()));

  Value zero = b.index(0), begin = zero, end = rows;
  if (op.getOffsets()) {
    begin = boundary(part.expert, rows);
    end = boundary(b.add(part.expert, 1), rows);
  }
  Value count = b.clamp(b.sub(end, begin), rows);
  Value blocks = b.ceilDiv(count, blockRows);
  if (!op.getAccumulate())
    b.ifThen(b.less(count, b.index(1)), [&] { storeZeros(part); });
  b.forEach(zero, blocks, [&](Value index) {
    Value first = b.mul(index, blockRows);
    Value blockCount = b.min(b.sub(count, first), b.index(blockRows));
    Value padded = b.mul(b.ceilDiv(blockCount, unitLanes()), unitLanes());
    for (Side *side : {&lhs, &rhs})
      findRows(*side, b.add(begin, first), blockCount, padded);
    buildBlock(
        part, {index, blocks, blockCount, b.ceilDiv(blockCount, kernel.depth)});
  });
  // Others see stores past the caches only after a fence.
  if (isStreamed)
    LLVM::FenceOp::create(b, LLVM::AtomicOrdering::seq_cst);
}

LogicalResult GroupedContractLowering::run() {
  for (Value matrix : {op.getLhs(), op.getRhs(), op.getInit()})
    if (!cast<MemRefType>(matrix.getType()).isLastDimUnitStride())
      return op.emitOpError("expected contiguous rows, got ")
             << matrix.getType();
  if (op.getK() > 0 && op.getN() > 0) {
    lhs = sideOf(op.getLhs(), op.getLhsGather());
    rhs = sideOf(op.getRhs(), op.getRhsGather());
    init = flatten(b, op.getInit());
    rows = countRows();
    int64_t bytes = op.getExpertCount() * op.getK() * op.getN() *
                    resultElement().getIntOrFloatBitWidth() / 8;
    if (bytes >= leastStreamedBytes)
      isStreamed = buildIsStreamed();
    int64_t tasks = op.getExpertCount() * tasksOfK() * tasksOfN();
    b.forEachTask(b.index(tasks), [&](Value task) { buildTask(task); });
  }
  op.erase();
  return success();
}

LogicalResult mlir::moe::lowerToCPU(GroupedContractOp op,
                                    const CPUDescription &cpu) {
  return GroupedContractLowering(op, cpu).run();
}
