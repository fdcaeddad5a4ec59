//===- attributes.c - Attributes, passes and errors in C ------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe-c/Dialects.h"
#include "moe-c/Driver.h"
#include "moe-c/Passes.h"
#include "moe-c/RegisterEverything.h"

#include "mlir-c/BuiltinAttributes.h"
#include "mlir-c/BuiltinTypes.h"
#include "mlir-c/Diagnostics.h"

#include <stdio.h>

static void print(MlirStringRef text, void *file) {
  fwrite(text.data, 1, text.length, file);
}

static MlirLogicalResult handle(MlirDiagnostic diagnostic, void *data) {
  (void)data;
  printf("diagnostic: ");
  mlirDiagnosticPrint(diagnostic, print, stdout);
  printf("\n");
  return mlirLogicalResultSuccess();
}

static void show(MlirAttribute attribute) {
  if (mlirAttributeIsNull(attribute))
    printf("null");
  else
    mlirAttributePrint(attribute, print, stdout);
  printf("\n");
}

static void showAttributes(MlirContext context) {
  show(moeScoreAttrGet(context, MOE_SCORE_SQRT_SOFTPLUS));
  show(moeScoreAxisAttrGet(context, MOE_SCORE_AXIS_TOKENS));
  show(moeOrderAttrGet(context, MOE_ORDER_SELECT_THEN_SCORE));
  show(moeSelectionAttrGet(context, MOE_SELECTION_EXPERT_CHOICE));
  show(moePriorityAttrGet(context, MOE_PRIORITY_PROBABILITY));
  show(moeOverflowAttrGet(context, MOE_OVERFLOW_NEXT_CHOICE));
  show(moeUncoveredAttrGet(context, MOE_UNCOVERED_ZERO));
  MlirAttribute groups = moeGroupsAttrGet(
      context, 8, 4, MOE_GROUP_SCORE_TOP2_SUM, MOE_GROUP_FILL_ZERO);
  show(groups);
  printf("%d %d %d %d %d\n", (int)moeGroupsAttrGetCount(groups),
         (int)moeGroupsAttrGetKeep(groups), (int)moeGroupsAttrGetScore(groups),
         (int)moeGroupsAttrGetFill(groups), moeAttributeIsACapacity(groups));
  MlirAttribute normalize = moeNormalizeAttrGet(
      context, MOE_NORMALIZE_NORM, 1.0, 1e-12, MOE_NORMALIZE_GUARD_CLAMP);
  show(normalize);
  printf("%d %g %g %d %d\n", (int)moeNormalizeAttrGetKind(normalize),
         moeNormalizeAttrGetP(normalize), moeNormalizeAttrGetEpsilon(normalize),
         (int)moeNormalizeAttrGetGuard(normalize),
         moeAttributeIsANormalize(normalize));
  show(moeCapacityAttrGetFixed(context, 64));
  MlirAttribute capacity =
      moeCapacityAttrGetFactor(context, 1.25, MOE_ROUNDING_FLOOR, 4, true);
  show(capacity);
  printf("%d\n", (int)moeCapacityAttrEvaluate(capacity, 100, 8));

  MlirAttribute bits = moeBitsAttrGet(context, 4, 0, 0, 1, 0, 0, 0);
  bits = mlirArrayAttrGet(context, 1, &bits);
  MlirAttribute codes = moeFieldAttrGet(mlirIntegerTypeUnsignedGet(context, 4),
                                        0, 1, 1, bits, 1, false);
  MlirAttribute scale = moeFieldAttrGet(mlirF16TypeGet(context), 1, 1, 32,
                                        mlirAttributeGetNull(), 1, false);
  MlirAttribute none = mlirAttributeGetNull();
  show(moeFormatAttrGet(codes, 0, 0, 8, none,
                        mlirArrayAttrGet(context, 1, &scale), none, none));
}

static void showErrors(MlirContext context) {
  show(moeScoreAttrGet(context, (MoeScore)77));
  show(moeGroupsAttrGet(context, 8, 9, MOE_GROUP_SCORE_MAX,
                        MOE_GROUP_FILL_ZERO));
  show(moeCapacityAttrGetFixed(context, -1));
  show(moeFormatAttrGet(mlirUnitAttrGet(context), 0, 0, 0,
                        mlirAttributeGetNull(), mlirAttributeGetNull(),
                        mlirAttributeGetNull(), mlirAttributeGetNull()));
  MlirModule module = mlirModuleCreateParse(
      context, mlirStringRefCreateFromCString(
                   "func.func @f(%x: tensor<?x8xf32>) -> tensor<?x8xf32> {\n"
                   "  return %x : tensor<?x8xf32>\n}"));
  const char *options[] = {"--target=nowhere", "--colour=red", "--tokens=9:1",
                           "--pipeline=canonicalize"};
  for (int i = 0; i < 4; ++i) {
    MoeArtifact artifact =
        moeCompile(module, mlirStringRefCreateFromCString(options[i]));
    printf("%s: %s\n", options[i],
           moeArtifactIsNull(artifact) ? "null" : "compiled");
    moeArtifactDestroy(artifact);
  }
  // What failed has not spoilt the context.
  for (int i = 0; i < 2; ++i) {
    MoeArtifact artifact = moeCompile(module, mlirStringRefCreate(NULL, 0));
    printf("again: %s\n", moeArtifactIsNull(artifact) ? "null" : "compiled");
    moeArtifactDestroy(artifact);
  }
  mlirModuleDestroy(module);
}

static void showPass(MlirContext context) {
  MlirPassManager manager = mlirPassManagerCreate(context);
  mlirPassManagerAddOwnedPass(manager, mlirCreateMoEFusionMoEFuseGather());
  mlirPassManagerAddOwnedPass(manager,
                              mlirCreateMoEConversionConvertMoEToLinalg());
  mlirPrintPassPipeline(mlirPassManagerGetAsOpPassManager(manager), print,
                        stdout);
  printf("\n");
  mlirPassManagerDestroy(manager);
}

static void showDialects(void) {
  MlirContext context = mlirContextCreate();
  mlirDialectHandleRegisterDialect(mlirGetDialectHandle__moe__(), context);
  MlirDialect dialect =
      mlirDialectHandleLoadDialect(mlirGetDialectHandle__moe__(), context);
  print(mlirDialectGetNamespace(dialect), stdout);
  print(mlirDialectHandleGetNamespace(mlirGetDialectHandle__moe_rt__()),
        stdout);
  printf("\n");
  mlirContextDestroy(context);
}

int main(void) {
  showDialects();
  MlirDialectRegistry registry = mlirDialectRegistryCreate();
  moeRegisterAllDialects(registry);
  MlirContext context = mlirContextCreateWithRegistry(registry, true);
  mlirDialectRegistryDestroy(registry);
  mlirDialectHandleLoadDialect(mlirGetDialectHandle__moe__(), context);
  mlirContextAttachDiagnosticHandler(context, handle, NULL, NULL);
  showAttributes(context);
  showPass(context);
  showErrors(context);
  mlirContextDestroy(context);
  return 0;
}
