//===- Units.h - Values with units, as options give them --------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_ANALYSIS_UNITS_H
#define MOE_ANALYSIS_UNITS_H

#include "llvm/ADT/StringRef.h"

#include <cstdint>
#include <optional>
#include <utility>

namespace mlir::moe {

/// Bytes: `4096`, `64MiB`, `0.5GiB`, `2GB`. None unless it is a whole number of
/// bytes below 2^63.
std::optional<int64_t> parseBytes(llvm::StringRef text);

/// Bytes per second, above 0: `1e11`, `100GB/s`, `93.5GiB/s`.
std::optional<double> parseBandwidth(llvm::StringRef text);

/// Floating-point operations per second, above 0: `1e12`, `250Gflop/s`,
/// `2TFLOP/s`.
std::optional<double> parseFlops(llvm::StringRef text);

/// A range of the number of tokens: `MIN:MAX` with 0 <= MIN <= MAX.
std::optional<std::pair<int64_t, int64_t>>
parseTokenRange(llvm::StringRef text);

} // namespace mlir::moe

#endif // MOE_ANALYSIS_UNITS_H
