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
/// that computes its rows, which saves a launch. Warps that store rows count
/// their arrivals, and the last one sums, in the order of `moe.gather_sum`, so
/// the result is bitwise the same. No warp waits for another.
///
/// - Few tokens: warps that store the same columns count one arrival for each
///   row tile, and the last one sums these columns of every token.
/// - Any number: each row of a tile is an arrival of its token, and the warp
///   with the last one sums the columns of the tile of this token, while other
///   warps multiply.
struct CombineEpilogue {
  GroupedMatmulOp matmul;
  GatherSumOp combine;
  Value counters;    // tensor of i32, all 0 before the launch
  Value tokens = {}; // tensor: the token of each row; null if not known

  /// Returns the matmul and the combine that the region of `op` is, if it is
  /// these two.
  static std::optional<CombineEpilogue> match(FusedOp op);
  /// True if the kernel of such a tile of the matmul can have the epilogue for
  /// few tokens, and for any number.
  bool supportsFew(TileAttr tile) const;
  bool supportsAny() const;
  bool supports(TileAttr tile) const {
    return supportsFew(tile) || supportsAny();
  }

  /// Returns, on the host, the destination tensor.
  Value init(HostBuilder &b) const;
  /// Returns, on the host, the number of tokens (`index`) that the epilogue for
  /// few combines: all of them or 0.
  Value fewTokens(HostBuilder &b) const;
  /// Returns the number that the epilogue for any number combines in the kernel
  /// of a tile: the others.
  Value otherTokens(HostBuilder &b, TileAttr tile) const;
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
    // The tokens to combine by the epilogue for few, and for any number; 0
    // disables it, null if the kernel does not have it.
    Value few, others;
    Value tokenOfRow; // pointer, with `others`
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
  /// The rows of a tile that a warp stored: of the first `count` (i32) from
  /// grouped row `first` on those that `rowAt` returns for an index below
  /// `most`. `writers` warps store their columns.
  struct Rows {
    Value first, count;
    int64_t most;
    llvm::function_ref<Value(Value)> rowAt;
    int64_t writers;
  };
  /// Called by a warp after it has stored rows of tile `columnTile` along n, of
  /// `tileColumns` columns. Combines these columns of each token of which it
  /// has the last arrival.
  void arriveRows(const Rows &rows, Value columnTile, int64_t tileColumns);
  /// Called by all threads: no warp arrives for a token without rows, and none
  /// at all without tiles. The blocks share that work here.
  void emitWithoutRows(Value rowTiles, int64_t threads);

private:
  /// Returns how many choices of a token have a row, and the row of each.
  std::pair<Value, SmallVector<Value>> rowsOf(Value token);
  void arriveGroup(const Rows &rows, int64_t start, Value columnTile,
                   int64_t tileColumns);
  void combineToken(Value token, ArrayRef<Value> positions, Value columnTile,
                    int64_t tileColumns);

  int64_t topK;
  GPUBuilder &b;
  GatherSumEmitter gather;
  int64_t vectorWidth, vectors, columns, warps;
  Arguments arguments;
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_COMBINE_COMBINEEPILOGUE_H
