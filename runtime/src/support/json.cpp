//===- json.cpp - Read JSON that may be hostile ---------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "support/json.h"

#include "moe_rt/io.h"

#include <cstring>
#include <vector>

using namespace moe::json;

namespace {

/// Builds the value; stops at the first thing that is refused.
class Builder final : public nlohmann::json_sax<Value> {
public:
  explicit Builder(Value &root) : root(root) {}

  bool null() override { return add(Value()); }
  bool boolean(bool value) override { return add(Value(value)); }
  bool number_integer(number_integer_t value) override {
    return add(Value(value));
  }
  bool number_unsigned(number_unsigned_t value) override {
    return add(Value(value));
  }
  bool number_float(number_float_t value, const string_t &) override {
    return add(Value(value));
  }
  bool string(string_t &value) override { return add(Value(std::move(value))); }
  bool binary(binary_t &) override { return refuse("binary value"); }
  bool start_object(size_t) override { return open(Value(Value::object())); }
  bool end_object() override { return close(); }
  bool start_array(size_t) override { return open(Value(Value::array())); }
  bool end_array() override { return close(); }

  bool key(string_t &name) override {
    auto *object = stack.back()->get_ptr<Value::object_t *>();
    auto [position, inserted] = object->try_emplace(name);
    if (!inserted)
      return refuse("repeated key '" + name + "'");
    slot = &position->second;
    return true;
  }

  bool parse_error(size_t, const std::string &,
                   const nlohmann::detail::exception &exception) override {
    // The text behind the library's own "[json.exception...] ".
    std::string text = exception.what();
    size_t end = text.find("] ");
    return refuse(end == std::string::npos ? text : text.substr(end + 2));
  }

  std::string error;

private:
  bool refuse(std::string message) {
    error = std::move(message);
    return false;
  }

  /// Store a value where the next one belongs.
  Value *place(Value value) {
    if (stack.empty()) {
      root = std::move(value);
      return &root;
    }
    if (auto *array = stack.back()->get_ptr<Value::array_t *>()) {
      array->push_back(std::move(value));
      return &array->back();
    }
    *slot = std::move(value);
    return slot;
  }

  bool add(Value value) {
    place(std::move(value));
    return true;
  }

  bool open(Value value) {
    if (stack.size() == maxDepth)
      return refuse("nested deeper than " + std::to_string(maxDepth));
    // Stays valid: a parent does not grow while a child is open.
    stack.push_back(place(std::move(value)));
    return true;
  }

  bool close() {
    stack.pop_back();
    return true;
  }

  Value &root;
  Value *slot = nullptr;
  std::vector<Value *> stack;
};

} // namespace

bool moe::json::parse(const char *text, size_t size, Value &out,
                      std::string &error) {
  // To the library a NUL is the end of the text, whatever follows it.
  if (size > 0 && std::memchr(text, 0, size)) {
    error = "NUL character";
    return false;
  }
  Value root;
  Builder builder(root);
  if (!Value::sax_parse(text, text + size, &builder)) {
    error = builder.error;
    return false;
  }
  out = std::move(root);
  return true;
}

const Value *moe::json::find(const Value &value, const char *key) {
  const Value::object_t *object = asObject(&value);
  if (!object)
    return nullptr;
  auto position = object->find(key);
  return position == object->end() ? nullptr : &position->second;
}

const std::string *moe::json::asString(const Value *value) {
  return value ? value->get_ptr<const std::string *>() : nullptr;
}

const Value::array_t *moe::json::asArray(const Value *value) {
  return value ? value->get_ptr<const Value::array_t *>() : nullptr;
}

const Value::object_t *moe::json::asObject(const Value *value) {
  return value ? value->get_ptr<const Value::object_t *>() : nullptr;
}

bool moe::json::asBool(const Value *value, bool &out) {
  if (!value || !value->is_boolean())
    return false;
  out = *value->get_ptr<const bool *>();
  return true;
}

bool moe::json::asInt(const Value *value, int64_t &out) {
  if (!value)
    return false;
  if (value->is_number_unsigned()) {
    uint64_t number = *value->get_ptr<const uint64_t *>();
    if (number > static_cast<uint64_t>(INT64_MAX))
      return false;
    out = static_cast<int64_t>(number);
    return true;
  }
  if (!value->is_number_integer())
    return false;
  out = *value->get_ptr<const int64_t *>();
  return true;
}

const char *moe::json::describe(const Value *value) {
  if (!value)
    return "nothing";
  switch (value->type()) {
  case Value::value_t::null:
    return "null";
  case Value::value_t::object:
    return "an object";
  case Value::value_t::array:
    return "an array";
  case Value::value_t::string:
    return "a string";
  case Value::value_t::boolean:
    return "a boolean";
  default:
    return "a number";
  }
}

/// Whether a value may begin behind this character, or end before it.
static bool isBoundary(char c) {
  return std::strchr(" \t\r\n,:[]{}", c) != nullptr;
}

std::string moe::io::replaceNonFinite(std::string_view text,
                                      std::string_view nan,
                                      std::string_view infinity) {
  std::string result;
  bool inString = false;
  for (size_t i = 0; i < text.size();) {
    auto stands = [&](std::string_view word) {
      size_t end = i + word.size();
      return text.compare(i, word.size(), word) == 0 &&
             (i == 0 || isBoundary(text[i - 1])) &&
             (end == text.size() || isBoundary(text[end]));
    };
    size_t length = 1;
    if (inString) {
      length = text[i] == '\\' && i + 1 < text.size() ? 2 : 1;
      inString = text[i] != '"';
      result.append(text, i, length);
    } else if (stands("NaN")) {
      length = 3;
      result += nan;
    } else if (stands("Infinity") || stands("-Infinity")) {
      bool negative = text[i] == '-';
      length = negative ? 9 : 8;
      result.append(negative ? "-" : "").append(infinity);
    } else {
      inString = text[i] == '"';
      result += text[i];
    }
    i += length;
  }
  return result;
}
