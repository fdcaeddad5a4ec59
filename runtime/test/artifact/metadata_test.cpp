//===- metadata_test.cpp - Metadata that lies -----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "testing.h"

#include <cstring>

using namespace moe::test;

namespace {

int32_t entry(void **, const moe_rt_executor_t *) { return 0; }
int64_t workspace(int64_t) { return 0; }

void *resolve(void *, const char *symbol) {
  return std::string(symbol).find("entry") != std::string::npos
             ? reinterpret_cast<void *>(entry)
             : reinterpret_cast<void *>(workspace);
}

class MetadataTest : public ::testing::Test {
protected:
  Context context;

  moe_rt_status_t create(const std::string &text) {
    moe_rt_module_t *module = nullptr;
    moe_rt_status_t status = moe_rt_module_create(
        context, text.data(), text.size(), resolve, nullptr, &module);
    EXPECT_EQ(status == nullptr, module != nullptr);
    moe_rt_module_destroy(module);
    return status;
  }

  /// The metadata of the layer function with one piece of text replaced.
  std::string changed(const std::string &from, const std::string &to) {
    std::string text = metadataFor(layerFunction);
    size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
  }
};

#define EXPECT_REFUSED(text, message)                                          \
  EXPECT_ERROR(create(text), MOE_RT_DATA_LOSS, message)

TEST_F(MetadataTest, Accepts) {
  EXPECT_OK(create(metadataFor(layerFunction)));
  EXPECT_OK(create(metadataOf({})));
  // What it does not know, it ignores.
  EXPECT_OK(create(changed("\"format\": 2", "\"format\": 2, \"plan\": [{}]")));
  EXPECT_OK(create(changed("\"shape\": [2]}", "\"shape\": [3]}")));
}

TEST_F(MetadataTest, RefusesWhatIsNoObject) {
  for (const char *text :
       {"", " ", "{", "}", "{]", "[", "\"", "{\"format\":", "{} {}", "nul",
        "\x01", "\xff\xfe", "{\"a\":\"\xff\"}", "{\"a\": 1e999999}", "{'a': 1}",
        "{\"a\": 01}"})
    EXPECT_REFUSED(text, "metadata: invalid JSON");
  for (const char *text : {"[]", "null", "1", "\"x\"", "true"})
    EXPECT_REFUSED(text, "expected an object");
  EXPECT_REFUSED(std::string("{}\0", 3), "metadata: invalid JSON");
  EXPECT_REFUSED("{}", "format is nothing, expected an integer");
}

TEST_F(MetadataTest, RefusesDepth) {
  for (size_t depth : {33u, 1000u, 1000000u}) {
    EXPECT_REFUSED(std::string(depth, '['), "nested deeper than 32");
    std::string objects;
    for (size_t i = 0; i < depth; ++i)
      objects += "{\"a\":";
    EXPECT_REFUSED(objects, "nested deeper than 32");
    EXPECT_REFUSED(changed("\"format\": 2", "\"format\": 2, \"plan\": " +
                                                std::string(depth, '[') +
                                                std::string(depth, ']')),
                   "nested deeper than 32");
  }
}

TEST_F(MetadataTest, RefusesRepeatedKeys) {
  EXPECT_REFUSED("{\"format\": 2, \"format\": 2}", "repeated key 'format'");
  EXPECT_REFUSED(changed("\"name\": \"w\"", "\"name\": \"w\", \"name\": \"v\""),
                 "repeated key 'name'");
}

TEST_F(MetadataTest, RefusesRepeatedNames) {
  EXPECT_REFUSED(metadataOf({layerFunction, layerFunction}),
                 "variants[0].functions[1] repeats the name 'layer'");
  EXPECT_REFUSED(changed("\"name\": \"ids\"", "\"name\": \"x\""),
                 "variants[0].functions[0].arguments[1] repeats the name 'x'");
}

TEST_F(MetadataTest, RefusesWrongTypes) {
  // Every member of the layer function, replaced by each other kind of value.
  struct Case {
    const char *text, *path;
  };
  const Case cases[] = {
      {"\"format\": 2", "format"},
      {"\"triple\": \"", "variants[0].target.triple"},
      {"\"features\": []", "variants[0].target.features"},
      {"\"name\": \"layer\"", "variants[0].functions[0].name"},
      {"\"entry\": \"moe_entry_layer\"", "variants[0].functions[0].entry"},
      {"\"workspace\": \"moe_workspace_layer\"",
       "variants[0].functions[0].workspace"},
      {"\"tokens\": {\"min\": 0, \"max\": 1000}",
       "variants[0].functions[0].tokens"},
      {"\"min\": 0", "variants[0].functions[0].tokens.min"},
      {"\"max\": 1000", "variants[0].functions[0].tokens.max"},
      {"\"role\": \"input\"", "variants[0].functions[0].arguments[0].role"},
      {"\"dtype\": \"f32\"", "variants[0].functions[0].arguments[0].dtype"},
      {"\"shape\": [-1, 4]", "variants[0].functions[0].arguments[0].shape"},
      {"\"num_experts\": 3",
       "variants[0].functions[0].arguments[1].num_experts"},
      {"\"source\": [\"experts.0.w\", \"experts.1.w\", \"experts.2.w\"]",
       "variants[0].functions[0].arguments[2].source"},
      {"\"alignment\": 4", "variants[0].functions[0].arguments[3].alignment"},
      {"\"offsets\": \"offsets0\"",
       "variants[0].functions[0].dispatches[0].offsets"},
      {"\"top_k\": 2", "variants[0].functions[0].dispatches[0].top_k"},
      {"\"counters\": \"counters0\"",
       "variants[0].functions[0].dispatches[0].counters"},
  };
  const char *values[] = {
      "null",  "true",   "1.5",        "-5",
      "\"\"",  "[[]]",   "{}",         "18446744073709551615",
      "1e300", "[null]", "\"\\u0000\""};
  for (const Case &entry : cases) {
    std::string key = entry.text;
    key = key.substr(0, key.find(':') + 1);
    if (std::string(entry.path) == "variants[0].target.triple")
      continue; // its value is not a constant
    for (const char *value : values) {
      Result result(create(changed(entry.text, key + value)));
      EXPECT_EQ(result.code, MOE_RT_DATA_LOSS) << entry.path << " = " << value;
      EXPECT_NE(result.message.find(entry.path), std::string::npos)
          << entry.path << " = " << value << ": " << result.message;
    }
  }
}

TEST_F(MetadataTest, RefusesMissingMembers) {
  for (const char *name :
       {"format", "variants", "target", "triple", "functions", "name", "entry",
        "workspace", "tokens", "min", "max", "arguments", "role", "dtype",
        "shape", "offsets", "counters"}) {
    std::string key = "\"" + std::string(name) + "\":";
    Result result(create(changed(key, "\"_" + std::string(name) + "\":")));
    EXPECT_EQ(result.code, MOE_RT_DATA_LOSS) << name;
    EXPECT_NE(result.message.find(name), std::string::npos) << result.message;
  }
}

TEST_F(MetadataTest, RefusesNumbers) {
  EXPECT_REFUSED(changed("\"format\": 2", "\"format\": 1"),
                 "format is 1, expected 2");
  EXPECT_REFUSED(changed("\"tokens\": {", "\"live_tokens\": 1, \"tokens\": {"),
                 "variants[0].functions[0].live_tokens");
  EXPECT_REFUSED(changed("\"tokens\": {", "\"stages\": {}, \"tokens\": {"),
                 "functions[0].stages is an object, expected an array");
  EXPECT_REFUSED(changed("\"tokens\": {", "\"stages\": [1], \"tokens\": {"),
                 "stages[0] is");
  EXPECT_REFUSED(changed("\"tokens\": {", "\"stages\": [{\"name\": \"gate\"}], "
                                          "\"tokens\": {"),
                 "stages[0].kernels is nothing, expected an array");
  EXPECT_REFUSED(changed("\"tokens\": {",
                         "\"stages\": [{\"name\": \"gate\", \"kernels\": "
                         "[\"\"]}], \"tokens\": {"),
                 "stages[0].kernels[0] is empty");
  EXPECT_REFUSED(changed("\"min\": 0", "\"min\": 1001"),
                 "tokens.max is 1000, expected 1001");
  EXPECT_REFUSED(changed("[-1, 4]", "[-2, 4]"), "shape[0] is -2, expected -1");
  EXPECT_REFUSED(changed("[3, 4]", "[-1, 4]"), "shape[0] is -1, expected 0");
  EXPECT_REFUSED(changed("[-1, 4]", "[-1, 9223372036854775807]"),
                 "more than 2^63-1 bytes");
  EXPECT_REFUSED(changed("[-1, 4]", "[0, 4294967296, 4294967296]"),
                 "more than 2^63-1 bytes");
  EXPECT_REFUSED(changed("[-1, 4]", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]"),
                 "rank 17, expected at most 16");
  EXPECT_REFUSED(changed("\"alignment\": 4", "\"alignment\": 3"),
                 "alignment is 3, expected a power of two");
  EXPECT_REFUSED(changed("\"alignment\": 4", "\"alignment\": 131072"),
                 "alignment is 131072");
  EXPECT_REFUSED(changed("\"num_experts\": 3}", "\"num_experts\": 0}"),
                 "num_experts is 0");
}

TEST_F(MetadataTest, RefusesUnknownNames) {
  EXPECT_REFUSED(changed("\"dtype\": \"f32\"", "\"dtype\": \"f33\""),
                 "dtype is 'f33', expected f32");
  EXPECT_REFUSED(changed("\"role\": \"input\"", "\"role\": \"in\""),
                 "role is 'in', expected input");
  EXPECT_REFUSED(changed("\"name\": \"x\"", "\"name\": \"a\\nb\""),
                 "name has control characters");
}

TEST_F(MetadataTest, RefusesInconsistentDispatches) {
  EXPECT_REFUSED(changed("\"offsets\": \"offsets0\"", "\"offsets\": \"x\""),
                 "names 'x', which has role input, expected offsets");
  EXPECT_REFUSED(changed("\"offsets\": \"offsets0\"", "\"offsets\": \"z\""),
                 "names 'z', which is no argument");
  EXPECT_REFUSED(changed("\"shape\": [4]", "\"shape\": [5]"),
                 "of another type than i32[4]");
  EXPECT_REFUSED(changed("\"shape\": [2]", "\"shape\": [4]"),
                 "of another type than i64[2]");
  EXPECT_REFUSED(changed("\"dtype\": \"i64\"", "\"dtype\": \"i32\""),
                 "of another type than i64[2]");
  EXPECT_REFUSED(changed("{\"num_experts\": 3, \"top_k\"",
                         "{\"num_experts\": 5, \"top_k\""),
                 "of another type than i32[6]");
  EXPECT_REFUSED(changed("\"dispatches\": [{", "\"dispatches\": [], \"x\": [{"),
                 "does not name argument 'offsets0'");
  std::string body = layerFunction;
  body.insert(body.rfind(']'), R"(, {"num_experts": 3, "offsets": "offsets0",
                                     "counters": "counters0"})");
  EXPECT_REFUSED(metadataFor(body),
                 "names 'offsets0', which another dispatch reports in");
  EXPECT_REFUSED(
      changed("\"w\", \"role\": \"weight\"", "\"w\", \"role\": \"offsets\""),
      "source is on an argument that is no weight");
}

TEST_F(MetadataTest, RefusesInconsistentSources) {
  EXPECT_REFUSED(changed("\"experts.2.w\"", "\"experts.2.w\", \"more\""),
                 "source has 4 names, expected the first extent");
  EXPECT_REFUSED(changed("\"dtype\": \"f32\", \"shape\": [-1, 4]}",
                         "\"dtype\": \"f32\", \"shape\": [-1, 4], "
                         "\"num_experts\": 4}"),
                 "num_experts is on an argument that is no integer");
}

TEST_F(MetadataTest, RefusesInconsistentPreparations) {
  auto changed = [](const std::string &from, const std::string &to) {
    std::string text = metadataOf({packedFunction, packFunction});
    size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
  };
  const std::string at = "variants[0].functions[0].arguments";
  EXPECT_OK(create(metadataOf({packedFunction, packFunction})));
  EXPECT_OK(create(metadataOf({packFunction, packedFunction})));
  EXPECT_OK(create(changed("\"retained\": false", "\"retained\": true")));

  EXPECT_REFUSED(changed("\"retained\": false", "\"retained\": 0"),
                 at + "[1].retained is a number, expected true or false");
  EXPECT_REFUSED(changed("\"x\", \"role\": \"input\"",
                         "\"x\", \"role\": \"input\", \"retained\": true"),
                 at + "[0].retained is on an argument that is no weight");
  EXPECT_OK(create(changed("\"retained\": false",
                           "\"retained\": false, \"convert\": true")));
  EXPECT_REFUSED(changed("\"retained\": false",
                         "\"retained\": false, \"convert\": \"f32\""),
                 at + "[1].convert is a string, expected true or false");
  EXPECT_REFUSED(changed("\"x\", \"role\": \"input\"",
                         "\"x\", \"role\": \"input\", \"convert\": true"),
                 at + "[0].convert is on an argument that is no weight");
  EXPECT_REFUSED(changed("\"retained\": false",
                         "\"retained\": false, \"source_format\": 4"),
                 at + "[1].source_format is a number, expected a string");
  EXPECT_REFUSED(changed("\"x\", \"role\": \"input\"",
                         "\"x\", \"role\": \"input\", "
                         "\"source_format\": \"q4_K\""),
                 at + "[0].source_format is on an argument without a source");
  EXPECT_REFUSED(changed("\"prepare\": \"pack\"", "\"prepare\": 1"),
                 at + "[4].prepare is a number, expected a string");
  EXPECT_REFUSED(changed("\"prepare\": \"pack\", ", ""),
                 at + "[4].prepare is nothing");
  EXPECT_REFUSED(changed("\"sources\": [\"gate\", \"up\"], ", ""),
                 at + "[4].sources is nothing");
  EXPECT_REFUSED(changed("[\"gate\", \"up\"]", "[]"),
                 at + "[4].sources is empty");
  EXPECT_REFUSED(changed("[\"gate\", \"up\"]", "[\"gate\", 7]"),
                 at + "[4].sources[1] is a number");
  for (const char *name : {"x", "y", "both", "none"})
    EXPECT_REFUSED(changed("[\"gate\", \"up\"]",
                           "[\"gate\", \"" + std::string(name) + "\"]"),
                   at + "[4].sources[1] names '" + name +
                       "', which is no weight");
  EXPECT_REFUSED(changed("\"role\": \"prepared\"", "\"role\": \"weight\""),
                 at + "[4] has 'prepare', 'sources' or 'measures' but role "
                      "weight, expected prepared");
  EXPECT_REFUSED(changed("\"prepare\": \"pack\"",
                         "\"measures\": \"x\", \"prepare\": \"pack\""),
                 at + "[4].measures names 'x', which is no source");
  EXPECT_REFUSED(changed("\"prepare\": \"pack\"",
                         "\"measures\": \"gate\", \"prepare\": \"pack\""),
                 at + "[4].measures is on an argument of type f32[3, 2, 4], "
                      "expected f32 for each expert");
  for (const char *shape : {"[]", "[0, 2, 4]", "[16777217, 2, 4]"})
    EXPECT_REFUSED(changed("[3, 2, 4]", shape),
                   at + "[4].shape has no first extent from 1 to 16777216");
  EXPECT_REFUSED(changed("[3, 2, 4]", "[-1, 2, 4]"),
                 at + "[4].shape[0] is -1, expected 0");

  // The function that prepares.
  for (const char *name : {"none", "packed"})
    EXPECT_REFUSED(changed("\"prepare\": \"pack\"",
                           "\"prepare\": \"" + std::string(name) + "\""),
                   at + "[4].prepare names '" + name +
                       "', which is no function that prepares 'packed'");
  for (const char *name : {"none", "pack"})
    EXPECT_REFUSED(changed("\"prepares\": \"packed\"",
                           "\"prepares\": \"" + std::string(name) + "\""),
                   "prepare");
  EXPECT_REFUSED(changed("\"prepares\": \"packed\"", "\"prepares\": 1"),
                 "variants[0].functions[1].prepares is a number");
  EXPECT_REFUSED(changed("\"prepares\": \"packed\", ", ""),
                 "names 'pack', which is no function that prepares 'packed'");
  EXPECT_REFUSED(changed("[\"gate\", \"up\"]", "[\"gate\"]"),
                 "names function 'pack' with 3 arguments, expected 1 inputs "
                 "and one output");
  EXPECT_REFUSED(
      changed("\"u\", \"role\": \"input\"", "\"u\", \"role\": \"output\""),
      "expected 2 inputs and one output");
  EXPECT_REFUSED(
      changed("\"b\", \"role\": \"output\"", "\"b\", \"role\": \"input\""),
      "expected 2 inputs and one output");
  auto pack = [](const std::string &from, const std::string &to) {
    std::string body = packFunction;
    size_t at = body.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return metadataOf({packedFunction, body.replace(at, from.size(), to)});
  };
  EXPECT_REFUSED(
      pack("\"min\": 0", "\"min\": 2"),
      "names function 'pack' for 2 to 1000 experts, expected 1 to 3");
  EXPECT_REFUSED(pack("\"max\": 1000", "\"max\": 2"),
                 "names function 'pack' for 0 to 2 experts, expected 1 to 3");
  for (const char *shape :
       {"[-1, 5]", "[-1, -1]", "[3, 4]", "[-1]", "[-1, 4, 1]", "[]"})
    EXPECT_REFUSED(pack("[-1, 4]", shape),
                   at + "[4].prepare names function 'pack' whose input 'g' has "
                        "type f32[");
  EXPECT_REFUSED(pack("[-1, 4]", "[-1, 5]"),
                 "f32[T, 5], expected T of the 3 experts of 'gate' of type "
                 "f32[3, 4]");
  EXPECT_REFUSED(pack("\"dtype\": \"f32\"", "\"dtype\": \"bf16\""),
                 "whose input 'g' has type bf16[T, 4]");
  EXPECT_REFUSED(pack("[-1, 2, 4]", "[-1, 4, 2]"),
                 "whose output 'b' has type f32[T, 4, 2], expected T of the 3 "
                 "experts of 'both' of type f32[3, 2, 4]");
  EXPECT_REFUSED(pack("\"shape\": [-1, 4]}", "\"shape\": [-1, 4], "
                                             "\"alignment\": 8}"),
                 "whose input 'g' is aligned to 8 bytes, which not every "
                 "expert of 'gate' is");
  EXPECT_OK(create(pack("[-1, 2, 4]}", "[-1, 2, 4], \"alignment\": 32}")));
  EXPECT_REFUSED(pack("[-1, 2, 4]}", "[-1, 2, 4], \"alignment\": 64}"),
                 "whose output 'b' is aligned to 64 bytes, which not every "
                 "expert of 'both' is");
  // A weight without experts is one expert, not three.
  EXPECT_REFUSED(changed("[\"gate\", \"up\"]", "[\"gate\", \"bias\"]"),
                 "whose input 'u' has type f32[T, 4], expected T of the 3 "
                 "experts of 'bias' of type f32[4]");
}

TEST_F(MetadataTest, RefusesOtherMachines) {
  auto triple = [&](const char *text) { return changed(hostTriple, text); };
  EXPECT_ERROR(create(triple("riscv64-unknown-linux-gnu")),
               MOE_RT_FAILED_PRECONDITION, "architecture 'riscv64'");
  EXPECT_ERROR(create(triple("")), MOE_RT_DATA_LOSS, "triple is empty");
  std::string arch = hostTriple;
  arch = arch.substr(0, arch.find('-'));
  EXPECT_ERROR(create(triple(arch.c_str())), MOE_RT_FAILED_PRECONDITION,
               "expected system");
  EXPECT_ERROR(create(triple((arch + "-pc-windows-msvc").c_str())),
               MOE_RT_FAILED_PRECONDITION, "expected system");
  EXPECT_OK(create(triple((arch + "-linux-gnu").c_str())));
  EXPECT_ERROR(
      create(changed("\"features\": []", "\"features\": [\"avx9000\"]")),
      MOE_RT_FAILED_PRECONDITION,
      "CPU feature 'avx9000', which this runtime does not know");
}

TEST_F(MetadataTest, ChoosesTheFirstVariantThatRuns) {
  std::string never = variantOf({layerFunction}, R"(["sse9", "avx9000"])");
  std::string foreign = variantOf({layerFunction});
  foreign.replace(foreign.find(hostTriple), std::strlen(hostTriple),
                  "riscv64-unknown-linux-gnu\", \"cpu\": \"sifive-x280");
  std::string here = variantOf({layerFunction});
  auto chosen = [&](const std::vector<std::string> &variants) {
    std::string text = metadataOfVariants(variants);
    moe_rt_module_t *module = nullptr;
    EXPECT_OK(moe_rt_module_create(context, text.data(), text.size(), resolve,
                                   nullptr, &module));
    size_t index = moe_rt_module_variant(module);
    moe_rt_module_destroy(module);
    return index;
  };
  EXPECT_EQ(chosen({here}), 0u);
  EXPECT_EQ(chosen({here, here}), 0u);
  EXPECT_EQ(chosen({never, foreign, here}), 2u);
  EXPECT_ERROR(create(metadataOfVariants({foreign, never})),
               MOE_RT_FAILED_PRECONDITION,
               "cannot run on this machine: variant 0 "
               "(sifive-x280): the code is for architecture 'riscv64' "
               "(riscv64-unknown-linux-gnu), expected '");
  EXPECT_ERROR(create(metadataOfVariants({foreign, never})),
               MOE_RT_FAILED_PRECONDITION,
               "; variant 1 (" + std::string(hostTriple) +
                   "): the code needs CPU feature 'sse9', 'avx9000', which "
                   "this runtime does not know");
  EXPECT_REFUSED(metadataOfVariants({}), "variants is empty");
  // One that is not chosen must be right, too.
  EXPECT_REFUSED(metadataOfVariants({here, "{}"}),
                 "variants[1].target is nothing");
}

TEST_F(MetadataTest, LargeExpertCountsNeedNoMemoryUntilTheyAreUsed) {
  std::string text = changed("{\"num_experts\": 3, \"top_k\"",
                             "{\"num_experts\": 16777216, \"top_k\"");
  text.replace(text.find("\"shape\": [4]"), 12, "\"shape\": [16777217]");
  EXPECT_OK(create(text));
}

TEST_F(MetadataTest, SurvivesEveryTruncationAndManyChanges) {
  std::string text = metadataOf({layerFunction, packedFunction, packFunction});
  for (size_t size = 0; size < text.size(); ++size)
    EXPECT_EQ(Result(create(text.substr(0, size))).code, MOE_RT_DATA_LOSS);
  uint64_t state = 1;
  for (int i = 0; i < 20000; ++i) {
    std::string mutant = text;
    for (int j = 0; j < 3; ++j) {
      state = state * 6364136223846793005 + 1442695040888963407;
      static const char bytes[] = "0-9e[]{}\",:\\ i";
      mutant[(state >> 20) % mutant.size()] =
          bytes[(state >> 50) % (sizeof(bytes) - 1)];
    }
    moe_rt_status_free(create(mutant)); // must only return
  }
}

} // namespace
