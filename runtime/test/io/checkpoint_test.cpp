//===- checkpoint_test.cpp - Checkpoints and weights ----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "testing.h"

#include "moe_rt/io.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <unistd.h>

using namespace moe::io;
using namespace moe::test;

namespace {

/// A tensor of a file that a test writes; each byte is `fill`.
struct Item {
  std::string name, dtype, shape;
  size_t bytes;
  char fill;
};

/// A .safetensors file. `shift` makes the header longer, and so the data
/// misaligned.
std::string file(const std::vector<Item> &items, size_t shift = 0) {
  std::string header = "{", data;
  for (const Item &item : items) {
    size_t begin = data.size();
    data.append(item.bytes, item.fill);
    header += (header.size() > 1 ? ",\"" : "\"") + item.name +
              "\":{\"dtype\":\"" + item.dtype + "\",\"shape\":" + item.shape +
              ",\"data_offsets\":[" + std::to_string(begin) + "," +
              std::to_string(data.size()) + "]}";
  }
  header += "}";
  header.append(8 - header.size() % 8 + shift, ' ');
  std::string bytes;
  for (int i = 0; i < 8; ++i)
    bytes += static_cast<char>(header.size() >> (8 * i));
  return bytes + header + data;
}

std::string index(const std::string &map) {
  return "{\"metadata\":{\"total_size\":1},\"weight_map\":{" + map + "}}";
}

TEST(Json, AsPythonWritesIt) {
  auto replaced = [](std::string_view text) {
    return replaceNonFinite(text, "0", "1e999");
  };
  EXPECT_EQ(replaced("[NaN, Infinity,-Infinity ]"), "[0, 1e999,-1e999 ]");
  EXPECT_EQ(replaced("NaN"), "0");
  // Not in strings, nor what no Python writes.
  for (const char *text :
       {R"({"NaN": "a \"Infinity, NaN", "b\\": 1})", "[nan, inf, -NaN]",
        "[NaNs, xNaN, +Infinity, --Infinity, 1Infinity]", "\"NaN"})
    EXPECT_EQ(replaced(text), text);
  EXPECT_EQ(replaced(R"(["\\", NaN])"), R"(["\\", 0])");
}

class CheckpointTest : public ::testing::Test {
protected:
  TemporaryDirectory directory;

  void write(const std::string &name, const std::string &bytes) {
    writeFile(directory / name, bytes);
  }
  std::shared_ptr<Checkpoint> open(const std::string &name = "") {
    Expected<Checkpoint> checkpoint = Checkpoint::open(directory / name);
    EXPECT_TRUE(checkpoint) << checkpoint.error();
    if (!checkpoint)
      return nullptr;
    return std::make_shared<Checkpoint>(std::move(*checkpoint));
  }
  void expectOpenRefused(const std::string &text,
                         const std::string &name = "") {
    Expected<Checkpoint> checkpoint = Checkpoint::open(directory / name);
    ASSERT_FALSE(checkpoint) << text;
    EXPECT_NE(checkpoint.error().find(text), std::string::npos)
        << checkpoint.error();
  }
};

TEST_F(CheckpointTest, OneFile) {
  write("model.safetensors", file({{"a", "F32", "[1]", 4, 1}}));
  for (const char *name : {"", "model.safetensors"}) {
    auto checkpoint = open(name);
    ASSERT_TRUE(checkpoint);
    EXPECT_EQ(checkpoint->names(), std::vector<std::string>{"a"});
    Expected<TensorView> a = checkpoint->lookup("a");
    ASSERT_TRUE(a) << a.error();
    EXPECT_EQ(typeName(a->dtype, a->shape), "f32[1]");
    Expected<TensorView> b = checkpoint->lookup("b");
    ASSERT_FALSE(b);
    EXPECT_NE(b.error().find("there is no tensor 'b'"), std::string::npos);
  }
}

TEST_F(CheckpointTest, Shards) {
  write("one.safetensors", file({{"a", "F32", "[1]", 4, 1}}));
  write("two.safetensors", file({{"b", "F16", "[1]", 2, 1}}));
  write("model.safetensors.index.json",
        index("\"a\":\"one.safetensors\",\"b\":\"two.safetensors\","
              "\"c\":\"two.safetensors\",\"d\":\"none.safetensors\""));
  auto checkpoint = open();
  ASSERT_TRUE(checkpoint);
  EXPECT_EQ(checkpoint->names().size(), 4u);
  EXPECT_TRUE(checkpoint->lookup("a"));
  EXPECT_TRUE(checkpoint->lookup("b"));
  Expected<TensorView> c = checkpoint->lookup("c");
  ASSERT_FALSE(c);
  EXPECT_NE(c.error().find("two.safetensors: there is no tensor 'c', which the "
                           "index says is here"),
            std::string::npos)
      << c.error();
  // Shards are opened when they are needed: a missing one hurts only then.
  Expected<TensorView> d = checkpoint->lookup("d");
  ASSERT_FALSE(d);
  EXPECT_NE(d.error().find("tensor 'd': "), std::string::npos);
  EXPECT_NE(d.error().find("none.safetensors: cannot open"), std::string::npos);
  EXPECT_TRUE(open("model.safetensors.index.json"));
}

TEST_F(CheckpointTest, RefusesHostileIndex) {
  auto refuse = [&](const std::string &text, const std::string &message) {
    write("model.safetensors.index.json", text);
    expectOpenRefused(message);
  };
  for (const char *shard :
       {"../a", "/etc/passwd", "a/b", "..", ".", "", "a\\\\b", "a\\u0000b"})
    refuse(index("\"w\":\"" + std::string(shard) + "\""),
           "expected the name of a file in the same directory");
  refuse(index("\"w\":1"), "tensor 'w' is in a number");
  refuse(index("\"w\":NaN"), "tensor 'w' is in a number");
  refuse(index("\"w\":-NaN"), "invalid JSON");
  refuse(index("\"w\":\"a\",\"w\":\"b\""), "repeated key 'w'");
  refuse("{", "invalid JSON");
  refuse("", "invalid JSON");
  refuse("[]", "'weight_map' is nothing");
  refuse("{\"weight_map\":[]}", "'weight_map' is an array");
}

TEST_F(CheckpointTest, RefusesWhatIsNotThere) {
  expectOpenRefused(
      "neither model.safetensors nor model.safetensors.index.json "
      "is in this directory");
  expectOpenRefused("cannot open", "none");
  write("x", "12345");
  expectOpenRefused("truncated: 5 bytes", "x");
}

//===----------------------------------------------------------------------===//
// Weights
//===----------------------------------------------------------------------===//

const DLDataType floatType = {kDLFloat, 32, 1};

class WeightsTest : public CheckpointTest {
protected:
  Expected<WeightBinder> bind(const WeightSpec &spec) {
    return WeightBinder::bind({spec}, open("w.safetensors"));
  }
  void expectRefused(const WeightSpec &spec, const std::string &text) {
    Expected<WeightBinder> binder = bind(spec);
    ASSERT_FALSE(binder) << text;
    EXPECT_NE(binder.error().find(text), std::string::npos) << binder.error();
  }
};

TEST_F(WeightsTest, ReadsSpecs) {
  Expected<std::vector<WeightSpec>> specs =
      readWeightSpecs(metadataOf({doubleFunction, layerFunction}), 0, "layer");
  ASSERT_TRUE(specs) << specs.error();
  ASSERT_EQ(specs->size(), 1u);
  EXPECT_EQ((*specs)[0].name, "w");
  EXPECT_EQ(typeName((*specs)[0].dtype, (*specs)[0].shape), "f32[3, 4]");
  EXPECT_EQ((*specs)[0].source.size(), 3u);
  EXPECT_EQ((*specs)[0].source[2], "experts.2.w");
  EXPECT_TRUE(readWeightSpecs(metadataFor(doubleFunction), 0, "")->empty());
  EXPECT_FALSE(
      readWeightSpecs(metadataOf({doubleFunction, layerFunction}), 0, ""));
  EXPECT_FALSE(readWeightSpecs(metadataFor(doubleFunction), 0, "none"));
  for (const char *text :
       {"", "{}", "[]", "{\"variants\":[]}", "{\"variants\":[1]}",
        "{\"variants\":[{\"functions\":[{}]}]}",
        "{\"variants\":[{\"functions\":{}}]}",
        "{\"variants\":[{\"functions\":[1]}]}"})
    EXPECT_FALSE(readWeightSpecs(text, 0, "")) << text;
}

TEST_F(WeightsTest, RefusesWrongSpecs) {
  auto with = [](const std::string &argument) {
    return "{\"variants\":[{\"functions\":[{\"name\":\"f\",\"arguments\":[" +
           argument + "]}]}]}";
  };
  auto weight = [&](const std::string &rest) {
    return with("{\"role\":\"weight\",\"name\":\"w\"," + rest + "}");
  };
  EXPECT_TRUE(readWeightSpecs(with("{\"role\":\"input\"}"), 0, "f"));
  for (const std::string &text :
       {with("{\"role\":\"weight\"}"), weight("\"dtype\":\"f32\""),
        weight("\"dtype\":\"f33\",\"shape\":[]"),
        weight("\"dtype\":\"f32\",\"shape\":[-1]"),
        weight("\"dtype\":\"f32\",\"shape\":[1.5]"),
        weight("\"dtype\":\"f32\",\"shape\":[],\"source\":\"a\""),
        weight("\"dtype\":\"f32\",\"shape\":[],\"source\":[1]"),
        weight("\"dtype\":\"f32\",\"shape\":[],\"retained\":0")})
    EXPECT_FALSE(readWeightSpecs(text, 0, "f")) << text;
  Expected<std::vector<WeightSpec>> specs = readWeightSpecs(
      weight("\"dtype\":\"i1\",\"shape\":[2],\"alignment\":64"), 0, "f");
  ASSERT_TRUE(specs) << specs.error();
  EXPECT_EQ((*specs)[0].alignment, 64u);
  // Files call a byte of an i1 a boolean.
  write("w.safetensors", file({{"w", "BOOL", "[2]", 2, 1}}));
  Expected<WeightBinder> binder = bind((*specs)[0]);
  ASSERT_TRUE(binder) << binder.error();
  EXPECT_EQ(dtypeName(binder->tensors()[0].dtype), "u8");
}

TEST_F(WeightsTest, ReportsProgress) {
  write("w.safetensors",
        file({{"e0", "F32", "[3]", 12, 1}, {"e1", "F32", "[3]", 12, 2}}));
  std::vector<uint64_t> seen;
  auto progress = [&](uint64_t done, uint64_t total) {
    EXPECT_EQ(total, 24u);
    seen.push_back(done);
  };
  ASSERT_TRUE(WeightBinder::bind({{"w", floatType, {2, 3}, 4, {"e1", "e0"}}},
                                 open("w.safetensors"), progress));
  EXPECT_EQ(seen, (std::vector<uint64_t>{12, 24}));
}

TEST_F(WeightsTest, MapsOneTensor) {
  write("w.safetensors",
        file({{"model.w", "F32", "[6]", 24, 1}, {"w", "F32", "[2,3]", 24, 2}}));
  // By its source, which may be reshaped; else by its own name.
  Expected<WeightBinder> binder =
      bind({"w", floatType, {2, 3}, 4, {"model.w"}});
  ASSERT_TRUE(binder) << binder.error();
  EXPECT_EQ(binder->ownedBytes(), 0u);
  WeightBinder moved = std::move(*binder);
  ASSERT_EQ(moved.tensors().size(), 1u);
  const DLTensor &tensor = moved.tensors()[0];
  EXPECT_EQ(static_cast<char *>(tensor.data)[23], 1);
  EXPECT_EQ(tensor.ndim, 2);
  EXPECT_EQ(tensor.shape[1], 3);
  binder = bind({"w", floatType, {2, 3}, 4, {"other"}});
  ASSERT_TRUE(binder) << binder.error();
  EXPECT_EQ(static_cast<char *>(binder->tensors()[0].data)[23], 2);
}

TEST_F(WeightsTest, CopiesWhatIsMisaligned) {
  write("w.safetensors", file({{"w", "F32", "[2,3]", 24, 2}}, 2));
  Expected<WeightBinder> binder = bind({"w", floatType, {2, 3}, 4, {}});
  ASSERT_TRUE(binder) << binder.error();
  EXPECT_EQ(binder->ownedBytes(), 24u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(binder->tensors()[0].data) % 64, 0u);
  write("w.safetensors", file({{"w", "F32", "[2,3]", 24, 2}}));
  binder = bind({"w", floatType, {2, 3}, 4096, {}});
  ASSERT_TRUE(binder) << binder.error();
  EXPECT_EQ(reinterpret_cast<uintptr_t>(binder->tensors()[0].data) % 4096, 0u);
}

TEST_F(WeightsTest, IntegersHaveNoSign) {
  write("w.safetensors", file({{"a", "U8", "[2,4]", 8, 1},
                               {"b", "I8", "[2,4]", 8, 2},
                               {"c", "U64", "[1]", 8, 3},
                               {"e0", "U16", "[2]", 4, 4},
                               {"e1", "I16", "[2]", 4, 5}}));
  const DLDataType byte = {kDLInt, 8, 1};
  for (const char *name : {"a", "b"}) {
    Expected<WeightBinder> binder = bind({"w", byte, {2, 4}, 1, {name}});
    ASSERT_TRUE(binder) << binder.error();
    EXPECT_EQ(binder->ownedBytes(), 0u);
    EXPECT_EQ(dtypeName(binder->tensors()[0].dtype), "i8");
  }
  EXPECT_TRUE(bind({"c", {kDLInt, 64, 1}, {1}, 8, {}}));
  Expected<WeightBinder> both =
      bind({"w", {kDLInt, 16, 1}, {2, 2}, 2, {"e0", "e1"}});
  ASSERT_TRUE(both) << both.error();
  EXPECT_EQ(static_cast<char *>(both->tensors()[0].data)[7], 5);
  expectRefused({"w", {kDLInt, 16, 1}, {2, 4}, 2, {"a"}},
                "tensor 'a' has type u8[2, 4], expected i16[2, 4]");
  expectRefused({"w", {kDLFloat, 64, 1}, {1}, 8, {"c"}},
                "tensor 'c' has type u64[1], expected f64[1]");
  // Only a boolean or a byte is one.
  expectRefused({"w", {kDLUInt, 8, 1}, {2, 4}, 1, {"b"}},
                "tensor 'b' has type i8[2, 4], expected u8[2, 4]");
}

TEST_F(WeightsTest, StacksSeveral) {
  write("w.safetensors",
        file({{"e0", "F32", "[3]", 12, 1}, {"e1", "F32", "[3]", 12, 2}}));
  Expected<WeightBinder> binder =
      bind({"w", floatType, {2, 3}, 4, {"e1", "e0"}});
  ASSERT_TRUE(binder) << binder.error();
  EXPECT_EQ(binder->ownedBytes(), 24u);
  const char *data = static_cast<char *>(binder->tensors()[0].data);
  EXPECT_EQ(data[0], 2);
  EXPECT_EQ(data[11], 2);
  EXPECT_EQ(data[12], 1);
  EXPECT_EQ(data[23], 1);
}

TEST_F(WeightsTest, NamesWhatIsWrong) {
  write("w.safetensors", file({{"w", "F32", "[6]", 24, 1},
                               {"e0", "F32", "[3]", 12, 1},
                               {"e1", "F16", "[3]", 6, 1},
                               {"e2", "F32", "[1,3]", 12, 1}}));
  expectRefused({"w", floatType, {2, 3}, 4, {}},
                "weight 'w': tensor 'w' has type f32[6], expected f32[2, 3]");
  expectRefused({"v", floatType, {2, 3}, 4, {}},
                "has no tensor 'v', expected f32[2, 3]");
  expectRefused({"v", floatType, {2, 3}, 4, {"m"}},
                "has no tensor 'm' and no 'v', expected f32[2, 3]");
  expectRefused({"v", floatType, {7}, 4, {"w"}},
                "weight 'v': tensor 'w' has type f32[6], expected f32[7]");
  expectRefused({"v", {kDLBfloat, 16, 1}, {6}, 2, {"w"}},
                "weight 'v': tensor 'w' has type f32[6], expected bf16[6]");
  expectRefused({"v", floatType, {2, 3}, 4, {"e0", "e1"}},
                "weight 'v': tensor 'e1' has type f16[3], expected f32[3]");
  expectRefused({"v", floatType, {2, 3}, 4, {"e0", "e2"}},
                "tensor 'e2' has type f32[1, 3], expected f32[3]");
  expectRefused({"v", floatType, {2, 3}, 4, {"e0", "e9"}},
                "there is no tensor 'e9', expected f32[3]");
  expectRefused({"v", floatType, {3, 3}, 4, {"e0", "e0"}},
                "has 2 tensors as its source, expected its first extent");
}

TEST_F(WeightsTest, ReadsPieceByPiece) {
  write("w.safetensors", file({{"e0", "F32", "[2]", 8, 1},
                               {"e1", "F32", "[2]", 8, 2},
                               {"e2", "F32", "[2]", 8, 3},
                               {"whole", "F32", "[6]", 24, 4}},
                              3));
  std::vector<WeightSpec> specs = {
      {"a", floatType, {3, 2}, 4, {"e2", "e0", "e1"}},
      {"b", floatType, {3, 2}, 4, {"whole"}}};
  std::vector<uint64_t> seen;
  Expected<WeightReader> reader = WeightReader::open(
      specs, open("w.safetensors"), [&](uint64_t done, uint64_t total) {
        EXPECT_EQ(total, 48u);
        seen.push_back(done);
      });
  ASSERT_TRUE(reader) << reader.error();
  WeightReader moved = std::move(*reader);
  auto read = [&](size_t weight, int64_t first, int64_t count) {
    std::string data(static_cast<size_t>(8 * count), '\0');
    EXPECT_EQ(WeightReader::read(&moved, weight, first, count, data.data(),
                                 data.size()),
              0);
    return data;
  };
  auto bytes = [](char value) { return std::string(8, value); };
  EXPECT_EQ(read(0, 0, 1), bytes(3));
  EXPECT_EQ(read(0, 2, 1), bytes(2));
  EXPECT_EQ(read(0, 1, 2), bytes(1) + bytes(2));
  EXPECT_EQ(read(0, 0, 3), bytes(3) + bytes(1) + bytes(2));
  EXPECT_EQ(read(1, 1, 2), bytes(4) + bytes(4));
  EXPECT_EQ(seen, (std::vector<uint64_t>{8, 16, 32, 48, 48}));
  char data[32];
  EXPECT_NE(WeightReader::read(&moved, 2, 0, 1, data, 8), 0);
  EXPECT_NE(WeightReader::read(&moved, 0, -1, 1, data, 8), 0);
  EXPECT_NE(WeightReader::read(&moved, 0, 3, 1, data, 8), 0);
  EXPECT_NE(WeightReader::read(&moved, 0, 2, 2, data, 16), 0);
  Expected<WeightReader> none =
      WeightReader::open({{"c", floatType, {1}, 4, {}}}, open("w.safetensors"));
  ASSERT_FALSE(none);
  EXPECT_NE(none.error().find("has no tensor 'c'"), std::string::npos);
}

// Where its source may be of another type it is rounded to nearest even, bound
// as a whole or read in pieces; a weight that is found by its own name is not.
TEST_F(WeightsTest, ConvertsWhereItMay) {
  // Bytes of 0x3f: f32 0x3f3f3f3f, which is 0x3f3f in bf16; bf16 0x3f3f is
  // f32 0x3f3f0000.
  write("w.safetensors", file({{"e0", "F32", "[2]", 8, 0x3f},
                               {"e1", "BF16", "[2]", 4, 0x3f},
                               {"w", "F32", "[4]", 16, 0x3f}}));
  const DLDataType bfloat = {kDLBfloat, 16, 1};
  WeightSpec narrow{"a", bfloat, {2, 2}, 2, {"e0", "e1"}, false, true};
  WeightSpec wide{"b", floatType, {2}, 4, {"e1"}, true, true};
  auto bits = [](const void *data, size_t count) {
    std::vector<uint16_t> result(count);
    std::memcpy(result.data(), data, 2 * count);
    return result;
  };
  const std::vector<uint16_t> rounded(4, 0x3f3f),
      widened = {0, 0x3f3f, 0, 0x3f3f};
  Expected<WeightBinder> binder =
      WeightBinder::bind({narrow, wide}, open("w.safetensors"));
  ASSERT_TRUE(binder) << binder.error();
  EXPECT_EQ(bits(binder->tensors()[0].data, 4), rounded);
  EXPECT_EQ(bits(binder->tensors()[1].data, 4), widened);
  EXPECT_EQ(binder->ownedBytes(), 8u + 8u);

  Expected<WeightReader> reader =
      WeightReader::open({narrow, wide}, open("w.safetensors"));
  ASSERT_TRUE(reader) << reader.error();
  for (int64_t first : {0, 1}) {
    char data[4];
    EXPECT_EQ(WeightReader::read(&*reader, 0, first, 1, data, 4), 0);
    EXPECT_EQ(bits(data, 2), std::vector<uint16_t>(2, 0x3f3f));
    EXPECT_EQ(WeightReader::read(&*reader, 1, first, 1, data, 4), 0);
    EXPECT_EQ(bits(data, 2), (std::vector<uint16_t>{0, 0x3f3f}));
  }

  narrow.convert = false;
  expectRefused(narrow, "tensor 'e0' has type f32[2], expected bf16[2]");
  expectRefused({"w", bfloat, {4}, 2, {}, true, true},
                "tensor 'w' has type f32[4], expected bf16[4]");
}

TEST_F(WeightsTest, ReadsRandomPieces) {
  std::vector<WeightSpec> specs = {{"a", floatType, {5, 3}, 4, {}},
                                   {"b", {kDLBfloat, 16, 1}, {3, 7}, 2, {}},
                                   {"c", {kDLInt, 16, 1}, {4, 5}, 2, {}}};
  Expected<WeightBinder> binder = WeightBinder::random(specs, 7);
  Expected<WeightReader> reader = WeightReader::random(specs, 7);
  ASSERT_TRUE(binder && reader);
  for (size_t weight = 0; weight < specs.size(); ++weight) {
    const DLTensor &whole = binder->tensors()[weight];
    auto row = static_cast<size_t>(whole.shape[1]) * whole.dtype.bits / 8;
    for (int64_t first = 0; first < whole.shape[0]; ++first)
      for (int64_t count = 1; first + count <= whole.shape[0]; ++count) {
        std::string data(static_cast<size_t>(count) * row, '\0');
        ASSERT_EQ(WeightReader::read(&*reader, weight, first, count,
                                     data.data(), data.size()),
                  0);
        EXPECT_EQ(std::memcmp(data.data(),
                              static_cast<char *>(whole.data) +
                                  static_cast<size_t>(first) * row,
                              data.size()),
                  0)
            << weight << ", " << first << " and " << count;
      }
  }
  Expected<WeightReader> whole =
      WeightReader::random({{"c", {kDLUInt, 8, 1}, {1}, 1, {}}}, 1);
  ASSERT_FALSE(whole);
  EXPECT_NE(whole.error().find("has type u8, expected f32"), std::string::npos);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
uint64_t residentBytes() {
  std::ifstream file("/proc/self/statm");
  uint64_t all = 0, resident = 0;
  file >> all >> resident;
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

TEST_F(WeightsTest, ReadsWithLittleMemory) {
  // 64 experts of 1 MiB, of which at most a few are in memory.
  static constexpr size_t expert = 1 << 20;
  write("w.safetensors", file({{"w", "I8", "[64,1048576]", 64 * expert, 5}}));
  uint64_t before = residentBytes(), most = 0;
  Expected<WeightReader> reader = WeightReader::open(
      {{"w", {kDLInt, 8, 1}, {64, expert}, 1, {}}}, open("w.safetensors"),
      [&](uint64_t, uint64_t) { most = std::max(most, residentBytes()); });
  ASSERT_TRUE(reader) << reader.error();
  std::vector<char> data(expert);
  for (int64_t e = 0; e < 64; ++e)
    ASSERT_EQ(WeightReader::read(&*reader, 0, e, 1, data.data(), expert), 0);
  EXPECT_LT(most - before, 8 * expert);
}
#endif

TEST_F(WeightsTest, ReadsOnlyFunctionsThatAreCalled) {
  Expected<std::vector<WeightSpec>> specs =
      readWeightSpecs(metadataOf({packFunction, packedFunction}), 0, "");
  ASSERT_TRUE(specs) << specs.error();
  ASSERT_EQ(specs->size(), 3u);
  EXPECT_FALSE((*specs)[0].retained);
  EXPECT_TRUE((*specs)[2].retained);
  EXPECT_FALSE(
      readWeightSpecs(metadataOf({packFunction, packedFunction}), 0, "pack"));
}

TEST_F(WeightsTest, RunsALayer) {
  std::string one(16, '\0');
  write("w.safetensors", file({{"experts.0.w", "F32", "[4]", 16, 0},
                               {"experts.1.w", "F32", "[4]", 16, 0},
                               {"experts.2.w", "F32", "[4]", 16, 0}}));
  std::string bytes =
      makeArtifact(readFile(FIXTURE), metadataOf({layerFunction}));
  Context context;
  moe_rt_module_t *module = nullptr;
  ASSERT_OK(
      moe_rt_module_load_memory(context, bytes.data(), bytes.size(), &module));
  Expected<std::vector<WeightSpec>> specs = readWeightSpecs(
      moe_rt_module_metadata(module), moe_rt_module_variant(module), "layer");
  ASSERT_TRUE(specs);
  Expected<WeightBinder> binder =
      WeightBinder::bind(*specs, open("w.safetensors"));
  ASSERT_TRUE(binder) << binder.error();
  moe_rt_layer_t *layer = nullptr;
  EXPECT_OK(moe_rt_layer_create(module, nullptr, binder->tensors().data(),
                                binder->tensors().size(), &layer));
  moe_rt_layer_destroy(layer);
  moe_rt_module_destroy(module);
}

} // namespace
