//===- PackToCPU.cpp - moe.pack -------------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A task packs one panel of one expert. The `depth` elements of a column of a
// panel are copied as one unit. Weights [E, N, K] have the units of a column
// contiguous and are transposed in squares of vectors; weights [E, K, N] have
// them in rows.
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"

using namespace mlir;
using namespace mlir::moe;

namespace {
class PackLowering {
public:
  PackLowering(PackOp op, const CPUDescription &cpu)
      : op(op), panels(op.getPanels()), lanes(cpu.getLanes()),
        element(cast<MemRefType>(op.getInit().getType()).getElementType()),
        b(op.getLoc(), op) {}

  LogicalResult run();

private:
  int64_t steps() { return llvm::divideCeil(op.getK(), panels.getDepth()); }
  int64_t wholeSteps() { return op.getK() / panels.getDepth(); }
  int64_t panelCount() {
    return llvm::divideCeil(op.getN(), panels.getShare());
  }

  void buildShare(Value expert, Value panel, int64_t matmul);
  void buildElements(Value expert, Value panel, int64_t matmul, Value from,
                     Value to);
  void buildSquare(Value expert, Value panel, int64_t matmul, Value column,
                   Value step);
  void buildRow(Value expert, Value panel, int64_t matmul, int64_t column,
                Value step);
  void store(Value vector, Value expert, Value panel, Value step, Value column);
  bool canVectorize(int64_t matmul);

  PackOp op;
  PanelsAttr panels;
  int64_t lanes;
  Type element;
  CPUBuilder b;
  FlatBuffer packed;
};
} // namespace

/// Packs steps [from, to) of one GEMM element by element: first zeros, then the
/// weights that exist. A conditional copy would become masked accesses, which
/// some CPUs lack for 16-bit floats.
void PackLowering::buildElements(Value expert, Value panel, int64_t matmul,
                                 Value from, Value to) {
  int64_t share = panels.getShare();
  auto storeElement = [&](Value value, Value step, Value column, Value d) {
    memref::StoreOp::create(
        b, value, op.getInit(),
        ValueRange{expert, panel, step, b.add(column, matmul * share), d});
  };
  Value zero = arith::ConstantOp::create(b, b.getZeroAttr(element));
  Value begin = b.index(0), first = b.mul(panel, share);
  Value columns = b.min(b.index(share), b.sub(b.index(op.getN()), first));
  b.forEach(from, to, [&](Value step) {
    b.forEach(begin, b.index(share), [&](Value column) {
      for (int64_t d = 0; d < panels.getDepth(); ++d)
        storeElement(zero, step, column, b.index(d));
    });
    Value k = b.mul(step, panels.getDepth());
    Value depth =
        b.min(b.index(panels.getDepth()), b.sub(b.index(op.getK()), k));
    b.forEach(begin, columns, [&](Value column) {
      b.forEach(begin, depth, [&](Value d) {
        Value row = b.add(k, d), n = b.add(first, column);
        if (op.getTransposed())
          std::swap(row, n);
        Value loaded = memref::LoadOp::create(b, op.getWeights()[matmul],
                                              ValueRange{expert, row, n});
        storeElement(loaded, step, column, d);
      });
    });
  });
}

/// Stores whole columns of one step of a panel from `column` on.
void PackLowering::store(Value vector, Value expert, Value panel, Value step,
                         Value column) {
  Value offset = packed.offset, indices[] = {expert, panel, step, column};
  for (auto [index, stride] : llvm::zip(indices, packed.strides))
    offset = b.add(offset, b.mul(index, stride));
  vector::StoreOp::create(b, vector, packed.elements, offset);
}

/// Packs `lanes` columns of `lanes` steps of weights [E, N, K].
void PackLowering::buildSquare(Value expert, Value panel, int64_t matmul,
                               Value column, Value step) {
  auto vector = VectorType::get(lanes * panels.getDepth(), element);
  // Pairs of elements are transposed as 32-bit units.
  auto units =
      panels.getDepth() == 1 ? vector : VectorType::get(lanes, b.getI32Type());
  Value n = b.add(b.mul(panel, panels.getShare()), column);
  Value k = b.mul(step, panels.getDepth());
  SmallVector<Value> rows;
  for (int64_t i = 0; i < lanes; ++i) {
    Value loaded = vector::LoadOp::create(b, vector, op.getWeights()[matmul],
                                          ValueRange{expert, b.add(n, i), k});
    rows.push_back(
        units == vector ? loaded : vector::BitCastOp::create(b, units, loaded));
  }
  rows = b.transpose(std::move(rows));
  for (int64_t i = 0; i < lanes; ++i) {
    Value value = rows[i];
    if (units != vector)
      value = vector::BitCastOp::create(b, vector, value);
    store(value, expert, panel, b.add(step, i),
          b.add(column, matmul * panels.getShare()));
  }
}

/// Packs `lanes` columns of one step of weights [E, K, N].
void PackLowering::buildRow(Value expert, Value panel, int64_t matmul,
                            int64_t column, Value step) {
  auto vector = VectorType::get(lanes, element);
  Value n = b.add(b.mul(panel, panels.getShare()), column);
  Value k = b.mul(step, panels.getDepth());
  SmallVector<Value> rows;
  for (int64_t d = 0; d < panels.getDepth(); ++d)
    rows.push_back(vector::LoadOp::create(b, vector, op.getWeights()[matmul],
                                          ValueRange{expert, b.add(k, d), n}));
  Value value = rows[0];
  if (panels.getDepth() == 2)
    value = vector::InterleaveOp::create(b, rows[0], rows[1]);
  store(value, expert, panel, step,
        b.index(matmul * panels.getShare() + column));
}

/// True if the elements that are copied together are contiguous.
bool PackLowering::canVectorize(int64_t matmul) {
  auto type = cast<MemRefType>(op.getWeights()[matmul].getType());
  return type.isLastDimUnitStride() && panels.getDepth() <= 2 &&
         panels.getShare() % lanes == 0;
}

/// Packs the columns of one GEMM in one panel.
void PackLowering::buildShare(Value expert, Value panel, int64_t matmul) {
  auto elements = [&](Value from, Value to) {
    buildElements(expert, panel, matmul, from, to);
  };
  Value begin = b.index(0), end = b.index(steps());
  if (!canVectorize(matmul))
    return elements(begin, end);
  Value last = b.mul(b.add(panel, 1), panels.getShare());
  b.ifElse(
      b.less(b.index(op.getN()), last), [&] { elements(begin, end); },
      [&] {
        int64_t whole = op.getTransposed()
                            ? llvm::alignDown(wholeSteps(), lanes)
                            : wholeSteps();
        int64_t stride = op.getTransposed() ? lanes : 1;
        if (op.getTransposed()) {
          // A few rows at a time: the prefetchers follow only so many streams,
          // which costs more than writing the rows of the panel in parts.
          b.forEach(begin, b.index(panels.getShare() / lanes), [&](Value j) {
            b.forEach(begin, b.index(whole / stride), [&](Value i) {
              buildSquare(expert, panel, matmul, b.mul(j, lanes),
                          b.mul(i, stride));
            });
          });
        } else {
          b.forEach(begin, b.index(whole), [&](Value step) {
            for (int64_t column = 0; column < panels.getShare();
                 column += lanes)
              buildRow(expert, panel, matmul, column, step);
          });
        }
        elements(b.index(whole), end);
      });
}

LogicalResult PackLowering::run() {
  if (!cast<MemRefType>(op.getInit().getType()).getLayout().isIdentity())
    return op.emitOpError("expected a compact destination, got ")
           << op.getInit().getType();
  packed = flatten(b, op.getInit());
  Value experts = memref::DimOp::create(b, op.getInit(), 0);
  b.forEachTask(b.mul(experts, panelCount()), [&](Value task) {
    Value expert = b.div(task, panelCount());
    Value panel = b.rem(task, panelCount());
    for (int64_t matmul = 0; matmul < panels.getMatmuls(); ++matmul)
      buildShare(expert, panel, matmul);
  });
  op.erase();
  return success();
}

LogicalResult mlir::moe::lowerToCPU(PackOp op, const CPUDescription &cpu) {
  return op.getPanels().getFormat() ? lowerQuantizedToCPU(op, cpu)
                                    : PackLowering(op, cpu).run();
}
