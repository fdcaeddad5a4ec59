//===- tensor.cpp - Check tensors against a signature ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "layer/tensor.h"
#include "support/checked.h"
#include "support/dtype.h"

#include <cinttypes>
#include <cstring>

using namespace moe;
using namespace moe::rt;

static std::string describe(DLDataType type) {
  if (const char *name = findDTypeName(type))
    return name;
  return "type code " + std::to_string(type.code) + " with " +
         std::to_string(type.bits) + " bits and " + std::to_string(type.lanes) +
         " lanes";
}

static moe_rt_status_t checkForm(const Argument &argument,
                                 const DLTensor &tensor) {
  const char *role = argument.roleName(), *name = argument.name.c_str();
  bool sameType =
      sameDType(tensor.dtype, argument.dtype) ||
      (argument.isBool && sameDType(tensor.dtype, {dlBool, 8, 1})) ||
      (argument.role == Role::weight &&
       isSameButForSign(argument.dtype, tensor.dtype));
  if (!sameType) {
    std::string expected = describe(argument.dtype);
    if (argument.isBool)
      expected = "bool or u8";
    else if (argument.role == Role::weight && argument.dtype.code == kDLInt)
      expected += " or u" + std::to_string(argument.dtype.bits);
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "%s '%s' has type %s, expected %s", role, name,
                     describe(tensor.dtype).c_str(), expected.c_str());
  }
  if (tensor.ndim < 0 ||
      static_cast<size_t>(tensor.ndim) != argument.shape.size())
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "%s '%s' has rank %d, expected %zu", role, name,
                     static_cast<int>(tensor.ndim), argument.shape.size());
  if (tensor.ndim > 0 && !tensor.shape)
    return makeError(MOE_RT_INVALID_ARGUMENT, "%s '%s' has no shape", role,
                     name);
  return nullptr;
}

static moe_rt_status_t checkShape(const Argument &argument,
                                  const DLTensor &tensor, TokenCount &tokens) {
  const char *role = argument.roleName(), *name = argument.name.c_str();
  for (size_t i = 0; i < argument.shape.size(); ++i) {
    int64_t extent = tensor.shape[i], expected = argument.shape[i];
    if (extent < 0)
      return makeError(MOE_RT_INVALID_ARGUMENT,
                       "%s '%s': extent %zu is %" PRId64
                       ", expected no less than 0",
                       role, name, i, extent);
    if (expected != dynamicExtent) {
      if (extent != expected)
        return makeError(MOE_RT_INVALID_ARGUMENT,
                         "%s '%s': extent %zu is %" PRId64
                         ", expected %" PRId64,
                         role, name, i, extent, expected);
      continue;
    }
    if (!tokens.known())
      tokens = {extent, name};
    if (extent != tokens.value)
      return makeError(MOE_RT_INVALID_ARGUMENT,
                       "%s '%s': extent %zu is %" PRId64
                       ", expected T = %" PRId64 " as in '%s'",
                       role, name, i, extent, tokens.value, tokens.from);
  }
  return nullptr;
}

/// Check that the strides are those of a compact row-major tensor, and count
/// its bytes.
static moe_rt_status_t checkStrides(const Argument &argument,
                                    const DLTensor &tensor, uint64_t &bytes) {
  const char *role = argument.roleName(), *name = argument.name.c_str();
  bool empty = false;
  int64_t stride = 1;
  for (int32_t i = tensor.ndim; i-- > 0;)
    empty |= tensor.shape[i] == 0;
  for (int32_t i = tensor.ndim; i-- > 0;) {
    int64_t extent = tensor.shape[i];
    // A stride that is never taken may have any value.
    if (tensor.strides && !empty && extent > 1 && tensor.strides[i] != stride)
      return makeError(MOE_RT_INVALID_ARGUMENT,
                       "%s '%s': stride %d is %" PRId64 ", expected %" PRId64
                       " (compact, row-major)",
                       role, name, i, tensor.strides[i], stride);
    // An extent of zero must not hide an overflow: the code sees the strides.
    if (extent > 0 && !checkedMul(stride, extent, stride))
      return makeError(MOE_RT_INVALID_ARGUMENT,
                       "%s '%s' has more than 2^63-1 elements", role, name);
  }
  int64_t total;
  if (!checkedMul(stride, static_cast<int64_t>(argument.elementSize()), total))
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "%s '%s' has more than 2^63-1 bytes", role, name);
  bytes = empty ? 0 : static_cast<uint64_t>(total);
  return nullptr;
}

moe_rt_status_t moe::rt::checkTensor(const Argument &argument,
                                     const DLTensor &tensor,
                                     const Device &device, TokenCount &tokens,
                                     BoundTensor &out) {
  const char *role = argument.roleName(), *name = argument.name.c_str();
  MOE_RT_TRY(device.checkPlace(argument, tensor.device));
  MOE_RT_TRY(checkForm(argument, tensor));
  MOE_RT_TRY(checkShape(argument, tensor, tokens));
  uint64_t bytes = 0;
  MOE_RT_TRY(checkStrides(argument, tensor, bytes));
  if (bytes == 0) {
    out = {static_cast<char *>(tensor.data), 0};
    return nullptr;
  }
  if (!tensor.data)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "%s '%s' has no data, expected %" PRIu64 " bytes", role,
                     name, bytes);
  uint64_t begin, end;
  if (!checkedAdd(
          static_cast<uint64_t>(reinterpret_cast<uintptr_t>(tensor.data)),
          tensor.byte_offset, begin) ||
      !checkedAdd(begin, bytes, end) || end > UINTPTR_MAX)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "%s '%s': byte offset %" PRIu64 " and %" PRIu64
                     " bytes leave the address space",
                     role, name, tensor.byte_offset, bytes);
  if (begin % argument.alignment != 0)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "%s '%s' is at address 0x%" PRIx64
                     ", expected alignment to %" PRIu32 " bytes",
                     role, name, begin, argument.alignment);
  out = {reinterpret_cast<char *>(static_cast<uintptr_t>(begin)), bytes};
  return nullptr;
}

template <typename T>
static moe_rt_status_t checkIds(const Argument &argument,
                                const BoundTensor &tensor) {
  size_t count = static_cast<size_t>(tensor.bytes / sizeof(T));
  for (size_t i = 0; i < count; ++i) {
    // The declared alignment may be less than that of T.
    T id;
    std::memcpy(&id, tensor.data + i * sizeof(T), sizeof(T));
    if (id < -1 || static_cast<int64_t>(id) >= argument.numExperts)
      return makeError(MOE_RT_INVALID_ARGUMENT,
                       "%s '%s': element %zu is %" PRId64
                       ", expected an expert id in [0, %" PRId64 ") or -1",
                       argument.roleName(), argument.name.c_str(), i,
                       static_cast<int64_t>(id), argument.numExperts);
  }
  return nullptr;
}

static moe_rt_status_t checkBools(const Argument &argument,
                                  const BoundTensor &tensor) {
  for (uint64_t i = 0; i < tensor.bytes; ++i) {
    auto value = static_cast<unsigned char>(tensor.data[i]);
    if (value > 1)
      return makeError(MOE_RT_INVALID_ARGUMENT,
                       "%s '%s': element %" PRIu64 " is %u, expected 0 or 1",
                       argument.roleName(), argument.name.c_str(), i, value);
  }
  return nullptr;
}

moe_rt_status_t moe::rt::checkElements(const Argument &argument,
                                       const BoundTensor &tensor) {
  if (argument.isBool)
    return checkBools(argument, tensor);
  if (argument.numExperts == 0)
    return nullptr;
  switch (argument.dtype.bits) {
  case 8:
    return checkIds<int8_t>(argument, tensor);
  case 16:
    return checkIds<int16_t>(argument, tensor);
  case 32:
    return checkIds<int32_t>(argument, tensor);
  default:
    return checkIds<int64_t>(argument, tensor);
  }
}

int64_t *moe::rt::writeDescriptor(const Argument &argument, int64_t tokens,
                                  void *data, int64_t *out) {
  size_t rank = argument.shape.size();
  out[0] = out[1] = static_cast<int64_t>(reinterpret_cast<intptr_t>(data));
  out[2] = 0;
  int64_t *sizes = out + 3, *strides = sizes + rank;
  int64_t stride = 1;
  for (size_t i = rank; i-- > 0;) {
    sizes[i] = argument.shape[i] == dynamicExtent ? tokens : argument.shape[i];
    strides[i] = stride;
    if (sizes[i] > 0)
      stride *= sizes[i];
  }
  return out + descriptorWords(rank);
}

void moe::rt::writeWorkspaceDescriptor(void *data, uint64_t bytes,
                                       int64_t *out) {
  out[0] = out[1] = static_cast<int64_t>(reinterpret_cast<intptr_t>(data));
  out[2] = 0;
  out[3] = static_cast<int64_t>(bytes);
  out[4] = 1;
}
