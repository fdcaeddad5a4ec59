//===- MoE.h - The moe dialect ----------------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_IR_MOE_H
#define MOE_DIALECT_MOE_IR_MOE_H

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/DialectImplementation.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/OpImplementation.h"
#include "mlir/Interfaces/ControlFlowInterfaces.h"
#include "mlir/Interfaces/DestinationStyleOpInterface.h"
#include "mlir/Interfaces/InferTypeOpInterface.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

#include "llvm/ADT/Hashing.h"
#include "llvm/ADT/bit.h"

namespace mlir::moe {
/// A double as an attribute parameter, which compares and hashes by its bits.
struct Real {
  Real(double value) : value(value) {}
  operator double() const { return value; }
  bool operator==(const Real &other) const { return bits() == other.bits(); }
  uint64_t bits() const { return llvm::bit_cast<uint64_t>(value); }
  double value;
};
inline llvm::hash_code hash_value(const Real &real) {
  return llvm::hash_value(real.bits());
}

/// A pair of numbers as an attribute parameter, printed as `[1, 32]`.
struct Pair {
  int64_t first, second;
  bool operator==(const Pair &other) const {
    return first == other.first && second == other.second;
  }
};
inline llvm::hash_code hash_value(const Pair &pair) {
  return llvm::hash_combine(pair.first, pair.second);
}
template <typename Stream> Stream &operator<<(Stream &stream, Pair pair) {
  stream << '[' << pair.first << ", " << pair.second << ']';
  return stream;
}
} // namespace mlir::moe

namespace mlir {
template <> struct FieldParser<moe::Pair> {
  static FailureOr<moe::Pair> parse(AsmParser &parser) {
    moe::Pair pair;
    if (parser.parseLSquare() || parser.parseInteger(pair.first) ||
        parser.parseComma() || parser.parseInteger(pair.second) ||
        parser.parseRSquare())
      return failure();
    return pair;
  }
};
} // namespace mlir

#include "moe/Dialect/MoE/IR/MoEDialect.h.inc"
#include "moe/Dialect/MoE/IR/MoEEnums.h.inc"

#define GET_ATTRDEF_CLASSES
#include "moe/Dialect/MoE/IR/MoEAttrs.h.inc"

namespace mlir::moe {
class YieldOp;

/// Builds `capacity` for a dynamic number of tokens: the rows of one of
/// `experts` experts for `tokens`, all of type `index`.
Value buildCapacity(OpBuilder &builder, Location loc, CapacityAttr capacity,
                    Value tokens, int64_t experts);
} // namespace mlir::moe

#define GET_OP_CLASSES
#include "moe/Dialect/MoE/IR/MoEOps.h.inc"

#endif // MOE_DIALECT_MOE_IR_MOE_H
