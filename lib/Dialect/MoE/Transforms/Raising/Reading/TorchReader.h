//===- TorchReader.h - Operations of torch-mlir ------------- -*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_READING_TORCHREADER_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_READING_TORCHREADER_H

#include "Reading.h"

namespace mlir::moe::raising {

/// Reads one operation: its operands, and what its results are.
class TorchReader {
public:
  TorchReader(Operation *op, Reader &reader) : r(reader), op(op) {}

  //===--------------------------------------------------------------------===//
  // Operands
  //===--------------------------------------------------------------------===//

  /// Returns operand `i` as a tensor; null if it is none or not given.
  Value in(unsigned i) const {
    return i < op->getNumOperands() ? r.tensor(op->getOperand(i)) : Value();
  }
  bool isGiven(unsigned i) const {
    return i < op->getNumOperands() && !isTorchNone(op->getOperand(i));
  }
  /// Returns the constant that an operand is.
  std::optional<double> number(unsigned i) const;
  std::optional<int64_t> integer(unsigned i) const;
  /// A boolean, which is `otherwise` if it is not given.
  std::optional<bool> flag(unsigned i, bool otherwise) const;
  std::optional<SmallVector<int64_t>> integers(unsigned i) const;
  /// Returns a dimension of a tensor of `rank`, from the end if it is negative.
  std::optional<int64_t> dim(unsigned i, int64_t rank) const;
  /// The tensors of a list.
  SmallVector<Value> list(unsigned i) const;
  /// Operand `i` as a tensor of the shape and element of `type`, a number too.
  Value in(unsigned i, RankedTensorType type);
  /// Returns a tensor whose first extent that integer is, times a factor.
  std::pair<Value, int64_t> sizeOf(Value integer) const;
  /// The same of a list of extents.
  std::pair<Value, int64_t> firstSize(unsigned i) const;

  //===--------------------------------------------------------------------===//
  // Results
  //===--------------------------------------------------------------------===//

  Value result(unsigned i = 0) const { return op->getResult(i); }
  /// Returns the tensor type of a result; null if it has no rank.
  RankedTensorType out(unsigned i = 0) const {
    return i < op->getNumResults() ? tensorTypeOf(op->getResult(i).getType())
                                   : RankedTensorType();
  }
  /// The result is this tensor, of its shape and element type.
  bool set(Value tensor);

  Reader &r;
  Operation *op;
};

/// Reads an operation with this name; false if it has no meaning.
using TorchRule = bool (*)(TorchReader &);
void addTorchViews(llvm::StringMap<TorchRule> &rules);
void addTorchIndices(llvm::StringMap<TorchRule> &rules);
void addTorchNumbers(llvm::StringMap<TorchRule> &rules);

/// Returns the name of an operation of torch-mlir without the dialect:
/// aten.topk; empty for others.
StringRef torchName(Operation *op);

} // namespace mlir::moe::raising

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_READING_TORCHREADER_H
