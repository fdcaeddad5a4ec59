//===- bulk.h - cp.async.bulk -----------------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_BULK_H
#define MOE_CUDA_DOUBLE_BULK_H

#include "ptx/decoder.h"

namespace moe::gpu {

/// cp.async.bulk and cp.reduce.async.bulk, without the qualifiers up to .bulk.
void decodeBulk(Decoder &d, bool reduce);

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_BULK_H
