//===- KernelModel.cpp - How long kernels of a GPU should take ------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/KernelModel.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/TypeUtilities.h"

#include <algorithm>
#include <cmath>

using namespace mlir;
using namespace mlir::moe;

// Assumptions, none of them measured. A kernel starts, and its first loads
// arrive, after so long.
static constexpr double startSeconds = 3e-6;
// The share of the bandwidth of a data sheet that a kernel reaches.
static constexpr double memoryShare = 0.92;
// Bytes per clock that a multiprocessor reads from the L2 cache, and bytes per
// clock that wgmma reads from shared memory.
static constexpr double cacheBytesPerClock = 32, sharedBytesPerClock = 128;
// The share of the peak of wgmma that mma.sync reaches on a GPU with both.
static constexpr double mmaSyncShare = 0.62;
// Threads of a multiprocessor that issue an instruction in a clock.
static constexpr double lanes = 128;

static double bytesOf(Type type) {
  return double(type.getIntOrFloatBitWidth()) / 8;
}

StringRef KernelPrediction::bound() const {
  double longest = std::max({tensor + epilogue, cache, memory});
  if (start > longest)
    return "its start";
  if (memory == longest)
    return "memory";
  if (cache == longest)
    return "the L2 cache";
  return tensor >= epilogue ? "tensor cores" : "its epilogue";
}

//===----------------------------------------------------------------------===//
// Grouped matmuls
//===----------------------------------------------------------------------===//

/// Instructions of the epilogue for an element, about: a division or a function
/// is a sequence, and the result is converted and stored with its address.
static int64_t instructionsOf(Region &epilogue) {
  constexpr int64_t sequence = 8, store = 4;
  int64_t count = store;
  for (Operation &op : epilogue.front().without_terminator())
    count += isa<arith::DivFOp>(op) || isa<math::MathDialect>(op.getDialect())
                 ? sequence
                 : 1;
  return count;
}

GroupedMatmulWork GroupedMatmulWork::of(GroupedMatmulOp op, TileAttr tile) {
  GroupedMatmulWork work;
  if (auto tiles = op->getAttrOfType<ArrayAttr>(tilesAttrName))
    work.index = llvm::find(tiles, tile) - tiles.begin();
  work.tile = tile;
  work.grouped = bool(op.getOffsets());
  work.experts = work.grouped ? op.getExpertCount() : 1;
  work.n = op.getN();
  work.k = op.getK();
  work.accumulators = op.getNumAccumulators();
  work.lhs = getElementTypeOrSelf(op.getLhs());
  work.weights = getElementTypeOrSelf(op.getWeights().front());
  work.result = getElementTypeOrSelf(op.getInit());
  work.instructions = instructionsOf(op.getEpilogue());
  return work;
}

DictionaryAttr GroupedMatmulWork::toAttr() const {
  Builder b(tile.getContext());
  auto number = [&](StringRef name, int64_t value) {
    return b.getNamedAttr(name, b.getI64IntegerAttr(value));
  };
  auto type = [&](StringRef name, Type value) {
    return b.getNamedAttr(name, TypeAttr::get(value));
  };
  SmallVector<NamedAttribute> entries = {b.getNamedAttr("tile", tile),
                                         number("index", index),
                                         number("experts", experts),
                                         number("n", n),
                                         number("k", k),
                                         number("accumulators", accumulators),
                                         number("instructions", instructions),
                                         type("lhs", lhs),
                                         type("weights", weights),
                                         type("result", result)};
  if (grouped)
    entries.push_back(b.getNamedAttr("grouped", b.getUnitAttr()));
  return b.getDictionaryAttr(entries);
}

std::optional<GroupedMatmulWork>
GroupedMatmulWork::fromAttr(DictionaryAttr attr) {
  auto tile = attr.getAs<TileAttr>("tile");
  GroupedMatmulWork work;
  work.tile = tile;
  bool complete = bool(tile);
  auto number = [&](StringRef name, int64_t &value) {
    auto found = attr.getAs<IntegerAttr>(name);
    complete &= bool(found);
    value = found ? found.getInt() : 0;
  };
  auto type = [&](StringRef name, Type &value) {
    auto found = attr.getAs<TypeAttr>(name);
    value = found ? found.getValue() : Type();
    complete &= value && value.isIntOrFloat();
  };
  number("index", work.index);
  number("experts", work.experts);
  number("n", work.n);
  number("k", work.k);
  number("accumulators", work.accumulators);
  number("instructions", work.instructions);
  type("lhs", work.lhs);
  type("weights", work.weights);
  type("result", work.result);
  work.grouped = attr.contains("grouped");
  if (!complete ||
      std::min({work.experts, work.n, work.k, work.accumulators}) < 1)
    return std::nullopt;
  return work;
}

/// Clocks per FMA that the tensor cores of a multiprocessor do in a clock, at
/// least 1: wgmma reads its operands from shared memory, m64nNk16 reads 64 + N
/// rows of 32 bytes for N clocks of products.
static double slowdownOfTensorCores(TileAttr tile, const GPUMachine &gpu) {
  if (tile.getUnit() == MatrixUnit::MmaSync)
    return gpu.hasWgmma ? 1 / mmaSyncShare : 1;
  double columns = tile.getSwapAb() ? tile.getRows() : tile.getColumns();
  return std::max(1.0, (64 + columns) * 32 / sharedBytesPerClock / columns);
}

KernelPrediction GroupedMatmulWork::predict(const GPUMachine &gpu,
                                            const RowCounts &rows) const {
  KernelPrediction predicted;
  predicted.start = predicted.seconds = startSeconds;
  if (rows.total <= 0)
    return predicted;
  double tileRows = tile.getRows(), tileColumns = tile.getColumns();
  double rowTiles = std::max(1.0, rows.padded / tileRows);
  double columnTiles =
      std::ceil(double(n) * double(accumulators) / double(tileColumns));
  double tiles = rowTiles * columnTiles;
  double steps =
      std::ceil(double(k) / double(tile.getDepth())) / double(tile.getSplit());
  predicted.waves =
      std::ceil(tiles * double(tile.getSplit()) / double(gpu.multiprocessors));

  // A step of one tile, in a multiprocessor of its own.
  double flops = 2 * tileRows * tileColumns * double(tile.getDepth());
  double peak = gpu.rates.flops(lhs) / double(gpu.multiprocessors);
  double tensor = flops / peak * slowdownOfTensorCores(tile, gpu);
  double stepBytes =
      (tileRows * bytesOf(lhs) + tileColumns * bytesOf(weights)) *
      double(tile.getDepth());
  double cache = stepBytes / (cacheBytesPerClock * gpu.hertz);
  double elements = tileRows * tileColumns / double(accumulators);
  double epilogue = elements * double(instructions) / (lanes * gpu.hertz);
  // Two tiles at once, of two blocks or of two warpgroups: the epilogue of one
  // runs beside the products of the other.
  bool overlaps = tile.getRoles() == WarpRoles::PingPong || tile.getSwapAb() ||
                  tile.getUnit() == MatrixUnit::MmaSync;
  double mainloop = steps * std::max(tensor, cache);
  double seconds = overlaps ? std::max(mainloop, (mainloop + epilogue) / 2)
                            : mainloop + epilogue;

  predicted.tensor = predicted.waves * steps * tensor;
  predicted.cache = predicted.waves * steps * cache;
  predicted.epilogue = predicted.waves * epilogue * (overlaps ? 0.5 : 1);
  predicted.cacheBytes = tiles * steps * double(tile.getSplit()) * stepBytes;
  // Weights are read once: the tiles of an expert follow each other.
  predicted.memoryBytes =
      rows.active * double(k) * double(n) * double(accumulators) *
          bytesOf(weights) +
      rows.total * (double(k) * bytesOf(lhs) + double(n) * bytesOf(result));
  predicted.memory =
      predicted.memoryBytes / (gpu.rates.bandwidth * memoryShare);
  predicted.seconds =
      startSeconds + std::max(predicted.waves * seconds, predicted.memory);
  return predicted;
}

//===----------------------------------------------------------------------===//
// Kernels bound by memory
//===----------------------------------------------------------------------===//

DictionaryAttr MemoryWork::toAttr(MLIRContext *context) const {
  Builder b(context);
  auto number = [&](StringRef name, double value) {
    return b.getNamedAttr(name, b.getI64IntegerAttr(int64_t(value)));
  };
  return b.getDictionaryAttr({number("bytes", bytes),
                              number("bytes_per_token", bytesPerToken),
                              number("bytes_per_row", bytesPerRow)});
}

std::optional<MemoryWork> MemoryWork::fromAttr(DictionaryAttr attr) {
  auto bytes = attr.getAs<IntegerAttr>("bytes");
  auto perToken = attr.getAs<IntegerAttr>("bytes_per_token");
  auto perRow = attr.getAs<IntegerAttr>("bytes_per_row");
  if (!bytes || !perToken || !perRow)
    return std::nullopt;
  return MemoryWork{double(bytes.getInt()), double(perToken.getInt()),
                    double(perRow.getInt())};
}

KernelPrediction MemoryWork::predict(const GPUMachine &gpu, int64_t tokens,
                                     const RowCounts &rows) const {
  KernelPrediction predicted;
  predicted.start = startSeconds;
  predicted.memoryBytes =
      bytes + bytesPerToken * double(tokens) + bytesPerRow * rows.total;
  predicted.memory =
      predicted.memoryBytes / (gpu.rates.bandwidth * memoryShare);
  predicted.seconds = startSeconds + predicted.memory;
  return predicted;
}
