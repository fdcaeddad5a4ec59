//===- Imbalance.cpp - How tokens spread over experts ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/Imbalance.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/MathExtras.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

using namespace mlir::moe;

//===----------------------------------------------------------------------===//
// Bounds for every routing
//===----------------------------------------------------------------------===//

int64_t mlir::moe::maxActiveExperts(int64_t rows, int64_t experts) {
  return std::min(rows, experts);
}

std::optional<int64_t> mlir::moe::maxPaddedRows(int64_t rows, int64_t experts,
                                                int64_t tile) {
  int64_t padding, padded;
  if (llvm::MulOverflow(maxActiveExperts(rows, experts), tile - 1, padding) ||
      llvm::AddOverflow(rows, padding, padded))
    return std::nullopt;
  return padded;
}

std::optional<int64_t> mlir::moe::maxTiles(int64_t rows, int64_t experts,
                                           int64_t tile) {
  std::optional<int64_t> padded = maxPaddedRows(rows, experts, tile);
  if (!padded)
    return std::nullopt;
  return *padded / tile;
}

llvm::StringRef mlir::moe::stringifyMethod(Method method) {
  switch (method) {
  case Method::Proved:
    return "proved";
  case Method::Exact:
    return "exact";
  case Method::Bound:
    return "bound";
  }
  return "";
}

//===----------------------------------------------------------------------===//
// Rows of one expert
//===----------------------------------------------------------------------===//

/// Above this, probabilities are not added up one by one.
static constexpr double largestDeviation = 1024;
/// Terms that are smaller than this part of the largest one are left out; also
/// the smallest probability of overflow that is told from 0.
static constexpr double smallestTerm = 1e-40;

namespace {
/// Binomial(n, p), as a table of the probabilities that count, or as the normal
/// distribution that it approaches.
class Rows {
public:
  Rows(int64_t tokens, double probability);

  double mean() const { return average; }
  double variance() const { return average * (1 - p); }
  bool isTable() const { return !table.empty(); }
  /// Nearly all probability is on these.
  int64_t lowest() const { return low; }
  int64_t highest() const { return high; }

  /// P(N > rows).
  double tail(int64_t rows) const;
  /// E[⌈N / tile⌉ · tile].
  double padded(int64_t tile) const;
  /// E[max(N − rows, 0)].
  double excess(int64_t rows) const;

private:
  int64_t n;
  double p, average;
  int64_t low = 0, high = 0;
  /// P(N = low + i) and P(N >= low + i).
  std::vector<double> table, tails;
};
} // namespace

Rows::Rows(int64_t tokens, double probability)
    : n(tokens), p(probability), average(double(tokens) * probability) {
  double deviation = std::sqrt(variance());
  if (deviation > largestDeviation) {
    double reach = 14 * deviation;
    low = std::max<int64_t>(0, std::floor(average - reach));
    high = std::min<int64_t>(n, std::ceil(average + reach));
    return;
  }
  // From the most likely count to both sides by the ratio of neighbours, then
  // normalized to 1: no term needs a factorial.
  int64_t mode = std::min<int64_t>(n, std::floor((double(n) + 1) * p));
  double odds = p < 1 ? p / (1 - p) : 0;
  std::vector<double> below, above{1};
  for (int64_t k = mode; k > 0 && p < 1; --k) {
    double previous = below.empty() ? 1 : below.back();
    double term = previous * double(k) / (double(n - k + 1) * odds);
    if (term < smallestTerm)
      break;
    below.push_back(term);
  }
  for (int64_t k = mode; k < n; ++k) {
    double term = above.back() * double(n - k) / double(k + 1) * odds;
    if (term < smallestTerm)
      break;
    above.push_back(term);
  }
  low = mode - int64_t(below.size());
  high = mode + int64_t(above.size()) - 1;
  table.assign(below.rbegin(), below.rend());
  table.insert(table.end(), above.begin(), above.end());
  // The smallest terms first, so that no tail is rounded away.
  tails.resize(table.size() + 1, 0);
  for (size_t i = table.size(); i-- > 0;)
    tails[i] = tails[i + 1] + table[i];
  double sum = tails[0];
  for (double &value : table)
    value /= sum;
  for (double &value : tails)
    value /= sum;
}

double Rows::tail(int64_t rows) const {
  if (rows >= high)
    return 0;
  if (rows < low)
    return 1;
  if (isTable())
    return tails[rows + 1 - low];
  double z = (double(rows) + 0.5 - average) / std::sqrt(variance());
  return 0.5 * std::erfc(z / std::sqrt(2.0));
}

double Rows::padded(int64_t tile) const {
  // Remainders are spread evenly where a tile is small beside the deviation.
  if (!isTable())
    return average + double(tile - 1) / 2;
  double sum = 0;
  for (auto [i, probability] : llvm::enumerate(table)) {
    int64_t rows = low + int64_t(i);
    int64_t tiles = rows / tile + (rows % tile != 0);
    sum += probability * double(tiles) * double(tile);
  }
  return sum;
}

double Rows::excess(int64_t rows) const {
  if (rows >= high)
    return 0;
  if (!isTable()) {
    double deviation = std::sqrt(variance());
    double z = (average - double(rows)) / deviation;
    double density = std::exp(-z * z / 2) / std::sqrt(2 * M_PI);
    double below = 0.5 * std::erfc(-z / std::sqrt(2.0));
    return deviation * (z * below + density);
  }
  double sum = 0;
  for (auto [i, probability] : llvm::enumerate(table))
    sum += probability * double(std::max<int64_t>(low + int64_t(i) - rows, 0));
  return sum;
}

//===----------------------------------------------------------------------===//
// Rows of all experts
//===----------------------------------------------------------------------===//

/// T·K, or the largest integer on overflow.
static int64_t choicesOf(int64_t tokens, int64_t topK) {
  int64_t choices;
  return llvm::MulOverflow(tokens, topK, choices)
             ? std::numeric_limits<int64_t>::max()
             : choices;
}

RowDistribution RowDistribution::worst(int64_t experts, int64_t topK) {
  RowDistribution rows;
  rows.experts = experts;
  rows.topK = topK;
  return rows;
}

RowDistribution::RowDistribution(int64_t topK,
                                 std::vector<double> probabilities,
                                 double delta)
    : experts(probabilities.size()), topK(topK), delta(delta) {
  std::map<double, int64_t, std::greater<double>> counts;
  for (double probability : probabilities)
    ++counts[probability];
  for (auto [probability, count] : counts)
    groups.push_back({probability, count});
}

Method RowDistribution::method(int64_t tokens) const {
  if (isWorst())
    return Method::Proved;
  for (const Group &group : groups)
    if (double(tokens) * group.probability * (1 - group.probability) >
        largestDeviation * largestDeviation)
      return Method::Bound;
  return Method::Exact;
}

double RowDistribution::expectedFullest(int64_t tokens) const {
  if (isWorst())
    return double(tokens);
  // E[max] = Σ_m P(max > m), from the rows that the fullest surely has.
  std::vector<Rows> rows;
  int64_t low = 0, high = 0;
  for (const Group &group : groups) {
    rows.emplace_back(tokens, group.probability);
    low = std::max(low, rows.back().lowest());
    high = std::max(high, rows.back().highest());
  }
  constexpr int64_t points = 1 << 15;
  int64_t step = std::max<int64_t>(1, (high - low) / points);
  double expected = double(low);
  for (int64_t m = low; m < high; m += step) {
    // ln of the product of P(N <= m).
    double logarithm = 0;
    for (auto [group, row] : llvm::zip(groups, rows))
      logarithm += double(group.count) * std::log1p(-row.tail(m));
    expected += -std::expm1(logarithm) * double(std::min(step, high - m));
  }
  return expected;
}

int64_t RowDistribution::boundOfFullest(int64_t tokens) const {
  if (isWorst())
    return tokens;
  if (method(tokens) == Method::Bound) {
    // t with exp(−t² / (2·(σ² + t/3))) = δ/E.
    double logarithm = std::log(double(experts) / delta), most = 0;
    for (const Group &group : groups) {
      double mean = double(tokens) * group.probability;
      double variance = mean * (1 - group.probability);
      double third = logarithm / 3;
      most = std::max(most,
                      mean + third +
                          std::sqrt(third * third + 2 * logarithm * variance));
    }
    return std::min<int64_t>(tokens, std::ceil(most));
  }
  // The least capacity with a sum of tails of at most δ.
  std::vector<Rows> rows;
  for (const Group &group : groups)
    rows.emplace_back(tokens, group.probability);
  int64_t low = -1, high = tokens;
  while (high - low > 1) {
    int64_t middle = low + (high - low) / 2;
    double sum = 0;
    for (auto [group, row] : llvm::zip(groups, rows))
      sum += double(group.count) * row.tail(middle);
    (sum <= delta ? high : low) = middle;
  }
  return high;
}

double RowDistribution::expectedActive(int64_t tokens) const {
  if (isWorst())
    return double(maxActiveExperts(choicesOf(tokens, topK), experts));
  double expected = 0;
  for (const Group &group : groups)
    expected += double(group.count) *
                -std::expm1(double(tokens) * std::log1p(-group.probability));
  // 0 · −inf: no token, and an expert that all would choose.
  return tokens == 0 ? 0 : expected;
}

double RowDistribution::expectedPadded(int64_t tokens, int64_t tile) const {
  if (isWorst()) {
    std::optional<int64_t> rows =
        maxTiles(choicesOf(tokens, topK), experts, tile);
    return rows ? double(*rows) * double(tile) : INFINITY;
  }
  double expected = 0;
  for (const Group &group : groups)
    expected +=
        double(group.count) * Rows(tokens, group.probability).padded(tile);
  return expected;
}

double RowDistribution::overflowProbability(int64_t tokens,
                                            int64_t capacity) const {
  if (capacity >= tokens)
    return 0;
  if (isWorst())
    return 1;
  double sum = 0;
  for (const Group &group : groups) {
    Rows rows(tokens, group.probability);
    double tail = 1;
    if (rows.isTable()) {
      tail = rows.tail(capacity);
    } else if (double excess = double(capacity) - rows.mean(); excess > 0) {
      tail = std::exp(-excess * excess / (2 * (rows.variance() + excess / 3)));
    }
    sum += double(group.count) * tail;
  }
  return std::min(1.0, sum);
}

double RowDistribution::expectedDropped(int64_t tokens,
                                        int64_t capacity) const {
  double choices = double(tokens) * double(topK);
  if (choices == 0)
    return 0;
  // All tokens choose the same K experts.
  if (isWorst())
    return std::max(0.0, 1 - double(capacity) / double(tokens));
  double excess = 0;
  for (const Group &group : groups)
    excess +=
        double(group.count) * Rows(tokens, group.probability).excess(capacity);
  return excess / choices;
}
