//===- RouterKernel.h - Fused router kernel ---------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Computes the logits of a router, gates them and routes the choices in one
// kernel; logits stay in shared memory. A tile is 16 tokens; a block handles
// one, two or four tiles at a time.
//
// The warps of a block split k: each accumulates in registers, straight from
// global memory, and the partial accumulators are added in the order of warps,
// so the result does not depend on T. Then each warp gates a token and counts
// its choices in a histogram. If all tokens are of one block, it scatters the
// choices, too; otherwise a second kernel does.
//
// A single multiprocessor reads the weights slowly. With few tokens the blocks
// of a cluster split the experts of a tile, and the first block collects the
// logits through distributed shared memory.
//
// With many tokens the weights that each tile reads anew would take longer than
// the tokens. A staged kernel has tiles of up to 128 tokens: both operands pass
// through shared memory, and a warp has a part of the tile instead of a part of
// k. It adds up the same partial sums in the same order (StagedLogits.cpp).
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_ROUTER_ROUTERKERNEL_H
#define MOE_LIB_CONVERSION_MOETOGPU_ROUTER_ROUTERKERNEL_H

#include "Builder/DeviceEpilogue.h"
#include "Lowering.h"
#include "Routing/GateEmitter.h"
#include "Routing/RouteEmitter.h"
#include "moe/Analysis/KernelModel.h"

namespace mlir::moe {

/// The operations of a router: the matmul of the logits, the gate, and the
/// routing of its choices.
struct Router {
  GroupedMatmulOp matmul;
  GateOp gate;
  RouteOp route;  // null if it is not fused
  Value counters; // arrival counters for a combine that it clears, or null

  /// Returns the router that the region of `op` is, if it is one.
  static std::optional<Router> match(FusedOp op);
  /// Succeeds if a kernel can fuse `matmul` with its only user `gate`;
  /// otherwise `why` has the reason.
  static LogicalResult verify(GroupedMatmulOp matmul, GateOp gate,
                              std::string &why);
  /// Succeeds if the kernel can route the choices, too.
  static LogicalResult verify(RouteOp route, std::string &why);
};

/// Lowers `op`, whose region is `router`.
Lowered lowerToGPU(FusedOp op, Router router, DeviceLowering &lowering,
                   std::string &why);

/// The host values of a launch besides the operands of the operations.
struct RouterOperands {
  Value weights, ids;               // tensors, replaced by the results
  Value tokens, offsets, positions; // the same, with a route
  Value counts;                     // the same: histograms
  Value counters, counterCount;     // the same, `index`; null without counters
  Value tokenCount, tokensPerBlock; // i32
  Value rows, capacity;             // i32, with a route; capacity may be null
};

/// The work distribution of a router kernel.
struct RouterShape {
  int64_t cluster = 1;
  int64_t rowTiles = 1; // tiles of 16 tokens that a block handles at a time
  bool staged = false;  // operands pass through shared memory
  int64_t getTokens() const { return 16 * rowTiles; }
};

class RouterKernel {
public:
  RouterKernel(Router router, RouterShape shape, DeviceLowering &lowering);

  /// Returns the bytes of shared memory.
  int64_t getSharedBytes() const;
  /// True if mma.sync computes the logits.
  bool usesTensorCores() const { return usesMMA; }
  /// True if there is a staged kernel: for mma.sync and K-major weights.
  bool canStage() const {
    return usesMMA && GroupedMatmulOp(router.matmul).getTransposed();
  }
  /// Returns what the model of kernels goes by.
  RouterWork work() const;
  /// Builds and launches the kernel with a grid of `blocks`.
  void launch(RouterOperands &operands, Value blocks);

private:
  void declareArguments(RouterOperands &operands);
  LLVM::LLVMFuncOp build();
  void setUp();
  /// Accumulates the warp's part of k for `tilesAtOnce` tiles of eight columns
  /// from `firstColumn` on and stores the result to `partials`.
  void multiplyWithMMA(Value firstColumn);
  void multiplyWithFMA(Value firstColumn);
  /// Loads `size` elements of a row from element `k` on; zeros unless `inside`.
  Value loadX(Value row, Value k, Value inside, int64_t size);
  Value loadWeights(Value column, Value k, Value inside, int64_t size);
  void multiplyFragment(Value low, Value high, Value y,
                        MutableArrayRef<Value> accumulators);
  /// Returns the address of a warp's partial sum for a token of the tile and a
  /// column.
  Value partialAt(Value warp, Value row, Value column);
  /// Adds up the partial accumulators of the warps to the logits of columns
  /// below `columns`.
  void reducePartials(Value firstColumn, Value columns);
  void computeLogits();
  /// Sets the current tile to as many of the tokens [start, end) as there are,
  /// at most `most`.
  void setTile(Value start, Value end, Value most);

  /// How a block computes a tile of a staged kernel. A stage has `depth`
  /// elements along k of all tokens of the tile and of `columns` experts.
  struct Staging {
    int64_t depth = 0, stages = 0, columns = 0;
    int64_t segments = 0, segmentStages = 0; // of k, and of one segment
    int64_t warpRows = 0, warpColumns = 0;   // warps along each side
    int64_t rowTiles = 0, columnTiles = 0;   // of a warp, 16 and 8 long
    int64_t rowBytes() const { return depth * 2; }
  };
  Staging chooseStaging() const;
  int64_t getStageBytes() const {
    return (shape.getTokens() + staging.columns) * staging.rowBytes();
  }
  void computeStagedLogits();
  void copyStage(Value firstColumn, Value index, Value slot);
  SmallVector<Value> multiplyStage(Value slot, ValueRange sums);
  /// Returns this warp's logits of the columns from `firstColumn` on, without
  /// the epilogue.
  SmallVector<Value> multiplyStaged(Value firstColumn);
  void storeStaged(Value firstColumn, ValueRange sums);
  void gateTokens(GateEmitter &gate, RouteEmitter *route);
  void clearCounters();
  void finish(RouteEmitter &route, Value group);
  int64_t getPartialBytes() const;
  int64_t getLogitBytes() const;
  int64_t getHistogramStart() const;

  Router router;
  RouterShape shape;
  DeviceLowering &lowering;
  GPUBuilder b;
  Type xType, weightType, logitType;
  int64_t k, experts, warps;
  int64_t blockTiles;  // tiles of eight experts that a block computes
  int64_t tilesAtOnce; // of these, accumulated at a time
  bool usesMMA;
  Staging staging; // of a staged kernel

  // Arguments of the kernel.
  KernelArguments arguments;
  Value x, weights;
  SmallVector<Value> extras;
  GateEmitter::Pointers gatePointers;
  RouteEmitter::Arrays routeArrays;
  Value counters, counterCount;
  Value tokens, tokensPerBlock, rows, capacity, liveAddress;

  Value live; // tokens
  Value memory, partials, logits, histogram;
  Value thread, lane, warp, rank;
  // Of the current tile: the first token, the number of live tokens, and of
  // others.
  Value first, valid, inactive;
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_ROUTER_ROUTERKERNEL_H
