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
  /// The part behind the exchange that received the rows; `anyExchange` for
  /// rows that an earlier call received, and that are used with others.
  unsigned exchange = 0;
  static constexpr unsigned anyExchange = ~0u;

  bool operator==(const Domain &other) const {
    return kind == other.kind &&
           (exchange == other.exchange || exchange == anyExchange ||
            other.exchange == anyExchange);
  }
  StringRef getName() const;
};

/// Assigns the operations of a function to parts. Part `2p` runs behind
/// exchange `p - 1` and before exchange `p`. Part `2p - 1` runs beside exchange
/// `p - 1`: it has work on the tokens of this rank that no exchange needs and
/// that needs none, such as a shared expert.
class Parts {
public:
  explicit Parts(func::FuncOp function) : function(function) {}

  /// Sets what the rows of a dynamic argument are; by default they are the
  /// tokens of this rank.
  void setDomain(BlockArgument argument, Domain domain) {
    domains[argument] = domain;
  }

  /// Fails if the function has several blocks, or an operation whose operands
  /// are of different domains.
  LogicalResult assign();

  ArrayRef<Operation *> getExchanges() const { return exchanges; }
  Domain domainOf(Value value) const { return domains.lookup(value); }
  bool isHome(unsigned part) const {
    return domainOfPart(part).kind == Domain::Home;
  }
  /// The number of parts, of which some are empty.
  unsigned size() const { return 2 * exchanges.size() + 1; }
  static bool isBeside(unsigned part) { return part % 2 != 0; }
  /// The exchange before a part, from 1; 0 for the first part.
  static unsigned exchangeBefore(unsigned part) { return (part + 1) / 2; }
  /// The experts of all ranks; 0 without an exchange.
  int64_t getNumExperts() const { return experts; }

  struct Part {
    SmallVector<Operation *> operations; // in order
    SmallVector<Value> inputs, outputs;
  };
  Part collect(unsigned part);

private:
  LogicalResult findDomains();
  void findWorkBeside();
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
  llvm::DenseSet<Operation *> workBeside;
  int64_t experts = 0;
};

} // namespace mlir::moe

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_PARALLEL_PARTS_H
