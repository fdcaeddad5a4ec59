//===- CombineEpilogue.h - Fused combine of a grouped matmul ----*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_COMBINE_COMBINEEPILOGUE_H
#define MOE_LIB_CONVERSION_MOETOGPU_COMBINE_COMBINEEPILOGUE_H

#include "GatherSumEmitter.h"
#include "Lowering.h"

namespace mlir::moe {

/// A `moe.gather_sum` that is fused into the kernel of the `moe.grouped_matmul`
/// that computes its rows, which saves a launch. Warps that store the same
/// columns count their arrivals, one for each row tile; the last one gathers
/// and sums the rows of every token, in the order of `moe.gather_sum`, so the
/// result is bitwise the same. That is only fast for few tokens; more get a
/// launch of their own.
struct CombineEpilogue {
  static constexpr int64_t maxTokens = 64;

  GroupedMatmulOp matmul;
  GatherSumOp combine;
  Value counters; // tensor of i32, all 0 before the launch

  /// Returns the matmul and the combine that the region of `op` is, if it is
  /// these two.
  static std::optional<CombineEpilogue> match(FusedOp op);
  /// True if the kernel of such a tile of the matmul can have the epilogue.
  bool supports(TileAttr tile) const;

  /// Returns, on the host, the destination tensor.
  Value init(HostBuilder &b) const;
  /// Returns, on the host, the number of tokens (`index`) that the epilogue
  /// combines: all of them or 0.
  Value fusedTokens(HostBuilder &b) const;
  /// Launches the gather-sum of the tokens that the epilogue left out, all but
  /// `fused`, or all if it did not run (`ran`), into `combined`. Returns the
  /// result.
  Value launchRemaining(HostBuilder &b, Value rows, Value combined, Value fused,
                        Value ran, DeviceLowering &lowering) const;
};

/// Lowers the grouped matmul of `combine` to kernels that have the epilogue;
/// returns the combined rows.
Lowered lowerToGPU(const CombineEpilogue &combine, DeviceLowering &lowering,
                   std::string &why);

/// Emits the device code of a CombineEpilogue.
class CombineEpilogueEmitter {
public:
  struct Arguments {
    GatherSumEmitter::Arrays arrays;
    Value counters; // pointer
    Value tokens;   // to combine; 0 disables the epilogue
  };
  /// Rows have `columns` columns; `warps` warps of a block store them.
  CombineEpilogueEmitter(GPUBuilder &b, const CombineEpilogue &epilogue,
                         int64_t columns, int64_t warps,
                         const Arguments &arguments);

  /// The columns of a tile that a warp stores: `count` ranges of `width`
  /// columns, `stride` apart. `writers` warps of the tile store them, each for
  /// some of its rows.
  struct Columns {
    Value first;
    int64_t width, count, stride, writers;
  };
  /// Called by a warp after it has stored its columns of tile `columnTile`
  /// along n; `warp` counts those that store different columns. The last
  /// arrival, of `writers` for each of `rowTiles`, combines the tokens.
  void arrive(Value warp, Value columnTile, Value rowTiles,
              const Columns &columns);
  /// Called by all threads. If there are no tiles, no warp arrives, and the
  /// blocks share the work here.
  void emitWithoutTiles(Value rowTiles, int64_t threads);

private:
  GPUBuilder &b;
  GatherSumEmitter gather;
  int64_t vectorWidth, vectors, columns, warps;
  Arguments arguments;
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_COMBINE_COMBINEEPILOGUE_H
