//===- tensor_map.h - Tensor maps -------------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The 128 bytes that cuTensorMapEncodeTiled writes, in the double's own
// encoding, and the layout of the boxes of a tensor in shared memory: PTX ISA
// 5.5 "Tensors", 5.5.7 "Swizzling modes".
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_TENSOR_MAP_H
#define MOE_CUDA_DOUBLE_TENSOR_MAP_H

#include "device_memory.h"
#include "driver/cuda_abi.h"

#include <functional>

namespace moe::gpu {

struct TensorMap {
  uint64_t magic;
  uint64_t address;
  uint64_t strides[5];   // in bytes; strides[0] is the size of an element
  uint32_t lastIndex[5]; // the size of each dimension minus 1
  uint16_t box[5];
  uint8_t elementStrides[5];
  uint8_t rank;
  uint8_t type; // CUtensorMapDataType
  uint8_t swizzle, interleave, fill;

  static constexpr uint64_t expectedMagic = 0x70616D2D656F6D31;

  uint32_t elementBytes() const;
  uint32_t boxBytes() const;
  uint32_t rowBytes() const { return box[0] * elementBytes(); }

  /// Calls `body` with the address and bytes of each row of the box that
  /// intersects the tensor.
  void forRanges(const DeviceMemory &memory, const int32_t *coordinates,
                 const std::function<void(uint64_t, uint64_t)> &body) const;

  /// Loads the box at these coordinates into a dense array; elements outside
  /// the tensor are zero. Faults if the tensor is not in allocated memory.
  std::vector<uint8_t> gather(const DeviceMemory &memory,
                              const int32_t *coordinates) const;
  /// Stores a dense box, or reduces it into the tensor; elements outside the
  /// tensor are not written.
  enum class Combine { Replace, Add, Min, Max, And, Or, Xor };
  void scatter(const DeviceMemory &memory, const int32_t *coordinates,
               const uint8_t *dense, Combine combine) const;

private:
  template <typename Body>
  void forRows(const DeviceMemory &memory, const int32_t *coordinates,
               Body body) const;
};
static_assert(sizeof(TensorMap) <= 128, "it has to fit");

/// Returns the swizzled shared memory address of `address`: the index of the
/// 16-byte chunk in a span of `span` bytes is XORed with the address bits from
/// bit 7 up.
constexpr uint32_t swizzled(uint32_t address, uint32_t span) {
  return address ^ ((address >> 7 & (span / 16 - 1)) << 4);
}
static_assert(swizzled(0x380 + 0x10, 128) == 0x380 + 0x60);
static_assert(swizzled(0x380 + 0x10, 64) == 0x380 + 0x20);
static_assert(swizzled(0x80, 32) == 0x90 && swizzled(0x100, 32) == 0x100);

/// The span of a swizzle in bytes; 16 for none, 0 if it is not modelled.
uint32_t swizzleSpan(CUtensorMapSwizzle swizzle);

/// Encodes a map by the rules of the driver. `why` names the violated one.
CUresult encodeTensorMap(TensorMap &map, CUtensorMapDataType type,
                         uint32_t rank, uint64_t address, const uint64_t *sizes,
                         const uint64_t *strides, const uint32_t *box,
                         const uint32_t *elementStrides,
                         CUtensorMapInterleave interleave,
                         CUtensorMapSwizzle swizzle,
                         CUtensorMapL2promotion promotion,
                         CUtensorMapFloatOOBfill fill, std::string &why);

/// Reduces an array of elements into another, for cp.reduce.async.bulk.
void combineElements(Type type, TensorMap::Combine combine, uint8_t *to,
                     const uint8_t *from, size_t bytes);

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_TENSOR_MAP_H
