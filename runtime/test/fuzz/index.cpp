//===- index.cpp - Fuzz the reader of a checkpoint's index ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe_rt/io.h"

#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  auto index = moe::io::Checkpoint::parseIndex(
      reinterpret_cast<const char *>(data), size);
  if (!index)
    return 0;
  // No file outside the directory.
  for (const auto &[name, file] : *index)
    if (file.empty() || file == "." || file == ".." ||
        file.find('/') != std::string::npos ||
        file.find('\0') != std::string::npos)
      std::abort();
  return 0;
}
