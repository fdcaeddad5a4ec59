//===- safetensors.h - A file of a fuzzer's input ---------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_TEST_FUZZ_SAFETENSORS_H
#define MOE_RT_TEST_FUZZ_SAFETENSORS_H

#include <cstddef>
#include <cstdint>
#include <string>

namespace moe::test {

/// A .safetensors file whose header is the input but for its first byte, which
/// says how many bytes of data there are: each of them is `fill`. The input is
/// not empty.
inline std::string makeSafetensors(const uint8_t *input, size_t size,
                                   char fill) {
  std::string bytes;
  for (int i = 0; i < 8; ++i)
    bytes += static_cast<char>((size - 1) >> (8 * i));
  bytes.append(reinterpret_cast<const char *>(input) + 1, size - 1);
  bytes.append(input[0], fill);
  return bytes;
}

} // namespace moe::test

#endif // MOE_RT_TEST_FUZZ_SAFETENSORS_H
