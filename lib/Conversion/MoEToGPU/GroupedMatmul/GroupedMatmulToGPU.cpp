//===- GroupedMatmulToGPU.cpp - moe.grouped_matmul ------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Builds and launches one kernel for each tile that moe-tile-for-gpu chose.
// Launches that do not suit the number of rows get an empty grid
// (TileChoice.h).
//
//===----------------------------------------------------------------------===//

#include "GroupedKernel.h"
#include "Limits.h"
#include "moe/Analysis/TileChoice.h"

#include "mlir/IR/TypeUtilities.h"

using namespace mlir;
using namespace mlir::moe;

bool mlir::moe::hasFP8Weights(GroupedMatmulOp op) {
  return isa<Float8E4M3FNType>(getElementTypeOrSelf(op.getWeights().front()));
}
bool mlir::moe::hasFP8Lhs(GroupedMatmulOp op) {
  return isa<Float8E4M3FNType>(getElementTypeOrSelf(op.getLhs()));
}

int64_t mlir::moe::weightViewCount(GroupedMatmulOp op) {
  return WeightLayout::ofVerified(op).views.size();
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

int64_t mlir::moe::stagingBytes(GroupedMatmulOp op) {
  // Rows of the result must start at multiples of 16 bytes. A warp arranges 16
  // rows of 128 bytes at a time.
  constexpr int64_t warps = 8;
  Type type = getElementTypeOrSelf(op.getInit());
  // There is room for one result.
  bool isWide =
      op.hasOneInit() && (type.isF16() || type.isBF16()) && op.getN() % 8 == 0;
  return isWide ? warps * 16 * 128 : 0;
}

/// Succeeds if there are kernels for the types of the operands and the scales.
static LogicalResult verifyOperands(GroupedMatmulOp op, std::string &why) {
  Type rows = getElementTypeOrSelf(op.getLhs());
  bool is16Bit = rows.isF16() || rows.isBF16();
  if (!hasFP8Weights(op)) {
    if (!is16Bit)
      return unsupported(why, "rows that are neither f16 nor bf16");
    if (getElementTypeOrSelf(op.getWeights().front()) != rows)
      return unsupported(why, "weights and rows of different types");
    if (op.isScaled())
      return unsupported(why, "scales of weights that are not f8E4M3FN");
    return success();
  }
  if (!is16Bit && !hasFP8Lhs(op))
    return unsupported(why, "rows that are neither f8E4M3FN, f16 nor bf16");
  if (!op.getTransposed())
    return unsupported(why, "f8E4M3FN weights that are not K-major");
  if (op.getK() % 16 != 0)
    return unsupported(why,
                       "f8E4M3FN weights of a k that is not a multiple of 16");
  // A block of scales must cover whole stages, and whole groups of eight
  // columns.
  auto divides = [](int64_t unit, int64_t block, int64_t extent) {
    return block % unit == 0 || block >= extent;
  };
  if (op.isScaled() && !divides(stageDepth(op), op.getBlockK(), op.getK()))
    return unsupported(why, "blocks of scales that are not a multiple of " +
                                Twine(stageDepth(op)) + " along k");
  if (op.isScaled() && !divides(8, op.getBlockN(), op.getN()))
    return unsupported(why,
                       "blocks of scales that are not a multiple of 8 columns");
  return success();
}

static LogicalResult verifyWeights(GroupedMatmulOp op, std::string &why) {
  FailureOr<WeightLayout> layout = WeightLayout::of(op, why);
  if (failed(layout))
    return failure();
  for (const WeightView &view : layout->views) {
    // cp.async and TMA copy multiples of 16 bytes.
    if (!op.getTransposed() &&
        (view.firstColumn % 8 != 0 || view.columns % 8 != 0))
      return unsupported(
          why, "MN-major weights at columns that are not a multiple of 8");
    if (view.k != op.getK() &&
        (hasFP8Weights(op) || view.firstK % 8 != 0 || view.k % 8 != 0))
      return unsupported(why, "weights of a range of k that does not start at "
                              "a multiple of 8, of a k that is not one, or of "
                              "f8E4M3FN");
    if (view.columns != layout->views.front().columns ||
        view.k != layout->views.front().k)
      return unsupported(why, "weights in tensors of different shapes");
  }
  return success();
}

LogicalResult mlir::moe::verifyTensorCores(GroupedMatmulOp op,
                                           std::string &why) {
  auto weights = cast<RankedTensorType>(op.getWeights().front().getType());
  if (op.getPanels())
    return unsupported(why, "packed weights");
  if (failed(verifyOperands(op, why)))
    return failure();
  if (!weights.hasStaticShape())
    return unsupported(why, "weights with a dynamic extent");
  if (op.getExpertCount() > maxExperts)
    return unsupported(why, "more than " + Twine(maxExperts) + " experts");
  if (op.getNumAccumulators() > 2)
    return unsupported(why, "more than two GEMMs");
  if (op.getK() % 8 != 0 || op.getK() == 0)
    return unsupported(why, "a k that is not a multiple of 8");
  if (!op.getTransposed() && op.getN() % 8 != 0)
    return unsupported(why, "MN-major weights of a number of columns that is "
                            "not a multiple of 8");
  if (op.getN() == 0)
    return unsupported(why, "no columns");
  if (failed(verifyWeights(op, why)))
    return failure();
  return DeviceEpilogue::verify(op, why);
}

/// True if there is a kernel for the rows and columns of a tile.
static bool hasKernel(GroupedMatmulOp op, TileAttr tile) {
  int64_t matmuls = op.getNumAccumulators();
  int64_t rows = tile.getRows(), columns = tile.getColumns();
  bool pingPong = tile.getRoles() == WarpRoles::PingPong;
  if (tile.getUnit() == MatrixUnit::MmaSync)
    return hasFP8Weights(op)
               ? llvm::is_contained({16, 32, 64}, rows) && columns == 128
               : llvm::is_contained({16, 32, 64, 128}, rows) &&
                     columns % 128 == 0;
  // FP8 weights need two sets of accumulators.
  if (tile.getSwapAb())
    return llvm::is_contained({8, 16, 32, 64}, rows) && columns == 128 &&
           (rows < 64 || !hasFP8Weights(op)) && !pingPong &&
           tile.getStages() > 2;
  // MN-major weights are loaded in blocks of 64 columns.
  int64_t block = op.getTransposed() ? 8 * matmuls : 64 * weightViewCount(op);
  return (rows == 128 || (pingPong && rows == 64)) && columns % block == 0;
}

/// Succeeds if the target has the instructions of a tile, and the operation the
/// operands.
static LogicalResult verifyUnit(GroupedMatmulOp op, TileAttr tile,
                                const GPUDescription &gpu, std::string &why) {
  bool wgmma = tile.getUnit() == MatrixUnit::Wgmma;
  if (wgmma && !gpu.hasWgmma())
    return unsupported(why, "wgmma on " + gpu.arch);
  if (tile.getDepth() != stageDepth(op))
    return unsupported(why,
                       "tiles of a depth other than " + Twine(stageDepth(op)));
  // A is converted in registers, B would have to be in shared memory.
  if (wgmma && hasFP8Weights(op) && !hasFP8Lhs(op) && !tile.getSwapAb())
    return unsupported(
        why, "wgmma of f8E4M3FN weights with 16-bit rows without swap_ab");
  // FP8 wgmma needs two sets of accumulators.
  if (wgmma && hasFP8Lhs(op) &&
      (tile.getRoles() == WarpRoles::PingPong || tile.getSwapAb() ||
       tile.getColumns() > 128))
    return unsupported(why, "wgmma of f8E4M3FN with ping_pong, swap_ab "
                            "or more than 128 columns");
  if (tile.getGatherFence() == GatherFence::Consumer && !op.getGather())
    return unsupported(why, "gather_fence = consumer without gathered rows");
  return success();
}

static LogicalResult verifyTile(GroupedMatmulOp op, TileAttr tile,
                                const GPUDescription &gpu, std::string &why) {
  if (failed(verifyUnit(op, tile, gpu, why)))
    return failure();
  int64_t rows = tile.getRows(), columns = tile.getColumns();
  int64_t split = tile.getSplit();
  if ((split > 1 && !tile.getSwapAb()) || !llvm::is_contained({1, 2, 4}, split))
    return unsupported(why, "a split other than of k among 2 or 4 blocks, with "
                            "swap_ab");
  int64_t steps = llvm::divideCeil(op.getK(), tile.getDepth());
  if (steps % split != 0)
    return unsupported(why, Twine(steps) +
                                " steps along k that do not split into " +
                                Twine(split));
  if (!hasKernel(op, tile))
    return unsupported(why, "tiles of " + Twine(rows) + " rows and " +
                                Twine(columns) + " columns");
  bool isWgmma = tile.getUnit() == MatrixUnit::Wgmma;
  int64_t bytes = tile.getStages() * stageBytes(op, rows, columns) +
                  (split > 1 ? rows * columns * 4 : 0) +
                  (isWgmma && !tile.getSwapAb() ? stagingBytes(op) : 0) +
                  TileScheduler::sharedBytes(op.getExpertCount()) + 256;
  if (bytes > gpu.getSharedBytes())
    return unsupported(why,
                       "tiles of " + Twine(bytes) + " bytes of shared memory");
  if (multicastOf(op, tile) == Multicast::Rows) {
    // Gathered rows are not loaded by TMA.
    if (op.getGather())
      return unsupported(why, "multicast of gathered rows");
    if (llvm::divideCeil(op.getN() * op.getNumAccumulators(), columns) % 2 != 0)
      return unsupported(why, "multicast of rows to an odd number of column "
                              "tiles");
  }
  return success();
}

static void launchKernel(const GroupedKernelRequest &request, Value blocks,
                         DeviceLowering &lowering) {
  if (TileAttr tile = request.tile; tile.getUnit() == MatrixUnit::Wgmma)
    return tile.getSwapAb() ? launchSwapABKernel(request, blocks, lowering)
                            : launchWgmmaKernel(request, blocks, lowering);
  if (hasFP8Weights(request.op))
    return launchScaledMmaSyncKernel(request, blocks, lowering);
  launchMmaSyncKernel(request, blocks, lowering);
}

namespace {
/// Selects on the host which kernel runs: the first whose tile holds the mean
/// rows of an expert (TileChoice.h). Tiles must be visited in order.
class TileSelection {
public:
  TileSelection(HostBuilder &b, GroupedMatmulOp op, ArrayRef<int64_t> tiles,
                Value rows)
      : b(b), tiles(tiles),
        mean(op.getOffsets() ? b.ceilDiv(rows, op.getExpertCount()) : rows) {}

  /// Returns the grid of tile `i`: `blocks`, or 0 if it does not run. A tile
  /// with `fits` can only run if that is true.
  Value gridOf(size_t i, Value blocks, Value fits) {
    bool isLast = i + 1 == tiles.size();
    if (isLast && !chosen)
      return blocks;
    Value runs;
    if (isLast) {
      runs = b.logicalNot(chosen);
    } else {
      Value suits = b.atMost(mean, b.index(tiles[i]));
      if (fits)
        suits = b.both(suits, fits);
      runs = chosen ? b.both(suits, b.logicalNot(chosen)) : suits;
      chosen = chosen ? b.either(chosen, suits) : suits;
    }
    return b.select(runs, blocks, b.index(0));
  }

private:
  HostBuilder &b;
  ArrayRef<int64_t> tiles; // rows of each
  Value mean;              // rows per expert
  Value chosen; // true if an earlier tile runs; null before the first
};

/// The grid of a persistent kernel.
struct Grid {
  Value blocks;
  Value fits; // split-K: true if all clusters are resident at once; or null
};

/// Lowers one operation to a launch for each of its tiles.
class GroupedMatmulLowering {
public:
  GroupedMatmulLowering(GroupedMatmulOp op, ArrayRef<TileAttr> tiles,
                        const CombineEpilogue *combine,
                        DeviceLowering &lowering)
      : op(op), tiles(tiles), combine(combine), lowering(lowering),
        b(op.getLoc(), lowering.rewriter) {}

  SmallVector<Value> run();

private:
  Grid gridOf(TileAttr tile);
  void launchTile(TileAttr tile, size_t i, TileSelection &selection);

  GroupedMatmulOp op;
  ArrayRef<TileAttr> tiles;
  const CombineEpilogue *combine; // null if none is fused
  DeviceLowering &lowering;
  HostBuilder b;
  Value rows, lhsRows, multiprocessors; // index
  GroupedKernelOperands operands;
  Value fewTokens, combineRan;
};
} // namespace

/// Returns a grid of at most one wave of blocks.
Grid GroupedMatmulLowering::gridOf(TileAttr tile) {
  int64_t outTileColumns = tile.getColumns() / op.getNumAccumulators();
  Multicast multicast = multicastOf(op, tile);
  Value blocks = TileScheduler::maxTiles(
      b, rows, op.getOffsets() ? op.getExpertCount() : 1,
      scheduledRows(tile, multicast),
      llvm::divideCeil(op.getN(), outTileColumns));
  // Kernels that need most of the registers have one resident block per
  // multiprocessor, others two.
  bool wgmma = tile.getUnit() == MatrixUnit::Wgmma;
  bool oneResident = !tile.getSwapAb() && (wgmma || hasFP8Weights(op));
  Value wave = oneResident ? multiprocessors : b.mul(multiprocessors, 2);
  if (multicast != Multicast::None) {
    // Whole clusters; those that share weights have so many blocks for a tile
    // of the scheduler, the others' blocks are in the number already.
    int64_t size = blocksOf(multicast);
    if (multicast == Multicast::Weights)
      blocks = b.mul(blocks, size);
    wave = b.max(b.mul(b.div(wave, b.index(size)), size), b.index(size));
  }
  if (tile.getSplit() == 1)
    return {b.min(blocks, wave), Value()};
  // One tile per cluster; all clusters must be resident at once.
  blocks = b.mul(blocks, tile.getSplit());
  return {blocks, b.atMost(blocks, wave)};
}

void GroupedMatmulLowering::launchTile(TileAttr tile, size_t i,
                                       TileSelection &selection) {
  GroupedKernelRequest request{op, tile, /*combine=*/nullptr, operands};
  if (combine && combine->supports(tile))
    request.combine = combine;
  Grid grid = gridOf(tile);
  Value blocks = selection.gridOf(i, grid.blocks, grid.fits);
  operands.rows = b.toI32(rows);
  operands.lhsRows = b.toI32(lhsRows);
  operands.fewTokens = operands.otherTokens = Value();
  if (request.combine && combine->supportsFew(tile)) {
    operands.fewTokens = b.toI32(fewTokens);
    combineRan = b.either(combineRan, b.notEqual(blocks, b.index(0)));
  }
  if (request.combine && combine->supportsAny())
    operands.otherTokens = b.toI32(combine->otherTokens(b, tile));
  launchKernel(request, blocks, lowering);
}

SmallVector<Value> GroupedMatmulLowering::run() {
  rows = b.extent(op.getInit(), 0);
  lhsRows = b.extent(op.getLhs(), 0);
  operands.outs = llvm::to_vector(op.getInits());
  SmallVector<int64_t> tileRows = llvm::map_to_vector(
      tiles, [](TileAttr tile) { return int64_t(tile.getRows()); });
  TileSelection selection(b, op, tileRows, rows);
  multiprocessors = moe_rt::MultiprocessorsOp::create(b);
  if (combine) {
    fewTokens = combine->fewTokens(b);
    combineRan = b.i1(false);
    operands.combined = combine->init(b);
    operands.counters = combine->counters;
  }
  for (auto [i, tile] : llvm::enumerate(tiles))
    launchTile(tile, i, selection);
  if (!combine)
    return operands.outs;
  // Kernels that combine any number of tokens leave none.
  if (combine->supportsAny())
    return {operands.combined};
  return {combine->launchRemaining(b, operands.outs.front(), operands.combined,
                                   fewTokens, combineRan, lowering)};
}

static Lowered lower(GroupedMatmulOp op, const CombineEpilogue *combine,
                     DeviceLowering &lowering, std::string &why) {
  // First, so that the remark has the reason why moe-tile-for-gpu gave no
  // tiles.
  if (failed(verifyTensorCores(op, why)))
    return failure();
  auto attribute = op->getAttrOfType<ArrayAttr>(tilesAttrName);
  if (!attribute || attribute.empty() ||
      !llvm::all_of(attribute, llvm::IsaPred<TileAttr>))
    return unsupported(why, "no tiles; run moe-tile-for-gpu");
  auto tiles = llvm::to_vector(attribute.getAsRange<TileAttr>());
  for (TileAttr tile : tiles)
    if (failed(verifyTile(op, tile, lowering.gpu, why)))
      return failure();
  return GroupedMatmulLowering(op, tiles, combine, lowering).run();
}

Lowered mlir::moe::lowerToGPU(GroupedMatmulOp op, DeviceLowering &lowering,
                              std::string &why) {
  return lower(op, /*combine=*/nullptr, lowering, why);
}

Lowered mlir::moe::lowerToGPU(const CombineEpilogue &combine,
                              DeviceLowering &lowering, std::string &why) {
  return lower(combine.matmul, &combine, lowering, why);
}
