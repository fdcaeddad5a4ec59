//===- RankSums.h - Sums of the rows of a token on a rank ----- -*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_PARALLEL_RANKSUMS_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_PARALLEL_RANKSUMS_H

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::moe {

/// The tokens of a dispatch on the rank of their experts, and the weights of
/// their choices there, if the combine has weights.
struct SpreadTokens {
  ExchangeOp leaving;
  DispatchOp local;
  PartitionOp partition;
  Value weights;
};

/// Makes the weights of a combine available where `b` stands, normalised over
/// the choices with a slot, so that they can leave with the tokens. Fails if
/// they need the rows of experts; `hasOthers` as for `finishSums`.
LogicalResult prepareSums(ImplicitLocOpBuilder &b, CombineOp combine,
                          Value slots, bool hasOthers);

/// Adds the weighted rows of each token where its experts are, and brings one
/// row home from each rank; `combine` gets these, at the first choice of a
/// token on each rank.
void bringSumsHome(ImplicitLocOpBuilder &b, CombineOp combine,
                   const SpreadTokens &tokens);

/// Makes `combine` weigh only what was not weighed elsewhere: with `hasOthers`,
/// rows of choices that have no slot, and `dropped`.
void finishSums(ImplicitLocOpBuilder &b, CombineOp combine, Value slots,
                bool hasOthers);

} // namespace mlir::moe

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_PARALLEL_RANKSUMS_H
