//===- safetensors.cpp - Fuzz the reader of .safetensors files ------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "safetensors.h"

#include "moe_rt/io.h"

#include <cstdlib>
#include <string>

static void check(const void *data, size_t size) {
  auto tensors = moe::io::SafetensorsFile::parse(data, size);
  if (!tensors) {
    if (tensors.error().empty())
      std::abort();
    return;
  }
  // Read every byte, so that a sanitizer sees one that is not there.
  volatile uint8_t sum = 0;
  for (const auto &[name, tensor] : *tensors) {
    const auto *bytes = static_cast<const uint8_t *>(tensor.data);
    for (uint64_t i = 0; i < tensor.bytes; ++i)
      sum = sum + bytes[i];
  }
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  check(data, size);
  if (size == 0)
    return 0;
  std::string bytes = moe::test::makeSafetensors(data, size, 'x');
  check(bytes.data(), bytes.size());
  return 0;
}
