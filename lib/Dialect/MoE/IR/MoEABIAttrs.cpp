//===- MoEABIAttrs.cpp - The signature of an exported function ------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/IR/MoEABI.h"

using namespace mlir;
using namespace mlir::moe;

/// Verifies that all elements of an array are attributes of one kind.
template <typename AttrT>
static LogicalResult
verifyElements(function_ref<InFlightDiagnostic()> emitError, StringRef list,
               ArrayAttr array) {
  for (Attribute element : array ? array.getValue() : ArrayRef<Attribute>())
    if (!isa<AttrT>(element))
      return emitError() << "expected " << list << " of #moe."
                         << AttrT::getMnemonic() << ", got " << element;
  return success();
}

LogicalResult ArgumentAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                                   StringAttr name, ArgumentRole role,
                                   RankedTensorType type, int64_t numExperts,
                                   ArrayAttr source, StringAttr sourceFormat,
                                   bool convert, bool retained,
                                   int64_t alignment, StringAttr prepare,
                                   ArrayAttr sources, StringAttr measures) {
  if (name.empty())
    return emitError() << "expected a name that is not empty";
  if (getDTypeName(type.getElementType()).empty())
    return emitError() << "expected '" << name.getValue()
                       << "' to have elements that an artifact has, got "
                       << type;
  if (numExperts < 0 || alignment < 0)
    return emitError() << "expected num_experts and alignment of '"
                       << name.getValue() << "' to be at least 0, got "
                       << numExperts << " and " << alignment;
  if (sourceFormat && !source)
    return emitError() << "expected '" << name.getValue()
                       << "' to have a source, as it has a source_format";
  if ((role == ArgumentRole::Prepared) != bool(prepare) ||
      bool(prepare) != bool(sources))
    return emitError() << "expected prepare and sources of '" << name.getValue()
                       << "' if, and only if, its role is prepared";
  if (measures && (role != ArgumentRole::Prepared || type.getRank() != 1 ||
                   !type.getElementType().isF32()))
    return emitError() << "expected '" << name.getValue()
                       << "', which measures a weight, to be a prepared "
                          "vector of f32, got "
                       << type;
  return success();
}

ArgumentAttr ArgumentAttr::withAlignment(int64_t bytes) const {
  return get(getContext(), getName(), getRole(), getType(), getNumExperts(),
             getSource(), getSourceFormat(), getConvert(), getRetained(), bytes,
             getPrepare(), getSources(), getMeasures());
}

ArgumentAttr ArgumentAttr::withRetained(bool retained) const {
  return get(getContext(), getName(), getRole(), getType(), getNumExperts(),
             getSource(), getSourceFormat(), getConvert(), retained,
             getAlignment(), getPrepare(), getSources(), getMeasures());
}

LogicalResult
SignatureAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                      ArrayAttr arguments, ArrayAttr dispatches) {
  if (failed(verifyElements<ArgumentAttr>(emitError, "arguments", arguments)))
    return failure();
  return verifyElements<DispatchReportAttr>(emitError, "dispatches",
                                            dispatches);
}

ArgumentAttr SignatureAttr::getArgument(size_t index) const {
  if (index >= getNumArguments())
    return {};
  return cast<ArgumentAttr>(getArguments()[index]);
}

SignatureAttr
SignatureAttr::withArguments(ArrayRef<Attribute> arguments) const {
  return get(getContext(), ArrayAttr::get(getContext(), arguments),
             getDispatches());
}

StringRef mlir::moe::getDTypeName(Type type) {
  if (type.isF32())
    return "f32";
  if (type.isF16())
    return "f16";
  if (type.isBF16())
    return "bf16";
  if (type.isF64())
    return "f64";
  if (isa<Float8E4M3FNType>(type))
    return "f8E4M3FN";
  if (isa<Float8E5M2Type>(type))
    return "f8E5M2";
  if (isa<Float8E8M0FNUType>(type))
    return "f8E8M0FNU";
  if (type.isSignlessInteger(8))
    return "i8";
  if (type.isSignlessInteger(16))
    return "i16";
  if (type.isSignlessInteger(32))
    return "i32";
  if (type.isSignlessInteger(64))
    return "i64";
  return "";
}
