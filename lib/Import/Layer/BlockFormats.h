//===- BlockFormats.h - Formats of blocks with their scales -----*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_IMPORT_LAYER_BLOCKFORMATS_H
#define MOE_LIB_IMPORT_LAYER_BLOCKFORMATS_H

#include "llvm/ADT/StringRef.h"

#include <string>

namespace mlir::moe::importer {

/// Returns the text of the #moe.format of tensors whose rows are blocks with
/// their own scales, by ggml's name of the format; empty if it cannot be
/// imported.
llvm::StringRef getBlockFormat(llvm::StringRef name);

/// Returns the names of those that can be, for errors.
std::string listBlockFormats();

} // namespace mlir::moe::importer

#endif // MOE_LIB_IMPORT_LAYER_BLOCKFORMATS_H
