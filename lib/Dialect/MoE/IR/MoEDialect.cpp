//===- MoEDialect.cpp - The moe dialect -----------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Bytecode.h"
#include "moe/Dialect/MoE/IR/MoE.h"
#include "moe/Dialect/Utils/PermissiveInlinerInterface.h"

#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::moe;

/// custom<Keyword>: parses the bare keyword of an enumeration and prints it
/// without the space that the format of the attribute adds.
template <typename AttrT>
static ParseResult parseKeyword(OpAsmParser &parser, AttrT &attribute) {
  using Value = decltype(attribute.getValue());
  FailureOr<Value> value = FieldParser<Value>::parse(parser);
  if (failed(value))
    return failure();
  attribute = AttrT::get(parser.getContext(), *value);
  return success();
}
template <typename AttrT>
static void printKeyword(OpAsmPrinter &printer, Operation *, AttrT attribute) {
  printer << stringifyEnum(attribute.getValue());
}

#include "moe/Dialect/MoE/IR/MoEDialect.cpp.inc"
#include "moe/Dialect/MoE/IR/MoEEnums.cpp.inc"

#define GET_ATTRDEF_CLASSES
#include "moe/Dialect/MoE/IR/MoEAttrs.cpp.inc"

#define GET_OP_CLASSES
#include "moe/Dialect/MoE/IR/MoEOps.cpp.inc"

void MoEDialect::initialize() {
  addOperations<
#define GET_OP_LIST
#include "moe/Dialect/MoE/IR/MoEOps.cpp.inc"
      >();
  addAttributes<
#define GET_ATTRDEF_LIST
#include "moe/Dialect/MoE/IR/MoEAttrs.cpp.inc"
      >();
  addInterfaces<PermissiveInlinerInterface>();
  addBytecodeInterface(*this);
}

//===----------------------------------------------------------------------===//
// Members of the operations
//===----------------------------------------------------------------------===//

StringRef GateOp::getTokenDependence() {
  if (isChosenByExperts())
    return "experts choose among all tokens of a call";
  if (getScoreAxis() == ScoreAxis::Tokens)
    return "the softmax runs over all tokens of a call";
  return "";
}

FloatType GateOp::getScoreElementType() {
  return getScoreType() ? *getScoreType() : Float32Type::get(getContext());
}

void GateOp::getAsmResultNames(OpAsmSetValueNameFn setName) {
  setName(getWeights(), "weights");
  setName(getIds(), "ids");
}

void DispatchOp::getAsmResultNames(OpAsmSetValueNameFn setName) {
  setName(getGrouped(), "grouped");
  setName(getOffsets(), "offsets");
  setName(getPositions(), "positions");
}

void RouteOp::getAsmResultNames(OpAsmSetValueNameFn setName) {
  setName(getTokens(), "tokens");
  setName(getOffsets(), "offsets");
  setName(getPositions(), "positions");
}

void QuantizeOp::getAsmResultNames(OpAsmSetValueNameFn setName) {
  if (getFields().size() != 2) // invalid
    return;
  setName(getQuantized(), "quantized");
  setName(getScales(), "scales");
}

void ExpertOp::getAsmBlockArgumentNames(Region &region,
                                        OpAsmSetValueNameFn setName) {
  if (!region.empty() && region.getNumArguments() > 0)
    setName(region.getArgument(0), "rows");
}

YieldOp ExpertOp::getYield() {
  return cast<YieldOp>(getBody().front().getTerminator());
}

void CombineOp::getAsmResultNames(OpAsmSetValueNameFn setName) {
  setName(getResult(), "combined");
}
