//===- tensor.cpp - Tensors -----------------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "io/float.h"
#include "support/checked.h"
#include "support/dtype.h"

#include "moe_rt/io.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

using namespace moe;
using namespace moe::io;

std::string moe::io::dtypeName(DLDataType type) {
  if (const char *name = findDTypeName(type))
    return name;
  return "type(code " + std::to_string(type.code) + ", " +
         std::to_string(type.bits) + " bits, " + std::to_string(type.lanes) +
         " lanes)";
}

std::optional<DLDataType> moe::io::parseDType(std::string_view name) {
  if (name == "i1")
    return DLDataType{kDLUInt, 8, 1};
  for (const DTypeName &entry : dtypeNames)
    if (name == entry.name)
      return entry.type;
  return std::nullopt;
}

std::string moe::io::typeName(DLDataType type,
                              const std::vector<int64_t> &shape) {
  std::string text = dtypeName(type) + "[";
  for (size_t i = 0; i < shape.size(); ++i)
    text += (i ? ", " : "") +
            (shape[i] < 0 ? std::string("T") : std::to_string(shape[i]));
  return text + "]";
}

std::optional<uint64_t> moe::io::byteSize(DLDataType type,
                                          const std::vector<int64_t> &shape) {
  int64_t bits = int64_t(type.bits) * type.lanes;
  bool empty = false;
  for (int64_t extent : shape) {
    if (extent < 0)
      return std::nullopt;
    empty |= extent == 0;
    // An extent of zero must not hide an overflow in strides.
    if (extent > 0 && !checkedMul(bits, extent, bits))
      return std::nullopt;
  }
  if (empty)
    return 0;
  if (bits % 8)
    return std::nullopt;
  return static_cast<uint64_t>(bits) / 8;
}

//===----------------------------------------------------------------------===//
// Tensor
//===----------------------------------------------------------------------===//

void Tensor::Release::operator()(void *memory) const { std::free(memory); }

Expected<Tensor> Tensor::create(DLDataType dtype, std::vector<int64_t> shape,
                                uint32_t alignment) {
  std::optional<uint64_t> bytes = byteSize(dtype, shape);
  if (!bytes)
    return Error{"a tensor of type " + typeName(dtype, shape) +
                 " is too large"};
  Tensor tensor;
  void *memory = nullptr;
  // Never empty, so that every tensor has an address.
  if (posix_memalign(&memory, std::max(alignment, 64u), *bytes ? *bytes : 1) !=
      0)
    return Error{"cannot allocate " + std::to_string(*bytes) +
                     " bytes for a tensor of type " + typeName(dtype, shape),
                 ErrorKind::NoMemory};
  tensor.type = dtype;
  tensor.extents = std::move(shape);
  tensor.memory.reset(memory);
  tensor.size = *bytes;
  return tensor;
}

DLTensor Tensor::dlpack() {
  return {memory.get(),
          {kDLCPU, 0},
          static_cast<int32_t>(extents.size()),
          type,
          extents.data(),
          nullptr,
          0};
}

template <typename T> static T load(const void *data, uint64_t index) {
  T value;
  std::memcpy(&value, static_cast<const char *>(data) + index * sizeof(T),
              sizeof(T));
  return value;
}

template <typename T> static void store(void *data, uint64_t index, T value) {
  std::memcpy(static_cast<char *>(data) + index * sizeof(T), &value, sizeof(T));
}

double moe::io::readElement(const TensorView &tensor, uint64_t index) {
  const void *data = tensor.data;
  switch (tensor.dtype.code << 8 | tensor.dtype.bits) {
  case kDLFloat << 8 | 64:
    return load<double>(data, index);
  case kDLFloat << 8 | 32:
    return static_cast<double>(load<float>(data, index));
  case kDLFloat << 8 | 16:
    return static_cast<double>(halfToFloat(load<uint16_t>(data, index)));
  case kDLBfloat << 8 | 16:
    return static_cast<double>(bfloatToFloat(load<uint16_t>(data, index)));
  case dlFloat8E4M3FN << 8 | 8:
    return static_cast<double>(float8ToFloat(load<uint8_t>(data, index)));
  case dlFloat8E5M2 << 8 | 8:
    return static_cast<double>(float8E5M2ToFloat(load<uint8_t>(data, index)));
  case dlFloat8E8M0FNU << 8 | 8:
    return static_cast<double>(float8E8M0ToFloat(load<uint8_t>(data, index)));
  case kDLInt << 8 | 8:
    return load<int8_t>(data, index);
  case kDLInt << 8 | 16:
    return load<int16_t>(data, index);
  case kDLInt << 8 | 32:
    return load<int32_t>(data, index);
  case kDLInt << 8 | 64:
    return static_cast<double>(load<int64_t>(data, index));
  case dlBool << 8 | 8:
  case kDLUInt << 8 | 8:
    return load<uint8_t>(data, index);
  case kDLUInt << 8 | 16:
    return load<uint16_t>(data, index);
  case kDLUInt << 8 | 32:
    return load<uint32_t>(data, index);
  case kDLUInt << 8 | 64:
    return static_cast<double>(load<uint64_t>(data, index));
  default:
    return 0;
  }
}

/// The nearest integer that T holds.
template <typename T> static T toInteger(double value) {
  constexpr double min = static_cast<double>(std::numeric_limits<T>::min());
  // 2^n: rounding max() to double would reach it anyway for 64 bits.
  constexpr double end =
      2.0 * static_cast<double>(std::numeric_limits<T>::max() / 2 + 1);
  value = std::nearbyint(value);
  if (std::isnan(value))
    return 0;
  if (value < min)
    return std::numeric_limits<T>::min();
  if (value >= end)
    return std::numeric_limits<T>::max();
  return static_cast<T>(value);
}

static bool storeElement(DLDataType type, void *data, uint64_t index,
                         double value) {
  switch (type.code << 8 | type.bits) {
  case kDLFloat << 8 | 64:
    store(data, index, value);
    return true;
  case kDLFloat << 8 | 32:
    store(data, index, static_cast<float>(value));
    return true;
  case kDLFloat << 8 | 16:
    store(data, index, floatToHalf(static_cast<float>(value)));
    return true;
  case kDLBfloat << 8 | 16:
    store(data, index, floatToBfloat(static_cast<float>(value)));
    return true;
  case dlFloat8E4M3FN << 8 | 8:
    store(data, index, floatToFloat8(static_cast<float>(value)));
    return true;
  case dlFloat8E5M2 << 8 | 8:
    store(data, index, floatToFloat8E5M2(static_cast<float>(value)));
    return true;
  case kDLInt << 8 | 8:
    store(data, index, toInteger<int8_t>(value));
    return true;
  case kDLInt << 8 | 16:
    store(data, index, toInteger<int16_t>(value));
    return true;
  case kDLInt << 8 | 32:
    store(data, index, toInteger<int32_t>(value));
    return true;
  case kDLInt << 8 | 64:
    store(data, index, toInteger<int64_t>(value));
    return true;
  case dlBool << 8 | 8:
  case kDLUInt << 8 | 8:
    store(data, index, toInteger<uint8_t>(value));
    return true;
  default:
    return false;
  }
}

bool moe::io::writeElement(const Tensor &tensor, uint64_t index, double value) {
  return storeElement(tensor.dtype(), tensor.data(), index, value);
}

bool moe::io::convertElements(const TensorView &from, uint64_t first,
                              uint64_t count, DLDataType type, void *to) {
  for (uint64_t i = 0; i < count; ++i)
    if (!storeElement(type, to, i, readElement(from, first + i)))
      return false;
  return true;
}
