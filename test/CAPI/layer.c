//===- layer.c - Build, fuse, compile and call a layer in C ---------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The router, two experts of each token with ReLU between two products, and
// their weighted sum, compared with loops in f64.
//
//===----------------------------------------------------------------------===//

#include "builder.h"
#include "moe-c/Dialects.h"
#include "moe-c/Driver.h"
#include "moe-c/RegisterEverything.h"
#include "moe_rt/moe_rt.h"

#include "mlir-c/BuiltinAttributes.h"
#include "mlir-c/BuiltinTypes.h"
#include "mlir-c/Pass.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { E = 4, K = 2, H = 24, F = 40, MOST = 33 };

//===----------------------------------------------------------------------===//
// The layer
//===----------------------------------------------------------------------===//

static MlirAttribute string(Builder *builder, const char *value) {
  return mlirStringAttrGet(builder->context,
                           mlirStringRefCreateFromCString(value));
}

/// The dictionary of an argument.
static MlirAttribute argument(Builder *builder, const char *role,
                              const char *name) {
  MlirNamedAttribute entries[] = {
      named(builder, "moe.name", string(builder, name)),
      named(builder, "moe.role", string(builder, role))};
  return mlirDictionaryAttrGet(builder->context, 2, entries);
}

/// The region of an expert: relu(rows @ up) @ down.
static MlirRegion buildExpert(Builder *outer) {
  MlirType types[] = {tensor(outer, 2, (int64_t[]){-1, H}),
                      tensor(outer, 2, (int64_t[]){H, F}),
                      tensor(outer, 2, (int64_t[]){F, H})};
  MlirLocation locations[] = {outer->location, outer->location,
                              outer->location};
  Builder builder = *outer;
  builder.block = mlirBlockCreate(3, types, locations);
  MlirValue rows = mlirBlockGetArgument(builder.block, 0);
  MlirValue zeros = appendZeros(&builder, rows, F);
  MlirValue hidden =
      appendLinalg(&builder, "linalg.matmul", rows,
                   mlirBlockGetArgument(builder.block, 1), zeros);
  MlirValue positive =
      appendLinalg(&builder, "linalg.max", hidden, zeros, zeros);
  MlirValue result = appendLinalg(&builder, "linalg.matmul", positive,
                                  mlirBlockGetArgument(builder.block, 2),
                                  appendZeros(&builder, rows, H));
  append(&builder, &(Description){.name = "moe.yield",
                                  .noResults = true,
                                  .numOperands = 1,
                                  .operands = {result}});
  MlirRegion region = mlirRegionCreate();
  mlirRegionAppendOwnedBlock(region, builder.block);
  return region;
}

static void buildBody(Builder *builder) {
  MlirValue x = mlirBlockGetArgument(builder->block, 0);
  MlirValue router = mlirBlockGetArgument(builder->block, 1);
  MlirValue up = mlirBlockGetArgument(builder->block, 2);
  MlirValue down = mlirBlockGetArgument(builder->block, 3);
  MlirValue logits = appendLinalg(builder, "linalg.matmul", x, router,
                                  appendZeros(builder, x, E));
  MlirAttribute normalize = moeNormalizeAttrGet(
      builder->context, MOE_NORMALIZE_SUM, 2.0, 0.0, MOE_NORMALIZE_GUARD_ADD);
  MlirAttribute score = moeScoreAttrGet(builder->context, MOE_SCORE_SOFTMAX);
  MlirOperation gate = append(
      builder,
      &(Description){
          .name = "moe.gate",
          .numOperands = 1,
          .operands = {logits},
          .numAttributes = 4,
          .attributes = {integer(builder, "top_k", K),
                         named(builder, "score", score),
                         named(builder, "normalize", normalize),
                         segments(builder, 4, (int32_t[]){1, 0, 0, 0})}});
  MlirOperation dispatch = append(
      builder,
      &(Description){.name = "moe.dispatch",
                     .numOperands = 2,
                     .operands = {x, mlirOperationGetResult(gate, 1)},
                     .numAttributes = 1,
                     .attributes = {integer(builder, "num_experts", E)}});
  MlirValue experts = appendValue(
      builder,
      &(Description){
          .name = "moe.expert",
          .numOperands = 4,
          .operands = {mlirOperationGetResult(dispatch, 0),
                       mlirOperationGetResult(dispatch, 1), up, down},
          .numTypes = 1,
          .types = {mlirValueGetType(mlirOperationGetResult(dispatch, 0))},
          .numAttributes = 1,
          .attributes = {segments(builder, 4, (int32_t[]){1, 1, 2, 0})},
          .region = buildExpert(builder)});
  MlirValue y = appendValue(
      builder,
      &(Description){
          .name = "moe.combine",
          .numOperands = 3,
          .operands = {experts, mlirOperationGetResult(dispatch, 2),
                       mlirOperationGetResult(gate, 0)},
          .numAttributes = 1,
          .attributes = {segments(builder, 4, (int32_t[]){1, 1, 1, 0})}});
  append(builder, &(Description){.name = "func.return",
                                 .noResults = true,
                                 .numOperands = 1,
                                 .operands = {y}});
}

static MlirModule buildLayer(MlirContext context) {
  MlirLocation location = mlirLocationUnknownGet(context);
  MlirModule module = mlirModuleCreateEmpty(location);
  Builder builder = {context, location, {NULL}};
  MlirType types[] = {tensor(&builder, 2, (int64_t[]){-1, H}),
                      tensor(&builder, 2, (int64_t[]){H, E}),
                      tensor(&builder, 3, (int64_t[]){E, H, F}),
                      tensor(&builder, 3, (int64_t[]){E, F, H})};
  MlirLocation locations[] = {location, location, location, location};
  builder.block = mlirBlockCreate(4, types, locations);
  buildBody(&builder);

  MlirAttribute arguments[] = {
      argument(&builder, "input", "x"), argument(&builder, "weight", "router"),
      argument(&builder, "weight", "up"), argument(&builder, "weight", "down")};
  MlirType function = mlirFunctionTypeGet(context, 4, types, 1, types);
  Builder top = {context, location, mlirModuleGetBody(module)};
  MlirRegion region = mlirRegionCreate();
  mlirRegionAppendOwnedBlock(region, builder.block);
  append(&top,
         &(Description){
             .name = "func.func",
             .noResults = true,
             .numAttributes = 3,
             .attributes = {named(&top, "sym_name", string(&top, "layer")),
                            named(&top, "function_type",
                                  mlirTypeAttrGet(function)),
                            named(&top, "arg_attrs",
                                  mlirArrayAttrGet(context, 4, arguments))},
             .region = region});
  return module;
}

//===----------------------------------------------------------------------===//
// Fusion
//===----------------------------------------------------------------------===//

static void print(MlirStringRef text, void *file) {
  fwrite(text.data, 1, text.length, file);
}

static MlirLogicalResult runPipeline(MlirModule module, const char *pipeline) {
  MlirPassManager manager = mlirPassManagerCreate(mlirModuleGetContext(module));
  MlirLogicalResult result = mlirOpPassManagerAddPipeline(
      mlirPassManagerGetAsOpPassManager(manager),
      mlirStringRefCreateFromCString(pipeline), print, stderr);
  if (mlirLogicalResultIsSuccess(result))
    result = mlirPassManagerRunOnOp(manager, mlirModuleGetOperation(module));
  mlirPassManagerDestroy(manager);
  return result;
}

//===----------------------------------------------------------------------===//
// Calls
//===----------------------------------------------------------------------===//

static float x[MOST * H], router[H * E], up[E * H * F], down[E * F * H];

static void check(moe_rt_status_t status) {
  if (!status)
    return;
  fprintf(stderr, "%s\n", moe_rt_status_message(status));
  exit(1);
}

static DLTensor wrap(float *data, int32_t rank, int64_t *shape) {
  DLTensor tensor = {0};
  tensor.data = data;
  tensor.device = (DLDevice){kDLCPU, 0};
  tensor.ndim = rank;
  tensor.dtype = (DLDataType){kDLFloat, 32, 1};
  tensor.shape = shape;
  return tensor;
}

/// One token of the layer in f64.
static void computeToken(const float *row, double *result) {
  double scores[E];
  for (int e = 0; e < E; ++e) {
    scores[e] = 0.0;
    for (int h = 0; h < H; ++h)
      scores[e] += (double)row[h] * router[h * E + e];
  }
  int chosen[K];
  double weights[K], total = 0.0;
  for (int k = 0; k < K; ++k) {
    int best = -1;
    for (int e = 0; e < E; ++e)
      if ((k == 0 || e != chosen[0]) && (best < 0 || scores[e] > scores[best]))
        best = e;
    chosen[k] = best;
    weights[k] = exp(scores[best] - scores[chosen[0]]);
    total += weights[k];
  }
  memset(result, 0, H * sizeof(double));
  for (int k = 0; k < K; ++k)
    for (int f = 0; f < F; ++f) {
      double hidden = 0.0;
      for (int h = 0; h < H; ++h)
        hidden += (double)row[h] * up[(chosen[k] * H + h) * F + f];
      if (hidden > 0.0)
        for (int h = 0; h < H; ++h)
          result[h] +=
              weights[k] / total * hidden * down[(chosen[k] * F + f) * H + h];
    }
}

/// Returns the largest difference over the largest magnitude.
static double callAndCompare(moe_rt_layer_t *layer, int64_t tokens) {
  float y[MOST * H];
  memset(y, 0xff, sizeof(y)); // NaN
  int64_t shape[] = {tokens, H};
  DLTensor input = wrap(x, 2, shape), output = wrap(y, 2, shape);
  check(moe_rt_layer_call(layer, &input, 1, &output, 1, NULL, 0));
  double difference = 0.0, magnitude = 0.0;
  for (int64_t t = 0; t < tokens; ++t) {
    double expected[H];
    computeToken(x + t * H, expected);
    for (int h = 0; h < H; ++h) {
      difference = fmax(difference, fabs(y[t * H + h] - expected[h]));
      if (isnan(y[t * H + h]))
        difference = INFINITY;
      magnitude = fmax(magnitude, fabs(expected[h]));
    }
  }
  return tokens ? difference / magnitude : 0.0;
}

static void fill(float *values, int count, float scale) {
  for (int i = 0; i < count; ++i)
    values[i] = scale * ((float)rand() / (float)RAND_MAX - 0.5f);
}

static void run(MlirStringRef bytes) {
  srand(1);
  fill(x, MOST * H, 8.0f);
  fill(router, H * E, 2.0f);
  fill(up, E * H * F, 1.0f);
  fill(down, E * F * H, 1.0f);
  for (int h = 0; h < H; ++h) // two experts whose scores are always equal
    router[h * E + 2] = router[h * E + 1];
  memset(x + 5 * H, 0, H * sizeof(float));

  moe_rt_context_t *context = NULL;
  moe_rt_module_t *module = NULL;
  moe_rt_layer_t *layer = NULL;
  check(moe_rt_context_create(NULL, &context));
  check(moe_rt_module_load_memory(context, bytes.data, bytes.length, &module));
  DLTensor weights[] = {wrap(router, 2, (int64_t[]){H, E}),
                        wrap(up, 3, (int64_t[]){E, H, F}),
                        wrap(down, 3, (int64_t[]){E, F, H})};
  check(moe_rt_layer_create(module, "layer", weights, 3, &layer));
  const int64_t counts[] = {0, 1, 2, 7, MOST};
  for (int i = 0; i < 5; ++i) {
    double error = callAndCompare(layer, counts[i]);
    printf("tokens %d: %s\n", (int)counts[i], error < 1e-5 ? "same" : "wrong");
  }
  moe_rt_layer_destroy(layer);
  moe_rt_module_destroy(module);
  moe_rt_context_destroy(context);
}

int main(void) {
  MlirDialectRegistry registry = mlirDialectRegistryCreate();
  moeRegisterAllDialects(registry);
  moeRegisterAllPasses();
  MlirContext context = mlirContextCreateWithRegistry(registry, true);
  mlirDialectRegistryDestroy(registry);
  mlirContextLoadAllAvailableDialects(context);

  MlirModule module = buildLayer(context);
  if (!mlirOperationVerify(mlirModuleGetOperation(module)))
    return 1;
  mlirOperationPrint(mlirModuleGetOperation(module), print, stdout);
  if (mlirLogicalResultIsFailure(runPipeline(module, "moe-fuse")))
    return 1;
  printf("after moe-fuse\n");
  mlirOperationPrint(mlirModuleGetOperation(module), print, stdout);
  fflush(stdout);

  MoeArtifact artifact = moeCompile(module, mlirStringRefCreate("", 0));
  if (moeArtifactIsNull(artifact))
    return 1;
  // The artifact is independent of the compiler.
  mlirModuleDestroy(module);
  mlirContextDestroy(context);
  run(moeArtifactGetBytes(artifact));
  moeArtifactDestroy(artifact);
  return 0;
}
