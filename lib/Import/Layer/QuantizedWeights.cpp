//===- QuantizedWeights.cpp - Tensors of quantised weights ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "QuantizedWeights.h"

#include "BlockFormats.h"
#include "Checkpoint.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/Twine.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/MathExtras.h"

#include <limits>

using namespace mlir::moe;
using namespace mlir::moe::importer;
using llvm::createStringError;
using llvm::StringLiteral;
using llvm::StringRef;

//===----------------------------------------------------------------------===//
// Formats
//===----------------------------------------------------------------------===//

namespace {
/// A way in which checkpoints store a matrix. Suffixes follow the name of the
/// weight, without its ".weight" unless they are empty.
struct Format {
  /// The codes: suffix and type of the tensor, and of #moe.field.
  StringLiteral codesSuffix, codesType;
  StringLiteral codes;
  int64_t bits;   // of a code
  bool isGrouped; // the codes of a group have a dimension of their own
  int64_t offset; // without zero points
  /// The scales: suffixes, types, and columns of a group (0: as the shapes or
  /// the configuration say).
  std::array<StringLiteral, 4> scaleSuffixes;
  std::array<StringLiteral, 5> scaleTypes;
  int64_t group;
  /// The type of zero points, if there may be; packed along the rows if `bits`
  /// of them share a word.
  StringLiteral zeroType = "", zero = "";
};
} // namespace

// Bits are packed from the lowest on. A scale in u8 is an exponent.
static constexpr Format formats[] = {
    // gpt-oss; transformers' integrations/mxfp4.py
    {"_blocks",
     "u8",
     "element = f4E2M1FN, bits = [#moe.bits<width = 4>]",
     4,
     true,
     0,
     {"_scales", "", "", ""},
     {"u8", "", "", "", ""},
     32},
    // compressed-tensors' mxfp4-pack-quantized
    {".weight_packed",
     "u8",
     "element = f4E2M1FN, bits = [#moe.bits<width = 4>]",
     4,
     false,
     0,
     {".weight_scale", "", "", ""},
     {"u8", "f8E8M0FNU", "", "", ""},
     32},
    // DeepSeek-V3 and V4, Mistral Large 4; transformers'
    // integrations/finegrained_fp8.py
    {"",
     "f8E4M3FN",
     "element = f8E4M3FN",
     8,
     false,
     0,
     {".weight_scale_inv", "_scale_inv", ".scale", ".qscale_weight"},
     {"f32", "bf16", "f16", "f8E8M0FNU", "u8"},
     0},
    // compressed-tensors' float-quantized; Inkling 2
    {"",
     "f8E4M3FN",
     "element = f8E4M3FN",
     8,
     false,
     0,
     {".weight_scale", "_scale", "", ""},
     {"f32", "bf16", "f16", "f8E8M0FNU", "u8"},
     0},
    // compressed-tensors' int-quantized
    {"",
     "i8",
     "element = si8",
     8,
     false,
     0,
     {".weight_scale", "_scale", "", ""},
     {"f32", "bf16", "f16", "", ""},
     0,
     "i8",
     "element = si8"},
    // DeepSeek-V4's experts: two codes a byte, the lower bits first; the same
    {"",
     "i8",
     "element = f4E2M1FN, bits = [#moe.bits<width = 4>]",
     4,
     false,
     0,
     {".weight_scale_inv", "_scale_inv", ".scale", ""},
     {"f32", "bf16", "f16", "f8E8M0FNU", "u8"},
     0},
    // compressed-tensors' pack-quantized
    {".weight_packed",
     "i32",
     "element = ui4, bits = [#moe.bits<width = 4>]",
     4,
     false,
     8,
     {".weight_scale", "", "", ""},
     {"f32", "bf16", "f16", "", ""},
     0,
     "i32",
     "element = ui4, axis = 0, bits = [#moe.bits<width = 4>]"},
    {".weight_packed",
     "i32",
     "element = ui8, bits = [#moe.bits<width = 8>]",
     8,
     false,
     128,
     {".weight_scale", "", "", ""},
     {"f32", "bf16", "f16", "", ""},
     0,
     "i32",
     "element = ui8, axis = 0, bits = [#moe.bits<width = 8>]"},
};

namespace {
struct Sign {
  /// The suffix after the name of a weight without its ".weight".
  StringLiteral suffix;
  StringLiteral format;
};
} // namespace

// Suffixes that several formats share follow those of a single format.
static constexpr Sign signs[] = {
    {"_blocks", "MXFP4"},
    {"_scales", "MXFP4"},
    {".weight_scale_inv", "fp8 with scales of blocks"},
    {"_scale_inv", "fp8 with scales of blocks"},
    {".qscale_weight", "fp8"},
    {".weight_scale_2", "ModelOpt NVFP4"},
    {".weight_global_scale", "compressed-tensors NVFP4"},
    {".weight_packed", "compressed-tensors"},
    {".weight_zero_point", "compressed-tensors"},
    {".weight_g_idx", "compressed-tensors with columns in another order"},
    {".weight_scale", "compressed-tensors or ModelOpt"},
    {".g_idx", "GPTQ"},
    {".qweight", "AWQ or GPTQ"},
    {".qzeros", "AWQ or GPTQ"},
    {".weight.absmax", "bitsandbytes"},
    {".weight.quant_map", "bitsandbytes"},
    {".SCB", "bitsandbytes"},
    {".weight.SCB", "bitsandbytes"},
    {".W_q", "HQQ"},
    {".scales", "AWQ, GPTQ or the like"},
};

/// Returns the name of a tensor beside `weight`.
static std::string nameBeside(StringRef weight, StringRef suffix) {
  if (suffix.empty())
    return weight.str();
  (void)weight.consume_back(".weight");
  return (weight + suffix).str();
}

std::string mlir::moe::importer::describeQuantization(
    StringRef weight, CheckpointReader &checkpoint,
    llvm::ArrayRef<QuantizedField> known) {
  for (const Sign &sign : signs) {
    std::string tensor = nameBeside(weight, sign.suffix);
    if (!checkpoint.contains(tensor) ||
        llvm::any_of(known, [&](const QuantizedField &field) {
          return field.tensor == tensor;
        }))
      continue;
    return ("expected '" + weight +
            "' in f32, f16, bf16 or a format that can "
            "be imported, got a quantised weight (" +
            sign.format + "): there is a tensor '" + tensor + "'")
        .str();
  }
  return "";
}

//===----------------------------------------------------------------------===//
// Tensors
//===----------------------------------------------------------------------===//

/// Returns the type of an argument that holds elements of `dtype`.
static std::string argumentType(StringRef dtype) {
  return dtype == "u8" ? "i8" : dtype.str();
}

namespace {
/// Finds the tensors of one matrix in one format.
class FieldFinder {
public:
  FieldFinder(StringRef weight, const MatrixShape &shape, const Format &format,
              CheckpointReader &checkpoint, const QuantizationConfig &config)
      : weight(weight), shape(shape), format(format), checkpoint(checkpoint),
        config(config) {}

  llvm::Expected<QuantizedMatrix> run();

private:
  using Shape = llvm::SmallVector<int64_t>;

  /// A shape with the leading dimension of stacked matrices.
  Shape stacked(llvm::ArrayRef<int64_t> inner) const {
    Shape result;
    if (shape.experts)
      result.push_back(*shape.experts);
    llvm::append_range(result, inner);
    return result;
  }
  llvm::Error add(StringRef suffix, const std::string &tensor,
                  llvm::ArrayRef<StringLiteral> types,
                  llvm::ArrayRef<int64_t> expected);
  llvm::Error findBlocks(const std::string &scales);
  llvm::Error addScales();
  llvm::Error addZeros();

  StringRef weight;
  const MatrixShape &shape;
  const Format &format;
  CheckpointReader &checkpoint;
  const QuantizationConfig &config;
  QuantizedMatrix result;
  int64_t blockRows = 0, blockColumns = 0;
};
} // namespace

static std::string joinTypes(llvm::ArrayRef<StringLiteral> types) {
  std::string text;
  for (StringRef type : types)
    if (!type.empty())
      text += (text.empty() ? "" : " or ") + type.str();
  return text;
}

/// Adds a tensor, of the shape `expected`; last extents of 1 may be missing.
llvm::Error FieldFinder::add(StringRef suffix, const std::string &tensor,
                             llvm::ArrayRef<StringLiteral> types,
                             llvm::ArrayRef<int64_t> expected) {
  std::string wanted = typeName(joinTypes(types), expected);
  if (!checkpoint.contains(tensor)) {
    std::string beside;
    if (!result.fields.empty()) {
      const QuantizedField &codes = result.fields.front();
      beside = "tensor '" + codes.tensor + "' is " +
               typeName(codes.dtype, codes.shape) + ", and ";
    }
    return createStringError(beside + "the checkpoint has no tensor '" +
                             tensor + "', expected " + wanted);
  }
  auto found = checkpoint.lookup(tensor);
  if (!found)
    return createStringError("tensor '" + tensor +
                             "': " + llvm::toString(found.takeError()));
  llvm::ArrayRef<int64_t> stored(found->shape);
  bool hasShape = stored.size() <= expected.size() &&
                  stored == expected.take_front(stored.size()) &&
                  llvm::all_of(expected.drop_front(stored.size()),
                               [](int64_t extent) { return extent == 1; });
  bool hasType =
      llvm::any_of(types, [&](StringRef type) { return type == found->dtype; });
  if (!hasType || !hasShape)
    return createStringError("expected tensor '" + tensor + "' to be " +
                             wanted + ", got " +
                             typeName(found->dtype, found->shape));
  result.fields.push_back({suffix.str(), tensor, found->dtype,
                           argumentType(found->dtype),
                           Shape(found->shape.begin(), found->shape.end())});
  return llvm::Error::success();
}

/// Finds the block of a scale from the shape of the scales, with the
/// configuration where the shape leaves a choice.
llvm::Error FieldFinder::findBlocks(const std::string &scales) {
  auto found = checkpoint.lookup(scales);
  if (!found)
    return createStringError("tensor '" + scales +
                             "': " + llvm::toString(found.takeError()));
  llvm::ArrayRef<int64_t> extents(found->shape);
  if (shape.experts) {
    if (extents.empty() || extents.front() != *shape.experts)
      return createStringError("expected tensor '" + scales +
                               "' to have scales of " +
                               llvm::Twine(*shape.experts) + " experts, got " +
                               typeName(found->dtype, found->shape));
    extents = extents.drop_front();
  }
  int64_t rows = extents.empty() ? 1 : extents[0];
  int64_t columns = 1;
  for (int64_t extent : extents.drop_front(std::min<size_t>(extents.size(), 1)))
    if (llvm::MulOverflow(columns, extent, columns))
      columns = std::numeric_limits<int64_t>::max();
  // Extents that the configuration does not have are those of DeepSeek-V3.
  auto blockOf = [](int64_t count, int64_t extent, int64_t configured) {
    if (count == 1)
      return extent;
    if (count == extent)
      return int64_t(1);
    for (int64_t block : {configured, int64_t(128)})
      if (block > 0 && int64_t(llvm::divideCeil(extent, block)) == count)
        return block;
    return count > 0 && extent % count == 0 ? extent / count : int64_t(0);
  };
  blockRows = blockOf(rows, shape.rows, config.blockRows);
  blockColumns = blockOf(columns, shape.columns, config.blockColumns);
  if (blockRows == 0 || blockColumns == 0)
    return createStringError("expected tensor '" + scales +
                             "' to have a scale for each block of " +
                             typeName("", {shape.rows, shape.columns}) +
                             ", got " + typeName(found->dtype, found->shape));
  return llvm::Error::success();
}

llvm::Error FieldFinder::addScales() {
  std::string scales = nameBeside(weight, format.scaleSuffixes[0]);
  for (StringRef suffix : format.scaleSuffixes)
    if (!suffix.empty() && checkpoint.contains(nameBeside(weight, suffix)))
      scales = nameBeside(weight, suffix);
  blockRows = 1;
  blockColumns = format.group;
  if (blockColumns == 0 && checkpoint.contains(scales))
    if (llvm::Error error = findBlocks(scales))
      return error;
  if (blockColumns == 0)
    blockColumns = shape.columns;
  return add("_scale", scales, format.scaleTypes,
             stacked({int64_t(llvm::divideCeil(shape.rows, blockRows)),
                      int64_t(llvm::divideCeil(shape.columns, blockColumns))}));
}

llvm::Error FieldFinder::addZeros() {
  int64_t rows = llvm::divideCeil(shape.rows, blockRows);
  int64_t columns = llvm::divideCeil(shape.columns, blockColumns);
  if (format.zeroType == "i32")
    rows = llvm::divideCeil(rows, 32 / format.bits);
  return add("_zero_point", nameBeside(weight, ".weight_zero_point"),
             format.zeroType, stacked({rows, columns}));
}

llvm::Expected<QuantizedMatrix> FieldFinder::run() {
  Shape codes;
  int64_t perByte = 8 / format.bits;
  if (format.isGrouped)
    codes = stacked({shape.rows,
                     int64_t(llvm::divideCeil(shape.columns, format.group)),
                     format.group / perByte});
  else if (format.codesType == "i32")
    codes = stacked(
        {shape.rows, int64_t(llvm::divideCeil(shape.columns, 4 * perByte))});
  else
    codes = stacked(
        {shape.rows, int64_t(llvm::divideCeil(shape.columns, perByte))});
  if (llvm::Error error = add("", nameBeside(weight, format.codesSuffix),
                              format.codesType, codes))
    return error;
  if (llvm::Error error = addScales())
    return error;
  bool hasZeros = !format.zero.empty() &&
                  checkpoint.contains(nameBeside(weight, ".weight_zero_point"));
  if (hasZeros)
    if (llvm::Error error = addZeros())
      return error;

  std::string scaleType = result.fields[1].dtype;
  if (scaleType == "u8")
    scaleType = "f8E8M0FNU";
  std::string block =
      llvm::formatv("block = [{0}, {1}]", blockRows, blockColumns);
  result.format = llvm::formatv(
      "#moe.format<codes = <{0}>, offset = {1}, scales = "
      "[#moe.field<element = {2}, operand = 1, {3}>]",
      format.codes, hasZeros ? 0 : format.offset, scaleType, block);
  if (hasZeros)
    result.format +=
        llvm::formatv(", zero = <{0}, operand = 2, {1}>", format.zero, block);
  result.format += ">";
  return std::move(result);
}

/// Returns the format that the tensors of `weight` are in, if any. Formats with
/// the same codes differ in the names of their scales.
static const Format *findFormat(StringRef weight, CheckpointReader &checkpoint,
                                int64_t bits) {
  const Format *first = nullptr;
  for (const Format &format : formats) {
    std::string codes = nameBeside(weight, format.codesSuffix);
    if (!checkpoint.contains(codes))
      continue;
    auto found = checkpoint.lookup(codes);
    if (!found) {
      llvm::consumeError(found.takeError());
      continue;
    }
    if (found->dtype != format.codesType || (bits != 0 && bits != format.bits))
      continue;
    for (StringRef suffix : format.scaleSuffixes)
      if (!suffix.empty() && checkpoint.contains(nameBeside(weight, suffix)))
        return &format;
    if (!first)
      first = &format;
  }
  return first;
}

/// Returns the tensor if it is one of blocks with their own scales.
static std::optional<CheckpointReader::Tensor>
findBlocks(StringRef weight, CheckpointReader &checkpoint) {
  if (!checkpoint.contains(weight))
    return std::nullopt;
  auto found = checkpoint.lookup(weight);
  if (!found) {
    llvm::consumeError(found.takeError());
    return std::nullopt;
  }
  if (found->format.empty())
    return std::nullopt;
  return *found;
}

/// Describes a weight whose only tensor has blocks.
static llvm::Expected<QuantizedMatrix>
describeBlocks(StringRef weight, const MatrixShape &shape,
               const CheckpointReader::Tensor &tensor) {
  auto format = findBlockFormat(tensor.format);
  if (!format)
    return createStringError("expected tensor '" + weight +
                             "' in f32, f16, bf16, " + listBlockFormats() +
                             ", got " + tensor.format);
  llvm::SmallVector<int64_t> expected{shape.rows};
  if (shape.experts)
    expected.insert(expected.begin(), *shape.experts);
  int64_t blocks = llvm::divideCeil(shape.columns, format->elements), bytes;
  if (llvm::MulOverflow(blocks, format->bytes, bytes))
    bytes = std::numeric_limits<int64_t>::max();
  expected.push_back(bytes);
  if (llvm::ArrayRef<int64_t>(tensor.shape) != llvm::ArrayRef(expected))
    return createStringError("expected tensor '" + weight + "' to be " +
                             typeName(tensor.format, expected) +
                             " with rows in bytes, got " +
                             typeName(tensor.format, tensor.shape));
  QuantizedMatrix result;
  result.format = std::move(format->format);
  result.fields.push_back(
      {"", weight.str(), tensor.dtype, "i8", expected, tensor.format});
  return result;
}

bool mlir::moe::importer::isQuantized(StringRef weight,
                                      CheckpointReader &checkpoint) {
  return findBlocks(weight, checkpoint) ||
         findFormat(weight, checkpoint, 0) != nullptr;
}

llvm::Expected<QuantizedMatrix>
mlir::moe::importer::findQuantized(StringRef weight, const MatrixShape &shape,
                                   CheckpointReader &checkpoint,
                                   const QuantizationConfig &config) {
  if (auto blocks = findBlocks(weight, checkpoint))
    return describeBlocks(weight, shape, *blocks);
  // Only packed codes depend on the number of bits.
  bool isPacked = checkpoint.contains(nameBeside(weight, ".weight_packed"));
  const Format *format =
      findFormat(weight, checkpoint, isPacked ? config.bits : 0);
  if (!format)
    return createStringError("expected weight '" + weight.str() +
                             "' in 4 or 8 bits, got " +
                             llvm::Twine(config.bits));
  auto found = FieldFinder(weight, shape, *format, checkpoint, config).run();
  if (!found)
    return found.takeError();
  std::string others = describeQuantization(weight, checkpoint, found->fields);
  if (!others.empty())
    return createStringError(others);
  return found;
}
