//===- GroupedKernel.cpp - What kernels of grouped products share ---------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "GroupedKernel.h"

using namespace mlir;
using namespace mlir::moe;

namespace {
/// Every `stride`-th column from the first of a view on.
struct Columns {
  WeightView view;
  int64_t stride;
};
} // namespace

/// The columns of a tensor that weights are, if they are that.
static std::optional<Columns> columnsOf(GroupedMatmulOp op, Value weights) {
  auto slice = weights.getDefiningOp<tensor::ExtractSliceOp>();
  int64_t columnDim = op.getTransposed() ? 1 : 2;
  if (!slice)
    return Columns{{weights, 0, op.getN()}, 1};
  auto type = slice.getSourceType();
  if (!type.hasStaticShape() || type.getRank() != 3 ||
      slice.getType().getRank() != 3 ||
      llvm::any_of(slice.getStaticOffsets(), ShapedType::isDynamic) ||
      llvm::any_of(slice.getStaticStrides(), ShapedType::isDynamic))
    return std::nullopt;
  for (int64_t dim = 0; dim < 3; ++dim)
    if (dim != columnDim &&
        slice.getType().getDimSize(dim) != type.getDimSize(dim))
      return std::nullopt;
  return Columns{{slice.getSource(), slice.getStaticOffsets()[columnDim],
                  type.getDimSize(columnDim)},
                 slice.getStaticStrides()[columnDim]};
}

/// Whether columns of the two alternate in a tensor, those of `first` first.
static bool alternate(const Columns &first, const Columns &second) {
  return first.stride == 2 && second.stride == 2 &&
         first.view.source == second.view.source &&
         first.view.firstColumn + 1 == second.view.firstColumn;
}

FailureOr<WeightLayout> WeightLayout::of(GroupedMatmulOp op, std::string &why) {
  SmallVector<Columns, 2> parts;
  for (Value weights : op.getWeights()) {
    std::optional<Columns> columns = columnsOf(op, weights);
    if (!columns) {
      why = "weights that are other than whole columns of a tensor";
      return failure();
    }
    parts.push_back(*columns);
  }
  if (parts.size() == 2)
    for (int64_t first = 0; first < 2; ++first)
      if (alternate(parts[first], parts[1 - first]))
        return WeightLayout{{parts[first].view}, /*interleaved=*/true, first};
  WeightLayout layout;
  for (const Columns &part : parts) {
    if (part.stride != 1) {
      why = "weights that are neither columns side by side nor, two of them, "
            "every other column of one tensor";
      return failure();
    }
    layout.views.push_back(part.view);
  }
  return layout;
}

WeightLayout GroupedKernel::layoutOf(GroupedMatmulOp op) {
  std::string why;
  return *WeightLayout::of(op, why);
}

SmallVector<Value> GroupedKernel::inputs(const GroupedKernelRequest &request) {
  GroupedMatmulOp op = request.op;
  SmallVector<Value> inputs{op.getLhs()};
  for (Value optional : {op.getGather(), op.getOffsets()})
    if (optional)
      inputs.push_back(optional);
  for (const WeightView &view : layoutOf(op).views)
    inputs.push_back(view.source);
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
  for (int64_t i = 0; i < viewCount(); ++i)
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

Value GroupedKernel::columnScale(ArrayRef<Value> scales, int64_t piece,
                                 int64_t which) {
  if (scales.empty())
    return Value();
  if (!layout.interleaved)
    return scales[piece];
  // Eight columns of weights are four of each product.
  int64_t product = which ^ layout.firstProduct;
  return scales[product * scales.size() / 2 + piece / 2];
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

SmallVector<Value>
GroupedKernel::interleavedPair(std::pair<Value, Value> firstColumn,
                               std::pair<Value, Value> secondColumn) {
  SmallVector<Value> sums;
  for (auto [first, second] : {firstColumn, secondColumn}) {
    sums.push_back(layout.firstProduct == 0 ? first : second);
    sums.push_back(layout.firstProduct == 0 ? second : first);
  }
  return sums;
}

void GroupedKernel::storePieces(const TilePlace &place, Value row, Value column,
                                int64_t pieces,
                                llvm::function_ref<Value(int64_t)> sum) {
  Value lane = b.lane(), within = b.bitAnd(lane, 3);
  int64_t across = pieces / products;
  row = b.add(row, b.shiftRight(lane, 2));
  // A lane has two columns of weights in each piece. With interleaved products
  // that is one column of the result: of two pieces it gives the lane beside it
  // one, and gets the column beside its own of the other.
  Value ofLane =
      layout.interleaved
          ? b.bitOr(b.bitAnd(within, 2), b.shiftLeft(b.bitAnd(within, 1), 2))
          : b.shiftLeft(within, 1);
  column = b.add(column, ofLane);
  for (int64_t half = 0; half < 2; ++half) {
    auto at = [&](int64_t piece, int64_t which) {
      return sum(piece * 4 + half * 2 + which);
    };
    auto exchange = [&](int64_t j, int64_t which) {
      return b.transposeLanes(at(2 * j, which), at(2 * j + 1, which), 1);
    };
    Value own = b.add(row, half * 8);
    Value valid = b.less(own, place.rows), grouped = b.add(place.firstRow, own);
    auto storeAt = [&](int64_t j, ArrayRef<Value> pair) {
      storePair(place, grouped, b.add(column, j * 8), pair);
    };
    if (layout.interleaved) {
      // All lanes exchange, also those without a row; some pairs at a time,
      // since there may be no registers for more.
      constexpr int64_t batch = 4;
      for (int64_t first = 0; first < across; first += batch) {
        SmallVector<SmallVector<Value>> pairs;
        for (int64_t j = first; j < std::min(first + batch, across); ++j) {
          auto [evenFirst, evenSecond] = exchange(j, 0);
          auto [oddFirst, oddSecond] = exchange(j, 1);
          pairs.push_back(
              interleavedPair({evenFirst, oddFirst}, {evenSecond, oddSecond}));
        }
        b.ifThen(valid, [&] {
          for (auto [i, pair] : llvm::enumerate(pairs))
            storeAt(first + i, pair);
        });
      }
      continue;
    }
    b.ifThen(valid, [&] {
      for (int64_t j = 0; j < across; ++j) {
        SmallVector<Value> pair;
        for (int64_t which = 0; which < 2; ++which)
          for (int64_t p = 0; p < products; ++p)
            pair.push_back(at(p * across + j, which));
        storeAt(j, pair);
      }
    });
  }
}
