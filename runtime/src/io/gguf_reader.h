//===- gguf_reader.h - The bytes and key-values of .gguf files --*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_IO_GGUF_READER_H
#define MOE_RT_SRC_IO_GGUF_READER_H

#include "moe_rt/io.h"

#include <cstring>

namespace moe::io {

/// Reads one thing after the other. From the first that is beyond the end on
/// all are zero or empty.
class GgufReader {
public:
  GgufReader(const void *bytes, uint64_t size)
      : data(static_cast<const char *>(bytes)), size(size) {}

  /// The next bytes; nullptr if there are not so many.
  const char *take(uint64_t bytes) {
    if (!missing && bytes > rest())
      missing = bytes;
    if (missing)
      return nullptr;
    position += bytes;
    return data + (position - bytes);
  }
  template <typename T> T number() {
    T value{};
    if (const char *from = take(sizeof(T)))
      std::memcpy(&value, from, sizeof(T));
    return value;
  }
  std::string_view text() {
    auto length = number<uint64_t>();
    const char *from = take(length);
    return from ? std::string_view(from, length) : std::string_view();
  }

  bool failed() const { return missing != 0; }
  uint64_t rest() const { return size - position; }
  uint64_t offset() const { return position; }
  Error error(const std::string &what) const {
    return Error{"truncated: " + what + " has " + std::to_string(missing) +
                 " more bytes at byte " + std::to_string(position) +
                 ", expected at most " + std::to_string(rest())};
  }

private:
  const char *data;
  uint64_t size;
  uint64_t position = 0;
  uint64_t missing = 0; // what was asked for when there was less
};

/// Check the name of a key or a tensor; `what` has it in messages.
Expected<void> checkGgufName(const std::string &what, std::string_view name);

/// Read keys with their values, and check all that is in them.
Expected<GgufMetadata::Values> parseGgufPairs(GgufReader &reader,
                                              uint64_t count);

} // namespace moe::io

#endif // MOE_RT_SRC_IO_GGUF_READER_H
