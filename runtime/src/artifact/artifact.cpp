//===- artifact.cpp - Verify the bytes of an artifact ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "artifact/artifact_reader.h"
#include "support/checked.h"

#include "moe_rt/artifact.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cerrno>
#include <cinttypes>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace moe;
using namespace moe::rt;

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "the footer is read as it lies in memory");

static bool isZero(const uint8_t *begin, const uint8_t *end) {
  for (; begin != end; ++begin)
    if (*begin)
      return false;
  return true;
}

moe_rt_status_t moe::rt::verifyArtifact(const void *data, size_t size,
                                        const char *name, ArtifactView &out) {
  const auto *bytes = static_cast<const uint8_t *>(data);
  moe_artifact_footer_t footer;
  if (size < sizeof(footer))
    return makeError(MOE_RT_DATA_LOSS,
                     "%s: not an artifact, or truncated: %zu bytes, expected "
                     "at least %zu",
                     name, size, sizeof(footer));
  std::memcpy(&footer, bytes + size - sizeof(footer), sizeof(footer));

  if (std::memcmp(footer.magic, MOE_ARTIFACT_MAGIC, MOE_ARTIFACT_MAGIC_SIZE))
    return makeError(MOE_RT_DATA_LOSS,
                     "%s: not an artifact, or truncated: no footer at its end",
                     name);
  if (footer.format_version != MOE_ARTIFACT_FORMAT_VERSION)
    return makeError(MOE_RT_DATA_LOSS,
                     "%s: artifact has format %" PRIu32
                     ", this runtime reads format %d",
                     name, footer.format_version, MOE_ARTIFACT_FORMAT_VERSION);
  if (footer.abi_version != MOE_RT_ABI_VERSION)
    return makeError(MOE_RT_DATA_LOSS,
                     "%s: artifact has ABI %" PRIu32
                     ", this runtime has ABI %d",
                     name, footer.abi_version, MOE_RT_ABI_VERSION);
  if (footer.file_size != size)
    return makeError(MOE_RT_DATA_LOSS,
                     "%s: truncated: %zu bytes, expected %" PRIu64, name, size,
                     footer.file_size);

  uint64_t metadataOffset, metadataEnd, footerOffset, fileSize;
  if (!checkedAlign(footer.object_size, MOE_ARTIFACT_ALIGNMENT,
                    metadataOffset) ||
      metadataOffset != footer.metadata_offset ||
      !checkedAdd(metadataOffset, footer.metadata_size, metadataEnd) ||
      !checkedAlign(metadataEnd, MOE_ARTIFACT_ALIGNMENT, footerOffset) ||
      !checkedAdd(footerOffset, uint64_t(sizeof(footer)), fileSize) ||
      fileSize != size)
    return makeError(MOE_RT_DATA_LOSS,
                     "%s: damaged: object of %" PRIu64
                     " bytes and metadata of %" PRIu64 " bytes at %" PRIu64
                     " do not fill a file of %zu bytes",
                     name, footer.object_size, footer.metadata_size,
                     footer.metadata_offset, size);
  if (footer.reserved != 0)
    return makeError(MOE_RT_DATA_LOSS,
                     "%s: damaged: reserved field is %" PRIu64 ", expected 0",
                     name, footer.reserved);
  if (!isZero(bytes + footer.object_size, bytes + metadataOffset) ||
      !isZero(bytes + metadataEnd, bytes + footerOffset))
    return makeError(MOE_RT_DATA_LOSS, "%s: damaged: padding is not zero",
                     name);

  size_t covered = size - sizeof(footer.checksum);
  uint64_t checksum = XXH3_64bits(bytes, covered);
  if (checksum != footer.checksum)
    return makeError(MOE_RT_DATA_LOSS,
                     "%s: damaged: checksum is %016" PRIx64
                     ", expected %016" PRIx64,
                     name, checksum, footer.checksum);

  out.object = bytes;
  out.objectSize = static_cast<size_t>(footer.object_size);
  out.metadata = reinterpret_cast<const char *>(bytes + metadataOffset);
  out.metadataSize = static_cast<size_t>(footer.metadata_size);
  return nullptr;
}

/// Read exactly `size` bytes.
static moe_rt_status_t readAll(int fd, const char *path, char *data,
                               size_t size) {
  size_t done = 0;
  while (done < size) {
    ssize_t count = read(fd, data + done, size - done);
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      return makeError(MOE_RT_NOT_FOUND, "%s: cannot read: %s", path,
                       std::strerror(errno));
    if (count == 0)
      return makeError(MOE_RT_DATA_LOSS,
                       "%s: shrank while it was read: %zu bytes, expected %zu",
                       path, done, size);
    done += static_cast<size_t>(count);
  }
  return nullptr;
}

static moe_rt_status_t readOpenFile(int fd, const char *path, void *&data,
                                    size_t &size) {
  struct stat info;
  if (fstat(fd, &info) != 0)
    return makeError(MOE_RT_NOT_FOUND, "%s: cannot read: %s", path,
                     std::strerror(errno));
  if (!S_ISREG(info.st_mode))
    return makeError(MOE_RT_INVALID_ARGUMENT, "%s: not a regular file", path);
  size_t bytes = static_cast<size_t>(info.st_size);
  // One byte more, so that an empty file is no special case.
  auto *buffer = static_cast<char *>(std::malloc(bytes + 1));
  if (!buffer)
    return makeError(MOE_RT_RESOURCE_EXHAUSTED, "%s: cannot allocate %zu bytes",
                     path, bytes);
  if (moe_rt_status_t status = readAll(fd, path, buffer, bytes)) {
    std::free(buffer);
    return status;
  }
  data = buffer;
  size = bytes;
  return nullptr;
}

moe_rt_status_t moe::rt::readFile(const char *path, void *&data, size_t &size) {
  // O_NONBLOCK: opening a pipe must not wait for its other end.
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0)
    return makeError(MOE_RT_NOT_FOUND, "%s: cannot open: %s", path,
                     std::strerror(errno));
  moe_rt_status_t status = readOpenFile(fd, path, data, size);
  close(fd);
  return status;
}
