//===- Epilogue.h - Apply epilogues to accumulators -------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOCPU_EPILOGUE_H
#define MOE_LIB_CONVERSION_MOETOCPU_EPILOGUE_H

#include "Lowering.h"

namespace mlir::moe {

/// The coordinates of a row of accumulators.
struct EpilogueCoord {
  Value expert; // index into the weights
  Value row;    // of the result
  Value panel;  // of the weights
};

/// Applies the epilogue to one row of one panel: the accumulators `[columns]`
/// from `start` on become columns of the result, in vectors of `kernel.lanes`.
void buildEpilogue(CPUBuilder &b, GroupedMatmulOp op, const Kernel &kernel,
                   EpilogueCoord coord, Value accumulators, Value start);

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOCPU_EPILOGUE_H
