//===- Foreign.h - Operations of other dialects ------------ -*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Operations of dialects that this build does not know are matched by name, and
// their attributes and types are read as text, which is the same whether the
// dialect is registered or not.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_FOREIGN_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_FOREIGN_H

#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Operation.h"
#include "mlir/IR/PatternMatch.h"

namespace mlir::moe::raising {

//===----------------------------------------------------------------------===//
// What a pattern did
//===----------------------------------------------------------------------===//

/// What became of an operation: raised, left for a reason, or not one that the
/// pattern knows.
struct Outcome {
  enum Kind { Unknown, Raised, Left } kind = Unknown;
  std::string reason;

  static Outcome raised() { return {Raised, ""}; }
  static Outcome left(const llvm::Twine &why) { return {Left, why.str()}; }
};

/// Emits a remark of the category moe-raise: `op` stays, with the reason.
void remarkNotRaised(Operation *op, StringRef name, StringRef reason);

//===----------------------------------------------------------------------===//
// Names and attributes
//===----------------------------------------------------------------------===//

/// Returns the name of an operation of StableHLO, or of one that a program is
/// read as (Reading.h), without the dialect; empty for others.
StringRef stablehloName(Operation *op);
/// True for operations with that name. Those that a program is read as have the
/// names of StableHLO's and CHLO's.
bool isNamed(Operation *op, StringRef name);
/// True for an operation that a program is read as.
bool isRead(Operation *op);
/// Returns the operation with that name that defines `value`, else null.
inline Operation *definedBy(Value value, StringRef name) {
  Operation *op = value.getDefiningOp();
  return isNamed(op, name) ? op : nullptr;
}

/// Visits the operations below `root` until one interrupts, but not the bodies
/// of operations of linalg, which have the most and none that passes look for.
/// Returns true if it was interrupted.
bool walkOutsideLinalg(Operation *root,
                       llvm::function_ref<WalkResult(Operation *)> visit);
/// Returns an operation of StableHLO below `root` that lacks operands or
/// results that it has by its name, which nothing verifies where the dialect is
/// not registered; null if there is none.
Operation *findMalformed(Operation *root);
constexpr const char *malformed = "it lacks operands or results, or they are "
                                  "no ranked tensors";

/// Returns an attribute of `op` as text; empty if there is none.
std::string textOf(Operation *op, StringRef attribute);
/// Returns the direction of a comparison of StableHLO: LT, EQ, ...; empty if
/// `op` is none.
std::string directionOf(Operation *op);
/// Returns the integers of `field = [1, 2]` in a text; none if the field is
/// absent, nothing if it is no such list.
std::optional<SmallVector<int64_t>> integersIn(StringRef text, StringRef field);
/// Returns the integers of an attribute that has an array or tensor of them,
/// or one.
std::optional<SmallVector<int64_t>> integersOf(Attribute attribute);
/// The same of an attribute of `op`.
std::optional<SmallVector<int64_t>> integersOf(Operation *op, StringRef name);

//===----------------------------------------------------------------------===//
// Types
//===----------------------------------------------------------------------===//

/// Returns the tensor type of a value; null if it has no rank or is no tensor.
inline RankedTensorType tensorOf(Value value) {
  return dyn_cast<RankedTensorType>(value.getType());
}
/// True for the types that rows and weights have.
inline bool isRowFloat(Type element) {
  return element.isF32() || element.isF16() || element.isBF16();
}
/// Returns the tensor type that a type stands for: itself, or the value
/// semantics tensor of torch-mlir; null if it is neither or has no rank.
RankedTensorType tensorTypeOf(Type type);
/// Returns `value` as a tensor, by a conversion of torch-mlir if it is one of
/// its tensors.
Value asTensor(OpBuilder &b, Value value);
/// Returns the tensor `value` as `type`, which asTensor() converted from.
Value asForeign(OpBuilder &b, Value value, Type type);

/// Replaces conversions of what asForeign() returned back to a tensor.
void foldConversions(RewriterBase &rewriter, Value foreign);

/// True for an operand of torch-mlir that is not given.
bool isTorchNone(Value value);

/// Returns the tensor whose last two of three dimensions `value` swaps; null if
/// it does not.
Value swappedLastTwo(Value value);

} // namespace mlir::moe::raising

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_FOREIGN_H
