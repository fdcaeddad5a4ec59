//===- builder.c - Operations by MLIR's C API -----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "builder.h"

#include "mlir-c/BuiltinAttributes.h"
#include "mlir-c/BuiltinTypes.h"
#include "mlir-c/Dialect/Linalg.h"

#include <stdio.h>
#include <stdlib.h>

static MlirStringRef text(const char *string) {
  return mlirStringRefCreateFromCString(string);
}

MlirNamedAttribute named(Builder *builder, const char *name,
                         MlirAttribute attribute) {
  return mlirNamedAttributeGet(mlirIdentifierGet(builder->context, text(name)),
                               attribute);
}

MlirNamedAttribute integer(Builder *builder, const char *name, int64_t value) {
  MlirType type = mlirIntegerTypeGet(builder->context, 64);
  return named(builder, name, mlirIntegerAttrGet(type, value));
}

MlirNamedAttribute segments(Builder *builder, intptr_t count,
                            const int32_t *sizes) {
  return named(builder, "operandSegmentSizes",
               mlirDenseI32ArrayGet(builder->context, count, sizes));
}

MlirType tensor(Builder *builder, intptr_t rank, const int64_t *shape) {
  int64_t extents[4];
  for (intptr_t i = 0; i < rank; ++i)
    extents[i] = shape[i] < 0 ? mlirShapedTypeGetDynamicSize() : shape[i];
  return mlirRankedTensorTypeGet(
      rank, extents, mlirF32TypeGet(builder->context), mlirAttributeGetNull());
}

MlirOperation append(Builder *builder, Description *description) {
  MlirOperationState state =
      mlirOperationStateGet(text(description->name), builder->location);
  mlirOperationStateAddOperands(&state, description->numOperands,
                                description->operands);
  mlirOperationStateAddAttributes(&state, description->numAttributes,
                                  description->attributes);
  if (description->numTypes)
    mlirOperationStateAddResults(&state, description->numTypes,
                                 description->types);
  else if (!description->noResults)
    mlirOperationStateEnableResultTypeInference(&state);
  if (!mlirRegionIsNull(description->region))
    mlirOperationStateAddOwnedRegions(&state, 1, &description->region);
  MlirOperation operation = mlirOperationCreate(&state);
  if (mlirOperationIsNull(operation)) {
    fprintf(stderr, "cannot create %s\n", description->name);
    exit(1);
  }
  mlirBlockAppendOwnedOperation(builder->block, operation);
  return operation;
}

MlirValue appendValue(Builder *builder, Description *description) {
  return mlirOperationGetResult(append(builder, description), 0);
}

MlirValue appendZeros(Builder *builder, MlirValue like, int64_t columns) {
  MlirContext context = builder->context;
  int64_t shape[] = {-1, columns};
  MlirType type = tensor(builder, 2, shape);
  MlirValue index = appendValue(
      builder,
      &(Description){.name = "arith.constant",
                     .numAttributes = 1,
                     .attributes = {named(
                         builder, "value",
                         mlirIntegerAttrGet(mlirIndexTypeGet(context), 0))}});
  MlirValue zero = appendValue(
      builder,
      &(Description){
          .name = "arith.constant",
          .numAttributes = 1,
          .attributes = {named(
              builder, "value",
              mlirFloatAttrDoubleGet(context, mlirF32TypeGet(context), 0.0))}});
  MlirValue rows =
      appendValue(builder, &(Description){.name = "tensor.dim",
                                          .numOperands = 2,
                                          .operands = {like, index}});
  MlirValue empty = appendValue(builder, &(Description){.name = "tensor.empty",
                                                        .numOperands = 1,
                                                        .operands = {rows},
                                                        .numTypes = 1,
                                                        .types = {type}});
  MlirOperation fill = append(
      builder,
      &(Description){.name = "linalg.fill",
                     .numOperands = 2,
                     .operands = {zero, empty},
                     .numTypes = 1,
                     .types = {type},
                     .numAttributes = 1,
                     .attributes = {segments(builder, 2, (int32_t[]){1, 1})},
                     .region = mlirRegionCreate()});
  mlirLinalgFillBuiltinNamedOpRegion(fill);
  return mlirOperationGetResult(fill, 0);
}

MlirValue appendLinalg(Builder *builder, const char *name, MlirValue lhs,
                       MlirValue rhs, MlirValue init) {
  MlirOperation operation = append(
      builder,
      &(Description){.name = name,
                     .numOperands = 3,
                     .operands = {lhs, rhs, init},
                     .numTypes = 1,
                     .types = {mlirValueGetType(init)},
                     .numAttributes = 1,
                     .attributes = {segments(builder, 2, (int32_t[]){2, 1})},
                     .region = mlirRegionCreate()});
  mlirLinalgFillBuiltinNamedOpRegion(operation);
  return mlirOperationGetResult(operation, 0);
}
