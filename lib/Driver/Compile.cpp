//===- Compile.cpp - From a layer to code ---------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "WeightFormat.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"
#include "moe/Dialect/MoE/Transforms/Passes.h"
#include "moe/Driver/Driver.h"
#include "moe/InitAll.h"
#include "moe/Pipelines/Pipelines.h"
#include "moe/Target/CodeEmission.h"
#include "moe/Target/Remarks.h"
#include "moe/Transforms/Passes.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/IR/Remarks.h"
#include "mlir/InitAllDialects.h"
#include "mlir/InitAllExtensions.h"
#include "mlir/InitAllPasses.h"
#include "mlir/Interfaces/FunctionInterfaces.h"
#include "mlir/Transforms/Passes.h"
#include "llvm/ADT/ScopeExit.h"
#include "llvm/ADT/StringSwitch.h"

#include <mutex>

using namespace mlir;
using namespace mlir::moe;

void mlir::moe::registerCompilePasses() {
  static std::once_flag once;
  std::call_once(once, [] {
    mlir::registerAllPasses();
    moe::registerAllPasses();
    moe::registerAllPipelines();
  });
}

void mlir::moe::registerCompileDialects(DialectRegistry &registry) {
  mlir::registerAllDialects(registry);
  mlir::registerAllExtensions(registry);
  moe::registerAllDialects(registry);
  moe::registerAllExtensions(registry);
}

static LogicalResult lower(ModuleOp module, StringRef pipeline,
                           const TargetDescription &target) {
  PassManager manager(module.getContext());
  if (llvm::Error error =
          addPipeline(manager, pipeline, target, PipelineEnd::LLVM))
    return emitError(module.getLoc(), llvm::toString(std::move(error)));
  if (failed(verifyDefined(module)) || failed(manager.run(module)))
    return failure();
  // Without kernels the host would access device memory.
  if (!target.device.empty() && !module->hasAttr(imagesAttrName))
    return emitError(module.getLoc())
           << "expected a pipeline that makes kernels for '" << target.device
           << "', such as moe-gpu, got '" << pipeline << "'";
  return success();
}

LogicalResult mlir::moe::exposeRoutes(ModuleOp module,
                                      const CompileOptions &options) {
  if (options.routes.empty())
    return success();
  auto mode = llvm::StringSwitch<RouteMode>(options.routes)
                  .Case("replay", RouteMode::Replay)
                  .Case("replay-ids", RouteMode::ReplayIds)
                  .Default(RouteMode::Record);
  PassManager manager(module.getContext());
  addFirstPasses(manager);
  manager.addPass(createMoEExposeRoutes(MoEExposeRoutesOptions{mode}));
  return failure(failed(verifyDefined(module)) || failed(manager.run(module)));
}

/// Sets what --backward and its options ask for.
static void setTraining(TrainingPipelineOptions &training,
                        const CompileOptions &options) {
  training.recompute = options.save == "routes";
  auto addNames = [](StringRef text, auto &names) {
    for (StringRef name : llvm::split(text, ','))
      names.push_back(name.str());
  };
  if (options.backward != "all")
    addNames(options.backward, training.arguments);
  if (!options.f32Gradients.empty())
    addNames(options.f32Gradients, training.f32Gradients);
  if (!options.accumulate.empty())
    addNames(options.accumulate, training.accumulate);
}

/// Whether experts of a layer are spread over ranks.
static bool isParallel(ModuleOp module, const CompileOptions &options) {
  return !options.parallel.empty() ||
         llvm::any_of(module.getOps<FunctionOpInterface>(), [](auto function) {
           return function->hasAttr(parallelAttrName);
         });
}

LogicalResult mlir::moe::addBackward(ModuleOp module,
                                     const CompileOptions &options) {
  // Over ranks, the backward function follows from the spread one.
  if (options.backward.empty() || isParallel(module, options))
    return success();
  TrainingPipelineOptions training;
  setTraining(training, options);
  PassManager manager(module.getContext());
  buildTrainingPipeline(manager, training);
  return failure(failed(verifyDefined(module)) || failed(manager.run(module)));
}

LogicalResult mlir::moe::spreadExperts(ModuleOp module,
                                       const CompileOptions &options) {
  if (!isParallel(module, options))
    return success();
  bool trains = !options.backward.empty();
  if (trains && !options.accumulate.empty())
    return emitError(module.getLoc()) << "--accumulate: expected a layer on "
                                         "one rank: over ranks gradients "
                                         "are results of their own";
  ParallelPipelineOptions parallel;
  if (auto parsed = parseParallel(options.parallel)) {
    parallel.slots = parsed->slots;
    parallel.ranks = parsed->ranks;
    parallel.replicas = parsed->replicas;
    if (parsed->reducesPerRank)
      parallel.reduce = RankReduction::PerRank;
    if (parsed->isOfRank)
      parallel.scope = TokenScope::Rank;
  }
  TrainingPipelineOptions training;
  setTraining(training, options);
  PassManager manager(module.getContext());
  buildParallelPipeline(manager, parallel, trains ? &training : nullptr);
  return failure(failed(verifyDefined(module)) || failed(manager.run(module)));
}

void mlir::moe::setActivations(ModuleOp module, const TargetDescription &target,
                               const CompileOptions &options) {
  if (options.activations.empty())
    return;
  if (options.activations == "int8" &&
      (!target.device.empty() || options.pipeline == "moe-reference"))
    emitWarning(module.getLoc())
        << "--activations=int8: rows stay exact, since "
        << (target.device.empty() ? "the reference pipeline" : target.device)
        << " has no kernels of 8-bit rows";
  auto value = StringAttr::get(module.getContext(), options.activations);
  for (auto function : module.getOps<FunctionOpInterface>())
    if (!function.isExternal())
      function->setAttr(activationsAttrName, value);
}

LogicalResult mlir::moe::quantizeWeights(ModuleOp module,
                                         const CompileOptions &options) {
  auto functions = llvm::make_filter_range(
      module.getOps<FunctionOpInterface>(),
      [](FunctionOpInterface function) { return !function.isExternal(); });
  if (!options.quantize.empty()) {
    auto format = WeightFormat::parse(options.quantize);
    if (!format)
      return emitError(module.getLoc(), llvm::toString(format.takeError()));
    Attribute attribute = format->getAttr(module.getContext());
    for (auto function : functions)
      function->setAttr(weightFormatAttrName, attribute);
  }
  // A function may have a format of its own.
  if (llvm::none_of(functions, [](FunctionOpInterface function) {
        return function->hasAttr(weightFormatAttrName);
      }))
    return success();
  PassManager manager(module.getContext());
  manager.addPass(createMoEQuantizeWeights());
  if (failed(verifyDefined(module)) || failed(manager.run(module)))
    return failure();
  auto found = module.walk([](QuantizeOp) { return WalkResult::interrupt(); });
  if (!found.wasInterrupted())
    emitWarning(module.getLoc())
        << (options.quantize.empty() ? "moe.weight_format"
                                     : "--quantize=" + options.quantize)
        << ": no matmul of experts or shared experts has weights of 16 or 32 "
           "bits";
  return success();
}

FailureOr<Program> mlir::moe::lowerProgram(ModuleOp module,
                                           ArrayRef<TargetDescription> targets,
                                           const CompileOptions &options) {
  // Plan and pipeline depend on the target: each target has its own module.
  Program program;
  for (auto [i, target] : llvm::enumerate(targets)) {
    program.modules.push_back(module.clone());
    ModuleOp copy = *program.modules.back();
    if (failed(exposeRoutes(copy, options)) ||
        failed(addBackward(copy, options)) ||
        failed(spreadExperts(copy, options)))
      return failure();
    setActivations(copy, target, options);
    if (failed(quantizeWeights(copy, options)))
      return failure();
    if (options.wantsPlan() && failed(planProgram(copy, target, options)))
      return failure();
    if (failed(lower(copy, options.pipeline, target)))
      return failure();
    program.variants.push_back(
        {copy, target, i == 0 ? "" : "." + std::to_string(i)});
  }
  return program;
}

/// Fails if `variant` has no function that `moe-export` prepared.
static llvm::Error verifyExports(const Variant &variant) {
  return buildMetadata(variant).takeError();
}

/// Passes the LLVM IR of `variant` to `emit` and returns the result.
template <typename T>
static llvm::Expected<T> generateCode(
    const Variant &variant,
    llvm::function_ref<llvm::Expected<T>(llvm::Module &, llvm::TargetMachine &)>
        emit) {
  auto machine = variant.target.createTargetMachine();
  if (!machine)
    return machine.takeError();
  llvm::LLVMContext context;
  auto code = translateToLLVMIR(variant, context, **machine);
  if (!code)
    return code.takeError();
  return emit(**code, **machine);
}

static llvm::Expected<llvm::SmallVector<char, 0>>
generateFile(const Variant &variant, llvm::CodeGenFileType type) {
  return generateCode<llvm::SmallVector<char, 0>>(
      variant, [&](llvm::Module &code, llvm::TargetMachine &machine) {
        return emitCode(code, machine, type);
      });
}

llvm::Expected<std::string> mlir::moe::emitLLVMIR(const Variant &variant) {
  if (llvm::Error error = verifyExports(variant))
    return error;
  return generateCode<std::string>(
      variant, [](llvm::Module &code, llvm::TargetMachine &) {
        std::string text;
        llvm::raw_string_ostream stream(text);
        code.print(stream, nullptr);
        return text;
      });
}

llvm::Expected<llvm::SmallVector<char, 0>>
mlir::moe::emitVariant(const Variant &variant, llvm::CodeGenFileType type) {
  if (llvm::Error error = verifyExports(variant))
    return error;
  return generateFile(variant, type);
}

llvm::Expected<std::string> mlir::moe::emitPTX(const Variant &variant) {
  ModuleOp module = variant.module;
  auto images = module->getAttrOfType<ArrayAttr>(imagesAttrName);
  if (!images)
    return llvm::createStringError(
        "expected a GPU target, such as --target=sm_90a, got '" +
        variant.target.cpu + "'");
  if (module->getAttrOfType<ArrayAttr>(kernelsAttrName).empty())
    return llvm::createStringError("expected GPU kernels for '" +
                                   variant.target.device +
                                   "', got a module without kernels");
  auto image = cast<DictionaryAttr>(images[0]);
  auto data = module.lookupSymbol<LLVM::GlobalOp>(
      image.getAs<StringAttr>("symbol").getValue());
  // In an artifact the text is terminated by a null byte.
  return cast<StringAttr>(data.getValueOrNull()).getValue().drop_back().str();
}

llvm::Expected<llvm::SmallVector<char, 0>>
mlir::moe::emitArtifact(const Program &program,
                        ArrayRef<std::string> warnings) {
  auto metadata = buildMetadata(program.variants, warnings);
  if (!metadata)
    return metadata.takeError();
  llvm::SmallVector<llvm::SmallVector<char, 0>> objects;
  for (const Variant &variant : program.variants) {
    auto object = generateFile(variant, llvm::CodeGenFileType::ObjectFile);
    if (!object)
      return object.takeError();
    objects.push_back(std::move(*object));
  }
  return buildArtifact(objects, *metadata);
}

/// Compiles `module` while `remarks`, if any, collects warnings. Fails after a
/// diagnostic, or with an error.
static llvm::Expected<FailureOr<llvm::SmallVector<char, 0>>>
compileProgram(ModuleOp module, StringRef words,
               const std::shared_ptr<RemarkListener> &remarks) {
  auto options = parseCompileOptions(words);
  if (!options)
    return options.takeError();
  auto targets = parseTargets(options->target);
  if (!targets)
    return targets.takeError();
  auto program = lowerProgram(module, *targets, *options);
  if (failed(program))
    return failure();
  auto artifact =
      emitArtifact(*program, remarks ? remarks->getWarnings()
                                     : llvm::ArrayRef<std::string>());
  if (!artifact)
    return artifact.takeError();
  return std::move(*artifact);
}

FailureOr<llvm::SmallVector<char, 0>>
mlir::moe::compileArtifact(ModuleOp module, StringRef options) {
  MLIRContext *context = module.getContext();
  registerCompilePasses();
  DialectRegistry registry;
  registerCompileDialects(registry);
  context->appendDialectRegistry(registry);

  std::shared_ptr<RemarkListener> remarks;
  llvm::scope_exit stopListening([&] {
    if (remarks)
      context->setRemarkEngine(nullptr);
  });
  if (!context->getRemarkEngine()) {
    auto installed = RemarkListener::install(*context);
    if (!installed)
      return emitError(module.getLoc(), llvm::toString(installed.takeError()));
    remarks = std::move(*installed);
  }
  auto artifact = compileProgram(module, options, remarks);
  if (!artifact)
    return emitError(module.getLoc(), llvm::toString(artifact.takeError()));
  return std::move(*artifact);
}
