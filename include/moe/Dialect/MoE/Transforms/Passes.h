//===- Passes.h - Passes of the moe dialect ---------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_TRANSFORMS_PASSES_H
#define MOE_DIALECT_MOE_TRANSFORMS_PASSES_H

#include "moe/Dialect/MoE/Transforms/ABI/Passes.h"
#include "moe/Dialect/MoE/Transforms/Capacity/Passes.h"
#include "moe/Dialect/MoE/Transforms/Fusion/Passes.h"
#include "moe/Dialect/MoE/Transforms/Parallel/Passes.h"
#include "moe/Dialect/MoE/Transforms/Raising/Passes.h"
#include "moe/Dialect/MoE/Transforms/Training/Passes.h"

#endif // MOE_DIALECT_MOE_TRANSFORMS_PASSES_H
