//===- QuantizedWeights.h - Tensors of quantised weights --------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_IMPORT_LAYER_QUANTIZEDWEIGHTS_H
#define MOE_LIB_IMPORT_LAYER_QUANTIZEDWEIGHTS_H

#include "moe/Import/Checkpoint.h"

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/SmallVector.h"

#include <optional>
#include <string>

namespace mlir::moe::importer {

/// What a configuration says of quantised weights; 0 where it says nothing.
struct QuantizationConfig {
  int64_t bits = 0;
  int64_t blockRows = 0, blockColumns = 0;
};

/// One tensor of a quantised matrix.
struct QuantizedField {
  std::string suffix; // of the argument: "", "_scale" or "_zero_point"
  std::string tensor;
  std::string dtype;                // of the tensor
  std::string argumentType;         // its type without a sign
  llvm::SmallVector<int64_t> shape; // of both
  std::string blockFormat = {};     // CheckpointReader::Tensor::format
};

/// A quantised matrix `[rows, columns]`, or several that are stacked.
struct QuantizedMatrix {
  std::string format; // an attribute #moe.format
  llvm::SmallVector<QuantizedField> fields;
};

/// The matrix that a weight without quantisation would be.
struct MatrixShape {
  std::optional<int64_t> experts; // stacked along a leading dimension
  int64_t rows, columns;
};

/// Returns whether `checkpoint` has `weight` in a quantised format that can be
/// imported. `weight` names the tensor of the model before quantisation.
bool isQuantized(llvm::StringRef weight, CheckpointReader &checkpoint);

/// Finds the tensors of such a weight and checks their types and shapes.
llvm::Expected<QuantizedMatrix> findQuantized(llvm::StringRef weight,
                                              const MatrixShape &shape,
                                              CheckpointReader &checkpoint,
                                              const QuantizationConfig &config);

/// Returns an error if a tensor beside `weight`, other than those in `known`,
/// shows that it is quantised; empty otherwise.
std::string describeQuantization(llvm::StringRef weight,
                                 CheckpointReader &checkpoint,
                                 llvm::ArrayRef<QuantizedField> known = {});

} // namespace mlir::moe::importer

#endif // MOE_LIB_IMPORT_LAYER_QUANTIZEDWEIGHTS_H
