//===- node.h - A value of the metadata -------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_ARTIFACT_NODE_H
#define MOE_RT_SRC_ARTIFACT_NODE_H

#include "support/json.h"
#include "support/status.h"

#include <string>

namespace moe::rt {

/// A JSON value of the metadata and the path to it, which messages name.
class Node {
public:
  Node(const json::Value *value, std::string path)
      : value(value), path(std::move(path)) {}

  Node member(const char *key) const {
    return {value ? json::find(*value, key) : nullptr,
            path.empty() ? key : path + "." + key};
  }
  Node element(size_t index) const {
    return {&(*json::asArray(value))[index],
            path + "[" + std::to_string(index) + "]"};
  }
  bool exists() const { return value != nullptr; }

  moe_rt_status_t expected(const char *what) const {
    return makeError(MOE_RT_DATA_LOSS, "metadata: %s is %s, expected %s",
                     path.c_str(), json::describe(value), what);
  }
  moe_rt_status_t refuse(const std::string &why) const {
    return makeError(MOE_RT_DATA_LOSS, "metadata: %s %s", path.c_str(),
                     why.c_str());
  }

  moe_rt_status_t object() const {
    return json::asObject(value) ? nullptr : expected("an object");
  }
  moe_rt_status_t array(size_t &size) const {
    const auto *array = json::asArray(value);
    if (!array)
      return expected("an array");
    size = array->size();
    return nullptr;
  }
  moe_rt_status_t array(size_t &size, size_t limit) const {
    MOE_RT_TRY(array(size));
    if (size > limit)
      return refuse("has " + std::to_string(size) +
                    " elements, expected at most " + std::to_string(limit));
    return nullptr;
  }
  /// A string that is safe to print: not empty, no control characters.
  moe_rt_status_t string(std::string &out) const {
    const std::string *text = json::asString(value);
    if (!text)
      return expected("a string");
    if (text->empty())
      return refuse("is empty");
    for (char c : *text)
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
        return refuse("has control characters");
    out = *text;
    return nullptr;
  }
  moe_rt_status_t boolean(bool &out) const {
    if (!json::asBool(value, out))
      return expected("true or false");
    return nullptr;
  }
  moe_rt_status_t integer(int64_t min, int64_t max, int64_t &out) const {
    int64_t number;
    if (!json::asInt(value, number))
      return expected("an integer");
    if (number < min || number > max)
      return refuse("is " + std::to_string(number) + ", expected " +
                    std::to_string(min) +
                    (min == max ? "" : " to " + std::to_string(max)));
    out = number;
    return nullptr;
  }

private:
  const json::Value *value;
  std::string path;
};

} // namespace moe::rt

#endif // MOE_RT_SRC_ARTIFACT_NODE_H
