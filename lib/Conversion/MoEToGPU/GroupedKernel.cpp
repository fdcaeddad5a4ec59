//===- GroupedKernel.cpp - What kernels of grouped products share ---------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "GroupedKernel.h"

using namespace mlir;
using namespace mlir::moe;

FailureOr<WeightView> WeightView::of(GroupedMatmulOp op, Value weights,
                                     std::string &why) {
  auto slice = weights.getDefiningOp<tensor::ExtractSliceOp>();
  int64_t columnDim = op.getTransposed() ? 1 : 2;
  if (!slice)
    return WeightView{weights, 0, op.getN()};
  auto type = slice.getSourceType();
  bool columnsOnly = type.hasStaticShape() && type.getRank() == 3 &&
                     slice.getType().getRank() == 3 &&
                     slice.hasUnitStride() &&
                     !llvm::any_of(slice.getStaticOffsets(),
                                   ShapedType::isDynamic);
  for (int64_t dim = 0; columnsOnly && dim < 3; ++dim)
    columnsOnly = dim == columnDim ||
                  slice.getType().getDimSize(dim) == type.getDimSize(dim);
  if (!columnsOnly) {
    why = "weights that are other than whole columns of a tensor";
    return failure();
  }
  return WeightView{slice.getSource(), slice.getStaticOffsets()[columnDim],
                    type.getDimSize(columnDim)};
}

SmallVector<Value> GroupedKernel::inputs(const GroupedKernelRequest &request) {
  GroupedMatmulOp op = request.op;
  SmallVector<Value> inputs{op.getLhs()};
  for (Value optional : {op.getGather(), op.getOffsets()})
    if (optional)
      inputs.push_back(optional);
  std::string why;
  for (Value weights : op.getWeights())
    inputs.push_back(WeightView::of(op, weights, why)->source);
  if (op.getLhsScales())
    inputs.push_back(op.getLhsScales());
  llvm::append_range(inputs, op.getWeightScales());
  llvm::append_range(inputs, DeviceEpilogue::inputs(op));
  if (request.sum)
    llvm::append_range(inputs, request.sum->inputs());
  return inputs;
}

LLVM::LLVMFuncOp GroupedKernel::create(StringRef name,
                                       const KernelShape &shape) {
  int64_t numScalars = 2 + (op.getOffsets() ? 2 : 0) + (sum ? 1 : 0);
  SmallVector<Type> scalars(numScalars, b.getI32Type());
  auto kernel = createKernel(b, lowering.kernels, name, shape,
                             inputs({op, tile, sum}).size() + (sum ? 3 : 1),
                             scalars);
  unsigned next = shape.tensorMaps;
  lhs = kernel.getArgument(next++);
  gather = op.getGather() ? kernel.getArgument(next++) : Value();
  offsets = op.getOffsets() ? kernel.getArgument(next++) : Value();
  for (size_t i = 0; i < op.getWeights().size(); ++i)
    weights.push_back(kernel.getArgument(next++));
  lhsScales = op.getLhsScales() ? kernel.getArgument(next++) : Value();
  for (size_t i = 0; i < op.getWeightScales().size(); ++i)
    weightScales.push_back(kernel.getArgument(next++));
  for (size_t i = 0; i < op.getExtras().size(); ++i)
    extras.push_back(kernel.getArgument(next++));
  if (sum) {
    sumArguments.arrays.positions = kernel.getArgument(next++);
    if (sum->combine.getWeights())
      sumArguments.arrays.weights = kernel.getArgument(next++);
  }
  out = kernel.getArgument(next++);
  if (sum) {
    sumArguments.arrays.out = kernel.getArgument(next++);
    sumArguments.arrivals = kernel.getArgument(next++);
  }
  rows = kernel.getArgument(next++);
  lhsRows = kernel.getArgument(next++);
  if (offsets) {
    expertRows.least = kernel.getArgument(next++);
    expertRows.most = kernel.getArgument(next++);
  }
  if (sum) {
    sumArguments.arrays.rows = out;
    sumArguments.arrays.numRows = rows;
    sumArguments.tokens = kernel.getArgument(next++);
  }
  return kernel;
}

Value GroupedKernel::lhsRowNumber(Value row) {
  if (!gather)
    return row;
  row = b.loadAt(b.getI32Type(), gather, row);
  return b.max(b.min(row, b.sub(lhsRows, 1)), b.i32(0));
}

Value GroupedKernel::lhsRow(Value row) {
  return b.at(lhs, storage, b.mul(b.toI64(lhsRowNumber(row)), k));
}

/// The number of the block along k that step `step` is in: a block has whole steps,
/// or all of them.
static Value blockOfStep(GPUBuilder &b, GroupedMatmulOp op, Value step) {
  if (op.getBlockK() >= op.getK())
    return b.i32(0);
  return b.div(step, op.getBlockK() / stageDepth(op));
}

Value GroupedKernel::rowScale(Value lhsRow, Value step) {
  int64_t blocks = llvm::divideCeil(k, op.getBlockK());
  Value start = b.mul(b.toI64(lhsRow), blocks);
  return b.loadAt(b.getF32Type(), lhsScales,
                  b.add(start, b.toI64(blockOfStep(b, op, step))));
}

SmallVector<Value>
GroupedKernel::weightScalesOf(const TilePlace &place, int64_t count, Value step,
                              llvm::function_ref<Value(int64_t)> first) {
  SmallVector<Value> scales;
  if (weightScales.empty())
    return scales;
  int64_t ofK = llvm::divideCeil(k, op.getBlockK());
  int64_t ofN = llvm::divideCeil(n, op.getBlockN());
  Value start = b.add(b.mul(b.toI64(place.expert), ofK * ofN),
                      b.toI64(blockOfStep(b, op, step)));
  bool oneBlock = op.getBlockN() >= n || op.getBlockN() % share == 0;
  for (Value source : weightScales)
    for (int64_t tile = 0; tile < count; ++tile) {
      if (oneBlock && tile > 0) {
        scales.push_back(scales.back());
        continue;
      }
      // Columns beyond the last have its scale, and are thrown away.
      Value block = b.div(b.min(first(tile), n - 1), op.getBlockN());
      scales.push_back(b.loadAt(
          b.getF32Type(), source,
          b.add(start, b.mul(b.toI64(block), ofK))));
    }
  return scales;
}

Value GroupedKernel::addScaled(Value sum, Value block, Value rowScale,
                               Value columnScale) {
  Value scale = rowScale ? rowScale : columnScale;
  if (!scale)
    return arith::AddFOp::create(b, sum, block);
  if (rowScale && columnScale)
    scale = arith::MulFOp::create(b, rowScale, columnScale);
  return LLVM::FMAOp::create(b, block, scale, sum);
}

void GroupedKernel::storePair(const TilePlace &place, Value row, Value column,
                              ArrayRef<Value> sums) {
  Type type = cast<RankedTensorType>(op.getInit().getType()).getElementType();
  Value first = b.at(out, type, b.add(b.mul(b.toI64(row), n), b.toI64(column)));
  DeviceEpilogue epilogue(b, op, extras);
  auto element = [&](int64_t i) {
    return epilogue.build(sums.slice(i * products, products), place.expert, row,
                          b.add(column, i));
  };
  bool ragged = n % share != 0;
  auto ifColumn = [&](int64_t i, llvm::function_ref<void()> then) {
    if (ragged)
      b.ifThen(b.less(b.add(column, i), n), then);
    else
      then();
  };
  int64_t bytes = type.getIntOrFloatBitWidth() / 8;
  if (n % 2 == 0) {
    ifColumn(0, [&] {
      Value both[] = {element(0), element(1)};
      b.store(vector::FromElementsOp::create(b, VectorType::get(2, type), both),
              first, 2 * bytes);
    });
    return;
  }
  for (int64_t i = 0; i < 2; ++i)
    ifColumn(i, [&] { b.storeAt(element(i), first, b.i32(i)); });
}

void GroupedKernel::arriveAtSum(TileSchedule &tiles, const TilePlace &place,
                                Value warp, int64_t warps,
                                const RowSumEmitter::Columns &columns) {
  if (sum)
    RowSumEmitter(b, *sum, n, warps, sumArguments)
        .arrive(warp, place.column, tiles.rowTiles(), columns);
}

void GroupedKernel::sumWithoutTiles(TileSchedule &tiles, int64_t threads) {
  if (sum)
    RowSumEmitter(b, *sum, n, /*warps=*/1, sumArguments)
        .fillWithoutTiles(tiles.rowTiles(), threads);
}
