//===- artifact_test.cpp - Loading artifacts ------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "testing.h"

#include "moe_rt/artifact.h"

#include <cstddef>
#include <cstring>
#include <filesystem>
#include <sys/stat.h>

using namespace moe::test;

namespace {

class ArtifactTest : public ::testing::Test {
protected:
  std::string object = readFile(FIXTURE);
  std::string metadata = metadataOf({doubleFunction, layerFunction});
  std::string artifact = makeArtifact(object, metadata);
  Context context;
  moe_rt_module_t *module = nullptr;

  ~ArtifactTest() override { moe_rt_module_destroy(module); }

  moe_rt_status_t load(const std::string &bytes) {
    return moe_rt_module_load_memory(context, bytes.data(), bytes.size(),
                                     &module);
  }
  /// Change a field of the footer and make the checksum right again.
  template <typename T> std::string withField(size_t offset, T value) {
    std::string changed = artifact;
    std::memcpy(
        &changed[changed.size() - sizeof(moe_artifact_footer_t) + offset],
        &value, sizeof(value));
    fixChecksum(changed);
    return changed;
  }
};

TEST_F(ArtifactTest, Loads) {
  ASSERT_OK(load(artifact));
  EXPECT_EQ(moe_rt_module_metadata(module), metadata);
  ASSERT_EQ(moe_rt_module_function_count(module), 2u);
  EXPECT_STREQ(moe_rt_module_function_name(module, 0), "double");
  EXPECT_STREQ(moe_rt_module_function_name(module, 1), "layer");
  EXPECT_EQ(moe_rt_module_function_name(module, 2), nullptr);
  size_t count;
  EXPECT_OK(
      moe_rt_function_tensor_count(module, "layer", MOE_RT_INPUT, &count));
  EXPECT_EQ(count, 2u);
  EXPECT_ERROR(moe_rt_function_tensor_count(
                   module, "layer", static_cast<moe_rt_role_t>(3), &count),
               MOE_RT_INVALID_ARGUMENT, "role is 3, expected 0 to 2");
  moe_rt_tensor_info_t info;
  EXPECT_OK(
      moe_rt_function_tensor_info(module, "layer", MOE_RT_INPUT, 1, &info));
  EXPECT_STREQ(info.name, "ids");
  EXPECT_EQ(info.num_experts, 3);
  EXPECT_EQ(info.alignment, 4u);
  ASSERT_EQ(info.ndim, 2);
  EXPECT_EQ(info.shape[0], -1);
  EXPECT_EQ(info.shape[1], 2);
  EXPECT_ERROR(
      moe_rt_function_tensor_info(module, "layer", MOE_RT_WEIGHT, 1, &info),
      MOE_RT_INVALID_ARGUMENT, "has 1 tensors");
  int64_t min, max;
  EXPECT_OK(moe_rt_function_token_range(module, "layer", &min, &max));
  EXPECT_EQ(min, 0);
  EXPECT_EQ(max, 1000);
  EXPECT_ERROR(moe_rt_function_token_range(module, "other", &min, &max),
               MOE_RT_NOT_FOUND, "it has: 'double', 'layer'");
  EXPECT_ERROR(moe_rt_function_token_range(module, nullptr, &min, &max),
               MOE_RT_INVALID_ARGUMENT, "has 2, expected one");
}

TEST_F(ArtifactTest, LoadsFromFile) {
  TemporaryDirectory directory;
  writeFile(directory / "a.moe", artifact);
  ASSERT_OK(
      moe_rt_module_load(context, (directory / "a.moe").c_str(), &module));
  EXPECT_EQ(moe_rt_module_function_count(module), 2u);
}

TEST_F(ArtifactTest, FileErrorsNameThePath) {
  TemporaryDirectory directory;
  std::string path = directory / "a.moe";
  EXPECT_ERROR(moe_rt_module_load(context, path.c_str(), &module),
               MOE_RT_NOT_FOUND, path + ": cannot open");
  EXPECT_ERROR(moe_rt_module_load(context, directory.path.c_str(), &module),
               MOE_RT_INVALID_ARGUMENT, "not a regular file");
  ASSERT_EQ(mkfifo((directory / "pipe").c_str(), 0600), 0);
  EXPECT_ERROR(
      moe_rt_module_load(context, (directory / "pipe").c_str(), &module),
      MOE_RT_INVALID_ARGUMENT, "not a regular file");
  writeFile(path, "");
  EXPECT_ERROR(moe_rt_module_load(context, path.c_str(), &module),
               MOE_RT_DATA_LOSS, path + ": not an artifact, or truncated");
  writeFile(path, makeArtifact(object, "{"));
  EXPECT_ERROR(moe_rt_module_load(context, path.c_str(), &module),
               MOE_RT_DATA_LOSS, path + ": metadata: invalid JSON");
  EXPECT_EQ(module, nullptr);
}

TEST_F(ArtifactTest, NullArguments) {
  EXPECT_ERROR(moe_rt_module_load(nullptr, "x", &module),
               MOE_RT_INVALID_ARGUMENT, "NULL");
  EXPECT_ERROR(moe_rt_module_load(context, nullptr, &module),
               MOE_RT_INVALID_ARGUMENT, "NULL");
  EXPECT_ERROR(moe_rt_module_load_memory(context, nullptr, 0, &module),
               MOE_RT_INVALID_ARGUMENT, "NULL");
  EXPECT_ERROR(moe_rt_module_load_memory(context, "", 0, nullptr),
               MOE_RT_INVALID_ARGUMENT, "NULL");
  moe_rt_module_destroy(nullptr);
  EXPECT_EQ(moe_rt_module_function_count(nullptr), 0u);
}

TEST_F(ArtifactTest, RefusesEveryTruncation) {
  for (size_t size = 0; size < artifact.size(); ++size) {
    Result result(load(artifact.substr(0, size)));
    ASSERT_EQ(result.code, MOE_RT_DATA_LOSS) << size << " bytes";
    ASSERT_NE(result.message.find("truncated"), std::string::npos)
        << result.message;
  }
  EXPECT_EQ(module, nullptr);
}

TEST_F(ArtifactTest, RefusesMissingStart) {
  for (size_t cut : {1u, 7u, 8u, 64u, 4096u})
    EXPECT_ERROR(load(artifact.substr(cut)), MOE_RT_DATA_LOSS,
                 "truncated: " + std::to_string(artifact.size() - cut) +
                     " bytes, expected " + std::to_string(artifact.size()));
}

TEST_F(ArtifactTest, RefusesEveryBitFlip) {
  for (size_t i = 0; i < artifact.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      artifact[i] ^= static_cast<char>(1 << bit);
      Result result(load(artifact));
      ASSERT_EQ(result.code, MOE_RT_DATA_LOSS)
          << "byte " << i << " bit " << bit;
      artifact[i] ^= static_cast<char>(1 << bit);
    }
  }
  EXPECT_EQ(module, nullptr);
  EXPECT_OK(load(artifact));
}

TEST_F(ArtifactTest, RefusesForeignFooter) {
  using Footer = moe_artifact_footer_t;
  EXPECT_ERROR(load(withField(offsetof(Footer, magic), 'X')), MOE_RT_DATA_LOSS,
               "not an artifact");
  EXPECT_ERROR(load(withField(offsetof(Footer, format_version), 1u)),
               MOE_RT_DATA_LOSS,
               "artifact has format 1, this runtime reads format 2");
  EXPECT_ERROR(load(withField(offsetof(Footer, abi_version), 1u)),
               MOE_RT_DATA_LOSS,
               "artifact has ABI 1, this runtime has ABI " +
                   std::to_string(MOE_RT_ABI_VERSION));
  EXPECT_ERROR(load(withField(offsetof(Footer, reserved), uint64_t(1))),
               MOE_RT_DATA_LOSS, "reserved field is 1, expected 0");
  for (size_t field :
       {offsetof(Footer, object_size), offsetof(Footer, metadata_offset),
        offsetof(Footer, metadata_size)})
    for (uint64_t value : {uint64_t(0), uint64_t(1), uint64_t(1) << 32,
                           UINT64_MAX, UINT64_MAX - 7, UINT64_MAX - 63})
      EXPECT_ERROR(load(withField(field, value)), MOE_RT_DATA_LOSS,
                   "do not fill a file");
  for (uint64_t value : {uint64_t(0), UINT64_MAX, artifact.size() + 1})
    EXPECT_ERROR(load(withField(offsetof(Footer, file_size), value)),
                 MOE_RT_DATA_LOSS, "truncated");
}

TEST_F(ArtifactTest, RefusesPadding) {
  std::string odd = makeArtifact(object + "x", metadata);
  odd[object.size() + 3] = 1;
  fixChecksum(odd);
  EXPECT_ERROR(load(odd), MOE_RT_DATA_LOSS, "padding is not zero");
  odd = makeArtifact(object, metadata + std::string(1, ' '));
  size_t last = odd.size() - sizeof(moe_artifact_footer_t) - 1;
  if (odd[last] == '\0') {
    odd[last] = 1;
    fixChecksum(odd);
    EXPECT_ERROR(load(odd), MOE_RT_DATA_LOSS, "padding is not zero");
  }
}

TEST_F(ArtifactTest, RefusesForeignObject) {
  EXPECT_ERROR(load(makeArtifact("", metadata)), MOE_RT_DATA_LOSS,
               "does not start with a 64-bit little-endian ELF");
  EXPECT_ERROR(load(makeArtifact(std::string(100, 'x'), metadata)),
               MOE_RT_DATA_LOSS, "does not start with");
  std::string changed = object;
  changed[18] = 40; // EM_ARM
  EXPECT_ERROR(load(makeArtifact(changed, metadata)),
               MOE_RT_FAILED_PRECONDITION, "ELF machine 40");
  changed = object;
  changed[16] = 1; // ET_REL
  EXPECT_ERROR(load(makeArtifact(changed, metadata)), MOE_RT_DATA_LOSS,
               "ELF type 1, expected 3 (shared)");
  // A header alone: the system's loader refuses it.
  EXPECT_ERROR(load(makeArtifact(object.substr(0, 64), metadata)),
               MOE_RT_FAILED_PRECONDITION, "cannot load the artifact's code");
}

TEST_F(ArtifactTest, RefusesMissingSymbols) {
  auto with = [&](const std::string &entry) {
    std::string body = doubleFunction;
    std::string name = "moe_entry_double";
    body.replace(body.find(name), name.size(), entry);
    return makeArtifact(object, metadataFor(body));
  };
  EXPECT_ERROR(load(with("moe_entry_none")), MOE_RT_NOT_FOUND,
               "function 'double': its code does not define symbol "
               "'moe_entry_none'");
  // The C library has these, but the artifact does not define them.
  EXPECT_ERROR(load(with("abort")), MOE_RT_NOT_FOUND, "'abort'");
  EXPECT_ERROR(load(with("system")), MOE_RT_NOT_FOUND, "'system'");
  EXPECT_OK(load(with("moe_entry_double")));
}

/// What an artifact's function 'double' makes of 1.
float scaleOf(moe_rt_module_t *module) {
  moe_rt_layer_t *layer = nullptr;
  EXPECT_OK(moe_rt_layer_create(module, "double", nullptr, 0, &layer));
  Array<float> x = f32({1, 4}, 1), y = f32({1, 4});
  DLTensor in = x.dl(), out = y.dl();
  EXPECT_OK(moe_rt_layer_call(layer, &in, 1, &out, 1, nullptr, 0));
  moe_rt_layer_destroy(layer);
  return y.data[0];
}

TEST_F(ArtifactTest, ArtifactsDoNotShadowEachOther) {
  // The system's loader knows objects by their path; it must not hand out what
  // it loaded before.
  std::string triple = makeArtifact(readFile(FIXTURE_TRIPLE), metadata);
  for (int i = 0; i < 3; ++i) {
    moe_rt_module_t *first = nullptr, *second = nullptr, *third = nullptr;
    ASSERT_OK(moe_rt_module_load_memory(context, artifact.data(),
                                        artifact.size(), &first));
    ASSERT_OK(moe_rt_module_load_memory(context, triple.data(), triple.size(),
                                        &second));
    EXPECT_EQ(scaleOf(first), 2);
    EXPECT_EQ(scaleOf(second), 3);
    moe_rt_module_destroy(first);
    ASSERT_OK(moe_rt_module_load_memory(context, triple.data(), triple.size(),
                                        &third));
    EXPECT_EQ(scaleOf(third), 3);
    moe_rt_module_destroy(second);
    EXPECT_EQ(scaleOf(third), 3);
    moe_rt_module_destroy(third);
  }
}

TEST_F(ArtifactTest, RunsTheVariantOfThisMachine) {
  // The code of the others need not even be there.
  std::string other = doubleFunction;
  other.replace(other.find("moe_entry_double"), 16, "moe_entry_double.1");
  std::string bytes = makeArtifact(
      object, metadataOfVariants({variantOf({other}, R"(["sse9"])"),
                                  variantOf({doubleFunction}),
                                  variantOf({other}, R"(["avx9000"])")}));
  ASSERT_OK(load(bytes));
  EXPECT_EQ(moe_rt_module_variant(module), 1u);
  EXPECT_EQ(scaleOf(module), 2);
  moe_rt_module_destroy(module);
  module = nullptr;
  EXPECT_EQ(moe_rt_module_variant(nullptr), 0u);
  bytes = makeArtifact(
      object, metadataOfVariants({variantOf({doubleFunction}, R"(["a1"])"),
                                  variantOf({other}, R"(["a2"])")}));
  EXPECT_ERROR(load(bytes), MOE_RT_FAILED_PRECONDITION,
               "artifact: cannot run on this machine: variant 0");
}

size_t countOpenFiles() {
  namespace fs = std::filesystem;
  return static_cast<size_t>(std::distance(
      fs::directory_iterator("/proc/self/fd"), fs::directory_iterator()));
}

TEST_F(ArtifactTest, LeaksNoFiles) {
  TemporaryDirectory directory;
  writeFile(directory / "good.moe", artifact);
  writeFile(directory / "bad.moe",
            makeArtifact(object.substr(0, 64), metadata));
  size_t before = countOpenFiles();
  for (int i = 0; i < 10; ++i) {
    ASSERT_OK(
        moe_rt_module_load(context, (directory / "good.moe").c_str(), &module));
    moe_rt_module_destroy(module);
    module = nullptr;
    moe_rt_status_free(
        moe_rt_module_load(context, (directory / "bad.moe").c_str(), &module));
    ASSERT_EQ(module, nullptr);
  }
  EXPECT_EQ(countOpenFiles(), before);
}

} // namespace
