//===- npy.cpp - Fuzz the reader of .npy files ----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe_rt/io.h"

#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  auto tensor = moe::io::parseNpy(data, size);
  if (!tensor) {
    if (tensor.error().empty())
      std::abort();
    return 0;
  }
  // Read every byte, so that a sanitizer sees one that is not there.
  const auto *bytes = static_cast<const uint8_t *>(tensor->data);
  volatile uint8_t sum = 0;
  for (uint64_t i = 0; i < tensor->bytes; ++i)
    sum = sum + bytes[i];
  uint64_t count = tensor->bytes * 8 / tensor->dtype.bits;
  for (uint64_t i = 0; i < count; ++i)
    (void)moe::io::readElement(*tensor, i);
  return 0;
}
