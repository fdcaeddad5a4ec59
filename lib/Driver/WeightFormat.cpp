//===- WeightFormat.cpp - Formats of --quantize ---------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "WeightFormat.h"

#include "mlir/AsmParser/AsmParser.h"

using namespace mlir;
using namespace mlir::moe;
using llvm::StringRef;

/// As many rows or columns as a matrix has.
static constexpr int64_t wholeMatrix = int64_t(1) << 40;

/// A format by its name: the types of codes and scales as in the attributes
/// below, and what may follow the name.
struct mlir::moe::NamedFormat {
  StringRef name, codes, scale;
  int64_t offset, rows, columns;
  enum { Nothing, Group, Block } suffix;
};

static constexpr NamedFormat formats[] = {
    // Symmetric; the largest element of a group becomes -8 exactly.
    {"int4", "ui4", "f16", 8, 1, 32, NamedFormat::Group},
    {"int8", "si8", "f32", 0, 1, wholeMatrix, NamedFormat::Group},
    // Open Compute Project, Microscaling Formats (MX) v1.0.
    {"mxfp4", "f4E2M1FN", "f8E8M0FNU", 0, 1, 32, NamedFormat::Nothing},
    {"fp8", "f8E4M3FN", "f32", 0, 128, 128, NamedFormat::Block},
};

/// Parses an extent of a block.
static bool parseExtent(StringRef text, int64_t &extent) {
  return !text.getAsInteger(10, extent) && extent >= 1 && extent <= (1 << 20);
}

llvm::Expected<WeightFormat> WeightFormat::parse(StringRef text) {
  auto [name, suffix] = text.split(':');
  WeightFormat result;
  for (const NamedFormat &format : formats) {
    if (name != format.name)
      continue;
    result.format = &format;
    result.rows = format.rows;
    result.columns = format.columns;
    if (name == text)
      return result;
    auto [rows, columns] = suffix.split('x');
    if (format.suffix == NamedFormat::Group &&
        parseExtent(suffix, result.columns))
      return result;
    if (format.suffix == NamedFormat::Block && parseExtent(rows, result.rows) &&
        parseExtent(columns, result.columns))
      return result;
  }
  return llvm::createStringError(
      "--quantize: expected int4[:GROUP], int8[:GROUP], mxfp4 or "
      "fp8[:ROWSxCOLUMNS], such as int4:32 or fp8:128x128, got '" +
      text + "'");
}

FormatAttr WeightFormat::getAttr(MLIRContext *context) const {
  bool isPacked = format->codes.contains('4') && format->codes != "f8E4M3FN";
  std::string text = ("#moe.format<codes = <element = " + format->codes +
                      (isPacked ? ", bits = [#moe.bits<width = 4>]" : "") +
                      ">, offset = " + llvm::Twine(format->offset) +
                      ", scales = [#moe.field<element = " + format->scale +
                      ", operand = 1, block = [" + llvm::Twine(rows) + ", " +
                      llvm::Twine(columns) + "]>]>")
                         .str();
  return cast<FormatAttr>(parseAttribute(text, context));
}
