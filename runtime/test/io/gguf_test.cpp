//===- gguf_test.cpp - Good and hostile .gguf files -----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "testing.h"

#include "moe_rt/io.h"

#include <cstring>
#include <random>

using namespace moe::io;
using namespace moe::test;

namespace {

template <typename T> std::string raw(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

std::string text(const std::string &value) {
  return raw<uint64_t>(value.size()) + value;
}

std::string pair(const std::string &key, uint32_t type,
                 const std::string &value) {
  return text(key) + raw(type) + value;
}

std::string array(uint32_t type, uint64_t count, const std::string &elements) {
  return raw(type) + raw(count) + elements;
}

/// The extents are as in the file: columns first.
std::string entry(const std::string &name, const std::vector<uint64_t> &extents,
                  uint32_t type, uint64_t offset) {
  std::string bytes = text(name) + raw(static_cast<uint32_t>(extents.size()));
  for (uint64_t extent : extents)
    bytes += raw(extent);
  return bytes + raw(type) + raw(offset);
}

std::string file(const std::vector<std::string> &entries,
                 const std::vector<std::string> &pairs, size_t data,
                 size_t alignment = 32, uint32_t version = 3) {
  std::string bytes = "GGUF" + raw(version) + raw<uint64_t>(entries.size()) +
                      raw<uint64_t>(pairs.size());
  for (const auto *parts : {&pairs, &entries})
    for (const std::string &part : *parts)
      bytes += part;
  while (bytes.size() % alignment != 0)
    bytes += '\0';
  return bytes + std::string(data, '\1');
}

Expected<GgufFile::Content> parse(const std::string &bytes) {
  return GgufFile::parse(bytes.data(), bytes.size());
}

void expectRefused(const std::string &bytes, const std::string &message) {
  // From the heap, so that a sanitizer sees a read beyond the end.
  std::vector<char> exact(bytes.begin(), bytes.end());
  Expected<GgufFile::Content> result =
      GgufFile::parse(exact.data(), exact.size());
  ASSERT_FALSE(result) << message;
  EXPECT_NE(result.error().find(message), std::string::npos) << result.error();
}

enum : uint32_t { f32Id = 0, q40Id = 2, q80Id = 8, q4KId = 12, i16Id = 25 };

TEST(GgufTest, Reads) {
  std::string bytes =
      file({entry("b", {64, 3, 2}, q80Id, 64), entry("a", {3, 5}, f32Id, 0),
            entry("none", {0, 7}, i16Id, 64), entry("s", {}, f32Id, 512)},
           {}, 516);
  Expected<GgufFile::Content> content = parse(bytes);
  ASSERT_TRUE(content) << content.error();
  ASSERT_EQ(content->tensors.size(), 4u);
  const TensorView &a = content->tensors.at("a");
  EXPECT_EQ(typeName(a.dtype, a.shape), "f32[5, 3]");
  EXPECT_EQ(a.format, nullptr);
  EXPECT_EQ(a.data, bytes.data() + bytes.size() - 516);
  const TensorView &b = content->tensors.at("b");
  EXPECT_EQ(typeName(b.dtype, b.shape), "u8[2, 3, 68]");
  EXPECT_STREQ(b.format, "q8_0");
  EXPECT_EQ(b.bytes, 408u);
  EXPECT_EQ(b.data, bytes.data() + bytes.size() - 516 + 64);
  EXPECT_EQ(content->tensors.at("none").bytes, 0u);
  EXPECT_EQ(content->tensors.at("s").bytes, 4u);
}

TEST(GgufTest, Formats) {
  // Elements and bytes as in ggml-common.h.
  struct {
    const char *name;
    uint32_t elements, bytes;
  } cases[] = {{"q4_0", 32, 18},   {"q8_0", 32, 34},  {"q4_K", 256, 144},
               {"q6_K", 256, 210}, {"mxfp4", 32, 17}, {"nvfp4", 64, 36}};
  for (const auto &expected : cases) {
    std::optional<BlockFormat> format = findBlockFormat(expected.name);
    ASSERT_TRUE(format) << expected.name;
    EXPECT_EQ(format->elements, expected.elements);
    EXPECT_EQ(format->bytes, expected.bytes);
  }
  for (const char *name : {"", "f32", "Q8_0", "q4_2", "iq4_nl_4_4"})
    EXPECT_FALSE(findBlockFormat(name)) << name;
}

TEST(GgufTest, LooksUpKeys) {
  std::string large = raw(UINT64_MAX);
  std::string bytes =
      file({},
           {pair("u8", 0, raw<uint8_t>(200)),
            pair("i8", 1, raw<int8_t>(-1)),
            pair("u16", 2, raw<uint16_t>(40000)),
            pair("i16", 3, raw<int16_t>(-2)),
            pair("u32", 4, raw<uint32_t>(4000000000)),
            pair("i32", 5, raw<int32_t>(-3)),
            pair("f32", 6, raw(1.5f)),
            pair("bool", 7, raw<uint8_t>(1)),
            pair("string", 8, text("qwen3moe")),
            pair("u64", 10, raw<uint64_t>(INT64_MAX)),
            pair("i64", 11, raw(INT64_MIN)),
            pair("f64", 12, raw(0.1)),
            pair("large", 10, large),
            pair("empty", 8, text("")),
            pair("list", 9, array(5, 3, raw(1) + raw(-2) + raw(3))),
            pair("bytes", 9, array(0, 2, "\xff\x01")),
            pair("none", 9, array(4, 0, "")),
            pair("larger", 9, array(10, 1, large)),
            pair("words", 9, array(8, 2, text("a") + text("bc"))),
            pair("lists", 9, array(9, 1, array(8, 1, text("d")))),
            pair("last", 4, raw(7u))},
           0);
  Expected<GgufFile::Content> content = parse(bytes);
  ASSERT_TRUE(content) << content.error();
  const GgufMetadata &keys = content->metadata;
  EXPECT_EQ(keys.keys().size(), 21u);
  EXPECT_TRUE(keys.contains("last"));
  EXPECT_FALSE(keys.contains("las"));

  struct {
    const char *key;
    int64_t value;
  } integers[] = {{"u8", 200},        {"i8", -1},  {"u16", 40000},
                  {"i16", -2},        {"i32", -3}, {"u32", 4000000000},
                  {"u64", INT64_MAX}, {"last", 7}, {"i64", INT64_MIN}};
  for (const auto &expected : integers) {
    Expected<int64_t> value = keys.integer(expected.key);
    ASSERT_TRUE(value) << value.error();
    EXPECT_EQ(*value, expected.value) << expected.key;
  }
  EXPECT_EQ(*keys.real("f32"), 1.5);
  EXPECT_EQ(*keys.real("f64"), 0.1);
  EXPECT_EQ(*keys.boolean("bool"), true);
  EXPECT_EQ(*keys.string("string"), "qwen3moe");
  EXPECT_EQ(*keys.string("empty"), "");
  EXPECT_EQ(*keys.integers("list"), (std::vector<int64_t>{1, -2, 3}));
  EXPECT_EQ(*keys.integers("bytes"), (std::vector<int64_t>{255, 1}));
  EXPECT_TRUE(keys.integers("none")->empty());

  auto refused = [](auto result, ErrorKind kind, const char *message) {
    ASSERT_FALSE(result) << message;
    EXPECT_EQ(result.error(), message);
    EXPECT_EQ(result.takeError().kind, kind);
  };
  refused(keys.integer("x"), ErrorKind::NotFound, "there is no key 'x'");
  refused(keys.string("u8"), ErrorKind::Invalid,
          "key 'u8' is u8, expected a string");
  for (const char *key : {"f32", "bool", "string", "list"})
    EXPECT_NE(keys.integer(key).error().find(", expected an integer"),
              std::string::npos);
  refused(keys.integer("large"), ErrorKind::Invalid,
          "key 'large' has an integer that exceeds 2^63-1");
  refused(keys.real("u8"), ErrorKind::Invalid,
          "key 'u8' is u8, expected f32 or f64");
  refused(keys.boolean("u8"), ErrorKind::Invalid,
          "key 'u8' is u8, expected a bool");
  refused(keys.integers("words"), ErrorKind::Invalid,
          "key 'words' is an array of string, expected an array of integers");
  refused(keys.integers("u8"), ErrorKind::Invalid,
          "key 'u8' is u8, expected an array of integers");
  refused(keys.integers("larger"), ErrorKind::Invalid,
          "key 'larger' has an integer that exceeds 2^63-1");
}

TEST(GgufTest, Aligns) {
  for (uint32_t alignment : {1u, 8u, 32u, 4096u}) {
    std::string key = pair("general.alignment", 4, raw(alignment));
    std::string bytes = file(
        {entry("a", {3}, f32Id, 0), entry("b", {1}, f32Id, alignment * 12)},
        {key}, alignment * 12 + 4, alignment);
    Expected<GgufFile::Content> content = parse(bytes);
    ASSERT_TRUE(content) << content.error();
    auto *data = static_cast<const char *>(content->tensors.at("a").data);
    EXPECT_EQ((data - bytes.data()) % alignment, 0u);
    EXPECT_EQ(*data, '\1');
    expectRefused(bytes.substr(0, bytes.size() - 1),
                  "tensor 'b' of type f32[1] has 4 bytes at byte");
  }
  for (uint32_t alignment : {0u, 3u, 24u, ~0u})
    expectRefused(file({}, {pair("general.alignment", 4, raw(alignment))}, 0),
                  "expected a power of two up to 2^31");
  // The padding may be more than the file, or than there is.
  std::string most = pair("general.alignment", 4, raw(1u << 31));
  EXPECT_TRUE(parse(file({entry("a", {0}, f32Id, 0)}, {most}, 0)));
  expectRefused(file({entry("a", {1}, f32Id, 0)}, {most}, 9),
                "expected a range within 0 bytes");
}

TEST(GgufTest, RefusesHeaders) {
  expectRefused("", "truncated: 0 bytes, expected at least 24");
  expectRefused("GGUX", "not a GGUF file: it does not start with 'GGUF'");
  expectRefused(file({}, {}, 0).replace(4, 4, std::string("\0\0\0\3", 4)),
                "a big-endian GGUF file, expected a little-endian one");
  for (uint32_t version : {0u, 1u, 4u, 0x10003u})
    expectRefused(file({}, {}, 0, 32, version), "has GGUF version " +
                                                    std::to_string(version) +
                                                    ", expected 2 or 3");
  EXPECT_TRUE(parse(file({}, {}, 0, 32, 2)));
  std::string counts = file({}, {}, 0, 1);
  expectRefused(counts.replace(8, 8, raw(UINT64_MAX)),
                "has 18446744073709551615 tensors and 0 keys, expected at most "
                "0 and 0 in a file of 24 bytes");
}

TEST(GgufTest, RefusesKeys) {
  auto refused = [](const std::string &pair, const std::string &message) {
    expectRefused(file({}, {pair}, 0, 1), message);
  };
  refused(raw(UINT64_MAX) + "aaaaaaaa",
          "truncated: key 0 has 18446744073709551615 more bytes at byte 32, "
          "expected at most 8");
  refused(pair("a", 13, "12345"), "key 'a' has a value of unknown type 13");
  refused(pair("a", 10, "1234567"), "truncated: key 'a' has 8 more bytes");
  refused(pair("a", 7, "\2"), "key 'a' has a bool of 2, expected 0 or 1");
  refused(pair("a", 9, array(7, 2, "\1\2")), "key 'a' has a bool of 2");
  refused(pair("a", 9, array(10, uint64_t(1) << 61, "")),
          "key 'a' has an array of 2305843009213693952 elements, expected at "
          "most 0");
  for (uint32_t type : {8u, 9u})
    refused(pair("a", 9, array(type, uint64_t(1) << 61, "12345678")),
            "elements, expected at most 1 in the rest");
  refused(pair("a", 9, array(8, 1, raw<uint64_t>(9) + "12345678")),
          "truncated: key 'a' has 9 more bytes");
  std::string nested = array(0, 0, "");
  for (int i = 0; i < 9; ++i)
    nested = array(9, 1, nested);
  refused(pair("a", 9, nested), "key 'a' has arrays nested deeper than 8");
  refused(pair("", 0, "1"), "key 0 is empty");
  refused(pair(std::string("a\0b", 3), 0, "1"), "has a NUL character");
  for (const char *key : {"\x80", "\xc0\x80", "\xc3", "\xed\xa0\x80",
                          "\xf4\x90\x80\x80", "\xff", "a\xe2\x82"})
    refused(pair(key, 0, "1"), "has a name that is not UTF-8");
  EXPECT_TRUE(parse(
      file({}, {pair("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 0, "1")}, 0)));
  expectRefused(file({}, {pair("a", 0, "1"), pair("a", 0, "2")}, 0),
                "repeated key 'a'");
}

TEST(GgufTest, RefusesTensors) {
  struct {
    std::vector<uint64_t> extents;
    uint32_t type;
    uint64_t offset;
    const char *message;
  } cases[] = {
      {{1, 1, 1, 1, 1}, f32Id, 0, "tensor 'w' has rank 5, expected at most 4"},
      {{uint64_t(1) << 63},
       f32Id,
       0,
       "tensor 'w' has an extent of 9223372036854775808, expected at most"},
      {{uint64_t(1) << 62, 4}, f32Id, 0, "has an impossible size"},
      {{0, INT64_MAX, INT64_MAX}, f32Id, 0, "has an impossible size"},
      {{uint64_t(1) << 62}, q80Id, 0, "has an impossible size"},
      {{48, 2},
       q80Id,
       0,
       "tensor 'w' of type q8_0[2, 48] has 48 elements a row, expected a "
       "multiple of 32"},
      {{32}, q4KId, 0, "has 32 elements a row, expected a multiple of 256"},
      {{}, q40Id, 0, "of type q4_0[] has 1 elements a row"},
      {{32}, 5, 0, "tensor 'w' has type q4_3 (5), which is not supported"},
      {{32}, 38, 0, "has type iq4_nl_8_8 (38), which is not supported"},
      {{32}, 43, 0, "tensor 'w' has unknown type 43"},
      {{32}, ~0u, 0, "tensor 'w' has unknown type 4294967295"},
      {{1},
       f32Id,
       8,
       "tensor 'w' starts at byte 8 of the data, expected a multiple of 32"},
      {{17},
       f32Id,
       0,
       "tensor 'w' of type f32[17] has 68 bytes at byte 0 of the data, "
       "expected a range within 64 bytes"},
      {{1}, f32Id, 96, "at byte 96 of the data, expected a range within 64"},
      {{9}, f32Id, UINT64_MAX - 31, "at byte 18446744073709551584 of the data"},
  };
  for (const auto &one : cases)
    expectRefused(file({entry("w", one.extents, one.type, one.offset)}, {}, 64),
                  one.message);
  expectRefused(
      file({entry("w", {9}, f32Id, 0), entry("v", {1}, f32Id, 32)}, {}, 64),
      "tensor 'v' starts at byte 32 of the data, expected no less "
      "than 36, where 'w' ends");
  expectRefused(
      file({entry("w", {1}, f32Id, 0), entry("w", {1}, f32Id, 32)}, {}, 64),
      "repeated tensor 'w'");
  expectRefused(file({entry(std::string("w\0", 2), {1}, f32Id, 0)}, {}, 64),
                "has a NUL character in its name");
  expectRefused(file({entry(std::string(65536, 'w'), {1}, f32Id, 0)}, {}, 64),
                "tensor 0 has a name of 65536 bytes, expected at most 65535");
}

std::string sample() {
  return file({entry("w", {64, 3, 2}, q80Id, 0), entry("v", {5}, f32Id, 416)},
              {pair("a.b", 4, raw(7u)), pair("s", 8, text("text")),
               pair("l", 9, array(8, 2, text("a") + text("bc"))),
               pair("n", 9, array(9, 1, array(3, 2, "1234")))},
              448);
}

TEST(GgufTest, RefusesEveryTruncation) {
  std::string bytes = sample();
  ASSERT_TRUE(parse(bytes));
  for (size_t size = 0; size < bytes.size() - 12; ++size)
    expectRefused(bytes.substr(0, size), "");
}

TEST(GgufTest, SurvivesRandomBytes) {
  const std::string good = sample();
  std::mt19937 random(1);
  int accepted = 0;
  for (int i = 0; i < 20000; ++i) {
    std::vector<char> bytes(good.begin(), good.end());
    for (uint32_t change = random() % 4 + 1; change > 0; --change) {
      // A byte, or a number that is likely to matter.
      size_t place = random() % (bytes.size() - 448);
      const uint64_t numbers[] = {
          0, 1, 7, 1u << 31, INT64_MAX, UINT64_MAX, UINT64_MAX / 34};
      uint64_t number = numbers[random() % std::size(numbers)];
      size_t size = random() % 2 ? 1 : random() % 2 ? 4 : 8;
      if (size == 1)
        number = random();
      std::memcpy(bytes.data() + place, &number,
                  std::min(size, bytes.size() - place));
    }
    if (random() % 8 == 0)
      bytes.resize(random() % bytes.size());
    bytes.shrink_to_fit();
    Expected<GgufFile::Content> content =
        GgufFile::parse(bytes.data(), bytes.size());
    if (!content) {
      ASSERT_FALSE(content.error().empty());
      continue;
    }
    ++accepted;
    unsigned sum = 0;
    for (const auto &[name, tensor] : content->tensors)
      for (uint64_t j = 0; j < tensor.bytes; ++j)
        sum += static_cast<const unsigned char *>(tensor.data)[j];
    ASSERT_LE(sum, bytes.size() * 255);
    for (const std::string &key : content->metadata.keys()) {
      (void)content->metadata.string(key);
      (void)content->metadata.integer(key);
      (void)content->metadata.integers(key);
    }
  }
  EXPECT_GT(accepted, 100);
}

TEST(GgufTest, CheckpointHasTheKeysOfTheFirstPart) {
  TemporaryDirectory directory;
  auto part = [](uint16_t number, const std::string &name) {
    return file({entry(name, {8}, f32Id, 0)},
                {pair("split.count", 2, raw<uint16_t>(2)),
                 pair("split.no", 2, raw(number)), pair("name", 8, text(name))},
                32);
  };
  writeFile(directory / "m-00001-of-00002.gguf", part(0, "a"));
  writeFile(directory / "m-00002-of-00002.gguf", part(1, "b"));
  for (const char *name : {"m-00001-of-00002.gguf", "m-00002-of-00002.gguf"}) {
    Expected<Checkpoint> checkpoint = Checkpoint::open(directory / name);
    ASSERT_TRUE(checkpoint) << checkpoint.error();
    Checkpoint moved = std::move(*checkpoint);
    EXPECT_EQ(moved.names(), (std::vector<std::string>{"a", "b"}));
    EXPECT_EQ(*moved.metadata().string("name"), "a");
    EXPECT_EQ(moved.lookup("b")->bytes, 32u);
  }
  // The same tensor twice, and numbers that make no sense.
  writeFile(directory / "m-00002-of-00002.gguf", part(1, "a"));
  auto refused = [&](const std::string &bytes, const char *message) {
    writeFile(directory / "m-00001-of-00002.gguf", bytes);
    Expected<Checkpoint> checkpoint =
        Checkpoint::open(directory / "m-00001-of-00002.gguf");
    ASSERT_FALSE(checkpoint) << message;
    EXPECT_NE(checkpoint.error().find(message), std::string::npos)
        << checkpoint.error();
  };
  refused(part(0, "a"), "tensor 'a' is in 'm-00001-of-00002.gguf' and in");
  refused(part(2, "a"), "key 'split.no' is 2, expected 0 to 1");
  for (int32_t count : {-1, 100000})
    refused(file({}, {pair("split.count", 5, raw(count))}, 0),
            "expected at most 99999");
  refused(file({}, {pair("split.count", 8, text("2"))}, 0),
          "key 'split.count' is string, expected an integer");
  refused(file({}, {pair("split.count", 4, raw(2u))}, 0),
          "there is no key 'split.no'");
  // One of one is itself.
  writeFile(directory / "x.gguf",
            file({}, {pair("split.count", 4, raw(1u))}, 0));
  EXPECT_TRUE(Checkpoint::open(directory / "x.gguf"));
}

} // namespace
