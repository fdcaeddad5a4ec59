//===- RoutingModel.cpp - How long the kernels of routing should take -----===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/KernelModel.h"

#include "mlir/IR/Builders.h"
#include "llvm/Support/MathExtras.h"

#include <algorithm>
#include <cmath>

using namespace mlir;
using namespace mlir::moe;

// Assumptions, none of them measured. Clocks in which a warp scatters 32
// choices, each step of which depends on the one before.
static constexpr double scatterClocks = 100;
// The share of its FMAs that a router without tensor cores issues; the rest of
// the instructions convert and load operands.
static constexpr double fmaShare = 0.4;

/// Reads positive numbers of a dictionary.
static bool readNumbers(DictionaryAttr attr,
                        ArrayRef<std::pair<StringRef, int64_t *>> numbers,
                        int64_t least) {
  return llvm::all_of(numbers, [&](const auto &number) {
    auto found = attr.getAs<IntegerAttr>(number.first);
    *number.second = found ? found.getInt() : 0;
    return found && found.getInt() >= least;
  });
}

//===----------------------------------------------------------------------===//
// Routers
//===----------------------------------------------------------------------===//

DictionaryAttr RouterWork::toAttr() const {
  Builder b(x.getContext());
  SmallVector<NamedAttribute> entries;
  for (auto [name, value] :
       {std::pair<StringRef, int64_t>("router_experts", experts),
        {"k", k},
        {"choices", choices},
        {"tile_tokens", tile},
        {"cluster", cluster}})
    entries.push_back(b.getNamedAttr(name, b.getI64IntegerAttr(value)));
  entries.push_back(b.getNamedAttr("x", TypeAttr::get(x)));
  entries.push_back(b.getNamedAttr("weights", TypeAttr::get(weights)));
  if (whole)
    entries.push_back(b.getNamedAttr("whole", b.getUnitAttr()));
  if (staged)
    entries.push_back(b.getNamedAttr("staged", b.getUnitAttr()));
  if (tensorCores)
    entries.push_back(b.getNamedAttr("tensor_cores", b.getUnitAttr()));
  return b.getDictionaryAttr(entries);
}

std::optional<RouterWork> RouterWork::fromAttr(DictionaryAttr attr) {
  RouterWork work;
  if (!readNumbers(attr,
                   {{"router_experts", &work.experts},
                    {"k", &work.k},
                    {"choices", &work.choices},
                    {"tile_tokens", &work.tile},
                    {"cluster", &work.cluster}},
                   1))
    return std::nullopt;
  auto x = attr.getAs<TypeAttr>("x"), weights = attr.getAs<TypeAttr>("weights");
  if (!x || !weights || !x.getValue().isIntOrFloat() ||
      !weights.getValue().isIntOrFloat())
    return std::nullopt;
  work.x = x.getValue();
  work.weights = weights.getValue();
  work.whole = attr.contains("whole");
  work.staged = attr.contains("staged");
  work.tensorCores = attr.contains("tensor_cores");
  return work;
}

ChosenRouter ChosenRouter::of(ArrayRef<RouterWork> kernels,
                              const GPUMachine &gpu, int64_t tokens) {
  // Those for few and for many tokens, for more than a wave of these, and then
  // that for all of them at once.
  size_t last = kernels.size() - 1;
  bool hasWhole = kernels[last].whole;
  size_t many = hasWhole && last > 0 ? last - 1 : last;
  bool hasStaged = many > 0 && kernels[many].staged;
  many -= hasStaged;
  bool isFew = many > 0 &&
               llvm::divideCeil(tokens, kernels[0].tile) * kernels[0].cluster <=
                   uint64_t(gpu.multiprocessors);
  size_t otherwise = isFew ? 0 : many;
  int64_t tile = kernels[otherwise].tile;
  int64_t tiles = llvm::divideCeil(tokens, tile);
  bool isStaged = hasStaged && !isFew && tiles > int64_t(gpu.multiprocessors);
  if (hasWhole && tokens > (isStaged ? 0 : tile) &&
      tokens <= kernels[last].tile)
    return {last, kernels[last].tile};
  if (isFew)
    return {0, tile};
  return {isStaged ? many + 1 : many,
          std::max<int64_t>(
              tile, tile * llvm::divideCeil(tiles, gpu.multiprocessors))};
}

namespace {
/// `blocks` blocks with `ofBlock` tiles of `tokens` tokens each.
struct StagedTiles {
  int64_t blocks, ofBlock, tokens;
};
} // namespace

/// The tiles of a staged kernel: a block has those of as many tokens as the
/// kernel for many tokens would have in a multiprocessor.
static StagedTiles stagedTiles(const RouterWork &work, const GPUMachine &gpu,
                               int64_t tokens) {
  constexpr int64_t granule = 32, aligned = 16;
  int64_t ofBlock =
      granule * llvm::divideCeil(llvm::divideCeil(tokens, granule),
                                 uint64_t(gpu.multiprocessors));
  int64_t tiles = llvm::divideCeil(ofBlock, work.tile);
  return {int64_t(llvm::divideCeil(tokens, ofBlock)), tiles,
          int64_t(llvm::alignTo(llvm::divideCeil(ofBlock, tiles), aligned))};
}

KernelPrediction RouterWork::predict(const GPUMachine &gpu,
                                     int64_t tokens) const {
  KernelPrediction predicted;
  predicted.start = predicted.seconds = startSeconds;
  if (tokens <= 0)
    return predicted;
  auto bytesOf = [](Type type) {
    return double(type.getIntOrFloatBitWidth()) / 8;
  };
  double tiles = double(llvm::divideCeil(tokens, tile));
  predicted.waves =
      double(llvm::divideCeil(int64_t(tiles) * cluster, gpu.multiprocessors));
  // A block of a cluster has its share of the experts.
  double own = double(llvm::divideCeil(experts, cluster));
  double rows = double(tile), reads = 1;
  if (staged) {
    StagedTiles its = stagedTiles(*this, gpu, tokens);
    predicted.waves = double(its.ofBlock);
    tiles = double(its.blocks * its.ofBlock);
    rows = double(std::min(its.tokens, tokens));
    // Tokens are read again for each group of experts.
    reads = std::ceil(double(experts) / stagedExperts);
  }
  double tileBytes =
      double(k) * (rows * bytesOf(x) * reads + own * bytesOf(weights));
  double products = rows * own * double(k);
  predicted.cache =
      predicted.waves * tileBytes / (cacheBytesPerClock * gpu.hertz);
  predicted.cacheBytes = tiles * double(cluster) * tileBytes;
  if (tensorCores)
    predicted.tensor = predicted.waves * 2 * products /
                       (gpu.rates.flops(x) / double(gpu.multiprocessors)) /
                       (gpu.hasWgmma ? mmaSyncShare : 1);
  else
    predicted.instructions =
        predicted.waves * products / (issueLanes * fmaShare * gpu.hertz);
  predicted.memoryBytes = double(k) * (double(tokens) * bytesOf(x) +
                                       double(experts) * bytesOf(weights)) +
                          double(tokens * choices) * 8;
  predicted.memory =
      predicted.memoryBytes / (gpu.rates.bandwidth * memoryShare);
  predicted.seconds =
      startSeconds + std::max({predicted.cache, predicted.tensor,
                               predicted.instructions, predicted.memory});
  return predicted;
}

//===----------------------------------------------------------------------===//
// Scatters
//===----------------------------------------------------------------------===//

DictionaryAttr ScatterWork::toAttr(MLIRContext *context) const {
  Builder b(context);
  return b.getDictionaryAttr(
      {b.getNamedAttr("scattered_choices", b.getI64IntegerAttr(choices)),
       b.getNamedAttr("buckets", b.getI64IntegerAttr(buckets)),
       b.getNamedAttr("chunk", b.getI64IntegerAttr(chunk))});
}

std::optional<ScatterWork> ScatterWork::fromAttr(DictionaryAttr attr) {
  ScatterWork work;
  if (!readNumbers(attr,
                   {{"scattered_choices", &work.choices},
                    {"buckets", &work.buckets},
                    {"chunk", &work.chunk}},
                   0))
    return std::nullopt;
  return work;
}

KernelPrediction ScatterWork::predict(const GPUMachine &gpu, int64_t tokens,
                                      int64_t tokensOfBlock) const {
  KernelPrediction predicted;
  double all = double(tokens) * double(choices);
  double ofBlock = std::min(all, chunk > 0 ? double(chunk)
                                           : double(tokensOfBlock * choices));
  double blocks = ofBlock > 0 ? std::ceil(all / ofBlock) : 1;
  predicted.start = startSeconds;
  predicted.waves = std::ceil(blocks / double(gpu.multiprocessors));
  double histograms = blocks > 1 ? blocks * double(buckets) * 4 : 0;
  predicted.cacheBytes = blocks * histograms;
  predicted.cache =
      predicted.waves * histograms / (cacheBytesPerClock * gpu.hertz);
  predicted.instructions =
      predicted.waves * std::ceil(ofBlock / 32) * scatterClocks / gpu.hertz;
  // Identifiers are read, tokens and positions written.
  predicted.memoryBytes = all * 12;
  predicted.memory =
      predicted.memoryBytes / (gpu.rates.bandwidth * memoryShare);
  // The histograms are added before the first choice is scattered.
  predicted.seconds =
      startSeconds +
      std::max(predicted.cache + predicted.instructions, predicted.memory);
  return predicted;
}
