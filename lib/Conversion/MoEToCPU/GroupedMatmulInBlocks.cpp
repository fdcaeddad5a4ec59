//===- GroupedMatmulInBlocks.cpp - Tasks of many rows ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Kernels that decode or widen weights where they read them do so for every
// tile of rows. A task of many rows does it once, in blocks of k that stay in
// the caches: rows become f32 for several panels, and each panel becomes f32,
// or bf16 for dot products, for all rows. The bits are the same, since every
// element is multiplied by the same value in the same order.
//
// * f16, and bf16 without dot products: rows and weights are widened.
// * Weights packed with a format: codes are decoded; the scales of a group
//   multiply its sums as in a kernel that decodes. If all of k is one group,
//   its factors are applied after the last block.
//
//===----------------------------------------------------------------------===//

#include "GroupedMatmulLowering.h"
#include "Quantized/QuantizedKernel.h"

using namespace mlir;
using namespace mlir::moe;

std::optional<Kernel>
GroupedMatmulLowering::chooseBlockKernel(const CPUDescription &cpu) {
  if (kernel.element.isInteger(8))
    return std::nullopt; // rows of moe.quantize_rows
  bool usesDot = format() && kernel.depth == 2;
  if (format()) {
    int64_t group = packed().group;
    // Scales of small groups take as long as decoding beside dot products.
    if (usesDot && !isOneGroup() && group < 128)
      return std::nullopt;
    if (!isOneGroup() && (group > blockElements || blockElements % group != 0))
      return std::nullopt;
  } else {
    // With 16 lanes bf16 is widened as fast as it is multiplied.
    bool isSlow = kernel.element.isF16() ||
                  (kernel.element.isBF16() && kernel.lanes < 16);
    if (kernel.depth != 1 || !isSlow)
      return std::nullopt;
  }
  Type element = usesDot ? kernel.element : Type(b.getF32Type());
  PanelsAttr panels = *op.getPanels();
  panels = PanelsAttr::get(op.getContext(), panels.getMatmuls(),
                           panels.getColumns(), usesDot ? 2 : 1, FormatAttr());
  return chooseKernel(cpu, element, panels);
}

int64_t GroupedMatmulLowering::panelsAtOnce() {
  int64_t columns = kernel.getColumns(), left = stackBytes;
  left -= blockKernel->bytesOf(blockElements * columns);
  if (widensRows())
    left -= taskRows() * blockElements * int64_t(sizeof(float));
  if (format())
    left -=
        (2 * columns + taskRows()) * groupsInBlock() * int64_t(sizeof(float));
  int64_t bytes = taskRows() * columns * int64_t(sizeof(float));
  return std::clamp<int64_t>(left / bytes, 1, mostTaskPanels());
}

/// Measured with 8 and 16 lanes, as the number of rows from which decoding or
/// widening once takes less time than doing it for every tile.
int64_t GroupedMatmulLowering::leastRows() {
  bool isWide = kernel.lanes >= 16;
  if (!format()) {
    if (kernel.element.isBF16())
      return 8;
    return isWide ? 14 : 7;
  }
  if (blockKernel->depth == 2)
    return 40;
  if (packed().isFloat8())
    return 6; // nine instructions an element
  bool isByte = packed().width == 8;
  // Few groups share the scales of a block.
  if (isWide)
    return isByte && packed().group >= 128 ? 10 : 16;
  bool isInteger = packed().format.getCodes().getElement().isInteger();
  return isInteger && !isByte ? 6 : 10;
}

bool GroupedMatmulLowering::subtractsRowSums() {
  return format() &&
         (packed().hasMins() || getValueExcess(kernel, packed()) != 0);
}

bool GroupedMatmulLowering::isOneGroup() {
  return format() && packed().group >= op.getK();
}

int64_t GroupedMatmulLowering::groupsInBlock() {
  return isOneGroup() ? 1 : blockElements / packed().group;
}

void GroupedMatmulLowering::allocateBlocks() {
  Type f32 = b.getF32Type();
  if (widensRows())
    blockRows = b.allocateScratch(f32, taskRows() * blockElements);
  blockPanel = b.allocateScratch(blockKernel->element,
                                 blockElements * kernel.getColumns());
  if (!format())
    return;
  factors = b.allocateScratch(f32, 2 * groupsInBlock() * kernel.getColumns());
  rowSums = b.allocateScratch(
      f32, subtractsRowSums() ? taskRows() * groupsInBlock() : 1);
}

//===----------------------------------------------------------------------===//
// Rows
//===----------------------------------------------------------------------===//

/// Widens `count` elements to f32.
void GroupedMatmulLowering::widen(Value from, Value start, Value count,
                                  Value to, Value toStart) {
  auto narrow = VectorType::get(kernel.lanes, kernel.element);
  auto wide = VectorType::get(kernel.lanes, b.getF32Type());
  Value vectors = b.div(count, kernel.lanes);
  b.forEach(b.index(0), vectors, [&](Value i) {
    Value at = b.mul(i, kernel.lanes);
    Value x = vector::LoadOp::create(b, narrow, from, b.add(start, at));
    vector::StoreOp::create(b, arith::ExtFOp::create(b, wide, x), to,
                            b.add(toStart, at));
  });
  b.forEach(b.mul(vectors, kernel.lanes), count, [&](Value i) {
    Value x = memref::LoadOp::create(b, from, b.add(start, i));
    memref::StoreOp::create(b, arith::ExtFOp::create(b, b.getF32Type(), x), to,
                            b.add(toStart, i));
  });
}

/// Widens the rows of a block.
void GroupedMatmulLowering::widenRows(const Block &block) {
  b.forEachTile(block.rows, kernel.maxRows, [&](const Tile &tile) {
    buildFirsts(tile, block.firstRow, block.k);
    b.forEach(b.index(0), tile.count, [&](Value i) {
      widen(lhs.elements, memref::LoadOp::create(b, firsts, i), block.elements,
            blockRows, b.mul(b.add(tile.row, i), blockElements));
    });
  });
}

/// Adds up the elements of each row in each group of a block, as a kernel that
/// decodes does: in as many lanes as a step has elements.
void GroupedMatmulLowering::sumRows(const Block &block) {
  int64_t step = packed().getStep();
  int64_t group = std::min(packed().group, op.getK());
  auto narrow = VectorType::get(step, kernel.element);
  auto wide = VectorType::get(step, b.getF32Type());
  Value zero = arith::ConstantOp::create(b, b.getZeroAttr(wide));
  Value groups = b.ceilDiv(block.elements, group);
  b.forEachTile(block.rows, kernel.maxRows, [&](const Tile &tile) {
    buildFirsts(tile, block.firstRow, block.k);
    b.forEach(b.index(0), tile.count, [&](Value i) {
      Value first = memref::LoadOp::create(b, firsts, i);
      b.forEach(b.index(0), groups, [&](Value g) {
        Value from = b.mul(g, group);
        Value to = b.min(b.add(from, group), block.elements);
        auto loop = scf::ForOp::create(b, from, to, b.index(step), zero);
        {
          OpBuilder::InsertionGuard guard(b);
          b.setInsertionPointToStart(loop.getBody());
          Value x = vector::LoadOp::create(
              b, narrow, lhs.elements, b.add(first, loop.getInductionVar()));
          if (!kernel.element.isF32())
            x = arith::ExtFOp::create(b, wide, x);
          x = arith::AddFOp::create(b, loop.getRegionIterArgs()[0], x);
          scf::YieldOp::create(b, x);
        }
        Value sum = vector::ReductionOp::create(b, vector::CombiningKind::ADD,
                                                loop.getResult(0));
        Value row = b.add(tile.row, i);
        memref::StoreOp::create(b, sum, rowSums,
                                b.add(b.mul(row, groupsInBlock()), g));
      });
    });
  });
}

//===----------------------------------------------------------------------===//
// Panels
//===----------------------------------------------------------------------===//

/// Returns where element `k` of a panel is; in a format, where the panel is.
Value GroupedMatmulLowering::startOf(Value expert, Value panel, Value k) {
  Value start = b.add(b.mul(expert, panels()), panel);
  if (format()) {
    start =
        b.mul(start, packed().getPanelBytes(kernel.getColumns(), op.getK()));
  } else {
    start = b.mul(b.add(b.mul(start, op.getK()), k), kernel.getColumns());
  }
  return b.add(start, weights.offset);
}

/// Prefetches the share of a tile of `count` elements from `start` on.
void GroupedMatmulLowering::prefetchShare(const Tile &tile, Value start,
                                          Value count) {
  Type element = cast<MemRefType>(weights.elements.getType()).getElementType();
  int64_t line = 64 * 8 / element.getIntOrFloatBitWidth();
  Value lines = b.div(count, line);
  Value share = arith::CeilDivUIOp::create(b, lines, tile.total);
  Value from = b.mul(tile.index, share);
  b.forEach(from, b.min(b.add(from, share), lines), [&](Value i) {
    memref::PrefetchOp::create(b, weights.elements,
                               b.add(start, b.mul(i, line)),
                               /*isWrite=*/false, /*localityHint=*/2,
                               /*isDataCache=*/true);
  });
}

/// Decodes the factors of a group whose codes end at byte `groupEnd`.
void GroupedMatmulLowering::decodeFactors(Value panelStart, Value group,
                                          Value groupEnd, Value factor) {
  PackedFormat format = packed();
  int64_t perBlock = format.block / format.group;
  Value block = b.mul(b.div(group, perBlock),
                      kernel.getColumns() * format.getBlockBytes());
  func::CallOp::create(
      b,
      getOrCreateDecoder(op->getParentOfType<ModuleOp>(), kernel,
                         this->format(), Decoded::Factors),
      ValueRange{b.add(panelStart, block), groupEnd, weights.elements, factors,
                 b.mul(factor, 2 * kernel.getColumns())});
}

/// Decodes `steps` steps of a group to element `value` of the block, and its
/// factors.
void GroupedMatmulLowering::decodeGroup(Value panelStart, Value group,
                                        Value steps, Value value,
                                        Value factor) {
  PackedFormat format = packed();
  int64_t columns = kernel.getColumns();
  int64_t perBlock = format.block / format.group;
  Value start = b.add(panelStart, b.mul(b.div(group, perBlock),
                                        columns * format.getBlockBytes()));
  start = b.add(start, columns * format.getNumberBytes(true));
  start = b.add(
      start, b.mul(b.rem(group, perBlock), columns * format.getGroupBytes()));
  auto module = op->getParentOfType<ModuleOp>();
  func::CallOp::create(
      b, getOrCreateDecoder(module, kernel, this->format(), Decoded::Values),
      ValueRange{start, steps, weights.elements, blockPanel,
                 b.mul(value, columns)});
  Value end = b.add(start, b.mul(steps, columns * format.getStepBytes()));
  decodeFactors(panelStart, group, end, factor);
}

/// Decodes `elements` elements along k of a panel.
void GroupedMatmulLowering::decode(Value panelStart, Value k, Value elements) {
  PackedFormat format = packed();
  int64_t step = format.getStep();
  if (isOneGroup()) {
    int64_t columns = kernel.getColumns();
    Value start = b.add(panelStart, columns * format.getNumberBytes(true));
    start =
        b.add(start, b.mul(b.div(k, step), columns * format.getStepBytes()));
    func::CallOp::create(b,
                         getOrCreateDecoder(op->getParentOfType<ModuleOp>(),
                                            kernel, this->format(),
                                            Decoded::Values),
                         ValueRange{start, b.div(elements, step),
                                    weights.elements, blockPanel, b.index(0)});
    return;
  }
  Value first = b.div(k, format.group);
  b.forEach(b.index(0), b.ceilDiv(elements, format.group), [&](Value i) {
    Value done = b.mul(i, format.group);
    Value left = b.min(b.sub(elements, done), b.index(format.group));
    decodeGroup(panelStart, b.add(first, i), b.div(left, step), done, i);
  });
}

//===----------------------------------------------------------------------===//
// Blocks
//===----------------------------------------------------------------------===//

/// Adds a tile times the decoded panel to the accumulators, `[panel, row,
/// column]`.
void GroupedMatmulLowering::multiplyPanel(const Block &block, Value panel,
                                          const Tile &tile) {
  Value zero = b.index(0), rows = blockRows;
  if (widensRows()) {
    b.forEach(zero, tile.count, [&](Value row) {
      memref::StoreOp::create(b, b.mul(b.add(tile.row, row), blockElements),
                              firsts, row);
    });
  } else {
    rows = lhs.elements;
    buildFirsts(tile, block.firstRow, block.k);
  }
  Value row = b.add(b.mul(panel, taskRows()), tile.row);
  Value start = b.mul(row, kernel.getColumns());
  Value steps = b.div(block.elements, blockKernel->depth);
  auto module = op->getParentOfType<ModuleOp>();
  if (!format() || isOneGroup()) {
    b.callKernel(tile.count, blockKernel->maxRows,
                 {rows, firsts, blockPanel, zero, accumulators, start, steps,
                  zero, zero, zero, b.less(zero, block.k)},
                 [&](int64_t height) {
                   return getOrCreateKernel(module, *blockKernel, height);
                 });
    return;
  }
  int64_t group = packed().group;
  Value rest = b.div(b.rem(block.elements, group), blockKernel->depth);
  int64_t stride = subtractsRowSums() ? groupsInBlock() : 0;
  b.callKernel(
      tile.count, blockKernel->maxRows,
      {rows, firsts, blockPanel, factors, rowSums, b.mul(tile.row, stride),
       accumulators, start, b.div(block.elements, group), rest},
      [&](int64_t height) {
        return getOrCreateGroupKernel(
            module, *blockKernel, group / blockKernel->depth, stride, height);
      });
}

/// Adds a block of k of some panels to the accumulators, for all rows of a
/// task.
void GroupedMatmulLowering::buildBlock(const Block &block) {
  if (widensRows())
    widenRows(block);
  if (subtractsRowSums() && !isOneGroup())
    sumRows(block);
  int64_t columns = kernel.getColumns();
  b.forEach(b.index(0), block.count, [&](Value i) {
    Value start = startOf(block.expert, b.add(block.panel, i), block.k);
    if (format())
      decode(start, block.k, block.elements);
    else
      widen(weights.elements, start, b.mul(block.elements, columns), blockPanel,
            b.index(0));
    // Meanwhile the weights that follow come to the cache: of the next panel,
    // or of the first one in the next block. Packed panels are small.
    Value ahead, count;
    if (!format()) {
      Value isLast = b.less(b.sub(block.count, b.index(2)), i);
      Value next = arith::SelectOp::create(b, isLast, b.index(0), b.add(i, 1));
      Value k = arith::SelectOp::create(b, isLast,
                                        b.add(block.k, blockElements), block.k);
      ahead = startOf(block.expert, b.add(block.panel, next), k);
      count =
          b.mul(b.clamp(b.sub(b.index(op.getK()), k), b.index(blockElements)),
                columns);
    }
    b.forEachTile(block.rows, blockKernel->maxRows, [&](const Tile &tile) {
      if (ahead)
        prefetchShare(tile, ahead, count);
      multiplyPanel(block, i, tile);
    });
  });
}

/// Applies the factors of a format whose group is all of k.
void GroupedMatmulLowering::scaleByGroup(const Block &block) {
  PackedFormat format = packed();
  int64_t columns = kernel.getColumns();
  auto f32 = VectorType::get(kernel.lanes, b.getF32Type());
  if (subtractsRowSums())
    sumRows(block);
  Value zero = arith::ConstantOp::create(b, b.getZeroAttr(f32));
  b.forEach(b.index(0), block.count, [&](Value i) {
    Value start = startOf(block.expert, b.add(block.panel, i), b.index(0));
    int64_t steps = op.getK() / format.getStep();
    int64_t codes = format.getNumberBytes(true) + steps * format.getStepBytes();
    decodeFactors(start, b.index(0), b.add(start, columns * codes), b.index(0));
    b.forEach(b.index(0), block.rows, [&](Value row) {
      Value first = b.mul(b.add(b.mul(i, taskRows()), row), columns);
      for (int64_t j = 0; j < columns; j += kernel.lanes) {
        auto factor = [&](int64_t which) {
          return vector::LoadOp::create(b, f32, factors,
                                        b.index(which * columns + j));
        };
        Value at = b.add(first, j);
        Value sum = vector::LoadOp::create(b, f32, accumulators, at);
        sum = vector::FMAOp::create(b, sum, factor(0), zero);
        if (subtractsRowSums()) {
          Value rowSum = memref::LoadOp::create(b, rowSums, row);
          rowSum = vector::BroadcastOp::create(b, f32, rowSum);
          sum = vector::FMAOp::create(b, rowSum, factor(1), sum);
        }
        vector::StoreOp::create(b, sum, accumulators, at);
      }
    });
  });
}

/// Divides the accumulators by the factor of the values of codes.
void GroupedMatmulLowering::scaleByFactor(Value panelCount, Value rows) {
  auto f32 = VectorType::get(kernel.lanes, b.getF32Type());
  float factor = 1 / getValueFactor(kernel, packed());
  Value factors =
      arith::ConstantOp::create(b, DenseElementsAttr::get(f32, factor));
  int64_t columns = kernel.getColumns();
  b.forEach(b.index(0), panelCount, [&](Value i) {
    Value first = b.mul(i, taskRows() * columns);
    b.forEach(b.index(0), b.mul(rows, columns / kernel.lanes), [&](Value j) {
      Value at = b.add(first, b.mul(j, kernel.lanes));
      Value sum = vector::LoadOp::create(b, f32, accumulators, at);
      vector::StoreOp::create(b, arith::MulFOp::create(b, sum, factors),
                              accumulators, at);
    });
  });
}

/// Computes panels for all rows of a task, some at a time.
void GroupedMatmulLowering::buildInBlocks(Value expert, Value panel,
                                          Value lastPanel, Value firstRow,
                                          Value rows) {
  int64_t size = taskRows() * kernel.getColumns();
  Value parts = b.ceilDiv(b.sub(lastPanel, panel), panelsAtOnce());
  b.forEach(b.index(0), parts, [&](Value part) {
    Value first = b.add(panel, b.mul(part, panelsAtOnce()));
    Value count = b.min(b.sub(lastPanel, first), b.index(panelsAtOnce()));
    if (format() && !isOneGroup()) {
      // Kernels of groups add to the accumulators.
      auto f32 = VectorType::get(kernel.lanes, b.getF32Type());
      Value zero = arith::ConstantOp::create(b, b.getZeroAttr(f32));
      b.forEach(b.index(0), b.mul(count, size / kernel.lanes), [&](Value i) {
        vector::StoreOp::create(b, zero, accumulators, b.mul(i, kernel.lanes));
      });
    }
    int64_t blocks = llvm::divideCeil(op.getK(), blockElements);
    b.forEach(b.index(0), b.index(blocks), [&](Value block) {
      Value k = b.mul(block, blockElements);
      Value elements =
          b.min(b.sub(b.index(op.getK()), k), b.index(blockElements));
      buildBlock({expert, first, count, k, elements, firstRow, rows});
    });
    if (isOneGroup())
      scaleByGroup({expert, first, count, b.index(0), b.index(op.getK()),
                    firstRow, rows});
    if (format() && getValueFactor(kernel, packed()) != 1)
      scaleByFactor(count, rows);
    b.forEach(b.index(0), count, [&](Value i) {
      buildEpilogueOfRows(expert, b.add(first, i), firstRow, rows,
                          b.mul(i, size));
    });
  });
}
