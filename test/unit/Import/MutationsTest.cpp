//===- MutationsTest.cpp - Import of mutated checkpoints ------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Mutates configurations, tensors and files that import, several places at
// once. Whatever comes of it is a layer that verifies or an error with words. A
// second each, or a minute with MOE_TEST_LONG=1; a failure prints its seed.
//
//===----------------------------------------------------------------------===//

#include "FakeCheckpoint.h"
#include "moe/Import/GGUF.h"
#include "moe/Import/HuggingFace.h"

#include "mlir/IR/Verifier.h"

#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/raw_ostream.h"

#include "gtest/gtest.h"

#include <chrono>
#include <cstdlib>
#include <random>

using namespace mlir;
using namespace mlir::moe;

namespace {

using Tensor = CheckpointReader::Tensor;
using Random = std::mt19937_64;

template <typename T> const T &pick(Random &random, ArrayRef<T> values) {
  return values[random() % values.size()];
}

/// Calls `once` with seeds until the time is up.
void repeat(llvm::function_ref<void(uint64_t)> once) {
  const char *isLong = std::getenv("MOE_TEST_LONG");
  auto time = std::chrono::seconds(isLong && StringRef(isLong) == "1" ? 60 : 1);
  auto end = std::chrono::steady_clock::now() + time;
  uint64_t seed = 0;
  for (; std::chrono::steady_clock::now() < end && !testing::Test::HasFailure();
       ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    once(seed);
  }
  llvm::outs() << seed << " mutations\n";
}

void expectLayerOrError(llvm::Expected<OwningOpRef<ModuleOp>> result) {
  if (result) {
    EXPECT_TRUE(succeeded(verify(**result)));
    return;
  }
  std::string message = llvm::toString(result.takeError());
  EXPECT_FALSE(message.empty());
  EXPECT_FALSE(StringRef(message).contains("is not valid")) << message;
}

//===----------------------------------------------------------------------===//
// Hugging Face
//===----------------------------------------------------------------------===//

/// A layer of 4 experts, H = 64 and I = 32, in one format.
struct Quantised {
  const char *name, *config;
  bool isStacked; // experts in one tensor, as gpt-oss has them
  /// Turns a matrix `[n, k]` with its name, without `.weight`, to tensors.
  void (*add)(FakeCheckpoint &, const std::string &name, int64_t n, int64_t k);
};

const Quantised formats[] = {
    {"none", "{}", false,
     [](FakeCheckpoint &c, const std::string &name, int64_t n, int64_t k) {
       c.tensors[name + ".weight"] = {"bf16", {n, k}};
     }},
    {"fp8 blocks", R"({"quant_method": "fp8", "weight_block_size": [16, 16]})",
     false,
     [](FakeCheckpoint &c, const std::string &name, int64_t n, int64_t k) {
       c.tensors[name + ".weight"] = {"f8E4M3FN", {n, k}};
       c.tensors[name + ".weight_scale_inv"] = {"f32", {n / 16, k / 16}};
     }},
    {"fp8 rows",
     R"({"config_groups": {"group_0": {"weights": {"num_bits": 8,
         "strategy": "channel", "type": "float"}}}})",
     false,
     [](FakeCheckpoint &c, const std::string &name, int64_t n, int64_t k) {
       c.tensors[name + ".weight"] = {"f8E4M3FN", {n, k}};
       c.tensors[name + ".weight_scale"] = {"bf16", {n, 1}};
     }},
    {"int4 packed",
     R"({"config_groups": {"group_0": {"weights": {"num_bits": 4,
         "group_size": 16, "strategy": "group", "symmetric": false}}}})",
     false,
     [](FakeCheckpoint &c, const std::string &name, int64_t n, int64_t k) {
       c.tensors[name + ".weight_packed"] = {"i32", {n, k / 8}};
       c.tensors[name + ".weight_scale"] = {"bf16", {n, k / 16}};
       c.tensors[name + ".weight_shape"] = {"i64", {2}};
       c.tensors[name + ".weight_zero_point"] = {"i32", {n / 8, k / 16}};
     }},
    {"mxfp4 per expert", R"({"quant_method": "compressed-tensors"})", false,
     [](FakeCheckpoint &c, const std::string &name, int64_t n, int64_t k) {
       c.tensors[name + ".weight_packed"] = {"u8", {n, k / 2}};
       c.tensors[name + ".weight_scale"] = {"u8", {n, k / 32}};
     }},
};

FakeCheckpoint makeCheckpoint(const Quantised &format) {
  FakeCheckpoint checkpoint;
  std::string prefix = "model.layers.0.mlp.";
  checkpoint.tensors[prefix + "gate.weight"] = {"bf16", {4, 64}};
  for (int64_t e = 0; e < 4; ++e) {
    std::string expert = prefix + "experts." + std::to_string(e) + ".";
    format.add(checkpoint, expert + "gate_proj", 32, 64);
    format.add(checkpoint, expert + "up_proj", 32, 64);
    format.add(checkpoint, expert + "down_proj", 64, 32);
  }
  return checkpoint;
}

llvm::json::Value hostileValue(Random &random) {
  static const StringRef values[] = {"null",
                                     "true",
                                     "-1",
                                     "0",
                                     "1",
                                     "2",
                                     "3",
                                     "16",
                                     "64",
                                     "0.5",
                                     "1e999",
                                     "1e308",
                                     "[]",
                                     "{}",
                                     "[0]",
                                     "[16]",
                                     "[16, 16, 16]",
                                     "[-1, 1e99]",
                                     "[1048576, 1048576]",
                                     "\"\"",
                                     "\"x\"",
                                     "\"fp8\"",
                                     "\"gptq\"",
                                     "1048577",
                                     "9223372036854775807",
                                     "-9223372036854775808",
                                     "\"\\u0000\""};
  return llvm::cantFail(
      llvm::json::parse(pick(random, ArrayRef<StringRef>(values))));
}

/// Changes one value of an object, or of one in it; or removes or adds it.
void mutate(llvm::json::Object &object, Random &random) {
  std::vector<std::string> keys;
  for (const auto &entry : object)
    keys.push_back(entry.first.str());
  if (keys.empty() || random() % 16 == 0) {
    static const StringRef others[] = {"quantization_config",
                                       "text_config",
                                       "weight_block_size",
                                       "num_bits",
                                       "group_size",
                                       "hidden_act",
                                       "actorder",
                                       "block_structure"};
    object[pick(random, ArrayRef<StringRef>(others))] = hostileValue(random);
    return;
  }
  const std::string &key = pick(random, ArrayRef<std::string>(keys));
  if (llvm::json::Object *inner = object.getObject(key);
      inner && random() % 8 != 0)
    return mutate(*inner, random);
  if (random() % 6 == 0)
    object.erase(key);
  else
    object[key] = hostileValue(random);
}

void mutate(FakeCheckpoint &checkpoint, Random &random) {
  auto found = checkpoint.tensors.begin();
  std::advance(found, random() % checkpoint.tensors.size());
  Tensor &tensor = found->second;
  static const StringRef types[] = {"f32",  "f16",       "bf16", "f8E4M3FN",
                                    "i8",   "u8",        "i32",  "i64",
                                    "bool", "f8E8M0FNU", "",     "F4"};
  static const int64_t extents[] = {0,  1,  2,  3,         16,
                                    32, 64, -1, INT64_MAX, int64_t(1) << 40};
  static const StringRef suffixes[] = {
      "_scale",  "_scale_inv", "_zero_point", "_packed",      "_shape",
      "_blocks", ".absmax",    "_g_idx",      "_global_scale"};
  switch (random() % 6) {
  case 0:
    tensor.dtype = pick(random, ArrayRef<StringRef>(types)).str();
    break;
  case 1:
    if (!tensor.shape.empty())
      tensor.shape[random() % tensor.shape.size()] =
          pick(random, ArrayRef<int64_t>(extents));
    break;
  case 2:
    tensor.shape.push_back(pick(random, ArrayRef<int64_t>(extents)));
    break;
  case 3:
    if (!tensor.shape.empty())
      tensor.shape.erase(tensor.shape.begin());
    break;
  case 4:
    checkpoint.tensors.erase(found);
    break;
  default:
    checkpoint.tensors[found->first +
                       pick(random, ArrayRef<StringRef>(suffixes)).str()] =
        Tensor(tensor);
  }
}

TEST(MutationsTest, HuggingFace) {
  MLIRContext context;
  auto configOf = [](const Quantised &format) {
    std::string text =
        std::string(R"({"model_type": "qwen3_moe", "hidden_size": 64,
          "num_hidden_layers": 1, "moe_intermediate_size": 32,
          "num_experts": 4, "num_experts_per_tok": 2, "norm_topk_prob": true,
          "torch_dtype": "bfloat16", "quantization_config": )") +
        format.config + "}";
    llvm::json::Value value = llvm::cantFail(llvm::json::parse(text));
    return llvm::json::Object(*value.getAsObject());
  };
  auto import = [&](const llvm::json::Object &config,
                    FakeCheckpoint &checkpoint) {
    std::string text =
        llvm::formatv("{0}", llvm::json::Value(llvm::json::Object(config)));
    return importHuggingFaceLayer(context, text, &checkpoint, {});
  };
  for (const Quantised &format : formats) {
    FakeCheckpoint checkpoint = makeCheckpoint(format);
    auto module = import(configOf(format), checkpoint);
    ASSERT_TRUE(bool(module))
        << format.name << ": " << llvm::toString(module.takeError());
  }
  repeat([&](uint64_t seed) {
    Random random(seed);
    const Quantised &format = pick(random, ArrayRef<Quantised>(formats));
    FakeCheckpoint checkpoint = makeCheckpoint(format);
    llvm::json::Object config = configOf(format);
    for (uint64_t count = random() % 3 + 1; count > 0; --count)
      if (random() % 2 == 0)
        mutate(config, random);
      else
        mutate(checkpoint, random);
    expectLayerOrError(import(config, checkpoint));
  });
}

//===----------------------------------------------------------------------===//
// GGUF
//===----------------------------------------------------------------------===//

/// Writes the bytes of a .gguf file, version 3.
class GGUFWriter {
public:
  void integer(StringRef key, uint32_t value) {
    ++numKeys;
    string(keys, key);
    append<uint32_t>(keys, 4);
    append<uint32_t>(keys, value);
  }
  void text(StringRef key, StringRef value) {
    ++numKeys;
    string(keys, key);
    append<uint32_t>(keys, 8);
    string(keys, value);
  }
  /// `extents` are those of ggml, the last one first.
  void tensor(StringRef name, ArrayRef<uint64_t> extents, uint32_t type,
              uint64_t bytes) {
    ++numTensors;
    string(infos, name);
    append<uint32_t>(infos, extents.size());
    for (uint64_t extent : extents)
      append<uint64_t>(infos, extent);
    append<uint32_t>(infos, type);
    append<uint64_t>(infos, data);
    data += (bytes + 31) / 32 * 32;
  }
  /// The bytes before the elements of tensors, which are zeros.
  std::string header() const {
    std::string all("GGUF\3\0\0\0", 8);
    append<uint64_t>(all, numTensors);
    append<uint64_t>(all, numKeys);
    return all + keys + infos;
  }
  size_t numBytes() const { return (header().size() + 31) / 32 * 32 + data; }

private:
  template <typename T> static void append(std::string &to, T value) {
    for (size_t i = 0; i < sizeof(T); ++i)
      to.push_back(char(uint64_t(value) >> 8 * i));
  }
  static void string(std::string &to, StringRef text) {
    append<uint64_t>(to, text.size());
    to += text.str();
  }

  std::string keys, infos;
  uint64_t numKeys = 0, numTensors = 0, data = 0;
};

constexpr uint32_t ggmlF32 = 0, ggmlQ4_0 = 2, ggmlQ8_0 = 8, ggmlQ4_K = 12;

GGUFWriter makeFile(Random &random) {
  GGUFWriter file;
  static const StringRef architectures[] = {"qwen3moe", "llama", "deepseek2",
                                            "gpt-oss", "olmoe"};
  StringRef architecture = pick(random, ArrayRef<StringRef>(architectures));
  auto key = [&](StringRef end) { return (architecture + "." + end).str(); };
  file.text("general.architecture", architecture);
  file.integer(key("block_count"), 1);
  file.integer(key("embedding_length"), 256);
  file.integer(key("expert_count"), 4);
  file.integer(key("expert_used_count"), 2);
  file.integer(key("expert_gating_func"), random() % 5);
  file.integer(key("expert_group_count"), random() % 3);
  file.integer(key("expert_group_used_count"), 1);
  static const std::pair<uint32_t, uint64_t> types[] = {
      {ggmlF32, 1024}, {ggmlQ4_0, 144}, {ggmlQ8_0, 272}, {ggmlQ4_K, 144}};
  auto [type, bytes] =
      pick(random, ArrayRef<std::pair<uint32_t, uint64_t>>(types));
  file.tensor("blk.0.ffn_gate_inp.weight", {256, 4}, ggmlF32, 4096);
  for (const char *name : {"gate", "up", "down"})
    file.tensor(std::string("blk.0.ffn_") + name + "_exps.weight",
                {256, 256, 4}, type, bytes * 1024);
  return file;
}

TEST(MutationsTest, GGUF) {
  MLIRContext context;
  llvm::SmallString<128> path;
  int descriptor = -1;
  ASSERT_FALSE(
      llvm::sys::fs::createTemporaryFile("mutated", "gguf", descriptor, path));
  llvm::raw_fd_ostream(descriptor, /*shouldClose=*/true).flush();
  auto import = [&](const std::string &header, size_t bytes) {
    int descriptor = -1;
    EXPECT_FALSE(llvm::sys::fs::openFileForWrite(path, descriptor));
    llvm::raw_fd_ostream file(descriptor, /*shouldClose=*/true);
    file << header;
    file.flush();
    // Its end is a hole: nothing reads the elements.
    EXPECT_FALSE(llvm::sys::fs::resize_file(descriptor, bytes));
    file.close();
    return importGGUFLayer(context, path, {});
  };
  {
    Random random(0);
    GGUFWriter file = makeFile(random);
    auto module = import(file.header(), file.numBytes());
    ASSERT_TRUE(bool(module)) << llvm::toString(module.takeError());
  }
  uint64_t imported = 0;
  repeat([&](uint64_t seed) {
    Random random(seed);
    GGUFWriter file = makeFile(random);
    std::string header = file.header();
    for (uint64_t count = random() % 3; count > 0; --count) {
      char &byte = header[random() % header.size()];
      static const char values[] = {0, 1, 2, 3, 8, 64, 127, char(128), -1};
      byte = random() % 2 ? pick(random, ArrayRef<char>(values))
                          : char(byte ^ (1 << random() % 8));
    }
    size_t bytes = file.numBytes();
    if (random() % 8 == 0)
      bytes = random() % bytes;
    if (bytes < header.size())
      header.resize(bytes);
    auto module = import(header, bytes);
    imported += bool(module);
    expectLayerOrError(std::move(module));
  });
  EXPECT_GT(imported, 0u);
  llvm::sys::fs::remove(path);
}

} // namespace
