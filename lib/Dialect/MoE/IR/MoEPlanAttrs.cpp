//===- MoEPlanAttrs.cpp - Verification of the capacity plan ---------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Only verifies that an attribute is consistent. verifyCapacityPlan (Analysis)
// and moe-allocs-to-arena check a plan against its function.
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/IR/MoE.h"

using namespace mlir;
using namespace mlir::moe;

using EmitError = function_ref<InFlightDiagnostic()>;

/// A bound is a map with one dimension, T, and one or more results, of which
/// the minimum applies.
static LogicalResult verifyBound(EmitError emitError, StringRef name,
                                 AffineMapAttr bound) {
  AffineMap map = bound.getValue();
  if (map.getNumDims() == 1 && map.getNumSymbols() == 0 &&
      map.getNumResults() >= 1)
    return success();
  return emitError()
         << "expected '" << name
         << "' to map one dimension, T, to at least one result, got " << bound;
}

LogicalResult TileRangeAttr::verify(EmitError emitError, int64_t min,
                                    int64_t max, StringAttr variant,
                                    int64_t rows, AffineMapAttr tiles,
                                    AffineMapAttr padding, bool) {
  if (min < 0 || max < min)
    return emitError() << "expected a range with 0 <= min <= max, got " << min
                       << " to " << max;
  if (variant.getValue().empty())
    return emitError() << "expected the variant of a range to have a name";
  if (rows < 1)
    return emitError() << "expected tiles of at least one row, got " << rows;
  if (failed(verifyBound(emitError, "tiles", tiles)))
    return failure();
  return verifyBound(emitError, "padding", padding);
}

LogicalResult DispatchPlanAttr::verify(EmitError emitError, int64_t experts,
                                       int64_t topK, AffineMapAttr rows,
                                       AffineMapAttr fullest, OverflowPolicy,
                                       ArrayAttr ranges) {
  if (experts < 1 || topK < 1)
    return emitError() << "expected at least one expert and one choice, got "
                       << experts << " and " << topK;
  if (failed(verifyBound(emitError, "rows", rows)) ||
      failed(verifyBound(emitError, "fullest", fullest)))
    return failure();
  if (ranges.empty())
    return emitError() << "expected at least one range of T";
  TileRangeAttr last;
  for (Attribute each : ranges) {
    auto range = dyn_cast<TileRangeAttr>(each);
    if (!range)
      return emitError() << "expected ranges to be #moe.tile_range, got "
                         << each;
    if (last && range.getMin() - 1 != last.getMax())
      return emitError() << "expected the range after " << last.getMin()
                         << " to " << last.getMax() << " to begin at "
                         << last.getMax() + 1 << ", got " << range.getMin();
    last = range;
  }
  return success();
}

LogicalResult PlanAttr::verify(EmitError emitError, int64_t min, int64_t max,
                               int64_t chunk, int64_t workspace,
                               ArrayAttr dispatches) {
  if (min < 0 || max < min)
    return emitError() << "expected a plan for 0 <= min <= max tokens, got "
                       << min << " to " << max;
  if (chunk < 0)
    return emitError() << "expected a chunk of at least 0 tokens, got "
                       << chunk;
  if (workspace < -1)
    return emitError() << "expected a workspace of at least 0 bytes, got "
                       << workspace;
  int64_t atOnce = chunk > 0 ? std::min(chunk, max) : max;
  for (Attribute each : dispatches) {
    auto dispatch = dyn_cast<DispatchPlanAttr>(each);
    if (!dispatch)
      return emitError() << "expected dispatches to be #moe.dispatch_plan, got "
                         << each;
    ArrayRef<Attribute> ranges = dispatch.getRanges().getValue();
    int64_t first = cast<TileRangeAttr>(ranges.front()).getMin();
    int64_t last = cast<TileRangeAttr>(ranges.back()).getMax();
    // The last chunk of a call has any size up to `chunk`.
    int64_t least = chunk > 0 ? 0 : min;
    if (first > least || last < atOnce)
      return emitError() << "expected ranges for " << least << " to " << atOnce
                         << " tokens, got " << first << " to " << last;
  }
  return success();
}
