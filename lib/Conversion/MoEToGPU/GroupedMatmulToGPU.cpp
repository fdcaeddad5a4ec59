//===- GroupedMatmulToGPU.cpp - moe.grouped_matmul ------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// One kernel for each tile that moe-tile-for-gpu chose. All of them are launched;
// all but the one that suits the number of rows have no blocks.
//
//===----------------------------------------------------------------------===//

#include "GroupedKernel.h"

using namespace mlir;
using namespace mlir::moe;

/// Experts whose tiles a block adds up.
static constexpr int64_t mostExperts = 1024;

LogicalResult mlir::moe::verifyTensorCores(GroupedMatmulOp op,
                                           std::string &why) {
  auto element = cast<RankedTensorType>(op.getLhs().getType()).getElementType();
  auto weights =
      cast<RankedTensorType>(op.getWeights().front().getType());
  if (op.getPanels())
    why = "packed weights";
  else if (!element.isF16() && !element.isBF16())
    why = "rows that are neither f16 nor bf16";
  else if (weights.getElementType() != element)
    why = "weights of another type than the rows";
  else if (!weights.hasStaticShape())
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
  int64_t columns = 0;
  for (Value each : op.getWeights()) {
    FailureOr<WeightView> view = WeightView::of(op, each, why);
    if (failed(view))
      return failure();
    // The copies are of 16 bytes.
    if (!op.getTransposed() &&
        (view->firstColumn % 8 != 0 || view->columns % 8 != 0))
      why = "weights at columns that are not a multiple of 8";
    else if (columns != 0 && columns != view->columns)
      why = "weights in tensors of different shapes";
    columns = view->columns;
  }
  return failure(!why.empty() || failed(DeviceEpilogue::verify(op, why)));
}

/// Whether there is a kernel for a tile: not all that the attribute can say.
static LogicalResult verifyTile(GroupedMatmulOp op, TileAttr tile,
                                const GPUDescription &gpu, std::string &why) {
  int64_t products = op.getNumProducts(), columns = tile.getColumns();
  bool wgmma = tile.getUnit() == MatrixUnit::Wgmma;
  bool pingPong = tile.getRoles() == WarpRoles::PingPong;
  bool shape;
  if (wgmma)
    shape = (tile.getRows() == 128 || (pingPong && tile.getRows() == 64)) &&
            columns % ((op.getTransposed() ? 8 : 64) * products) == 0;
  else
    shape = llvm::is_contained({16, 32, 64, 128}, tile.getRows()) &&
            columns % 128 == 0;
  int64_t bytes = tile.getStages() * (tile.getRows() + columns) *
                      tile.getDepth() * 2 +
                  TileSchedule::sharedBytes(op.getExpertCount()) + 256;
  if (wgmma && !gpu.hasWgmma())
    why = "wgmma on " + gpu.arch;
  else if (tile.getDepth() != 64)
    why = "tiles of a depth other than 64";
  else if (tile.getCluster() != 1 || tile.getSwapped() || tile.getSplit() != 1)
    why = "tiles with clusters, swapped operands or a split sum";
  else if (!shape)
    why = "tiles of " + std::to_string(tile.getRows()) + " rows and " +
          std::to_string(columns) + " columns";
  else if (bytes > gpu.getSharedBytes())
    why = "tiles of " + std::to_string(bytes) + " bytes of shared memory";
  return failure(!why.empty());
}

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
  for (auto tile : tiles.getAsRange<TileAttr>())
    if (failed(verifyTile(op, tile, lowering.gpu, why)))
      return failure();
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
  // Rows of an expert, on average: what the tiles are chosen for.
  Value mean = grouped ? ceilDivOf(b, rows, experts) : rows;
  Value processors = MultiprocessorsOp::create(b);
  Value result = op.getInit();
  int64_t least = 0;
  for (auto [i, attribute] : llvm::enumerate(tiles)) {
    auto tile = cast<TileAttr>(attribute);
    bool wgmma = tile.getUnit() == MatrixUnit::Wgmma;
    LLVM::LLVMFuncOp kernel = wgmma ? buildWgmmaKernel(op, tile, lowering)
                                    : buildMmaSyncKernel(op, tile, lowering);
    int64_t share = tile.getColumns() / op.getNumProducts();
    Value blocks =
        TileSchedule::bound(b, rows, grouped, experts, tile.getRows(),
                            llvm::divideCeil(op.getN(), share));
    // As many as run at once.
    Value most = wgmma ? processors
                       : arith::MulIOp::create(b, processors, index(2)).getResult();
    blocks = arith::MinUIOp::create(b, blocks, most);
    Value suits;
    auto require = [&](arith::CmpIPredicate predicate, int64_t bound) {
      Value flag = arith::CmpIOp::create(b, predicate, mean, index(bound));
      suits = suits ? arith::AndIOp::create(b, suits, flag).getResult() : flag;
    };
    if (i > 0)
      require(arith::CmpIPredicate::ugt, least);
    if (i + 1 < tiles.size())
      require(arith::CmpIPredicate::ule, tile.getRows());
    least = tile.getRows();
    if (suits)
      blocks = arith::SelectOp::create(b, suits, blocks, index(0));
    result = launch(lowering, op.getLoc(), kernel, blocks,
                    GroupedKernel::inputs(op), result,
                    {toI32(rows), toI32(lhsRows)},
                    wgmma ? wgmmaMaps(op, tile) : SmallVector<TensorMapAttr>())
                 .front();
  }
  return SmallVector<Value>{result};
}
