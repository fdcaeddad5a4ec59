//===- log.cpp - The log of driver calls, for tests -----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "log.h"

using namespace moe::gpu;

std::string LogValue::quote(const std::string &value) {
  std::string result = "\"";
  for (char c : value) {
    if (c == '"' || c == '\\') {
      result += '\\';
      result += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char code[8];
      std::snprintf(code, sizeof(code), "\\u%04x", c);
      result += code;
    } else {
      result += c;
    }
  }
  return result + "\"";
}

LogValue LogValue::hex(const std::vector<uint8_t> &bytes) {
  static const char digits[] = "0123456789abcdef";
  std::string result;
  for (uint8_t byte : bytes) {
    result += digits[byte >> 4];
    result += digits[byte & 15];
  }
  return LogValue(result);
}

void Log::open(const std::string &path) {
  close();
  if (!path.empty())
    file = std::fopen(path.c_str(), "a");
}

void Log::close() {
  if (file)
    std::fclose(file);
  file = nullptr;
}

void Log::write(const char *event, const std::vector<LogField> &fields) {
  if (!file)
    return;
  std::string line = std::string("{\"event\": ") + LogValue(event).text;
  for (const LogField &field : fields)
    line += std::string(", \"") + field.key + "\": " + field.value.text;
  line += "}\n";
  // Write whole lines only: the process may end at any time.
  std::fwrite(line.data(), 1, line.size(), file);
  std::fflush(file);
}
