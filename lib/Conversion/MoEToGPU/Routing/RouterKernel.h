//===- RouterKernel.h - From rows to routed choices -------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The product of a router, the gate of its logits and the routing of what the
// gate chooses, in one kernel: logits stay in shared memory. Sixteen tokens are
// a tile, a block has one or two at a time.
//
// The warps of a block share a product along k, each in registers, straight
// from memory; the partial sums are added up in the order of the warps,
// whatever T is. Then each warp gates a token, and counts what it chose. Where
// all tokens are one tile, the block goes on to place them; otherwise it leaves
// its counts to a second kernel.
//
// One multiprocessor alone is slow to read the weights, so with few tokens a
// cluster shares the experts of a tile; its first block collects the logits.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_ROUTING_ROUTERKERNEL_H
#define MOE_LIB_CONVERSION_MOETOGPU_ROUTING_ROUTERKERNEL_H

#include "Builder/DeviceEpilogue.h"
#include "GateEmitter.h"
#include "Lowering.h"
#include "RouteEmitter.h"

namespace mlir::moe {

/// A router: what computes logits, chooses experts by them and, maybe, groups
/// the choices.
struct Router {
  GroupedMatmulOp product;
  GateOp gate;
  RouteOp route; // null: the choices are for others to group

  /// Whether there is a kernel that computes `product` and its only user
  /// `gate`.
  static LogicalResult verify(GroupedMatmulOp product, GateOp gate,
                              std::string &why);
};

/// The router that a gate is part of, if one kernel can compute it; a remark
/// says why not.
std::optional<Router> findRouter(GateOp gate);
/// Results of the gate and, if there is one, of the route.
SmallVector<Value> lowerToGPU(Router router, DeviceLowering &lowering);

/// How blocks share the work.
struct RouterShape {
  int64_t cluster = 1;
  int64_t rowTiles = 1; // tiles of tokens that a block has at a time
  int64_t getTokens() const { return 16 * rowTiles; }
};

class RouterKernel {
public:
  RouterKernel(Router router, RouterShape shape, DeviceLowering &lowering);

  /// Bytes of shared memory.
  int64_t getSharedBytes() const;
  /// Operands of a launch, in the order of the kernel's pointers: then come the
  /// weights and ids and, if it routes, tokens, offsets, positions and counts
  /// of each block. Scalars: how many tokens there are, tokens of a block and,
  /// if it routes, rows and, if there is one, the capacity.
  static SmallVector<Value> inputs(Router router);
  LLVM::LLVMFuncOp build();

private:
  /// The warp's share of the sums for eight columns times `across` from
  /// `firstColumn` on, to `partials`.
  void multiplyOnCores(Value firstColumn);
  void multiplyByFMA(Value firstColumn);
  /// `size` numbers of a row from number `k` on, zeros where that is not
  /// inside.
  Value loadX(Value row, Value k, Value inside, int64_t size);
  Value loadWeights(Value column, Value k, Value inside, int64_t size);
  void multiplyTile(Value low, Value high, Value y,
                    MutableArrayRef<Value> sums);
  /// Where the warps' sums for a token of the tile and a column are.
  Value partial(Value ofWarp, Value row, Value column);
  /// Logits of columns below `columns` from what the warps have.
  void addPartials(Value firstColumn, Value columns);
  void computeLogits();
  /// Make the tokens from `start` to `end`, or as many as fit, the tile.
  void setTile(Value start, Value end);
  void gateTokens(GateEmitter &gate, RouteEmitter *route);
  void clearArrivals(Value arrivals);
  void finish(RouteEmitter &route, ValueRange outputs, Value group);
  int64_t getPartialBytes() const;
  int64_t getLogitBytes() const;

  Router router;
  RouterShape shape;
  DeviceLowering &lowering;
  GPUBuilder b;
  Type xType, weightType, logitType;
  int64_t k, experts, warps;
  int64_t ownTiles; // of eight experts, of a block
  int64_t across;   // of them, at a time
  bool onCores;

  Value x, weights, tokens, live, perBlock, rows, capacity;
  SmallVector<Value> extras;
  Value memory, partials, logits, counters;
  Value thread, lane, warp, rank;
  Value first, valid, dead; // of a tile: its first token, how many live, not
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_ROUTING_ROUTERKERNEL_H
