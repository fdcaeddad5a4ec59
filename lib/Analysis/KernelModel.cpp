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

// Bytes per clock that wgmma reads from shared memory: not measured.
static constexpr double sharedBytesPerClock = 128;
// The share of the peak that products of wgmma reach while nothing else holds
// them up: clocks fall under load. An assumption, from what is published of
// libraries' dense products.
static constexpr double wgmmaShare = 0.8;

/// Instructions with which a thread reads an f8E4M3FN weight from shared memory
/// and converts it to the type of the rows, as they are in machine code for
/// sm_90a; about, for mma.sync, which converts without the instruction for it.
static double decodeInstructions(TileAttr tile, Type rows) {
  if (tile.getUnit() == MatrixUnit::MmaSync)
    return 6;
  return rows.isF16() ? 1.4 : 2.9;
}

static double bytesOf(Type type) {
  return double(type.getIntOrFloatBitWidth()) / 8;
}

StringRef KernelPrediction::bound() const {
  double longest = std::max({tensor + epilogue, cache, memory, instructions});
  if (start > longest)
    return "its start";
  if (memory == longest)
    return "memory";
  if (cache == longest)
    return "the L2 cache";
  if (instructions == longest)
    return "its instructions";
  return tensor >= epilogue ? "tensor cores" : "its epilogue";
}

//===----------------------------------------------------------------------===//
// Grouped matmuls
//===----------------------------------------------------------------------===//

/// Instructions with which a thread stores its part of a tile by way of shared
/// memory, besides those for each element; read off machine code for sm_90a.
static constexpr double storeInstructions = 125;

/// Counts the instructions of the epilogue for an element, as they are in
/// machine code for sm_90a where results have 16 bits. Others take sequences of
/// instructions for functions and divisions: those are guesses.
static void countInstructions(GroupedMatmulOp op, GroupedMatmulWork &work) {
  auto type = dyn_cast<FloatType>(work.result);
  bool isApproximate = type && type.getWidth() <= 16;
  // Conversion and address.
  work.instructions = isApproximate ? 0.78 : 3;
  for (Operation &nested : op.getEpilogue().front().without_terminator()) {
    // Part of the instruction that uses the result, or of the conversion.
    if (isa<arith::NegFOp, arith::TruncFOp, arith::ExtFOp, arith::ConstantOp>(
            nested))
      continue;
    bool isFunction = isa<arith::DivFOp>(nested) ||
                      (isa<math::MathDialect>(nested.getDialect()) &&
                       !isa<math::AbsFOp, math::FmaOp>(nested));
    // A power or a reciprocal, and a product; tanh has both.
    bool isTanh = isa<math::TanhOp>(nested);
    work.functions += isFunction + (isTanh && isApproximate);
    if (!isFunction)
      work.instructions += 1;
    else if (!isApproximate)
      work.instructions += 12;
    else if (isa<math::ErfOp, math::PowFOp>(nested))
      work.instructions += 16;
    else
      work.instructions += isTanh ? 5 : 2;
  }
}

Multicast mlir::moe::multicastOf(GroupedMatmulOp op, TileAttr tile) {
  auto operand = op->getAttrOfType<StringAttr>(multicastAttrName);
  if (!operand || tile.getUnit() != MatrixUnit::Wgmma || tile.getSwapAb())
    return Multicast::None;
  for (Multicast multicast : {Multicast::Weights, Multicast::Rows})
    if (operand.getValue() == stringify(multicast))
      return multicast;
  return Multicast::None;
}

GroupedMatmulWork GroupedMatmulWork::of(GroupedMatmulOp op, TileAttr tile) {
  GroupedMatmulWork work;
  if (auto tiles = op->getAttrOfType<ArrayAttr>(tilesAttrName))
    work.index = llvm::find(tiles, tile) - tiles.begin();
  work.tile = tile;
  work.multicast = multicastOf(op, tile);
  work.grouped = bool(op.getOffsets());
  work.experts = work.grouped ? op.getExpertCount() : 1;
  work.n = op.getN();
  work.k = op.getK();
  work.accumulators = op.getNumAccumulators();
  work.lhs = getElementTypeOrSelf(op.getLhs());
  work.weights = getElementTypeOrSelf(op.getWeights().front());
  work.result = getElementTypeOrSelf(op.getInit());
  auto add = [&](Value operand, int64_t columns) {
    work.otherBytes +=
        int64_t(bytesOf(getElementTypeOrSelf(operand))) * columns;
  };
  for (auto [index, extra] : llvm::enumerate(op.getExtras())) {
    AffineMap map = op.getOperandMap(index);
    if (map.isFunctionOfDim(1))
      add(extra, map.isFunctionOfDim(2) ? work.n : 1);
  }
  for (Value init : op.getInits().drop_front())
    add(init, work.n);
  countInstructions(op, work);
  return work;
}

DictionaryAttr GroupedMatmulWork::toAttr() const {
  Builder b(tile.getContext());
  auto number = [&](StringRef name, int64_t value) {
    return b.getNamedAttr(name, b.getI64IntegerAttr(value));
  };
  auto real = [&](StringRef name, double value) {
    return b.getNamedAttr(name, b.getF64FloatAttr(value));
  };
  auto type = [&](StringRef name, Type value) {
    return b.getNamedAttr(name, TypeAttr::get(value));
  };
  SmallVector<NamedAttribute> entries = {
      b.getNamedAttr("tile", tile),
      number("index", index),
      number("multicast", int64_t(multicast)),
      number("experts", experts),
      number("n", n),
      number("k", k),
      number("accumulators", accumulators),
      number("combined", combined),
      number("other_bytes", otherBytes),
      real("instructions", instructions),
      real("functions", functions),
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
  auto real = [&](StringRef name, double &value) {
    auto found = attr.getAs<FloatAttr>(name);
    complete &= bool(found);
    value = found ? found.getValueAsDouble() : 0;
  };
  auto type = [&](StringRef name, Type &value) {
    auto found = attr.getAs<TypeAttr>(name);
    value = found ? found.getValue() : Type();
    complete &= value && value.isIntOrFloat();
  };
  number("index", work.index);
  int64_t multicast;
  number("multicast", multicast);
  work.multicast = Multicast(multicast);
  number("experts", work.experts);
  number("n", work.n);
  number("k", work.k);
  number("accumulators", work.accumulators);
  number("combined", work.combined);
  number("other_bytes", work.otherBytes);
  real("instructions", work.instructions);
  real("functions", work.functions);
  type("lhs", work.lhs);
  type("weights", work.weights);
  type("result", work.result);
  work.grouped = attr.contains("grouped");
  if (!complete ||
      std::min({work.experts, work.n, work.k, work.accumulators}) < 1)
    return std::nullopt;
  return work;
}

/// The time of products over that at the peak rate, at least 1: wgmma reads its
/// operands from shared memory, m64nNk16 reads 64 + N rows of 32 bytes for N
/// clocks of products.
static double slowdownOfTensorCores(TileAttr tile, const GPUMachine &gpu) {
  if (tile.getUnit() == MatrixUnit::MmaSync)
    return gpu.hasWgmma ? 1 / mmaSyncShare : 1;
  double columns = tile.getSwapAb() ? tile.getRows() : tile.getColumns();
  return std::max(1 / wgmmaShare,
                  (64 + columns) * 32 / sharedBytesPerClock / columns);
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
  // Blocks of a cluster share an operand that each loads half of.
  auto share = [&](Multicast operand) {
    return multicast == operand ? 1 / double(blocksOf(multicast)) : 1.0;
  };
  double stepBytes =
      (tileRows * bytesOf(lhs) * share(Multicast::Rows) +
       tileColumns * bytesOf(weights) * share(Multicast::Weights)) *
      double(tile.getDepth());
  // Of the two blocks or more warps, some decode while others multiply.
  if (bytesOf(weights) < bytesOf(lhs))
    tensor = std::max(tensor, tileColumns * double(tile.getDepth()) *
                                  decodeInstructions(tile, lhs) /
                                  (issueLanes * gpu.hertz));
  double cache = stepBytes / (cacheBytesPerClock * gpu.hertz);
  double elements = tileRows * tileColumns / double(accumulators);
  bool isPingPong = tile.getRoles() == WarpRoles::PingPong;
  double threads = isPingPong || tile.getSwapAb() ? 128 : 256;
  double epilogue =
      std::max((elements * instructions + threads * storeInstructions) /
                   issueLanes,
               elements * functions / functionLanes) /
      gpu.hertz;
  bool combines = rows.total > double(combined * maxFewTokens);
  if (combined > 0 && combines) {
    // On average a row of a tile is one that is read for a sum.
    double bytes =
        tileRows * tileColumns * bytesOf(result) * (1 + 1 / double(combined));
    epilogue += arrivalSeconds + bytes / (cacheBytesPerClock * gpu.hertz);
  }
  // Two tiles at once, of two blocks or of two warpgroups: the epilogue of one
  // runs beside the products of the other.
  bool overlaps =
      isPingPong || tile.getSwapAb() || tile.getUnit() == MatrixUnit::MmaSync;
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
          bytesOf(weights) * double(passes(rows)) +
      rows.total * (double(k) * bytesOf(lhs) + double(n) * bytesOf(result) +
                    double(otherBytes));
  predicted.memory =
      predicted.memoryBytes / (gpu.rates.bandwidth * memoryShare);
  double products = std::max(predicted.waves * seconds, predicted.memory);
  predicted.seconds = startSeconds + products;
  if (combined > 0 && combines)
    addCombine(predicted, products, gpu, rows);
  return predicted;
}

int64_t GroupedMatmulWork::passes(const RowCounts &rows) const {
  double ofExpert = rows.padded / std::max(rows.active, 1.0);
  return combined > 0 && grouped &&
                 ofExpert >= double(twoPassTiles) * double(tile.getRows())
             ? 2
             : 1;
}

/// Adds the sums of the rows of each token. They can begin when the last of the
/// token's experts, in the order of experts, has been computed: after a part x
/// of a pass, x^k of the tokens with k experts each. Until the end of the
/// products they take the bandwidth that these leave.
void GroupedMatmulWork::addCombine(KernelPrediction &predicted, double products,
                                   const GPUMachine &gpu,
                                   const RowCounts &rows) const {
  double k = double(combined);
  double bandwidth = gpu.rates.bandwidth * memoryShare;
  double bytes = rows.total * (1 + 1 / k) * double(n) * bytesOf(result);
  double sums = bytes / bandwidth, left = products - predicted.memory;
  // What is left at the end is most where sums become ready as fast as they
  // are computed.
  double x = combined > 1 ? std::pow(left / (k * sums), 1 / (k - 1)) : 0;
  x = std::min(x, 1.0);
  // Those of the passes before are done by then.
  double last =
      (sums * (1 - std::pow(x, k)) - left * (1 - x)) / double(passes(rows));
  predicted.seconds += std::max({0.0, sums - left, last});
  predicted.memoryBytes += bytes;
  predicted.memory += sums;
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
                              number("bytes_per_row", bytesPerRow),
                              number("min_tokens", double(minTokens))});
}

std::optional<MemoryWork> MemoryWork::fromAttr(DictionaryAttr attr) {
  auto bytes = attr.getAs<IntegerAttr>("bytes");
  auto perToken = attr.getAs<IntegerAttr>("bytes_per_token");
  auto perRow = attr.getAs<IntegerAttr>("bytes_per_row");
  auto minTokens = attr.getAs<IntegerAttr>("min_tokens");
  if (!bytes || !perToken || !perRow || !minTokens)
    return std::nullopt;
  return MemoryWork{double(bytes.getInt()), double(perToken.getInt()),
                    double(perRow.getInt()), minTokens.getInt()};
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
