//===- Parts.h - What runs between two exchanges ----------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_PARALLEL_PARTS_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_PARALLEL_PARTS_H

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"

namespace mlir::moe {

/// True for operations that all ranks run together, and that the runtime runs.
bool isExchange(Operation *op);

/// What the rows of a value are of.
struct Domain {
  enum Kind { Invariant, Home, All, Received } kind = Invariant;
  /// The exchange that received the rows.
  unsigned exchange = 0;

  bool operator==(const Domain &other) const {
    return kind == other.kind && exchange == other.exchange;
  }
  StringRef getName() const;
};

/// Assigns the operations of a function to parts: part `p` runs before exchange
/// `p` and after exchange `p - 1`.
class Parts {
public:
  explicit Parts(func::FuncOp function) : function(function) {}

  /// Fails if the function has several blocks, or an operation whose operands
  /// are of different domains.
  LogicalResult assign();

  ArrayRef<Operation *> getExchanges() const { return exchanges; }
  Domain domainOf(Value value) const { return domains.lookup(value); }
  bool isHome(unsigned part) const {
    return domainOfPart(part).kind == Domain::Home;
  }
  /// The experts that moe.place maps to slots; 0 without one.
  int64_t getNumExperts() const { return experts; }

  struct Part {
    SmallVector<Operation *> operations; // in order
    SmallVector<Value> inputs, outputs;
  };
  Part collect(unsigned part);

private:
  LogicalResult findDomains();
  LogicalResult join(Operation *op, Domain &domain);
  Domain domainOfPart(unsigned part) const;
  LogicalResult assignLatest(Operation *op);
  /// The part of the operation that reads a value: for an exchange the one
  /// before it.
  unsigned partOfUser(Operation *user) const;
  bool isCopied(Operation *op) const;
  bool isReadOutside(Value value, unsigned part) const;

  func::FuncOp function;
  Block *body = nullptr;
  SmallVector<Operation *> exchanges;
  llvm::DenseMap<Operation *, unsigned> exchangeNumbers;
  llvm::DenseMap<Value, Domain> domains;
  llvm::DenseMap<Operation *, Domain> domainsOfOps;
  llvm::DenseMap<Operation *, unsigned> parts;
  int64_t experts = 0;
};

} // namespace mlir::moe

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_PARALLEL_PARTS_H
