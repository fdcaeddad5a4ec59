//===- checkpoint_api_test.cpp - The C interface of checkpoints -----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe_rt/checkpoint.h"
#include "testing.h"

#include <atomic>
#include <cstring>
#include <filesystem>
#include <numeric>
#include <thread>

using namespace moe::test;

namespace {

/// A .safetensors file of this header and data.
std::string file(std::string header, const std::string &data,
                 size_t alignment = 8, size_t shift = 0) {
  while ((8 + header.size()) % alignment != shift)
    header += ' ';
  std::string bytes;
  for (int i = 0; i < 8; ++i)
    bytes += static_cast<char>(header.size() >> (8 * i));
  return bytes + header + data;
}

std::string entry(const std::string &name, const std::string &shape,
                  size_t begin, size_t end, const std::string &type = "F32") {
  return "\"" + name + "\":{\"dtype\":\"" + type + "\",\"shape\":" + shape +
         ",\"data_offsets\":[" + std::to_string(begin) + "," +
         std::to_string(end) + "]}";
}

std::string bytesOf(const std::vector<float> &numbers) {
  return {reinterpret_cast<const char *>(numbers.data()),
          numbers.size() * sizeof(float)};
}

/// The numbers from `first` on, 28 of them.
std::string numbers(float first = 1) {
  std::vector<float> values(28);
  std::iota(values.begin(), values.end(), first);
  return bytesOf(values);
}

/// The weights of the function "packed": three experts of its first weight, the
/// second as one tensor, the bias under its own name.
const std::string gates = entry("e.0.gate", "[4]", 0, 16) + "," +
                          entry("e.1.gate", "[4]", 16, 32) + "," +
                          entry("e.2.gate", "[4]", 32, 48) + ",";
std::string header(const std::string &upShape = "[3,4]",
                   const std::string &biasShape = "[4]") {
  return "{" + gates + entry("all.up", upShape, 48, 96) + "," +
         entry("bias", biasShape, 96, 112) + "}";
}

class CheckpointApiTest : public ::testing::Test {
protected:
  ~CheckpointApiTest() override {
    moe_rt_layer_destroy(layer);
    moe_rt_checkpoint_close(checkpoint);
    moe_rt_module_destroy(module);
  }

  void write(const std::string &name, const std::string &bytes) {
    writeFile(directory / name, bytes);
  }
  moe_rt_status_t open(const std::string &name = "") {
    moe_rt_checkpoint_close(checkpoint);
    checkpoint = nullptr;
    return moe_rt_checkpoint_open((directory / name).c_str(), &checkpoint);
  }
  void load(std::vector<std::string> functions = {packFunction,
                                                  packedFunction}) {
    moe_rt_layer_destroy(layer);
    moe_rt_module_destroy(module);
    layer = nullptr;
    std::string bytes = makeArtifact(readFile(FIXTURE), metadataOf(functions));
    ASSERT_OK(moe_rt_module_load_memory(context, bytes.data(), bytes.size(),
                                        &module));
  }
  moe_rt_status_t bind() {
    moe_rt_layer_destroy(layer);
    layer = nullptr;
    return moe_rt_layer_create_from_checkpoint(module, nullptr, checkpoint,
                                               &layer);
  }
  /// Opening, finding every tensor and binding: the first that fails.
  moe_rt_status_t use(const std::string &name = "") {
    if (moe_rt_status_t status = open(name))
      return status;
    for (size_t i = 0; i < moe_rt_checkpoint_tensor_count(checkpoint); ++i) {
      moe_rt_checkpoint_tensor_t tensor;
      if (moe_rt_status_t status = moe_rt_checkpoint_find(
              checkpoint, moe_rt_checkpoint_tensor_name(checkpoint, i),
              &tensor))
        return status;
    }
    return bind();
  }
  /// Call "packed" with weights of `numbers()`.
  void expectRuns() {
    Array<float> x = f32({2, 4}, 1), y = f32({2, 4}), expected = f32({2, 4});
    for (size_t i = 0; i < 8; ++i) {
      float scale = 0;
      for (size_t e = 0; e < 3; ++e) {
        auto place = static_cast<float>(4 * e + i % 4);
        scale += (1 + place) * (13 + place);
      }
      expected.data[i] = scale + 25 + static_cast<float>(i % 4);
    }
    DLTensor in = x.dl(), out = y.dl();
    ASSERT_OK(moe_rt_layer_call(layer, &in, 1, &out, 1, nullptr, 0));
    EXPECT_EQ(y.data, expected.data);
  }

  TemporaryDirectory directory;
  Context context;
  moe_rt_checkpoint_t *checkpoint = nullptr;
  moe_rt_module_t *module = nullptr;
  moe_rt_layer_t *layer = nullptr;
};

TEST_F(CheckpointApiTest, Lists) {
  write("model.safetensors", file(header(), numbers()));
  ASSERT_OK(open());
  ASSERT_EQ(moe_rt_checkpoint_tensor_count(checkpoint), 5u);
  EXPECT_STREQ(moe_rt_checkpoint_tensor_name(checkpoint, 0), "all.up");
  EXPECT_STREQ(moe_rt_checkpoint_tensor_name(checkpoint, 4), "e.2.gate");
  EXPECT_EQ(moe_rt_checkpoint_tensor_name(checkpoint, 5), nullptr);
  moe_rt_checkpoint_tensor_t up;
  ASSERT_OK(moe_rt_checkpoint_find(checkpoint, "all.up", &up));
  EXPECT_STREQ(up.name, "all.up");
  EXPECT_STREQ(up.type, "f32");
  EXPECT_EQ(up.dtype.code, kDLFloat);
  ASSERT_EQ(up.ndim, 2);
  EXPECT_EQ(up.shape[0], 3);
  EXPECT_EQ(up.shape[1], 4);
  ASSERT_EQ(up.bytes, 48u);
  EXPECT_EQ(std::memcmp(up.data, numbers().data() + 48, 48), 0);
  EXPECT_ERROR(moe_rt_checkpoint_find(checkpoint, "down", &up),
               MOE_RT_NOT_FOUND, "there is no tensor 'down'");
}

TEST_F(CheckpointApiTest, BindsWhereItCan) {
  load();
  write("model.safetensors", file(header(), numbers()));
  ASSERT_OK(open());
  ASSERT_OK(bind());
  // What is prepared; the bias stays in the file.
  EXPECT_EQ(moe_rt_layer_weight_bytes(layer), 96u);
  moe_rt_checkpoint_close(checkpoint);
  checkpoint = nullptr;
  expectRuns();
  // A copy of the bias where the file has it at an odd address.
  write("model.safetensors", file(header(), numbers(), 8, 1));
  ASSERT_OK(open());
  ASSERT_OK(bind());
  EXPECT_EQ(moe_rt_layer_weight_bytes(layer), 96u + 16u);
  expectRuns();
}

TEST_F(CheckpointApiTest, StacksWhatCallsRead) {
  load({layerFunction});
  write("w.safetensors", file("{" + entry("experts.0.w", "[4]", 0, 16) + "," +
                                  entry("experts.1.w", "[4]", 16, 32) + "," +
                                  entry("experts.2.w", "[4]", 32, 48) + "}",
                              numbers().substr(0, 48)));
  ASSERT_OK(use("w.safetensors"));
  EXPECT_EQ(moe_rt_layer_weight_bytes(layer), 48u);
  Array<float> x = f32({1, 4}, 1), y = f32({1, 4});
  Array<int32_t> ids = i32({1, 2}, 1);
  ids.data[1] = 2;
  DLTensor in[] = {x.dl(), ids.dl()}, out = y.dl();
  ASSERT_OK(moe_rt_layer_call(layer, in, 2, &out, 1, nullptr, 0));
  EXPECT_EQ(y.data, (std::vector<float>{14, 16, 18, 20}));
}

TEST_F(CheckpointApiTest, SeveralFiles) {
  load();
  write("b.safetensors", file("{" + gates.substr(0, gates.size() - 1) + "}",
                              numbers().substr(0, 48)));
  write("a.safetensors", file("{" + entry("all.up", "[3,4]", 0, 48) + "}",
                              numbers().substr(48, 48)));
  write("c.safetensors",
        file("{" + entry("bias", "[4]", 0, 16) + "}", numbers().substr(96)));
  ASSERT_OK(use());
  expectRuns();
  std::string map;
  for (const char *name : {"e.0.gate", "e.1.gate", "e.2.gate"})
    map += "\"" + std::string(name) + "\":\"b.safetensors\",";
  map += "\"all.up\":\"a.safetensors\",\"bias\":\"c.safetensors\"";
  write("model.safetensors.index.json", "{\"weight_map\":{" + map + "}}");
  ASSERT_OK(use());
  expectRuns();
  ASSERT_OK(use("model.safetensors.index.json"));
  expectRuns();
  // Without an index nothing says which of two is meant.
  std::filesystem::remove(directory / "model.safetensors.index.json");
  write("d.safetensors",
        file("{" + entry("bias", "[4]", 0, 16) + "}", numbers().substr(0, 16)));
  EXPECT_ERROR(use(), MOE_RT_DATA_LOSS,
               "tensor 'bias' is in 'c.safetensors' and in 'd.safetensors'");
}

TEST_F(CheckpointApiTest, ManyThreadsAtOnce) {
  load();
  write("a.safetensors", file(header(), numbers()));
  std::string map;
  for (const char *name : {"e.0.gate", "e.1.gate", "e.2.gate", "all.up"})
    map += "\"" + std::string(name) + "\":\"a.safetensors\",";
  write("model.safetensors.index.json",
        "{\"weight_map\":{" + map + "\"bias\":\"a.safetensors\"}}");
  ASSERT_OK(open());
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      moe_rt_layer_t *mine = nullptr;
      moe_rt_checkpoint_tensor_t tensor;
      Result found = moe_rt_checkpoint_find(checkpoint, "bias", &tensor);
      Result made = moe_rt_layer_create_from_checkpoint(module, nullptr,
                                                        checkpoint, &mine);
      failures += found.code != MOE_RT_OK || made.code != MOE_RT_OK;
      moe_rt_layer_destroy(mine);
    });
  for (std::thread &thread : threads)
    thread.join();
  EXPECT_EQ(failures, 0);
}

//===----------------------------------------------------------------------===//
// What is refused
//===----------------------------------------------------------------------===//

TEST_F(CheckpointApiTest, RefusesDamagedFiles) {
  load();
  std::string good = file(header(), numbers());
  std::string up = entry("all.up", "[3,4]", 48, 96);
  auto with = [&](const std::string &entries) {
    return file("{" + gates + entries + "}", numbers());
  };
  struct {
    const char *what;
    std::string bytes;
    const char *message;
  } cases[] = {
      {"empty", "", "truncated: 0 bytes, expected at least 8"},
      {"short", good.substr(0, 7), "truncated: 7 bytes"},
      {"no header", good.substr(0, 60), "truncated: header of"},
      {"no data", good.substr(0, good.size() - 1), "expected a range within"},
      {"more data", good + "x", "the tensors cover 112 bytes of data"},
      {"huge header", std::string(8, '\xff') + good.substr(8),
       "its header has 18446744073709551615 bytes"},
      {"no JSON", file("{\"a\"", ""), "invalid header"},
      {"not UTF-8", file("{\"\xff\":1}", ""), "invalid header"},
      {"an array", file("[]", ""), "does not start with '{'"},
      {"deep", file("{\"a\":" + std::string(99, '['), ""), "nested deeper"},
      {"an entry that is none", with("\"all.up\":7"), "has no type"},
      {"duplicate key",
       with(up + "," + up + "," + entry("bias", "[4]", 96, 112)),
       "repeated key 'all.up'"},
      {"overlap",
       with(up + "," + entry("bias", "[4]", 80, 96) + "," +
            entry("rest", "[4]", 96, 112)),
       "tensor 'bias' starts at byte 80 of the data, expected 96"},
      {"hole",
       with(up.substr(0, up.size()) + "," + entry("bias", "[3]", 100, 112)),
       "tensor 'bias' starts at byte 100 of the data, expected 96"},
      {"negative extents", file(header("[-3,-4]"), numbers()),
       "has an extent that is no integer from 0"},
      {"other size", file(header("[3,5]"), numbers()),
       "has 48 bytes, expected 60"},
      {"overflow", file(header("[4611686018427387904,4]"), numbers()),
       "expected an impossible size"},
      {"unknown type", with(entry("all.up", "[3,4]", 48, 96, "F33")),
       "unknown type 'F33'"},
      {"NUL in a name", with(entry("all.up\\u0000", "[3,4]", 48, 96)),
       "has a NUL character in its name"},
  };
  for (const auto &entry : cases) {
    SCOPED_TRACE(entry.what);
    write("model.safetensors", entry.bytes);
    EXPECT_ERROR(use(), MOE_RT_DATA_LOSS, entry.message);
    EXPECT_EQ(checkpoint, nullptr);
  }
}

TEST_F(CheckpointApiTest, RefusesOtherShapes) {
  load();
  // As many elements as the weight, in another order.
  for (const char *shape : {"[4,3]", "[2,6]", "[6,2]", "[2,2,3]"}) {
    SCOPED_TRACE(shape);
    write("model.safetensors", file(header(shape), numbers()));
    EXPECT_ERROR(use(), MOE_RT_INVALID_ARGUMENT,
                 "weight 'up': tensor 'all.up' has type f32[");
    EXPECT_EQ(layer, nullptr);
  }
  for (const char *shape : {"[12]", "[3,4]", "[3,2,2]", "[3,1,4,1]"}) {
    SCOPED_TRACE(shape);
    write("model.safetensors", file(header(shape), numbers()));
    ASSERT_OK(use());
    expectRuns();
  }
  // By its own name a tensor has to be what it is.
  write("model.safetensors", file(header("[3,4]", "[2,2]"), numbers()));
  EXPECT_ERROR(use(), MOE_RT_INVALID_ARGUMENT,
               "weight 'bias': tensor 'bias' has type f32[2, 2], expected "
               "f32[4]");
  write("model.safetensors",
        file("{" + gates + entry("all.up", "[3,4]", 48, 96, "I32") + "," +
                 entry("bias", "[4]", 96, 112) + "}",
             numbers()));
  EXPECT_ERROR(use(), MOE_RT_INVALID_ARGUMENT,
               "tensor 'all.up' has type i32[3, 4], expected f32[3, 4]");
  write("model.safetensors", file("{" + gates.substr(0, gates.size() - 1) + "}",
                                  numbers().substr(0, 48)));
  EXPECT_ERROR(use(), MOE_RT_NOT_FOUND,
               "has no tensor 'all.up' and no 'up', expected f32[3, 4]");
}

TEST_F(CheckpointApiTest, RefusesHostileIndices) {
  load();
  TemporaryDirectory outside;
  std::string good = file(header(), numbers());
  writeFile(outside / "a.safetensors", good);
  write("a.safetensors", good);
  struct {
    const char *what;
    std::string text;
    moe_rt_code_t code;
    const char *message;
  } cases[] = {
      {"parent directory", "{\"weight_map\":{\"bias\":\"../a.safetensors\"}}",
       MOE_RT_DATA_LOSS, "expected the name of a file in the same directory"},
      {"absolute path",
       "{\"weight_map\":{\"bias\":\"" + (outside / "a.safetensors") + "\"}}",
       MOE_RT_DATA_LOSS, "expected the name of a file in the same directory"},
      {"missing file", "{\"weight_map\":{\"bias\":\"b.safetensors\"}}",
       MOE_RT_NOT_FOUND, "b.safetensors: cannot open"},
      {"missing tensor", "{\"weight_map\":{\"norm\":\"a.safetensors\"}}",
       MOE_RT_DATA_LOSS, "which the index says is here"},
      {"duplicate key",
       "{\"weight_map\":{\"a\":\"a.safetensors\",\"a\":\"b.safetensors\"}}",
       MOE_RT_DATA_LOSS, "repeated key 'a'"},
      {"no JSON", "{", MOE_RT_DATA_LOSS, "invalid JSON"},
      {"no map", "{}", MOE_RT_DATA_LOSS, "'weight_map' is nothing"},
      {"a number", "{\"weight_map\":{\"a\":1}}", MOE_RT_DATA_LOSS,
       "tensor 'a' is in a number"},
      {"NUL in a name", "{\"weight_map\":{\"a\\u0000\":\"a.safetensors\"}}",
       MOE_RT_DATA_LOSS, "has a NUL character in its name"},
  };
  for (const auto &entry : cases) {
    SCOPED_TRACE(entry.what);
    write("model.safetensors.index.json", entry.text);
    EXPECT_ERROR(use(), entry.code, entry.message);
  }
}

TEST_F(CheckpointApiTest, RefusesWhatIsNotThere) {
  load();
  EXPECT_ERROR(open("none"), MOE_RT_NOT_FOUND, "none: cannot open");
  EXPECT_ERROR(open(), MOE_RT_NOT_FOUND, "neither model.safetensors nor");
  std::filesystem::create_directory(directory / "model.safetensors");
  EXPECT_ERROR(open(), MOE_RT_INVALID_ARGUMENT, "not a regular file");
  EXPECT_ERROR(moe_rt_checkpoint_open(nullptr, &checkpoint),
               MOE_RT_INVALID_ARGUMENT, "an argument is NULL");
  EXPECT_ERROR(moe_rt_checkpoint_find(nullptr, "a", nullptr),
               MOE_RT_INVALID_ARGUMENT, "an argument is NULL");
  EXPECT_ERROR(bind(), MOE_RT_INVALID_ARGUMENT, "an argument is NULL");
  EXPECT_EQ(moe_rt_checkpoint_tensor_count(nullptr), 0u);
  moe_rt_checkpoint_close(nullptr);
  write("w.safetensors", file("{}", ""));
  ASSERT_OK(open("w.safetensors"));
  EXPECT_ERROR(
      moe_rt_layer_create_from_checkpoint(module, "none", checkpoint, &layer),
      MOE_RT_NOT_FOUND, "no function 'none'");
}

} // namespace
