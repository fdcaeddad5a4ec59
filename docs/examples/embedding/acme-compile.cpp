// acme-compile IN.mlir OUT: a pipeline of this compiler with ours inside, then
// an artifact. Without OUT, prints what the pipeline made of the layer.

#include "Acme.h"

#include "moe/Driver/Driver.h"
#include "moe/InitAll.h"

#include "mlir/Parser/Parser.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Transforms/Passes.h"
#include "llvm/Support/SourceMgr.h"
#include "llvm/Support/raw_ostream.h"

using namespace mlir;

static void buildPipeline(OpPassManager &manager) {
  manager.addPass(createInlinerPass());
  manager.addPass(moe::createMoERaiseOperations());
  moe::buildFusionPipeline(manager, moe::FusionPipelineOptions());
  manager.addPass(createCSEPass());
}

int main(int argc, char **argv) {
  DialectRegistry registry;
  moe::registerAllDialects(registry);
  moe::registerAllExtensions(registry);
  acme::registerDialect(registry);
  MLIRContext context(registry);
  llvm::SourceMgr sources;
  SourceMgrDiagnosticHandler handler(sources, &context);
  auto module = parseSourceFile<ModuleOp>(argv[1], sources, &context);
  PassManager manager(&context);
  buildPipeline(manager);
  if (!module || failed(manager.run(*module)))
    return 1;
  if (argc < 3) {
    module->print(llvm::outs());
    llvm::outs() << "\n";
    return 0;
  }
  auto artifact = moe::compileArtifact(*module, "--tokens=0:4096");
  if (failed(artifact))
    return 1;
  std::error_code error;
  llvm::raw_fd_ostream file(argv[2], error);
  file.write(artifact->data(), artifact->size());
  return error ? 1 : 0;
}
