//===- Gradients.h - State of reverse mode ----------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_TRAINING_GRADIENTS_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_TRAINING_GRADIENTS_H

#include "RowMap.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/IR/IRMapping.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/Interfaces/ValueBoundsOpInterface.h"

#include <optional>

namespace mlir::moe {

/// The gradient of a matrix of grouped rows: row `r` is `scale[r] ·
/// matrix[gather[r], :]`. The gradient of what a combine adds up has this form,
/// and is never written to memory.
struct RowGradient {
  Value matrix;
  Value gather; // [R] i32; null: the rows of the matrix
  Value scale;  // [R] f32; null: 1
};

/// The gradient of a part of a tensor; what is not in a part has none.
struct SliceGradient {
  Value tensor;
  HyperrectangularSlice slice;
};

/// The backward function of a layer while it is built: gradients by the values
/// of the forward function, and these values, saved or computed again.
class Gradients {
public:
  /// With `recomputes` products of grouped rows are computed again.
  Gradients(func::FuncOp forward, func::FuncOp backward, bool recomputes);

  /// Builds at the end of the backward function.
  ImplicitLocOpBuilder b;

  //===--------------------------------------------------------------------===//
  // Gradients
  //===--------------------------------------------------------------------===//

  /// Marks a value of the forward function that needs a gradient, and all that
  /// depend on it.
  void activate(Value value);
  bool isActive(Value value) const { return active.contains(value); }
  /// Makes the gradient of an argument, and of its parts, f32.
  void setF32(Value argument) { inF32.insert(argument); }
  /// Returns the type of the elements of the gradient of a value.
  Type elementOf(Value value) const;
  /// True if a gradient has reached a result of `op`.
  bool isReached(Operation *op) const;
  /// Adds to the gradient of a value, whose elements are of the type
  /// `elementOf`; nothing if it needs none.
  void add(Value value, Value gradient);
  void add(Value value, RowGradient gradient);
  void add(Value value, SliceGradient gradient);
  /// Returns the gradient of a value as a tensor; null if it is zero.
  Value of(Value value);
  /// Returns the gradient of grouped rows.
  RowGradient ofRows(Value value);
  /// Writes the rows of a gradient; rows without a token are zero.
  Value materialize(RowGradient gradient);

  /// Operations whose gradient was computed with that of another one.
  void setDone(Operation *op) { done.insert(op); }
  bool isDone(Operation *op) const { return done.contains(op); }

  //===--------------------------------------------------------------------===//
  // Values of the forward function
  //===--------------------------------------------------------------------===//

  /// Returns a value of the forward function in the backward function: an
  /// argument, a saved value, or one that is computed again.
  Value forward(Value value);
  /// Returns accumulators `[R, N]` of a matmul, saved or computed again, in the
  /// type of its rows.
  SmallVector<Value> accumulators(GroupedMatmulOp op);
  /// Maps the values that the regions of `op` use from above to those of the
  /// backward function.
  IRMapping capturedBy(Operation *op);

  //===--------------------------------------------------------------------===//
  // Tensors
  //===--------------------------------------------------------------------===//

  OpFoldResult size(Value tensor, int64_t dim) {
    return tensor::getMixedSize(b, b.getLoc(), tensor, dim);
  }
  SmallVector<OpFoldResult> sizes(Value tensor) {
    return tensor::getMixedSizes(b, b.getLoc(), tensor);
  }
  Value zeros(ArrayRef<OpFoldResult> sizes, Type element);
  Value empty(ArrayRef<OpFoldResult> sizes, Type element) {
    return tensor::EmptyOp::create(b, sizes, element);
  }
  /// Converts the elements of a float tensor.
  Value convert(Value tensor, Type element);
  /// Sums two tensors of one type.
  Value sum(Value x, Value y);
  /// Casts to a type that is more or less static.
  Value castTo(Value tensor, Type type);

  /// Replaces matmuls of the forward function by those that have their
  /// accumulators as results, too.
  void replaceWidened(RewriterBase &rewriter);

  /// The saved tensors, as results of the forward function.
  ArrayRef<Value> getSaved() const { return saved; }
  ArrayRef<BlockArgument> getSavedArguments() const { return savedArguments; }

private:
  Value join(RankedTensorType type, ArrayRef<OpFoldResult> sizes,
             ArrayRef<SliceGradient> parts);
  bool isSaved(Value value) const;
  Value save(Value value);
  Value saveRows(Value value, Value ids);
  Value addSaved(Value result);
  Value recompute(OpResult value);
  SmallVector<Value> recomputeAccumulators(GroupedMatmulOp op);

  func::FuncOp forwardFunction, backwardFunction;
  bool recomputes;
  llvm::DenseSet<Value> active, inF32;
  llvm::DenseSet<Operation *> done;
  llvm::DenseMap<Value, Value> gradients;
  llvm::DenseMap<Value, RowGradient> rowGradients;
  llvm::DenseMap<Value, SmallVector<SliceGradient>> sliceGradients;
  IRMapping known; // from the forward to the backward function
  llvm::DenseMap<Operation *, SmallVector<Value>> knownAccumulators;
  SmallVector<std::pair<GroupedMatmulOp, GroupedMatmulOp>> widened;
  SmallVector<Value> saved;
  SmallVector<BlockArgument> savedArguments;
};

/// True for a tensor of floats, which may have a gradient.
bool isFloatTensor(Type type);
/// Widens a float to f32.
Value toF32(ImplicitLocOpBuilder &b, Value value);
/// Computes the tensor `gradient`, which nothing else uses, plus `before`, a
/// tensor of its type: products of an expert's rows start from their part of
/// it, in its memory.
Value addTo(ImplicitLocOpBuilder &b, Value gradient, Value before);
/// True if only `op` reads the elements of `value`.
bool isReadOnlyBy(Value value, Operation *op);

//===----------------------------------------------------------------------===//
// Rows that travel between ranks
//===----------------------------------------------------------------------===//

/// The tokens of this rank on their way to the experts of other ranks, and the
/// rows of their choices on the way home.
struct RoundTrip {
  PartitionOp partition;
  ExchangeOp leaving;
  CollectOp collect;
};

/// Returns the trip on which a value was received; none if it was not.
std::optional<RoundTrip> findTripOf(Value received);
/// Returns the grouped rows, one for each choice, that came home as `rows`, and
/// their trip; null if they were computed on this rank.
std::pair<Value, std::optional<RoundTrip>> findRowsBeforeHome(Value rows);
/// Sends gradients of tokens once to every rank with one of their experts, and
/// the weights `[T, K]` of their choices, if there are any. Returns them for
/// the tokens that the rank received.
std::pair<Value, Value> sendToExperts(const RoundTrip &trip, Gradients &g,
                                      Value gradient, Value weights);
/// Brings grouped rows home: row `i` of the result is of the choice at position
/// `i` of `partition.getHome()`.
Value bringHome(const RoundTrip &trip, Gradients &g, Value rows);
/// Returns the weights `[T, K]` that left with the tokens; null if none did.
Value weightsOfTrip(const RoundTrip &trip);

//===----------------------------------------------------------------------===//
// Rules
//===----------------------------------------------------------------------===//

/// Each adds to the gradients of the operands of `op`, whose results have
/// gradients; emits an error where there is none.
LogicalResult differentiate(AllGatherOp op, Gradients &g);
LogicalResult differentiate(AuxiliaryLossOp op, Gradients &g);
LogicalResult differentiate(GateOp op, Gradients &g);
LogicalResult differentiate(DispatchOp op, Gradients &g);
LogicalResult differentiate(GatherSumOp op, Gradients &g);
LogicalResult differentiate(GroupedMatmulOp op, Gradients &g);
LogicalResult differentiate(linalg::GenericOp op, Gradients &g);
LogicalResult differentiate(OwnRowsOp op, Gradients &g);
/// Slices, casts and reshapes.
LogicalResult differentiateTensorOp(Operation *op, Gradients &g);

/// Computes the gradients of the operands of a matmul whose epilogue only adds
/// to its accumulator, from the gradient of its result. With `dots` returns
/// there the dot product of each row of the result, before an addition of rows,
/// and of its unscaled gradient, `[R]` in f32.
LogicalResult differentiateLinear(GroupedMatmulOp op, RowGradient gradient,
                                  Gradients &g, Value *dots = nullptr);
/// True if differentiateLinear takes the matmul; and if it can compute `dots`.
bool isLinear(GroupedMatmulOp op);
bool hasDots(GroupedMatmulOp op);

} // namespace mlir::moe

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_TRAINING_GRADIENTS_H
