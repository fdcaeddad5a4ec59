//===- report.cpp - Report results ----------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "report.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdio>

using namespace moe::run;
using Json = nlohmann::ordered_json;

bool RunResult::passed() const {
  if (!reproducible)
    return false;
  for (const OutputResult &output : outputs)
    if (output.comparison && !output.comparison->passed())
      return false;
  return true;
}

static double tokensPerSecond(const RunResult &result) {
  double median = result.timing->median;
  return median > 0 ? static_cast<double>(result.tokens) / median : 0;
}

//===----------------------------------------------------------------------===//
// Text
//===----------------------------------------------------------------------===//

static void printTable(const std::vector<RunResult> &results) {
  std::printf("%10s %8s %12s %12s %12s %14s %14s\n", "tokens", "calls",
              "median ms", "min ms", "max ms", "tokens/s", "workspace B");
  for (const RunResult &result : results)
    std::printf("%10" PRId64 " %8" PRIu64
                " %12.4f %12.4f %12.4f %14.1f %14" PRIu64 "\n",
                result.tokens, result.timing->repetitions,
                result.timing->median * 1e3, result.timing->min * 1e3,
                result.timing->max * 1e3, tokensPerSecond(result),
                result.workspaceBytes);
}

static void printOutput(const OutputResult &output) {
  const Summary &summary = output.summary;
  std::printf("%s: %s, min %.6g, max %.6g, mean %.6g", output.name.c_str(),
              output.type.c_str(), summary.min, summary.max, summary.mean);
  if (summary.nan)
    std::printf(", %" PRIu64 " NaN", summary.nan);
  if (!output.file.empty())
    std::printf(" -> %s", output.file.c_str());
  std::printf("\n");
  if (!output.comparison)
    return;
  const Comparison &comparison = *output.comparison;
  std::printf("%s: %s: largest absolute error %.4g, relative %.4g "
              "(rtol %g, atol %g)\n",
              output.name.c_str(), comparison.passed() ? "matches" : "differs",
              comparison.maxAbsolute, comparison.maxRelative, comparison.rtol,
              comparison.atol);
  if (!comparison.passed())
    std::printf("%s: %" PRIu64 " of %" PRIu64 " elements are outside the "
                "tolerance; the first is element %" PRIu64
                ": %.9g, expected %.9g\n",
                output.name.c_str(), comparison.outside, comparison.elements,
                comparison.firstIndex, comparison.firstActual,
                comparison.firstExpected);
}

static void printDispatch(size_t index, const DispatchCounts &counts) {
  std::printf("dispatch %zu: %" PRId64 " calls, %" PRId64 " choices, %" PRId64
              " dropped, %" PRId64 " padding rows\n",
              index, counts.calls, counts.choices, counts.dropped,
              counts.padding);
  const std::vector<int64_t> &tokens = counts.tokensPerExpert;
  int64_t largest = *std::max_element(tokens.begin(), tokens.end());
  double mean = 0;
  for (int64_t count : tokens)
    mean += static_cast<double>(count) / static_cast<double>(tokens.size());
  std::printf(
      "  tokens per expert: mean %.1f, max %" PRId64 ", max/mean %.2f\n", mean,
      largest, mean > 0 ? static_cast<double>(largest) / mean : 0.0);
  for (size_t e = 0; e < tokens.size(); ++e)
    std::printf("%s%8" PRId64 "%s", e % 8 ? "" : "  ", tokens[e],
                e % 8 == 7 || e + 1 == tokens.size() ? "\n" : "");
}

/// One line: how a call spreads its rows over the experts.
static void printRows(size_t index, const DispatchCounts &counts) {
  const std::vector<int64_t> &tokens = counts.tokensPerExpert;
  auto calls = static_cast<double>(std::max<int64_t>(counts.calls, 1));
  double sum = 0;
  for (int64_t count : tokens)
    sum += static_cast<double>(count);
  std::printf(
      "  dispatch %zu: %.1f rows a call, %.1f an expert, at most %.1f; "
      "%td of %zu experts have none\n",
      index, sum / calls, sum / calls / static_cast<double>(tokens.size()),
      static_cast<double>(*std::max_element(tokens.begin(), tokens.end())) /
          calls,
      std::count(tokens.begin(), tokens.end(), 0), tokens.size());
}

namespace {
/// The largest of the errors of the experts, and their root mean square.
struct ErrorSummary {
  double mean = 0, max = 0;

  explicit ErrorSummary(const std::vector<float> &errors) {
    for (double error : errors) {
      mean += error * error / static_cast<double>(errors.size());
      max = error > max || std::isnan(error) ? error : max;
    }
    mean = std::sqrt(mean);
  }
};
} // namespace

static void printWeightErrors(const Program &program) {
  for (const WeightError &weight : program.weightErrors()) {
    ErrorSummary summary(weight.errors);
    std::printf("%s: quantised, relative error %.4g, of an expert at most "
                "%.4g\n",
                weight.name.c_str(), summary.mean, summary.max);
  }
}

static void printExchange(const moe_rt_exchange_statistics_t &exchange,
                          size_t ranks) {
  std::printf("rank 0 of %zu: %" PRId64 " tokens sent, %" PRId64
              " received, %" PRIu64 " and %" PRIu64
              " bytes to and from others, %" PRId64 " round%s, %s\n",
              ranks, exchange.rows_sent, exchange.rows_received,
              exchange.bytes_sent, exchange.bytes_received, exchange.rounds,
              exchange.rounds == 1 ? "" : "s", wayName(exchange.way).c_str());
}

void moe::run::printText(const Options &options, const Program &program,
                         const std::vector<RunResult> &results) {
  printWeightErrors(program);
  if (options.benchmark)
    printTable(results);
  for (const RunResult &result : results) {
    // A benchmark prints details of outputs only for --output or --expect.
    bool details = !options.benchmark || !options.outputs.empty() ||
                   !options.expects.empty();
    if (results.size() > 1 && (details || options.stats || options.profile))
      std::printf("T = %" PRId64 ":\n", result.tokens);
    for (const OutputResult &output : result.outputs)
      if (details)
        printOutput(output);
    if (result.exchange)
      printExchange(*result.exchange, program.ranks()->size());
    if (result.repeated)
      std::printf("%" PRId64 " calls: results are %s\n", *options.repeat,
                  result.reproducible ? "bit-identical" : "not bit-identical");
    for (size_t i = 0; options.stats && i < result.dispatches.size(); ++i)
      printDispatch(i, result.dispatches[i]);
    if (result.profile) {
      printProfile(program, *result.profile);
      for (size_t i = 0; i < result.dispatches.size(); ++i)
        printRows(i, result.dispatches[i]);
    }
  }
}

//===----------------------------------------------------------------------===//
// JSON
//===----------------------------------------------------------------------===//

static Json toJson(const OutputResult &output) {
  Json json;
  json["name"] = output.name;
  json["type"] = output.type;
  json["min"] = output.summary.min;
  json["max"] = output.summary.max;
  json["mean"] = output.summary.mean;
  json["nan"] = output.summary.nan;
  if (!output.file.empty())
    json["file"] = output.file;
  if (output.comparison) {
    const Comparison &comparison = *output.comparison;
    json["passed"] = comparison.passed();
    json["max_absolute_error"] = comparison.maxAbsolute;
    json["max_relative_error"] = comparison.maxRelative;
    json["rtol"] = comparison.rtol;
    json["atol"] = comparison.atol;
    json["elements"] = comparison.elements;
    json["outside"] = comparison.outside;
  }
  return json;
}

static Json toJson(const DispatchCounts &counts) {
  Json json;
  json["calls"] = counts.calls;
  json["choices"] = counts.choices;
  json["dropped"] = counts.dropped;
  json["padding"] = counts.padding;
  json["tokens_per_expert"] = counts.tokensPerExpert;
  return json;
}

static Json toJson(const StageTiming &stage) {
  Json json;
  json["name"] = stage.name;
  if (!stage.kernels.empty())
    json["kernels"] = stage.kernels;
  json["calls"] = stage.calls;
  json["runs"] = stage.runs;
  json["total_ms"] = stage.total * 1e3;
  json["median_ms"] = stage.median * 1e3;
  return json;
}

static Json toJson(const Options &options, const RunResult &result) {
  Json json;
  json["tokens"] = result.tokens;
  json["workspace_bytes"] = result.workspaceBytes;
  if (result.timing) {
    json["calls"] = result.timing->repetitions;
    json["median_ms"] = result.timing->median * 1e3;
    json["min_ms"] = result.timing->min * 1e3;
    json["max_ms"] = result.timing->max * 1e3;
    json["tokens_per_second"] = tokensPerSecond(result);
  }
  if (result.repeated)
    json["reproducible"] = result.reproducible;
  if (result.exchange)
    json["exchange"] = {{"rounds", result.exchange->rounds},
                        {"rows_sent", result.exchange->rows_sent},
                        {"rows_received", result.exchange->rows_received},
                        {"bytes_sent", result.exchange->bytes_sent},
                        {"bytes_received", result.exchange->bytes_received},
                        {"way", wayName(result.exchange->way)}};
  json["outputs"] = Json::array();
  for (const OutputResult &output : result.outputs)
    json["outputs"].push_back(toJson(output));
  if (result.profile) {
    json["profile"] = toJson(result.profile->call);
    json["profile"]["stages"] = Json::array();
    for (const StageTiming &stage : result.profile->stages)
      json["profile"]["stages"].push_back(toJson(stage));
  }
  if ((options.stats || options.profile) && !result.dispatches.empty()) {
    json["dispatches"] = Json::array();
    for (const DispatchCounts &counts : result.dispatches)
      json["dispatches"].push_back(toJson(counts));
  }
  return json;
}

void moe::run::printJson(const Options &options, const Program &program,
                         const std::vector<RunResult> &results) {
  Json json;
  json["program"] = options.program;
  json["function"] = program.function();
  json["device"] = program.device()
                       ? "cuda:" + std::to_string(options.device.device_id)
                       : "cpu";
  json["target"] = program.target();
  if (program.ranks())
    json["ranks"] = program.ranks()->size();
  json["weights"] = options.weights;
  json["copied_weight_bytes"] = program.ownedWeightBytes();
  for (const WeightError &weight : program.weightErrors()) {
    ErrorSummary summary(weight.errors);
    json["quantization_errors"][weight.name] = {{"relative", summary.mean},
                                                {"max", summary.max}};
  }
  json["runs"] = Json::array();
  for (const RunResult &result : results)
    json["runs"].push_back(toJson(options, result));
  // Paths may not be UTF-8; infinities, which JSON lacks, become null.
  std::puts(json.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
}

//===----------------------------------------------------------------------===//
// Routing
//===----------------------------------------------------------------------===//

static constexpr int routingFormat = 1;

/// Adds up the counts of each dispatch over the runs of one function.
static std::vector<DispatchCounts>
sumDispatches(const std::vector<RunResult> &results) {
  std::vector<DispatchCounts> sums;
  for (const RunResult &result : results) {
    if (sums.empty()) {
      sums = result.dispatches;
      continue;
    }
    for (size_t i = 0; i < sums.size(); ++i) {
      const DispatchCounts &counts = result.dispatches[i];
      for (size_t e = 0; e < counts.tokensPerExpert.size(); ++e)
        sums[i].tokensPerExpert[e] += counts.tokensPerExpert[e];
      sums[i].calls += counts.calls;
      sums[i].choices += counts.choices;
      sums[i].dropped += counts.dropped;
    }
  }
  return sums;
}

moe::io::Expected<void>
moe::run::recordRouting(const std::string &path,
                        const std::vector<RunResult> &results) {
  Json json;
  json["format"] = routingFormat;
  json["dispatches"] = Json::array();
  for (const DispatchCounts &counts : sumDispatches(results))
    json["dispatches"].push_back(
        {{"num_experts", counts.tokensPerExpert.size()},
         {"top_k", counts.topK},
         {"calls", counts.calls},
         {"choices", counts.choices},
         {"dropped", counts.dropped},
         {"tokens_per_expert", counts.tokensPerExpert}});
  std::string text = json.dump(2) + "\n";
  return io::writeFileAtomically(path, {{text.data(), text.size()}});
}
