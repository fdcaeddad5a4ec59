//===- Dialects.cpp - The dialects and their attributes -------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe-c/Dialects.h"
#include "moe/Dialect/MoE/IR/MoE.h"
#include "moe/Dialect/MoERuntime/IR/MoERuntime.h"

#include "mlir/CAPI/IR.h"
#include "mlir/CAPI/Registration.h"
#include "mlir/IR/Diagnostics.h"

using namespace mlir;
using namespace mlir::moe;

MLIR_DEFINE_CAPI_DIALECT_REGISTRATION(MoE, moe, MoEDialect)
MLIR_DEFINE_CAPI_DIALECT_REGISTRATION(MoERuntime, moe_rt,
                                      moe_rt::MoERuntimeDialect)

/// Returns the attribute with verified parameters; null after a diagnostic.
template <typename AttrT, typename... Args>
static MlirAttribute getVerified(MLIRContext *context, Args... args) {
  return wrap(AttrT::getChecked(
      [&] { return emitError(UnknownLoc::get(context)); }, context, args...));
}

/// Returns the enumerator `value`; null after a diagnostic if there is none.
template <typename AttrT, typename EnumT>
static MlirAttribute getEnum(MlirContext context, uint32_t value,
                             std::optional<EnumT> (*find)(uint32_t),
                             StringRef name) {
  if (std::optional<EnumT> found = find(value))
    return wrap(AttrT::get(unwrap(context), *found));
  emitError(UnknownLoc::get(unwrap(context)))
      << "expected a value of " << name << ", got " << value;
  return {nullptr};
}

/// True if all enumerators exist; a diagnostic names the first that does not.
template <typename EnumT>
static bool verifyEnum(MlirContext context, uint32_t value,
                       std::optional<EnumT> (*find)(uint32_t), StringRef name) {
  if (find(value))
    return true;
  emitError(UnknownLoc::get(unwrap(context)))
      << "expected a value of " << name << ", got " << value;
  return false;
}

#define MOE_ENUM_ATTRIBUTE(Name)                                               \
  MlirAttribute moe##Name##AttrGet(MlirContext context, Moe##Name value) {     \
    return getEnum<Name##Attr>(context, value, symbolize##Name, "Moe" #Name);  \
  }                                                                            \
  bool moeAttributeIsA##Name(MlirAttribute attribute) {                        \
    return isa<Name##Attr>(unwrap(attribute));                                 \
  }                                                                            \
  Moe##Name moe##Name##AttrGetValue(MlirAttribute attribute) {                 \
    return static_cast<Moe##Name>(                                             \
        cast<Name##Attr>(unwrap(attribute)).getValue());                       \
  }

MOE_ENUM_ATTRIBUTE(Score)
MOE_ENUM_ATTRIBUTE(ScoreAxis)
MOE_ENUM_ATTRIBUTE(Order)
MOE_ENUM_ATTRIBUTE(Selection)
MOE_ENUM_ATTRIBUTE(Priority)
MOE_ENUM_ATTRIBUTE(Overflow)
MOE_ENUM_ATTRIBUTE(Uncovered)

// The numbers of the C enumerations are those of the dialect.
#define MOE_SAME(C, Cpp) static_assert(int(C) == int(Cpp))
MOE_SAME(MOE_SCORE_NONE, Score::None);
MOE_SAME(MOE_SCORE_SOFTMAX, Score::Softmax);
MOE_SAME(MOE_SCORE_SIGMOID, Score::Sigmoid);
MOE_SAME(MOE_SCORE_RELU, Score::Relu);
MOE_SAME(MOE_SCORE_SQRT_SOFTPLUS, Score::SqrtSoftplus);
MOE_SAME(MOE_SCORE_AXIS_EXPERTS, ScoreAxis::Experts);
MOE_SAME(MOE_SCORE_AXIS_TOKENS, ScoreAxis::Tokens);
MOE_SAME(MOE_ORDER_SCORE_THEN_SELECT, Order::ScoreThenSelect);
MOE_SAME(MOE_ORDER_SELECT_THEN_SCORE, Order::SelectThenScore);
MOE_SAME(MOE_ORDER_SCORE_EACH_CHOICE, Order::ScoreEachChoice);
MOE_SAME(MOE_SELECTION_TOKEN_CHOICE, Selection::TokenChoice);
MOE_SAME(MOE_SELECTION_EXPERT_CHOICE, Selection::ExpertChoice);
MOE_SAME(MOE_GROUP_SCORE_MAX, GroupScore::Max);
MOE_SAME(MOE_GROUP_SCORE_TOP2_SUM, GroupScore::Top2Sum);
MOE_SAME(MOE_GROUP_FILL_NEG_INF, GroupFill::NegInf);
MOE_SAME(MOE_GROUP_FILL_ZERO, GroupFill::Zero);
MOE_SAME(MOE_NORMALIZE_SUM, NormalizeKind::Sum);
MOE_SAME(MOE_NORMALIZE_NORM, NormalizeKind::Norm);
MOE_SAME(MOE_NORMALIZE_SOFTMAX, NormalizeKind::Softmax);
MOE_SAME(MOE_NORMALIZE_GUARD_ADD, NormalizeGuard::Add);
MOE_SAME(MOE_NORMALIZE_GUARD_CLAMP, NormalizeGuard::Clamp);
MOE_SAME(MOE_ROUNDING_CEIL, Rounding::Ceil);
MOE_SAME(MOE_ROUNDING_FLOOR, Rounding::Floor);
MOE_SAME(MOE_PRIORITY_POSITION, Priority::Position);
MOE_SAME(MOE_PRIORITY_CHOICE, Priority::Choice);
MOE_SAME(MOE_PRIORITY_PROBABILITY, Priority::Probability);
MOE_SAME(MOE_OVERFLOW_DROP, Overflow::Drop);
MOE_SAME(MOE_OVERFLOW_NEXT_CHOICE, Overflow::NextChoice);
MOE_SAME(MOE_UNCOVERED_UNDEFINED, Uncovered::Undefined);
MOE_SAME(MOE_UNCOVERED_ZERO, Uncovered::Zero);

//===----------------------------------------------------------------------===//
// #moe.groups
//===----------------------------------------------------------------------===//

MlirAttribute moeGroupsAttrGet(MlirContext context, int64_t count, int64_t keep,
                               MoeGroupScore score, MoeGroupFill fill) {
  if (!verifyEnum(context, score, symbolizeGroupScore, "MoeGroupScore") ||
      !verifyEnum(context, fill, symbolizeGroupFill, "MoeGroupFill"))
    return {nullptr};
  return getVerified<GroupsAttr>(unwrap(context), count, keep,
                                 GroupScore(score), GroupFill(fill));
}

bool moeAttributeIsAGroups(MlirAttribute attribute) {
  return isa<GroupsAttr>(unwrap(attribute));
}

int64_t moeGroupsAttrGetCount(MlirAttribute attribute) {
  return cast<GroupsAttr>(unwrap(attribute)).getCount();
}

int64_t moeGroupsAttrGetKeep(MlirAttribute attribute) {
  return cast<GroupsAttr>(unwrap(attribute)).getKeep();
}

MoeGroupScore moeGroupsAttrGetScore(MlirAttribute attribute) {
  return MoeGroupScore(cast<GroupsAttr>(unwrap(attribute)).getScore());
}

MoeGroupFill moeGroupsAttrGetFill(MlirAttribute attribute) {
  return MoeGroupFill(cast<GroupsAttr>(unwrap(attribute)).getFill());
}

//===----------------------------------------------------------------------===//
// #moe.normalize
//===----------------------------------------------------------------------===//

MlirAttribute moeNormalizeAttrGet(MlirContext context, MoeNormalizeKind kind,
                                  double p, double epsilon,
                                  MoeNormalizeGuard guard) {
  if (!verifyEnum(context, kind, symbolizeNormalizeKind, "MoeNormalizeKind") ||
      !verifyEnum(context, guard, symbolizeNormalizeGuard, "MoeNormalizeGuard"))
    return {nullptr};
  return getVerified<NormalizeAttr>(unwrap(context), NormalizeKind(kind),
                                    Real(p), Real(epsilon),
                                    NormalizeGuard(guard));
}

bool moeAttributeIsANormalize(MlirAttribute attribute) {
  return isa<NormalizeAttr>(unwrap(attribute));
}

MoeNormalizeKind moeNormalizeAttrGetKind(MlirAttribute attribute) {
  return MoeNormalizeKind(cast<NormalizeAttr>(unwrap(attribute)).getKind());
}

double moeNormalizeAttrGetP(MlirAttribute attribute) {
  return cast<NormalizeAttr>(unwrap(attribute)).getP();
}

double moeNormalizeAttrGetEpsilon(MlirAttribute attribute) {
  return cast<NormalizeAttr>(unwrap(attribute)).getEpsilon();
}

MoeNormalizeGuard moeNormalizeAttrGetGuard(MlirAttribute attribute) {
  return MoeNormalizeGuard(cast<NormalizeAttr>(unwrap(attribute)).getGuard());
}

//===----------------------------------------------------------------------===//
// #moe.capacity
//===----------------------------------------------------------------------===//

MlirAttribute moeCapacityAttrGetFixed(MlirContext context, int64_t rows) {
  // A negative number is what a capacity from a factor has.
  if (rows < 0) {
    emitError(UnknownLoc::get(unwrap(context)))
        << "expected at least 0 rows, got " << rows;
    return {nullptr};
  }
  return getVerified<CapacityAttr>(unwrap(context), rows, Real(0.0),
                                   Rounding::Ceil, int64_t(0), false);
}

MlirAttribute moeCapacityAttrGetFactor(MlirContext context, double factor,
                                       MoeRounding rounding, int64_t minimum,
                                       bool atMostTokens) {
  if (!verifyEnum(context, rounding, symbolizeRounding, "MoeRounding"))
    return {nullptr};
  return getVerified<CapacityAttr>(unwrap(context), int64_t(-1), Real(factor),
                                   Rounding(rounding), minimum, atMostTokens);
}

bool moeAttributeIsACapacity(MlirAttribute attribute) {
  return isa<CapacityAttr>(unwrap(attribute));
}

int64_t moeCapacityAttrEvaluate(MlirAttribute attribute, int64_t tokens,
                                int64_t experts) {
  return cast<CapacityAttr>(unwrap(attribute)).evaluate(tokens, experts);
}

//===----------------------------------------------------------------------===//
// Formats of quantised weights
//===----------------------------------------------------------------------===//

MlirAttribute moeBitsAttrGet(MlirContext context, int64_t width, int64_t byte,
                             int64_t bit, int64_t run, int64_t first,
                             int64_t count, int64_t shift) {
  return getVerified<BitsAttr>(unwrap(context), width, byte, bit, run, first,
                               count, shift);
}

bool moeAttributeIsABits(MlirAttribute attribute) {
  return isa<BitsAttr>(unwrap(attribute));
}

/// Sets `result` to an attribute of type `AttrT`, which may be null; emits an
/// error and returns false if it is another one.
template <typename AttrT>
static bool getOptional(MLIRContext *context, MlirAttribute attribute,
                        StringRef what, AttrT &result) {
  Attribute value = unwrap(attribute);
  result = dyn_cast_or_null<AttrT>(value);
  if (result || !value)
    return true;
  emitError(UnknownLoc::get(context))
      << "expected " << what << ", got " << value;
  return false;
}

MlirAttribute moeFieldAttrGet(MlirType element, int64_t operand,
                              int64_t blockRows, int64_t blockColumns,
                              MlirAttribute bits, int64_t axis, bool divide) {
  MLIRContext *context = unwrap(element).getContext();
  ArrayAttr array;
  if (!getOptional(context, bits, "an array as bits", array))
    return {nullptr};
  return getVerified<FieldAttr>(context, unwrap(element), operand,
                                Pair{blockRows, blockColumns}, array, axis,
                                divide);
}

bool moeAttributeIsAField(MlirAttribute attribute) {
  return isa<FieldAttr>(unwrap(attribute));
}

MlirAttribute moeFormatAttrGet(MlirAttribute codes, int64_t recordElements,
                               int64_t recordBytes, int64_t offset,
                               MlirAttribute table, MlirAttribute scales,
                               MlirAttribute mins, MlirAttribute zero) {
  MLIRContext *context = unwrap(codes).getContext();
  FieldAttr codesField, zeroField;
  DenseF32ArrayAttr values;
  ArrayAttr scaleFields, minFields;
  if (!getOptional(context, codes, "#moe.field as codes", codesField) ||
      !getOptional(context, table, "a dense array of f32 as table", values) ||
      !getOptional(context, scales, "an array as scales", scaleFields) ||
      !getOptional(context, mins, "an array as mins", minFields) ||
      !getOptional(context, zero, "#moe.field as zero", zeroField))
    return {nullptr};
  return getVerified<FormatAttr>(context, codesField,
                                 Pair{recordElements, recordBytes}, offset,
                                 values, scaleFields, minFields, zeroField);
}

bool moeAttributeIsAFormat(MlirAttribute attribute) {
  return isa<FormatAttr>(unwrap(attribute));
}
