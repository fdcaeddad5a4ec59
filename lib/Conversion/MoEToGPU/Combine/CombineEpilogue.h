//===- CombineEpilogue.h - Sums that products end in ------------*- C++ -*-===//
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

/// The `moe.gather_sum` of the rows that a `moe.grouped_matmul` computes, where
/// the kernel of the product can end in it, which saves a launch. Of the warps
/// that store the same columns, one for each tile of rows, the last adds up the
/// choices of every token, in the order that `moe.gather_sum` has: the bits are
/// the same. One warp would take long for many tokens, which have a launch.
struct RowSum {
  static constexpr int64_t mostTokens = 8;

  GatherSumOp combine;
  Value arrivals; // counters that are 0, in a tensor

  /// The one of `op`, if there is one.
  static std::optional<RowSum> find(GroupedMatmulOp op,
                                    const DeviceLowering &lowering);
  /// Whether kernels with tiles like this end in sums.
  static bool suits(GroupedMatmulOp op, TileAttr tile);

  /// Operands of a launch, behind those of the product.
  SmallVector<Value> inputs() const;

  /// On the host: where the sum goes, and how many tokens (an `index`) kernels
  /// add up, all or none.
  Value init(ImplicitLocOpBuilder &b) const;
  Value tokensAtOnce(ImplicitLocOpBuilder &b) const;
  /// Put `summed` in the place of the combine. If no kernel with a sum ran, or
  /// for other tokens than `some`, a launch adds up `rows`.
  void replace(ImplicitLocOpBuilder &b, Value rows, Value summed, Value some,
               Value ran, DeviceLowering &lowering) const;
};

/// What a kernel does for a RowSum.
class RowSumEmitter {
public:
  struct Arguments {
    GatherSumEmitter::Arrays arrays;
    Value arrivals; // pointer
    Value tokens;   // to add up; 0: the product is all there is to do
  };
  /// `warps` of a block store rows of `columns` columns.
  RowSumEmitter(GPUBuilder &b, const RowSum &sum, int64_t columns,
                int64_t warps, const Arguments &arguments);

  /// Columns of a tile that a warp stores: `count` times `width` of them,
  /// `stride` apart.
  struct Columns {
    Value first;
    int64_t width, count, stride;
  };
  /// By a warp that has stored its columns of a tile, the `columnTile`th along
  /// the columns, of `rowTiles` below each other.
  void arrive(Value warp, Value columnTile, Value rowTiles,
              const Columns &columns);
  /// By all threads of all blocks: without any tile nobody arrives.
  void fillWithoutTiles(Value rowTiles, int64_t threads);

private:
  GPUBuilder &b;
  GatherSumEmitter gather;
  int64_t vectorWidth, vectors, columns, warps;
  Arguments arguments;
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_COMBINE_COMBINEEPILOGUE_H
