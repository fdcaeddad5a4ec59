//===- testing.h - Helpers of the tests -------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_TEST_TESTING_H
#define MOE_RT_TEST_TESTING_H

#include "moe_rt/moe_rt.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace moe::test {

/// A status, freed at the end.
struct Result {
  Result(moe_rt_status_t status)
      : code(moe_rt_status_code(status)),
        message(moe_rt_status_message(status)) {
    moe_rt_status_free(status);
  }

  moe_rt_code_t code;
  std::string message;
};

/// The status is success.
#define EXPECT_OK(expr)                                                        \
  do {                                                                         \
    ::moe::test::Result result_(expr);                                         \
    EXPECT_EQ(result_.code, MOE_RT_OK) << result_.message;                     \
  } while (0)
#define ASSERT_OK(expr)                                                        \
  do {                                                                         \
    ::moe::test::Result result_(expr);                                         \
    ASSERT_EQ(result_.code, MOE_RT_OK) << result_.message;                     \
  } while (0)
/// The status has this code and a message that contains this text.
#define EXPECT_ERROR(expr, expectedCode, text)                                 \
  do {                                                                         \
    ::moe::test::Result result_(expr);                                         \
    EXPECT_EQ(result_.code, expectedCode) << result_.message;                  \
    EXPECT_NE(result_.message.find(text), std::string::npos)                   \
        << "message: " << result_.message;                                     \
  } while (0)

/// An allocator that counts, and fails on demand.
struct CountingAllocator {
  size_t allocations = 0, live = 0;
  size_t failAt = SIZE_MAX; // the allocation with this number fails
  size_t misalign = 0;      // bytes added to what it returns

  moe_rt_context_options_t options();
};

/// A context that is destroyed at the end.
struct Context {
  explicit Context(const moe_rt_context_options_t *options = nullptr) {
    EXPECT_OK(moe_rt_context_create(options, &handle));
  }
  ~Context() { moe_rt_context_destroy(handle); }
  Context(const Context &) = delete;
  operator moe_rt_context_t *() const { return handle; }

  moe_rt_context_t *handle = nullptr;
};

std::string readFile(const std::string &path);
void writeFile(const std::string &path, const std::string &bytes);

/// A directory that is removed at the end.
struct TemporaryDirectory {
  TemporaryDirectory();
  ~TemporaryDirectory();
  std::string operator/(const std::string &name) const {
    return path + "/" + name;
  }
  std::string path;
};

/// The bytes of an artifact of this object and metadata.
std::string makeArtifact(const std::string &object,
                         const std::string &metadata);
/// Recompute the checksum after a change.
void fixChecksum(std::string &artifact);

/// Metadata with one function: `body` is what stands between its braces.
std::string metadataFor(const std::string &body);
/// The functions of Inputs/fixture.c.
extern const char *const doubleFunction;
extern const char *const layerFunction;
extern const char *const packedFunction; // needs packFunction beside it
extern const char *const packFunction;
/// Metadata of the functions.
std::string metadataOf(const std::vector<std::string> &bodies);
/// Metadata with these elements of `variants`.
std::string metadataOfVariants(const std::vector<std::string> &variants);
/// A variant for this machine that needs CPU features, as a JSON list.
std::string variantOf(const std::vector<std::string> &bodies,
                      const std::string &features = "[]");

/// The triple of this machine.
extern const char *const hostTriple;

/// A tensor that owns its data.
template <typename T> struct Array {
  Array(std::vector<int64_t> shape, DLDataType dtype, T fill = T())
      : shape(std::move(shape)), dtype(dtype) {
    size_t count = 1;
    for (int64_t extent : this->shape)
      count *= static_cast<size_t>(extent);
    data.assign(count, fill);
  }
  DLTensor dl() {
    return {data.data(),
            {kDLCPU, 0},
            static_cast<int32_t>(shape.size()),
            dtype,
            shape.data(),
            nullptr,
            0};
  }

  std::vector<int64_t> shape;
  DLDataType dtype;
  std::vector<T> data;
};

inline Array<float> f32(std::vector<int64_t> shape, float fill = 0) {
  return {std::move(shape), {kDLFloat, 32, 1}, fill};
}
inline Array<int32_t> i32(std::vector<int64_t> shape, int32_t fill = 0) {
  return {std::move(shape), {kDLInt, 32, 1}, fill};
}

} // namespace moe::test

#endif // MOE_RT_TEST_TESTING_H
