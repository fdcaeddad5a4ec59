//===- npy_test.cpp - Good and hostile .npy files -------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "testing.h"

#include "moe_rt/io.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <sys/stat.h>

using namespace moe::io;
using namespace moe::test;

namespace {

/// A file of format 1 with this header and data.
std::string npy(const std::string &header, const std::string &data,
                char version = 1) {
  std::string bytes = "\x93NUMPY";
  bytes += version;
  bytes += '\0';
  for (int i = 0; i < (version == 1 ? 2 : 4); ++i)
    bytes += static_cast<char>(header.size() >> (8 * i));
  return bytes + header + data;
}

std::string dict(const std::string &descr, const std::string &shape,
                 const std::string &order = "False") {
  return "{'descr': " + descr + ", 'fortran_order': " + order +
         ", 'shape': " + shape + ", }\n";
}

Expected<TensorView> parse(const std::string &bytes) {
  return parseNpy(bytes.data(), bytes.size());
}

void expectRefused(const std::string &bytes, const std::string &text) {
  Expected<TensorView> result = parse(bytes);
  ASSERT_FALSE(result) << text;
  EXPECT_NE(result.error().find(text), std::string::npos) << result.error();
}

const std::string sixFloats(24, '\0');

TEST(NpyTest, Reads) {
  // What numpy.save writes, with each version of the format.
  for (char version : {1, 2, 3}) {
    std::string bytes = npy(dict("'<f4'", "(2, 3)"), sixFloats, version);
    Expected<TensorView> tensor = parse(bytes);
    ASSERT_TRUE(tensor) << tensor.error();
    EXPECT_EQ(typeName(tensor->dtype, tensor->shape), "f32[2, 3]");
    EXPECT_EQ(tensor->bytes, 24u);
    EXPECT_EQ(tensor->data, bytes.data() + bytes.size() - 24);
  }
}

TEST(NpyTest, ReadsTypes) {
  struct Case {
    const char *descr, *name;
    size_t size;
  };
  for (const Case &entry :
       {Case{"<f4", "f32", 4}, Case{"<f2", "f16", 2}, Case{"<f8", "f64", 8},
        Case{"<V2", "bf16", 2}, Case{"|V2", "bf16", 2},
        Case{"bfloat16", "bf16", 2}, Case{"<i4", "i32", 4},
        Case{"<i8", "i64", 8}, Case{"|i1", "i8", 1}, Case{"|b1", "bool", 1},
        Case{"|u1", "u8", 1}, Case{"<i2", "i16", 2}}) {
    Expected<TensorView> tensor =
        parse(npy(dict("'" + std::string(entry.descr) + "'", "(3,)"),
                  std::string(3 * entry.size, '\0')));
    ASSERT_TRUE(tensor) << entry.descr << ": " << tensor.error();
    EXPECT_EQ(dtypeName(tensor->dtype), entry.name);
  }
}

TEST(NpyTest, ReadsShapes) {
  EXPECT_EQ(parse(npy(dict("'|i1'", "()"), "x"))->shape.size(), 0u);
  EXPECT_EQ(parse(npy(dict("'|i1'", "(1,)"), "x"))->shape.size(), 1u);
  EXPECT_EQ(parse(npy(dict("'|i1'", "(1, 1, 1)"), "x"))->shape.size(), 3u);
  EXPECT_EQ(parse(npy(dict("'|i1'", "(5, 0)"), ""))->bytes, 0u);
  // Other writers: no spaces, another order, double quotes.
  EXPECT_TRUE(parse(npy("{\"shape\":(2,3),\"fortran_order\":False,"
                        "\"descr\":\"<f4\"}",
                        sixFloats)));
}

TEST(NpyTest, RefusesWhatItDoesNotRead) {
  expectRefused(npy(dict("'<f4'", "(2, 3)", "True"), sixFloats),
                "array is in Fortran order, expected C order");
  expectRefused(npy(dict("'>f4'", "(2, 3)"), sixFloats),
                "type '>f4' is big-endian, expected little-endian");
  expectRefused(npy(dict("'<c8'", "(3,)"), sixFloats),
                "type '<c8' is not supported");
  expectRefused(npy(dict("'|O'", "(3,)"), sixFloats), "not supported");
  expectRefused(npy(dict("[('a', '<f4')]", "(6,)"), sixFloats),
                "structured types are not supported");
  expectRefused(npy(dict("'<f4'", "(2, 3)"), sixFloats, 4),
                "format version 4, expected 1 to 3");
  expectRefused("", "not a .npy file");
  expectRefused("\x93NUMPX\x01\x01...", "not a .npy file");
}

TEST(NpyTest, RefusesWrongSizes) {
  expectRefused(npy(dict("'<f4'", "(2, 3)"), sixFloats + "x"),
                "array of type f32[2, 3] has 25 bytes, expected 24");
  expectRefused(npy(dict("'<f4'", "(2, 3)"), ""), "has 0 bytes, expected 24");
  expectRefused(npy(dict("'<f4'", "(4611686018427387904, 4)"), ""),
                "array is too large");
  expectRefused(npy(dict("'<f4'", "(0, 9223372036854775807)"), ""),
                "array is too large");
  expectRefused(npy(dict("'<f4'", "(9223372036854775808,)"), ""),
                "malformed header");
  std::string bytes = npy(dict("'<f4'", "(2, 3)"), sixFloats);
  bytes[8] = bytes[9] = '\xff';
  expectRefused(bytes, "truncated: header of 65535 bytes");
}

TEST(NpyTest, RefusesMalformedHeaders) {
  for (const char *header :
       {"", "{", "}", "{}", "{'descr': '<f4'}", "{'descr' '<f4'}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (6)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (6,)} x",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (6,), 'a': 1}",
        "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, "
        "'shape': (6,)}",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (6,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-6,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': [6]}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (6,",
        "{'descr': '', 'fortran_order': False, 'shape': (6,)}",
        "{'descr': '<f4, 'fortran_order': False, 'shape': (6,)}"})
    expectRefused(npy(header, sixFloats), "");
  std::string many = "(";
  for (int i = 0; i < 33; ++i)
    many += "1,";
  expectRefused(npy(dict("'|i1'", many + ")"), "x"), "malformed header");
}

TEST(NpyTest, SurvivesTruncationAndChanges) {
  std::string bytes = npy(dict("'<f4'", "(2, 3)"), sixFloats);
  for (size_t size = 0; size < bytes.size(); ++size)
    EXPECT_FALSE(parse(bytes.substr(0, size)));
  for (size_t i = 0; i < bytes.size(); ++i)
    for (int bit = 0; bit < 8; ++bit) {
      std::string mutant = bytes;
      mutant[i] ^= static_cast<char>(1 << bit);
      // From the heap, so that a sanitizer sees a read beyond the end.
      std::vector<char> exact(mutant.begin(), mutant.end());
      Expected<TensorView> result = parseNpy(exact.data(), exact.size());
      if (result) {
        EXPECT_LE(result->bytes, exact.size());
      }
    }
}

TEST(NpyTest, WritesWhatItReads) {
  TemporaryDirectory directory;
  std::string path = directory / "a.npy";
  struct Case {
    DLDataType type;
    std::vector<int64_t> shape;
    const char *header;
  };
  const Case cases[] = {
      {{kDLFloat, 32, 1},
       {2, 3},
       "{'descr': '<f4', 'fortran_order': False, "
       "'shape': (2, 3), }"},
      {{kDLBfloat, 16, 1},
       {7},
       "{'descr': '<V2', 'fortran_order': False, "
       "'shape': (7,), }"},
      {{kDLInt, 32, 1},
       {},
       "{'descr': '<i4', 'fortran_order': False, "
       "'shape': (), }"},
      {{kDLFloat, 16, 1}, {0, 4}, "'shape': (0, 4), }"},
      {{6, 8, 1}, {1}, "'descr': '|b1'"},
  };
  for (const Case &entry : cases) {
    Expected<Tensor> tensor = Tensor::create(entry.type, entry.shape);
    ASSERT_TRUE(tensor);
    for (uint64_t i = 0; i < tensor->bytes(); ++i)
      static_cast<char *>(tensor->data())[i] = static_cast<char>(i & 1);
    Expected<void> written = writeNpy(path, tensor->view());
    ASSERT_TRUE(written) << written.error();
    std::string bytes = readFile(path);
    EXPECT_NE(bytes.find(entry.header), std::string::npos) << bytes;
    EXPECT_EQ((bytes.size() - tensor->bytes()) % 64, 0u);
    Expected<Tensor> again = readNpy(path);
    ASSERT_TRUE(again) << again.error();
    EXPECT_EQ(typeName(again->dtype(), again->shape()),
              typeName(tensor->dtype(), tensor->shape()));
    EXPECT_EQ(std::memcmp(again->data(), tensor->data(), tensor->bytes()), 0);
  }
  // Nothing is left behind.
  size_t files = 0;
  for (const auto &entry : std::filesystem::directory_iterator(directory.path))
    files += entry.is_regular_file();
  EXPECT_EQ(files, 1u);
}

TEST(NpyTest, WriteErrors) {
  TemporaryDirectory directory;
  Expected<Tensor> tensor = Tensor::create({kDLFloat, 32, 1}, {1});
  ASSERT_TRUE(tensor);
  Expected<void> result = writeNpy(directory / "none/a.npy", tensor->view());
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().find("none/a.npy: cannot create"), std::string::npos)
      << result.error();
  result = writeNpy(directory.path, tensor->view());
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().find("not a regular file"), std::string::npos);
  ASSERT_EQ(mkfifo((directory / "pipe").c_str(), 0600), 0);
  EXPECT_FALSE(writeNpy(directory / "pipe", tensor->view()));
  EXPECT_FALSE(readNpy(directory / "pipe"));
  EXPECT_FALSE(readNpy(directory.path));
  TensorView odd = tensor->view();
  odd.dtype = {12, 8, 1};
  result = writeNpy(directory / "a.npy", odd);
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().find("cannot write type f8E5M2"), std::string::npos);
}

TEST(NpyTest, ConvertsElements) {
  for (DLDataType type :
       {DLDataType{kDLFloat, 64, 1}, DLDataType{kDLFloat, 32, 1},
        DLDataType{kDLFloat, 16, 1}, DLDataType{kDLBfloat, 16, 1},
        DLDataType{kDLInt, 32, 1}, DLDataType{kDLInt, 64, 1},
        DLDataType{kDLInt, 8, 1}, DLDataType{kDLInt, 16, 1}}) {
    Expected<Tensor> tensor = Tensor::create(type, {2});
    ASSERT_TRUE(tensor);
    for (double value : {0.0, 1.0, -3.0, 100.0}) {
      ASSERT_TRUE(writeElement(*tensor, 1, value));
      EXPECT_EQ(readElement(tensor->view(), 1), value) << dtypeName(type);
    }
  }
  Expected<Tensor> bytes = Tensor::create({kDLInt, 8, 1}, {1});
  writeElement(*bytes, 0, 1e9);
  EXPECT_EQ(readElement(bytes->view(), 0), 127);
  writeElement(*bytes, 0, NAN);
  EXPECT_EQ(readElement(bytes->view(), 0), 0);
  Expected<Tensor> words = Tensor::create({kDLInt, 64, 1}, {1});
  writeElement(*words, 0, 1e30);
  EXPECT_EQ(readElement(words->view(), 0), 0x1p63);
}

} // namespace
