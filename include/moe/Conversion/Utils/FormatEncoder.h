//===- FormatEncoder.h - Round numbers to a format --------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CONVERSION_UTILS_FORMATENCODER_H
#define MOE_CONVERSION_UTILS_FORMATENCODER_H

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::moe {

/// Builds the arithmetic of moe.quantize, on f32 scalars or vectors of them.
class FormatEncoder {
public:
  FormatEncoder(ImplicitLocOpBuilder &b, FormatAttr format);

  /// True if only the magnitude of a block's largest element matters.
  bool isSymmetric() const { return -low == high; }
  /// Returns the scale of a block whose largest element is `extreme`, in f32,
  /// with a value that the type of scales has.
  Value roundScale(Value extreme);
  /// Returns a rounded scale as it is stored.
  Value storeScale(Value scale);
  /// Returns what elements are divided by: the scale, or 1 if it is 0.
  Value toDivisor(Value scale);
  /// Returns `x`, an element over its divisor, in the range of the codes.
  Value saturate(Value x);
  /// Returns the code of a saturated number: of its own type if it has a byte,
  /// else as i32.
  Value roundCode(Value x);
  /// Returns what that code stands for, in f32 and without the scale.
  Value roundValue(Value x);

private:
  Value f32(Value like, double value);
  Value i32(Value like, int64_t value);
  Value roundInteger(Value x);
  Value forEachStepOfF4(Value x, Value sum,
                        llvm::function_ref<Value(Value, double)> term);

  ImplicitLocOpBuilder &b;
  FormatAttr format;
  FieldAttr codeField, scaleField;
  double low, high; // values of codes
};

/// Returns a float, or a vector of floats, with elements of type `element`.
/// Those of 8 and 16 bits convert through f32.
Value convertFloat(ImplicitLocOpBuilder &b, Value value, Type element);

} // namespace mlir::moe

#endif // MOE_CONVERSION_UTILS_FORMATENCODER_H
