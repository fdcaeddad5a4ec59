//===- tensor_map.h - Tensor maps -------------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What cuTensorMapEncodeTiled writes into the 128 bytes, in the double's own
// encoding, and how boxes of a tensor lie in shared memory: PTX ISA 5.5
// "Tensors", 5.5.7 "Swizzling modes".
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_TENSOR_MAP_H
#define MOE_CUDA_DOUBLE_TENSOR_MAP_H

#include "device_memory.h"
#include "driver/cuda_abi.h"

namespace moe::gpu {

struct TensorMap {
  uint64_t magic;
  uint64_t address;
  uint64_t strides[5];   // bytes; that of dimension 0 is the element's size
  uint32_t lastIndex[5]; // of each dimension: the size less one
  uint16_t box[5];
  uint8_t elementStrides[5];
  uint8_t rank;
  uint8_t type; // CUtensorMapDataType
  uint8_t swizzle, interleave, fill;

  static constexpr uint64_t expectedMagic = 0x70616D2D656F6D31;

  uint32_t elementBytes() const;
  uint32_t boxBytes() const;
  uint32_t rowBytes() const { return box[0] * elementBytes(); }

  /// The box at these coordinates as a dense array; what is outside of the
  /// tensor is zero. Fault where the tensor is not memory.
  std::vector<uint8_t> gather(const DeviceMemory &memory,
                              const int32_t *coordinates) const;
  /// Store a box, or combine it with what is there; what is outside of the
  /// tensor is left out.
  enum class Combine { Replace, Add, Min, Max, And, Or, Xor };
  void scatter(const DeviceMemory &memory, const int32_t *coordinates,
               const uint8_t *dense, Combine combine) const;

private:
  template <typename Body>
  void forRows(const DeviceMemory &memory, const int32_t *coordinates,
               Body body) const;
};
static_assert(sizeof(TensorMap) <= 128, "it has to fit");

/// The shared memory address where the byte lies that would be at `address`
/// without swizzling: 16-byte chunks within spans of `span` bytes are exchanged
/// by the address bits from 7 on.
constexpr uint32_t swizzled(uint32_t address, uint32_t span) {
  return address ^ ((address >> 7 & (span / 16 - 1)) << 4);
}
static_assert(swizzled(0x380 + 0x10, 128) == 0x380 + 0x60);
static_assert(swizzled(0x380 + 0x10, 64) == 0x380 + 0x20);
static_assert(swizzled(0x80, 32) == 0x90 && swizzled(0x100, 32) == 0x100);

/// The span of a swizzle; 16 for none, and 0 for those that are not modelled.
uint32_t swizzleSpan(CUtensorMapSwizzle swizzle);

/// The rules of the driver. `why` says which was broken.
CUresult encodeTensorMap(TensorMap &map, CUtensorMapDataType type,
                         uint32_t rank, uint64_t address, const uint64_t *sizes,
                         const uint64_t *strides, const uint32_t *box,
                         const uint32_t *elementStrides,
                         CUtensorMapInterleave interleave,
                         CUtensorMapSwizzle swizzle,
                         CUtensorMapL2promotion promotion,
                         CUtensorMapFloatOOBfill fill, std::string &why);

/// Combine arrays of elements, for cp.reduce.async.bulk.
void combineElements(Type type, TensorMap::Combine combine, uint8_t *to,
                     const uint8_t *from, size_t bytes);

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_TENSOR_MAP_H
