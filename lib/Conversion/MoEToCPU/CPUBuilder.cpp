//===- CPUBuilder.cpp - Loops and indices ---------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"

using namespace mlir;
using namespace mlir::moe;

Value CPUBuilder::index(int64_t value) {
  return arith::ConstantIndexOp::create(*this, value);
}
Value CPUBuilder::add(Value x, Value y) {
  return arith::AddIOp::create(*this, x, y);
}
Value CPUBuilder::sub(Value x, Value y) {
  return arith::SubIOp::create(*this, x, y);
}
Value CPUBuilder::mul(Value x, Value y) {
  return arith::MulIOp::create(*this, x, y);
}
Value CPUBuilder::div(Value x, int64_t y) {
  return y == 1 ? x : arith::DivUIOp::create(*this, x, index(y));
}
Value CPUBuilder::rem(Value x, int64_t y) {
  return arith::RemUIOp::create(*this, x, index(y));
}
Value CPUBuilder::min(Value x, Value y) {
  return arith::MinSIOp::create(*this, x, y);
}
Value CPUBuilder::clamp(Value value, Value limit) {
  return min(arith::MaxSIOp::create(*this, value, index(0)), limit);
}
Value CPUBuilder::less(Value x, Value y) {
  return arith::CmpIOp::create(*this, arith::CmpIPredicate::slt, x, y);
}
Value CPUBuilder::toIndex(Value integer) {
  return arith::IndexCastOp::create(*this, getIndexType(), integer);
}

void CPUBuilder::forEach(Value from, Value to,
                         llvm::function_ref<void(Value)> body) {
  auto loop = scf::ForOp::create(*this, from, to, index(1));
  OpBuilder::InsertionGuard guard(*this);
  setInsertionPointToStart(loop.getBody());
  body(loop.getInductionVar());
}

void CPUBuilder::forEachTask(Value count,
                             llvm::function_ref<void(Value)> body) {
  auto loop = scf::ForallOp::create(*this, ArrayRef<OpFoldResult>{count},
                                    /*outputs=*/ValueRange(), std::nullopt);
  OpBuilder::InsertionGuard guard(*this);
  setInsertionPointToStart(loop.getBody());
  body(loop.getInductionVar(0));
}

Value CPUBuilder::loadFirst(int64_t lanes, Value buffer,
                            ArrayRef<Value> indices, Value count, Value mask) {
  Type element = cast<MemRefType>(buffer.getType()).getElementType();
  auto type = VectorType::get(lanes, element);
  if (!mask)
    return vector::LoadOp::create(*this, type, buffer, indices);
  // Not all CPUs have masked loads of 16-bit floats; LLVM would scalarize them.
  if (element.getIntOrFloatBitWidth() < 32)
    return gatherFirst(lanes, buffer, indices, indices.size() - 1, count);
  Value zero = arith::ConstantOp::create(*this, getZeroAttr(type));
  return vector::MaskedLoadOp::create(*this, type, buffer, indices, mask, zero);
}

Value CPUBuilder::gatherFirst(int64_t lanes, Value buffer,
                              ArrayRef<Value> indices, unsigned dim,
                              Value count) {
  Type element = cast<MemRefType>(buffer.getType()).getElementType();
  SmallVector<Value> coord(indices), elements;
  Value last = sub(count, index(1));
  for (int64_t lane = 0; lane < lanes; ++lane) {
    // Lanes from `count` on repeat the last element.
    coord[dim] = add(indices[dim], min(index(lane), last));
    elements.push_back(memref::LoadOp::create(*this, buffer, coord));
  }
  return vector::FromElementsOp::create(*this, VectorType::get(lanes, element),
                                        elements);
}

void CPUBuilder::storeFirst(Value vector, Value buffer, ArrayRef<Value> indices,
                            Value count, Value mask) {
  if (!mask) {
    vector::StoreOp::create(*this, vector, buffer, indices);
    return;
  }
  if (cast<VectorType>(vector.getType()).getElementTypeBitWidth() >= 32) {
    vector::MaskedStoreOp::create(*this, buffer, indices, mask, vector);
    return;
  }
  // Not all CPUs have masked stores of 16-bit floats, and LLVM would scalarize
  // them: copy the lanes through memory, as integers.
  auto type = cast<VectorType>(vector.getType());
  int64_t lanes = type.getNumElements();
  auto bits = VectorType::get(lanes, getIntegerType(16));
  Value copy;
  {
    // Allocate once per task, not per loop iteration.
    InsertionGuard guard(*this);
    auto task = getInsertionBlock()->getParentOp();
    while (!isa<scf::ForallOp>(task))
      task = task->getParentOp();
    setInsertionPointToStart(cast<scf::ForallOp>(task).getBody());
    copy = memref::AllocaOp::create(
        *this, MemRefType::get({lanes}, getIntegerType(16)));
  }
  vector::StoreOp::create(*this, vector::BitCastOp::create(*this, bits, vector),
                          copy, ValueRange(index(0)));
  forEach(index(0), min(count, index(lanes)), [&](Value lane) {
    SmallVector<Value> coord(indices);
    coord.back() = add(coord.back(), lane);
    Value element = memref::LoadOp::create(*this, copy, ValueRange(lane));
    element = arith::BitcastOp::create(*this, type.getElementType(), element);
    memref::StoreOp::create(*this, element, buffer, coord);
  });
}

void CPUBuilder::ifThen(Value condition, llvm::function_ref<void()> then) {
  auto choice = scf::IfOp::create(*this, condition);
  OpBuilder::InsertionGuard guard(*this);
  setInsertionPointToStart(choice.thenBlock());
  then();
}

void CPUBuilder::ifElse(Value condition, llvm::function_ref<void()> then,
                        llvm::function_ref<void()> otherwise) {
  auto choice = scf::IfOp::create(*this, condition, /*withElseRegion=*/true);
  OpBuilder::InsertionGuard guard(*this);
  setInsertionPointToStart(choice.thenBlock());
  then();
  setInsertionPointToStart(choice.elseBlock());
  otherwise();
}

Value CPUBuilder::allocateScratch(Type element, int64_t count) {
  return memref::AllocaOp::create(
      *this, MemRefType::get({ShapedType::kDynamic}, element),
      ValueRange(index(count)), getI64IntegerAttr(64));
}

void CPUBuilder::forEachTile(Value rows, int64_t maxRows,
                             llvm::function_ref<void(const Tile &)> body) {
  Value tiles = ceilDiv(rows, maxRows);
  Value height = arith::DivUIOp::create(*this, rows, tiles);
  Value taller = arith::RemUIOp::create(*this, rows, tiles);
  forEach(index(0), tiles, [&](Value tile) {
    Value row = add(mul(tile, height), min(tile, taller));
    Value extra =
        arith::SelectOp::create(*this, less(tile, taller), index(1), index(0));
    body({tile, tiles, row, add(height, extra)});
  });
}

void CPUBuilder::callKernel(
    Value height, int64_t maxRows, ValueRange operands,
    llvm::function_ref<func::FuncOp(int64_t rows)> kernelOf) {
  SmallVector<int64_t> heights =
      llvm::to_vector(llvm::seq_inclusive<int64_t>(1, maxRows));
  auto choice = scf::IndexSwitchOp::create(*this, TypeRange(), height, heights,
                                           heights.size());
  OpBuilder::InsertionGuard guard(*this);
  for (auto [rows, region] : llvm::zip(heights, choice.getCaseRegions())) {
    createBlock(&region);
    func::CallOp::create(*this, kernelOf(rows), operands);
    scf::YieldOp::create(*this);
  }
  createBlock(&choice.getDefaultRegion());
  scf::YieldOp::create(*this);
}

SmallVector<Value> CPUBuilder::transpose(SmallVector<Value> rows) {
  // log2(lanes) stages exchange the halves of rows at distance 1, 2, 4, ...
  int64_t lanes = rows.size();
  for (int64_t distance = 1; distance < lanes; distance *= 2) {
    SmallVector<int64_t> low, high;
    for (int64_t lane = 0; lane < lanes; ++lane) {
      bool second = lane & distance;
      low.push_back(second ? lane - distance + lanes : lane);
      high.push_back(second ? lane + lanes : lane + distance);
    }
    for (int64_t row = 0; row < lanes; ++row) {
      if (row & distance)
        continue;
      Value x = rows[row], y = rows[row + distance];
      rows[row] = vector::ShuffleOp::create(*this, x, y, low);
      rows[row + distance] = vector::ShuffleOp::create(*this, x, y, high);
    }
  }
  return rows;
}

FlatBuffer mlir::moe::flatten(CPUBuilder &b, Value buffer) {
  auto type = cast<MemRefType>(buffer.getType());
  auto metadata = memref::ExtractStridedMetadataOp::create(b, buffer);
  FlatBuffer flat;
  flat.offset = metadata.getConstifiedMixedOffset().dyn_cast<Value>();
  if (!flat.offset)
    flat.offset =
        b.index(*getConstantIntValue(metadata.getConstifiedMixedOffset()));
  for (OpFoldResult stride : metadata.getConstifiedMixedStrides()) {
    auto value = dyn_cast<Value>(stride);
    flat.strides.push_back(value ? value
                                 : b.index(*getConstantIntValue(stride)));
  }
  // The extent does not bound accesses; any value will do.
  Value extent = b.index(1);
  for (OpFoldResult size : metadata.getConstifiedMixedSizes()) {
    auto value = dyn_cast<Value>(size);
    extent = b.mul(extent, value ? value : b.index(*getConstantIntValue(size)));
  }
  flat.elements = memref::ReinterpretCastOp::create(
      b, MemRefType::get({ShapedType::kDynamic}, type.getElementType()),
      metadata.getBaseBuffer(), OpFoldResult(b.getIndexAttr(0)),
      ArrayRef<OpFoldResult>{extent},
      ArrayRef<OpFoldResult>{b.getIndexAttr(1)});
  return flat;
}
