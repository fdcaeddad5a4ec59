//===- json.h - Read JSON that may be hostile -------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A strict reader of untrusted JSON. It refuses deep nesting and repeated keys,
// and its accessors return nothing where the type is wrong: the library's own
// would abort, as exceptions are off.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_SUPPORT_JSON_H
#define MOE_RT_SRC_SUPPORT_JSON_H

#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>

namespace moe::json {

using Value = nlohmann::json;

/// Nothing that the runtime reads nests deeper than this.
inline constexpr size_t maxDepth = 32;

/// False, with the reason in `error`, unless the text is one JSON value.
[[nodiscard]] bool parse(const char *text, size_t size, Value &out,
                         std::string &error);

/// The member `key` of an object; nullptr if there is none or `value` is no
/// object.
const Value *find(const Value &value, const char *key);

/// The value if it has that type, else nullptr. `value` may be nullptr.
const std::string *asString(const Value *value);
const Value::array_t *asArray(const Value *value);
const Value::object_t *asObject(const Value *value);
/// False unless the value is an integer that fits.
[[nodiscard]] bool asInt(const Value *value, int64_t &out);

[[nodiscard]] bool asBool(const Value *value, bool &out);

/// What a message calls a value: "a string", "nothing" for nullptr.
const char *describe(const Value *value);

} // namespace moe::json

#endif // MOE_RT_SRC_SUPPORT_JSON_H
