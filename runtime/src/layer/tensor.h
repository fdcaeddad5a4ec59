//===- tensor.h - Check tensors against a signature -------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_LAYER_TENSOR_H
#define MOE_RT_SRC_LAYER_TENSOR_H

#include "artifact/signature.h"
#include "core/device.h"

namespace moe::rt {

/// The bytes of a tensor that passed its checks: on a device an address there.
struct BoundTensor {
  char *data;
  uint64_t bytes;
};

/// T, once a tensor has told it.
struct TokenCount {
  int64_t value = -1;
  const char *from = nullptr; // the name of that tensor

  bool known() const { return value >= 0; }
};

/// Check a caller's tensor against its argument: device, rank, type, shape,
/// strides, data and alignment. Its dynamic extents must equal `tokens`, which
/// the first of them sets. `device` is where it has to be.
moe_rt_status_t checkTensor(const Argument &argument, const DLTensor &tensor,
                            const Device &device, TokenCount &tokens,
                            BoundTensor &out);

/// Check the elements of a tensor in memory of the host where they could lead
/// the code astray: expert ids and booleans.
moe_rt_status_t checkElements(const Argument &argument,
                              const BoundTensor &tensor);

/// Write the memref descriptor of a tensor at `out`, and return the end of it.
int64_t *writeDescriptor(const Argument &argument, int64_t tokens, void *data,
                         int64_t *out);

/// Write the descriptor of a workspace, of descriptorWords(1) words.
void writeWorkspaceDescriptor(void *data, uint64_t bytes, int64_t *out);

/// Number of 64-bit words of a memref descriptor.
inline size_t descriptorWords(size_t rank) { return 3 + 2 * rank; }

inline bool overlaps(const BoundTensor &a, const BoundTensor &b) {
  // A range that checkTensor accepted does not wrap around.
  return a.bytes && b.bytes && a.data < b.data + b.bytes &&
         b.data < a.data + a.bytes;
}

} // namespace moe::rt

#endif // MOE_RT_SRC_LAYER_TENSOR_H
