//===- FuseCombine.cpp - Group a grouped matmul and its combine -----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "CombineEpilogue.h"

#include "mlir/IR/Dominance.h"
#include "mlir/Transforms/RegionUtils.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEFUSECOMBINE
#include "moe/Conversion/Passes.h.inc"
} // namespace mlir::moe

/// Returns unused counters that the router of `offsets` clears, or null.
static Value findCounters(Value offsets) {
  auto router = offsets ? offsets.getDefiningOp<FusedOp>() : FusedOp();
  if (!router)
    return {};
  for (auto [value, result] :
       llvm::zip_equal(router.getYield().getValues(), router.getResults()))
    if (result.use_empty() && areClearedCounters(value))
      return result;
  return {};
}

/// True if all rows of the combine come from `op`: it has the weights of all
/// experts.
static bool computesAllRows(GroupedMatmulOp op) {
  auto offsets = cast<RankedTensorType>(op.getOffsets().getType());
  return op.getFirstExpert() == 0 &&
         offsets.getDimSize(0) == op.getExpertCount() + 1;
}

/// Returns the combine of the rows of `op` if a kernel can fuse both.
static std::optional<CombineEpilogue> findCombine(GroupedMatmulOp op,
                                                  DominanceInfo &dominance) {
  Value counters = findCounters(op.getOffsets());
  if (!counters || !op.getResult() || !op.hasOneInit() ||
      !op.getResult().hasOneUse() || op.getNumAccumulators() != 1 ||
      !computesAllRows(op))
    return std::nullopt;
  auto combine = dyn_cast<GatherSumOp>(*op.getResult().getUsers().begin());
  if (!combine || combine->getBlock() != op->getBlock() ||
      combine.getRows() != op.getResult() || combine.getDropped() ||
      !dominance.properlyDominates(combine.getPositions(), op) ||
      (combine.getWeights() &&
       !dominance.properlyDominates(combine.getWeights(), op)))
    return std::nullopt;
  CombineEpilogue epilogue{op, combine, counters};
  auto tiles = op->getAttrOfType<ArrayAttr>(tilesAttrName);
  if (!tiles || !llvm::any_of(tiles, [&](Attribute tile) {
        return isa<TileAttr>(tile) && epilogue.supports(cast<TileAttr>(tile));
      }))
    return std::nullopt;
  return epilogue;
}

namespace {
struct MoEFuseCombine : moe::impl::MoEFuseCombineBase<MoEFuseCombine> {
  using MoEFuseCombineBase::MoEFuseCombineBase;

  void runOnOperation() override {
    SmallVector<GroupedMatmulOp> matmuls;
    getOperation()->walk([&](GroupedMatmulOp op) { matmuls.push_back(op); });
    IRRewriter rewriter(&getContext());
    auto &dominance = getAnalysis<DominanceInfo>();
    for (GroupedMatmulOp op : matmuls) {
      std::optional<CombineEpilogue> found = findCombine(op, dominance);
      if (!found || failed(moveValueDefinitions(
                        rewriter, found->combine.getInit(), op, dominance)))
        continue;
      rewriter.setInsertionPoint(op);
      FusedOp::wrap(rewriter, op.getLoc(), {op, found->combine},
                    found->combine->getResults(), found->counters);
      ++numFused;
    }
  }
};
} // namespace
