//===- BlockFormats.cpp - Formats of blocks with their scales -------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "BlockFormats.h"

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FormatVariadic.h"

using namespace mlir::moe;

namespace {
struct Entry {
  llvm::StringLiteral name;
  int64_t elements, bytes;    // of a block
  llvm::StringLiteral format; // without its record
};
} // namespace

// ggml-common.h of ggml has the structures.
static constexpr Entry formats[] = {
    {"q8_0", 32, 34,
     "#moe.format<codes = <element = si8, bits = [#moe.bits<width = 8, "
     "byte = 2>]>, scales = [#moe.field<element = f16, block = [1, 32], "
     "bits = [#moe.bits<width = 16>]>]>"},
    {"q4_0", 32, 18,
     "#moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4, "
     "byte = 2, run = 16>]>, offset = 8, scales = [#moe.field<element = "
     "f16, block = [1, 32], bits = [#moe.bits<width = 16>]>]>"},
    {"q4_K", 256, 144,
     "#moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4, "
     "byte = 16, run = 32>]>, scales = [#moe.field<element = f16, block "
     "= [1, 256], bits = [#moe.bits<width = 16>]>, #moe.field<element = "
     "ui6, block = [1, 32], bits = [#moe.bits<width = 6, byte = 4, run "
     "= 4, count = 4>, #moe.bits<width = 4, byte = 12, run = 4, first = "
     "4, count = 4>, #moe.bits<width = 2, byte = 4, bit = 6, run = 4, "
     "first = 4, count = 4, shift = 4>]>], mins = [#moe.field<element = "
     "f16, block = [1, 256], bits = [#moe.bits<width = 16, byte = 2>]>, "
     "#moe.field<element = ui6, block = [1, 32], bits = "
     "[#moe.bits<width = 6, byte = 8, run = 4, count = 4>, "
     "#moe.bits<width = 4, byte = 12, bit = 4, run = 4, first = 4, "
     "count = 4>, #moe.bits<width = 2, byte = 8, bit = 6, run = 4, "
     "first = 4, count = 4, shift = 4>]>]>"},
    {"q6_K", 256, 210,
     "#moe.format<codes = <element = ui6, bits = [#moe.bits<width = 4, "
     "run = 64>, #moe.bits<width = 2, byte = 128, run = 32, shift = "
     "4>]>, offset = 32, scales = [#moe.field<element = f16, block = "
     "[1, 256], bits = [#moe.bits<width = 16, byte = 208>]>, "
     "#moe.field<element = si8, block = [1, 16], bits = "
     "[#moe.bits<width = 8, byte = 192>]>]>"},
    {"mxfp4", 32, 17,
     "#moe.format<codes = <element = f4E2M1FN, bits = [#moe.bits<width "
     "= 4, byte = 1, run = 16>]>, scales = [#moe.field<element = "
     "f8E8M0FNU, block = [1, 32], bits = [#moe.bits<width = 8>]>]>"},
};

std::optional<importer::BlockFormat>
importer::findBlockFormat(llvm::StringRef name) {
  for (const Entry &entry : formats)
    if (entry.name == name)
      return BlockFormat{entry.elements, entry.bytes,
                         llvm::formatv("{0}, record = [{1}, {2}]>",
                                       entry.format.drop_back(), entry.elements,
                                       entry.bytes)
                             .str()};
  return std::nullopt;
}

std::string importer::listBlockFormats() {
  auto names = llvm::map_range(
      llvm::ArrayRef(formats).drop_back(),
      [](const Entry &entry) -> llvm::StringRef { return entry.name; });
  return (llvm::join(names, ", ") + " or " + std::end(formats)[-1].name).str();
}
