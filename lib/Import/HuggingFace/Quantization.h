//===- Quantization.h - Tensors of quantised checkpoints --------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_IMPORT_HUGGINGFACE_QUANTIZATION_H
#define MOE_LIB_IMPORT_HUGGINGFACE_QUANTIZATION_H

#include "llvm/ADT/STLFunctionalExtras.h"
#include "llvm/ADT/StringRef.h"

#include <string>

namespace mlir::moe::hf {

/// Returns the tensor that replaces or accompanies a quantized weight, and the
/// name of its format; empty if `weight` is not quantized.
std::string
describeQuantization(llvm::StringRef weight,
                     llvm::function_ref<bool(llvm::StringRef)> contains);

} // namespace mlir::moe::hf

#endif // MOE_LIB_IMPORT_HUGGINGFACE_QUANTIZATION_H
