//===- CapacityDrop.h - Which choices a full expert keeps -------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Where the places of a full expert are for others than the first to come, a
// kernel ahead of the routing replaces the ids of choices without a place by
// -1.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_ROUTING_CAPACITYDROP_H
#define MOE_LIB_CONVERSION_MOETOGPU_ROUTING_CAPACITYDROP_H

#include "Lowering.h"

namespace mlir::moe {

/// The ids of choices that are kept, given the number of all choices and the
/// capacity, i32s on the host.
Value launchKeep(RouteOp op, DeviceLowering &lowering, Value total,
                 Value capacity);

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_ROUTING_CAPACITYDROP_H
