//===- ContractKernel.cpp - Base of the contraction kernels ---------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ContractKernel.h"
#include "moe/Analysis/KernelModel.h"

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
                                        const KernelShape &shape,
                                        std::optional<MatrixUnit> unit) {
  LLVM::LLVMFuncOp kernel =
      arguments.createKernel(b, lowering.kernels, name, shape);
  ContractWork work;
  work.experts = op.getExpertCount();
  work.k = op.getK();
  work.n = op.getN();
  work.tileK = tileK;
  work.tileN = tileN;
  work.depth = depth;
  work.unit = unit.value_or(MatrixUnit::MmaSync);
  work.elements = !unit;
  work.grouped = bool(op.getOffsets());
  work.gathers = bool(op.getLhsGather()) + bool(op.getRhsGather());
  work.accumulate = op.getAccumulate();
  work.rows = element;
  work.result = result;
  kernel->setAttr(workAttrName, work.toAttr());
  return kernel;
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

void ContractKernel::storePairs(const Coord &coord, ArrayRef<Pair> pairs) {
  struct Store {
    Value inside, pointer, sums, before;
  };
  SmallVector<Store> stores;
  auto vectorOf = [&](ValueRange elements) -> Value {
    return vector::FromElementsOp::create(
        b, VectorType::get(int64_t(elements.size()), b.getF32Type()), elements);
  };
  auto typeOf = [&](Value sums) {
    return VectorType::get(cast<VectorType>(sums.getType()).getShape(), result);
  };
  bool isWide = place.strides[2] == 1 && place.shape[2] % 2 == 0 &&
                place.offsets[2] % 2 == 0;
  for (const Pair &pair : pairs) {
    Value inside = b.both(b.less(pair.k, op.getK()), b.less(pair.n, op.getN()));
    // Without rows there is nothing to add.
    if (op.getAccumulate())
      inside = b.both(inside, b.less(b.i32(0), coord.steps));
    Value pointer = resultPointer(coord.expert, pair.k, pair.n);
    if (isWide) {
      stores.push_back(
          {inside, pointer, vectorOf({pair.first, pair.second}), Value()});
      continue;
    }
    Value next = b.at(pointer, result, b.i64(place.strides[2]));
    stores.push_back({inside, pointer, vectorOf(pair.first), Value()});
    stores.push_back({inside, next, vectorOf(pair.second), Value()});
  }
  if (op.getAccumulate())
    for (Store &store : stores)
      store.before =
          b.loadVectorIf(store.inside, typeOf(store.sums), store.pointer);
  for (Store &store : stores) {
    if (store.before)
      store.sums = arith::AddFOp::create(
          b, b.toFloat(store.before, store.sums.getType()), store.sums);
    b.storeIf(store.inside, b.toFloat(store.sums, typeOf(store.sums)),
              store.pointer);
  }
}
