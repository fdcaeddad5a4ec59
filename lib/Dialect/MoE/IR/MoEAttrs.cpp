//===- MoEAttrs.cpp - Attributes of the moe dialect -----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/IR/DialectImplementation.h"

#include <cmath>

using namespace mlir;
using namespace mlir::moe;

//===----------------------------------------------------------------------===//
// Parsing and printing
//===----------------------------------------------------------------------===//

/// Prints a double so that it parses to the same bits.
static void printDouble(AsmPrinter &printer, double value) {
  printer.printFloat(APFloat(value));
}

/// Parses `key = value, flag, ...` up to '>'. `parseField` is called after each
/// key and returns false if it does not know it.
static ParseResult parseFields(
    AsmParser &parser,
    function_ref<FailureOr<bool>(StringRef key, SMLoc loc)> parseField) {
  SmallVector<StringRef> seen;
  do {
    SMLoc loc = parser.getCurrentLocation();
    StringRef key;
    if (parser.parseKeyword(&key))
      return failure();
    if (llvm::is_contained(seen, key))
      return parser.emitError(loc) << "duplicate parameter '" << key << "'";
    seen.push_back(key);
    FailureOr<bool> known = parseField(key, loc);
    if (failed(known))
      return failure();
    if (!*known)
      return parser.emitError(loc) << "unknown parameter '" << key << "'";
  } while (succeeded(parser.parseOptionalComma()));
  return parser.parseGreater();
}

/// Parses `= <number>`.
template <typename T>
static FailureOr<bool> parseNumber(AsmParser &parser, T &value) {
  if (parser.parseEqual())
    return failure();
  ParseResult result = failure();
  if constexpr (std::is_same_v<T, double>)
    result = parser.parseFloat(value);
  else
    result = parser.parseInteger(value);
  if (failed(result))
    return failure();
  return true;
}
template <typename T>
static FailureOr<bool>
parseEnum(AsmParser &parser, T &value,
          std::optional<T> (*symbolize)(llvm::StringRef)) {
  StringRef keyword;
  SMLoc loc;
  if (parser.parseEqual())
    return failure();
  loc = parser.getCurrentLocation();
  if (parser.parseKeyword(&keyword))
    return failure();
  std::optional<T> symbol = symbolize(keyword);
  if (!symbol) {
    parser.emitError(loc) << "unknown value '" << keyword << "'";
    return failure();
  }
  value = *symbol;
  return true;
}

Attribute NormalizeAttr::parse(AsmParser &parser, Type) {
  SMLoc loc = parser.getCurrentLocation();
  double p = 2.0, epsilon = 0.0;
  NormalizeGuard guard = NormalizeGuard::Add;
  StringRef keyword;
  SMLoc kindLoc;
  if (parser.parseLess())
    return {};
  kindLoc = parser.getCurrentLocation();
  if (parser.parseKeyword(&keyword))
    return {};
  std::optional<NormalizeKind> kind = symbolizeNormalizeKind(keyword);
  if (!kind) {
    parser.emitError(kindLoc)
        << "expected sum, norm or softmax, got '" << keyword << "'";
    return {};
  }
  if (succeeded(parser.parseOptionalGreater()))
    return parser.getChecked<NormalizeAttr>(loc, parser.getContext(), *kind,
                                            Real(p), Real(epsilon), guard);
  if (parser.parseComma() ||
      parseFields(parser, [&](StringRef key, SMLoc) -> FailureOr<bool> {
        if (key == "p")
          return parseNumber(parser, p);
        if (key == "epsilon")
          return parseNumber(parser, epsilon);
        if (key == "guard")
          return parseEnum(parser, guard, symbolizeNormalizeGuard);
        return false;
      }))
    return {};
  return parser.getChecked<NormalizeAttr>(loc, parser.getContext(), *kind,
                                          Real(p), Real(epsilon), guard);
}

void NormalizeAttr::print(AsmPrinter &printer) const {
  printer << "<" << stringifyNormalizeKind(getKind());
  if (getKind() == NormalizeKind::Norm) {
    printer << ", p = ";
    printDouble(printer, getP());
  }
  if (getEpsilon() != 0.0) {
    printer << ", epsilon = ";
    printDouble(printer, getEpsilon());
  }
  if (getGuard() != NormalizeGuard::Add)
    printer << ", guard = " << stringifyNormalizeGuard(getGuard());
  printer << ">";
}

Attribute CapacityAttr::parse(AsmParser &parser, Type) {
  SMLoc loc = parser.getCurrentLocation();
  int64_t fixed = -1, minimum = 0;
  double factor = 0.0;
  Rounding rounding = Rounding::Ceil;
  bool atMostTokens = false;
  if (parser.parseLess() ||
      parseFields(parser, [&](StringRef key, SMLoc keyLoc) -> FailureOr<bool> {
        if (key == "fixed") {
          FailureOr<bool> parsed = parseNumber(parser, fixed);
          if (succeeded(parsed) && fixed < 0) {
            parser.emitError(keyLoc)
                << "expected a fixed capacity of at least 0, got " << fixed;
            return failure();
          }
          return parsed;
        }
        if (key == "factor")
          return parseNumber(parser, factor);
        if (key == "minimum")
          return parseNumber(parser, minimum);
        if (key == "rounding")
          return parseEnum(parser, rounding, symbolizeRounding);
        if (key == "at_most_tokens") {
          atMostTokens = true;
          return true;
        }
        return false;
      }))
    return {};
  return parser.getChecked<CapacityAttr>(loc, parser.getContext(), fixed,
                                         Real(factor), rounding, minimum,
                                         atMostTokens);
}

void CapacityAttr::print(AsmPrinter &printer) const {
  if (isFixed()) {
    printer << "<fixed = " << getFixed() << ">";
    return;
  }
  printer << "<factor = ";
  printDouble(printer, getFactor());
  if (getRounding() != Rounding::Ceil)
    printer << ", rounding = " << stringifyRounding(getRounding());
  if (getMinimum() != 0)
    printer << ", minimum = " << getMinimum();
  if (getAtMostTokens())
    printer << ", at_most_tokens";
  printer << ">";
}

//===----------------------------------------------------------------------===//
// Verification
//===----------------------------------------------------------------------===//

LogicalResult GroupsAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                                 int64_t count, int64_t keep, GroupScore,
                                 GroupFill) {
  if (count < 1)
    return emitError() << "expected at least one group, got " << count;
  if (keep < 1 || keep > count)
    return emitError() << "expected to keep between 1 and " << count
                       << " groups, got " << keep;
  return success();
}

LogicalResult
NormalizeAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                      NormalizeKind kind, Real p, Real epsilon,
                      NormalizeGuard guard) {
  if (!(p > 0.0) || std::isinf(p))
    return emitError() << "expected a finite p above 0, got " << p.value;
  if (kind != NormalizeKind::Norm && p != 2.0)
    return emitError() << "p is for norm, not for "
                       << stringifyNormalizeKind(kind);
  // -0.0 is rejected, too, as it would print like 0.0.
  if (!(epsilon >= 0.0) || std::isinf(epsilon) || std::signbit(epsilon))
    return emitError() << "expected a finite epsilon of at least 0, got "
                       << epsilon.value;
  if (kind == NormalizeKind::Softmax &&
      (epsilon != 0.0 || guard != NormalizeGuard::Add))
    return emitError()
           << "epsilon and guard are for sum and norm, not for softmax";
  return success();
}

LogicalResult CapacityAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                                   int64_t fixed, Real factor,
                                   Rounding rounding, int64_t minimum,
                                   bool atMostTokens) {
  // Row indices are i32. This also keeps E·C within 64 bits.
  constexpr int64_t limit = INT32_MAX;
  if (fixed >= 0) {
    if (!(factor == Real(0.0)))
      return emitError() << "expected either a fixed capacity or a factor, "
                            "got both";
    if (rounding != Rounding::Ceil || minimum != 0 || atMostTokens)
      return emitError() << "rounding, minimum and at_most_tokens are for a "
                            "capacity factor, not for a fixed capacity";
    if (fixed > limit)
      return emitError() << "expected a fixed capacity of at most " << limit
                         << ", got " << fixed;
    return success();
  }
  if (!(factor > 0.0) || std::isinf(factor))
    return emitError() << "expected a finite capacity factor above 0, got "
                       << factor.value;
  if (minimum < 0 || minimum > limit)
    return emitError() << "expected a minimum between 0 and " << limit
                       << ", got " << minimum;
  return success();
}

LogicalResult TileAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                               MatrixUnit unit, int64_t rows, int64_t columns,
                               int64_t depth, int64_t stages, WarpRoles roles,
                               bool swapAB, int64_t split,
                               GatherFence gatherFence) {
  if (rows < 8 || columns < 8 || rows % 8 != 0 || columns % 8 != 0 ||
      rows > 256 || columns > 256)
    return emitError()
           << "expected rows and columns of 8 to 256 in steps of 8, "
              "got "
           << rows << " and " << columns;
  if (depth < 16 || depth % 16 != 0 || depth > 256)
    return emitError() << "expected a depth of 16 to 256 in steps of 16, got "
                       << depth;
  if (stages < 2 || stages > 16)
    return emitError() << "expected 2 to 16 stages, got " << stages;
  if (split < 1 || split > 16)
    return emitError() << "expected k to be split among 1 to 16 blocks of a "
                          "cluster, got "
                       << split;
  if (unit == MatrixUnit::MmaSync &&
      (split != 1 || swapAB || roles != WarpRoles::Cooperative))
    return emitError() << "expected cooperative warps, split = 1 and swap_ab = "
                          "false with mma_sync";
  if (unit == MatrixUnit::MmaSync && gatherFence != GatherFence::Producer)
    return emitError() << "expected gather_fence = producer with mma_sync, got "
                       << stringifyGatherFence(gatherFence);
  return success();
}

//===----------------------------------------------------------------------===//
// Capacity
//===----------------------------------------------------------------------===//

int64_t CapacityAttr::evaluate(int64_t tokens, int64_t experts) const {
  if (isFixed())
    return getFixed();
  double exact = getFactor() * double(tokens) / double(experts);
  double rounded =
      getRounding() == Rounding::Ceil ? std::ceil(exact) : std::floor(exact);
  // Clamping keeps the cast in range; no expert has more rows than there are
  // choices.
  int64_t rows = rounded >= double(INT32_MAX) ? INT32_MAX : int64_t(rounded);
  if (getAtMostTokens())
    rows = std::min(rows, tokens);
  return std::max(rows, getMinimum());
}

Value mlir::moe::buildCapacity(OpBuilder &b, Location loc,
                               CapacityAttr capacity, Value tokens,
                               int64_t experts) {
  auto index = [&](int64_t value) -> Value {
    return arith::ConstantIndexOp::create(b, loc, value);
  };
  if (capacity.isFixed())
    return index(capacity.getFixed());
  auto f64 = [&](double value) -> Value {
    return arith::ConstantOp::create(b, loc, b.getF64FloatAttr(value));
  };
  // The same operations in the same order as CapacityAttr::evaluate.
  Value t = arith::IndexCastOp::create(b, loc, b.getI64Type(), tokens);
  t = arith::SIToFPOp::create(b, loc, b.getF64Type(), t);
  Value exact = arith::MulFOp::create(b, loc, f64(capacity.getFactor()), t);
  exact = arith::DivFOp::create(b, loc, exact, f64(double(experts)));
  exact = arith::MinimumFOp::create(b, loc, exact, f64(double(INT32_MAX)));
  // Truncation equals floor, as the value is never negative; ceil adds one if
  // truncation changed it.
  Value rows = arith::FPToSIOp::create(b, loc, b.getI64Type(), exact);
  if (capacity.getRounding() == Rounding::Ceil) {
    Value whole = arith::SIToFPOp::create(b, loc, b.getF64Type(), rows);
    Value cut =
        arith::CmpFOp::create(b, loc, arith::CmpFPredicate::OLT, whole, exact);
    cut = arith::ExtUIOp::create(b, loc, b.getI64Type(), cut);
    rows = arith::AddIOp::create(b, loc, rows, cut);
  }
  rows = arith::IndexCastOp::create(b, loc, b.getIndexType(), rows);
  if (capacity.getAtMostTokens())
    rows = arith::MinSIOp::create(b, loc, rows, tokens);
  return arith::MaxSIOp::create(b, loc, rows, index(capacity.getMinimum()));
}
