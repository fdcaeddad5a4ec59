//===- artifact.h - The file format of an artifact ---------------*- C -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Shared by the compiler, which writes artifacts, and the runtime.
//
//   [ELF shared object][pad to 8][metadata, JSON][pad to 8][footer, 64 bytes]
//
// Padding is zero. The footer comes last, so that an artifact is also a valid
// shared object for nm, objdump and debuggers. All integers are little-endian.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_ARTIFACT_H
#define MOE_RT_ARTIFACT_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// The eight bytes "MOEARTF\0".
#define MOE_ARTIFACT_MAGIC "MOEARTF"
#define MOE_ARTIFACT_MAGIC_SIZE 8
/// Version of the file layout and of the metadata.
#define MOE_ARTIFACT_FORMAT_VERSION 2
#define MOE_ARTIFACT_FOOTER_SIZE 64
/// Metadata and footer start at a multiple of this.
#define MOE_ARTIFACT_ALIGNMENT 8

/// The last 64 bytes of an artifact.
typedef struct {
  char magic[MOE_ARTIFACT_MAGIC_SIZE];
  uint32_t format_version;  // MOE_ARTIFACT_FORMAT_VERSION
  uint32_t abi_version;     // MOE_RT_ABI_VERSION of the entry points
  uint64_t object_size;     // the object starts at byte 0
  uint64_t metadata_offset; // object_size rounded up to 8
  uint64_t metadata_size;
  uint64_t file_size; // of the whole file, this footer included
  uint64_t reserved;  // 0
  uint64_t checksum;  // XXH3-64, seed 0, of all bytes before this field
} moe_artifact_footer_t;

#ifdef __cplusplus
} // extern "C"
static_assert(sizeof(moe_artifact_footer_t) == MOE_ARTIFACT_FOOTER_SIZE,
              "the footer has no padding");
#endif

#endif // MOE_RT_ARTIFACT_H
