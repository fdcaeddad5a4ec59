//===- Imbalance.h - How tokens spread over experts -------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Two kinds of answers. Bounds hold for every routing and are integers, checked
// to 64 bits. Expectations and probabilities hold under a model of the routing,
// in which the tokens are independent and expert e is among the K choices of a
// token with probability p_e; so it gets Binomial(T, p_e) rows.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_ANALYSIS_IMBALANCE_H
#define MOE_ANALYSIS_IMBALANCE_H

#include "mlir/Support/LLVM.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mlir::moe {

//===----------------------------------------------------------------------===//
// Bounds for every routing; none where they exceed 64 bits
//===----------------------------------------------------------------------===//

/// Experts that `rows` rows can reach.
int64_t maxActiveExperts(int64_t rows, int64_t experts);

/// Tiles of `tile` rows that `rows` rows in groups by expert can need:
/// min(E, R) groups of one row, then a tile for each `tile` rows more.
std::optional<int64_t> maxTiles(int64_t rows, int64_t experts, int64_t tile);

/// R + min(E, R)·(B − 1): rows if every expert's rows fill whole tiles of B.
std::optional<int64_t> maxPaddedRows(int64_t rows, int64_t experts,
                                     int64_t tile);

//===----------------------------------------------------------------------===//
// Models
//===----------------------------------------------------------------------===//

/// How a value was computed.
enum class Method {
  /// A bound for every routing.
  Proved,
  /// Sums of binomial probabilities.
  Exact,
  /// Bernstein's inequality, whose leading term is 1 + z·σ/μ with
  /// z = √(2·ln(E/δ)); for expectations, the normal limit. Only if a standard
  /// deviation exceeds 1024 rows.
  Bound,
};
llvm::StringRef stringifyMethod(Method method);

/// Rows that the experts of one dispatch get, under a model.
class RowDistribution {
public:
  /// Every routing: only what is proved is known.
  static RowDistribution worst(int64_t experts, int64_t topK);
  /// Expert e is chosen with probability `probabilities[e]`.
  RowDistribution(int64_t topK, std::vector<double> probabilities,
                  double delta);

  bool isWorst() const { return groups.empty(); }
  double getDelta() const { return delta; }

  /// Rows of the fullest expert: on average, as for independent experts; T in
  /// the worst case.
  double expectedFullest(int64_t tokens) const;
  /// Rows that the fullest expert exceeds with probability δ at most.
  int64_t boundOfFullest(int64_t tokens) const;
  /// Experts that get a row, on average.
  double expectedActive(int64_t tokens) const;
  /// Rows in whole tiles, on average.
  double expectedPadded(int64_t tokens, int64_t tile) const;
  /// At least the probability that some expert gets more than `capacity` rows:
  /// the sum over the experts.
  double overflowProbability(int64_t tokens, int64_t capacity) const;
  /// The part of all choices that is beyond `capacity`, on average.
  double expectedDropped(int64_t tokens, int64_t capacity) const;

  /// How `boundOfFullest` and the probabilities are computed.
  Method method(int64_t tokens) const;

private:
  RowDistribution() = default;

  /// Experts that are chosen equally often.
  struct Group {
    double probability;
    int64_t count;
  };
  int64_t experts = 0, topK = 0;
  double delta = 0;
  std::vector<Group> groups;
};

/// A model as a user names it: `worst`, `uniform[:DELTA]`, `zipf:S[:DELTA]` or
/// `histogram:FILE[:DELTA]`, the file as `moe-run --record-routing` writes it.
class Imbalance {
public:
  static constexpr double defaultDelta = 1e-6;

  /// The worst case.
  Imbalance() = default;
  static llvm::Expected<Imbalance> parse(llvm::StringRef text);

  /// The model as it was named.
  llvm::StringRef getName() const { return name; }

  /// The rows of the dispatch with index `dispatch`. Fails if a histogram is of
  /// another layer.
  llvm::Expected<RowDistribution> distribution(size_t dispatch, int64_t experts,
                                               int64_t topK) const;

private:
  enum class Kind { Worst, Uniform, Zipf, Histogram };
  struct Record {
    int64_t experts, topK;
    std::vector<int64_t> tokensPerExpert;
  };

  static llvm::Expected<std::vector<Record>>
  readHistogram(llvm::StringRef path);

  std::string name = "worst";
  Kind kind = Kind::Worst;
  double exponent = 0, delta = defaultDelta;
  std::vector<Record> records;
};

} // namespace mlir::moe

#endif // MOE_ANALYSIS_IMBALANCE_H
