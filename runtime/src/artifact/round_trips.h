//===- round_trips.h - Steps from leaving rows to their return -*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_ARTIFACT_ROUND_TRIPS_H
#define MOE_RT_SRC_ARTIFACT_ROUND_TRIPS_H

#include "artifact/parallel.h"

namespace moe::rt {

/// Find the steps of a layer that may run for some of its rows at a time: from
/// an exchange that sends tokens to the one that brings their results home.
void findRoundTrips(ParallelFunction &function);

} // namespace moe::rt

#endif // MOE_RT_SRC_ARTIFACT_ROUND_TRIPS_H
