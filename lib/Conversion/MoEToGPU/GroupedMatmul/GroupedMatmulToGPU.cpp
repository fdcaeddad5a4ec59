//===- GroupedMatmulToGPU.cpp - moe.grouped_matmul ------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// One kernel for each tile that moe-tile-for-gpu chose, and a launch of each.
// Those that do not suit the number of rows have no blocks; where two suit, the
// device gives each expert to one of them (TileChoice.h).
//
//===----------------------------------------------------------------------===//

#include "TMAKernel.h"
#include "moe/Analysis/TileChoice.h"

using namespace mlir;
using namespace mlir::moe;

/// Experts whose tiles a block adds up.
static constexpr int64_t mostExperts = 1024;

static Type elementOf(Value tensor) {
  return cast<RankedTensorType>(tensor.getType()).getElementType();
}

bool mlir::moe::hasNarrowWeights(GroupedMatmulOp op) {
  return isa<Float8E4M3FNType>(elementOf(op.getWeights().front()));
}
bool mlir::moe::hasNarrowRows(GroupedMatmulOp op) {
  return isa<Float8E4M3FNType>(elementOf(op.getLhs()));
}

int64_t mlir::moe::weightViewCount(GroupedMatmulOp op) {
  std::string why;
  return WeightLayout::of(op, why)->views.size();
}

int64_t mlir::moe::stageDepth(GroupedMatmulOp op) {
  return hasNarrowWeights(op) ? 128 : 64;
}
int64_t mlir::moe::stageBytes(GroupedMatmulOp op, int64_t rows,
                              int64_t columns) {
  int64_t bytes = rows * (hasNarrowRows(op) ? 1 : 2) +
                  columns * (hasNarrowWeights(op) ? 1 : 2);
  return bytes * stageDepth(op);
}

/// Whether there are kernels for the types of the factors and the scales.
static LogicalResult verifyFactors(GroupedMatmulOp op, std::string &why) {
  Type rows = elementOf(op.getLhs());
  bool wide = rows.isF16() || rows.isBF16();
  if (!hasNarrowWeights(op)) {
    if (!wide)
      why = "rows that are neither f16 nor bf16";
    else if (elementOf(op.getWeights().front()) != rows)
      why = "weights of another type than the rows";
    else if (op.isScaled())
      why = "scales of weights that do not have 8 bits";
    return failure(!why.empty());
  }
  // Blocks have whole stages, and whole tiles of eight columns.
  auto divides = [](int64_t part, int64_t block, int64_t extent) {
    return block % part == 0 || block >= extent;
  };
  if (!wide && !hasNarrowRows(op))
    why = "rows that are neither f8E4M3FN, f16 nor bf16";
  else if (!op.getTransposed())
    why = "weights of 8 bits that do not lie along k";
  else if (op.getK() % 16 != 0)
    why = "rows of 8 bits of a k that is not a multiple of 16";
  else if (op.isScaled() && !divides(stageDepth(op), op.getBlockK(), op.getK()))
    why = "blocks of scales that are not a multiple of " +
          std::to_string(stageDepth(op)) + " along k";
  else if (op.isScaled() && !divides(8, op.getBlockN(), op.getN()))
    why = "blocks of scales that are not a multiple of 8 columns";
  return failure(!why.empty());
}

LogicalResult mlir::moe::verifyTensorCores(GroupedMatmulOp op,
                                           std::string &why) {
  auto weights = cast<RankedTensorType>(op.getWeights().front().getType());
  if (op.getPanels()) {
    why = "packed weights";
    return failure();
  }
  if (failed(verifyFactors(op, why)))
    return failure();
  if (!weights.hasStaticShape())
    why = "weights with a dynamic extent";
  else if (op.getExpertCount() > mostExperts)
    why = "more than " + std::to_string(mostExperts) + " experts";
  else if (op.getNumProducts() > 2)
    why = "more than two products";
  else if (op.getK() % 8 != 0 || op.getK() == 0)
    why = "a k that is not a multiple of 8";
  else if (!op.getTransposed() && op.getN() % 8 != 0)
    why = "columns side by side that are not a multiple of 8";
  else if (op.getN() == 0)
    why = "no columns";
  if (!why.empty())
    return failure();
  FailureOr<WeightLayout> layout = WeightLayout::of(op, why);
  if (failed(layout))
    return failure();
  for (const WeightView &view : layout->views) {
    // The copies are of 16 bytes.
    if (!op.getTransposed() &&
        (view.firstColumn % 8 != 0 || view.columns % 8 != 0))
      why = "weights at columns that are not a multiple of 8";
    else if (view.columns != layout->views.front().columns)
      why = "weights in tensors of different shapes";
  }
  return failure(!why.empty() || failed(DeviceEpilogue::verify(op, why)));
}

/// Whether there is a kernel of this shape: not all that the attribute can say.
static bool hasKernel(GroupedMatmulOp op, TileAttr tile) {
  int64_t products = op.getNumProducts();
  int64_t rows = tile.getRows(), columns = tile.getColumns();
  bool pingPong = tile.getRoles() == WarpRoles::PingPong;
  if (tile.getUnit() == MatrixUnit::MmaSync)
    return hasNarrowWeights(op)
               ? llvm::is_contained({16, 32, 64}, rows) && columns == 128
               : llvm::is_contained({16, 32, 64, 128}, rows) &&
                     columns % 128 == 0;
  // Weights along n come in blocks of 64 columns.
  if (tile.getSwapped())
    return llvm::is_contained({8, 16, 32, 64}, rows) && columns == 128 &&
           !pingPong && tile.getStages() > 2;
  int64_t block = op.getTransposed() ? 8 * products : 64 * weightViewCount(op);
  return (rows == 128 || (pingPong && rows == 64)) && columns % block == 0;
}

static LogicalResult verifyTile(GroupedMatmulOp op, TileAttr tile,
                                const GPUDescription &gpu, std::string &why) {
  bool wgmma = tile.getUnit() == MatrixUnit::Wgmma;
  int64_t rows = tile.getRows(), columns = tile.getColumns();
  int64_t split = tile.getSplit();
  int64_t bytes = tile.getStages() * stageBytes(op, rows, columns) +
                  (split > 1 ? rows * columns * 4 : 0) +
                  TileSchedule::sharedBytes(op.getExpertCount()) + 256;
  int64_t steps = llvm::divideCeil(op.getK(), tile.getDepth());
  if (wgmma && !gpu.hasWgmma())
    why = "wgmma on " + gpu.arch;
  else if (tile.getDepth() != stageDepth(op))
    why = "tiles of a depth other than " + std::to_string(stageDepth(op));
  else if (wgmma && hasNarrowWeights(op) && !hasNarrowRows(op))
    why = "wgmma of weights of 8 bits with wider rows";
  else if (wgmma && hasNarrowWeights(op) &&
           (tile.getRoles() == WarpRoles::PingPong || tile.getSwapped() ||
            columns > 128))
    // Sums of a stage and those of the stages before share the registers.
    why = "wgmma of 8 bits with ping_pong, swapped operands or more than 128 "
          "columns";
  else if (tile.getGatherFence() == GatherFence::Consumer && !op.getGather())
    why = "gather_fence = consumer without gathered rows";
  else if (tile.getSwapped() && !wgmma)
    why = "tiles with swapped operands other than with wgmma";
  else if (tile.getCluster() != split || (split > 1 && !tile.getSwapped()) ||
           !llvm::is_contained({1, 2, 4}, split))
    why = "tiles with clusters other than of 2 or 4 blocks that split the sum, "
          "with swapped operands";
  else if (steps % split != 0)
    why = "a sum of " + std::to_string(steps) + " steps in " +
          std::to_string(split) + " parts";
  else if (!hasKernel(op, tile))
    why = "tiles of " + std::to_string(tile.getRows()) + " rows and " +
          std::to_string(columns) + " columns";
  else if (bytes > gpu.getSharedBytes())
    why = "tiles of " + std::to_string(bytes) + " bytes of shared memory";
  return failure(!why.empty());
}

static LLVM::LLVMFuncOp buildKernel(const GroupedKernelRequest &request,
                                    DeviceLowering &lowering) {
  if (TileAttr tile = request.tile; tile.getUnit() == MatrixUnit::Wgmma)
    return tile.getSwapped() ? buildSwappedKernel(request, lowering)
                             : buildWgmmaKernel(request, lowering);
  return hasNarrowWeights(request.op)
             ? buildScaledMmaSyncKernel(request, lowering)
             : buildMmaSyncKernel(request, lowering);
}

namespace {
/// Which tiles run, decided on the host, one after the other: the first that
/// suits the rows on average, and where two are taken the last.
class TileSelection {
public:
  TileSelection(ImplicitLocOpBuilder &b, GroupedMatmulOp op,
                ArrayRef<int64_t> tiles, Value rows)
      : b(b), tiles(tiles),
        mean(op.getOffsets() ? ceilDivOf(b, rows, op.getExpertCount()) : rows) {
    two = TwoTiles::of(tiles);
    if (!two || !op.getOffsets())
      return;
    Value extent = index(two->extent);
    both = arith::AndIOp::create(b, compare(Predicate::ugt, rows, extent),
                                 compare(Predicate::ule, mean, extent));
  }

  /// Least and most rows of the experts that tile `i`, the next, takes.
  std::pair<Value, Value> expertRows(size_t i) {
    Value least = index(1), most = index(INT32_MAX);
    if (!both)
      return {least, most};
    if (!isLast(i))
      return {least, select(both, index(two->limit), most)};
    // All of them, if there is no tile before that runs.
    Value second = arith::AndIOp::create(b, both, chosen);
    return {select(second, index(two->limit + 1), least), most};
  }

  /// As many `blocks` as tile `i`, the next, has to run with; with `can`, if
  /// that is so.
  Value blocksOf(size_t i, Value blocks, Value can = {}) {
    if (isLast(i) && !chosen)
      return blocks;
    Value runs;
    if (isLast(i)) {
      runs = negate(chosen);
      if (both)
        runs = arith::OrIOp::create(b, runs, both);
    } else {
      Value suits = compare(Predicate::ule, mean, index(tiles[i]));
      if (both && i + 2 == tiles.size())
        suits = arith::OrIOp::create(b, suits, both);
      if (can)
        suits = arith::AndIOp::create(b, suits, can);
      runs = chosen ? arith::AndIOp::create(b, suits, negate(chosen)) : suits;
      chosen = chosen ? arith::OrIOp::create(b, chosen, suits) : suits;
    }
    return select(runs, blocks, index(0));
  }

private:
  using Predicate = arith::CmpIPredicate;

  bool isLast(size_t i) { return i + 1 == tiles.size(); }
  Value index(int64_t value) {
    return arith::ConstantIndexOp::create(b, value);
  }
  Value compare(Predicate predicate, Value x, Value y) {
    return arith::CmpIOp::create(b, predicate, x, y);
  }
  Value select(Value condition, Value x, Value y) {
    return arith::SelectOp::create(b, condition, x, y);
  }
  Value negate(Value flag) {
    return arith::XOrIOp::create(b, flag,
                                 arith::ConstantIntOp::create(b, 1, 1));
  }

  ImplicitLocOpBuilder &b;
  ArrayRef<int64_t> tiles; // rows of each
  Value mean;              // rows of an expert, on average
  std::optional<TwoTiles> two;
  Value both;   // whether two are taken; null if never
  Value chosen; // whether a tile before runs; null if there was none
};
} // namespace

Lowered mlir::moe::lowerToGPU(GroupedMatmulOp op, DeviceLowering &lowering,
                              std::string &why) {
  // Before the tiles: moe-tile-for-gpu has the same reason to give none.
  if (failed(verifyTensorCores(op, why)))
    return failure();
  auto tiles = op->getAttrOfType<ArrayAttr>(tilesAttr);
  if (!tiles || tiles.empty() ||
      !llvm::all_of(tiles, llvm::IsaPred<TileAttr>)) {
    why = "no tiles; run moe-tile-for-gpu";
    return failure();
  }
  SmallVector<int64_t> tileRows;
  for (auto tile : tiles.getAsRange<TileAttr>()) {
    if (failed(verifyTile(op, tile, lowering.gpu, why)))
      return failure();
    tileRows.push_back(tile.getRows());
  }
  ImplicitLocOpBuilder b(op.getLoc(), lowering.rewriter);
  auto index = [&](int64_t value) -> Value {
    return arith::ConstantIndexOp::create(b, value);
  };
  auto toI32 = [&](Value value) -> Value {
    return arith::IndexCastOp::create(b, b.getI32Type(), value);
  };
  bool grouped = bool(op.getOffsets());
  int64_t experts = op.getExpertCount();
  Value rows = extentOf(b, op.getInit(), 0);
  Value lhsRows = extentOf(b, op.getLhs(), 0);
  TileSelection selection(b, op, tileRows, rows);
  Value processors = MultiprocessorsOp::create(b);
  // A sum for some tokens is the end of kernels that suit few rows.
  std::optional<RowSum> sum = RowSum::find(op, lowering);
  SmallVector<Value> results{op.getInit()};
  Value some, isSummed;
  if (sum) {
    some = sum->tokensAtOnce(b);
    isSummed = arith::ConstantIntOp::create(b, 0, 1);
    llvm::append_values(results, sum->init(b), sum->arrivals);
  }
  for (auto [i, attribute] : llvm::enumerate(tiles)) {
    auto tile = cast<TileAttr>(attribute);
    bool wgmma = tile.getUnit() == MatrixUnit::Wgmma;
    GroupedKernelRequest request{op, tile, std::nullopt};
    if (sum && RowSum::suits(op, tile))
      request.sum = sum;
    LLVM::LLVMFuncOp kernel = buildKernel(request, lowering);
    int64_t share = tile.getColumns() / op.getNumProducts();
    auto [leastRows, mostRows] = selection.expertRows(i);
    Value blocks =
        TileSchedule::bound(b, rows, grouped ? leastRows : Value(), experts,
                            tile.getRows(), llvm::divideCeil(op.getN(), share));
    // As many as run at once: with wgmma for many rows, or the sums of a stage beside
    // those of the stages before, a block has most of the registers.
    bool alone = (wgmma && !tile.getSwapped()) || hasNarrowWeights(op);
    Value most =
        alone ? processors
              : arith::MulIOp::create(b, processors, index(2)).getResult();
    Value atOnce;
    if (tile.getSplit() > 1) {
      // One tile for a cluster, and all of them at once.
      blocks = arith::MulIOp::create(b, blocks, index(tile.getSplit()));
      atOnce =
          arith::CmpIOp::create(b, arith::CmpIPredicate::ule, blocks, most);
    } else {
      blocks = arith::MinUIOp::create(b, blocks, most);
    }
    blocks = selection.blocksOf(i, blocks, atOnce);
    SmallVector<Value> scalars{toI32(rows), toI32(lhsRows)};
    if (grouped)
      scalars.append({toI32(leastRows), toI32(mostRows)});
    MutableArrayRef<Value> inits(results);
    if (request.sum) {
      scalars.push_back(toI32(some));
      isSummed = arith::OrIOp::create(
          b, isSummed,
          arith::CmpIOp::create(b, arith::CmpIPredicate::ne, blocks, index(0)));
    } else {
      inits = inits.take_front();
    }
    llvm::copy(launch(lowering, op.getLoc(), kernel, blocks,
                      GroupedKernel::inputs(request), inits, scalars,
                      wgmma ? BulkCopyKernel::maps(op, tile)
                            : SmallVector<TensorMapAttr>()),
               inits.begin());
  }
  if (sum)
    sum->replace(b, results[0], results[1], some, isSummed, lowering);
  return SmallVector<Value>{results.front()};
}
