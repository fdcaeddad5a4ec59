//===- gguf.cpp - .gguf files ---------------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md: magic, version,
// counts, key-values, one entry a tensor, and aligned data. Numbers are
// little-endian. Nothing has a fixed place, so all of it is read in order.
//
//===----------------------------------------------------------------------===//

#include "io/gguf_reader.h"
#include "support/checked.h"
#include "support/dtype.h"

#include "moe_rt/io.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <tuple>

using namespace moe;
using namespace moe::io;

static constexpr char magic[] = {'G', 'G', 'U', 'F'};
static constexpr char alignmentKey[] = "general.alignment";
static constexpr uint32_t defaultAlignment = 32;
static constexpr size_t maxRank = 4;
// The least bytes of a key with its value, and of a tensor's entry.
static constexpr uint64_t minPairSize = 8 + 4 + 1;
static constexpr uint64_t minEntrySize = 8 + 4 + 4 + 8;

//===----------------------------------------------------------------------===//
// Types of tensors
//===----------------------------------------------------------------------===//

namespace {

/// A type of ggml: `elements` neighbours of a row are a block of `bytes` bytes.
struct TensorType {
  uint32_t id;
  BlockFormat block;                  // no elements: a type that is no more
  DLDataType dtype = {kDLUInt, 8, 1}; // of single elements, else bytes
};

} // namespace

static constexpr TensorType tensorTypes[] = {
    {0, {"f32", 1, 4}, {kDLFloat, 32, 1}},
    {1, {"f16", 1, 2}, {kDLFloat, 16, 1}},
    {2, {"q4_0", 32, 18}},
    {3, {"q4_1", 32, 20}},
    {4, {"q4_2", 0, 0}},
    {5, {"q4_3", 0, 0}},
    {6, {"q5_0", 32, 22}},
    {7, {"q5_1", 32, 24}},
    {8, {"q8_0", 32, 34}},
    {9, {"q8_1", 32, 36}},
    {10, {"q2_K", 256, 84}},
    {11, {"q3_K", 256, 110}},
    {12, {"q4_K", 256, 144}},
    {13, {"q5_K", 256, 176}},
    {14, {"q6_K", 256, 210}},
    {15, {"q8_K", 256, 292}},
    {16, {"iq2_xxs", 256, 66}},
    {17, {"iq2_xs", 256, 74}},
    {18, {"iq3_xxs", 256, 98}},
    {19, {"iq1_s", 256, 50}},
    {20, {"iq4_nl", 32, 18}},
    {21, {"iq3_s", 256, 110}},
    {22, {"iq2_s", 256, 82}},
    {23, {"iq4_xs", 256, 136}},
    {24, {"i8", 1, 1}, {kDLInt, 8, 1}},
    {25, {"i16", 1, 2}, {kDLInt, 16, 1}},
    {26, {"i32", 1, 4}, {kDLInt, 32, 1}},
    {27, {"i64", 1, 8}, {kDLInt, 64, 1}},
    {28, {"f64", 1, 8}, {kDLFloat, 64, 1}},
    {29, {"iq1_m", 256, 56}},
    {30, {"bf16", 1, 2}, {kDLBfloat, 16, 1}},
    {31, {"q4_0_4_4", 0, 0}},
    {32, {"q4_0_4_8", 0, 0}},
    {33, {"q4_0_8_8", 0, 0}},
    {34, {"tq1_0", 256, 54}},
    {35, {"tq2_0", 256, 66}},
    {36, {"iq4_nl_4_4", 0, 0}},
    {37, {"iq4_nl_4_8", 0, 0}},
    {38, {"iq4_nl_8_8", 0, 0}},
    {39, {"mxfp4", 32, 17}},
    {40, {"nvfp4", 64, 36}},
    {41, {"q1_0", 128, 18}},
    {42, {"q2_0", 64, 18}},
};

std::optional<BlockFormat> moe::io::findBlockFormat(std::string_view name) {
  for (const TensorType &type : tensorTypes)
    if (type.block.elements > 1 && name == type.block.name)
      return type.block;
  return std::nullopt;
}

//===----------------------------------------------------------------------===//
// Tensors
//===----------------------------------------------------------------------===//

namespace {

/// A tensor, and where the data has it.
struct Entry {
  const std::string *name;
  TensorView *view;
  std::string type; // for messages: that of elements
  uint64_t begin;

  Error refuse(const std::string &what) const {
    return Error{"tensor '" + *name + "' " + what};
  }
};

} // namespace

/// "q8_0[2, 64]": the shape as the file has it, but reversed.
static std::string describe(const TensorType &type,
                            const std::vector<int64_t> &shape) {
  std::string text = typeName({kDLUInt, 8, 1}, shape);
  return type.block.name + text.substr(text.find('['));
}

static Expected<void> parseType(uint32_t id, Entry &entry) {
  const TensorType *type = std::find_if(
      std::begin(tensorTypes), std::end(tensorTypes),
      [&](const TensorType &candidate) { return candidate.id == id; });
  if (type == std::end(tensorTypes))
    return entry.refuse("has unknown type " + std::to_string(id));
  const BlockFormat &block = type->block;
  if (block.elements == 0)
    return entry.refuse("has type " + std::string(block.name) + " (" +
                        std::to_string(id) + "), which is not supported");
  TensorView &view = *entry.view;
  entry.type = describe(*type, view.shape);
  view.dtype = type->dtype;
  if (block.elements > 1) {
    int64_t columns = view.shape.empty() ? 1 : view.shape.back();
    if (columns % block.elements != 0)
      return entry.refuse("of type " + entry.type + " has " +
                          std::to_string(columns) +
                          " elements a row, expected a multiple of " +
                          std::to_string(block.elements));
    if (!checkedMul(columns / block.elements, int64_t(block.bytes),
                    view.shape.back()))
      return entry.refuse("of type " + entry.type + " has an impossible size");
    view.format = block.name;
  }
  std::optional<uint64_t> bytes = byteSize(view.dtype, view.shape);
  if (!bytes)
    return entry.refuse("of type " + entry.type + " has an impossible size");
  view.bytes = *bytes;
  return {};
}

static Expected<void> parseShape(GgufReader &reader, const Entry &entry) {
  auto rank = reader.number<uint32_t>();
  if (rank > maxRank)
    return entry.refuse("has rank " + std::to_string(rank) +
                        ", expected at most " + std::to_string(maxRank));
  std::vector<int64_t> &shape = entry.view->shape;
  for (uint32_t i = 0; i < rank; ++i) {
    auto extent = reader.number<uint64_t>();
    if (extent > INT64_MAX)
      return entry.refuse("has an extent of " + std::to_string(extent) +
                          ", expected at most 2^63-1");
    shape.push_back(static_cast<int64_t>(extent));
  }
  std::reverse(shape.begin(), shape.end()); // the file has the columns first
  return {};
}

/// The entries of the tensors, which are in `tensors` without their data.
static Expected<std::vector<Entry>> parseEntries(GgufReader &reader,
                                                 uint64_t count,
                                                 uint64_t alignment,
                                                 GgufFile::Tensors &tensors) {
  std::vector<Entry> entries;
  for (uint64_t i = 0; i < count; ++i) {
    std::string what = "tensor " + std::to_string(i);
    std::string_view name = reader.text();
    if (reader.failed())
      return reader.error(what);
    if (Expected<void> result = checkGgufName(what, name); !result)
      return result.takeError();
    what = "tensor '" + std::string(name) + "'";
    auto [position, added] = tensors.emplace(name, TensorView());
    if (!added)
      return Error{"repeated " + what};
    Entry entry = {&position->first, &position->second, "", 0};
    if (Expected<void> result = parseShape(reader, entry); !result)
      return result.takeError();
    auto type = reader.number<uint32_t>();
    entry.begin = reader.number<uint64_t>();
    if (reader.failed())
      return reader.error(what);
    if (Expected<void> result = parseType(type, entry); !result)
      return result.takeError();
    if (entry.begin % alignment != 0)
      return entry.refuse("starts at byte " + std::to_string(entry.begin) +
                          " of the data, expected a multiple of " +
                          std::to_string(alignment));
    entries.push_back(std::move(entry));
  }
  return entries;
}

/// Check that the tensors are within the data and share no byte of it.
static Expected<void> placeTensors(std::vector<Entry> &entries,
                                   const char *data, uint64_t size) {
  for (const Entry &entry : entries) {
    if (entry.begin > size || entry.view->bytes > size - entry.begin)
      return entry.refuse("of type " + entry.type + " has " +
                          std::to_string(entry.view->bytes) +
                          " bytes at byte " + std::to_string(entry.begin) +
                          " of the data, expected a range within " +
                          std::to_string(size) + " bytes");
    entry.view->data = data + entry.begin;
  }
  std::sort(entries.begin(), entries.end(), [](const Entry &a, const Entry &b) {
    return std::tie(a.begin, a.view->bytes) < std::tie(b.begin, b.view->bytes);
  });
  uint64_t covered = 0;
  const std::string *last = nullptr;
  for (const Entry &entry : entries) {
    if (entry.view->bytes == 0)
      continue;
    if (entry.begin < covered)
      return entry.refuse("starts at byte " + std::to_string(entry.begin) +
                          " of the data, expected no less than " +
                          std::to_string(covered) + ", where '" + *last +
                          "' ends");
    covered = entry.begin + entry.view->bytes;
    last = entry.name;
  }
  return {};
}

//===----------------------------------------------------------------------===//
// Files
//===----------------------------------------------------------------------===//

/// The alignment of the data.
static Expected<uint64_t> readAlignment(const GgufMetadata &metadata) {
  if (!metadata.contains(alignmentKey))
    return uint64_t(defaultAlignment);
  Expected<int64_t> alignment = metadata.integer(alignmentKey);
  if (!alignment)
    return alignment.takeError();
  if (*alignment <= 0 || *alignment > int64_t(1) << 31 ||
      (*alignment & (*alignment - 1)))
    return Error{std::string("key '") + alignmentKey + "' is " +
                 std::to_string(*alignment) +
                 ", expected a power of two up to 2^31"};
  return static_cast<uint64_t>(*alignment);
}

static Expected<void> parseVersion(GgufReader &reader) {
  auto version = reader.number<uint32_t>();
  if (version != 0 && (version & 0xffff) == 0)
    return Error{"a big-endian GGUF file, expected a little-endian one"};
  if (version != 2 && version != 3)
    return Error{"has GGUF version " + std::to_string(version) +
                 ", expected 2 or 3"};
  return {};
}

bool GgufFile::hasMagic(const void *bytes, uint64_t size) {
  return size >= sizeof(magic) && std::memcmp(bytes, magic, sizeof(magic)) == 0;
}

Expected<GgufFile::Content> GgufFile::parse(const void *bytes, uint64_t size) {
  if (size >= sizeof(magic) && !hasMagic(bytes, size))
    return Error{"not a GGUF file: it does not start with 'GGUF'"};
  GgufReader reader(bytes, size);
  (void)reader.take(sizeof(magic));
  if (reader.rest() >= sizeof(uint32_t))
    if (Expected<void> result = parseVersion(reader); !result)
      return result.takeError();
  auto tensorCount = reader.number<uint64_t>();
  auto pairCount = reader.number<uint64_t>();
  if (reader.failed())
    return Error{"truncated: " + std::to_string(size) +
                 " bytes, expected at least 24"};
  if (tensorCount > reader.rest() / minEntrySize ||
      pairCount > reader.rest() / minPairSize)
    return Error{"has " + std::to_string(tensorCount) + " tensors and " +
                 std::to_string(pairCount) + " keys, expected at most " +
                 std::to_string(reader.rest() / minEntrySize) + " and " +
                 std::to_string(reader.rest() / minPairSize) +
                 " in a file of " + std::to_string(size) + " bytes"};

  Expected<GgufMetadata::Values> pairs = parseGgufPairs(reader, pairCount);
  if (!pairs)
    return pairs.takeError();
  Content content = {GgufMetadata(std::move(*pairs)), {}};
  Expected<uint64_t> alignment = readAlignment(content.metadata);
  if (!alignment)
    return alignment.takeError();
  Expected<std::vector<Entry>> entries =
      parseEntries(reader, tensorCount, *alignment, content.tensors);
  if (!entries)
    return entries.takeError();

  // A file without data may end before the padding.
  uint64_t begin;
  if (!checkedAlign(reader.offset(), *alignment, begin) || begin > size)
    begin = size;
  if (Expected<void> result = placeTensors(
          *entries, static_cast<const char *>(bytes) + begin, size - begin);
      !result)
    return result.takeError();
  return content;
}

Expected<GgufFile> GgufFile::open(const std::string &path) {
  Expected<MappedFile> file = MappedFile::open(path);
  if (!file)
    return file.takeError();
  Expected<Content> content = parse(file->data(), file->size());
  if (!content)
    return Error{path + ": " + content.error(), ErrorKind::Damaged};
  return GgufFile(std::move(*file), std::move(*content));
}
