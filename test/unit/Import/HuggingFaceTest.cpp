//===- HuggingFaceTest.cpp - Import of configurations and checkpoints -----===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What is refused, and with which words. What the layers compute is compared
// with transformers in test/python/import, test_import_hf.py and
// test_import_families.py.
//
//===----------------------------------------------------------------------===//

#include "moe/Import/HuggingFace.h"
#include "FakeCheckpoint.h"
#include "FamilyExamples.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"

#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"

#include "gtest/gtest.h"

#include <map>

using namespace mlir;
using namespace mlir::moe;

namespace {

std::string print(const llvm::json::Object &object) {
  return llvm::formatv("{0}", llvm::json::Value(llvm::json::Object(object)));
}

class HuggingFaceTest : public testing::Test {
protected:
  using Result = llvm::Expected<OwningOpRef<ModuleOp>>;

  Result import(StringRef config, int64_t layer,
                CheckpointReader *checkpoint = nullptr,
                std::string dtype = "") {
    HuggingFaceOptions options;
    options.layer = layer;
    options.dtype = std::move(dtype);
    return importHuggingFaceLayer(context, config, checkpoint, options);
  }

  /// The error of an import; empty if there is none.
  std::string error(StringRef config, int64_t layer = 0,
                    CheckpointReader *checkpoint = nullptr,
                    std::string dtype = "") {
    Result module = import(config, layer, checkpoint, std::move(dtype));
    return module ? "" : llvm::toString(module.takeError());
  }

  /// The tensors that an imported layer names, as a checkpoint has them.
  FakeCheckpoint tensorsOf(ModuleOp module) {
    FakeCheckpoint checkpoint;
    auto function = cast<func::FuncOp>(module.lookupSymbol("layer"));
    for (BlockArgument argument : function.getArguments().drop_front()) {
      auto source = function.getArgAttrOfType<ArrayAttr>(
          argument.getArgNumber(), "moe.source");
      auto type = cast<RankedTensorType>(argument.getType());
      std::vector<int64_t> shape = type.getShape().vec();
      if (source.size() > 1) // a tensor for each expert
        shape.erase(shape.begin());
      for (Attribute name : source) {
        std::string text = cast<StringAttr>(name).str();
        bool flattened = StringRef(text).contains("ffn.experts.mlp.");
        checkpoint.tensors[text] = {
            type.getElementType().isBF16() ? "bf16" : "f32",
            flattened ? std::vector<int64_t>{shape[0] * shape[1], shape[2]}
                      : shape};
      }
    }
    return checkpoint;
  }

  MLIRContext context;
};

void expectContains(const std::string &text, StringRef part) {
  EXPECT_TRUE(StringRef(text).contains(part))
      << "'" << text << "' does not contain '" << part.str() << "'";
}

//===----------------------------------------------------------------------===//
// All families
//===----------------------------------------------------------------------===//

TEST_F(HuggingFaceTest, EveryFamilyHasAnExample) {
  std::vector<StringRef> names;
  forEachFamily([&](StringRef name, int64_t, llvm::json::Object) {
    names.push_back(name);
  });
  llvm::sort(names);
  EXPECT_EQ(getHuggingFaceFamilies(), names);
}

TEST_F(HuggingFaceTest, ExamplesImport) {
  forEachFamily([&](StringRef, int64_t layer, llvm::json::Object object) {
    std::string config = print(object);
    for (const char *dtype : {"f32", "f16", "bf16"})
      EXPECT_EQ(error(config, layer, nullptr, dtype), "") << config;
    EXPECT_EQ(error(config, layer), "");
  });
}

TEST_F(HuggingFaceTest, CheckpointsOfThatShapeImport) {
  forEachFamily([&](StringRef, int64_t layer, llvm::json::Object object) {
    std::string config = print(object);
    Result module = import(config, layer);
    ASSERT_TRUE(bool(module)) << llvm::toString(module.takeError());
    FakeCheckpoint checkpoint = tensorsOf(**module);
    EXPECT_EQ(error(config, layer, &checkpoint), "");
  });
}

/// Every tensor in turn is missing, has another shape, another type, or cannot
/// be read; the error names it.
TEST_F(HuggingFaceTest, EveryTensorIsChecked) {
  forEachFamily([&](StringRef, int64_t layer, llvm::json::Object object) {
    std::string config = print(object);
    Result module = import(config, layer);
    ASSERT_TRUE(bool(module)) << llvm::toString(module.takeError());
    FakeCheckpoint checkpoint = tensorsOf(**module);
    for (const auto &[name, tensor] : std::map(checkpoint.tensors)) {
      std::string quoted = "'" + name + "'";
      checkpoint.tensors.erase(name);
      expectContains(error(config, layer, &checkpoint), quoted);

      CheckpointReader::Tensor changed = tensor;
      ++changed.shape.back();
      checkpoint.tensors[name] = changed;
      expectContains(error(config, layer, &checkpoint), quoted);
      changed = tensor;
      changed.shape.push_back(1);
      checkpoint.tensors[name] = changed;
      expectContains(error(config, layer, &checkpoint), quoted);
      changed = tensor;
      changed.dtype = "i8";
      checkpoint.tensors[name] = changed;
      expectContains(error(config, layer, &checkpoint), quoted);

      checkpoint.tensors[name] = tensor;
      checkpoint.unreadable = name;
      expectContains(error(config, layer, &checkpoint),
                     quoted + ": the shard is damaged");
      checkpoint.unreadable.clear();
    }
  });
}

//===----------------------------------------------------------------------===//
// Hostile configurations
//===----------------------------------------------------------------------===//

/// Call `use` with each key of an object and of those inside it, and a way to
/// set its value.
void forEachKey(
    llvm::json::Object &object,
    llvm::function_ref<void(llvm::json::Object &, std::string)> use) {
  std::vector<std::string> keys;
  for (const auto &entry : object)
    keys.push_back(entry.first.str());
  for (const std::string &key : keys) {
    if (llvm::json::Object *inner = object.getObject(key))
      forEachKey(*inner, use);
    use(object, key);
  }
}

/// Whatever stands under a key, the result is a valid layer or an error.
TEST_F(HuggingFaceTest, AnyValueUnderAnyKey) {
  const char *values[] = {"null",
                          "true",
                          "false",
                          "-1",
                          "0",
                          "1",
                          "2",
                          "3",
                          "1e3",
                          "0.5",
                          "-0.0",
                          "1e308",
                          "1e999",
                          "-1e99",
                          "[]",
                          "{}",
                          "[[]]",
                          "[-1, 1e99]",
                          "[0]",
                          "\"\"",
                          "\"x\"",
                          "[null]",
                          "65536",
                          "1048576",
                          "1048577",
                          "9223372036854775807",
                          "-9223372036854775808",
                          "18446744073709551616",
                          "\"\\u0000\""};
  // Families of one example are read by the same code.
  auto check = [&](StringRef, int64_t layer, llvm::json::Object config) {
    forEachKey(config, [&](llvm::json::Object &object, std::string key) {
      llvm::json::Value saved = *object.get(key);
      for (const char *text : values) {
        object[key] = llvm::cantFail(llvm::json::parse(StringRef(text)));
        std::string message = error(print(config), layer);
        EXPECT_FALSE(StringRef(message).contains("is not valid"))
            << key << " = " << text << ": " << message;
      }
      object.erase(key);
      std::string message = error(print(config), layer);
      if (!message.empty() && StringRef(message).contains("missing"))
        expectContains(message, key);
      object[key] = saved;
    });
  };
  forEachFamily(check, /*onlyFirst=*/true);
}

TEST_F(HuggingFaceTest, NoJson) {
  for (const char *text :
       {"", "{", "nul", "{\"a\": nan}", "{\"a\": -NaN}", "{NaN: 1}",
        "{\"a\": +Infinity}", "{} {}", "\"\xff\""})
    expectContains(error(text), "config.json: invalid JSON");
  for (const char *text : {"[]", "1", "null"})
    expectContains(error(text), "expected an object at the top level");
  std::string nested(1 << 20, '[');
  expectContains(error(nested), "nested deeper than 64 levels");
  expectContains(error("{\"a\": " + nested), "nested deeper than 64 levels");
  // Brackets in strings are none.
  expectContains(error("{\"\\\"" + nested + "\": 1}"), "missing key");
}

TEST_F(HuggingFaceTest, ModelType) {
  expectContains(error("{}"), "missing key 'model_type'");
  expectContains(error(R"({"model_type": 3})"),
                 "expected 'model_type' to be a string, got 3");
  expectContains(error(R"({"model_type": "bert"})"),
                 "model_type 'bert' is not among the supported families "
                 "(blocks of others need PyTorch: moe.from_torch(block)): "
                 "afmoe, aria, aria_text, ");
}

/// A configuration of Mixtral with one key set.
std::string mixtralWith(StringRef key, llvm::json::Value value) {
  llvm::json::Object object = configOf("mixtral");
  object[key] = std::move(value);
  return print(object);
}

/// Python writes numbers that JSON lacks; where one is read it is an error.
TEST_F(HuggingFaceTest, NonFiniteNumbers) {
  std::string config = mixtralWith("eps", "here");
  auto with = [&](StringRef value) {
    std::string text = config;
    text.replace(text.find("\"here\""), 6, value.str());
    return text;
  };
  for (StringRef value :
       {"NaN", "Infinity", "-Infinity", "[0.0, Infinity]", "{\"a\":NaN}"})
    EXPECT_EQ(error(with(value)), "") << value.str();
  std::string read = mixtralWith("hidden_size", "here");
  read.replace(read.find("\"here\""), 6, "Infinity");
  expectContains(error(read), "expected 'hidden_size' to be an integer between "
                              "1 and 1048576, got a number that is not finite");
}

TEST_F(HuggingFaceTest, Messages) {
  EXPECT_EQ(error(mixtralWith("hidden_size", nullptr)),
            "config.json: missing key 'hidden_size'");
  EXPECT_EQ(error(mixtralWith("hidden_size", "8")),
            "config.json: expected 'hidden_size' to be an integer between 1 "
            "and 1048576, got a string");
  EXPECT_EQ(error(mixtralWith("num_local_experts", 65537)),
            "config.json: expected 'num_local_experts' or 'num_experts' to be "
            "an integer between 1 and 65536, got 65537");
  EXPECT_EQ(error(mixtralWith("num_experts_per_tok", 5)),
            "config.json: expected at most as many experts per token as there "
            "are experts, 4, got 5");
  expectContains(error(mixtralWith("hidden_act", "mish")),
                 "expected 'hidden_act' to be silu, gelu, ");
  expectContains(error(mixtralWith("torch_dtype", "int8")),
                 "to be float32, float16 or bfloat16, got 'int8'");
}

//===----------------------------------------------------------------------===//
// Layers and types
//===----------------------------------------------------------------------===//

TEST_F(HuggingFaceTest, Layers) {
  auto qwen = [](int64_t layers, int64_t step, llvm::json::Array dense = {}) {
    return print(llvm::json::Object{{"model_type", "qwen3_moe"},
                                    {"hidden_size", 8},
                                    {"num_hidden_layers", layers},
                                    {"moe_intermediate_size", 6},
                                    {"num_experts", 4},
                                    {"num_experts_per_tok", 2},
                                    {"decoder_sparse_step", step},
                                    {"mlp_only_layers", std::move(dense)}});
  };
  EXPECT_EQ(error(qwen(8, 1, llvm::json::Array{0, 3}), 3),
            "config.json: layer 3 has no experts; layers with experts: "
            "1, 2, 4 to 7");
  EXPECT_EQ(error(qwen(40, 2), 0),
            "config.json: layer 0 has no experts; layers with experts: "
            "1, 3, 5, 7, 9, 11, 13, 15, ..., 39");
  EXPECT_EQ(error(qwen(2, 4), 1),
            "config.json: layer 1 has no experts; no layer of this model has");
  for (int64_t layer : {int64_t(-1), int64_t(8), INT64_MIN, INT64_MAX})
    expectContains(error(qwen(8, 1), layer),
                   "is out of range: the model has 8 layers");
}

/// A list or a string has a word for each layer.
TEST_F(HuggingFaceTest, LayersByWords) {
  auto with = [](StringRef family, StringRef key, llvm::json::Value value) {
    llvm::json::Object object = configOf(family);
    object[key] = std::move(value);
    return print(object);
  };
  auto words = [](std::vector<StringRef> list) {
    return llvm::json::Array(list);
  };
  StringRef key = "layers_block_type";
  std::string blocks =
      with("nemotron_h", key, words({"mamba", "moe", "attention"}));
  EXPECT_EQ(error(blocks, 1), "");
  EXPECT_EQ(error(blocks, 2), "config.json: layer 2 has no experts; layers "
                              "with experts: 1");
  expectContains(error(blocks, 3), "the model has 3 layers");
  expectContains(error(with("nemotron_h", key, words({}))),
                 "to name between 1 and 65536 layers, got 0");
  expectContains(error(with("nemotron_h", key, llvm::json::Array{1})),
                 "to hold strings, got 1");

  key = "mlp_layer_types";
  std::string sparse = with("axk1", key, words({"sparse", "dense"}));
  EXPECT_EQ(error(sparse, 0), "");
  expectContains(error(sparse, 1), "layer 1 has no experts");
  EXPECT_EQ(error(with("axk1", key, words({"sparse"}))),
            "config.json: expected 'mlp_layer_types' to have an element for "
            "each of 2 layers, got 1");
  EXPECT_EQ(error(with("deepseek_v4", "num_hash_layers", 2), 1), "");
  expectContains(error(with("deepseek_v4", "vocab_size", 0), 0),
                 "'vocab_size'");
}

/// The functions of a module of all layers, and the names in moe.layers.
TEST_F(HuggingFaceTest, AllLayers) {
  HuggingFaceOptions options;
  options.allLayers = true;
  auto importAll = [&](const llvm::json::Object &config) {
    return importHuggingFaceLayer(context, print(config), nullptr, options);
  };
  llvm::json::Object config = configOf("mixtral");
  config["num_hidden_layers"] = 3;
  Result module = importAll(config);
  ASSERT_TRUE(bool(module)) << llvm::toString(module.takeError());
  EXPECT_TRUE((*module)->lookupSymbol("layer_0"));
  EXPECT_FALSE((*module)->lookupSymbol("layer_1"));
  auto same = module->get()->getAttrOfType<DictionaryAttr>("moe.layers");
  ASSERT_TRUE(same);
  EXPECT_EQ(same.size(), 2u);
  EXPECT_TRUE(same.get("layer_1") && same.get("layer_2"));

  // Layers in which the ids of tokens choose take these, too.
  Result hashed = importAll(configOf("deepseek_v4"));
  ASSERT_TRUE(bool(hashed)) << llvm::toString(hashed.takeError());
  auto inputs = [&](StringRef name) {
    auto function = (*hashed)->lookupSymbol<mlir::func::FuncOp>(name);
    return function
               ? llvm::count_if(function.getArgumentTypes(),
                                [](mlir::Type type) {
                                  return cast<ShapedType>(type).isDynamicDim(0);
                                })
               : 0;
  };
  EXPECT_EQ(inputs("layer_0"), 2);
  EXPECT_EQ(inputs("layer_2"), 1);

  llvm::json::Object dense = configOf("qwen3_moe");
  dense["decoder_sparse_step"] = 4;
  Result none = importAll(dense);
  ASSERT_FALSE(bool(none));
  EXPECT_EQ(llvm::toString(none.takeError()),
            "config.json: no layer of this model has experts");
}

TEST_F(HuggingFaceTest, DataTypes) {
  std::string config = mixtralWith("torch_dtype", "bfloat16");
  Result module = import(config, 0);
  ASSERT_TRUE(bool(module));
  FakeCheckpoint checkpoint = tensorsOf(**module);
  EXPECT_EQ(checkpoint.tensors.begin()->second.dtype, "bf16");

  EXPECT_EQ(error(config, 0, nullptr, "i8"),
            "expected a data type f32, f16 or bf16, got 'i8'");
  EXPECT_EQ(error(config, 0, &checkpoint, "bf16"), "");
  expectContains(error(config, 0, &checkpoint, "f32"),
                 "the data type of a checkpoint cannot be changed");

  // The tensors count, not what the configuration says of them.
  for (auto &[name, tensor] : checkpoint.tensors)
    tensor.dtype = "f16";
  EXPECT_EQ(error(config, 0, &checkpoint, "f16"), "");
  for (auto &[name, tensor] : checkpoint.tensors)
    if (StringRef(name).contains("experts"))
      tensor.dtype = "f8_e4m3";
  expectContains(error(config, 0, &checkpoint), "has to be dequantised first");
}

/// What is beside the matrices of the experts may be of another type: it is
/// converted when it is read. Where logits stay in f32, so does the router.
TEST_F(HuggingFaceTest, OtherTypes) {
  auto typesOf = [&](const std::string &config, int64_t layer,
                     FakeCheckpoint &checkpoint) {
    std::map<std::string, std::string> result;
    Result module = import(config, layer, &checkpoint);
    EXPECT_TRUE(bool(module)) << llvm::toString(module.takeError());
    if (!module)
      return result;
    auto function = cast<func::FuncOp>((*module)->lookupSymbol("layer"));
    for (unsigned i = 1; i < function.getNumArguments(); ++i) {
      std::string text;
      llvm::raw_string_ostream(text)
          << getElementTypeOrSelf(function.getArgument(i));
      if (function.getArgAttr(i, "moe.convert"))
        text += " converted";
      auto name = function.getArgAttrOfType<StringAttr>(i, "moe.name");
      result[name.str()] = text;
    }
    return result;
  };
  forEachFamily([&](StringRef family, int64_t layer,
                    llvm::json::Object object) {
    if (family != "gpt_oss" && family != "qwen2_moe" && family != "deepseek_v3")
      return;
    std::string config = print(object);
    Result module = import(config, layer);
    ASSERT_TRUE(bool(module)) << llvm::toString(module.takeError());
    FakeCheckpoint checkpoint = tensorsOf(**module);
    for (auto &[name, tensor] : checkpoint.tensors) {
      bool ofExperts = StringRef(name).contains(".experts.") &&
                       !StringRef(name).ends_with("_bias");
      tensor.dtype = ofExperts ? "bf16" : "f32";
    }
    auto types = typesOf(config, layer, checkpoint);
    for (const auto &[name, type] : types) {
      StringRef expected = "bf16 converted";
      if (name == "gate_proj" || name == "up_proj" || name == "down_proj" ||
          name == "gate_up_proj")
        expected = "bf16";
      else if (family == "deepseek_v3" &&
               (name == "router" || name == "e_score_correction_bias"))
        expected = "f32";
      EXPECT_EQ(type, expected) << name;
    }
    // The reverse: what is narrower is widened.
    for (auto &[name, tensor] : checkpoint.tensors)
      tensor.dtype = tensor.dtype == "f32" ? "f16" : "f32";
    for (const auto &[name, type] : typesOf(config, layer, checkpoint))
      EXPECT_EQ(type, types[name] == "bf16"               ? "f32"
                      : name == "e_score_correction_bias" ? "f16"
                                                          : "f32 converted")
          << name;
  });
}

/// The tensors that formats of quantised weights have in place of a weight or
/// beside it, by the name of the format.
TEST_F(HuggingFaceTest, QuantizedCheckpoints) {
  struct {
    bool fused, replaced;
    const char *suffix, *format;
  } const cases[] = {
      {false, true, ".qweight", "AWQ or GPTQ"},
      {false, true, ".g_idx", "GPTQ"},
      {false, true, ".weight_packed", "compressed-tensors"},
      {false, false, ".weight_scale_inv", "fp8 with scales of blocks"},
      {false, false, ".weight_scale", "compressed-tensors or ModelOpt"},
      {false, false, ".weight.absmax", "bitsandbytes"},
      {true, true, "_blocks", "MXFP4"},
      {true, false, "_scale_inv", "fp8 with scales of blocks"},
  };
  std::string config = mixtralWith("torch_dtype", "bfloat16");
  for (const auto &each : cases) {
    SCOPED_TRACE(each.suffix);
    FakeCheckpoint checkpoint;
    std::string prefix = "model.layers.0.block_sparse_moe.", weight;
    if (each.fused) {
      prefix = "model.layers.0.mlp.";
      checkpoint.tensors = {
          {prefix + "gate.weight", {"bf16", {4, 8}}},
          {prefix + "experts.gate_up_proj", {"bf16", {4, 12, 8}}},
          {prefix + "experts.down_proj", {"bf16", {4, 8, 6}}}};
      weight = prefix + "experts.gate_up_proj";
    } else {
      Result module = import(config, 0);
      ASSERT_TRUE(bool(module)) << llvm::toString(module.takeError());
      checkpoint = tensorsOf(**module);
      weight = prefix + "experts.0.w3.weight";
    }
    ASSERT_EQ(error(config, 0, &checkpoint), "");
    // Of the first expert, which decides the layout, or of another weight.
    for (std::string other :
         {weight, each.fused ? prefix + "experts.down_proj"
                             : prefix + "experts.3.w2.weight"}) {
      FakeCheckpoint quantized = checkpoint;
      if (each.replaced)
        quantized.tensors.erase(other);
      std::string sign =
          StringRef(other).rsplit(".weight").first.str() + each.suffix;
      quantized.tensors[sign] = {"ui8", {1}};
      std::string message = error(config, 0, &quantized);
      expectContains(message, "expected '" + other +
                                  "' in f32, f16, bf16 or a format that can "
                                  "be imported, got a quantised weight (" +
                                  each.format + "): there is a tensor '" +
                                  sign + "'");
    }
  }
}

/// transformers 5 saves the same layer with fused tensors.
TEST_F(HuggingFaceTest, OtherNames) {
  std::string config = mixtralWith("torch_dtype", "float32");
  FakeCheckpoint checkpoint;
  for (std::string prefix : {"model.layers.1.mlp.", "layers.1.mlp."}) {
    checkpoint.tensors = {
        {prefix + "gate.weight", {"f32", {4, 8}}},
        {prefix + "experts.gate_up_proj", {"f32", {4, 12, 8}}},
        {prefix + "experts.down_proj", {"f32", {4, 8, 6}}}};
    EXPECT_EQ(error(config, 1, &checkpoint), "");
  }
  checkpoint.tensors.erase("layers.1.mlp.experts.gate_up_proj");
  expectContains(
      error(config, 1, &checkpoint),
      "the checkpoint has no experts for this layer: found none of the "
      "tensors 'model.layers.1.block_sparse_moe.experts.0.w3.weight'"
      ", 'layers.1.block_sparse_moe.experts.0.w3.weight', "
      "'model.layers.1.mlp.experts.gate_up_proj', ");
}

TEST_F(HuggingFaceTest, Directories) {
  HuggingFaceOptions options;
  auto expectError = [&](StringRef location, StringRef message) {
    Result module = importHuggingFaceLayer(context, location, options);
    ASSERT_FALSE(bool(module));
    expectContains(llvm::toString(module.takeError()), message);
  };
  expectError("/nonexistent", "/nonexistent/config.json: No such file");
  expectError("/nonexistent/config.json", "No such file");
  expectError("/dev/null", "/dev/null: expected the directory of a checkpoint "
                           "or its config.json");
}

} // namespace
