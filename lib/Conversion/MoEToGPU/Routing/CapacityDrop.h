//===- CapacityDrop.h - Drop choices beyond the capacity --------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Position order is handled by the counting sort of the routing itself. For
// other priorities, and for next-choice overflow, a kernel ahead of the routing
// decides which choices exceed the capacity and replaces their ids by -1.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_ROUTING_CAPACITYDROP_H
#define MOE_LIB_CONVERSION_MOETOGPU_ROUTING_CAPACITYDROP_H

#include "Lowering.h"

namespace mlir::moe {

/// Returns the ids with dropped choices replaced by -1. `total` is the number
/// of all choices, `capacity` that of an expert; both are i32 on the host.
Value launchCapacityDrop(RouteOp op, DeviceLowering &lowering, Value total,
                         Value capacity);

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_ROUTING_CAPACITYDROP_H
