//===- options.h - The command line of moe-run ------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RUN_OPTIONS_H
#define MOE_RUN_OPTIONS_H

#include "device.h"

#include "moe_rt/group.h"

#include <optional>
#include <string>
#include <vector>

namespace moe::run {

struct Options {
  std::string program;
  std::string function; // empty: the only one
  std::string weights;
  std::string compileOptions;
  std::vector<std::string> inputs, outputs, expects;
  std::vector<int64_t> tokens;
  std::optional<double> rtol, atol;
  std::optional<int64_t> repeat;
  uint64_t seed = 0;
  int64_t threads = 0; // 0: all cores
  DLDevice device = {kDLCPU, 0};
  std::string routingFile;
  std::string engine;      // of the ranks: mpi, a file, threads:N; empty: none
  int64_t threadRanks = 0; // N of threads:N
  std::string table;       // of the experts of each rank
  double deadline = 60;    // seconds
  int64_t chunks = 1;      // of a call over ranks
  moe_rt_way_t way = MOE_RT_WAY_AUTOMATIC; // that rows travel by
  bool replicated = false;                 // all ranks have all tokens
  bool benchmark = false;
  bool json = false;
  bool stats = false;
  bool profile = false;
  bool help = false;
  bool version = false;
};

extern const char *const helpText;

/// Returns the name of a moe_rt_way_t.
std::string wayName(int32_t way);

io::Expected<Options> parseOptions(int argc, const char *const *argv);

/// Splits [NAME=]FILE into name and file; the name may be empty.
std::pair<std::string, std::string> splitNamed(const std::string &value);

/// Parses a whole decimal number; false for any other text.
bool parseNumber(const std::string &text, uint64_t &out);

} // namespace moe::run

#endif // MOE_RUN_OPTIONS_H
