//===- MoECompileMain.cpp - Compile IR or a checkpoint --------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Tools/MoECompileMain.h"
#include "moe/Driver/Driver.h"
#include "moe/Import/GGUF.h"
#include "moe/Import/HuggingFace.h"
#include "moe/Target/Remarks.h"
#include "moe_rt/moe_rt.h"

#include "mlir/Parser/Parser.h"
#include "mlir/Support/FileUtilities.h"
#include "llvm/Config/llvm-config.h"
#include "llvm/Support/CommandLine.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/InitLLVM.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/Process.h"
#include "llvm/Support/SourceMgr.h"
#include "llvm/Support/ToolOutputFile.h"
#include "llvm/Support/WithColor.h"

#include <csignal>
#include <deque>

using namespace mlir;
namespace cl = llvm::cl;

namespace {
enum class Emit {
  MLIR,
  Plan,
  PlanJSON,
  LLVMDialect,
  LLVM,
  Assembly,
  PTX,
  Object,
  Artifact
};

/// The options of the tool, and what it does with them. None of them exists
/// before it runs: other tools in this library have some of the same names.
class CompileTool {
public:
  int run(int argc, char **argv);

private:
  cl::OptionCategory category{"moe-compile options"};

  cl::opt<std::string> input{cl::Positional, cl::desc("<layer.mlir>"),
                             cl::init("-"), cl::cat(category)};
  cl::opt<std::string> output{"o", cl::desc("Output file; - is stdout"),
                              cl::value_desc("file"), cl::init("-"),
                              cl::cat(category)};
  cl::opt<std::string> checkpoint{
      "hf",
      cl::desc("Import a layer of a Hugging Face checkpoint, or of a "
               "config.json alone, instead of reading IR"),
      cl::value_desc("directory"), cl::cat(category)};
  cl::opt<std::string> gguf{
      "gguf", cl::desc("Import a layer of a .gguf file instead of reading IR"),
      cl::value_desc("file"), cl::cat(category)};
  cl::opt<std::string> layer{
      "layer",
      cl::desc("Index of the layer, or all: a function layer_N for each with "
               "experts (with --hf or --gguf)"),
      cl::value_desc("n|all"), cl::init("0"), cl::cat(category)};
  cl::opt<std::string> dataType{
      "dtype",
      cl::desc("Element type of the layer: f32, f16 or bf16 (default: "
               "with --hf that of the checkpoint, with --gguf f32)"),
      cl::value_desc("type"), cl::cat(category)};
  /// Stores each option of the driver in its field.
  moe::CompileOptions options;
  std::deque<cl::opt<std::string, true>> driverOptions;
  void addDriverOptions() {
    for (const moe::CompileOptionInfo &info : moe::getCompileOptions())
      driverOptions.emplace_back(StringRef(info.name), cl::desc(info.help),
                                 cl::value_desc(info.value), cl::cat(category),
                                 cl::location(options.*info.field));
  }

  cl::opt<Emit> emit{
      "emit", cl::desc("Output format:"), cl::init(Emit::Artifact),
      cl::values(
          clEnumValN(Emit::MLIR, "mlir", "the layer in the moe dialect"),
          clEnumValN(Emit::Plan, "plan",
                     "capacity plan: bounds, kernel variants, memory, cost"),
          clEnumValN(Emit::PlanJSON, "plan-json", "the capacity plan as JSON"),
          clEnumValN(Emit::LLVMDialect, "llvm-dialect",
                     "the layer in the LLVM dialect, after the pipeline"),
          clEnumValN(Emit::LLVM, "llvm", "LLVM IR"),
          clEnumValN(Emit::Assembly, "asm", "assembly"),
          clEnumValN(Emit::PTX, "ptx", "PTX of the GPU kernels"),
          clEnumValN(Emit::Object, "obj", "an object file"),
          clEnumValN(
              Emit::Artifact, "artifact",
              "an artifact that moe-run and the runtime load (default)")),
      cl::cat(category)};

  cl::opt<std::string> ranks{
      "ep",
      cl::desc("Not here: `python -m moe plan LAYER --ep=N[xM]` has the plan "
               "of ranks"),
      cl::value_desc("ranks"), cl::Hidden, cl::cat(category)};

  cl::opt<bool> printRemarks{
      "remarks",
      cl::desc("Print what was fused and what was not, with the reason"),
      cl::cat(category)};

  bool overwritesInput() const;
  int write(llvm::StringRef bytes);
  template <typename Bytes> int write(llvm::Expected<Bytes> bytes);
  OwningOpRef<ModuleOp> read(MLIRContext &context, llvm::SourceMgr &sources);
  int compile(ModuleOp module, const moe::RemarkListener &remarks);
};
} // namespace

static int fail(llvm::Error error) {
  llvm::handleAllErrors(std::move(error), [](const llvm::ErrorInfoBase &info) {
    llvm::WithColor::error(llvm::errs(), "moe-compile")
        << info.message() << "\n";
  });
  return 1;
}

/// True if the output is an input under any name: a file of the checkpoint, the
/// IR or a histogram.
bool CompileTool::overwritesInput() const {
  auto isOutput = [this](llvm::StringRef path) {
    // False if either does not exist.
    bool same = false;
    return !llvm::sys::fs::equivalent(path, output, same) && same;
  };
  if (output == "-")
    return false;
  llvm::StringRef histogram = options.imbalance;
  if (histogram.consume_front("histogram:") &&
      (isOutput(histogram) || isOutput(histogram.rsplit(':').first)))
    return true;
  if (!gguf.empty())
    return isOutput(gguf);
  if (checkpoint.empty())
    return input != "-" && isOutput(input);
  llvm::StringRef directory = checkpoint;
  if (!llvm::sys::fs::is_directory(directory))
    directory = llvm::sys::path::parent_path(directory);
  std::error_code code;
  llvm::sys::fs::directory_iterator entry(directory.empty() ? "." : directory,
                                          code),
      end;
  for (; !code && entry != end; entry.increment(code)) {
    llvm::StringRef extension = llvm::sys::path::extension(entry->path());
    if ((extension == ".json" || extension == ".safetensors") &&
        isOutput(entry->path()))
      return true;
  }
  return false;
}

/// Writes all bytes or, on an error, nothing.
int CompileTool::write(llvm::StringRef bytes) {
  bool text = emit != Emit::Object && emit != Emit::Artifact;
  if (output == "-" && !text && llvm::outs().is_displayed())
    return fail(llvm::createStringError(
        "refusing to write binary output to a terminal; expected -o FILE"));
  std::string message;
  std::unique_ptr<llvm::ToolOutputFile> file = openOutputFile(output, &message);
  if (!file)
    return fail(llvm::createStringError(message));
  file->os() << bytes;
  file->os().flush();
  if (file->os().has_error()) {
    llvm::Error error = llvm::createStringError(
        "cannot write " + output + ": " + file->os().error().message());
    file->os().clear_error();
    return fail(std::move(error));
  }
  file->keep();
  return 0;
}

template <typename Bytes> int CompileTool::write(llvm::Expected<Bytes> bytes) {
  if (!bytes)
    return fail(bytes.takeError());
  return write(llvm::StringRef(bytes->data(), bytes->size()));
}

template <typename T> static std::string print(T &&value) {
  std::string text;
  llvm::raw_string_ostream stream(text);
  value.print(stream);
  stream << "\n";
  return text;
}

/// Reads the layer to compile, from IR or a checkpoint; null after an error.
OwningOpRef<ModuleOp> CompileTool::read(MLIRContext &context,
                                        llvm::SourceMgr &sources) {
  bool all = layer == "all";
  int64_t index = 0;
  if (!all && StringRef(layer).getAsInteger(10, index)) {
    fail(llvm::createStringError("--layer: expected an index or all, got '" +
                                 layer + "'"));
    return {};
  }
  if (!gguf.empty()) {
    auto module = moe::importGGUFLayer(context, gguf, {index, all, dataType});
    if (module)
      return std::move(*module);
    fail(module.takeError());
    return {};
  }
  if (checkpoint.empty()) {
    std::string message;
    std::unique_ptr<llvm::MemoryBuffer> buffer = openInputFile(input, &message);
    if (!buffer && llvm::sys::fs::is_directory(input))
      message += "; the directory of a checkpoint is given with --hf";
    else if (buffer && buffer->getBuffer().starts_with("\x7f"
                                                       "ELF"))
      message =
          "expected IR, got an object file or an artifact: '" + input + "'";
    if (!message.empty()) {
      fail(llvm::createStringError(message));
      return {};
    }
    sources.AddNewSourceBuffer(std::move(buffer), llvm::SMLoc());
    return parseSourceFile<ModuleOp>(sources, &context);
  }
  moe::HuggingFaceOptions import;
  import.layer = index;
  import.allLayers = all;
  import.dtype = dataType;
  auto module = moe::importHuggingFaceLayer(context, checkpoint, import);
  if (!module) {
    fail(module.takeError());
    return {};
  }
  return std::move(*module);
}

int CompileTool::compile(ModuleOp module, const moe::RemarkListener &remarks) {
  bool isUnchanged = !options.wantsPlan() && options.activations.empty() &&
                     options.quantize.empty() && options.routes.empty() &&
                     options.backward.empty();
  if (emit == Emit::MLIR && isUnchanged)
    return write(print(module));
  auto targets = moe::parseTargets(options.target);
  if (!targets)
    return fail(targets.takeError());
  if (targets->size() > 1 && emit != Emit::Artifact)
    return fail(llvm::createStringError(
        "--target: expected one target with this --emit, got " +
        llvm::Twine(targets->size()) + "; only an artifact may have several"));
  if (emit == Emit::PTX && targets->front().device.empty())
    return fail(llvm::createStringError(
        "expected a GPU target, such as --target=sm_90a, got '" +
        options.target + "'"));
  if (emit == Emit::Plan || emit == Emit::PlanJSON || emit == Emit::MLIR) {
    moe::PlanFormat format = emit == Emit::Plan       ? moe::PlanFormat::Text
                             : emit == Emit::PlanJSON ? moe::PlanFormat::JSON
                                                      : moe::PlanFormat::None;
    std::string report;
    llvm::raw_string_ostream stream(report);
    if (failed(moe::exposeRoutes(module, options)) ||
        failed(moe::addBackward(module, options)) ||
        failed(moe::spreadExperts(module, options)))
      return 1;
    moe::setActivations(module, targets->front(), options);
    if (failed(moe::quantizeWeights(module, options)))
      return 1;
    if (failed(moe::planProgram(module, targets->front(), options, format,
                                &stream)))
      return 1;
    return write(emit == Emit::MLIR ? print(module) : report);
  }

  auto program = moe::lowerProgram(module, *targets, options);
  if (failed(program))
    return 1;
  const moe::Variant &first = program->variants.front();
  if (emit == Emit::LLVMDialect)
    return write(print(ModuleOp(first.module)));
  if (emit == Emit::PTX)
    return write(moe::emitPTX(first));
  if (emit == Emit::LLVM)
    return write(moe::emitLLVMIR(first));
  if (emit == Emit::Artifact)
    return write(moe::emitArtifact(*program, remarks.getWarnings()));
  return write(moe::emitVariant(
      first, emit == Emit::Assembly ? llvm::CodeGenFileType::AssemblyFile
                                    : llvm::CodeGenFileType::ObjectFile));
}

int CompileTool::run(int argc, char **argv) {
#ifdef SIGXFSZ
  // Exceeding the file size limit must be an error of write.
  std::signal(SIGXFSZ, SIG_IGN);
#endif
  cl::SetVersionPrinter([](llvm::raw_ostream &os) {
    os << "moe-compile " MOE_VERSION ", ABI " << MOE_RT_ABI_VERSION
       << ", LLVM " LLVM_VERSION_STRING "\n";
  });
  moe::registerCompilePasses();
  addDriverOptions();
  registerMLIRContextCLOptions();
  registerPassManagerCLOptions();
  cl::HideUnrelatedOptions(category);
  cl::ParseCommandLineOptions(
      argc, argv,
      "Compile a Mixture-of-Experts layer\n\n"
      "  moe-compile layer.mlir -o layer.moe\n"
      "  moe-compile --hf DIR --layer 3 -o layer.moe\n"
      "  moe-compile --hf DIR --layer all -o model.moe\n"
      "  moe-compile --gguf FILE --layer 3 -o layer.moe\n"
      "  moe-compile layer.mlir --emit=plan --tokens=1:4096\n"
      "  moe-compile layer.mlir --memory-limit=64MiB -o layer.moe\n");
  if (ranks.getNumOccurrences() > 0)
    return fail(llvm::createStringError(
        "--ep: expected --parallel=SLOTS to compile for ranks, or `python -m "
        "moe plan LAYER --ep=" +
        ranks + "` for the bounds, bytes and times of an exchange"));
  bool isImported = !checkpoint.empty() || !gguf.empty();
  if (!isImported && input.getNumOccurrences() == 0 &&
      llvm::sys::Process::StandardInIsUserInput())
    return fail(llvm::createStringError("expected an IR file, --hf with a "
                                        "checkpoint, or --gguf; see --help"));
  if (int(!checkpoint.empty()) + int(!gguf.empty()) +
          int(input.getNumOccurrences() > 0) >
      1)
    return fail(llvm::createStringError(
        "expected one of an IR file, --hf and --gguf, got several"));
  if (!isImported &&
      (layer.getNumOccurrences() > 0 || dataType.getNumOccurrences() > 0))
    return fail(
        llvm::createStringError("--layer and --dtype need --hf or --gguf"));
  if (overwritesInput())
    return fail(llvm::createStringError(
        "expected an output file that is not an input, got '" + output + "'"));
  if (llvm::Error error = options.verify())
    return fail(std::move(error));

  DialectRegistry registry;
  moe::registerCompileDialects(registry);
  MLIRContext context(registry);
  // Printing the function after a diagnostic would bury its location.
  context.printOpOnDiagnostic(false);
  llvm::SourceMgr sources;
  SourceMgrDiagnosticHandler handler(sources, &context);
  auto remarks = moe::RemarkListener::install(context, printRemarks);
  if (!remarks)
    return fail(remarks.takeError());
  OwningOpRef<ModuleOp> module = read(context, sources);
  return module ? compile(*module, **remarks) : 1;
}

int mlir::moe::compileMain(int argc, char **argv) {
  llvm::InitLLVM init(argc, argv);
  return CompileTool().run(argc, argv);
}
