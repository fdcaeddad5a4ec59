//===- moe-compile.cpp - IR or a checkpoint to code -----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/MachineRates.h"
#include "moe/Import/HuggingFace.h"
#include "moe/InitAll.h"
#include "moe/Target/Remarks.h"
#include "moe/Target/Target.h"
#include "moe_rt/moe_rt.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/InitAllDialects.h"
#include "mlir/InitAllExtensions.h"
#include "mlir/InitAllPasses.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Support/FileUtilities.h"
#include "mlir/Transforms/Passes.h"
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

using namespace mlir;
namespace cl = llvm::cl;

static cl::OptionCategory category("moe-compile options");

static cl::opt<std::string> input(cl::Positional, cl::desc("<layer.mlir>"),
                                  cl::init("-"), cl::cat(category));
static cl::opt<std::string> output("o", cl::desc("Where to write; - is stdout"),
                                   cl::value_desc("file"), cl::init("-"),
                                   cl::cat(category));
static cl::opt<std::string>
    checkpoint("hf",
               cl::desc("Build the layer of a Hugging Face checkpoint, or of a "
                        "config.json alone, instead of reading IR"),
               cl::value_desc("directory"), cl::cat(category));
static cl::opt<int64_t> layer("layer", cl::desc("Number of the layer (--hf)"),
                              cl::value_desc("n"), cl::init(0),
                              cl::cat(category));
static cl::opt<std::string>
    dataType("dtype",
             cl::desc("Data type of the layer: f32, f16 or bf16 (--hf; by "
                      "default that of the checkpoint)"),
             cl::value_desc("type"), cl::cat(category));
static cl::opt<std::string>
    targetNames("target",
                cl::desc("What to make code for, the best first: host, processors "
                         "such as x86-64-v4,x86-64-v3, and NVIDIA GPUs, "
                         "sm_90a,sm_80. The runtime takes the first that its "
                         "machine can run, on the device that it is asked for"),
                cl::value_desc("names"), cl::init("host"), cl::cat(category));
static cl::opt<std::string>
    pipeline("pipeline",
             cl::desc("Pipeline from moe operations to the LLVM dialect: moe-cpu, "
                      "which for a GPU stands for moe-gpu, moe-reference or a list "
                      "of passes"),
             cl::value_desc("name"), cl::init("moe-cpu"),
             cl::cat(category));

static cl::opt<std::string>
    tokens("tokens",
           cl::desc("Range of the number of tokens of a call (default: that of "
                    "moe.tokens, else all; for --emit=plan, 1:8192)"),
           cl::value_desc("min:max"), cl::cat(category));
static cl::opt<std::string> memoryLimit(
    "memory-limit",
    cl::desc(
        "Largest workspace, such as 4096, 64MiB or 2GB; calls run in chunks "
        "of tokens where they need more"),
    cl::value_desc("bytes"), cl::cat(category));
static cl::opt<std::string> imbalance(
    "imbalance",
    cl::desc("Model of the routing to plan for: worst, uniform[:DELTA], "
             "zipf:S[:DELTA] or histogram:FILE[:DELTA] (default: uniform)"),
    cl::value_desc("model"), cl::init("uniform"), cl::cat(category));
static cl::opt<std::string> gpuName(
    "gpu",
    cl::desc("GPU whose rates to plan with, such as h100-pcie (default: the one "
             "that stands for the target's architecture)"),
    cl::value_desc("name"), cl::cat(category));
static cl::opt<double>
    flops("flops",
          cl::desc("Operations per second to plan with (default: those of the "
                   "target; of a processor, by its vectors and the cores and "
                   "the clock of this machine)"),
          cl::value_desc("rate"), cl::init(0), cl::cat(category));
static cl::opt<double>
    bandwidth("bandwidth",
              cl::desc("Bytes per second to plan with (default: those of the "
                       "target; of a processor an assumption, by the cores)"),
              cl::value_desc("rate"), cl::init(0), cl::cat(category));

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
static cl::opt<Emit> emit(
    "emit", cl::desc("What to write:"), cl::init(Emit::Artifact),
    cl::values(
        clEnumValN(Emit::MLIR, "mlir", "the layer as moe operations"),
        clEnumValN(Emit::Plan, "plan",
                   "bounds, kernel variants, memory and cost, as text"),
        clEnumValN(Emit::PlanJSON, "plan-json", "the same as JSON"),
        clEnumValN(Emit::LLVMDialect, "llvm-dialect",
                   "the layer in the LLVM dialect, after the pipeline"),
        clEnumValN(Emit::LLVM, "llvm", "LLVM IR"),
        clEnumValN(Emit::Assembly, "asm", "assembly"),
        clEnumValN(Emit::PTX, "ptx", "the kernels for a GPU"),
        clEnumValN(Emit::Object, "obj", "an object file"),
        clEnumValN(Emit::Artifact, "artifact",
                   "an artifact that moe-run and the runtime load (default)")),
    cl::cat(category));

static cl::opt<bool>
    printRemarks("remarks",
                 cl::desc("Print what was fused, what was not, and why"),
                 cl::cat(category));

static int fail(llvm::Error error) {
  llvm::handleAllErrors(std::move(error), [](const llvm::ErrorInfoBase &info) {
    llvm::WithColor::error(llvm::errs(), "moe-compile")
        << info.message() << "\n";
  });
  return 1;
}

/// Whether to write would overwrite something that is read, whatever the names
/// of the two: the files of a checkpoint, the IR or a histogram.
static bool overwritesInput() {
  auto isOutput = [](llvm::StringRef path) {
    // False where one of them does not exist.
    bool same = false;
    return !llvm::sys::fs::equivalent(path, output, same) && same;
  };
  if (output == "-")
    return false;
  llvm::StringRef histogram = imbalance;
  if (histogram.consume_front("histogram:") &&
      (isOutput(histogram) || isOutput(histogram.rsplit(':').first)))
    return true;
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

/// Write everything or, on any error, nothing.
static int write(llvm::StringRef bytes) {
  bool text = emit != Emit::Object && emit != Emit::Artifact;
  if (output == "-" && !text && llvm::outs().is_displayed())
    return fail(llvm::createStringError(
        "expected -o FILE: what is made is no text for a terminal"));
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

template <typename T> static std::string print(T &&value) {
  std::string text;
  llvm::raw_string_ostream stream(text);
  value.print(stream);
  stream << "\n";
  return text;
}

/// The layer to compile, from IR or from a checkpoint; null after an error.
static OwningOpRef<ModuleOp> read(MLIRContext &context,
                                  llvm::SourceMgr &sources) {
  if (checkpoint.empty()) {
    std::string message;
    std::unique_ptr<llvm::MemoryBuffer> buffer = openInputFile(input, &message);
    if (!buffer && llvm::sys::fs::is_directory(input))
      message += "; the directory of a checkpoint is given with --hf";
    else if (buffer && buffer->getBuffer().starts_with("\x7f" "ELF"))
      message = "expected IR, got an object file or an artifact: '" + input + "'";
    if (!message.empty()) {
      fail(llvm::createStringError(message));
      return {};
    }
    sources.AddNewSourceBuffer(std::move(buffer), llvm::SMLoc());
    return parseSourceFile<ModuleOp>(sources, &context);
  }
  moe::HuggingFaceOptions options;
  options.layer = layer;
  options.dtype = dataType;
  auto module = moe::importHuggingFaceLayer(context, checkpoint, options);
  if (!module) {
    fail(module.takeError());
    return {};
  }
  return std::move(*module);
}

/// Whether the layer is to be planned before it is compiled.
static bool wantsPlan() {
  return emit == Emit::Plan || emit == Emit::PlanJSON ||
         tokens.getNumOccurrences() || memoryLimit.getNumOccurrences() ||
         imbalance.getNumOccurrences() || gpuName.getNumOccurrences() ||
         flops.getNumOccurrences() || bandwidth.getNumOccurrences();
}

static moe::MachineRates ratesOf(const moe::TargetDescription &target) {
  if (!target.device.empty())
    if (auto rates = moe::findGPURates(target.device))
      return *rates;
  return moe::ProcessorDescription::of(target.cpu, target.features).rates();
}

/// The range to show a plan of: where nobody says one, a function takes so many
/// tokens that no number of the plan means anything.
static std::string tokensToPlan(ModuleOp module) {
  bool isShown = emit == Emit::Plan || emit == Emit::PlanJSON;
  bool hasRange = llvm::any_of(module.getOps(), [](Operation &op) {
    return op.hasAttr("moe.tokens");
  });
  return tokens.empty() && isShown && !hasRange ? "1:8192"
                                                : std::string(tokens);
}

/// Plan the layer; `report` gets what --emit=plan shows.
static LogicalResult plan(ModuleOp module, const moe::TargetDescription &target,
                          llvm::raw_ostream &report) {
  auto variants = moe::variantsOf(pipeline, target, module);
  if (failed(variants))
    return failure();
  moe::MoEPlanCapacityOptions options;
  options.tokens = tokensToPlan(module);
  options.memoryLimit = memoryLimit;
  options.imbalance = imbalance;
  options.gpu = gpuName;
  options.flops = flops;
  options.bandwidth = bandwidth;
  options.variants = *variants;
  options.byMeanRows = !target.device.empty();
  options.machine = target.device;
  // By convention, a pipeline as far as the workspace.
  options.lowering = moe::resolvePipeline(pipeline + "-to-buffers", target);
  options.print = emit == Emit::Plan       ? "text"
                  : emit == Emit::PlanJSON ? "json"
                                           : "";
  PassManager manager(module.getContext());
  manager.addPass(createInlinerPass());
  manager.addPass(createCanonicalizerPass());
  manager.addPass(createCSEPass());
  manager.addPass(moe::createMoEPlanCapacity(options, ratesOf(target), report));
  return manager.run(module);
}

/// The kernels of a module that a pipeline for a GPU has lowered.
static int writeKernels(ModuleOp module) {
  auto images = module->getAttrOfType<ArrayAttr>("moe.images");
  if (!images)
    return fail(llvm::createStringError(
        "expected a GPU as the target, such as --target=sm_90a, got '" +
        targetNames + "'"));
  if (module->getAttrOfType<ArrayAttr>("moe.kernels").empty())
    return fail(llvm::createStringError(
        "expected something to compute on '" + targetNames +
        "', got a module without kernels"));
  auto image = cast<DictionaryAttr>(images[0]);
  auto data = module.lookupSymbol<mlir::LLVM::GlobalOp>(
      image.getAs<StringAttr>("symbol").getValue());
  // What is in the artifact ends with a zero.
  return write(cast<StringAttr>(data.getValueOrNull()).getValue().drop_back());
}

static int compile(ModuleOp module, const moe::RemarkListener &remarks) {
  if (emit == Emit::MLIR && !wantsPlan())
    return write(print(module));
  auto targets = moe::parseTargets(targetNames);
  if (!targets)
    return fail(targets.takeError());
  // Known before minutes of work.
  if (emit == Emit::Artifact)
    if (auto linker = moe::findLinker(); !linker)
      return fail(linker.takeError());
  if (targets->size() > 1 && emit != Emit::Artifact)
    return fail(llvm::createStringError(
        "expected one target for what --emit says, got " +
        llvm::Twine(targets->size()) + "; only an artifact has several"));
  if (emit == Emit::Plan || emit == Emit::PlanJSON || emit == Emit::MLIR) {
    std::string report;
    llvm::raw_string_ostream stream(report);
    if (failed(plan(module, targets->front(), stream)))
      return 1;
    return write(emit == Emit::MLIR ? print(module) : report);
  }

  // A plan and a pipeline may ask for the target: each has a module of its own.
  llvm::SmallVector<OwningOpRef<ModuleOp>> modules;
  llvm::SmallVector<moe::Variant> variants;
  for (auto [i, target] : llvm::enumerate(*targets)) {
    modules.push_back(module.clone());
    if (wantsPlan() && failed(plan(*modules.back(), target, llvm::nulls())))
      return 1;
    if (failed(moe::runPipeline(*modules.back(), pipeline, target)))
      return 1;
    variants.push_back(
        {*modules.back(), target, i == 0 ? "" : "." + std::to_string(i)});
  }
  if (emit == Emit::LLVMDialect)
    return write(print(variants[0].module));
  if (emit == Emit::PTX)
    return writeKernels(variants[0].module);

  auto metadata = moe::buildMetadata(variants, remarks.getWarnings());
  if (!metadata)
    return fail(metadata.takeError());
  llvm::SmallVector<llvm::SmallVector<char, 0>> objects;
  for (const moe::Variant &variant : variants) {
    auto machine = variant.target.createTargetMachine();
    if (!machine)
      return fail(machine.takeError());
    llvm::LLVMContext context;
    auto code = moe::translateToLLVMIR(variant, context, **machine);
    if (!code)
      return fail(code.takeError());
    if (emit == Emit::LLVM) {
      std::string text;
      llvm::raw_string_ostream stream(text);
      (*code)->print(stream, nullptr);
      return write(text);
    }
    auto bytes = moe::emitCode(**code, **machine,
                               emit == Emit::Assembly
                                   ? llvm::CodeGenFileType::AssemblyFile
                                   : llvm::CodeGenFileType::ObjectFile);
    if (!bytes)
      return fail(bytes.takeError());
    objects.push_back(std::move(*bytes));
  }
  if (emit != Emit::Artifact)
    return write(llvm::StringRef(objects[0].data(), objects[0].size()));
  auto artifact = moe::buildArtifact(objects, *metadata);
  if (!artifact)
    return fail(artifact.takeError());
  return write(llvm::StringRef(artifact->data(), artifact->size()));
}

int main(int argc, char **argv) {
  llvm::InitLLVM init(argc, argv);
#ifdef SIGXFSZ
  // A file beyond the limit is an error of the write, here and in the linker.
  std::signal(SIGXFSZ, SIG_IGN);
#endif
  cl::SetVersionPrinter([](llvm::raw_ostream &os) {
    os << "moe-compile " MOE_VERSION ", ABI " << MOE_RT_ABI_VERSION
       << ", LLVM " LLVM_VERSION_STRING "\n";
  });
  mlir::registerAllPasses();
  moe::registerAllPasses();
  moe::registerAllPipelines();
  registerMLIRContextCLOptions();
  registerPassManagerCLOptions();
  cl::HideUnrelatedOptions(category);
  cl::ParseCommandLineOptions(
      argc, argv,
      "Compile a Mixture-of-Experts layer\n\n"
      "  moe-compile layer.mlir -o layer.moe\n"
      "  moe-compile --hf DIR --layer 3 -o layer.moe\n"
      "  moe-compile layer.mlir --emit=plan --tokens=1:4096\n"
      "  moe-compile layer.mlir --memory-limit=64MiB -o layer.moe\n");
  if (checkpoint.empty() && input.getNumOccurrences() == 0 &&
      llvm::sys::Process::StandardInIsUserInput())
    return fail(llvm::createStringError(
        "expected a file of IR, or --hf with a checkpoint; see --help"));
  if (!checkpoint.empty() && input.getNumOccurrences() > 0)
    return fail(llvm::createStringError(
        "expected either a file of IR or --hf, got both"));
  if (checkpoint.empty() &&
      (layer.getNumOccurrences() > 0 || dataType.getNumOccurrences() > 0))
    return fail(llvm::createStringError("--layer and --dtype need --hf"));
  for (auto *rate : {&flops, &bandwidth})
    if (rate->getNumOccurrences() > 0 && !(*rate > 0))
      return fail(llvm::createStringError("expected a rate above 0 for --" +
                                          rate->ArgStr));
  if (overwritesInput())
    return fail(llvm::createStringError(
        "expected an output other than what is read, got '" + output + "'"));

  DialectRegistry registry;
  registerAllDialects(registry);
  registerAllExtensions(registry);
  moe::registerAllDialects(registry);
  moe::registerAllExtensions(registry);
  MLIRContext context(registry);
  // A message has its place; the whole function behind it hides it.
  context.printOpOnDiagnostic(false);
  llvm::SourceMgr sources;
  SourceMgrDiagnosticHandler handler(sources, &context);
  auto remarks = moe::RemarkListener::install(context, printRemarks);
  if (!remarks)
    return fail(remarks.takeError());
  OwningOpRef<ModuleOp> module = read(context, sources);
  return module ? compile(*module, **remarks) : 1;
}
