//===- Reading.h - Programs read as operations of StableHLO -- -*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What experts compute is matched in operations of StableHLO. Programs of
// torch-mlir and linalg are read as such operations, of a dialect that exists
// only while the pass runs: beside each operation of the program that has a
// meaning there, on a copy of the program. What was raised replaces values of
// the program. All else stays as the program has it.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_READING_READING_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_READING_READING_H

#include "Foreign.h"
#include "Routing/Values/Choices.h"

#include "mlir/IR/Dialect.h"

namespace mlir::moe::raising {

/// The dialect of the operations that a program is read as: those of StableHLO
/// and CHLO by their name, and a few more. Its operations have no definition.
class ReadingDialect : public Dialect {
public:
  explicit ReadingDialect(MLIRContext *context);
  static constexpr StringLiteral getDialectNamespace() { return "moe_reading"; }
};

/// Makes operations that a program is read as.
class Reader {
public:
  using Dims = ArrayRef<int64_t>;

  explicit Reader(Block &block) : b(block.getParentOp()->getContext()) {}

  /// Reads each operation of the block that has a meaning.
  void read(Block &block);
  /// Puts what was raised into the program and erases the reading. With
  /// `isSorted`, rows are in our order. Returns the reason if that is not
  /// possible; empty if it is done.
  std::string finish(Block &block, bool isSorted);

  //===--------------------------------------------------------------------===//
  // Values
  //===--------------------------------------------------------------------===//

  /// Returns the tensor that a value of the program is read as; null if it is
  /// no tensor of known rank.
  Value tensor(Value value);
  /// A value of the program is read as `tensor`.
  void set(Value value, Value tensor);
  /// The results of a top-k, which chooses among equals: all of them are those
  /// of the gate that it becomes, or none.
  void setChosen(Value value, Value tensor);
  /// The result of a sort that may order equals otherwise than ours.
  void setUnstable(Value value, Value tensor);

  //===--------------------------------------------------------------------===//
  // Operations
  //===--------------------------------------------------------------------===//

  Operation *create(StringRef name, ValueRange operands, TypeRange results,
                    ArrayRef<NamedAttribute> attributes = {});
  Value make(StringRef name, ValueRange operands, RankedTensorType type,
             ArrayRef<NamedAttribute> attributes = {});
  /// A tensor of one number; its first extent is that of `like`, times
  /// `factor`, if it is dynamic.
  Value splat(RankedTensorType type, double number, Value like = {},
              int64_t factor = 1);
  Value iota(RankedTensorType type, int64_t dim, Value like = {},
             int64_t factor = 1);
  Value reshape(Value value, Dims shape);
  Value transpose(Value value, Dims permutation);
  /// Dimensions `dims` of `shape` are those of the value, or repeat them.
  Value broadcast(Value value, Dims dims, Dims shape);
  /// The same, as NumPy aligns shapes.
  Value broadcast(Value value, Dims shape);
  Value convert(Value value, Type element);
  Value compare(StringRef direction, Value a, Value b);
  Value slice(Value value, Dims starts, Dims limits, Dims strides);
  Value concatenate(ValueRange values, int64_t dim);
  /// `first` is what a minimum starts from.
  Value reduce(Value value, Dims dims, Update update, double first = 0);
  Value cumulativeSum(Value value, int64_t dim);
  /// value[ids, ...] for ids of any rank.
  Value gather(Value value, Value ids);
  /// into[ids, ...] = updates, or += them.
  Value scatterRows(Value into, Value ids, Value updates, Update update);
  /// into[i, ids[i, j]] = updates[i, j], or += them.
  Value scatterColumns(Value into, Value ids, Value updates, Update update);
  /// Batches and contracted dimensions of both; then what is left of both. What
  /// operands only arrange otherwise, as einsums do, is looked through.
  Value dot(Value lhs, Value rhs, Dims lhsBatch, Dims rhsBatch,
            Dims lhsContracted, Dims rhsContracted, Type element);

  OpBuilder &builder() { return b; }
  NamedAttribute named(StringRef name, Dims values) {
    return b.getNamedAttr(name, b.getDenseI64ArrayAttr(values));
  }
  NamedAttribute named(StringRef name, const llvm::Twine &text) {
    return b.getNamedAttr(name, b.getStringAttr(text));
  }
  /// Adds the region of a reduction or scatter.
  void addUpdate(Operation *op, Type element, Update update);

private:
  Value materialize(Value value);

  OpBuilder b;
  llvm::DenseMap<Value, Value> tensors;
  /// The markers, which use a value of the reading and one of the program.
  SmallVector<Operation *> markers;
  SmallVector<Value> chosen, unstable;
  SetVector<Operation *> wasRead;
  int64_t nextId = 0;
  // While finish() runs.
  llvm::DenseMap<int64_t, Value> originals;
  llvm::DenseMap<Value, Value> materialized;
};

/// Reads an operation of torch-mlir; false if it has no meaning.
bool readTorch(Operation *op, Reader &reader);
/// Reads an operation of linalg, tensor or arith.
bool readLinalg(Operation *op, Reader &reader);

/// Builds what an operation of the reading computes of tensors, in operations
/// of linalg, tensor, arith and math; null if there are none.
Value lowerReading(OpBuilder &b, Operation *op, ValueRange operands);

} // namespace mlir::moe::raising

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_READING_READING_H
