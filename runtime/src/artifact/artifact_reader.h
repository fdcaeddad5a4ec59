//===- artifact_reader.h - Verify the bytes of an artifact ------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_ARTIFACT_ARTIFACT_READER_H
#define MOE_RT_SRC_ARTIFACT_ARTIFACT_READER_H

#include "support/status.h"

namespace moe::rt {

/// The parts of a verified artifact. They point into its bytes.
struct ArtifactView {
  const void *object;
  size_t objectSize;
  const char *metadata;
  size_t metadataSize;
};

/// Verify everything about the bytes of an artifact that does not need its
/// metadata: magic, versions, sizes, padding and checksum. `name` is what
/// messages call it.
moe_rt_status_t verifyArtifact(const void *data, size_t size, const char *name,
                               ArtifactView &out);

/// The whole content of a file, from malloc. A copy, so that what was verified
/// is what runs.
moe_rt_status_t readFile(const char *path, void *&data, size_t &size);

} // namespace moe::rt

#endif // MOE_RT_SRC_ARTIFACT_ARTIFACT_READER_H
