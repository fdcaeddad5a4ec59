//===- parallel.h - Layers for several ranks --------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A layer for several ranks is a list of steps: parts, which are functions of
// the module, and what the ranks do together between them.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_ARTIFACT_PARALLEL_H
#define MOE_RT_SRC_ARTIFACT_PARALLEL_H

#include "artifact/signature.h"

#include <map>
#include <memory>

namespace moe::rt {

class Node;

/// What the dynamic extent of a value is.
enum class Rows {
  none,     // there is none
  home,     // T of this rank
  received, // the rows that it received
  all,      // the sum of T over all ranks
};

/// A tensor that steps make or use.
struct Value {
  enum class Kind { input, output, placement, made, saved };

  Argument type; // of no role; aligned for all of its uses
  Kind kind;
  /// Of an input or output, its index in the arguments of the layer; of one
  /// that a call of another layer saved, that of the value there.
  size_t argument = 0;
  /// Whether a call that saves keeps it, for one of the backward layer.
  bool isKept = false;
  Rows rows = Rows::none;
  /// If they are received, in which exchange of those that receive.
  size_t exchange = 0;

  /// Bytes of a row, which the last dimension is, if there is one.
  uint64_t rowBytes() const {
    return type.elementSize() * static_cast<uint64_t>(type.shape.back());
  }
};

/// One value of an exchange.
struct Sent {
  size_t source;
  std::optional<size_t> index; // of the rows to send, in their order
  size_t result;
};

/// Rows to each rank, and rows from each.
struct Exchange {
  std::vector<Sent> values;
  size_t counts;
  std::optional<size_t> received; // takes the rows from each rank
  std::optional<size_t> expected; // has them: they are known before
};

/// A part that is called.
struct PartCall {
  size_t function;                     // in the variant
  std::vector<size_t> inputs, outputs; // values, in the part's order
};

/// All rows of a value, or those of this rank.
struct Gather {
  size_t source, result;
};

struct Step {
  enum class Kind { call, exchange, gather, own };

  Kind kind;
  PartCall call;
  Exchange exchange;
  Gather gather; // or own

  bool isCollective() const {
    return kind == Kind::exchange || kind == Kind::gather;
  }
};

/// Steps that may run for some of the rows at a time, from an exchange that
/// sends tokens to one that brings results home.
struct RoundTrip {
  size_t first, last; // steps
  /// The steps from `first` + 1 to this one are calls on tokens of this rank
  /// that need no rows of others: they run once, beside the first exchange.
  size_t besideEnd;
  /// In the values of the first: the slots of each row, i32. A token brings
  /// home a row for each that is not negative, or if ranks add these up, one
  /// for all.
  size_t slots;
  bool sumsTokens;
};

struct ParallelFunction {
  Function signature; // of the whole layer, with all experts
  /// The layer whose calls save what this one needs; null if it needs none.
  std::shared_ptr<const ParallelFunction> forward;
  int64_t experts = 0, slots = 0, replicas = 0;
  std::vector<Value> values;
  std::vector<Step> steps;
  std::vector<RoundTrip> roundTrips; // in the order of steps
  size_t received = 0;               // exchanges that receive rows
};

/// Read and check the layers for several ranks of a variant, whose functions
/// are known, and whose names are `names`.
moe_rt_status_t parseParallel(const Node &node,
                              const std::map<std::string, size_t> &names,
                              Variant &variant);

} // namespace moe::rt

#endif // MOE_RT_SRC_ARTIFACT_PARALLEL_H
