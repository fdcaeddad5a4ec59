//===- builder.h - Operations by MLIR's C API -----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_TEST_CAPI_BUILDER_H
#define MOE_TEST_CAPI_BUILDER_H

#include "mlir-c/IR.h"

typedef struct {
  MlirContext context;
  MlirLocation location;
  MlirBlock block; // where operations are appended
} Builder;

/// An operation to append. Without `types` those of its results are inferred.
typedef struct {
  const char *name;
  MlirValue operands[4];
  intptr_t numOperands;
  MlirType types[1];
  intptr_t numTypes;
  bool noResults;
  MlirNamedAttribute attributes[8];
  intptr_t numAttributes;
  MlirRegion region; // owned, may be null
} Description;

MlirOperation append(Builder *builder, Description *description);
MlirValue appendValue(Builder *builder, Description *description);

MlirNamedAttribute named(Builder *builder, const char *name, MlirAttribute);
MlirNamedAttribute integer(Builder *builder, const char *name, int64_t value);
/// The attribute that says how many operands each group has.
MlirNamedAttribute segments(Builder *builder, intptr_t count,
                            const int32_t *sizes);
/// A tensor of f32; an extent of -1 is dynamic.
MlirType tensor(Builder *builder, intptr_t rank, const int64_t *shape);

/// A tensor of zeros, `[rows of like, columns]`.
MlirValue appendZeros(Builder *builder, MlirValue like, int64_t columns);
/// A named operation of linalg on two tensors that writes to `init`.
MlirValue appendLinalg(Builder *builder, const char *name, MlirValue lhs,
                       MlirValue rhs, MlirValue init);

#endif // MOE_TEST_CAPI_BUILDER_H
