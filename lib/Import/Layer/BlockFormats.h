//===- BlockFormats.h - Formats of blocks with their scales -----*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_IMPORT_LAYER_BLOCKFORMATS_H
#define MOE_LIB_IMPORT_LAYER_BLOCKFORMATS_H

#include "llvm/ADT/StringRef.h"

#include <cstdint>
#include <optional>
#include <string>

namespace mlir::moe::importer {

/// How tensors are stored whose rows are blocks with their own scales.
struct BlockFormat {
  int64_t elements, bytes; // of a block
  std::string format;      // an attribute #moe.format
};

/// Finds a format by ggml's name of it; none if it cannot be imported.
std::optional<BlockFormat> findBlockFormat(llvm::StringRef name);

/// Returns the names of those that can be, for errors.
std::string listBlockFormats();

} // namespace mlir::moe::importer

#endif // MOE_LIB_IMPORT_LAYER_BLOCKFORMATS_H
