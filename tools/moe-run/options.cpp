//===- options.cpp - The command line of moe-run --------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "options.h"

#include <algorithm>
#include <cstdlib>
#include <dirent.h>
#include <sys/stat.h>

using namespace moe::run;
using moe::io::Error;
using moe::io::Expected;

const char *const moe::run::helpText =
    R"(usage: moe-run PROGRAM [options]

Run one function of a compiled MoE program, check its results, or measure it.

PROGRAM is an artifact of moe-compile, or MLIR (.mlir, .mlirbc), which is
compiled first; that needs libMoECompiler.so.

What to run:
  --function NAME      the function; may be left out if there is only one
  --weights SOURCE     the source of the weights:
                         FILE.safetensors, FILE.gguf
                                           tensors named like the arguments, or
                                           as moe.source of the layer says
                         DIR               a Hugging Face checkpoint
                         random[:SEED]     normal, standard deviation
                                           1/sqrt(last extent); integers take
                                           all values alike
  --threads N          threads of a call (default: the cores of the process)
  --device DEVICE      cpu (default), or an NVIDIA GPU: cuda or cuda:N; the
                       artifact must have been compiled for it
  --ep[=ENGINE]        run a layer that was compiled with --parallel over several
                       ranks (expert parallelism). ENGINE is mpi (default): the
                       ranks that mpirun has started, by libmoe_mpi.so; a file:
                       that library; or threads:N, ranks in this process.
                       Inputs are those of all ranks, each of which takes an
                       equal part of the tokens, unless their names have {rank}:
                       then they are those of this rank. --tokens counts the
                       tokens of all. Rank 0 writes, compares and reports the
                       whole results
  --table FILE         .npy, i32 [ranks, slots]: the experts of each rank, -1 for
                       an empty slot (default: neighbours)
  --deadline SECONDS   how long a rank waits for the others (default 60)
  --chunks N           exchange tokens in N chunks, each of which is computed
                       while others travel (default 1)
  --way WAY            how rows travel: all_to_all, peer, all_gather, or auto
                       (default), which takes what is possible and best
  --replicated         all ranks are called with all tokens, not with a part, as
                       attention in tensor parallelism has them
  --compile-options S  for MLIR: options of moe-compile, separated by spaces:
                       --target, --pipeline, --tokens, --memory-limit, ...

Tensors (repeat the option for each, in the order of the signature, or name it):
  --input [NAME=]FILE    .npy, or .safetensors with tensors named like inputs
  --output [NAME=]FILE   write a result as .npy
  --expect [NAME=]FILE   compare a result with this .npy or .safetensors
  --rtol X, --atol X     allow |result - expected| <= atol + rtol * |expected|
                         (default by type, rtol and atol: f64 1e-9 1e-12,
                         f32 1e-4 1e-5, f16 1e-2 1e-3, bf16 2e-2 1e-2, else 0)

Without --input:
  --tokens T[,T...]    run with random inputs of each of these numbers of tokens:
                       floats normal, expert ids uniform and distinct per token
  --seed N             seed of the inputs and of random weights (default 0)

Measuring and reporting:
  --benchmark          warm up, then time repeated calls
  --repeat N           number of timed calls (default 20); without --benchmark,
                       call N times and check that the results are bit-identical
  --stats              tokens per expert, drops and padding of each dispatch
  --profile            the target whose code runs, and the time of each of its
                       stages (on a GPU: kernels) in --repeat further calls,
                       with the rows of each dispatch
  --record-routing FILE  write the tokens per expert of each dispatch, summed
                       over all calls, as JSON (for moe-compile --imbalance)
  --json               report as JSON on stdout
  --help, --version

Exit status: 0 on success, 1 if a result differs from what was expected, 2 on
any error.

Examples:
  moe-run layer.moe --weights Qwen3-30B-A3B/ --input x.npy --output y.npy
  moe-run layer.moe --weights random:7 --tokens 1,32,512 --benchmark
  moe-run layer.moe --weights random:7 --tokens 512 --benchmark --device cuda
  mpirun -n 4 moe-run layer.moe --ep --weights Qwen3-30B-A3B/ --input x.npy
)";

bool moe::run::parseNumber(const std::string &text, uint64_t &out) {
  if (text.empty())
    return false;
  out = 0;
  for (char c : text) {
    if (c < '0' || c > '9' || __builtin_mul_overflow(out, uint64_t(10), &out) ||
        __builtin_add_overflow(out, uint64_t(c - '0'), &out))
      return false;
  }
  return true;
}

/// In the order of moe_rt_way_t.
static const char *const wayNames[] = {"auto", "all_to_all", "peer",
                                       "all_gather"};

std::string moe::run::wayName(int32_t way) {
  return way >= 0 && way <= MOE_RT_WAY_ALL_GATHER ? wayNames[way] : "unknown";
}

static Expected<moe_rt_way_t> parseWay(const std::string &value) {
  for (int32_t way = 0; way <= MOE_RT_WAY_ALL_GATHER; ++way)
    if (value == wayNames[way])
      return static_cast<moe_rt_way_t>(way);
  return Error{"--way: expected auto, all_to_all, peer or all_gather, got '" +
               value + "'"};
}

static Expected<int64_t> parseCount(const std::string &option,
                                    const std::string &text) {
  uint64_t number;
  if (!parseNumber(text, number) || number > INT64_MAX)
    return Error{option + ": expected a number from 0 to 2^63-1, got '" + text +
                 "'"};
  return static_cast<int64_t>(number);
}

static Expected<void> parseTokens(const std::string &text,
                                  std::vector<int64_t> &out) {
  for (size_t begin = 0; begin <= text.size();) {
    size_t comma = std::min(text.find(',', begin), text.size());
    Expected<int64_t> number =
        parseCount("--tokens", text.substr(begin, comma - begin));
    if (!number)
      return number.takeError();
    out.push_back(*number);
    begin = comma + 1;
  }
  return {};
}

static Expected<void> parseTolerance(const std::string &option,
                                     const std::string &text,
                                     std::optional<double> &out) {
  char *end;
  double number = std::strtod(text.c_str(), &end);
  // The negated comparison rejects NaN, too.
  if (text.empty() || *end || !(number >= 0))
    return Error{option + ": expected a number of at least 0, got '" + text +
                 "'"};
  out = number;
  return {};
}

/// Applies an option with a value; takesValue lists the same options.
static Expected<void> applyValue(const std::string &name,
                                 const std::string &value, Options &options) {
  if (name == "--function")
    options.function = value;
  else if (name == "--weights")
    options.weights = value;
  else if (name == "--compile-options")
    options.compileOptions = value;
  else if (name == "--input")
    options.inputs.push_back(value);
  else if (name == "--output")
    options.outputs.push_back(value);
  else if (name == "--expect")
    options.expects.push_back(value);
  else if (name == "--tokens")
    return parseTokens(value, options.tokens);
  else if (name == "--rtol")
    return parseTolerance(name, value, options.rtol);
  else if (name == "--atol")
    return parseTolerance(name, value, options.atol);
  else if (name == "--record-routing")
    options.routingFile = value;
  else if (name == "--table")
    options.table = value;
  else if (name == "--deadline") {
    std::optional<double> seconds;
    if (Expected<void> parsed = parseTolerance(name, value, seconds); !parsed)
      return parsed;
    if (*seconds == 0 || *seconds > 1e9)
      return Error{"--deadline: expected more than 0 to 1e9 seconds, got '" +
                   value + "'"};
    options.deadline = *seconds;
  } else if (name == "--chunks") {
    Expected<int64_t> count = parseCount(name, value);
    if (!count)
      return count.takeError();
    if (*count < 1 || *count > 1024)
      return Error{"--chunks: expected 1 to 1024, got '" + value + "'"};
    options.chunks = *count;
  } else if (name == "--way") {
    Expected<moe_rt_way_t> way = parseWay(value);
    if (!way)
      return way.takeError();
    options.way = *way;
  } else if (name == "--threads") {
    Expected<int64_t> count = parseCount(name, value);
    if (!count)
      return count.takeError();
    options.threads = *count;
  } else if (name == "--device") {
    Expected<DLDevice> device = parseDevice(value);
    if (!device)
      return device.takeError();
    options.device = *device;
  } else if (name == "--seed") {
    if (!parseNumber(value, options.seed))
      return Error{"--seed: expected a number from 0 to 2^64-1, got '" + value +
                   "'"};
  } else { // --repeat
    Expected<int64_t> count = parseCount(name, value);
    if (!count)
      return count.takeError();
    if (*count == 0)
      return Error{"--repeat: expected at least 1, got 0"};
    options.repeat = *count;
  }
  return {};
}

/// Applies --ep or --ep=ENGINE.
static Expected<void> applyEngine(const std::string &engine, Options &options) {
  static const std::string threads = "threads:";
  options.engine = engine;
  if (engine.compare(0, threads.size(), threads) == 0) {
    uint64_t count;
    if (!parseNumber(engine.substr(threads.size()), count) || count == 0 ||
        count > 4096)
      return Error{"--ep: expected threads:N with N from 1 to 4096, got '" +
                   engine + "'"};
    options.threadRanks = static_cast<int64_t>(count);
    return {};
  }
  if (engine == "mpi" || engine.find('/') != std::string::npos)
    return {};
  return Error{"--ep: expected mpi, threads:N or the path of a library, got '" +
               engine + "'"};
}

static bool *findFlag(const std::string &name, Options &options) {
  if (name == "--benchmark")
    return &options.benchmark;
  if (name == "--json")
    return &options.json;
  if (name == "--stats")
    return &options.stats;
  if (name == "--profile")
    return &options.profile;
  if (name == "--replicated")
    return &options.replicated;
  if (name == "--help" || name == "-h")
    return &options.help;
  if (name == "--version")
    return &options.version;
  return nullptr;
}

static bool takesValue(const std::string &name) {
  static const char *const names[] = {
      "--function",       "--weights", "--compile-options", "--input",
      "--output",         "--expect",  "--tokens",          "--rtol",
      "--atol",           "--seed",    "--repeat",          "--threads",
      "--record-routing", "--device",  "--table",           "--deadline",
      "--chunks",         "--way"};
  for (const char *known : names)
    if (name == known)
      return true;
  return false;
}

std::pair<std::string, std::string>
moe::run::splitNamed(const std::string &value) {
  size_t equals = value.find('=');
  if (equals == std::string::npos || equals == 0 || value.find('/') < equals)
    return {"", value};
  return {value.substr(0, equals), value.substr(equals + 1)};
}

/// True if two paths refer to one file, which may not exist yet.
static bool isSameFile(const std::string &a, const std::string &b) {
  struct stat first, second;
  if (stat(a.c_str(), &first) != 0 || stat(b.c_str(), &second) != 0)
    return a == b;
  return first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

/// Lists the files of the weights: `source`, or what a reader opens in that
/// directory.
static std::vector<std::string> listWeightFiles(const std::string &source) {
  std::vector<std::string> files = {source};
  if (DIR *directory = opendir(source.c_str())) {
    while (const dirent *entry = readdir(directory)) {
      std::string name = entry->d_name;
      size_t dot = name.rfind('.');
      std::string end = dot == std::string::npos ? "" : name.substr(dot);
      if (end == ".safetensors" || end == ".json")
        files.push_back(source + "/" + name);
    }
    closedir(directory);
  }
  return files;
}

/// A file that is written must not be read or written again.
static Expected<void> checkFiles(const Options &options) {
  std::vector<std::string> taken = listWeightFiles(options.weights);
  taken.push_back(options.program);
  taken.push_back(options.table);
  for (const auto *values : {&options.inputs, &options.expects})
    for (const std::string &value : *values)
      taken.push_back(splitNamed(value).second);
  std::vector<std::pair<const char *, std::string>> written;
  for (const std::string &value : options.outputs)
    written.emplace_back("--output", splitNamed(value).second);
  if (!options.routingFile.empty())
    written.emplace_back("--record-routing", options.routingFile);
  for (const auto &[option, file] : written) {
    for (const std::string &other : taken)
      if (isSameFile(file, other))
        return Error{std::string(option) + ": '" + file +
                     "' is also an input or another output, expected another "
                     "file"};
    taken.push_back(file);
  }
  return {};
}

static Expected<void> checkCombination(const Options &options) {
  if (options.program.empty())
    return Error{"expected a program; see --help"};
  if (!options.tokens.empty() && !options.inputs.empty())
    return Error{"expected either --tokens or --input, got both"};
  if (options.tokens.size() > 1 &&
      (!options.outputs.empty() || !options.expects.empty()))
    return Error{"--output and --expect need one number of tokens, there are " +
                 std::to_string(options.tokens.size())};
  if (options.engine.empty()) {
    const char *ofRanks = !options.table.empty()                ? "--table"
                          : options.chunks > 1                  ? "--chunks"
                          : options.replicated                  ? "--replicated"
                          : options.way != MOE_RT_WAY_AUTOMATIC ? "--way"
                                                                : nullptr;
    if (ofRanks)
      return Error{std::string(ofRanks) +
                   " is for layers over several ranks, expected --ep"};
    return checkFiles(options);
  }
  if (options.device.device_type != kDLCPU)
    return Error{"--ep: ranks run on the CPU only, expected no --device"};
  if (options.stats || !options.routingFile.empty())
    return Error{"--ep: a layer over several ranks counts no dispatches, "
                 "expected no --stats and no --record-routing"};
  return checkFiles(options);
}

Expected<Options> moe::run::parseOptions(int argc, const char *const *argv) {
  Options options;
  bool onlyOperands = false;
  for (int i = 1; i < argc; ++i) {
    std::string argument = argv[i];
    if (onlyOperands || argument.empty() || argument[0] != '-') {
      if (!options.program.empty())
        return Error{"unexpected argument '" + argument +
                     "', the program is '" + options.program + "'"};
      options.program = argument;
      continue;
    }
    if (argument == "--") {
      onlyOperands = true;
      continue;
    }
    if (argument == "--ep" || argument.compare(0, 5, "--ep=") == 0) {
      std::string engine = argument == "--ep" ? "mpi" : argument.substr(5);
      if (Expected<void> result = applyEngine(engine, options); !result)
        return result.takeError();
      continue;
    }
    if (bool *flag = findFlag(argument, options)) {
      *flag = true;
      continue;
    }
    size_t equals = argument.find('=');
    std::string name = argument.substr(0, equals);
    if (!takesValue(name))
      return Error{"unknown option '" + argument + "'; see --help"};
    std::string value;
    if (equals != std::string::npos)
      value = argument.substr(equals + 1);
    else if (++i < argc)
      value = argv[i];
    else
      return Error{name + " needs a value"};
    if (Expected<void> result = applyValue(name, value, options); !result)
      return result.takeError();
  }
  if (!options.help && !options.version)
    if (Expected<void> result = checkCombination(options); !result)
      return result.takeError();
  return options;
}
