//===- npy.cpp - NumPy's .npy files ---------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
//
//===----------------------------------------------------------------------===//

#include "support/dtype.h"

#include "moe_rt/io.h"

#include <cstring>

using namespace moe;
using namespace moe::io;

static constexpr char magic[] = "\x93NUMPY";
static constexpr size_t magicSize = 6;
static constexpr size_t maxRank = 32;

namespace {

struct NpyType {
  const char *descr;
  DLDataType type;
};

// The first one of a type is what is written. NumPy has no bfloat16: ml_dtypes
// saves it as a two-byte void.
constexpr NpyType npyTypes[] = {
    {"<f4", {kDLFloat, 32, 1}}, {"<f2", {kDLFloat, 16, 1}},
    {"<f8", {kDLFloat, 64, 1}}, {"<V2", {kDLBfloat, 16, 1}},
    {"|i1", {kDLInt, 8, 1}},    {"<i2", {kDLInt, 16, 1}},
    {"<i4", {kDLInt, 32, 1}},   {"<i8", {kDLInt, 64, 1}},
    {"|b1", {dlBool, 8, 1}},    {"|u1", {kDLUInt, 8, 1}},
    {"<u2", {kDLUInt, 16, 1}},  {"<u4", {kDLUInt, 32, 1}},
    {"<u8", {kDLUInt, 64, 1}},  {"|V2", {kDLBfloat, 16, 1}},
    {"<i1", {kDLInt, 8, 1}},    {"<u1", {kDLUInt, 8, 1}},
    {"<b1", {dlBool, 8, 1}},    {"bfloat16", {kDLBfloat, 16, 1}},
};

/// Reads the Python dictionary of a header, e.g.
/// {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }
class HeaderParser {
public:
  HeaderParser(const char *begin, const char *end) : next(begin), end(end) {}

  Expected<void> parse(TensorView &out) {
    if (!take('{'))
      return malformed();
    bool hasDescr = false, hasOrder = false, hasShape = false;
    while (!take('}')) {
      std::string key;
      if (!string(key) || !take(':'))
        return malformed();
      if (key == "descr" && !hasDescr) {
        hasDescr = true;
        if (peek() == '[')
          return Error{"structured types are not supported"};
        std::string descr;
        if (!string(descr))
          return malformed();
        if (Expected<void> result = parseType(descr, out.dtype); !result)
          return result;
      } else if (key == "fortran_order" && !hasOrder) {
        hasOrder = true;
        if (word("True"))
          return Error{"array is in Fortran order, expected C order "
                       "(numpy.ascontiguousarray)"};
        if (!word("False"))
          return malformed();
      } else if (key == "shape" && !hasShape) {
        hasShape = true;
        if (!shape(out.shape))
          return malformed();
      } else {
        return malformed();
      }
      if (!take(',')) {
        if (!take('}'))
          return malformed();
        break;
      }
    }
    skipSpace();
    if (!hasDescr || !hasOrder || !hasShape || next != end)
      return malformed();
    return {};
  }

private:
  static Error malformed() { return Error{"malformed header"}; }

  static Expected<void> parseType(const std::string &descr, DLDataType &out) {
    for (const NpyType &entry : npyTypes) {
      if (descr == entry.descr) {
        out = entry.type;
        return {};
      }
    }
    if (descr[0] == '>')
      return Error{"type '" + descr +
                   "' is big-endian, expected little-endian"};
    return Error{"type '" + descr +
                 "' is not supported, expected f2, f4, f8, bfloat16, i1 to i8, "
                 "u1 to u8 or b1"};
  }

  void skipSpace() {
    while (next != end && (*next == ' ' || *next == '\n' || *next == '\t'))
      ++next;
  }
  char peek() {
    skipSpace();
    return next == end ? '\0' : *next;
  }
  bool take(char c) {
    if (peek() != c || next == end)
      return false;
    ++next;
    return true;
  }
  bool word(std::string_view text) {
    skipSpace();
    if (static_cast<size_t>(end - next) < text.size() ||
        std::memcmp(next, text.data(), text.size()) != 0)
      return false;
    next += text.size();
    return true;
  }
  /// A quoted, printable string without escapes; not empty.
  bool string(std::string &out) {
    char quote = peek();
    if (quote != '\'' && quote != '"')
      return false;
    for (++next; next != end && *next != quote; ++next) {
      if (*next < 0x20 || *next == '\\' || *next == 0x7f)
        return false;
      out += *next;
    }
    return take(quote) && !out.empty();
  }
  bool number(int64_t &out) {
    char c = peek();
    if (c < '0' || c > '9')
      return false;
    out = 0;
    for (; next != end && *next >= '0' && *next <= '9'; ++next)
      if (__builtin_mul_overflow(out, int64_t(10), &out) ||
          __builtin_add_overflow(out, int64_t(*next - '0'), &out))
        return false;
    return true;
  }
  bool shape(std::vector<int64_t> &out) {
    if (!take('('))
      return false;
    while (!take(')')) {
      int64_t extent;
      if (out.size() == maxRank || !number(extent))
        return false;
      out.push_back(extent);
      if (!take(',')) {
        // (3) would be a number in Python, not a tuple.
        if (out.size() == 1)
          return false;
        return take(')');
      }
    }
    return true;
  }

  const char *next, *end;
};

} // namespace

Expected<TensorView> moe::io::parseNpy(const void *bytes, uint64_t size) {
  const auto *text = static_cast<const char *>(bytes);
  if (size < magicSize + 2 || std::memcmp(text, magic, magicSize) != 0)
    return Error{"not a .npy file"};
  auto byte = [&](uint64_t i) {
    return static_cast<uint64_t>(static_cast<unsigned char>(text[i]));
  };
  uint64_t major = byte(6);
  if (major < 1 || major > 3)
    return Error{"format version " + std::to_string(major) +
                 ", expected 1 to 3"};
  uint64_t lengthBytes = major == 1 ? 2 : 4;
  uint64_t begin = magicSize + 2 + lengthBytes;
  if (size < begin)
    return Error{"truncated: " + std::to_string(size) +
                 " bytes, expected at least " + std::to_string(begin)};
  uint64_t length = 0;
  for (uint64_t i = 0; i < lengthBytes; ++i)
    length |= byte(magicSize + 2 + i) << (8 * i);
  if (length > size - begin)
    return Error{"truncated: header of " + std::to_string(length) +
                 " bytes in a file of " + std::to_string(size)};
  TensorView tensor;
  HeaderParser parser(text + begin, text + begin + length);
  if (Expected<void> result = parser.parse(tensor); !result)
    return result.takeError();

  std::optional<uint64_t> expected = byteSize(tensor.dtype, tensor.shape);
  uint64_t actual = size - begin - length;
  if (!expected)
    return Error{"array is too large"};
  if (actual != *expected)
    return Error{"array of type " + typeName(tensor.dtype, tensor.shape) +
                 " has " + std::to_string(actual) + " bytes, expected " +
                 std::to_string(*expected)};
  tensor.data = text + begin + length;
  tensor.bytes = actual;
  return tensor;
}

Expected<Tensor> moe::io::readNpy(const std::string &path) {
  Expected<MappedFile> file = MappedFile::open(path);
  if (!file)
    return file.takeError();
  Expected<TensorView> view = parseNpy(file->data(), file->size());
  if (!view)
    return Error{path + ": " + view.error(), ErrorKind::Damaged};
  Expected<Tensor> tensor = Tensor::create(view->dtype, view->shape);
  if (!tensor)
    return tensor.takeError().in(path);
  if (view->bytes > 0)
    std::memcpy(tensor->data(), view->data, view->bytes);
  return tensor;
}

Expected<void> moe::io::writeNpy(const std::string &path,
                                 const TensorView &tensor) {
  const char *descr = nullptr;
  for (const NpyType &entry : npyTypes)
    if (!descr && sameDType(entry.type, tensor.dtype))
      descr = entry.descr;
  if (!descr)
    return Error{path + ": cannot write type " + dtypeName(tensor.dtype)};
  std::string dict = "{'descr': '" + std::string(descr) +
                     "', 'fortran_order': False, 'shape': (";
  for (size_t i = 0; i < tensor.shape.size(); ++i)
    dict += (i ? " " : "") + std::to_string(tensor.shape[i]) +
            (i + 1 < tensor.shape.size() || i == 0 ? "," : "");
  dict += "), }";
  // The data starts at a multiple of 64; the header ends in a newline.
  size_t prefix = magicSize + 2 + 2;
  dict.append(63 - (prefix + dict.size()) % 64, ' ');
  dict += '\n';
  std::string header(magic, magicSize);
  header += {'\x01', '\x00', static_cast<char>(dict.size() & 0xff),
             static_cast<char>(dict.size() >> 8)};
  header += dict;
  return writeFileAtomically(
      path, {{header.data(), header.size()}, {tensor.data, tensor.bytes}});
}
