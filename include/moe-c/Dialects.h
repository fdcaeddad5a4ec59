//===- Dialects.h - The dialects and their attributes ------------*- C -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The dialects moe and moe_rt for programs that use MLIR's C API, in its
// conventions. The dialects have no types. An operation is created by its name
// with mlirOperationCreate; docs/attributes.md lists the attributes of each.
//
// A function that creates an attribute verifies it: if a parameter is out of
// range, it emits a diagnostic without a location and returns a null attribute.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_C_DIALECTS_H
#define MOE_C_DIALECTS_H

#include "mlir-c/IR.h"

#ifdef __cplusplus
extern "C" {
#endif

MLIR_DECLARE_CAPI_DIALECT_REGISTRATION(MoE, moe);
MLIR_DECLARE_CAPI_DIALECT_REGISTRATION(MoERuntime, moe_rt);

//===----------------------------------------------------------------------===//
// Attributes of moe.gate
//===----------------------------------------------------------------------===//

typedef enum {
  MOE_SCORE_NONE = 0,
  MOE_SCORE_SOFTMAX = 1,
  MOE_SCORE_SIGMOID = 2,
  MOE_SCORE_RELU = 3,
  MOE_SCORE_SQRT_SOFTPLUS = 4,
} MoeScore;
MLIR_CAPI_EXPORTED MlirAttribute moeScoreAttrGet(MlirContext context,
                                                 MoeScore value);
MLIR_CAPI_EXPORTED bool moeAttributeIsAScore(MlirAttribute attribute);
MLIR_CAPI_EXPORTED MoeScore moeScoreAttrGetValue(MlirAttribute attribute);

typedef enum {
  MOE_SCORE_AXIS_EXPERTS = 0,
  MOE_SCORE_AXIS_TOKENS = 1,
} MoeScoreAxis;
MLIR_CAPI_EXPORTED MlirAttribute moeScoreAxisAttrGet(MlirContext context,
                                                     MoeScoreAxis value);
MLIR_CAPI_EXPORTED bool moeAttributeIsAScoreAxis(MlirAttribute attribute);
MLIR_CAPI_EXPORTED MoeScoreAxis
moeScoreAxisAttrGetValue(MlirAttribute attribute);

typedef enum {
  MOE_ORDER_SCORE_THEN_SELECT = 0,
  MOE_ORDER_SELECT_THEN_SCORE = 1,
  MOE_ORDER_SCORE_EACH_CHOICE = 2,
} MoeOrder;
MLIR_CAPI_EXPORTED MlirAttribute moeOrderAttrGet(MlirContext context,
                                                 MoeOrder value);
MLIR_CAPI_EXPORTED bool moeAttributeIsAOrder(MlirAttribute attribute);
MLIR_CAPI_EXPORTED MoeOrder moeOrderAttrGetValue(MlirAttribute attribute);

typedef enum {
  MOE_SELECTION_TOKEN_CHOICE = 0,
  MOE_SELECTION_EXPERT_CHOICE = 1,
} MoeSelection;
MLIR_CAPI_EXPORTED MlirAttribute moeSelectionAttrGet(MlirContext context,
                                                     MoeSelection value);
MLIR_CAPI_EXPORTED bool moeAttributeIsASelection(MlirAttribute attribute);
MLIR_CAPI_EXPORTED MoeSelection
moeSelectionAttrGetValue(MlirAttribute attribute);

typedef enum {
  MOE_GROUP_SCORE_MAX = 0,
  MOE_GROUP_SCORE_TOP2_SUM = 1,
} MoeGroupScore;
typedef enum {
  MOE_GROUP_FILL_NEG_INF = 0,
  MOE_GROUP_FILL_ZERO = 1,
} MoeGroupFill;
/// `#moe.groups`: `keep` of `count` groups of experts stay.
MLIR_CAPI_EXPORTED MlirAttribute moeGroupsAttrGet(MlirContext context,
                                                  int64_t count, int64_t keep,
                                                  MoeGroupScore score,
                                                  MoeGroupFill fill);
MLIR_CAPI_EXPORTED bool moeAttributeIsAGroups(MlirAttribute attribute);
MLIR_CAPI_EXPORTED int64_t moeGroupsAttrGetCount(MlirAttribute attribute);
MLIR_CAPI_EXPORTED int64_t moeGroupsAttrGetKeep(MlirAttribute attribute);
MLIR_CAPI_EXPORTED MoeGroupScore moeGroupsAttrGetScore(MlirAttribute attribute);
MLIR_CAPI_EXPORTED MoeGroupFill moeGroupsAttrGetFill(MlirAttribute attribute);

typedef enum {
  MOE_NORMALIZE_SUM = 0,
  MOE_NORMALIZE_NORM = 1,
  MOE_NORMALIZE_SOFTMAX = 2,
} MoeNormalizeKind;
typedef enum {
  MOE_NORMALIZE_GUARD_ADD = 0,
  MOE_NORMALIZE_GUARD_CLAMP = 1,
} MoeNormalizeGuard;
/// `#moe.normalize`, of moe.gate and moe.combine. `p` is 2 unless `kind` is
/// MOE_NORMALIZE_NORM.
MLIR_CAPI_EXPORTED MlirAttribute moeNormalizeAttrGet(MlirContext context,
                                                     MoeNormalizeKind kind,
                                                     double p, double epsilon,
                                                     MoeNormalizeGuard guard);
MLIR_CAPI_EXPORTED bool moeAttributeIsANormalize(MlirAttribute attribute);
MLIR_CAPI_EXPORTED MoeNormalizeKind
moeNormalizeAttrGetKind(MlirAttribute attribute);
MLIR_CAPI_EXPORTED double moeNormalizeAttrGetP(MlirAttribute attribute);
MLIR_CAPI_EXPORTED double moeNormalizeAttrGetEpsilon(MlirAttribute attribute);
MLIR_CAPI_EXPORTED MoeNormalizeGuard
moeNormalizeAttrGetGuard(MlirAttribute attribute);

//===----------------------------------------------------------------------===//
// Attributes of moe.dispatch and moe.expert
//===----------------------------------------------------------------------===//

typedef enum {
  MOE_ROUNDING_CEIL = 0,
  MOE_ROUNDING_FLOOR = 1,
} MoeRounding;
/// `#moe.capacity` of `rows` rows.
MLIR_CAPI_EXPORTED MlirAttribute moeCapacityAttrGetFixed(MlirContext context,
                                                         int64_t rows);
/// `#moe.capacity` from a factor.
MLIR_CAPI_EXPORTED MlirAttribute moeCapacityAttrGetFactor(MlirContext context,
                                                          double factor,
                                                          MoeRounding rounding,
                                                          int64_t minimum,
                                                          bool atMostTokens);
MLIR_CAPI_EXPORTED bool moeAttributeIsACapacity(MlirAttribute attribute);
/// Returns the rows that an expert takes of `tokens` tokens.
MLIR_CAPI_EXPORTED int64_t moeCapacityAttrEvaluate(MlirAttribute attribute,
                                                   int64_t tokens,
                                                   int64_t experts);

typedef enum {
  MOE_PRIORITY_POSITION = 0,
  MOE_PRIORITY_CHOICE = 1,
  MOE_PRIORITY_PROBABILITY = 2,
} MoePriority;
MLIR_CAPI_EXPORTED MlirAttribute moePriorityAttrGet(MlirContext context,
                                                    MoePriority value);
MLIR_CAPI_EXPORTED bool moeAttributeIsAPriority(MlirAttribute attribute);
MLIR_CAPI_EXPORTED MoePriority moePriorityAttrGetValue(MlirAttribute attribute);

typedef enum {
  MOE_OVERFLOW_DROP = 0,
  MOE_OVERFLOW_NEXT_CHOICE = 1,
} MoeOverflow;
MLIR_CAPI_EXPORTED MlirAttribute moeOverflowAttrGet(MlirContext context,
                                                    MoeOverflow value);
MLIR_CAPI_EXPORTED bool moeAttributeIsAOverflow(MlirAttribute attribute);
MLIR_CAPI_EXPORTED MoeOverflow moeOverflowAttrGetValue(MlirAttribute attribute);

typedef enum {
  MOE_UNCOVERED_UNDEFINED = 0,
  MOE_UNCOVERED_ZERO = 1,
} MoeUncovered;
MLIR_CAPI_EXPORTED MlirAttribute moeUncoveredAttrGet(MlirContext context,
                                                     MoeUncovered value);
MLIR_CAPI_EXPORTED bool moeAttributeIsAUncovered(MlirAttribute attribute);
MLIR_CAPI_EXPORTED MoeUncovered
moeUncoveredAttrGetValue(MlirAttribute attribute);

//===----------------------------------------------------------------------===//
// Formats of quantised weights
//===----------------------------------------------------------------------===//

/// `#moe.bits`: where some bits of packed values are.
MLIR_CAPI_EXPORTED MlirAttribute moeBitsAttrGet(MlirContext context,
                                                int64_t width, int64_t byte,
                                                int64_t bit, int64_t run,
                                                int64_t first, int64_t count,
                                                int64_t shift);
MLIR_CAPI_EXPORTED bool moeAttributeIsABits(MlirAttribute attribute);

/// `#moe.field`: the numbers of a quantised tensor. `bits` is an array of
/// `#moe.bits`, or null.
MLIR_CAPI_EXPORTED MlirAttribute moeFieldAttrGet(
    MlirType element, int64_t operand, int64_t blockRows, int64_t blockColumns,
    MlirAttribute bits, int64_t axis, bool divide);
MLIR_CAPI_EXPORTED bool moeAttributeIsAField(MlirAttribute attribute);

/// `#moe.format`: how quantised weights are stored. `codes` and `zero` are
/// `#moe.field`, `scales` and `mins` arrays of them, `table` a dense array of
/// f32; all but `codes` may be null.
MLIR_CAPI_EXPORTED MlirAttribute
moeFormatAttrGet(MlirAttribute codes, int64_t recordElements,
                 int64_t recordBytes, int64_t offset, MlirAttribute table,
                 MlirAttribute scales, MlirAttribute mins, MlirAttribute zero);
MLIR_CAPI_EXPORTED bool moeAttributeIsAFormat(MlirAttribute attribute);

#ifdef __cplusplus
}
#endif

#endif // MOE_C_DIALECTS_H
