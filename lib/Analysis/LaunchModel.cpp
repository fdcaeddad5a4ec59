//===- LaunchModel.cpp - How long the launches of a call should take ------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Which of the launches of a grouped matmul run is chosen as on the host, in
// lib/Conversion/MoEToGPU/GroupedMatmul/GroupedMatmulToGPU.cpp, and which of a
// router's.
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/KernelModel.h"
#include "moe/Analysis/TileChoice.h"

#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::moe;

namespace {
/// The rows of one dispatch in a call.
struct CallRows {
  const RowDistribution *model = nullptr; // null: all tokens are one group
  int64_t experts = 1, tokens = 0, total = 0;

  RowCounts inTilesOf(int64_t tileRows) const {
    RowCounts counts;
    counts.total = double(total);
    counts.active = model ? model->expectedActive(tokens) : total > 0;
    counts.padded = model ? model->expectedPadded(tokens, tileRows)
                          : double(llvm::alignTo(total, tileRows));
    return counts;
  }
};
} // namespace

/// True if the clusters of a kernel that splits k are resident at once.
static bool fits(const GroupedMatmulWork &work, const GPUMachine &gpu,
                 const CallRows &rows) {
  constexpr int64_t residentBlocks = 2;
  auto tiles = maxTiles(rows.total, work.experts, work.tile.getRows());
  int64_t columnTiles = llvm::divideCeil(work.n * work.accumulators,
                                         int64_t(work.tile.getColumns()));
  return tiles && *tiles * columnTiles * work.tile.getSplit() <=
                      residentBlocks * gpu.multiprocessors;
}

/// Returns which of the launches of one operation has the rows.
static size_t choose(ArrayRef<GroupedMatmulWork> tiles, const GPUMachine &gpu,
                     const CallRows &rows) {
  SmallVector<int64_t> heights = llvm::map_to_vector(
      tiles, [](const auto &work) { return int64_t(work.tile.getRows()); });
  return chooseTile(heights, rows.total, rows.experts, [&](size_t i) {
    return tiles[i].tile.getSplit() == 1 || fits(tiles[i], gpu, rows);
  });
}

std::vector<PredictedLaunch> mlir::moe::predictLaunches(
    ArrayRef<LaunchWork> launches, const GPUMachine &gpu,
    ArrayRef<DispatchOp> dispatches, ArrayRef<RowDistribution> rows,
    int64_t tokens, const RowsOfExperts &rowsOfExperts, int64_t *unknown) {
  std::optional<RowDistribution> other; // of no dispatch
  // None if nothing is known of these rows.
  auto rowsOf = [&](const LaunchWork &launch, int64_t experts,
                    bool grouped) -> std::optional<CallRows> {
    CallRows call;
    call.tokens = call.total = tokens;
    for (size_t i = 0; grouped && i < dispatches.size(); ++i) {
      DispatchOp dispatch = dispatches[i];
      if (int64_t(dispatch.getNumExperts()) != experts)
        continue;
      call.model = &rows[i];
      call.experts = experts;
      call.total = tokens * dispatch.getMaxChoices();
      return call;
    }
    if (!launch.rows)
      return call;
    std::optional<int64_t> total = launch.rows(tokens);
    if (!total)
      return std::nullopt;
    call.total = *total;
    if (!grouped)
      return call;
    call.experts = experts;
    int64_t topK =
        llvm::divideCeilSigned(call.total, std::max<int64_t>(tokens, 1));
    if (rowsOfExperts && topK <= experts)
      other = rowsOfExperts(experts, topK);
    else
      other = std::nullopt;
    if (!other)
      return std::nullopt;
    call.model = &*other;
    return call;
  };
  int64_t firstExperts =
      dispatches.empty() ? 1 : DispatchOp(dispatches.front()).getNumExperts();

  std::vector<PredictedLaunch> predicted;
  auto add = [&](const LaunchWork &launch, KernelPrediction its) {
    // The first launch of a call waits for what was before it.
    if (launch.overlaps && !predicted.empty()) {
      its.seconds -= its.start - overlappedStartSeconds;
      its.start = overlappedStartSeconds;
    }
    predicted.push_back({launch.kernel, its});
  };
  // Of the last router: the tokens of a block; 0 if it routed all of them.
  int64_t tokensOfBlock = 0;
  auto addUnknown = [&] {
    if (unknown)
      ++*unknown;
  };
  for (size_t i = 0; i < launches.size(); ++i) {
    if (!launches[i].work) {
      std::optional<LoopWork> loop =
          launches[i].loop ? launches[i].loop(tokens) : std::nullopt;
      if (loop)
        add(launches[i], loop->predict(gpu));
      else
        addUnknown();
      continue;
    }
    if (auto work = MemoryWork::fromAttr(launches[i].work)) {
      if (tokens < work->minTokens)
        continue;
      std::optional<CallRows> call;
      if (dispatches.empty()) {
        call = rowsOf(launches[i], 1, /*grouped=*/false);
      } else {
        call = rowsOf(launches[i], firstExperts, /*grouped=*/true);
      }
      if (call)
        add(launches[i], work->predict(gpu, tokens, call->inTilesOf(1)));
      else
        addUnknown();
      continue;
    }
    if (auto work = ContractWork::fromAttr(launches[i].work)) {
      // The one for no rows does not run.
      if (launches[i].blocks && launches[i].blocks(tokens) == 0)
        continue;
      auto call = rowsOf(launches[i], work->experts, work->grouped);
      if (call)
        add(launches[i], work->predict(gpu, call->inTilesOf(work->depth)));
      else
        addUnknown();
      continue;
    }
    if (auto work = ScatterWork::fromAttr(launches[i].work)) {
      if (work->chunk > 0 || tokensOfBlock > 0)
        add(launches[i], work->predict(gpu, tokens, tokensOfBlock));
      continue;
    }
    SmallVector<RouterWork> routers;
    for (size_t j = i; j < launches.size() && launches[j].work; ++j)
      if (auto work = RouterWork::fromAttr(launches[j].work))
        routers.push_back(*work);
      else
        break;
    if (!routers.empty()) {
      ChosenRouter chosen = ChosenRouter::of(routers, gpu, tokens);
      tokensOfBlock =
          tokens > routers[chosen.index].tile ? chosen.tokensOfBlock : 0;
      add(launches[i + chosen.index],
          routers[chosen.index].predict(gpu, tokens));
      i += routers.size() - 1;
      continue;
    }
    // The tiles of one operation follow each other.
    SmallVector<GroupedMatmulWork> tiles;
    size_t first = i;
    for (; i < launches.size() && launches[i].work; ++i) {
      auto work = GroupedMatmulWork::fromAttr(launches[i].work);
      if (!work || work->index != int64_t(tiles.size()))
        break;
      tiles.push_back(*work);
    }
    if (tiles.empty()) {
      addUnknown();
      i = first;
      continue;
    }
    --i;
    std::optional<CallRows> call =
        rowsOf(launches[first], tiles.front().experts, tiles.front().grouped);
    if (!call) {
      addUnknown();
      continue;
    }
    size_t chosen = choose(tiles, gpu, *call);
    add(launches[first + chosen],
        tiles[chosen].predict(
            gpu, call->inTilesOf(scheduledRows(tiles[chosen].tile,
                                               tiles[chosen].multicast))));
  }
  return predicted;
}
