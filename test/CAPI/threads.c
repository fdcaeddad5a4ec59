//===- threads.c - Compile in several threads -----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Threads that share nothing but the process: the first of them registers, and
// all get the same bytes. An error of one is a diagnostic of its context alone.
//
//===----------------------------------------------------------------------===//

#include "moe-c/Driver.h"
#include "moe-c/RegisterEverything.h"

#include "mlir-c/Diagnostics.h"

#include <pthread.h>
#include <stdio.h>

enum { THREADS = 4 };

static const char layer[] =
    "func.func @layer(%x: tensor<?x8xf32>) -> tensor<?x2xf32> {\n"
    "  %w, %i = moe.gate %x top_k(2) : tensor<?x8xf32>\n"
    "  return %w : tensor<?x2xf32>\n"
    "}\n";

typedef struct {
  const char *options;
  MoeArtifact artifact;
  int diagnostics;
} Work;

static MlirLogicalResult count(MlirDiagnostic diagnostic, void *work) {
  (void)diagnostic;
  ++((Work *)work)->diagnostics;
  return mlirLogicalResultSuccess();
}

static void *compile(void *argument) {
  Work *work = argument;
  MlirDialectRegistry registry = mlirDialectRegistryCreate();
  moeRegisterAllDialects(registry);
  moeRegisterAllPasses();
  MlirContext context = mlirContextCreateWithRegistry(registry, true);
  mlirDialectRegistryDestroy(registry);
  mlirContextAttachDiagnosticHandler(context, count, work, NULL);
  MlirModule module =
      mlirModuleCreateParse(context, mlirStringRefCreateFromCString(layer));
  work->artifact =
      moeCompile(module, mlirStringRefCreateFromCString(work->options));
  mlirModuleDestroy(module);
  mlirContextDestroy(context);
  return NULL;
}

int main(void) {
  pthread_t threads[THREADS];
  Work works[THREADS] = {{"", {NULL}, 0},
                         {"", {NULL}, 0},
                         {"--tokens=2:1", {NULL}, 0},
                         {"", {NULL}, 0}};
  for (int i = 0; i < THREADS; ++i)
    if (pthread_create(&threads[i], NULL, compile, &works[i]))
      return 1;
  for (int i = 0; i < THREADS; ++i)
    pthread_join(threads[i], NULL);
  if (moeArtifactIsNull(works[0].artifact))
    return 1;
  MlirStringRef first = moeArtifactGetBytes(works[0].artifact);
  for (int i = 0; i < THREADS; ++i) {
    MlirStringRef bytes = {NULL, 0};
    if (!moeArtifactIsNull(works[i].artifact))
      bytes = moeArtifactGetBytes(works[i].artifact);
    printf("%s, %d diagnostics\n",
           !bytes.data                        ? "null"
           : mlirStringRefEqual(first, bytes) ? "same"
                                              : "other",
           works[i].diagnostics);
  }
  for (int i = 0; i < THREADS; ++i)
    moeArtifactDestroy(works[i].artifact);
  return 0;
}
