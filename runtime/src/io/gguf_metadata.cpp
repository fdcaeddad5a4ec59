//===- gguf_metadata.cpp - The key-values of .gguf files ------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A value is checked when the file is opened, and decoded when it is looked up.
//
//===----------------------------------------------------------------------===//

#include "io/gguf_reader.h"

#include <iterator>

using namespace moe::io;

static constexpr size_t maxNameSize = 65535; // as the format says of keys
static constexpr int maxDepth = 8;           // of arrays in arrays

static bool isUtf8(std::string_view text) {
  static constexpr uint32_t least[] = {0, 0x80, 0x800, 0x10000};
  for (size_t i = 0; i < text.size();) {
    auto lead = static_cast<unsigned char>(text[i++]);
    if (lead < 0x80)
      continue;
    size_t more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    if (lead < 0xc0 || lead >= 0xf8 || text.size() - i < more)
      return false;
    uint32_t point = lead & (0x3fu >> more);
    for (size_t j = 0; j < more; ++j) {
      auto next = static_cast<unsigned char>(text[i++]);
      if ((next & 0xc0) != 0x80)
        return false;
      point = point << 6 | (next & 0x3f);
    }
    if (point < least[more] || point > 0x10ffff ||
        (point >= 0xd800 && point < 0xe000))
      return false;
  }
  return true;
}

Expected<void> moe::io::checkGgufName(const std::string &what,
                                      std::string_view name) {
  if (name.size() > maxNameSize)
    return Error{what + " has a name of " + std::to_string(name.size()) +
                 " bytes, expected at most " + std::to_string(maxNameSize)};
  auto refuse = [&](const char *reason) {
    return Error{what + ", '" + std::string(name) + "', " + reason};
  };
  if (name.find('\0') != std::string_view::npos)
    return refuse("has a NUL character in its name");
  if (!isUtf8(name))
    return refuse("has a name that is not UTF-8");
  return {};
}

//===----------------------------------------------------------------------===//
// Key-values
//===----------------------------------------------------------------------===//

namespace {

enum ValueType : uint32_t {
  typeU8,
  typeI8,
  typeU16,
  typeI16,
  typeU32,
  typeI32,
  typeF32,
  typeBool,
  typeString,
  typeArray,
  typeU64,
  typeI64,
  typeF64,
};

} // namespace

static constexpr struct {
  const char *name;
  uint64_t size; // 0: not fixed
} valueTypes[] = {{"u8", 1},     {"i8", 1},    {"u16", 2}, {"i16", 2},
                  {"u32", 4},    {"i32", 4},   {"f32", 4}, {"bool", 1},
                  {"string", 0}, {"array", 0}, {"u64", 8}, {"i64", 8},
                  {"f64", 8}};

static Expected<void> checkBools(const std::string &what, const char *data,
                                 uint64_t count) {
  for (uint64_t i = 0; i < count; ++i)
    if (static_cast<unsigned char>(data[i]) > 1)
      return Error{what + " has a bool of " +
                   std::to_string(static_cast<unsigned char>(data[i])) +
                   ", expected 0 or 1"};
  return {};
}

/// Read a value of `out.type`, and check all that is in it.
static Expected<void> parseValue(GgufReader &reader, const std::string &what,
                                 int depth, GgufMetadata::Value &out) {
  auto unknown = [&](uint32_t type) {
    return Error{what + " has a value of unknown type " + std::to_string(type) +
                 ", expected 0 to 12"};
  };
  if (out.type >= std::size(valueTypes))
    return unknown(out.type);
  if (out.type == typeString) {
    std::string_view text = reader.text();
    out.data = text.data();
    out.count = text.size();
  } else if (out.type != typeArray) {
    out.count = 1;
    out.data = reader.take(valueTypes[out.type].size);
    if (out.data && out.type == typeBool)
      return checkBools(what, out.data, 1);
  } else {
    out.elementType = reader.number<uint32_t>();
    out.count = reader.number<uint64_t>();
    if (reader.failed())
      return reader.error(what);
    if (out.elementType >= std::size(valueTypes))
      return unknown(out.elementType);
    if (depth == maxDepth)
      return Error{what + " has arrays nested deeper than " +
                   std::to_string(maxDepth)};
    uint64_t size = valueTypes[out.elementType].size;
    // Those without a fixed size begin with a length, of 8 bytes.
    if (out.count > reader.rest() / (size ? size : 8))
      return Error{what + " has an array of " + std::to_string(out.count) +
                   " elements, expected at most " +
                   std::to_string(reader.rest() / (size ? size : 8)) +
                   " in the rest of the file"};
    out.data = reader.take(0);
    if (size) {
      out.data = reader.take(out.count * size);
      if (out.elementType == typeBool)
        return checkBools(what, out.data, out.count);
    }
    for (uint64_t i = 0; !size && i < out.count; ++i) {
      GgufMetadata::Value element;
      element.type = out.elementType;
      if (auto result = parseValue(reader, what, depth + 1, element); !result)
        return result;
    }
  }
  if (reader.failed())
    return reader.error(what);
  return {};
}

Expected<GgufMetadata::Values> moe::io::parseGgufPairs(GgufReader &reader,
                                                       uint64_t count) {
  GgufMetadata::Values values;
  for (uint64_t i = 0; i < count; ++i) {
    std::string what = "key " + std::to_string(i);
    std::string_view key = reader.text();
    if (reader.failed())
      return reader.error(what);
    if (Expected<void> result = checkGgufName(what, key); !result)
      return result.takeError();
    if (key.empty())
      return Error{what + " is empty"};
    what = "key '" + std::string(key) + "'";
    GgufMetadata::Value value;
    value.type = reader.number<uint32_t>();
    if (reader.failed())
      return reader.error(what);
    if (Expected<void> result = parseValue(reader, what, 0, value); !result)
      return result.takeError();
    if (!values.emplace(key, value).second)
      return Error{"repeated " + what};
  }
  return values;
}

static std::string describe(const GgufMetadata::Value &value) {
  std::string text = valueTypes[value.type].name;
  if (value.type == typeArray)
    text = std::string("an array of ") + valueTypes[value.elementType].name;
  return text;
}

template <typename T> static T load(const char *data, uint64_t index = 0) {
  T value;
  std::memcpy(&value, data + index * sizeof(T), sizeof(T));
  return value;
}

/// Element `index` of integers; false if it exceeds 2^63-1, or if they are
/// none.
static bool loadInteger(uint32_t type, const char *data, uint64_t index,
                        int64_t &out) {
  uint64_t large;
  switch (type) {
  case typeU8:
    out = load<uint8_t>(data, index);
    return true;
  case typeI8:
    out = load<int8_t>(data, index);
    return true;
  case typeU16:
    out = load<uint16_t>(data, index);
    return true;
  case typeI16:
    out = load<int16_t>(data, index);
    return true;
  case typeU32:
    out = load<uint32_t>(data, index);
    return true;
  case typeI32:
    out = load<int32_t>(data, index);
    return true;
  case typeU64:
    large = load<uint64_t>(data, index);
    out = static_cast<int64_t>(large);
    return large <= INT64_MAX;
  case typeI64:
    out = load<int64_t>(data, index);
    return true;
  default:
    return false;
  }
}

static bool isInteger(uint32_t type) {
  return type != typeF32 && type != typeF64 && type != typeBool &&
         type != typeString && type != typeArray;
}

static Error wrongType(std::string_view key, const GgufMetadata::Value &value,
                       const char *expected) {
  return Error{"key '" + std::string(key) + "' is " + describe(value) +
               ", expected " + expected};
}

static Error tooLarge(std::string_view key) {
  return Error{"key '" + std::string(key) +
               "' has an integer that exceeds 2^63-1"};
}

std::vector<std::string> GgufMetadata::keys() const {
  std::vector<std::string> result;
  for (const auto &[key, value] : values)
    result.push_back(key);
  return result;
}

Expected<GgufMetadata::Value> GgufMetadata::find(std::string_view key) const {
  auto position = values.find(key);
  if (position == values.end())
    return Error{"there is no key '" + std::string(key) + "'",
                 ErrorKind::NotFound};
  return position->second;
}

Expected<std::string> GgufMetadata::string(std::string_view key) const {
  Expected<Value> value = find(key);
  if (!value)
    return value.takeError();
  if (value->type != typeString)
    return wrongType(key, *value, "a string");
  return std::string(value->data, value->count);
}

Expected<int64_t> GgufMetadata::integer(std::string_view key) const {
  Expected<Value> value = find(key);
  if (!value)
    return value.takeError();
  int64_t number;
  if (!isInteger(value->type))
    return wrongType(key, *value, "an integer");
  if (!loadInteger(value->type, value->data, 0, number))
    return tooLarge(key);
  return number;
}

Expected<double> GgufMetadata::real(std::string_view key) const {
  Expected<Value> value = find(key);
  if (!value)
    return value.takeError();
  if (value->type == typeF32)
    return static_cast<double>(load<float>(value->data));
  if (value->type == typeF64)
    return load<double>(value->data);
  return wrongType(key, *value, "f32 or f64");
}

Expected<bool> GgufMetadata::boolean(std::string_view key) const {
  Expected<Value> value = find(key);
  if (!value)
    return value.takeError();
  if (value->type != typeBool)
    return wrongType(key, *value, "a bool");
  return load<uint8_t>(value->data) != 0;
}

Expected<std::vector<int64_t>>
GgufMetadata::integers(std::string_view key) const {
  Expected<Value> value = find(key);
  if (!value)
    return value.takeError();
  if (value->type != typeArray || !isInteger(value->elementType))
    return wrongType(key, *value, "an array of integers");
  std::vector<int64_t> numbers(value->count);
  for (uint64_t i = 0; i < value->count; ++i)
    if (!loadInteger(value->elementType, value->data, i, numbers[i]))
      return tooLarge(key);
  return numbers;
}
