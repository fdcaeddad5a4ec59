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
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_ROUTER_ROUTERKERNEL_H
#define MOE_LIB_CONVERSION_MOETOGPU_ROUTER_ROUTERKERNEL_H

#include "Builder/DeviceEpilogue.h"
#include "Lowering.h"
#include "Routing/GateEmitter.h"
#include "Routing/RouteEmitter.h"

namespace mlir::moe {

/// The operations of a router: the matmul of the logits, the gate, and the
/// routing of its choices.
struct Router {
  GroupedMatmulOp matmul;
  GateOp gate;
  RouteOp route;        // null if it is not fused
  int64_t counters = 0; // arrival counters for a combine that it clears

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
  Value counters;                   // the same; null without counters
  Value tokenCount, tokensPerBlock; // i32
  Value rows, capacity;             // i32, with a route; capacity may be null
};

/// The work distribution of a router kernel.
struct RouterShape {
  int64_t cluster = 1;
  int64_t rowTiles = 1; // tiles of 16 tokens that a block handles at a time
  int64_t getTokens() const { return 16 * rowTiles; }
};

class RouterKernel {
public:
  RouterKernel(Router router, RouterShape shape, DeviceLowering &lowering);

  /// Returns the bytes of shared memory.
  int64_t getSharedBytes() const;
  /// True if mma.sync computes the logits.
  bool usesTensorCores() const { return usesMMA; }
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
  /// Sets the current tile to as many of the tokens [start, end) as fit.
  void setTile(Value start, Value end);
  void gateTokens(GateEmitter &gate, RouteEmitter *route);
  void clearCounters();
  void finish(RouteEmitter &route, Value group);
  int64_t getPartialBytes() const;
  int64_t getLogitBytes() const;

  Router router;
  RouterShape shape;
  DeviceLowering &lowering;
  GPUBuilder b;
  Type xType, weightType, logitType;
  int64_t k, experts, warps;
  int64_t blockTiles;  // tiles of eight experts that a block computes
  int64_t tilesAtOnce; // of these, accumulated at a time
  bool usesMMA;

  // Arguments of the kernel.
  KernelArguments arguments;
  Value x, weights;
  SmallVector<Value> extras;
  GateEmitter::Pointers gatePointers;
  RouteEmitter::Arrays routeArrays;
  Value counters, tokens, tokensPerBlock, rows, capacity, liveAddress;

  Value live; // tokens
  Value memory, partials, logits, histogram;
  Value thread, lane, warp, rank;
  // Of the current tile: the first token, the number of live tokens, and of
  // others.
  Value first, valid, inactive;
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_ROUTER_ROUTERKERNEL_H
