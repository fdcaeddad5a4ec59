//===- ContractKernel.cpp - Base of the contraction kernels ---------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ContractKernel.h"

#include "mlir/IR/TypeUtilities.h"

using namespace mlir;
using namespace mlir::moe;

ContractKernel::ContractKernel(GroupedContractOp op, int64_t tileK,
                               int64_t tileN, ContractOperands &operands,
                               DeviceLowering &lowering)
    : op(op), lowering(lowering), b(op.getLoc(), op.getContext()),
      element(getElementTypeOrSelf(op.getLhs())),
      result(getElementTypeOrSelf(op.getInit())), tileK(tileK), tileN(tileN),
      place(operands) {
  lhs.columns = op.getK();
  rhs.columns = op.getN();
  lhs.input = arguments.input(op.getLhs(), lhs.rows);
  arguments.input(op.getLhsGather(), lhs.gather);
  rhs.input = arguments.input(op.getRhs(), rhs.rows);
  arguments.input(op.getRhsGather(), rhs.gather);
  arguments.input(op.getOffsets(), offsets);
  arguments.output(operands.out, out);
  arguments.scalar(operands.rows, rows);
  arguments.scalar(operands.lhsRows, lhs.count);
  arguments.scalar(operands.rhsRows, rhs.count);
}

LLVM::LLVMFuncOp ContractKernel::create(StringRef name,
                                        const KernelShape &shape) {
  return arguments.createKernel(b, lowering.kernels, name, shape);
}

Value ContractKernel::gridSize(HostBuilder &host) {
  Value wave = moe_rt::MultiprocessorsOp::create(host);
  return host.min(host.index(tileCount()), wave);
}

ContractKernel::Coord ContractKernel::tileAt(Value index) {
  Value expert = b.div(index, tilesOfExpert());
  Value within = b.sub(index, b.mul(expert, tilesOfExpert()));
  Value tileRow = b.div(within, tilesOfN());
  Value tileColumn = b.sub(within, b.mul(tileRow, tilesOfN()));
  Value first = b.i32(0), end = rows;
  if (offsets) {
    auto boundary = [&](int64_t next) {
      Value row = b.loadAt(b.getI32Type(), offsets,
                           b.add(expert, op.getFirstExpert() + next));
      return b.min(b.max(row, b.i32(0)), rows);
    };
    first = boundary(0);
    end = boundary(1);
  }
  // Descending offsets count as no rows.
  Value count = b.max(b.sub(end, first), b.i32(0));
  return {expert, b.mul(tileRow, tileK),  b.mul(tileColumn, tileN), first,
          end,    b.ceilDiv(count, depth)};
}

Value ContractKernel::sourceRow(const Side &side, Value row, Value exists) {
  if (!side.gather)
    return b.select(exists, row, b.i32(0));
  Value gathered = b.loadIf(
      exists, b.getI32Type(),
      b.at(side.gather, b.getI32Type(), b.select(exists, row, b.i32(0))));
  return b.max(b.min(gathered, b.sub(side.count, 1)), b.i32(0));
}

Value ContractKernel::pointerTo(const Side &side, Value row, Value column) {
  return b.at(side.rows, element,
              b.add(b.mul(b.toI64(row), side.columns), b.toI64(column)));
}

Value ContractKernel::resultPointer(Value expert, Value k, Value n) {
  Value index = b.i64(0), coordinates[] = {expert, k, n};
  for (auto [dim, coordinate] : llvm::enumerate(coordinates))
    index = b.add(b.mul(index, place.shape[dim]),
                  b.add(b.mul(b.toI64(coordinate), place.strides[dim]),
                        place.offsets[dim]));
  return b.at(out, result, index);
}

void ContractKernel::storePair(const Coord &coord, Value k, Value n,
                               Value first, Value second) {
  Value inside = b.both(b.less(k, op.getK()), b.less(n, op.getN()));
  // Without rows there is nothing to add.
  if (op.getAccumulate())
    inside = b.both(inside, b.less(b.i32(0), coord.steps));
  auto store = [&](Value sums, Value pointer) {
    auto type =
        VectorType::get(cast<VectorType>(sums.getType()).getShape(), result);
    if (op.getAccumulate())
      sums = arith::AddFOp::create(
          b, b.toFloat(b.loadVectorIf(inside, type, pointer), sums.getType()),
          sums);
    b.storeIf(inside, b.toFloat(sums, type), pointer);
  };
  auto vectorOf = [&](ValueRange elements) -> Value {
    return vector::FromElementsOp::create(
        b, VectorType::get(int64_t(elements.size()), b.getF32Type()), elements);
  };
  Value pointer = resultPointer(coord.expert, k, n);
  if (place.strides[2] == 1 && place.shape[2] % 2 == 0 &&
      place.offsets[2] % 2 == 0)
    return store(vectorOf({first, second}), pointer);
  store(vectorOf(first), pointer);
  store(vectorOf(second), b.at(pointer, result, b.i64(place.strides[2])));
}
