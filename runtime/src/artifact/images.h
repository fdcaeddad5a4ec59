//===- images.h - The kernels of a variant ----------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What the metadata says of a variant for a device. Whether a device runs it,
// the device says.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_ARTIFACT_IMAGES_H
#define MOE_RT_SRC_ARTIFACT_IMAGES_H

#include "support/status.h"

#include <cstddef>
#include <string>
#include <vector>

namespace moe::rt {

class Node;

/// What code is compiled for, "sm_80" or "sm_90a".
struct Arch {
  int major = 0, minor = 0;
  bool exact = false; // "a": of this capability and no other

  std::string name() const;
};

enum class ImageFormat { ptx, cubin };

/// All kernels in one form.
struct Image {
  ImageFormat format = ImageFormat::ptx;
  Arch arch;
  std::string symbol; // of the object, where its bytes begin
  size_t size = 0;

  // Filled in when the code is loaded.
  const void *data = nullptr;

  /// "PTX for sm_90a".
  std::string describe() const;
};

struct Kernel {
  std::string name;
  int64_t threads = 1; // of a block
  int64_t shared = 0;  // bytes of dynamic shared memory
  int64_t cluster = 1; // blocks of a cluster, along x
  /// The kernels under whose launch, directly before its own, it may begin, by
  /// their place; ascending.
  std::vector<int64_t> primaries;
};

struct DeviceCode {
  Arch arch; // what the variant as a whole needs
  std::vector<Image> images;
  std::vector<Kernel> kernels; // the host code knows them by their place
};

/// Read the `device` of a variant's target, its `images` and its `kernels`.
moe_rt_status_t parseDeviceCode(const Node &variant, const Node &device,
                                DeviceCode &out);

} // namespace moe::rt

#endif // MOE_RT_SRC_ARTIFACT_IMAGES_H
