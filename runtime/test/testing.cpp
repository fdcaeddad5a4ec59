//===- testing.cpp - Helpers of the tests ---------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "testing.h"

#include "moe_rt/artifact.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

using namespace moe::test;

#if defined(__x86_64__)
const char *const moe::test::hostTriple = "x86_64-pc-linux-gnu";
#else
const char *const moe::test::hostTriple = "aarch64-unknown-linux-gnu";
#endif

const char *const moe::test::doubleFunction = R"(
  "name": "double", "entry": "moe_entry_double",
  "workspace": "moe_workspace_double", "tokens": {"min": 0, "max": 1000},
  "arguments": [
    {"name": "x", "role": "input", "dtype": "f32", "shape": [-1, 4]},
    {"name": "y", "role": "output", "dtype": "f32", "shape": [-1, 4]}],
  "dispatches": [])";

const char *const moe::test::layerFunction = R"(
  "name": "layer", "entry": "moe_entry_layer",
  "workspace": "moe_workspace_layer", "tokens": {"min": 0, "max": 1000},
  "arguments": [
    {"name": "x", "role": "input", "dtype": "f32", "shape": [-1, 4]},
    {"name": "ids", "role": "input", "dtype": "i32", "shape": [-1, 2],
     "num_experts": 3},
    {"name": "w", "role": "weight", "dtype": "f32", "shape": [3, 4],
     "source": ["experts.0.w", "experts.1.w", "experts.2.w"]},
    {"name": "y", "role": "output", "dtype": "f32", "shape": [-1, 4],
     "alignment": 4},
    {"name": "offsets0", "role": "offsets", "dtype": "i32", "shape": [4]},
    {"name": "counters0", "role": "counters", "dtype": "i64", "shape": [2]}],
  "dispatches": [{"num_experts": 3, "top_k": 2, "offsets": "offsets0",
                  "counters": "counters0"}])";

const char *const moe::test::packedFunction = R"(
  "name": "packed", "entry": "moe_entry_packed",
  "workspace": "moe_workspace_packed", "tokens": {"min": 0, "max": 1000},
  "arguments": [
    {"name": "x", "role": "input", "dtype": "f32", "shape": [-1, 4]},
    {"name": "gate", "role": "weight", "dtype": "f32", "shape": [3, 4],
     "retained": false, "source": ["e.0.gate", "e.1.gate", "e.2.gate"]},
    {"name": "up", "role": "weight", "dtype": "f32", "shape": [3, 4],
     "retained": false, "source": ["all.up"]},
    {"name": "bias", "role": "weight", "dtype": "f32", "shape": [4]},
    {"name": "both", "role": "prepared", "dtype": "f32", "shape": [3, 2, 4],
     "prepare": "pack", "sources": ["gate", "up"], "alignment": 64},
    {"name": "y", "role": "output", "dtype": "f32", "shape": [-1, 4]}],
  "dispatches": [])";

const char *const moe::test::packFunction = R"(
  "name": "pack", "prepares": "packed", "entry": "moe_entry_pack",
  "workspace": "moe_workspace_pack", "tokens": {"min": 0, "max": 1000},
  "arguments": [
    {"name": "g", "role": "input", "dtype": "f32", "shape": [-1, 4]},
    {"name": "u", "role": "input", "dtype": "f32", "shape": [-1, 4]},
    {"name": "b", "role": "output", "dtype": "f32", "shape": [-1, 2, 4]}],
  "dispatches": [])";

static std::string join(const std::vector<std::string> &parts) {
  std::string text;
  for (const std::string &part : parts)
    text += (text.empty() ? "" : ", ") + part;
  return text;
}

std::string moe::test::variantOf(const std::vector<std::string> &bodies,
                                 const std::string &features) {
  std::vector<std::string> functions;
  for (const std::string &body : bodies)
    functions.push_back("{" + body + "}");
  return R"({"target": {"triple": ")" + std::string(hostTriple) +
         R"(", "features": )" + features + R"(}, "functions": [)" +
         join(functions) + "]}";
}

std::string
moe::test::metadataOfVariants(const std::vector<std::string> &variants) {
  return R"({"format": 2, "producer": "test", "variants": [)" + join(variants) +
         "]}";
}

std::string moe::test::metadataOf(const std::vector<std::string> &bodies) {
  return metadataOfVariants({variantOf(bodies)});
}

std::string moe::test::metadataFor(const std::string &body) {
  return metadataOf({body});
}

static void *countedAllocate(void *user, size_t bytes, size_t alignment) {
  auto *allocator = static_cast<CountingAllocator *>(user);
  if (allocator->allocations++ == allocator->failAt)
    return nullptr;
  ++allocator->live;
  void *memory = nullptr;
  if (posix_memalign(&memory, alignment, bytes + allocator->misalign))
    return nullptr;
  std::memset(memory, 0xa5, bytes);
  return static_cast<char *>(memory) + allocator->misalign;
}

static void countedRelease(void *user, void *memory, size_t) {
  auto *allocator = static_cast<CountingAllocator *>(user);
  --allocator->live;
  std::free(static_cast<char *>(memory) - allocator->misalign);
}

moe_rt_context_options_t CountingAllocator::options() {
  return {sizeof(moe_rt_context_options_t),
          {this, countedAllocate, countedRelease},
          0,
          nullptr,
          {}};
}

std::string moe::test::readFile(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  std::stringstream stream;
  stream << file.rdbuf();
  return stream.str();
}

void moe::test::writeFile(const std::string &path, const std::string &bytes) {
  std::ofstream file(path, std::ios::binary);
  file << bytes;
  EXPECT_TRUE(file.good()) << path;
}

TemporaryDirectory::TemporaryDirectory() {
  std::string name =
      (std::filesystem::temp_directory_path() / "moe_test.XXXXXX").string();
  EXPECT_NE(mkdtemp(name.data()), nullptr);
  path = name;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path, ignored);
}

void moe::test::fixChecksum(std::string &artifact) {
  size_t covered = artifact.size() - sizeof(uint64_t);
  uint64_t checksum = XXH3_64bits(artifact.data(), covered);
  std::memcpy(&artifact[covered], &checksum, sizeof(checksum));
}

static void pad(std::string &bytes) {
  bytes.append((MOE_ARTIFACT_ALIGNMENT - bytes.size()) % MOE_ARTIFACT_ALIGNMENT,
               '\0');
}

std::string moe::test::makeArtifact(const std::string &object,
                                    const std::string &metadata) {
  moe_artifact_footer_t footer = {MOE_ARTIFACT_MAGIC,
                                  MOE_ARTIFACT_FORMAT_VERSION,
                                  MOE_RT_ABI_VERSION,
                                  object.size(),
                                  0,
                                  metadata.size(),
                                  0,
                                  0,
                                  0};
  std::string bytes = object;
  pad(bytes);
  footer.metadata_offset = bytes.size();
  bytes += metadata;
  pad(bytes);
  footer.file_size = bytes.size() + sizeof(footer);
  bytes.append(reinterpret_cast<const char *>(&footer), sizeof(footer));
  fixChecksum(bytes);
  return bytes;
}
