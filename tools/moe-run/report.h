//===- report.h - Report results --------------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RUN_REPORT_H
#define MOE_RUN_REPORT_H

#include "compare.h"
#include "profile.h"

namespace moe::run {

/// Times of the calls of a benchmark, in seconds.
struct Timing {
  uint64_t repetitions;
  double median, min, max;
};

/// Counts of one dispatch, copied from moe_rt_statistics_t.
struct DispatchCounts {
  std::vector<int64_t> tokensPerExpert;
  int64_t topK, calls, choices, dropped, padding;
};

struct OutputResult {
  std::string name;
  std::string type;
  Summary summary;
  std::string file; // path of the written file; may be empty
  std::optional<Comparison> comparison;
};

/// Results of the calls for one number of tokens.
struct RunResult {
  int64_t tokens = 0;
  uint64_t workspaceBytes = 0;
  std::optional<Timing> timing;
  bool repeated = false;    // the call was repeated,
  bool reproducible = true; // and its results were the same each time
  std::vector<OutputResult> outputs;
  std::vector<DispatchCounts> dispatches;
  std::optional<ProfileResult> profile;
  /// What the last call of rank 0 moved, of several ranks.
  std::optional<moe_rt_exchange_statistics_t> exchange;

  bool passed() const;
};

void printText(const Options &options, const Program &program,
               const std::vector<RunResult> &results);
/// Writes the counts of the dispatches, summed over all runs, as a histogram
/// for the compiler.
io::Expected<void> recordRouting(const std::string &path,
                                 const std::vector<RunResult> &results);
void printJson(const Options &options, const Program &program,
               const std::vector<RunResult> &results);

} // namespace moe::run

#endif // MOE_RUN_REPORT_H
