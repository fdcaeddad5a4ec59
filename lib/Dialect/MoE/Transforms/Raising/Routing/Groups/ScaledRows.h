//===- ScaledRows.h - Rows that are weighed before experts ------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_ROUTING_SCALEDROWS_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_ROUTING_SCALEDROWS_H

#include "Routing/Groups/GroupRows.h"

namespace mlir::moe::raising {

/// True if a value with a row for each token and expert is 0 where the token
/// did not choose the expert, because its rows were multiplied by `mask` before
/// the expert, and an expert makes zeros of zeros.
bool isZeroOutside(const Selector &mask, Value value, Routing &routing);

} // namespace mlir::moe::raising

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_ROUTING_SCALEDROWS_H
