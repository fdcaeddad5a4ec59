//===- tensor_map.cpp - Tensor maps ---------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "tensor_map.h"
#include "isa/numeric.h"
#include "machine/fault.h"

#include <algorithm>

using namespace moe::gpu;

static uint32_t bytesOf(int type) {
  switch (type) {
  case CU_TENSOR_MAP_DATA_TYPE_UINT8:
    return 1;
  case CU_TENSOR_MAP_DATA_TYPE_UINT16:
  case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
  case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16:
    return 2;
  case CU_TENSOR_MAP_DATA_TYPE_UINT64:
  case CU_TENSOR_MAP_DATA_TYPE_INT64:
  case CU_TENSOR_MAP_DATA_TYPE_FLOAT64:
    return 8;
  default:
    return 4;
  }
}

uint32_t TensorMap::elementBytes() const { return bytesOf(type); }

uint32_t TensorMap::boxBytes() const {
  uint32_t bytes = elementBytes();
  for (int i = 0; i < rank; ++i)
    bytes *= box[i];
  return bytes;
}

uint32_t moe::gpu::swizzleSpan(CUtensorMapSwizzle swizzle) {
  switch (swizzle) {
  case CU_TENSOR_MAP_SWIZZLE_NONE:
    return 16;
  case CU_TENSOR_MAP_SWIZZLE_32B:
    return 32;
  case CU_TENSOR_MAP_SWIZZLE_64B:
    return 64;
  case CU_TENSOR_MAP_SWIZZLE_128B:
    return 128;
  default:
    return 0;
  }
}

CUresult moe::gpu::encodeTensorMap(
    TensorMap &map, CUtensorMapDataType type, uint32_t rank, uint64_t address,
    const uint64_t *sizes, const uint64_t *strides, const uint32_t *box,
    const uint32_t *elementStrides, CUtensorMapInterleave interleave,
    CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,
    CUtensorMapFloatOOBfill fill, std::string &why) {
  auto refuse = [&](auto... words) {
    why = text(words...);
    return CUDA_ERROR_INVALID_VALUE;
  };
  map = TensorMap();
  if (type < 0 || type > CU_TENSOR_MAP_DATA_TYPE_TFLOAT32_FTZ)
    return refuse("the data type ", int(type), " is not supported");
  if (rank < 1 || rank > 5)
    return refuse("the rank ", rank, " is not 1 to 5");
  if (interleave != CU_TENSOR_MAP_INTERLEAVE_NONE &&
      (rank < 3 || interleave > CU_TENSOR_MAP_INTERLEAVE_32B))
    return refuse("an interleaved tensor of rank ", rank);
  bool wide = interleave == CU_TENSOR_MAP_INTERLEAVE_32B;
  uint64_t unit = wide ? 32 : 16;
  if (address == 0 || address % unit != 0)
    return refuse("the address ", Hex{address}, " is not a multiple of ", unit);
  if (swizzle < 0 || swizzle > CU_TENSOR_MAP_SWIZZLE_128B_ATOM_64B ||
      promotion < 0 || promotion > CU_TENSOR_MAP_L2_PROMOTION_L2_256B ||
      fill < 0 || fill > CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA)
    return refuse("an enumerator is out of its range");
  bool floating = type >= CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  if (fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE && !floating)
    return refuse("NaN fills integers");
  if (wide && swizzle != CU_TENSOR_MAP_SWIZZLE_32B)
    return refuse("an interleave of 32 bytes needs a swizzle of 32 bytes");
  for (uint32_t i = 0; i < rank; ++i) {
    if (sizes[i] < 1 || sizes[i] > uint64_t(1) << 32)
      return refuse("dimension ", i, " has ", sizes[i], " elements");
    if (box[i] < 1 || box[i] > 256)
      return refuse("the box has ", box[i], " elements in dimension ", i);
    if (elementStrides[i] < 1 || elementStrides[i] > 8)
      return refuse("the element stride of dimension ", i, " is ",
                    elementStrides[i]);
    map.lastIndex[i] = static_cast<uint32_t>(sizes[i] - 1);
    map.box[i] = static_cast<uint16_t>(box[i]);
    map.elementStrides[i] = static_cast<uint8_t>(elementStrides[i]);
  }
  map.strides[0] = bytesOf(type);
  for (uint32_t i = 1; i < rank; ++i) {
    uint64_t stride = strides[i - 1];
    if (stride % unit != 0 || stride >= uint64_t(1) << 40)
      return refuse("the stride of dimension ", i, ", ", stride,
                    " bytes, is not a multiple of ", unit, " below 2^40");
    if (sizes[i] > 1 && stride < sizes[0] * map.strides[0])
      return refuse("the stride of dimension ", i, ", ", stride,
                    " bytes, is below the ", sizes[0] * map.strides[0],
                    " bytes of a row");
    map.strides[i] = stride;
  }
  uint64_t inner = uint64_t(box[0]) * bytesOf(type);
  if (interleave == CU_TENSOR_MAP_INTERLEAVE_NONE) {
    if (inner % 16 != 0)
      return refuse("rows of the box have ", inner,
                    " bytes, which is no multiple of 16");
    uint64_t span = swizzle == CU_TENSOR_MAP_SWIZZLE_NONE ? 0
                    : swizzleSpan(swizzle)                ? swizzleSpan(swizzle)
                                                          : 128;
    if (span != 0 && inner > span)
      return refuse("rows of the box have ", inner,
                    " bytes, more than the swizzle's ", span);
  }
  map.magic = TensorMap::expectedMagic;
  map.address = address;
  map.rank = static_cast<uint8_t>(rank);
  map.type = static_cast<uint8_t>(type);
  map.swizzle = static_cast<uint8_t>(swizzle);
  map.interleave = static_cast<uint8_t>(interleave);
  map.fill = static_cast<uint8_t>(fill);
  return CUDA_SUCCESS;
}

/// Calls `body` for each row of the box that intersects the tensor, with its
/// offset in the dense box, the bytes inside the tensor, and their address.
template <typename Body>
void TensorMap::forRows(const DeviceMemory &memory, const int32_t *coordinates,
                        Body body) const {
  int64_t size0 = int64_t(lastIndex[0]) + 1;
  int64_t begin = std::max<int64_t>(0, -int64_t(coordinates[0]));
  int64_t end = std::min<int64_t>(box[0], size0 - coordinates[0]);
  uint32_t element = elementBytes();
  uint32_t index[5] = {0, 0, 0, 0, 0};
  size_t rows = 1;
  for (int i = 1; i < rank; ++i)
    rows *= box[i];
  for (size_t row = 0; row < rows; ++row) {
    bool inside = begin < end;
    uint64_t at = address;
    for (int i = 1; i < rank; ++i) {
      int64_t coordinate = int64_t(coordinates[i]) + index[i];
      inside &= coordinate >= 0 && coordinate <= int64_t(lastIndex[i]);
      at += static_cast<uint64_t>(coordinate) * strides[i];
    }
    if (inside) {
      at += static_cast<uint64_t>(coordinates[0] + begin) * element;
      uint64_t bytes = static_cast<uint64_t>(end - begin) * element;
      uint8_t *there = memory.translate(at, bytes);
      if (!there)
        fail(CUDA_ERROR_ILLEGAL_ADDRESS, "the tensor map reaches ", bytes,
             " bytes at ", Hex{at}, ": ", memory.describe(at));
      body(row * rowBytes() + static_cast<size_t>(begin) * element, there,
           bytes, at);
    }
    for (int i = 1; i < rank && ++index[i] == box[i]; ++i)
      index[i] = 0;
  }
}

void TensorMap::forRanges(
    const DeviceMemory &memory, const int32_t *coordinates,
    const std::function<void(uint64_t, uint64_t)> &body) const {
  forRows(memory, coordinates,
          [&](size_t, const uint8_t *, uint64_t bytes, uint64_t from) {
            body(from, bytes);
          });
}

std::vector<uint8_t> TensorMap::gather(const DeviceMemory &memory,
                                       const int32_t *coordinates) const {
  std::vector<uint8_t> dense(boxBytes(), 0);
  if (fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)
    fail(CUDA_ERROR_NOT_SUPPORTED, "a fill with NaN is not modelled");
  forRows(memory, coordinates,
          [&](size_t at, const uint8_t *there, uint64_t bytes, uint64_t) {
            std::memcpy(&dense[at], there, bytes);
          });
  return dense;
}

static Type elementType(int type) {
  switch (type) {
  case CU_TENSOR_MAP_DATA_TYPE_UINT8:
    return Type::U8;
  case CU_TENSOR_MAP_DATA_TYPE_UINT16:
    return Type::U16;
  case CU_TENSOR_MAP_DATA_TYPE_UINT32:
    return Type::U32;
  case CU_TENSOR_MAP_DATA_TYPE_INT32:
    return Type::S32;
  case CU_TENSOR_MAP_DATA_TYPE_UINT64:
    return Type::U64;
  case CU_TENSOR_MAP_DATA_TYPE_INT64:
    return Type::S64;
  case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
    return Type::F16;
  case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16:
    return Type::BF16;
  case CU_TENSOR_MAP_DATA_TYPE_FLOAT64:
    return Type::F64;
  default:
    return Type::F32;
  }
}

void TensorMap::scatter(const DeviceMemory &memory, const int32_t *coordinates,
                        const uint8_t *dense, Combine combine) const {
  forRows(memory, coordinates,
          [&](size_t at, uint8_t *there, uint64_t bytes, uint64_t) {
            if (combine == Combine::Replace)
              std::memcpy(there, dense + at, bytes);
            else
              combineElements(elementType(type), combine, there, dense + at,
                              bytes);
          });
}

template <typename T>
static void combineAll(TensorMap::Combine combine, uint8_t *to,
                       const uint8_t *from, size_t bytes) {
  for (size_t k = 0; k + sizeof(T) <= bytes; k += sizeof(T)) {
    T a, b;
    std::memcpy(&a, to + k, sizeof(T));
    std::memcpy(&b, from + k, sizeof(T));
    switch (combine) {
    case TensorMap::Combine::Add:
      a = static_cast<T>(a + b);
      break;
    case TensorMap::Combine::Min:
      a = std::min(a, b);
      break;
    case TensorMap::Combine::Max:
      a = std::max(a, b);
      break;
    default:
      if constexpr (std::is_integral_v<T>) {
        if (combine == TensorMap::Combine::And)
          a &= b;
        else if (combine == TensorMap::Combine::Or)
          a |= b;
        else if (combine == TensorMap::Combine::Xor)
          a ^= b;
      } else {
        undefined("a bitwise reduction of floats");
      }
    }
    std::memcpy(to + k, &a, sizeof(T));
  }
}

static void combineHalves(const Format &format, TensorMap::Combine combine,
                          uint8_t *to, const uint8_t *from, size_t bytes) {
  for (size_t k = 0; k + 2 <= bytes; k += 2) {
    uint16_t x, y;
    std::memcpy(&x, to + k, 2);
    std::memcpy(&y, from + k, 2);
    double a = decode(format, x), b = decode(format, y), c;
    if (combine == TensorMap::Combine::Add)
      c = addToOdd(a, b);
    else if (combine == TensorMap::Combine::Min)
      c = std::fmin(a, b);
    else if (combine == TensorMap::Combine::Max)
      c = std::fmax(a, b);
    else
      undefined("a bitwise reduction of floats");
    x = static_cast<uint16_t>(encode(format, c));
    std::memcpy(to + k, &x, 2);
  }
}

void moe::gpu::combineElements(Type type, TensorMap::Combine combine,
                               uint8_t *to, const uint8_t *from, size_t bytes) {
  switch (type) {
  case Type::U8:
    return combineAll<uint8_t>(combine, to, from, bytes);
  case Type::U16:
    return combineAll<uint16_t>(combine, to, from, bytes);
  case Type::U32:
  case Type::B32:
    return combineAll<uint32_t>(combine, to, from, bytes);
  case Type::S32:
    return combineAll<int32_t>(combine, to, from, bytes);
  case Type::U64:
  case Type::B64:
    return combineAll<uint64_t>(combine, to, from, bytes);
  case Type::S64:
    return combineAll<int64_t>(combine, to, from, bytes);
  case Type::F32:
    return combineAll<float>(combine, to, from, bytes);
  case Type::F64:
    return combineAll<double>(combine, to, from, bytes);
  case Type::F16:
    return combineHalves(formatF16, combine, to, from, bytes);
  case Type::BF16:
    return combineHalves(formatBF16, combine, to, from, bytes);
  default:
    undefined("a reduction of this type");
  }
}
