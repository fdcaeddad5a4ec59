//===- QuantizationConfig.h - Read quantization_config ----------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_IMPORT_HUGGINGFACE_QUANTIZATIONCONFIG_H
#define MOE_LIB_IMPORT_HUGGINGFACE_QUANTIZATIONCONFIG_H

#include "../Layer/QuantizedWeights.h"
#include "Config.h"

namespace mlir::moe::importer {

/// Reads `quantization_config`, if there is one, of a configuration or of the
/// section of its language model.
QuantizationConfig readQuantizationConfig(const Config &config,
                                          const Config &language);

} // namespace mlir::moe::importer

#endif // MOE_LIB_IMPORT_HUGGINGFACE_QUANTIZATIONCONFIG_H
