//===- GroupedMatmulLowering.h - moe.grouped_matmul on CPUs -----*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOCPU_GROUPEDMATMULLOWERING_H
#define MOE_LIB_CONVERSION_MOETOCPU_GROUPEDMATMULLOWERING_H

#include "Kernel.h"
#include "Lowering.h"
#include "moe/Dialect/MoE/IR/PackedFormat.h"

#include <optional>

namespace mlir::moe {

/// Lowers one grouped matmul to tasks.
class GroupedMatmulLowering {
public:
  GroupedMatmulLowering(GroupedMatmulOp op, const CPUDescription &cpu);

  LogicalResult run();

private:
  static Type elementOf(GroupedMatmulOp op) {
    return cast<MemRefType>(op.getLhs().getType()).getElementType();
  }

  /// Returns the maximum rows of a task: enough that a panel is read from
  /// memory only a few times, few enough that the accumulators fit the L2
  /// cache.
  int64_t taskRows() { return 192 / kernel.maxRows * kernel.maxRows; }
  /// Returns the fewest and the most panels of a task. With fewer, handing out
  /// tasks would take a notable time.
  int64_t fewestTaskPanels();
  int64_t mostTaskPanels() { return std::min<int64_t>(8, panels()); }
  /// Returns the format of weights that are packed with one; otherwise null.
  FormatAttr format() { return op.getPanels()->getFormat(); }
  int64_t panels() {
    return llvm::divideCeil(op.getN(), op.getPanels()->getShare());
  }
  /// Returns the number of whole steps along k.
  int64_t wholeSteps() { return op.getK() / kernel.depth; }
  int64_t tail() { return op.getK() % kernel.depth; }
  /// Returns the number of blocks of k: of about equal size, small enough that
  /// two of them stay in the L2 cache while a task goes over its rows.
  int64_t blocks() {
    if (format())
      return 1; // packed panels are small
    int64_t most = kernel.elementsIn(256 << 10) / kernel.getStep();
    return std::max<int64_t>(1, llvm::divideCeil(wholeSteps(), most));
  }
  int64_t blockSteps() {
    return llvm::alignTo(llvm::divideCeil(wholeSteps(), blocks()),
                         Kernel::unroll);
  }

  /// Returns the first row of an expert, clamped to the rows that exist.
  Value boundary(Value expert);
  Value countRowBlocks();
  void chooseTaskPanels(Value rowBlocks);
  void buildTask(Value task);
  /// A block of k of one panel of an expert.
  struct Part {
    Value expert, panel, block;
    Value isFirst, isLast; // of the task
    Value lastPanel;       // after those of the task
  };
  /// The prefetches of a tile, see getOrCreateKernel.
  struct Ahead {
    Value start, step;
  };
  void buildPanel(Part part, Value firstRow, Value rows);
  Ahead prefetch(const Part &part, const Tile &tile, Value start, Value steps,
                 Value end);
  void buildFirsts(const Tile &tile, Value firstRow, Value column);
  void buildTile(const Part &part, const Tile &tile, Value firstRow,
                 Value accumulatorsStart);
  void buildQuantizedTile(const Part &part, const Tile &tile, Value firstRow);
  void repairRow(Value expert, Value panel, Value row, Value start);
  void buildEpilogueOfRows(Value expert, Value panel, Value row, Value count,
                           Value accumulatorsStart);

  //===--------------------------------------------------------------------===//
  // Tasks of many rows (GroupedMatmulInBlocks.cpp)
  //===--------------------------------------------------------------------===//

  std::optional<Kernel> chooseBlockKernel(const CPUDescription &cpu);
  /// Steps along k of a block, elements of one row: those of a panel and of a
  /// tile fit the L1 cache.
  static constexpr int64_t blockElements = 128;
  /// Panels that share rows in f32, as many as have accumulators on the stack.
  int64_t panelsAtOnce();
  /// Rows of a task from which on blocks pay.
  int64_t leastRows();
  /// Returns weights that stay packed as the kernel reads them.
  PackedFormat packed() { return *PackedFormat::get(format()); }
  bool widensRows() { return blockKernel->element != kernel.element; }
  bool subtractsRowSums();
  /// True if one group of a format is all of k.
  bool isOneGroup();
  /// A block of k of some panels.
  struct Block {
    Value expert, panel, count; // of panels
    Value k, elements;          // along k
    Value firstRow, rows;       // of the task
  };
  void allocateBlocks();
  void widen(Value from, Value start, Value count, Value to, Value toStart);
  void widenRows(const Block &block);
  void sumRows(const Block &block);
  int64_t groupsInBlock();
  Value startOf(Value expert, Value panel, Value k);
  void prefetchShare(const Tile &tile, Value start, Value bytes);
  void decode(Value panelStart, Value k, Value elements);
  void decodeGroup(Value panelStart, Value group, Value steps, Value value,
                   Value factor);
  void decodeFactors(Value panelStart, Value group, Value groupEnd,
                     Value factor);
  void buildBlock(const Block &block);
  void multiplyPanel(const Block &block, Value panel, const Tile &tile);
  void scaleByGroup(const Block &block);
  void scaleByFactor(Value panels, Value rows);
  void buildInBlocks(Value expert, Value panel, Value lastPanel, Value firstRow,
                     Value rows);

  GroupedMatmulOp op;
  Kernel kernel;
  CPUBuilder b;
  FlatBuffer lhs, weights;
  Value resultRows, lastLhsRow;
  /// The first block of `taskRows` rows of each expert, and the number of all
  /// blocks: `[E + 1]`.
  Value starts;
  /// Panels of a task, and tasks of a block of rows.
  Value taskPanels, groups;
  /// The kernel of blocks of decoded or widened weights, if any.
  std::optional<Kernel> blockKernel;
  Value accumulators, firsts; // scratch of a task
  /// Of a block: rows in f32, a panel, its scales and what they take away, and
  /// the sums of the rows in each group.
  Value blockRows, blockPanel, factors, rowSums;
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOCPU_GROUPEDMATMULLOWERING_H
