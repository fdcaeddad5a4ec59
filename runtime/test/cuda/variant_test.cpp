//===- variant_test.cpp - Variants for a device ---------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Metadata of code for a device, and which of it a device runs.
//
//===----------------------------------------------------------------------===//

#include "artifact/signature.h"
#include "cuda/device/compatibility.h"
#include "cuda_testing.h"

#include <cstring>
#include <dlfcn.h>

using namespace moe::test;

namespace {

const char *const function = R"(
  "name": "f", "entry": "entry", "workspace": "workspace",
  "tokens": {"min": 0, "max": 10}, "arguments": [
    {"name": "x", "role": "input", "dtype": "f32", "shape": [-1, 4]},
    {"name": "y", "role": "output", "dtype": "f32", "shape": [-1, 4]}])";

//===----------------------------------------------------------------------===//
// Metadata
//===----------------------------------------------------------------------===//

/// Metadata of a variant for a device, with one piece of text replaced.
std::string changed(const std::string &from, const std::string &to) {
  DeviceVariant variant;
  variant.arch = "sm_90a";
  variant.images =
      R"([{"format": "cubin", "arch": "sm_90", "symbol": "native", "size": 9},
          {"format": "ptx", "arch": "sm_80", "symbol": "image", "size": 99}])";
  variant.kernels = R"([
      {"name": "gate", "threads": 384, "shared": 231424, "cluster": 2},
      {"name": "tail", "threads": 32, "primaries": [1, 0]}])";
  std::string text = metadataOfVariants({variant.json({function})});
  size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

moe_rt_status_t parse(const std::string &text, moe::rt::Metadata &out) {
  return moe::rt::parseMetadata(text.data(), text.size(), out);
}

moe_rt_status_t parse(const std::string &text) {
  moe::rt::Metadata metadata;
  return parse(text, metadata);
}

#define EXPECT_REFUSED(text, message)                                          \
  EXPECT_ERROR(parse(text), MOE_RT_DATA_LOSS, message)

TEST(CudaMetadataTest, Reads) {
  moe::rt::Metadata metadata;
  ASSERT_OK(parse(changed("", ""), metadata));
  const auto &device = metadata.variants[0].device;
  ASSERT_TRUE(device.has_value());
  EXPECT_EQ(device->arch.name(), "sm_90a");
  ASSERT_EQ(device->images.size(), 2u);
  EXPECT_EQ(device->images[0].describe(), "cubin for sm_90");
  EXPECT_EQ(device->images[0].symbol, "native");
  EXPECT_EQ(device->images[0].size, 9u);
  EXPECT_EQ(device->images[1].describe(), "PTX for sm_80");
  ASSERT_EQ(device->kernels.size(), 2u);
  EXPECT_EQ(device->kernels[0].name, "gate");
  EXPECT_EQ(device->kernels[0].threads, 384);
  EXPECT_EQ(device->kernels[0].shared, 231424);
  EXPECT_EQ(device->kernels[0].cluster, 2);
  EXPECT_EQ(device->kernels[1].shared, 0);
  EXPECT_EQ(device->kernels[1].cluster, 1);
  EXPECT_EQ(device->kernels[0].primaries, std::vector<int64_t>());
  EXPECT_EQ(device->kernels[1].primaries, (std::vector<int64_t>{0, 1}));

  moe::rt::Metadata other;
  ASSERT_OK(parse(metadataFor(function), other));
  EXPECT_FALSE(other.variants[0].device.has_value());
}

TEST(CudaMetadataTest, RefusesWrongTypes) {
  struct Case {
    const char *text, *path;
  };
  const Case cases[] = {
      {"\"kind\": \"cuda\"", "target.device.kind"},
      {"\"arch\": \"sm_90a\"", "target.device.arch"},
      {"\"format\": \"cubin\"", "images[0].format"},
      {"\"arch\": \"sm_90\"", "images[0].arch"},
      {"\"symbol\": \"native\"", "images[0].symbol"},
      {"\"size\": 9", "images[0].size"},
      {"\"name\": \"gate\"", "kernels[0].name"},
      {"\"threads\": 384", "kernels[0].threads"},
      {"\"shared\": 231424", "kernels[0].shared"},
      {"\"cluster\": 2", "kernels[0].cluster"},
  };
  for (const Case &entry : cases) {
    std::string key = entry.text;
    key = key.substr(0, key.find(':') + 1);
    for (const char *value : {"null", "true", "1.5", "-5", "\"\"", "[]", "{}",
                              "18446744073709551615", "\"\\u0000\""})
      EXPECT_REFUSED(changed(entry.text, key + value),
                     "variants[0]." + std::string(entry.path));
  }
  EXPECT_REFUSED(changed("\"device\": {", "\"device\": 1, \"x\": {"),
                 "target.device is a number, expected an object");
  EXPECT_REFUSED(changed("\"images\": [", "\"images\": 1, \"x\": ["),
                 "images is a number, expected an array");
  EXPECT_REFUSED(changed("\"kernels\": [", "\"kernels\": {}, \"x\": ["),
                 "kernels is an object, expected an array");
}

TEST(CudaMetadataTest, RefusesMissingMembers) {
  for (const char *name :
       {"kind", "images", "kernels", "symbol", "size", "threads"}) {
    std::string key = "\"" + std::string(name) + "\":";
    EXPECT_REFUSED(changed(key, "\"_" + std::string(name) + "\":"), name);
  }
  EXPECT_REFUSED(changed("\"device\":", "\"_device\":"),
                 "images is in a variant whose target has no device");
  EXPECT_REFUSED(metadataOfVariants({R"({"target": {"triple": "x"},
                                         "functions": [], "kernels": []})"}),
                 "kernels is in a variant whose target has no device");
}

TEST(CudaMetadataTest, RefusesArchitectures) {
  for (const char *arch :
       {"sm", "sm_", "sm_9", "sm_9a", "sm_090", "sm_9x", "sm_900a0", "sm_1000",
        "sm_90b", "sm_90aa", "sm-90", "SM_90", "compute_90", "90", "a", "sm_a0",
        "sm_ 90", "sm_90 "})
    EXPECT_REFUSED(changed("\"sm_90a\"", "\"" + std::string(arch) + "\""),
                   "device.arch is '" + std::string(arch) +
                       "', expected an architecture such as sm_80 or sm_90a");
  EXPECT_OK(parse(changed("sm_90a", "sm_120")));
  EXPECT_OK(parse(changed("sm_90a", "sm_103a")));
}

TEST(CudaMetadataTest, RefusesValues) {
  EXPECT_REFUSED(changed("\"cuda\"", "\"rocm\""),
                 "device.kind is 'rocm', expected cuda");
  EXPECT_REFUSED(changed("\"cubin\"", "\"fatbin\""),
                 "images[0].format is 'fatbin', expected ptx or cubin");
  EXPECT_REFUSED(changed("\"size\": 9}", "\"size\": 0}"),
                 "images[0].size is 0, expected 1 to 1073741824");
  EXPECT_REFUSED(changed("\"threads\": 384", "\"threads\": 1025"),
                 "kernels[0].threads is 1025, expected 1 to 1024");
  EXPECT_REFUSED(changed("\"threads\": 32", "\"threads\": 0"),
                 "kernels[1].threads is 0, expected 1 to 1024");
  EXPECT_REFUSED(changed("231424", "232449"),
                 "kernels[0].shared is 232449, expected 0 to 232448");
  EXPECT_REFUSED(changed("\"cluster\": 2", "\"cluster\": 17"),
                 "kernels[0].cluster is 17, expected 1 to 16");
  EXPECT_REFUSED(changed("\"cluster\": 2", "\"cluster\": 0"),
                 "kernels[0].cluster is 0, expected 1 to 16");
  EXPECT_REFUSED(changed("[1, 0]", "[1, 2]"),
                 "kernels[1].primaries[1] is 2, expected 0 to 1");
  EXPECT_REFUSED(changed("[1, 0]", "[-1]"),
                 "kernels[1].primaries[0] is -1, expected 0 to 1");
  EXPECT_REFUSED(changed("[1, 0]", "[0, 1, 0]"), "kernels[1].primaries");
  EXPECT_REFUSED(changed("[1, 0]", "1"),
                 "kernels[1].primaries is a number, expected an array");
  EXPECT_REFUSED(changed("\"tail\"", "\"gate\""),
                 "kernels[1] repeats the name 'gate'");
  EXPECT_OK(parse(changed("\"kernels\": [", "\"kernels\": [], \"x\": [")));
  EXPECT_REFUSED(changed("\"images\": [", "\"images\": [], \"x\": ["),
                 "images is empty");

  DeviceVariant many;
  many.kernels = "[";
  for (int i = 0; i < 4097; ++i)
    many.kernels += (i ? ", " : "") + std::string(R"({"name": "k)") +
                    std::to_string(i) + R"(", "threads": 1})";
  many.kernels += "]";
  EXPECT_REFUSED(metadataOfVariants({many.json({function})}),
                 "kernels has 4097 elements, expected at most 4096");
}

TEST(CudaMetadataTest, SurvivesEveryTruncationAndManyChanges) {
  std::string text = changed("", "");
  for (size_t size = 0; size < text.size(); ++size)
    EXPECT_EQ(Result(parse(text.substr(0, size))).code, MOE_RT_DATA_LOSS);
  uint64_t state = 1;
  for (int i = 0; i < 20000; ++i) {
    std::string mutant = text;
    for (int j = 0; j < 3; ++j) {
      state = state * 6364136223846793005 + 1442695040888963407;
      static const char bytes[] = "0-9e[]{}\",:\\ i_a";
      mutant[(state >> 20) % mutant.size()] =
          bytes[(state >> 50) % (sizeof(bytes) - 1)];
    }
    moe_rt_status_free(parse(mutant)); // must only return
  }
}

TEST(CudaMetadataTest, WhatRunsWhere) {
  using moe::rt::ImageFormat;
  struct Case {
    moe::rt::Arch arch;
    moe::rt::cuda::Capability capability;
    bool ptx, cubin;
  };
  const Case cases[] = {
      {{8, 0, false}, {8, 0}, true, true},
      {{8, 0, false}, {8, 6}, true, true},
      {{8, 6, false}, {8, 0}, false, false},
      {{8, 0, false}, {9, 0}, true, false},
      {{8, 0, false}, {12, 0}, true, false},
      {{8, 0, false}, {7, 5}, false, false},
      {{8, 9, false}, {9, 0}, true, false},
      {{9, 0, true}, {9, 0}, true, true},
      {{9, 0, true}, {10, 0}, false, false},
      {{10, 0, true}, {10, 3}, false, false},
      {{10, 0, false}, {10, 3}, true, true},
  };
  for (const Case &each : cases) {
    std::string name = each.arch.name() + " on " +
                       std::to_string(each.capability.major) + "." +
                       std::to_string(each.capability.minor);
    EXPECT_EQ(runsOn(each.arch, ImageFormat::ptx, each.capability), each.ptx)
        << name;
    EXPECT_EQ(runsOn(each.arch, ImageFormat::cubin, each.capability),
              each.cubin)
        << name;
  }
}

//===----------------------------------------------------------------------===//
// Selection
//===----------------------------------------------------------------------===//

std::string variantFor(const std::string &arch, const std::string &images = "",
                       const std::string &kernels = "[]") {
  DeviceVariant variant;
  variant.arch = arch;
  variant.images = images;
  variant.kernels = kernels;
  return variant.json({function});
}

/// Make a module, and tell its variant.
moe_rt_status_t select(const moe_rt_context_options_t *options,
                       const std::vector<std::string> &variants,
                       size_t *chosen = nullptr) {
  Context context(options);
  std::string text = metadataOfVariants(variants);
  auto resolve = [](void *, const char *symbol) -> void * {
    if (std::strcmp(symbol, "missing") == 0)
      return nullptr;
    return const_cast<char *>(testImage); // nothing runs here
  };
  moe_rt_module_t *module = nullptr;
  moe_rt_status_t status = moe_rt_module_create(
      context, text.data(), text.size(), resolve, nullptr, &module);
  if (chosen)
    *chosen = moe_rt_module_variant(module);
  moe_rt_module_destroy(module);
  return status;
}

TEST(CudaVariantTest, TheCPUTakesItsOwn) {
  size_t chosen = 7;
  EXPECT_OK(
      select(nullptr, {variantFor("sm_80"), variantOf({function})}, &chosen));
  EXPECT_EQ(chosen, 1u);
  EXPECT_ERROR(select(nullptr, {variantFor("sm_90a")}),
               MOE_RT_FAILED_PRECONDITION,
               "cannot run on this machine: needs an NVIDIA GPU (sm_90a), this "
               "context is for the CPU");
}

class CudaSelectionTest : public CudaTest {
protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (!gpu->device)
      return;
    if (!isDouble())
      GTEST_SKIP() << "only the double has every capability";
    gpu.reset();
  }

  /// What a device of that capability makes of the variants.
  moe_rt_status_t selectOn(const std::string &capability,
                           const std::vector<std::string> &variants,
                           size_t *chosen = nullptr) {
    Environment arch("MOE_CUDA_DOUBLE_ARCH", capability);
    resetDouble();
    moe_rt_context_options_t settings = options();
    return select(&settings, variants, chosen);
  }
  size_t chosenOn(const std::string &capability,
                  const std::vector<std::string> &variants) {
    size_t chosen = 99;
    EXPECT_OK(selectOn(capability, variants, &chosen));
    return chosen;
  }
};

TEST_F(CudaSelectionTest, ByCapability) {
  std::vector<std::string> variants = {
      variantFor("sm_90a"), variantOf({function}), variantFor("sm_80")};
  EXPECT_EQ(chosenOn("9.0", variants), 0u);
  EXPECT_EQ(chosenOn("8.0", variants), 2u);
  EXPECT_EQ(chosenOn("8.6", variants), 2u);
  EXPECT_ERROR(selectOn("7.5", variants), MOE_RT_FAILED_PRECONDITION,
               "cannot run on this machine: variant 0 (sm_90a): needs an "
               "NVIDIA GPU of compute capability 9.0, this one (");
  EXPECT_ERROR(selectOn("7.5", variants), MOE_RT_FAILED_PRECONDITION,
               "variant 2 (sm_80): needs an NVIDIA GPU of compute capability "
               "8.0 or higher, this one (");
  EXPECT_ERROR(selectOn("7.5", variants), MOE_RT_FAILED_PRECONDITION,
               ") has 7.5");
  EXPECT_ERROR(selectOn("8.6", {variantOf({function})}),
               MOE_RT_FAILED_PRECONDITION,
               "is for the CPU, this context is for an NVIDIA GPU (");
}

TEST_F(CudaSelectionTest, ByImages) {
  auto image = [](const char *format, const char *arch) {
    return R"({"format": ")" + std::string(format) + R"(", "arch": ")" + arch +
           R"(", "symbol": "image", "size": 9})";
  };
  std::string cubins =
      "[" + image("cubin", "sm_80") + ", " + image("cubin", "sm_90") + "]";
  EXPECT_EQ(chosenOn("8.6", {variantFor("sm_80", cubins)}), 0u);
  EXPECT_EQ(chosenOn("9.0", {variantFor("sm_80", cubins)}), 0u);
  EXPECT_ERROR(selectOn("12.0", {variantFor("sm_80", cubins)}),
               MOE_RT_FAILED_PRECONDITION,
               "has kernels as cubin for sm_80, cubin for sm_90, none of which "
               "an NVIDIA GPU of compute capability 12.0 runs");
  cubins.insert(1, image("ptx", "sm_80") + ", ");
  EXPECT_EQ(chosenOn("12.0", {variantFor("sm_80", cubins)}), 0u);
}

TEST_F(CudaSelectionTest, BySharedMemory) {
  std::string large = R"([{"name": "k", "threads": 1, "shared": 200000}])";
  EXPECT_EQ(chosenOn("9.0", {variantFor("sm_80", "", large)}), 0u);
  EXPECT_ERROR(selectOn("8.6", {variantFor("sm_80", "", large)}),
               MOE_RT_FAILED_PRECONDITION,
               "has a kernel 'k' that needs 200000 bytes of shared memory, "
               "this NVIDIA GPU (");
}

TEST_F(CudaSelectionTest, ImagesMustBeThere) {
  EXPECT_ERROR(selectOn("9.0", {variantFor("sm_80", R"([{"format": "ptx",
          "arch": "sm_80", "symbol": "missing", "size": 9}])")}),
               MOE_RT_NOT_FOUND,
               "the code does not define symbol 'missing', its PTX for sm_80");
}

//===----------------------------------------------------------------------===//
// Artifacts
//===----------------------------------------------------------------------===//

class CudaArtifactTest : public CudaTest {
protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (!gpu->device)
      return;
    moe_rt_context_options_t settings = options();
    context = std::make_unique<Context>(&settings);
  }
  void TearDown() override {
    moe_rt_layer_destroy(layer);
    moe_rt_module_destroy(module);
    context.reset();
    CudaTest::TearDown();
  }

  /// Load the fixture, whose kernels are said to lie there.
  moe_rt_status_t load(const std::string &symbol, size_t size) {
    DeviceVariant variant;
    variant.images = R"([{"format": "ptx", "arch": "sm_80", "symbol": ")" +
                     symbol + R"(", "size": )" + std::to_string(size) + "}]";
    variant.kernels = R"([{"name": "twice", "threads": 1}])";
    std::string host = variantOf({function}),
                device = variant.json(
                    {R"("name": "twice", "entry": "moe_entry_twice",
                        "workspace": "moe_workspace_twice",
                        "tokens": {"min": 0, "max": 10}, "arguments": [)" +
                     std::string(scaleArguments) + "]"});
    std::string bytes = makeArtifact(readFile(DEVICE_FIXTURE),
                                     metadataOfVariants({host, device}));
    return moe_rt_module_load_memory(*context, bytes.data(), bytes.size(),
                                     &module);
  }

  /// Bytes of the fixture's PTX, without the NUL behind it.
  static size_t imageSize() {
    void *library = dlopen(DEVICE_FIXTURE, RTLD_NOW | RTLD_LOCAL);
    EXPECT_NE(library, nullptr) << dlerror();
    size_t size =
        std::strlen(static_cast<char *>(dlsym(library, "moe_image_0")));
    dlclose(library);
    return size;
  }

  std::unique_ptr<Context> context;
  moe_rt_module_t *module = nullptr;
  moe_rt_layer_t *layer = nullptr;
};

TEST_F(CudaArtifactTest, Runs) {
  ASSERT_OK(load("moe_image_0", imageSize()));
  EXPECT_EQ(moe_rt_module_variant(module), 1u);
  ASSERT_OK(moe_rt_layer_create(module, "twice", nullptr, 0, &layer));
  DeviceArray<float> x(*gpu, f32({5, 4}, 1.5f)), y(*gpu, f32({5, 4}));
  DLTensor in = x.dl(), out = y.dl();
  ASSERT_OK(moe_rt_layer_call(layer, &in, 1, &out, 1, nullptr, 0));
  EXPECT_EQ(y.download(), std::vector<float>(20, 3));
}

TEST_F(CudaArtifactTest, ImagesMustBeAsLargeAsTheySay) {
  size_t size = imageSize() + 1;
  EXPECT_ERROR(load("moe_image_0", size + 1), MOE_RT_DATA_LOSS,
               "artifact: symbol 'moe_image_0' has " + std::to_string(size) +
                   " bytes, the metadata says " + std::to_string(size + 1));
  EXPECT_ERROR(load("moe_image_1", size), MOE_RT_NOT_FOUND,
               "artifact: the code does not define symbol 'moe_image_1', its "
               "PTX for sm_80");
  EXPECT_ERROR(load("strlen", size), MOE_RT_NOT_FOUND, "'strlen'");
}

} // namespace
