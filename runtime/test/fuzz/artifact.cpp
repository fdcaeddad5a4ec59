//===- artifact.cpp - Fuzz the loader of artifacts ------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Everything up to where the system's loader would take over, with the bytes as
// they are and with a footer that has been made right, so that the parts behind
// the checksum are reached, too.
//
//===----------------------------------------------------------------------===//

#include "artifact/artifact_reader.h"
#include "artifact/object.h"
#include "artifact/signature.h"
#include "cpu/target.h"

#include "moe_rt/artifact.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstdlib>
#include <cstring>
#include <vector>

using namespace moe::rt;

static void check(const uint8_t *data, size_t size) {
  ArtifactView view;
  moe_rt_status_t status = verifyArtifact(data, size, "fuzz", view);
  if (!status) {
    // What it hands out lies in the file.
    const auto *end = data + size;
    if (view.object != data || view.objectSize > size ||
        view.metadata < reinterpret_cast<const char *>(data) ||
        view.metadata + view.metadataSize > reinterpret_cast<const char *>(end))
      std::abort();
    Metadata metadata;
    status = parseMetadata(view.metadata, view.metadataSize, metadata);
    for (const Variant &variant : metadata.variants) {
      if (!status)
        status = checkTriple(variant.triple);
      if (!status)
        status = checkFeatures(variant.features);
    }
    if (!status)
      status = checkObject(view.object, view.objectSize);
  }
  if (status && !*moe_rt_status_message(status))
    std::abort();
  moe_rt_status_free(status);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  check(data, size);

  std::vector<uint8_t> bytes(data, data + size);
  moe_artifact_footer_t footer;
  if (size >= sizeof(footer)) {
    uint8_t *at = bytes.data() + size - sizeof(footer);
    std::memcpy(&footer, at, sizeof(footer));
    std::memcpy(footer.magic, MOE_ARTIFACT_MAGIC, MOE_ARTIFACT_MAGIC_SIZE);
    footer.format_version = MOE_ARTIFACT_FORMAT_VERSION;
    footer.abi_version = MOE_RT_ABI_VERSION;
    footer.file_size = size;
    std::memcpy(at, &footer, sizeof(footer));
    uint64_t checksum = XXH3_64bits(bytes.data(), size - sizeof(uint64_t));
    std::memcpy(bytes.data() + size - sizeof(checksum), &checksum,
                sizeof(checksum));
    check(bytes.data(), size);
  }

  // The input as metadata behind an empty object.
  bytes.assign(data, data + size);
  bytes.resize((size + 7) / 8 * 8);
  footer = {MOE_ARTIFACT_MAGIC,
            MOE_ARTIFACT_FORMAT_VERSION,
            MOE_RT_ABI_VERSION,
            0,
            0,
            size,
            bytes.size() + sizeof(footer),
            0,
            0};
  const auto *begin = reinterpret_cast<const uint8_t *>(&footer);
  bytes.insert(bytes.end(), begin, begin + sizeof(footer));
  uint64_t checksum =
      XXH3_64bits(bytes.data(), bytes.size() - sizeof(uint64_t));
  std::memcpy(bytes.data() + bytes.size() - sizeof(checksum), &checksum,
              sizeof(checksum));
  check(bytes.data(), bytes.size());
  return 0;
}
