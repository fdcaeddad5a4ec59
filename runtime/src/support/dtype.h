//===- dtype.h - Element types and their names ------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_SUPPORT_DTYPE_H
#define MOE_RT_SRC_SUPPORT_DTYPE_H

#include "moe_rt/dlpack.h"

#include <cstddef>

namespace moe {

// Codes of DLPack 1.1 that the header here does not declare.
enum : uint8_t {
  dlComplex = 5,
  dlBool = 6,
  dlFloat8E4M3FN = 10,
  dlFloat8E5M2 = 12,
  dlFloat8E8M0FNU = 14,
  dlFloat6E2M3FN = 15,
  dlFloat6E3M2FN = 16,
  dlFloat4E2M1FN = 17,
};

/// One element type: its DLPack code and its names here (as in MLIR and in an
/// artifact's metadata) and in safetensors files.
struct DTypeName {
  DLDataType type;
  const char *name;
  const char *safetensors; // nullptr: not in that format
};

inline constexpr DTypeName dtypeNames[] = {
    {{kDLFloat, 32, 1}, "f32", "F32"},
    {{kDLFloat, 16, 1}, "f16", "F16"},
    {{kDLBfloat, 16, 1}, "bf16", "BF16"},
    {{kDLFloat, 64, 1}, "f64", "F64"},
    {{kDLInt, 8, 1}, "i8", "I8"},
    {{kDLInt, 16, 1}, "i16", "I16"},
    {{kDLInt, 32, 1}, "i32", "I32"},
    {{kDLInt, 64, 1}, "i64", "I64"},
    {{dlBool, 8, 1}, "bool", "BOOL"},
    {{kDLUInt, 8, 1}, "u8", "U8"},
    {{kDLUInt, 16, 1}, "u16", "U16"},
    {{kDLUInt, 32, 1}, "u32", "U32"},
    {{kDLUInt, 64, 1}, "u64", "U64"},
    {{dlFloat8E4M3FN, 8, 1}, "f8E4M3FN", "F8_E4M3"},
    {{dlFloat8E5M2, 8, 1}, "f8E5M2", "F8_E5M2"},
    {{dlFloat8E8M0FNU, 8, 1}, "f8E8M0FNU", "F8_E8M0"},
    {{dlFloat6E2M3FN, 6, 1}, "f6E2M3FN", "F6_E2M3"},
    {{dlFloat6E3M2FN, 6, 1}, "f6E3M2FN", "F6_E3M2"},
    {{dlFloat4E2M1FN, 4, 1}, "f4E2M1FN", "F4"},
    {{dlComplex, 64, 1}, "complex64", "C64"},
};

inline bool sameDType(DLDataType a, DLDataType b) {
  return a.code == b.code && a.bits == b.bits && a.lanes == b.lanes;
}

/// Whether a weight of type `wanted` may be of type `given`: its integers are
/// signless, as MLIR's are, so unsigned ones of their width are the same.
inline bool isSameButForSign(DLDataType wanted, DLDataType given) {
  return sameDType(wanted, given) ||
         (wanted.code == kDLInt &&
          sameDType(given, {kDLUInt, wanted.bits, wanted.lanes}));
}

/// nullptr for a type without a name here.
inline const char *findDTypeName(DLDataType type) {
  for (const DTypeName &entry : dtypeNames)
    if (sameDType(entry.type, type))
      return entry.name;
  return nullptr;
}

} // namespace moe

#endif // MOE_RT_SRC_SUPPORT_DTYPE_H
