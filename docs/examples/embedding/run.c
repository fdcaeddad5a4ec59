/* run-in-c LAYER.mlir: compiles a layer with the C API of the compiler, and
   calls it with the one of the runtime. Weights and inputs are all 1/8. */

#include <moe-c/Driver.h>
#include <moe-c/RegisterEverything.h>
#include <moe_rt/moe_rt.h>
#include <stdio.h>
#include <stdlib.h>

enum { TOKENS = 3, ELEMENTS = 1 << 16 };

static void check(moe_rt_status_t status) {
  if (status)
    fprintf(stderr, "%s\n", moe_rt_status_message(status)), exit(1);
}

/* Tensor `index` of a role, as the layer wants it. */
static DLTensor tensor(const moe_rt_module_t *module, moe_rt_role_t role,
                       size_t index) {
  moe_rt_tensor_info_t info;
  check(moe_rt_function_tensor_info(module, "layer", role, index, &info));
  DLTensor result = {
      .device = {kDLCPU, 0}, .ndim = info.ndim, .dtype = info.dtype};
  result.shape = calloc(info.ndim, sizeof(int64_t));
  for (int i = 0; i < info.ndim; ++i)
    result.shape[i] = info.shape[i] < 0 ? TOKENS : info.shape[i];
  float *data = result.data = aligned_alloc(64, ELEMENTS * sizeof(float));
  for (int i = 0; i < ELEMENTS; ++i)
    data[i] = 0.125f;
  return result;
}

int main(int argc, char **argv) {
  MlirDialectRegistry registry = mlirDialectRegistryCreate();
  moeRegisterAllDialects(registry);
  MlirContext mlir = mlirContextCreateWithRegistry(registry, true);
  MlirModule source = mlirModuleCreateParseFromFile(
      mlir, mlirStringRefCreateFromCString(argv[argc - 1]));
  if (mlirModuleIsNull(source))
    return 1;
  MoeArtifact artifact = moeCompile(source, mlirStringRefCreate("", 0));
  if (moeArtifactIsNull(artifact))
    return 1;
  MlirStringRef bytes = moeArtifactGetBytes(artifact);

  moe_rt_context_t *context;
  moe_rt_module_t *module;
  moe_rt_layer_t *layer;
  check(moe_rt_context_create(NULL, &context));
  check(moe_rt_module_load_memory(context, bytes.data, bytes.length, &module));
  DLTensor weights[3], x = tensor(module, MOE_RT_INPUT, 0),
                       y = tensor(module, MOE_RT_OUTPUT, 0);
  for (int i = 0; i < 3; ++i)
    weights[i] = tensor(module, MOE_RT_WEIGHT, i);
  check(moe_rt_layer_create(module, "layer", weights, 3, &layer));
  check(moe_rt_layer_call(layer, &x, 1, &y, 1, NULL, 0));
  for (int t = 0; t < TOKENS; ++t)
    printf("%g\n", ((float *)y.data)[t * y.shape[1]]);
  return 0;
}
