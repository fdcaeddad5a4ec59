//===- Options.cpp - Options of a compilation -----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Driver/Options.h"
#include "WeightFormat.h"
#include "moe/Analysis/Imbalance.h"
#include "moe/Analysis/MachineRates.h"
#include "moe/Analysis/Units.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"

using namespace mlir::moe;
using llvm::StringRef;

static constexpr CompileOptionInfo compileOptions[] = {
    {"target", "names",
     "Targets, the preferred one first: host, CPUs such as "
     "x86-64-v4,x86-64-v3, and NVIDIA GPUs such as sm_90a,sm_80. The runtime "
     "uses the first one that the requested device supports (default: host)",
     &CompileOptions::target},
    {"pipeline", "name",
     "Pass pipeline to the LLVM dialect: moe-cpu (with a GPU target, moe-gpu), "
     "moe-reference, or a textual pipeline (default: moe-cpu)",
     &CompileOptions::pipeline},
    {"routes", "mode",
     "Routes of the layer's dispatches: record, as outputs route_ids and "
     "route_weights; replay, as inputs of these names; or replay-ids, whose "
     "weights the gate computes",
     &CompileOptions::routes},
    {"backward", "arguments",
     "Adds the backward function of each layer, NAME_backward, with the "
     "gradients by these arguments, names or numbers separated by commas, or "
     "all. The layer returns what that takes after its results",
     &CompileOptions::backward},
    {"f32-gradients", "arguments",
     "Of the arguments of --backward of a static shape, those whose gradient "
     "is f32, names or numbers, or all (default: none)",
     &CompileOptions::f32Gradients},
    {"accumulate", "arguments",
     "Of the arguments of --backward of a static shape, those whose gradient "
     "is added to what the memory of the result has, names or numbers, or all "
     "(default: none)",
     &CompileOptions::accumulate},
    {"save", "what",
     "What a layer saves for its backward function: accumulators, or routes "
     "alone, and products are computed again (default: accumulators)",
     &CompileOptions::save},
    {"parallel", "slots[:replicas][,key=value]",
     "Spreads the experts over ranks: a rank holds at most this many experts, "
     "or, with ranks=N in place of slots, as many as N ranks need, and an "
     "expert is on at most so many ranks (default: 1). With reduce=per_rank a "
     "rank adds up the rows of a token before they go home, in other bits than "
     "one rank has; with scope=rank capacities are of the tokens of each rank. "
     "The runtime needs a group of ranks to run such a layer",
     &CompileOptions::parallel},
    {"quantize", "format",
     "Format in which the layer keeps the 16- or 32-bit weights of its experts "
     "and shared experts: int4[:GROUP], int8[:GROUP], mxfp4 or "
     "fp8[:ROWSxCOLUMNS]. Weights are rounded when they are loaded; moe-run "
     "reports the error",
     &CompileOptions::quantize},
    {"activations", "kind",
     "How rows enter the matmuls of quantised weights on CPUs: exact, or int8, "
     "rounded in groups of 32 (default: int8 for GGUF files, else exact)",
     &CompileOptions::activations},
    {"tokens", "min:max",
     "Range of T, the tokens of a call (default: moe.tokens of the function, "
     "else every T; with --emit=plan, 1:8192)",
     &CompileOptions::tokens},
    {"memory-limit", "bytes",
     "Upper bound of the workspace, such as 4096, 64MiB or 0.5GiB; calls that "
     "need more run in chunks of tokens",
     &CompileOptions::memoryLimit},
    {"imbalance", "model",
     "Routing model that the plan assumes: worst, uniform[:DELTA], "
     "zipf:S[:DELTA] or histogram:FILE[:DELTA] (default: uniform)",
     &CompileOptions::imbalance},
    {"gpu", "name",
     "GPU whose peak rates the plan uses, such as h100-pcie (default: by the "
     "architecture of the target)",
     &CompileOptions::gpu},
    {"flops", "rate",
     "Peak FLOP/s that the plan uses, such as 1e12 or 2TFLOP/s (default: of "
     "the target; for a CPU from its vector width and the cores and clock of "
     "this machine)",
     &CompileOptions::flops},
    {"bandwidth", "rate",
     "Memory bandwidth that the plan uses, such as 1e11 or 100GB/s (default: "
     "of the target; for a CPU assumed from its cores)",
     &CompileOptions::bandwidth},
};

llvm::ArrayRef<CompileOptionInfo> mlir::moe::getCompileOptions() {
  return compileOptions;
}

/// Parses KEY=VALUE behind the slots of `--parallel`.
static bool parseParallelField(StringRef text, ParallelOption &parsed) {
  auto [key, value] = text.split('=');
  auto take = [&](StringRef other, StringRef standard, bool &field) {
    field = value == other;
    return field || value == standard;
  };
  if (key == "reduce")
    return take("per_rank", "ordered", parsed.reducesPerRank);
  if (key == "scope")
    return take("rank", "group", parsed.isOfRank);
  return false;
}

std::optional<ParallelOption> mlir::moe::parseParallel(StringRef text) {
  ParallelOption parsed;
  llvm::SmallVector<StringRef> fields;
  text.split(fields, ',');
  text = fields.front();
  bool byRanks = text.consume_front("ranks=");
  auto [number, replicas] = text.split(':');
  auto isInvalid = [](StringRef text, int64_t &value) {
    return text.getAsInteger(10, value) || value < 1 || value > INT32_MAX;
  };
  if (isInvalid(number, byRanks ? parsed.ranks : parsed.slots) ||
      (text.contains(':') && isInvalid(replicas, parsed.replicas)) ||
      !llvm::all_of(llvm::ArrayRef(fields).drop_front(), [&](StringRef field) {
        return parseParallelField(field, parsed);
      }))
    return std::nullopt;
  return parsed;
}

bool CompileOptions::wantsPlan() const {
  return llvm::any_of(ArrayRef<const std::string *>{&tokens, &memoryLimit,
                                                    &imbalance, &gpu, &flops,
                                                    &bandwidth},
                      [](const std::string *value) { return !value->empty(); });
}

llvm::Error CompileOptions::verify() const {
  if (!quantize.empty())
    if (auto format = WeightFormat::parse(quantize); !format)
      return format.takeError();
  auto expected = [](StringRef option, StringRef what, StringRef value) {
    return llvm::createStringError("--" + option + ": expected " + what +
                                   ", got '" + value + "'");
  };
  if (!routes.empty() && routes != "record" && routes != "replay" &&
      routes != "replay-ids")
    return expected("routes", "record, replay or replay-ids", routes);
  if (!save.empty() && save != "accumulators" && save != "routes")
    return expected("save", "accumulators or routes", save);
  if (!parallel.empty() && !parseParallel(parallel))
    return expected("parallel",
                    "SLOTS[:REPLICAS] or ranks=N[:REPLICAS], each between 1 "
                    "and 2^31 - 1, then any of ,reduce=ordered|per_rank and "
                    ",scope=group|rank",
                    parallel);
  if (!activations.empty() && activations != "exact" && activations != "int8")
    return expected("activations", "exact or int8", activations);
  if (!tokens.empty() && !parseTokenRange(tokens))
    return expected("tokens", "MIN:MAX with 0 <= MIN <= MAX", tokens);
  if (!memoryLimit.empty() && !parseBytes(memoryLimit))
    return expected("memory-limit",
                    "bytes within 64 bits, such as 4096, 64MiB or 0.5GiB",
                    memoryLimit);
  if (!flops.empty() && !parseFlops(flops))
    return expected("flops", "a rate above 0, such as 1e12 or 2TFLOP/s", flops);
  if (!bandwidth.empty() && !parseBandwidth(bandwidth))
    return expected("bandwidth", "a rate above 0, such as 1e11 or 100GB/s",
                    bandwidth);
  if (!gpu.empty() && !findGPURates(gpu))
    return expected(
        "gpu", "one of " + llvm::join(listGPUs(), ", ") + " or an architecture",
        gpu);
  if (!imbalance.empty())
    if (auto model = Imbalance::parse(imbalance); !model)
      return llvm::createStringError("--imbalance: " +
                                     llvm::toString(model.takeError()));
  return llvm::Error::success();
}

llvm::Expected<CompileOptions> mlir::moe::parseCompileOptions(StringRef text) {
  CompileOptions options;
  llvm::SmallVector<StringRef> words;
  text.split(words, ' ', -1, /*KeepEmpty=*/false);
  for (StringRef word : words) {
    auto [name, value] = word.split('=');
    const auto *info =
        llvm::find_if(compileOptions, [&](const CompileOptionInfo &each) {
          return name == ("--" + each.name).str() && word.contains('=');
        });
    if (info == std::end(compileOptions)) {
      std::string known;
      for (const CompileOptionInfo &each : compileOptions)
        known += (known.empty() ? "--" : ", --") + each.name.str() + "=" +
                 llvm::StringRef(each.value).upper();
      return llvm::createStringError("unknown option '" + word +
                                     "'; expected one of " + known);
    }
    options.*info->field = value.str();
  }
  if (llvm::Error error = options.verify())
    return error;
  return options;
}
