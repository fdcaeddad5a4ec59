//===- Epilogue.h - From sums to elements of the result ---------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOCPU_EPILOGUE_H
#define MOE_LIB_CONVERSION_MOETOCPU_EPILOGUE_H

#include "Lowering.h"

namespace mlir::moe {

/// Where a row of sums belongs.
struct EpiloguePlace {
  Value expert; // number of the weights
  Value row;    // of the result
  Value panel;  // of the weights
};

/// Build the epilogue of one row: the sums `[columns]` from `start` of the buffer
/// `sums` become the columns of one panel of the result. `kernel` says how many
/// lanes a vector has.
void buildEpilogue(CPUBuilder &b, GroupedMatmulOp op, const Kernel &kernel,
                   EpiloguePlace place, Value sums, Value start);

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOCPU_EPILOGUE_H
