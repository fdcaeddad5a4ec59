//===- target.cpp - Can this machine run the code? ------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cpu/target.h"

#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

using namespace moe::rt;

//===----------------------------------------------------------------------===//
// Triple
//===----------------------------------------------------------------------===//

#if defined(__x86_64__)
static constexpr const char *hostArchs[] = {"x86_64", "amd64"};
#elif defined(__aarch64__)
static constexpr const char *hostArchs[] = {"aarch64", "arm64"};
#else
#error "the runtime does not know this architecture"
#endif

#if defined(__linux__)
static constexpr const char *hostSystems[] = {"linux"};
#elif defined(__APPLE__)
static constexpr const char *hostSystems[] = {"darwin", "macosx"};
#else
#error "the runtime does not know this operating system"
#endif

moe_rt_status_t moe::rt::checkTriple(const std::string &triple) {
  size_t dash = triple.find('-');
  std::string arch = triple.substr(0, dash);
  bool archMatches = false;
  for (const char *name : hostArchs)
    archMatches |= arch == name;
  if (!archMatches)
    return makeError(MOE_RT_FAILED_PRECONDITION,
                     "the code is for architecture '%s' (%s), expected '%s'",
                     arch.c_str(), triple.c_str(), hostArchs[0]);

  // The vendor may be left out, so the system is the second or third part.
  bool systemMatches = false;
  while (dash != std::string::npos) {
    size_t begin = dash + 1;
    dash = triple.find('-', begin);
    std::string part = triple.substr(begin, dash - begin);
    for (const char *name : hostSystems)
      systemMatches |= part.compare(0, std::strlen(name), name) == 0;
  }
  if (!systemMatches)
    return makeError(MOE_RT_FAILED_PRECONDITION,
                     "the code is for target '%s', expected system '%s'",
                     triple.c_str(), hostSystems[0]);
  return nullptr;
}

//===----------------------------------------------------------------------===//
// CPU features
//===----------------------------------------------------------------------===//

namespace {

enum class Support { unknown, absent, present };

#if defined(__x86_64__)

enum Register : uint8_t { eax, ebx, ecx, edx };

/// What the operating system must save for the feature to be usable: masks of
/// XCR0.
enum SystemState : uint32_t { none = 0, avxState = 0x6, avx512State = 0xe6 };

struct Feature {
  const char *name;
  uint32_t leaf, subleaf;
  Register reg;
  uint8_t bit;
  SystemState state;
};

// CPUID rather than __builtin_cpu_supports, whose list of names differs
// between compilers and ends before LLVM's does.
constexpr Feature features[] = {
    {"sse3", 1, 0, ecx, 0, none},
    {"pclmul", 1, 0, ecx, 1, none},
    {"ssse3", 1, 0, ecx, 9, none},
    {"fma", 1, 0, ecx, 12, avxState},
    {"cx16", 1, 0, ecx, 13, none},
    {"sse4.1", 1, 0, ecx, 19, none},
    {"sse4.2", 1, 0, ecx, 20, none},
    {"crc32", 1, 0, ecx, 20, none},
    {"movbe", 1, 0, ecx, 22, none},
    {"popcnt", 1, 0, ecx, 23, none},
    {"aes", 1, 0, ecx, 25, none},
    {"xsave", 1, 0, ecx, 26, none},
    {"avx", 1, 0, ecx, 28, avxState},
    {"f16c", 1, 0, ecx, 29, avxState},
    {"rdrnd", 1, 0, ecx, 30, none},
    {"cx8", 1, 0, edx, 8, none},
    {"cmov", 1, 0, edx, 15, none},
    {"mmx", 1, 0, edx, 23, none},
    {"fxsr", 1, 0, edx, 24, none},
    {"sse", 1, 0, edx, 25, none},
    {"sse2", 1, 0, edx, 26, none},
    {"fsgsbase", 7, 0, ebx, 0, none},
    {"bmi", 7, 0, ebx, 3, none},
    {"avx2", 7, 0, ebx, 5, avxState},
    {"bmi2", 7, 0, ebx, 8, none},
    {"invpcid", 7, 0, ebx, 10, none},
    {"avx512f", 7, 0, ebx, 16, avx512State},
    {"avx512dq", 7, 0, ebx, 17, avx512State},
    {"rdseed", 7, 0, ebx, 18, none},
    {"adx", 7, 0, ebx, 19, none},
    {"avx512ifma", 7, 0, ebx, 21, avx512State},
    {"clflushopt", 7, 0, ebx, 23, none},
    {"clwb", 7, 0, ebx, 24, none},
    {"avx512cd", 7, 0, ebx, 28, avx512State},
    {"sha", 7, 0, ebx, 29, none},
    {"avx512bw", 7, 0, ebx, 30, avx512State},
    {"avx512vl", 7, 0, ebx, 31, avx512State},
    {"avx512vbmi", 7, 0, ecx, 1, avx512State},
    {"avx512vbmi2", 7, 0, ecx, 6, avx512State},
    {"gfni", 7, 0, ecx, 8, none},
    {"vaes", 7, 0, ecx, 9, avxState},
    {"vpclmulqdq", 7, 0, ecx, 10, avxState},
    {"avx512vnni", 7, 0, ecx, 11, avx512State},
    {"avx512bitalg", 7, 0, ecx, 12, avx512State},
    {"avx512vpopcntdq", 7, 0, ecx, 14, avx512State},
    {"rdpid", 7, 0, ecx, 22, none},
    {"movdiri", 7, 0, ecx, 27, none},
    {"movdir64b", 7, 0, ecx, 28, none},
    {"avx512vp2intersect", 7, 0, edx, 8, avx512State},
    {"serialize", 7, 0, edx, 14, none},
    {"avx512fp16", 7, 0, edx, 23, avx512State},
    {"avxvnni", 7, 1, eax, 4, avxState},
    {"avx512bf16", 7, 1, eax, 5, avx512State},
    {"avxifma", 7, 1, eax, 23, avxState},
    {"avxvnniint8", 7, 1, edx, 4, avxState},
    {"avxneconvert", 7, 1, edx, 5, avxState},
    {"avxvnniint16", 7, 1, edx, 10, avxState},
    {"xsaveopt", 0xd, 1, eax, 0, none},
    {"xsavec", 0xd, 1, eax, 1, none},
    {"xsaves", 0xd, 1, eax, 3, none},
    {"sahf", 0x80000001, 0, ecx, 0, none},
    {"lzcnt", 0x80000001, 0, ecx, 5, none},
    {"sse4a", 0x80000001, 0, ecx, 6, none},
    {"prfchw", 0x80000001, 0, ecx, 8, none},
    {"64bit", 0x80000001, 0, edx, 29, none},
};

/// The state that the operating system saves on a context switch.
uint32_t savedState() {
  uint32_t regs[4];
  if (!__get_cpuid(1, &regs[eax], &regs[ebx], &regs[ecx], &regs[edx]) ||
      !(regs[ecx] >> 27 & 1)) // OSXSAVE
    return 0;
  uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

Support hasFeature(const std::string &name) {
  for (const Feature &feature : features) {
    if (name != feature.name)
      continue;
    uint32_t regs[4] = {0, 0, 0, 0};
    if (!__get_cpuid_count(feature.leaf, feature.subleaf, &regs[eax],
                           &regs[ebx], &regs[ecx], &regs[edx]))
      return Support::absent;
    bool present = regs[feature.reg] >> feature.bit & 1;
    if (feature.state != none)
      present &= (savedState() & feature.state) == feature.state;
    return present ? Support::present : Support::absent;
  }
  return Support::unknown;
}

#elif defined(__aarch64__)

struct Feature {
  const char *name;
  unsigned long word; // AT_HWCAP or AT_HWCAP2
  uint8_t bit;
};

#if defined(__linux__)
constexpr Feature features[] = {
    {"fp-armv8", AT_HWCAP, 0},  {"neon", AT_HWCAP, 1},
    {"aes", AT_HWCAP, 3},       {"sha2", AT_HWCAP, 6},
    {"crc", AT_HWCAP, 7},       {"lse", AT_HWCAP, 8},
    {"fullfp16", AT_HWCAP, 10}, {"rdm", AT_HWCAP, 12},
    {"dotprod", AT_HWCAP, 20},  {"sve", AT_HWCAP, 22},
    {"fp16fml", AT_HWCAP, 23},  {"sve2", AT_HWCAP2, 1},
    {"i8mm", AT_HWCAP2, 13},    {"bf16", AT_HWCAP2, 14},
    {"sme", AT_HWCAP2, 23},
};
#endif

Support hasFeature(const std::string &name) {
#if defined(__linux__)
  for (const Feature &feature : features)
    if (name == feature.name)
      return getauxval(feature.word) >> feature.bit & 1 ? Support::present
                                                        : Support::absent;
#else
  if (name == "neon" || name == "fp-armv8")
    return Support::present;
#endif
  return Support::unknown;
}

#endif

} // namespace

moe_rt_status_t moe::rt::checkFeatures(const std::vector<std::string> &names) {
  std::string absent, unknown;
  for (const std::string &name : names) {
    Support support = hasFeature(name);
    if (support == Support::present)
      continue;
    std::string &list = support == Support::absent ? absent : unknown;
    list += (list.empty() ? "'" : ", '") + name + "'";
  }
  std::string what;
  if (!absent.empty())
    what = absent + ", which this CPU does not have";
  if (!unknown.empty())
    what += (what.empty() ? "" : ", and ") + unknown +
            ", which this runtime does not know";
  if (what.empty())
    return nullptr;
  return makeError(MOE_RT_FAILED_PRECONDITION, "the code needs CPU feature %s",
                   what.c_str());
}
