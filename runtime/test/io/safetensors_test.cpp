//===- safetensors_test.cpp - Good and hostile .safetensors files ---------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "testing.h"

#include "moe_rt/io.h"

using namespace moe::io;
using namespace moe::test;

namespace {

std::string file(const std::string &header, const std::string &data) {
  std::string bytes;
  for (int i = 0; i < 8; ++i)
    bytes += static_cast<char>(header.size() >> (8 * i));
  return bytes + header + data;
}

void expectRefused(const std::string &bytes, const std::string &text) {
  // From the heap, so that a sanitizer sees a read beyond the end.
  std::vector<char> exact(bytes.begin(), bytes.end());
  Expected<SafetensorsFile::Tensors> result =
      SafetensorsFile::parse(exact.data(), exact.size());
  ASSERT_FALSE(result) << text;
  EXPECT_NE(result.error().find(text), std::string::npos) << result.error();
}

std::string entry(const std::string &name, const std::string &dtype,
                  const std::string &shape, const std::string &offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
         ",\"data_offsets\":" + offsets + "}";
}

const std::string eight(8, '\1');

TEST(SafetensorsTest, Reads) {
  std::string bytes = file("{\"__metadata__\":{\"format\":\"pt\"}," +
                               entry("b", "BF16", "[2,1]", "[4,8]") + "," +
                               entry("a", "F32", "[]", "[0,4]") + "," +
                               entry("none", "I64", "[0,7]", "[4,4]") + "}   ",
                           eight);
  Expected<SafetensorsFile::Tensors> tensors =
      SafetensorsFile::parse(bytes.data(), bytes.size());
  ASSERT_TRUE(tensors) << tensors.error();
  ASSERT_EQ(tensors->size(), 3u);
  const TensorView &b = tensors->at("b");
  EXPECT_EQ(typeName(b.dtype, b.shape), "bf16[2, 1]");
  EXPECT_EQ(b.data, bytes.data() + bytes.size() - 4);
  EXPECT_EQ(tensors->at("none").bytes, 0u);
}

TEST(SafetensorsTest, ReadsTypes) {
  for (const char *type : {"BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0",
                           "I16", "U16", "F16", "BF16", "I32", "U32", "F32",
                           "F64", "I64", "U64", "C64", "F4", "F6_E2M3"}) {
    std::string bytes = file("{" + entry("x", type, "[0]", "[0,0]") + "}", "");
    auto tensors = SafetensorsFile::parse(bytes.data(), bytes.size());
    EXPECT_TRUE(tensors) << type << ": " << tensors.error();
  }
  std::string packed =
      file("{" + entry("x", "F4", "[4, 4]", "[0,8]") + "}", eight);
  EXPECT_TRUE(SafetensorsFile::parse(packed.data(), packed.size()));
}

TEST(SafetensorsTest, ReadsEmptyFile) {
  std::string bytes = file("{}", "");
  auto tensors = SafetensorsFile::parse(bytes.data(), bytes.size());
  ASSERT_TRUE(tensors);
  EXPECT_TRUE(tensors->empty());
}

TEST(SafetensorsTest, RefusesLengths) {
  expectRefused("", "truncated: 0 bytes, expected at least 8");
  expectRefused("1234567", "truncated: 7 bytes");
  expectRefused(std::string(8, '\0'), "does not start with '{'");
  expectRefused(std::string(7, '\0') + "\x7f", "its header has");
  expectRefused(std::string("\x01\xe1\xf5\x05\0\0\0\0", 8),
                "its header has 100000001 bytes, expected at most 100000000");
  expectRefused(std::string("\x03\0\0\0\0\0\0\0{}", 10),
                "truncated: header of 3 bytes in a file of 10");
  expectRefused(std::string(8, '\xff') + "{}", "its header has");
}

TEST(SafetensorsTest, RefusesHeaders) {
  expectRefused(file(" {}", ""), "does not start with '{'");
  expectRefused(file("[]", ""), "does not start with '{'");
  expectRefused(file("{", ""), "invalid header");
  expectRefused(file("{}{}", ""), "invalid header");
  expectRefused(file("{\"a\":\"\xff\"}", ""), "invalid header");
  std::string deep = "{\"a\":";
  for (int i = 0; i < 100000; ++i)
    deep += '[';
  expectRefused(file(deep, ""), "nested deeper than 32");
  expectRefused(file("{" + entry("a", "F32", "[1]", "[0,4]") + "," +
                         entry("a", "F32", "[1]", "[4,8]") + "}",
                     eight),
                "repeated key 'a'");
  expectRefused(file("{\"__metadata__\":{\"a\":1}}", ""),
                "__metadata__ has a number, expected strings");
  expectRefused(file("{\"__metadata__\":[]}", ""),
                "__metadata__ is an array, expected an object");
}

TEST(SafetensorsTest, RefusesEntries) {
  expectRefused(file("{\"a\":1}", ""), "tensor 'a' has no type");
  expectRefused(file("{\"a\":{}}", ""), "tensor 'a' has no type");
  expectRefused(file("{" + entry("a", "F33", "[1]", "[0,4]") + "}", eight),
                "tensor 'a' has unknown type 'F33'");
  expectRefused(file("{\"a\":{\"dtype\":\"F32\"}}", ""), "has no shape");
  for (const char *shape : {"[-1]", "[1.0]", "[\"1\"]", "[null]", "[[1]]",
                            "[18446744073709551615]", "[1e3]"})
    expectRefused(file("{" + entry("a", "F32", shape, "[0,4]") + "}", eight),
                  "tensor 'a' has an extent that is no integer");
  std::string ones = "[1";
  for (int i = 0; i < 32; ++i)
    ones += ",1";
  expectRefused(file("{" + entry("a", "F32", ones + "]", "[0,4]") + "}", eight),
                "tensor 'a' has rank 33");
  for (const char *offsets : {"[]", "[0]", "[0,4,8]", "{}", "[0,\"4\"]",
                              "[0,4.0]", "null", "[0,18446744073709551615]"})
    expectRefused(file("{" + entry("a", "F32", "[1]", offsets) + "}", eight),
                  "tensor 'a' has no two data_offsets");
}

TEST(SafetensorsTest, RefusesOffsets) {
  for (const char *offsets :
       {"[4,0]", "[-4,0]", "[8,12]", "[0,9223372036854775807]",
        "[9223372036854775804,9223372036854775807]"})
    expectRefused(file("{" + entry("a", "F32", "[1]", offsets) + "}", eight),
                  "expected a range within 8 bytes");
  expectRefused(file("{" + entry("a", "F32", "[3]", "[0,8]") + "}", eight),
                "tensor 'a' of type f32[3] has 8 bytes, expected 12");
  expectRefused(
      file("{" + entry("a", "F32", "[4611686018427387904,4]", "[0,0]") + "}",
           ""),
      "expected an impossible size");
  expectRefused(file("{" + entry("a", "F4", "[3]", "[0,1]") + "}", "x"),
                "expected an impossible size");
}

TEST(SafetensorsTest, RefusesGapsAndOverlaps) {
  expectRefused(file("{" + entry("a", "F32", "[1]", "[4,8]") + "}", eight),
                "tensor 'a' starts at byte 4 of the data, expected 0");
  expectRefused(file("{" + entry("a", "F32", "[1]", "[0,4]") + "}", eight),
                "the tensors cover 4 bytes of data, expected 8");
  expectRefused(file("{" + entry("a", "F32", "[1]", "[0,4]") + "," +
                         entry("b", "F32", "[1]", "[0,4]") + "}",
                     eight.substr(4)),
                "tensor 'b' starts at byte 0 of the data, expected 4");
  expectRefused(file("{" + entry("a", "F16", "[3]", "[0,6]") + "," +
                         entry("b", "F32", "[1]", "[4,8]") + "}",
                     eight),
                "tensor 'b' starts at byte 4 of the data, expected 6");
}

TEST(SafetensorsTest, RefusesEveryTruncation) {
  std::string bytes =
      file("{" + entry("a", "F32", "[2]", "[0,8]") + "}", eight);
  for (size_t size = 0; size < bytes.size(); ++size)
    expectRefused(bytes.substr(0, size), "");
}

} // namespace
