//===- WeightFormat.h - Formats of --quantize -------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DRIVER_WEIGHTFORMAT_H
#define MOE_LIB_DRIVER_WEIGHTFORMAT_H

#include "moe/Dialect/MoE/IR/MoE.h"

#include "llvm/Support/Error.h"

namespace mlir::moe {

/// A format of quantised weights that a name such as `int4:32` stands for.
class WeightFormat {
public:
  /// Parses the value of `--quantize`; the error has what is expected.
  static llvm::Expected<WeightFormat> parse(llvm::StringRef text);

  FormatAttr getAttr(MLIRContext *context) const;

private:
  const struct NamedFormat *format;
  int64_t rows, columns; // of the elements that share a scale
};

} // namespace mlir::moe

#endif // MOE_LIB_DRIVER_WEIGHTFORMAT_H
