//===- MLPBuilder.h - IR of a feed-forward network --------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Builds the linalg operations of a layer: matmuls that accumulate in f32,
// element-wise maps in f32, and the feed-forward network of an expert or a
// shared expert.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_IMPORT_LAYER_MLPBUILDER_H
#define MOE_LIB_IMPORT_LAYER_MLPBUILDER_H

#include "LayerWeights.h"

#include "mlir/IR/ImplicitLocOpBuilder.h"

#include "llvm/Support/SaveAndRestore.h"

namespace mlir::moe::importer {

/// The weights of a network, in its layout.
struct MLPValues {
  Value gate, gateBias, up, upBias, down, downBias;
};

class MLPBuilder : public ImplicitLocOpBuilder {
public:
  using ImplicitLocOpBuilder::ImplicitLocOpBuilder;
  using Body = llvm::function_ref<Value(ValueRange)>;

  /// Sets the number of rows of the matrices that later operations create.
  void setRowsOf(Value matrix);
  /// Restores the number of rows at the end of a scope.
  struct RowScope {
    explicit RowScope(MLPBuilder &b) : count(b.rowCount), zero(b.zero) {}
    llvm::SaveAndRestore<Value> count, zero;
  };

  Value f32(double value);
  /// Converts between f32 and the data type.
  Value toFloat(Value value, Type type);
  /// Rounds `value`, f32, to `type` and converts it back.
  Value roundTo(Value value, Type type) {
    return toFloat(toFloat(value, type), getF32Type());
  }
  Value sigmoid(Value x);
  /// Returns cap · tanh(x / cap).
  Value softCap(Value x, double cap);

  /// Multiplies `rows` by `weight`, [in, out] or its transpose, in f32.
  Value matmul(Value rows, Value weight, bool inOut);
  /// Applies `body` to the elements, extended to f32, of a [n, columns] matrix
  /// and others: of the same shape, a row [columns] for all rows, or a column
  /// [n] for all columns. Results are rounded to `element`.
  Value map(ArrayRef<Value> inputs, Type element, Body body);

  /// Adds `row`, if any, to `matrix`; rounded to `element`.
  Value addRow(Value matrix, Value row, Type element);

  /// Divides each row by the root of the mean of its squares plus `epsilon`,
  /// rounds it, and multiplies it by `weight`; in the type of the matrix.
  Value rmsNorm(Value matrix, Value weight, double epsilon);

  /// Builds the network on `rows`, in the data type of `rows`.
  Value mlp(Value rows, const MLP &mlp, const MLPLayout &layout,
            const MLPValues &weights);

private:
  Value columns(Value matrix, int64_t first, int64_t count, int64_t stride);
  Value activate(const Activation &activation, Value x);

  Value rowCount, zero;
};

} // namespace mlir::moe::importer

#endif // MOE_LIB_IMPORT_LAYER_MLPBUILDER_H
