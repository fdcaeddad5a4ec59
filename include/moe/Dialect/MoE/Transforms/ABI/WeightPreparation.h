//===- WeightPreparation.h - Prepare weights once ---------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_TRANSFORMS_ABI_WEIGHTPREPARATION_H
#define MOE_DIALECT_MOE_TRANSFORMS_ABI_WEIGHTPREPARATION_H

#include "moe/Dialect/MoE/IR/MoEABI.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::moe {

/// Moves what an exported function computes from its weights alone into
/// functions `@<name>__prepare<n>`, which the runtime calls once when a layer
/// is created. The function takes their results as arguments.
class WeightPreparation {
public:
  explicit WeightPreparation(func::FuncOp function);

  /// Returns the argument of the signature if `value` is a weight; otherwise
  /// null.
  ArgumentAttr weightOf(Value value);

  /// A weight that is prepared. That of a single expert need not have a
  /// dimension for it.
  struct Source {
    BlockArgument weight;
    bool hasExperts;
  };
  /// Builds the result from the sources, `[?, ...]` with a dimension of
  /// experts.
  using Body = llvm::function_ref<Value(ImplicitLocOpBuilder &, ValueRange)>;

  /// Adds an argument of `type`, `[E, ...]`, that `build` computes for any
  /// number of experts. Its name is `name` and a number. `build` gets a value
  /// for each source; a weight that is several of them is passed once.
  /// `measures` names the weight whose error it is, if any.
  BlockArgument add(Location loc, StringRef name, RankedTensorType type,
                    ArrayRef<Source> sources, Body build,
                    StringAttr measures = nullptr);

  /// Adds to `sources` the weights that the fields of encoded matrices are, or
  /// the one that `moe.quantize` makes them of; false if there are others.
  bool findSources(ValueRange fields, bool hasExperts,
                   SmallVectorImpl<Source> &sources);
  /// Returns fields like `fields` of the sources that findSources found, which
  /// a preparation has as `sources`.
  static SmallVector<Value> buildFields(ImplicitLocOpBuilder &b,
                                        ValueRange fields, ValueRange sources);
  /// Returns `type` with a dynamic number of experts.
  static RankedTensorType withDynamicExperts(RankedTensorType type,
                                             bool hasExperts = true);

  /// Marks weights that calls no longer read as not retained and records the
  /// signature.
  void finish();

  int64_t getNumAdded() const { return numAdded; }

private:
  func::FuncOp buildFunction(Location loc, StringRef result,
                             RankedTensorType type, ArrayRef<Source> sources,
                             Body build);

  func::FuncOp function;
  SmallVector<Attribute> arguments; // of the signature
  int64_t numAdded = 0;
};

} // namespace mlir::moe

#endif // MOE_DIALECT_MOE_TRANSFORMS_ABI_WEIGHTPREPARATION_H
