//===- ImbalanceModels.cpp - Models of the routing by name ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/Imbalance.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/MathExtras.h"
#include "llvm/Support/MemoryBuffer.h"

#include <cmath>

using namespace mlir::moe;
using llvm::StringRef;
using llvm::Twine;

static llvm::Error error(const Twine &message) {
  return llvm::createStringError(message);
}

/// Probabilities in proportion to `weights` that sum to `topK`, none above 1:
/// the excess over 1 is spread over the others.
static std::vector<double> inclusion(const std::vector<double> &weights,
                                     int64_t topK) {
  std::vector<double> probabilities(weights.size(), 0);
  std::vector<size_t> open;
  for (size_t i = 0; i < weights.size(); ++i)
    if (weights[i] > 0)
      open.push_back(i);
  double left = double(topK);
  for (bool cut = true; cut && !open.empty();) {
    double sum = 0;
    for (size_t i : open)
      sum += weights[i];
    double factor = left / sum;
    cut = false;
    for (size_t i : open) {
      probabilities[i] = std::min(1.0, factor * weights[i]);
      if (probabilities[i] == 1) {
        left -= 1;
        cut = true;
      }
    }
    llvm::erase_if(open, [&](size_t i) { return probabilities[i] == 1; });
  }
  return probabilities;
}

llvm::Expected<RowDistribution>
Imbalance::distribution(size_t dispatch, int64_t experts, int64_t topK) const {
  if (experts < 1 || topK < 1)
    return error("expected at least one expert and one choice");
  if (kind == Kind::Worst)
    return RowDistribution::worst(experts, topK);
  std::vector<double> weights(experts, 1);
  if (kind == Kind::Zipf)
    for (int64_t e = 0; e < experts; ++e)
      weights[e] = std::pow(double(e + 1), -exponent);
  if (kind == Kind::Histogram) {
    if (dispatch >= records.size())
      return error("'" + Twine(name) + "' has " + Twine(records.size()) +
                   " dispatches, expected one for dispatch " + Twine(dispatch));
    const Record &record = records[dispatch];
    if (record.experts != experts || record.topK != topK)
      return error("'" + Twine(name) + "' is of another layer: dispatch " +
                   Twine(dispatch) + " has " + Twine(experts) +
                   " experts and top_k " + Twine(topK) + ", the histogram " +
                   Twine(record.experts) + " and " + Twine(record.topK));
    weights.assign(record.tokensPerExpert.begin(),
                   record.tokensPerExpert.end());
  }
  return RowDistribution(topK, inclusion(weights, std::min(topK, experts)),
                         delta);
}

/// A required member of an object that is an integer, 0 or more.
static llvm::Expected<int64_t> count(const llvm::json::Object &object,
                                     StringRef key) {
  std::optional<int64_t> value = object.getInteger(key);
  if (!value || *value < 0)
    return error("expected '" + key + "' to be an integer of at least 0");
  return *value;
}

llvm::Expected<std::vector<Imbalance::Record>>
Imbalance::readHistogram(StringRef path) {
  auto fail = [&](const Twine &message) {
    return error("histogram '" + path + "': " + message);
  };
  auto buffer = llvm::MemoryBuffer::getFile(path);
  if (!buffer)
    return fail(buffer.getError().message());
  auto json = llvm::json::parse((*buffer)->getBuffer());
  if (!json)
    return fail(llvm::toString(json.takeError()));
  const llvm::json::Object *root = json->getAsObject();
  if (!root || root->getInteger("format") != 1)
    return fail("expected an object with 'format' 1");
  const llvm::json::Array *dispatches = root->getArray("dispatches");
  if (!dispatches || dispatches->empty())
    return fail("expected 'dispatches' to be a list of at least one");

  std::vector<Record> records;
  for (auto [index, node] : llvm::enumerate(*dispatches)) {
    std::string where = "dispatch " + std::to_string(index) + ": ";
    const llvm::json::Object *object = node.getAsObject();
    if (!object)
      return fail(where + "expected an object");
    std::vector<int64_t> counts;
    for (StringRef key : {"num_experts", "top_k", "choices", "dropped"}) {
      llvm::Expected<int64_t> value = count(*object, key);
      if (!value)
        return fail(where + llvm::toString(value.takeError()));
      counts.push_back(*value);
    }
    Record record = {counts[0], counts[1], {}};
    int64_t sum = 0;
    const llvm::json::Array *rows = object->getArray("tokens_per_expert");
    for (size_t e = 0; rows && e < rows->size(); ++e) {
      std::optional<int64_t> value = (*rows)[e].getAsInteger();
      if (!value || *value < 0 || llvm::AddOverflow(sum, *value, sum))
        return fail(where + "expected 'tokens_per_expert' to be integers of at "
                            "least 0 with a sum within 64 bits");
      record.tokensPerExpert.push_back(*value);
    }
    if (int64_t(record.tokensPerExpert.size()) != record.experts)
      return fail(where +
                  "expected one number of 'tokens_per_expert' for each "
                  "of " +
                  Twine(record.experts) + " experts, got " +
                  Twine(record.tokensPerExpert.size()));
    if (counts[3] != 0)
      return fail(where + "expected a routing without drops, got " +
                  Twine(counts[3]) +
                  " dropped choices: it does not say what was asked of the "
                  "experts that were full");
    if (sum != counts[2])
      return fail(where + "expected the tokens of the experts to sum to the " +
                  Twine(counts[2]) + " choices, got " + Twine(sum));
    if (sum == 0)
      return fail(where + "expected at least one choice");
    records.push_back(std::move(record));
  }
  return records;
}

llvm::Expected<Imbalance> Imbalance::parse(StringRef text) {
  Imbalance model;
  model.name = text.str();
  auto [kind, rest] = text.split(':');
  auto invalid = [&]() {
    return error("expected an imbalance of worst, uniform[:DELTA], "
                 "zipf:S[:DELTA] or histogram:FILE[:DELTA], got '" +
                 text + "'");
  };
  if (kind == "worst" && rest.empty() && !text.contains(':'))
    return model;
  StringRef deltaText;
  if (kind == "uniform") {
    model.kind = Kind::Uniform;
    deltaText = rest;
    if (text.contains(':') && rest.empty())
      return invalid();
  } else if (kind == "zipf") {
    model.kind = Kind::Zipf;
    auto [exponent, delta] = rest.split(':');
    if (exponent.getAsDouble(model.exponent) || !(model.exponent >= 0) ||
        model.exponent > 64)
      return error("expected zipf:S with an exponent S from 0 to 64, got '" +
                   text + "'");
    deltaText = delta;
  } else if (kind == "histogram" && !rest.empty()) {
    model.kind = Kind::Histogram;
    // A path may contain colons: the text after the last is δ if it parses as a
    // number.
    StringRef path = rest;
    double number;
    auto [head, last] = rest.rsplit(':');
    if (rest.contains(':') && !last.getAsDouble(number)) {
      path = head;
      deltaText = last;
    }
    auto records = readHistogram(path);
    if (!records)
      return records.takeError();
    model.records = std::move(*records);
  } else {
    return invalid();
  }
  if (!deltaText.empty() && (deltaText.getAsDouble(model.delta) ||
                             !(model.delta >= 1e-30) || !(model.delta < 1)))
    return error("expected a probability of at least 1e-30 and below 1, got '" +
                 deltaText + "'");
  return model;
}
