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

namespace mlir::moe::hf {

/// Parse a config.json; its top level is an object.
llvm::Expected<llvm::json::Value> parseConfig(llvm::StringRef text);

/// A key, or the names it has in different releases: the first that is present
/// counts.
struct Key {
  Key(const char *name) : names{name} {}
  Key(std::initializer_list<llvm::StringRef> names) : names(names) {}
  llvm::SmallVector<llvm::StringRef, 2> names;
};

/// Reads an object of a config.json. The first thing that is wrong is kept as
/// the error, and the reader then answers with values that do no harm: whoever
/// describes a layer reads all that it needs and the error is asked for once.
/// A value of null counts as absent, as None does in Python.
class Config {
public:
  /// `error` outlives the reader and its sections; empty while all is well.
  Config(const llvm::json::Object &object, std::string &error,
         std::string path = "")
      : object(&object), error(&error), path(std::move(path)) {}

  bool has(const Key &key) const { return find(key) != nullptr; }
  /// Present, with the value null.
  bool isNull(llvm::StringRef name) const;
  /// The object under `name`; empty, and an error, where it is none.
  Config section(const char *name) const;

  int64_t integer(const Key &key, int64_t least, int64_t most,
                  std::optional<int64_t> absent = std::nullopt) const;
  double real(const Key &key, std::optional<double> absent) const;
  bool flag(const Key &key, bool absent) const;
  llvm::StringRef text(const Key &key, llvm::StringRef absent) const;
  llvm::SmallVector<int64_t> integers(const Key &key, int64_t least,
                                      int64_t most) const;

  /// An extent of a matrix. What the bounds of extents and experts allow fits
  /// 63 bits in bytes, whatever is multiplied.
  int64_t extent(const Key &key) const { return integer(key, 1, 1 << 20); }
  int64_t experts(const Key &key) const { return integer(key, 1, 1 << 16); }
  int64_t layers(const Key &key) const { return integer(key, 1, 1 << 16); }

  /// "'num_experts'", with the object it is in.
  std::string quote(const Key &key) const;
  /// Keep `message` unless something was wrong before.
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

} // namespace mlir::moe::hf

#endif // MOE_LIB_IMPORT_HUGGINGFACE_CONFIG_H
