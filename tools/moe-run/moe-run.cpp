//===- moe-run.cpp - Run a compiled MoE program ---------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Runs a function of a compiled program on files, compares the results with
// files, or measures its speed.
//
//===----------------------------------------------------------------------===//

#include "inputs.h"
#include "report.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <numeric>

using namespace moe;
using namespace moe::run;
using moe::io::Error;
using moe::io::Expected;
using moe::io::Tensor;

// A benchmark warms up for at least this long and this many calls.
static constexpr double warmUpSeconds = 0.2;
static constexpr int warmUpCalls = 3;
static constexpr int64_t defaultRepetitions = 20;

static double now() {
  using namespace std::chrono;
  return duration<double>(steady_clock::now().time_since_epoch()).count();
}

namespace {

/// The tensors for one number of tokens, and calls on them.
class Session {
public:
  static Expected<Session> create(const Program &program,
                                  std::vector<Tensor> inputs, int64_t tokens);

  Expected<void> call();
  /// Collects the results of all ranks, which have tokens[r] of them, on rank
  /// 0.
  Expected<void> collect(const std::vector<int64_t> &tokens);
  Expected<Timing> benchmark(int64_t repetitions);
  /// True if repeated calls yield the same bits.
  Expected<bool> repeat(int64_t count);

  /// Copies the results of the last call to the host.
  Expected<void> fetch();
  const std::vector<Tensor> &results() const {
    return program.ranks() ? collected : outputs;
  }
  uint64_t workspaceBytes() const { return workspaceSize; }

private:
  explicit Session(const Program &program) : program(program) {}
  Expected<DLTensor> toDevice(Tensor &tensor);
  Expected<void> makeWorkspace(int64_t tokens);
  Expected<bool> warmsUp(int calls, double start) const;

  const Program &program;
  std::vector<Tensor> inputs, outputs;
  std::vector<Tensor> collected; // of all ranks, on rank 0
  std::vector<DLTensor> inputViews, outputViews;
  std::optional<Tensor> hostWorkspace;
  uint64_t workspaceSize = 0;
  void *workspace = nullptr;
  /// On a GPU: device buffers of inputs, outputs and workspace.
  std::vector<Device::Buffer> buffers;
};

} // namespace

Expected<Session> Session::create(const Program &program,
                                  std::vector<Tensor> inputs, int64_t tokens) {
  Session session(program);
  session.inputs = std::move(inputs);
  for (const Signature &signature : program.outputs()) {
    Expected<Tensor> tensor = Tensor::create(
        signature.dtype, signature.shapeFor(tokens), signature.alignment);
    if (!tensor)
      return Error{"output '" + signature.name + "': " + tensor.error()};
    // All bits set is a NaN or -1, which exposes elements that are not written.
    std::memset(tensor->data(), 0xff, tensor->bytes());
    session.outputs.push_back(std::move(*tensor));
  }
  for (auto [tensors, views] :
       {std::pair(&session.inputs, &session.inputViews),
        std::pair(&session.outputs, &session.outputViews)})
    for (Tensor &tensor : *tensors) {
      Expected<DLTensor> view = session.toDevice(tensor);
      if (!view)
        return view.takeError();
      views->push_back(*view);
    }
  if (Expected<void> made = session.makeWorkspace(tokens); !made)
    return made.takeError();
  return session;
}

/// Returns the tensor as calls need it: on a GPU, a copy in device memory.
Expected<DLTensor> Session::toDevice(Tensor &tensor) {
  DLTensor view = tensor.dlpack();
  const Device *device = program.device();
  if (!device)
    return view;
  Expected<Device::Buffer> buffer = device->allocate(tensor.bytes());
  if (!buffer)
    return buffer.takeError();
  if (Expected<void> copied =
          device->upload(*buffer, tensor.data(), tensor.bytes());
      !copied)
    return copied.takeError();
  view.data = buffer->data();
  view.device = device->place();
  buffers.push_back(std::move(*buffer));
  return view;
}

Expected<void> Session::makeWorkspace(int64_t tokens) {
  if (moe_rt_status_t status =
          moe_rt_layer_workspace_bytes(program.layer(), tokens, &workspaceSize))
    return takeStatus(status);
  if (program.ranks())
    return {}; // it is the group's
  if (const Device *device = program.device()) {
    Expected<Device::Buffer> buffer = device->allocate(workspaceSize);
    if (!buffer)
      return Error{"workspace: " + buffer.error()};
    workspace = buffer->data();
    buffers.push_back(std::move(*buffer));
    return {};
  }
  Expected<Tensor> tensor =
      Tensor::create({kDLUInt, 8, 1}, {static_cast<int64_t>(workspaceSize)});
  if (!tensor)
    return Error{"workspace: " + tensor.error()};
  workspace = tensor->data();
  hostWorkspace = std::move(*tensor);
  return {};
}

Expected<void> Session::call() {
  if (moe_rt_status_t status = moe_rt_layer_call(
          program.layer(), inputViews.data(), inputViews.size(),
          outputViews.data(), outputViews.size(), workspace,
          workspace ? workspaceSize : 0))
    return takeStatus(status);
  return {};
}

Expected<void> Session::collect(const std::vector<int64_t> &tokens) {
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (program.isReplicated() || program.outputs()[i].shape.empty() ||
        program.outputs()[i].shape[0] >= 0) {
      Expected<Tensor> copy =
          Tensor::create(outputs[i].dtype(), outputs[i].shape());
      std::string_view bytes(static_cast<const char *>(outputs[i].data()),
                             outputs[i].bytes());
      Expected<std::vector<int64_t>> told = program.ranks()->tell(
          copy ? Expected<void>() : copy.takeError(),
          static_cast<int64_t>(std::hash<std::string_view>()(bytes)));
      if (!told)
        return told.takeError();
      if (std::count(told->begin(), told->end(), told->front()) !=
          static_cast<ptrdiff_t>(told->size()))
        return Error{"output '" + program.outputs()[i].name +
                     (program.isReplicated() ? "' differs between ranks"
                                             : "' is not of tokens") +
                     ", expected the same on all ranks"};
      std::memcpy(copy->data(), outputs[i].data(), outputs[i].bytes());
      collected.push_back(std::move(*copy));
      continue;
    }
    Expected<Tensor> whole = program.ranks()->collect(outputs[i], tokens);
    if (!whole)
      return Error{"output '" + program.outputs()[i].name +
                   "': " + whole.error()};
    collected.push_back(std::move(*whole));
  }
  return {};
}

Expected<void> Session::fetch() {
  const Device *device = program.device();
  for (size_t i = 0; device && i < outputs.size(); ++i)
    if (Expected<void> copied = device->download(
            outputs[i].data(), buffers[inputs.size() + i], outputs[i].bytes());
        !copied)
      return copied;
  return {};
}

/// Whether to call once more before a measurement, which rank 0 decides.
Expected<bool> Session::warmsUp(int calls, double start) const {
  bool own = calls < warmUpCalls || now() - start < warmUpSeconds;
  if (!program.ranks())
    return own;
  Expected<std::vector<int64_t>> told = program.ranks()->tell({}, own);
  if (!told)
    return told.takeError();
  return (*told)[0] != 0;
}

Expected<Timing> Session::benchmark(int64_t repetitions) {
  double start = now();
  for (int i = 0;; ++i) {
    Expected<bool> goesOn = warmsUp(i, start);
    if (!goesOn)
      return goesOn.takeError();
    if (!*goesOn)
      break;
    if (Expected<void> result = call(); !result)
      return result.takeError();
  }
  // Statistics cover only the timed calls.
  moe_rt_layer_reset_statistics(program.layer());

  io::ProgressBar bar("measuring");
  std::vector<double> times;
  for (int64_t i = 0; i < repetitions; ++i) {
    double begin = now();
    if (Expected<void> result = call(); !result)
      return result.takeError();
    times.push_back(now() - begin);
    bar.update(static_cast<uint64_t>(i + 1),
               static_cast<uint64_t>(repetitions));
  }
  std::sort(times.begin(), times.end());
  size_t middle = times.size() / 2;
  double median = times.size() % 2 ? times[middle]
                                   : (times[middle - 1] + times[middle]) / 2;
  return Timing{times.size(), median, times.front(), times.back()};
}

Expected<bool> Session::repeat(int64_t count) {
  if (Expected<void> result = call(); !result)
    return result.takeError();
  if (Expected<void> result = fetch(); !result)
    return result.takeError();
  std::vector<std::string> first;
  for (const Tensor &output : outputs)
    first.emplace_back(static_cast<const char *>(output.data()),
                       output.bytes());
  io::ProgressBar bar("repeating");
  bool same = true;
  for (int64_t i = 1; i < count; ++i) {
    if (Expected<void> result = call(); !result)
      return result.takeError();
    if (Expected<void> result = fetch(); !result)
      return result.takeError();
    for (size_t j = 0; j < outputs.size(); ++j)
      same &= !std::memcmp(first[j].data(), outputs[j].data(), first[j].size());
    // Ranks make as many calls.
    if (!same && !program.ranks())
      return false;
    bar.update(static_cast<uint64_t>(i + 1), static_cast<uint64_t>(count));
  }
  if (!program.ranks())
    return same;
  Expected<std::vector<int64_t>> told = program.ranks()->tell({}, same);
  if (!told)
    return told.takeError();
  return std::count(told->begin(), told->end(), 0) == 0;
}

/// Writes, compares and summarises the results.
static Expected<std::vector<OutputResult>>
processOutputs(const Options &options, const Program &program,
               const std::vector<Tensor> &outputs) {
  const std::vector<Signature> &signature = program.outputs();
  Expected<std::vector<std::string>> files =
      assignFiles("--output", options.outputs, signature);
  if (!files)
    return files.takeError();
  Expected<std::vector<std::string>> expects =
      assignFiles("--expect", options.expects, signature);
  if (!expects)
    return expects.takeError();
  std::vector<OutputResult> results;
  for (size_t i = 0; i < outputs.size(); ++i) {
    io::TensorView view = outputs[i].view();
    OutputResult result;
    result.name = signature[i].name;
    result.type = io::typeName(view.dtype, view.shape);
    result.summary = summarize(view);
    result.file = (*files)[i];
    if (!result.file.empty())
      if (Expected<void> written = io::writeNpy(result.file, view); !written)
        return written.takeError();
    if (const std::string &path = (*expects)[i]; !path.empty()) {
      Expected<Tensor> expected = readTensor(path, result.name);
      if (!expected)
        return expected.takeError();
      Expected<Comparison> comparison = compare(
          result.name, view, expected->view(), options.rtol, options.atol);
      if (!comparison)
        return comparison.takeError();
      result.comparison = std::move(*comparison);
    }
    results.push_back(std::move(result));
  }
  return results;
}

static Expected<std::vector<DispatchCounts>>
readStatistics(const Program &program) {
  std::vector<DispatchCounts> result;
  size_t count = moe_rt_layer_dispatch_count(program.layer());
  for (size_t i = 0; i < count; ++i) {
    moe_rt_statistics_t statistics;
    if (moe_rt_status_t status =
            moe_rt_layer_statistics(program.layer(), i, &statistics))
      return takeStatus(status);
    result.push_back({std::vector<int64_t>(statistics.tokens_per_expert,
                                           statistics.tokens_per_expert +
                                               statistics.num_experts),
                      statistics.top_k, statistics.calls, statistics.choices,
                      statistics.dropped, statistics.padding});
  }
  return result;
}

static Expected<RunResult> runWith(const Options &options,
                                   const Program &program,
                                   Expected<std::vector<Tensor>> inputs) {
  Ranks *ranks = program.ranks();
  // The ranks hear of one another's tokens, and of inputs that are wrong.
  int64_t tokens = 0;
  std::vector<int64_t> tokensOf;
  if (inputs)
    tokens = findTokens(program, *inputs).value_or(program.maxTokens());
  if (ranks) {
    Expected<std::vector<int64_t>> told = ranks->tell(
        inputs ? Expected<void>() : Expected<void>(inputs.takeError()), tokens);
    if (!told)
      return told.takeError();
    tokensOf = std::move(*told);
  } else if (!inputs) {
    return inputs.takeError();
  }
  Expected<Session> session =
      Session::create(program, std::move(*inputs), tokens);
  if (Expected<void> agreed =
          agree(ranks, session ? Expected<void>() : session.takeError());
      !agreed)
    return agreed.takeError();
  RunResult result;
  result.tokens =
      ranks && !program.isReplicated()
          ? std::accumulate(tokensOf.begin(), tokensOf.end(), int64_t(0))
          : tokens;
  result.workspaceBytes = session->workspaceBytes();
  moe_rt_layer_reset_statistics(program.layer());
  if (options.benchmark) {
    Expected<Timing> timing =
        session->benchmark(options.repeat.value_or(defaultRepetitions));
    if (!timing)
      return timing.takeError();
    result.timing = *timing;
  } else if (options.repeat) {
    Expected<bool> same = session->repeat(*options.repeat);
    if (!same)
      return same.takeError();
    result.repeated = true;
    result.reproducible = *same;
  } else if (Expected<void> called = session->call(); !called) {
    return called.takeError();
  }
  if (Expected<void> fetched = session->fetch(); !fetched)
    return fetched.takeError();
  if (ranks) {
    moe_rt_exchange_statistics_t exchange;
    if (moe_rt_status_t status =
            moe_rt_layer_exchange_statistics(program.layer(), &exchange))
      return takeStatus(status);
    result.exchange = exchange;
    if (Expected<void> collected = session->collect(tokensOf); !collected)
      return collected.takeError();
  }
  // The results of all are on rank 0; a profile is of all ranks.
  Expected<std::vector<OutputResult>> outputs =
      ranks && ranks->rank() > 0
          ? std::vector<OutputResult>()
          : processOutputs(options, program, session->results());
  if (Expected<void> agreed =
          agree(ranks, outputs ? Expected<void>() : outputs.takeError());
      !agreed)
    return agreed.takeError();
  result.outputs = std::move(*outputs);
  Expected<std::vector<DispatchCounts>> counts = readStatistics(program);
  if (!counts)
    return counts.takeError();
  result.dispatches = std::move(*counts);
  if (options.profile) {
    Expected<ProfileResult> profiled =
        profile(program, options.repeat.value_or(defaultRepetitions),
                [&] { return session->call(); });
    if (!profiled)
      return profiled.takeError();
    result.profile = std::move(*profiled);
  }
  return result;
}

/// True if the function depends on T.
static bool hasTokens(const Program &program) {
  auto dynamic = [](const Signature &signature) {
    return std::count(signature.shape.begin(), signature.shape.end(), -1) > 0;
  };
  return std::any_of(program.inputs().begin(), program.inputs().end(),
                     dynamic) ||
         std::any_of(program.outputs().begin(), program.outputs().end(),
                     dynamic);
}

static Expected<std::vector<RunResult>> runAll(const Options &options,
                                               const Program &program) {
  std::vector<RunResult> results;
  if (!options.inputs.empty()) {
    Expected<RunResult> result =
        runWith(options, program, readInputs(program, options.inputs));
    if (!result)
      return result.takeError();
    results.push_back(std::move(*result));
    return results;
  }
  std::vector<int64_t> sizes = options.tokens;
  if (sizes.empty() && !hasTokens(program))
    sizes = {program.maxTokens()};
  if (sizes.empty())
    return Error{"give the inputs with --input, or --tokens to draw them"};
  for (int64_t tokens : sizes) {
    Expected<RunResult> result =
        runWith(options, program, drawInputs(program, tokens, options.seed));
    if (!result)
      return result.takeError();
    results.push_back(std::move(*result));
  }
  return results;
}

static int fail(const Error &error, const Ranks *ranks = nullptr) {
  std::string rank;
  if (ranks) {
    // One rank tells what happened to others, which do so, too.
    if (ranks->isOfOthers() && ranks->rank() > 0)
      return 2;
    rank = "rank " + std::to_string(ranks->rank()) + ": ";
    if (error.message.compare(0, rank.size(), rank) == 0)
      rank.clear();
  }
  std::fprintf(stderr, "moe-run: error: %s%s\n", rank.c_str(),
               error.message.c_str());
  return 2;
}

/// Runs the program, on one rank of several.
static int runProgram(const Options &options, Ranks *ranks) {
  Expected<std::unique_ptr<Program>> program = Program::open(options, ranks);
  if (!program)
    return fail(program.takeError(), ranks);
  Expected<std::vector<RunResult>> results = runAll(options, **program);
  if (!results)
    return fail(results.takeError(), ranks);
  if (ranks && ranks->rank() > 0)
    return 0;
  if (!options.routingFile.empty())
    if (Expected<void> result = recordRouting(options.routingFile, *results);
        !result)
      return fail(result.takeError());
  if (options.json)
    printJson(options, **program, *results);
  else
    printText(options, **program, *results);
  if (std::fflush(stdout) != 0)
    return fail(Error{"cannot write the report"});
  for (const RunResult &result : *results)
    if (!result.passed())
      return 1;
  return 0;
}

int main(int argc, char **argv) {
  Expected<Options> options = parseOptions(argc, argv);
  if (!options)
    return fail(options.takeError());
  if (options->help) {
    std::fputs(helpText, stdout);
    return 0;
  }
  if (options->version) {
    std::printf("moe-run %s\n", moe_rt_version());
    return 0;
  }
  return runRanks(*options, runProgram);
}
