//===- settings.cpp - Settings of the device from the environment ---------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "settings.h"

#include <cstdio>
#include <cstdlib>

using namespace moe::gpu;

/// The variable as a number; `otherwise` if it is unset or not a number.
static uint64_t number(const char *name, uint64_t otherwise) {
  const char *text = std::getenv(name);
  if (!text || !*text)
    return otherwise;
  // Accept both 2e9 and 0x40000000.
  char *end = nullptr;
  uint64_t whole = std::strtoull(text, &end, 0);
  if (*end == '\0')
    return whole;
  double real = std::strtod(text, &end);
  return *end == '\0' && real >= 0 && real < 1e19 ? static_cast<uint64_t>(real)
                                                  : otherwise;
}

static bool isSet(const char *name, const char *value) {
  const char *text = std::getenv(name);
  return text && std::string(text) == value;
}

static bool allows(const char *name) { return isSet(name, "allow"); }

Settings Settings::fromEnvironment() {
  Settings settings;
  if (const char *arch = std::getenv("MOE_CUDA_DOUBLE_ARCH"))
    std::sscanf(arch, "%d.%d", &settings.major, &settings.minor);
  settings.multiprocessors = static_cast<int>(number("MOE_CUDA_DOUBLE_SMS", 4));
  if (settings.multiprocessors < 1)
    settings.multiprocessors = 1;
  settings.memory = number("MOE_CUDA_DOUBLE_MEMORY", settings.memory);
  settings.driver = static_cast<int>(number("MOE_CUDA_DOUBLE_DRIVER", 13000));
  settings.devices = static_cast<int>(number("MOE_CUDA_DOUBLE_DEVICES", 1));
  settings.seed = number("MOE_CUDA_DOUBLE_SEED", 0);
  settings.instructions =
      number("MOE_CUDA_DOUBLE_LIMIT", settings.instructions);
  settings.allowUninitialised = allows("MOE_CUDA_DOUBLE_UNINIT");
  settings.allowRaces = allows("MOE_CUDA_DOUBLE_RACES");
  settings.allowEqual = isSet("MOE_CUDA_DOUBLE_RACES", "equal");
  settings.allowCopies = allows("MOE_CUDA_DOUBLE_COPIES");
  settings.allowBarriers = allows("MOE_CUDA_DOUBLE_BARRIERS");
  settings.hardwarePlacement = isSet("MOE_CUDA_DOUBLE_PLACEMENT", "hardware");
  if (const char *log = std::getenv("MOE_CUDA_DOUBLE_LOG"))
    settings.log = log;
  return settings;
}
