//===- GroupedMatmulToGPU.cpp - moe.grouped_matmul ------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Builds and launches one kernel for each tile that moe-tile-for-gpu chose.
// Launches that do not suit the number of rows get an empty grid; where two
// suit, each handles the experts in its range of row counts (TileChoice.h).
//
//===----------------------------------------------------------------------===//

#include "TMAKernel.h"
#include "moe/Analysis/TileChoice.h"

using namespace mlir;
using namespace mlir::moe;

/// Experts whose tile counts a block scans.
static constexpr int64_t maxExperts = 1024;

static Type elementOf(Value tensor) {
  return cast<RankedTensorType>(tensor.getType()).getElementType();
}

bool mlir::moe::hasFP8Weights(GroupedMatmulOp op) {
  return isa<Float8E4M3FNType>(elementOf(op.getWeights().front()));
}
bool mlir::moe::hasFP8Lhs(GroupedMatmulOp op) {
  return isa<Float8E4M3FNType>(elementOf(op.getLhs()));
}

int64_t mlir::moe::weightViewCount(GroupedMatmulOp op) {
  std::string why;
  return WeightLayout::of(op, why)->views.size();
}

int64_t mlir::moe::stageDepth(GroupedMatmulOp op) {
  return hasFP8Weights(op) ? 128 : 64;
}
int64_t mlir::moe::stageBytes(GroupedMatmulOp op, int64_t rows,
                              int64_t columns) {
  int64_t bytes =
      rows * (hasFP8Lhs(op) ? 1 : 2) + columns * (hasFP8Weights(op) ? 1 : 2);
  return bytes * stageDepth(op);
}

/// Succeeds if there are kernels for the types of the operands and the scales.
static LogicalResult verifyOperands(GroupedMatmulOp op, std::string &why) {
  Type rows = elementOf(op.getLhs());
  bool is16Bit = rows.isF16() || rows.isBF16();
  if (!hasFP8Weights(op)) {
    if (!is16Bit)
      why = "rows that are neither f16 nor bf16";
    else if (elementOf(op.getWeights().front()) != rows)
      why = "weights and rows of different types";
    else if (op.isScaled())
      why = "scales of weights that are not f8E4M3FN";
    return failure(!why.empty());
  }
  // A block of scales must cover whole stages, and whole groups of eight
  // columns.
  auto divides = [](int64_t unit, int64_t block, int64_t extent) {
    return block % unit == 0 || block >= extent;
  };
  if (!is16Bit && !hasFP8Lhs(op))
    why = "rows that are neither f8E4M3FN, f16 nor bf16";
  else if (!op.getTransposed())
    why = "f8E4M3FN weights that are not K-major";
  else if (op.getK() % 16 != 0)
    why = "f8E4M3FN weights of a k that is not a multiple of 16";
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
  if (failed(verifyOperands(op, why)))
    return failure();
  if (!weights.hasStaticShape())
    why = "weights with a dynamic extent";
  else if (op.getExpertCount() > maxExperts)
    why = "more than " + std::to_string(maxExperts) + " experts";
  else if (op.getNumProducts() > 2)
    why = "more than two GEMMs";
  else if (op.getK() % 8 != 0 || op.getK() == 0)
    why = "a k that is not a multiple of 8";
  else if (!op.getTransposed() && op.getN() % 8 != 0)
    why = "MN-major weights of a number of columns that is not a multiple of 8";
  else if (op.getN() == 0)
    why = "no columns";
  if (!why.empty())
    return failure();
  FailureOr<WeightLayout> layout = WeightLayout::of(op, why);
  if (failed(layout))
    return failure();
  for (const WeightView &view : layout->views) {
    // cp.async and TMA copy multiples of 16 bytes.
    if (!op.getTransposed() &&
        (view.firstColumn % 8 != 0 || view.columns % 8 != 0))
      why = "MN-major weights at columns that are not a multiple of 8";
    else if (view.columns != layout->views.front().columns)
      why = "weights in tensors of different shapes";
  }
  return failure(!why.empty() || failed(DeviceEpilogue::verify(op, why)));
}

/// True if there is a kernel for the rows and columns of a tile.
static bool hasKernel(GroupedMatmulOp op, TileAttr tile) {
  int64_t products = op.getNumProducts();
  int64_t rows = tile.getRows(), columns = tile.getColumns();
  bool pingPong = tile.getRoles() == WarpRoles::PingPong;
  if (tile.getUnit() == MatrixUnit::MmaSync)
    return hasFP8Weights(op)
               ? llvm::is_contained({16, 32, 64}, rows) && columns == 128
               : llvm::is_contained({16, 32, 64, 128}, rows) &&
                     columns % 128 == 0;
  if (tile.getSwapped())
    return llvm::is_contained({8, 16, 32, 64}, rows) && columns == 128 &&
           !pingPong && tile.getStages() > 2;
  // MN-major weights are loaded in blocks of 64 columns.
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
                  TileScheduler::sharedBytes(op.getExpertCount()) + 256;
  int64_t steps = llvm::divideCeil(op.getK(), tile.getDepth());
  if (wgmma && !gpu.hasWgmma())
    why = "wgmma on " + gpu.arch;
  else if (tile.getDepth() != stageDepth(op))
    why = "tiles of a depth other than " + std::to_string(stageDepth(op));
  else if (wgmma && hasFP8Weights(op) && !hasFP8Lhs(op))
    why = "wgmma of f8E4M3FN weights with 16-bit rows";
  else if (wgmma && hasFP8Weights(op) &&
           (tile.getRoles() == WarpRoles::PingPong || tile.getSwapped() ||
            columns > 128))
    // Two sets of accumulators share the registers.
    why = "wgmma of f8E4M3FN with ping_pong, swapped operands or more than 128 "
          "columns";
  else if (tile.getGatherFence() == GatherFence::Consumer && !op.getGather())
    why = "gather_fence = consumer without gathered rows";
  else if (tile.getSwapped() && !wgmma)
    why = "swapped operands without wgmma";
  else if (tile.getCluster() != split || (split > 1 && !tile.getSwapped()) ||
           !llvm::is_contained({1, 2, 4}, split))
    why = "clusters other than of 2 or 4 blocks that split k, with swapped "
          "operands";
  else if (steps % split != 0)
    why = std::to_string(steps) + " steps along k that do not split into " +
          std::to_string(split);
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
    return tile.getSwapped() ? buildSwapABKernel(request, lowering)
                             : buildWgmmaKernel(request, lowering);
  return hasFP8Weights(request.op) ? buildScaledMmaSyncKernel(request, lowering)
                                   : buildMmaSyncKernel(request, lowering);
}

namespace {
/// Selects on the host which kernels run: the first whose tile covers the mean
/// rows of an expert; where two run (TwoTiles), the last one, too. Tiles must
/// be visited in order.
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

  /// Returns the range of row counts of the experts that tile `i` handles.
  std::pair<Value, Value> expertRows(size_t i) {
    Value min = index(1), max = index(INT32_MAX);
    if (!both)
      return {min, max};
    if (!isLast(i))
      return {min, select(both, index(two->limit), max)};
    // The last tile handles all experts unless an earlier one runs, too.
    Value second = arith::AndIOp::create(b, both, chosen);
    return {select(second, index(two->limit + 1), min), max};
  }

  /// Returns the grid of tile `i`: `blocks`, or 0 if it does not run. A tile
  /// with `fits` can only run if that is true.
  Value gridOf(size_t i, Value blocks, Value fits = {}) {
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
      if (fits)
        suits = arith::AndIOp::create(b, suits, fits);
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
  Value mean;              // rows per expert
  std::optional<TwoTiles> two;
  Value both;   // true if two kernels run; null if never
  Value chosen; // true if an earlier tile runs; null before the first
};
} // namespace

Lowered mlir::moe::lowerToGPU(GroupedMatmulOp op, DeviceLowering &lowering,
                              std::string &why) {
  // First, so that the remark has the reason why moe-tile-for-gpu gave no
  // tiles.
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
  Value multiprocessors = MultiprocessorsOp::create(b);
  // Kernels for few rows can have the combine of a few tokens fused.
  std::optional<CombineEpilogue> combine = CombineEpilogue::match(op, lowering);
  SmallVector<Value> results{op.getInit()};
  Value fusedTokens, combineRan;
  if (combine) {
    fusedTokens = combine->fusedTokens(b);
    combineRan = arith::ConstantIntOp::create(b, 0, 1);
    llvm::append_values(results, combine->init(b), combine->arrivals);
  }
  for (auto [i, attribute] : llvm::enumerate(tiles)) {
    auto tile = cast<TileAttr>(attribute);
    bool wgmma = tile.getUnit() == MatrixUnit::Wgmma;
    GroupedKernelRequest request{op, tile, std::nullopt};
    if (combine && CombineEpilogue::supports(op, tile))
      request.combine = combine;
    LLVM::LLVMFuncOp kernel = buildKernel(request, lowering);
    int64_t outTileColumns = tile.getColumns() / op.getNumProducts();
    auto [minRows, maxRows] = selection.expertRows(i);
    Value blocks = TileScheduler::maxTiles(
        b, rows, grouped ? minRows : Value(), experts, tile.getRows(),
        llvm::divideCeil(op.getN(), outTileColumns));
    // One wave of persistent blocks. Kernels that need most of the registers
    // have one resident block per multiprocessor, others two.
    bool oneResident = (wgmma && !tile.getSwapped()) || hasFP8Weights(op);
    Value wave =
        oneResident
            ? multiprocessors
            : arith::MulIOp::create(b, multiprocessors, index(2)).getResult();
    Value fitsWave;
    if (tile.getSplit() > 1) {
      // One tile per cluster; all clusters must be resident at once.
      blocks = arith::MulIOp::create(b, blocks, index(tile.getSplit()));
      fitsWave =
          arith::CmpIOp::create(b, arith::CmpIPredicate::ule, blocks, wave);
    } else {
      blocks = arith::MinUIOp::create(b, blocks, wave);
    }
    blocks = selection.gridOf(i, blocks, fitsWave);
    SmallVector<Value> scalars{toI32(rows), toI32(lhsRows)};
    if (grouped)
      scalars.append({toI32(minRows), toI32(maxRows)});
    MutableArrayRef<Value> inits(results);
    if (request.combine) {
      scalars.push_back(toI32(fusedTokens));
      combineRan = arith::OrIOp::create(
          b, combineRan,
          arith::CmpIOp::create(b, arith::CmpIPredicate::ne, blocks, index(0)));
    } else {
      inits = inits.take_front();
    }
    llvm::copy(launch(lowering, op.getLoc(), kernel, blocks,
                      GroupedKernel::inputs(request), inits, scalars,
                      wgmma ? TMAKernel::tensorMaps(op, tile)
                            : SmallVector<TensorMapAttr>()),
               inits.begin());
  }
  if (combine)
    combine->replace(b, results[0], results[1], fusedTokens, combineRan,
                     lowering);
  return SmallVector<Value>{results.front()};
}
