//===- log.h - The log of driver calls, for tests ---------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_LOG_H
#define MOE_CUDA_DOUBLE_LOG_H

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace moe::gpu {

/// A JSON value: a number, a string, or a list of numbers.
class LogValue {
public:
  LogValue(const char *value) : text(quote(value)) {}
  LogValue(const std::string &value) : text(quote(value)) {}
  LogValue(bool value) : text(value ? "true" : "false") {}
  template <typename T> LogValue(T value) : text(std::to_string(value)) {}
  LogValue(const uint32_t (&values)[3])
      : text("[" + std::to_string(values[0]) + "," + std::to_string(values[1]) +
             "," + std::to_string(values[2]) + "]") {}
  /// The bytes in hexadecimal.
  static LogValue hex(const std::vector<uint8_t> &bytes);
  const std::string text;

private:
  static std::string quote(const std::string &value);
};

struct LogField {
  const char *key;
  LogValue value;
};

/// The file MOE_CUDA_DOUBLE_LOG: one JSON object a line, {"event": ..., ...}.
class Log {
public:
  ~Log() { close(); }
  void open(const std::string &path);
  void close();
  void write(const char *event, const std::vector<LogField> &fields);
  explicit operator bool() const { return file != nullptr; }

private:
  std::FILE *file = nullptr;
};

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_LOG_H
