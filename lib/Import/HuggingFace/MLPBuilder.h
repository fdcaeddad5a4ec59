//===- MLPBuilder.h - IR of a feed-forward network --------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The linalg that a layer is written in: products that accumulate in f32,
// element-wise maps in f32, and the feed-forward network that an expert or a
// shared expert is.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_IMPORT_HUGGINGFACE_MLPBUILDER_H
#define MOE_LIB_IMPORT_HUGGINGFACE_MLPBUILDER_H

#include "LayerWeights.h"

#include "mlir/IR/ImplicitLocOpBuilder.h"

#include "llvm/Support/SaveAndRestore.h"

namespace mlir::moe::hf {

/// The values of the weights of a network, as its layout has them.
struct MLPValues {
  Value gate, up, upBias, down, downBias;
};

class MLPBuilder : public ImplicitLocOpBuilder {
public:
  using ImplicitLocOpBuilder::ImplicitLocOpBuilder;
  using Body = llvm::function_ref<Value(ValueRange)>;

  /// Later operations work on matrices with as many rows as this one.
  void setRowsOf(Value matrix);
  /// Build with other rows, then come back.
  struct RowScope {
    explicit RowScope(MLPBuilder &b) : count(b.rowCount), zero(b.zero) {}
    llvm::SaveAndRestore<Value> count, zero;
  };

  Value f32(double value);
  /// Between f32 and the data type.
  Value toFloat(Value value, Type type);
  /// `value`, f32, rounded to `type` and back.
  Value roundTo(Value value, Type type) {
    return toFloat(toFloat(value, type), getF32Type());
  }
  Value sigmoid(Value x);

  /// `rows` times `weight`, [in, out] or its transpose, in f32.
  Value product(Value rows, Value weight, bool inOut);
  /// Element-wise over a [n, columns] matrix and more: of the same shape, a row
  /// [columns] for all rows, or a column [n] for all columns. `body` is given
  /// all elements extended to f32; what it yields is rounded to `element`.
  Value map(ArrayRef<Value> inputs, Type element, Body body);

  /// `matrix` plus `row`, where there is one, rounded to `element`.
  Value addRow(Value matrix, Value row, Type element);

  /// The network on `rows`, in the data type of `rows`.
  Value mlp(Value rows, const MLP &mlp, const MLPLayout &layout,
            const MLPValues &weights);

private:
  Value columns(Value matrix, int64_t first, int64_t count, int64_t stride);
  Value activate(const Activation &activation, Value x);

  Value rowCount, zero;
};

} // namespace mlir::moe::hf

#endif // MOE_LIB_IMPORT_HUGGINGFACE_MLPBUILDER_H
