//===- Config.h - Read a config.json ----------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_IMPORT_HUGGINGFACE_CONFIG_H
#define MOE_LIB_IMPORT_HUGGINGFACE_CONFIG_H

#include "llvm/ADT/SmallVector.h"
#include "llvm/Support/Error.h"
#include "llvm/Support/JSON.h"

#include <initializer_list>
#include <optional>

namespace mlir::moe::importer {

/// Parses a config.json; its top level is an object.
llvm::Expected<llvm::json::Value> parseConfig(llvm::StringRef text);

/// A key, or its names in different releases: the first that is present is
/// read. "a.b" is the key b of the object a.
struct Key {
  Key() = default; // no key: never present
  Key(const char *name) : names{name} {}
  Key(llvm::StringRef name) : names{name} {}
  Key(std::initializer_list<llvm::StringRef> names) : names(names) {}
  bool empty() const { return names.empty(); }

  llvm::SmallVector<llvm::StringRef, 2> names;
};

/// Reads an object of a config.json. The first error is kept, and later reads
/// return values that are safe to compute with, so that a layer is described
/// completely before the error is checked once. A null value counts as absent,
/// like None in Python.
class Config {
public:
  /// `error` must outlive the reader and its sections; empty without an error.
  Config(const llvm::json::Object &object, std::string &error,
         std::string path = "")
      : object(&object), error(&error), path(std::move(path)) {}

  bool has(const Key &key) const { return find(key) != nullptr; }
  /// True if present with the value null.
  bool isNull(llvm::StringRef name) const;
  bool isArray(const Key &key) const;
  /// Returns the object under `name`; empty, with an error, if it is missing.
  Config section(llvm::StringRef name) const;

  int64_t integer(const Key &key, int64_t least, int64_t most,
                  std::optional<int64_t> absent = std::nullopt) const;
  double real(const Key &key, std::optional<double> absent) const;
  bool flag(const Key &key, bool absent) const;
  llvm::StringRef text(const Key &key, llvm::StringRef absent) const;
  llvm::SmallVector<int64_t> integers(const Key &key, int64_t least,
                                      int64_t most) const;
  llvm::SmallVector<llvm::StringRef> texts(const Key &key) const;

  /// Returns an extent of a matrix. Its limit and that of `experts` keep all
  /// sizes within 63 bits.
  int64_t extent(const Key &key) const { return integer(key, 1, 1 << 20); }
  int64_t experts(const Key &key) const { return integer(key, 1, 1 << 16); }
  int64_t layers(const Key &key) const { return integer(key, 1, 1 << 16); }

  /// Returns the quoted key with the object it is in: "'num_experts'".
  std::string quote(const Key &key) const;
  /// Records an error unless there is one.
  void fail(const llvm::Twine &message) const;
  bool failed() const { return !error->empty(); }

private:
  const llvm::json::Value *find(const Key &key) const;
  void failKind(const Key &key, llvm::StringRef expected,
                const llvm::json::Value &value) const;

  const llvm::json::Object *object;
  std::string *error;
  std::string path;
};

} // namespace mlir::moe::importer

#endif // MOE_LIB_IMPORT_HUGGINGFACE_CONFIG_H
