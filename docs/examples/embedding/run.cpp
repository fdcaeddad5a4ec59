// run-in-cpp LAYER.mlir: the same as run.c with the C++ API of the compiler.

#include "moe/Driver/Driver.h"
#include "moe_rt/moe_rt.h"

#include "mlir/Parser/Parser.h"
#include "llvm/Support/raw_ostream.h"

int main(int argc, char **argv) {
  mlir::DialectRegistry registry;
  mlir::moe::registerCompileDialects(registry);
  mlir::MLIRContext mlir(registry);
  auto source = mlir::parseSourceFile<mlir::ModuleOp>(argv[argc - 1], &mlir);
  if (!source)
    return 1;
  auto artifact = mlir::moe::compileArtifact(*source, "");
  if (failed(artifact))
    return 1;

  moe_rt_context_t *context = nullptr;
  moe_rt_module_t *module = nullptr;
  moe_rt_layer_t *layer = nullptr;
  std::vector<float> x(3 * 24, 0.125f), y(3 * 24), values(4 * 24 * 40, 0.125f);
  int64_t rows[] = {3, 24}, router[] = {24, 4}, up[] = {4, 24, 40},
          down[] = {4, 40, 24};
  auto wrap = [](std::vector<float> &data, int rank, int64_t *shape) {
    return DLTensor{data.data(), {kDLCPU, 0}, rank, {kDLFloat, 32, 1},
                    shape,       nullptr,     0};
  };
  DLTensor input = wrap(x, 2, rows), output = wrap(y, 2, rows);
  DLTensor weights[] = {wrap(values, 2, router), wrap(values, 3, up),
                        wrap(values, 3, down)};
  moe_rt_status_t status = moe_rt_context_create(nullptr, &context);
  if (!status)
    status = moe_rt_module_load_memory(context, artifact->data(),
                                       artifact->size(), &module);
  if (!status)
    status = moe_rt_layer_create(module, "layer", weights, 3, &layer);
  if (!status)
    status = moe_rt_layer_call(layer, &input, 1, &output, 1, nullptr, 0);
  llvm::outs() << (status ? moe_rt_status_message(status)
                          : std::to_string(y[24]).c_str())
               << "\n";
}
