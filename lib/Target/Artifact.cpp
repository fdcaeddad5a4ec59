//===- Artifact.cpp - One file that the runtime loads ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe_rt/artifact.h"
#include "SharedObject.h"
#include "moe/Target/Target.h"
#include "moe_rt/moe_rt.h"

#include "llvm/Support/MathExtras.h"
#include "llvm/Support/MemoryBufferRef.h"
#include "llvm/Support/xxhash.h"

#include <cstring>

using namespace mlir;
using namespace mlir::moe;

llvm::Expected<llvm::SmallVector<char, 0>>
mlir::moe::buildArtifact(llvm::ArrayRef<llvm::SmallVector<char, 0>> objects,
                         llvm::StringRef metadata) {
  auto linked = linkSharedObject(objects);
  if (!linked)
    return linked.takeError();
  if (llvm::Error failure = verifyHostFunctions(
          {llvm::StringRef(linked->data(), linked->size()), "artifact"}))
    return failure;

  llvm::SmallVector<char, 0> bytes;
  auto append = [&](llvm::StringRef data) {
    bytes.append(data.begin(), data.end());
    bytes.resize(llvm::alignTo(bytes.size(), 8), 0);
  };
  moe_artifact_footer_t footer = {};
  std::memcpy(footer.magic, MOE_ARTIFACT_MAGIC, sizeof(footer.magic));
  footer.format_version = MOE_ARTIFACT_FORMAT_VERSION;
  footer.abi_version = MOE_RT_ABI_VERSION;
  append({linked->data(), linked->size()});
  footer.object_size = linked->size();
  footer.metadata_offset = bytes.size();
  footer.metadata_size = metadata.size();
  append(metadata);
  footer.file_size = bytes.size() + sizeof(footer);
  const char *start = reinterpret_cast<const char *>(&footer);
  bytes.append(start, start + sizeof(footer));

  size_t checked = bytes.size() - sizeof(footer.checksum);
  footer.checksum = llvm::xxh3_64bits(
      llvm::ArrayRef(reinterpret_cast<const uint8_t *>(bytes.data()), checked));
  std::memcpy(bytes.data() + checked, &footer.checksum,
              sizeof(footer.checksum));
  return bytes;
}
