//===- images.cpp - The kernels of a variant ------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "artifact/images.h"
#include "artifact/node.h"

#include <algorithm>
#include <set>

using namespace moe::rt;

// What the hardware has, and otherwise far above what a compiler writes.
static constexpr int64_t maxThreads = 1024;
static constexpr int64_t maxShared = 232448; // 227 KiB, of capability 9.0
static constexpr int64_t maxCluster = 16;
static constexpr size_t maxKernels = 4096;
static constexpr size_t maxImages = 64;
static constexpr int64_t maxImageSize = int64_t(1) << 30;

std::string Arch::name() const {
  return "sm_" + std::to_string(major) + std::to_string(minor) +
         (exact ? "a" : "");
}

std::string Image::describe() const {
  return (format == ImageFormat::ptx ? "PTX for " : "cubin for ") + arch.name();
}

//===----------------------------------------------------------------------===//
// Metadata
//===----------------------------------------------------------------------===//

/// Read "sm_" and two or three digits, the last of which is the minor version,
/// and perhaps "a".
static bool readArch(const std::string &text, Arch &out) {
  if (text.compare(0, 3, "sm_") != 0)
    return false;
  size_t end = text.size();
  out.exact = text[end - 1] == 'a';
  end -= out.exact;
  if (end < 5 || end > 6 || text[3] == '0')
    return false;
  int number = 0;
  for (size_t i = 3; i < end; ++i) {
    if (text[i] < '0' || text[i] > '9')
      return false;
    number = 10 * number + (text[i] - '0');
  }
  out.major = number / 10;
  out.minor = number % 10;
  return true;
}

static moe_rt_status_t parseArch(const Node &node, Arch &out) {
  std::string text;
  MOE_RT_TRY(node.string(text));
  if (!readArch(text, out))
    return node.refuse("is '" + text +
                       "', expected an architecture such as sm_80 or sm_90a");
  return nullptr;
}

static moe_rt_status_t parseImage(const Node &node, Image &out) {
  MOE_RT_TRY(node.object());
  Node format = node.member("format");
  std::string text;
  MOE_RT_TRY(format.string(text));
  if (text != "ptx" && text != "cubin")
    return format.refuse("is '" + text + "', expected ptx or cubin");
  out.format = text == "ptx" ? ImageFormat::ptx : ImageFormat::cubin;
  MOE_RT_TRY(parseArch(node.member("arch"), out.arch));
  MOE_RT_TRY(node.member("symbol").string(out.symbol));
  int64_t size = 0;
  MOE_RT_TRY(node.member("size").integer(1, maxImageSize, size));
  out.size = static_cast<size_t>(size);
  return nullptr;
}

static moe_rt_status_t parseKernel(const Node &node, size_t kernels,
                                   Kernel &out) {
  MOE_RT_TRY(node.object());
  MOE_RT_TRY(node.member("name").string(out.name));
  MOE_RT_TRY(node.member("threads").integer(1, maxThreads, out.threads));
  if (Node shared = node.member("shared"); shared.exists())
    MOE_RT_TRY(shared.integer(0, maxShared, out.shared));
  if (Node cluster = node.member("cluster"); cluster.exists())
    MOE_RT_TRY(cluster.integer(1, maxCluster, out.cluster));
  if (Node primaries = node.member("primaries"); primaries.exists()) {
    size_t count = 0;
    MOE_RT_TRY(primaries.array(count, kernels));
    out.primaries.resize(count);
    for (size_t i = 0; i < count; ++i)
      MOE_RT_TRY(primaries.element(i).integer(
          0, static_cast<int64_t>(kernels) - 1, out.primaries[i]));
    std::sort(out.primaries.begin(), out.primaries.end());
  }
  return nullptr;
}

moe_rt_status_t moe::rt::parseDeviceCode(const Node &variant,
                                         const Node &device, DeviceCode &out) {
  MOE_RT_TRY(device.object());
  Node kind = device.member("kind");
  std::string text;
  MOE_RT_TRY(kind.string(text));
  if (text != "cuda")
    return kind.refuse("is '" + text + "', expected cuda");
  MOE_RT_TRY(parseArch(device.member("arch"), out.arch));

  Node images = variant.member("images");
  size_t count = 0;
  MOE_RT_TRY(images.array(count, maxImages));
  if (count == 0)
    return images.refuse("is empty");
  out.images.resize(count);
  for (size_t i = 0; i < count; ++i)
    MOE_RT_TRY(parseImage(images.element(i), out.images[i]));

  Node kernels = variant.member("kernels");
  MOE_RT_TRY(kernels.array(count, maxKernels));
  out.kernels.resize(count);
  std::set<std::string> names;
  for (size_t i = 0; i < count; ++i) {
    MOE_RT_TRY(parseKernel(kernels.element(i), count, out.kernels[i]));
    if (!names.insert(out.kernels[i].name).second)
      return kernels.element(i).refuse("repeats the name '" +
                                       out.kernels[i].name + "'");
  }
  return nullptr;
}
