//===- testing.cpp - Helpers for the tests of the double ------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "testing.h"

#include <cstdio>
#include <cstdlib>

using namespace moe::gpu::test;

Source::operator std::string() const {
  return ".version 8.3\n.target " + target + "\n.address_size 64\n" + globals +
         "\n.visible .entry k(" + parameters + ") " + directives +
         " {\n"
         "  .reg .pred %p<16>;\n  .reg .b16 %h<16>;\n  .reg .b32 %r<64>;\n"
         "  .reg .b64 %rd<32>;\n  .reg .f32 %f<64>;\n  .reg .f64 %fd<16>;\n" +
         body + "\n  ret;\n}\n";
}

void Gpu::start(const Environment &environment) {
  for (const char *name :
       {"ARCH", "SMS", "MEMORY", "DRIVER", "DEVICES", "SEED", "LIMIT", "UNINIT",
        "RACES", "COPIES", "BARRIERS", "PLACEMENT", "LOG"})
    unsetenv((std::string("MOE_CUDA_DOUBLE_") + name).c_str());
  for (const auto &[name, value] : environment)
    setenv(("MOE_CUDA_DOUBLE_" + name).c_str(), value.c_str(), 1);
  moe_cuda_double_reset();
  ASSERT_OK(cuInit(0));
  CUcontext context;
  ASSERT_OK(cuDevicePrimaryCtxRetain(&context, 0));
  ASSERT_OK(cuCtxSetCurrent(context));
}

CUfunction Gpu::load(const std::string &ptx, const char *name) {
  // Write the PTX to files, so that ptxas can check that it assembles.
  if (const char *folder = std::getenv("MOE_CUDA_DOUBLE_DUMP")) {
    static int number = 0;
    std::string path =
        std::string(folder) + "/" + std::to_string(number++) + ".ptx";
    if (std::FILE *file = std::fopen(path.c_str(), "w")) {
      std::fputs(ptx.c_str(), file);
      std::fclose(file);
    }
  }
  CUmodule module;
  CUresult result = cuModuleLoadData(&module, ptx.c_str());
  EXPECT_OK(result) << ptx;
  CUfunction kernel = nullptr;
  if (result == CUDA_SUCCESS) {
    EXPECT_OK(cuModuleGetFunction(&kernel, module, name));
  }
  return kernel;
}

std::string Gpu::loadError(const std::string &ptx) {
  CUmodule module;
  EXPECT_EQ(cuModuleLoadData(&module, ptx.c_str()), CUDA_ERROR_INVALID_PTX);
  return message();
}

CUdeviceptr Gpu::alloc(size_t bytes) {
  CUdeviceptr address = 0;
  EXPECT_OK(cuMemAlloc_v2(&address, bytes));
  return address;
}

CUresult Gpu::runWith(CUfunction kernel, Shape grid, Shape block,
                      unsigned shared, void **parameters) {
  if (shared > 48 << 10) {
    EXPECT_OK(cuFuncSetAttribute(
        kernel, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
        static_cast<int>(shared)));
  }
  CUresult result =
      cuLaunchKernel(kernel, grid.x, grid.y, grid.z, block.x, block.y, block.z,
                     shared, nullptr, parameters, nullptr);
  return result == CUDA_SUCCESS ? cuCtxSynchronize() : result;
}

std::string Gpu::applySource(const std::string &instruction,
                             const std::vector<std::string> &types) {
  static const char *names[] = {"d", "a", "b", "c"};
  std::string body;
  for (size_t i = 0; i < types.size(); ++i)
    body += "  .reg ." + types[i] + " %" + names[i] + ";\n";
  body += "  mov.u32 %r0, %ctaid.x;\n  mul.wide.u32 %rd0, %r0, 8;\n";
  bool predicate = types[0] == "pred";
  auto memoryType = [](const std::string &type) {
    return type == "pred" ? std::string("b32") : "b" + type.substr(1);
  };
  for (size_t i = 0; i < 4; ++i) {
    std::string n = std::to_string(i + 1);
    body += "  ld.param.u64 %rd" + n + ", [" +
            (i ? std::string("in") + n : "out") + "];\n  add.s64 %rd" + n +
            ", %rd" + n + ", %rd0;\n";
    if (i > 0 && i < types.size())
      body += "  ld.global." + memoryType(types[i]) + " %" + names[i] +
              ", [%rd" + n + "];\n";
  }
  // Lanes that do not execute the instruction leave zero.
  body += "  st.global.u64 [%rd1], 0;\n  " + instruction + "\n";
  if (predicate)
    body += "  selp.b32 %r1, 1, 0, %d;\n  st.global.b32 [%rd1], %r1;\n";
  else
    body += "  st.global." + memoryType(types[0]) + " [%rd1], %d;\n";
  return Source{body, ".param .u64 out, .param .u64 in2, .param .u64 in3, "
                      ".param .u64 in4"};
}

std::string moe::gpu::test::with(std::string text, const std::string &what,
                                 const std::string &by) {
  size_t at = text.find(what);
  EXPECT_NE(at, std::string::npos) << what;
  return at == std::string::npos ? text : text.replace(at, what.size(), by);
}

uint16_t moe::gpu::test::toBfloat(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

float moe::gpu::test::fromBfloat(uint16_t bits) {
  uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}

std::vector<uint16_t> moe::gpu::test::bfloatPattern(size_t count,
                                                    unsigned seed) {
  std::vector<uint16_t> values(count);
  uint32_t state = seed * 2654435761u + 1;
  for (uint16_t &value : values) {
    state = state * 1664525 + 1013904223;
    value = toBfloat(
        static_cast<float>(static_cast<int>(state >> 24) % 17 - 8) / 2);
  }
  return values;
}
