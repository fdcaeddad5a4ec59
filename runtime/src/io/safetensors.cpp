//===- safetensors.cpp - .safetensors files -------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// https://github.com/huggingface/safetensors#format: a 64-bit length, a JSON
// header of that length, and the data, which the tensors cover without gaps.
//
//===----------------------------------------------------------------------===//

#include "support/dtype.h"
#include "support/json.h"

#include "moe_rt/io.h"

#include <algorithm>
#include <cstring>
#include <tuple>

using namespace moe;
using namespace moe::io;

static constexpr uint64_t maxHeaderSize = 100'000'000; // as the format says
static constexpr size_t maxRank = 32;

static Error tensorError(const std::string &name, const std::string &what) {
  return Error{"tensor '" + name + "' " + what};
}

/// One entry of the header. `data` is what its offsets count from.
static Expected<TensorView> parseEntry(const std::string &name,
                                       const json::Value &value,
                                       const char *data, uint64_t dataSize) {
  TensorView tensor;
  const std::string *dtype = json::asString(json::find(value, "dtype"));
  if (!dtype)
    return tensorError(name, "has no type");
  bool known = false;
  for (const DTypeName &entry : dtypeNames) {
    if (!entry.safetensors || *dtype != entry.safetensors)
      continue;
    tensor.dtype = entry.type;
    known = true;
  }
  if (!known)
    return tensorError(name, "has unknown type '" + *dtype + "'");

  const auto *shape = json::asArray(json::find(value, "shape"));
  if (!shape)
    return tensorError(name, "has no shape");
  if (shape->size() > maxRank)
    return tensorError(name, "has rank " + std::to_string(shape->size()) +
                                 ", expected at most " +
                                 std::to_string(maxRank));
  for (const json::Value &element : *shape) {
    int64_t extent;
    if (!json::asInt(&element, extent) || extent < 0)
      return tensorError(name, "has an extent that is no integer from 0 to "
                               "2^63-1");
    tensor.shape.push_back(extent);
  }

  const auto *offsets = json::asArray(json::find(value, "data_offsets"));
  int64_t begin, end;
  if (!offsets || offsets->size() != 2 || !json::asInt(&(*offsets)[0], begin) ||
      !json::asInt(&(*offsets)[1], end))
    return tensorError(name, "has no two data_offsets");
  if (begin < 0 || begin > end || static_cast<uint64_t>(end) > dataSize)
    return tensorError(name, "has data_offsets [" + std::to_string(begin) +
                                 ", " + std::to_string(end) +
                                 "], expected a range within " +
                                 std::to_string(dataSize) + " bytes");
  std::optional<uint64_t> expected = byteSize(tensor.dtype, tensor.shape);
  tensor.bytes = static_cast<uint64_t>(end - begin);
  if (!expected || *expected != tensor.bytes)
    return tensorError(
        name,
        "of type " + typeName(tensor.dtype, tensor.shape) + " has " +
            std::to_string(tensor.bytes) + " bytes, expected " +
            (expected ? std::to_string(*expected) : "an impossible size"));
  tensor.data = data + begin;
  return tensor;
}

static Expected<void> checkMetadata(const json::Value &value) {
  const auto *object = json::asObject(&value);
  if (!object)
    return Error{"__metadata__ is " + std::string(json::describe(&value)) +
                 ", expected an object"};
  for (const auto &[key, text] : *object)
    if (!json::asString(&text))
      return Error{"__metadata__ has " + std::string(json::describe(&text)) +
                   ", expected strings"};
  return {};
}

/// Check that the tensors cover the data without gaps and without overlap.
static Expected<void> checkCover(const SafetensorsFile::Tensors &tensors,
                                 const char *data, uint64_t size) {
  struct Range {
    uint64_t begin, end;
    const std::string *name;
  };
  std::vector<Range> ranges;
  for (const auto &[name, tensor] : tensors) {
    auto begin =
        static_cast<uint64_t>(static_cast<const char *>(tensor.data) - data);
    ranges.push_back({begin, begin + tensor.bytes, &name});
  }
  std::sort(ranges.begin(), ranges.end(), [](const Range &a, const Range &b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });
  uint64_t covered = 0;
  for (const Range &range : ranges) {
    if (range.begin != covered)
      return tensorError(
          *range.name, "starts at byte " + std::to_string(range.begin) +
                           " of the data, expected " + std::to_string(covered));
    covered = range.end;
  }
  if (covered != size)
    return Error{"the tensors cover " + std::to_string(covered) +
                 " bytes of data, expected " + std::to_string(size)};
  return {};
}

Expected<SafetensorsFile::Tensors> SafetensorsFile::parse(const void *bytes,
                                                          uint64_t size) {
  const auto *text = static_cast<const char *>(bytes);
  uint64_t headerSize;
  if (size < sizeof(headerSize))
    return Error{"truncated: " + std::to_string(size) +
                 " bytes, expected at least 8"};
  std::memcpy(&headerSize, text, sizeof(headerSize)); // little-endian
  uint64_t rest = size - sizeof(headerSize);
  if (headerSize > maxHeaderSize)
    return Error{"not a .safetensors file: its header has " +
                 std::to_string(headerSize) + " bytes, expected at most " +
                 std::to_string(maxHeaderSize)};
  if (headerSize > rest)
    return Error{"truncated: header of " + std::to_string(headerSize) +
                 " bytes in a file of " + std::to_string(size)};
  text += sizeof(headerSize);
  json::Value root;
  std::string error;
  if (headerSize == 0 || text[0] != '{')
    return Error{"header does not start with '{'"};
  if (!json::parse(text, headerSize, root, error))
    return Error{"invalid header: " + error};

  const char *data = text + headerSize;
  uint64_t dataSize = rest - headerSize;
  Tensors tensors;
  for (const auto &[name, value] : *json::asObject(&root)) {
    if (name == "__metadata__") {
      if (Expected<void> result = checkMetadata(value); !result)
        return result.takeError();
      continue;
    }
    if (name.find('\0') != std::string::npos)
      return Error{"tensor '" + name + "' has a NUL character in its name"};
    Expected<TensorView> tensor = parseEntry(name, value, data, dataSize);
    if (!tensor)
      return tensor.takeError();
    tensors.emplace(name, std::move(*tensor));
  }
  if (Expected<void> result = checkCover(tensors, data, dataSize); !result)
    return result.takeError();
  return tensors;
}

Expected<SafetensorsFile> SafetensorsFile::open(const std::string &path) {
  Expected<MappedFile> file = MappedFile::open(path);
  if (!file)
    return file.takeError();
  Expected<Tensors> tensors = parse(file->data(), file->size());
  if (!tensors)
    return Error{path + ": " + tensors.error(), ErrorKind::Damaged};
  return SafetensorsFile(std::move(*file), std::move(*tensors));
}
