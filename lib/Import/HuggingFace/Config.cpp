//===- Config.cpp - Read a config.json ------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Config.h"

#include "moe_rt/io.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FormatVariadic.h"

#include <cmath>
#include <limits>

using namespace mlir::moe::importer;
namespace json = llvm::json;

//===----------------------------------------------------------------------===//
// Parsing
//===----------------------------------------------------------------------===//

/// Guards against a stack overflow: the parser recurses for each bracket.
static bool nestsDeeperThan(llvm::StringRef text, unsigned limit) {
  unsigned depth = 0;
  bool inString = false;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (inString) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        inString = false;
    } else if (c == '"') {
      inString = true;
    } else if (c == '[' || c == '{') {
      if (++depth > limit)
        return true;
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
  return false;
}

llvm::Expected<json::Value>
mlir::moe::importer::parseConfig(llvm::StringRef text) {
  constexpr unsigned maxDepth = 64;
  if (nestsDeeperThan(text, maxDepth))
    return llvm::createStringError("nested deeper than %u levels", maxDepth);
  // NaN and infinities, which JSON lacks, become a value that overflows to
  // infinity and that no key accepts.
  llvm::Expected<json::Value> value =
      json::parse(::moe::io::replaceNonFinite(text, "1e999", "1e999"));
  if (!value)
    return llvm::createStringError("invalid JSON: " +
                                   llvm::toString(value.takeError()));
  if (!value->getAsObject())
    return llvm::createStringError("expected an object at the top level");
  return value;
}

//===----------------------------------------------------------------------===//
// Errors
//===----------------------------------------------------------------------===//

void Config::fail(const llvm::Twine &message) const {
  if (error->empty())
    *error = message.str();
}

std::string Config::quote(const Key &key) const {
  return llvm::join(llvm::map_range(key.names,
                                    [&](llvm::StringRef name) {
                                      return ("'" + path + name + "'").str();
                                    }),
                    " or ");
}

/// Describes a value of the wrong kind for an error.
static std::string describe(const json::Value &value) {
  switch (value.kind()) {
  case json::Value::Null:
    return "null";
  case json::Value::Boolean:
    return *value.getAsBoolean() ? "true" : "false";
  case json::Value::Number:
    if (!std::isfinite(*value.getAsNumber()))
      return "a number that is not finite";
    return llvm::formatv("{0}", value).str();
  case json::Value::String:
    return "a string";
  case json::Value::Array:
    return "an array";
  case json::Value::Object:
    return "an object";
  }
  llvm_unreachable("unknown kind of JSON value");
}

void Config::failKind(const Key &key, llvm::StringRef expected,
                      const json::Value &value) const {
  fail("expected " + quote(key) + " to be " + expected + ", got " +
       describe(value));
}

//===----------------------------------------------------------------------===//
// Values
//===----------------------------------------------------------------------===//

/// Returns the value at a path such as "ffn_config.moe_top_k".
static const json::Value *lookup(const json::Object *object,
                                 llvm::StringRef path) {
  while (object) {
    auto [name, rest] = path.split('.');
    const json::Value *value = object->get(name);
    if (rest.empty() || !value)
      return value;
    object = value->getAsObject();
    path = rest;
  }
  return nullptr;
}

const json::Value *Config::find(const Key &key) const {
  for (llvm::StringRef name : key.names)
    if (const json::Value *value = lookup(object, name))
      if (value->kind() != json::Value::Null)
        return value;
  return nullptr;
}

bool Config::isNull(llvm::StringRef name) const {
  const json::Value *value = lookup(object, name);
  return value && value->kind() == json::Value::Null;
}

bool Config::isArray(const Key &key) const {
  const json::Value *value = find(key);
  return value && value->kind() == json::Value::Array;
}

Config Config::section(llvm::StringRef name) const {
  static const json::Object empty;
  Key key = {name};
  const json::Value *value = find(key);
  const json::Object *inner = value ? value->getAsObject() : nullptr;
  if (!value)
    fail("missing key " + quote(key));
  else if (!inner)
    failKind(key, "an object", *value);
  return Config(inner ? *inner : empty, *error, path + name.str() + ".");
}

int64_t Config::integer(const Key &key, int64_t least, int64_t most,
                        std::optional<int64_t> absent) const {
  const json::Value *value = find(key);
  if (!value) {
    if (!absent)
      fail("missing key " + quote(key));
    return absent.value_or(least);
  }
  std::optional<int64_t> number = value->getAsInteger();
  if (!number || *number < least || *number > most) {
    failKind(key,
             ("an integer between " + llvm::Twine(least) + " and " +
              llvm::Twine(most))
                 .str(),
             *value);
    return least;
  }
  return *number;
}

double Config::real(const Key &key, std::optional<double> absent) const {
  const json::Value *value = find(key);
  if (!value) {
    if (!absent)
      fail("missing key " + quote(key));
    return absent.value_or(1.0);
  }
  std::optional<double> number = value->getAsNumber();
  // It is used in f32, in which a large double is infinite.
  if (!number || !(std::abs(*number) <= std::numeric_limits<float>::max())) {
    failKind(key, "a number that is finite in f32", *value);
    return 1.0;
  }
  return *number;
}

bool Config::flag(const Key &key, bool absent) const {
  const json::Value *value = find(key);
  if (!value)
    return absent;
  std::optional<bool> flag = value->getAsBoolean();
  if (!flag)
    failKind(key, "true or false", *value);
  return flag.value_or(absent);
}

llvm::StringRef Config::text(const Key &key, llvm::StringRef absent) const {
  const json::Value *value = find(key);
  if (!value)
    return absent;
  std::optional<llvm::StringRef> text = value->getAsString();
  if (!text)
    failKind(key, "a string", *value);
  return text.value_or(absent);
}

llvm::SmallVector<int64_t> Config::integers(const Key &key, int64_t least,
                                            int64_t most) const {
  llvm::SmallVector<int64_t> numbers;
  const json::Value *value = find(key);
  if (!value)
    return numbers;
  const json::Array *array = value->getAsArray();
  if (!array) {
    failKind(key, "an array", *value);
    return numbers;
  }
  for (const json::Value &element : *array) {
    std::optional<int64_t> number = element.getAsInteger();
    if (!number || *number < least || *number > most) {
      fail("expected " + quote(key) + " to hold integers between " +
           llvm::Twine(least) + " and " + llvm::Twine(most) + ", got " +
           describe(element));
      return numbers;
    }
    numbers.push_back(*number);
  }
  return numbers;
}

llvm::SmallVector<llvm::StringRef> Config::texts(const Key &key) const {
  llvm::SmallVector<llvm::StringRef> texts;
  const json::Value *value = find(key);
  if (!value)
    return texts;
  const json::Array *array = value->getAsArray();
  if (!array) {
    failKind(key, "an array", *value);
    return texts;
  }
  for (const json::Value &element : *array) {
    std::optional<llvm::StringRef> text = element.getAsString();
    if (!text) {
      fail("expected " + quote(key) + " to hold strings, got " +
           describe(element));
      return texts;
    }
    texts.push_back(*text);
  }
  return texts;
}
