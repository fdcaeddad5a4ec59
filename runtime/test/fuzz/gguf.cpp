//===- gguf.cpp - Fuzz the reader of .gguf files --------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe_rt/io.h"

#include <cstdlib>
#include <string>

using namespace moe::io;

template <typename T> static void check(const Expected<T> &value) {
  if (!value && value.error().empty())
    std::abort();
}

static void check(const void *bytes, size_t size) {
  Expected<GgufFile::Content> content = GgufFile::parse(bytes, size);
  check(content);
  if (!content)
    return;
  // Read every byte, so that a sanitizer sees one that is not there.
  volatile uint8_t sum = 0;
  for (const auto &[name, tensor] : content->tensors) {
    const auto *data = static_cast<const uint8_t *>(tensor.data);
    for (uint64_t i = 0; i < tensor.bytes; ++i)
      sum = sum + data[i];
    if (tensor.format && !findBlockFormat(tensor.format))
      std::abort();
  }
  for (const std::string &key : content->metadata.keys()) {
    check(content->metadata.string(key));
    check(content->metadata.integer(key));
    check(content->metadata.real(key));
    check(content->metadata.boolean(key));
    check(content->metadata.integers(key));
  }
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  check(data, size);
  // What follows a header that is right; its counts are the first two bytes.
  if (size < 2)
    return 0;
  std::string bytes("GGUF\3\0\0\0", 8);
  for (size_t i = 0; i < 2; ++i)
    bytes +=
        std::string(1, static_cast<char>(data[i] % 8)) + std::string(7, '\0');
  bytes.append(reinterpret_cast<const char *>(data) + 2, size - 2);
  check(bytes.data(), bytes.size());
  return 0;
}
