//===- MoEQuantizationOps.td - Quantised tensors -----------*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_IR_MOEQUANTIZATIONOPS_TD
#define MOE_DIALECT_MOE_IR_MOEQUANTIZATIONOPS_TD

include "moe/Dialect/MoE/IR/MoEDialect.td"
include "moe/Dialect/MoE/IR/MoEFormatAttrs.td"
include "mlir/Interfaces/InferTypeOpInterface.td"
include "mlir/Interfaces/SideEffectInterfaces.td"
include "mlir/IR/OpAsmInterface.td"

//===----------------------------------------------------------------------===//
// moe.quantize
//===----------------------------------------------------------------------===//

def MoE_FieldTensor
    : RankedTensorOf<[F32, F16, BF16, F8E4M3FN, F8E5M2, F8E8M0FNU, I8, I16,
                      I32]>;

def MoE_QuantizeOp : MoE_Op<"quantize", [
    Pure,
    DeclareOpInterfaceMethods<InferTypeOpInterface>,
    DeclareOpInterfaceMethods<ReifyRankedShapedTypeOpInterface,
                              ["reifyResultShapes"]>,
    DeclareOpInterfaceMethods<OpAsmOpInterface, ["getAsmResultNames"]>]> {
  let summary = "round matrices to a format with a scale for each block";
  let description = [{
    Rounds matrices `[…, N, K]`, or `[…, K, N]` with `transposed`, to fields
    that `moe.dequantize` decodes. The format has one scale, in operand 1, for
    each block of rows and columns, of which the last may be partial:

    * `scale` is the element of the block with the largest magnitude (the first
      of equal ones) over the code with the largest magnitude, in f32, rounded
      to the type of the scale: to nearest and at most its largest value, or up
      to the next power of two, at least 2⁻¹²⁶, for `f8E8M0FNU`. It is
      negative where integers reach further below zero than above and the
      element is positive.
    * `code` is `element / scale` in f32, rounded to nearest, ties to even,
      saturating.

    A block of zeros has scale 0 (2⁻¹²⁷ for `f8E8M0FNU`) and codes of 0. If a
    block has a NaN or an infinity, its scale is NaN, or in f32 an infinity, and
    every element that is decoded is NaN. Codes are `f8E4M3FN`, `f4E2M1FN` or
    integers of 4 to 8 bits, without a table; those of less than 8 bits are
    packed with `bits = [#moe.bits<width = …>]`, and integers need a scale with
    a sign.

    Rows in 8 bits with a scale for each 128 columns, and weights in 4 bits:

    ```mlir
    func.func @rows(%x: tensor<?x320xbf16>)
        -> (tensor<?x320xf8E4M3FN>, tensor<?x3xf32>) {
      %quantized, %scales = moe.quantize %x format(<
          codes = <element = f8E4M3FN>,
          scales = [#moe.field<element = f32, operand = 1, block = [1, 128]>]>)
        : tensor<?x320xbf16> -> tensor<?x320xf8E4M3FN>, tensor<?x3xf32>
      return %quantized, %scales : tensor<?x320xf8E4M3FN>, tensor<?x3xf32>
    }

    func.func @weights(%w: tensor<8x96x64xbf16>)
        -> (tensor<8x96x32xi8>, tensor<8x96x2xf16>) {
      %quantized, %scales = moe.quantize %w format(<
          codes = <element = ui4, bits = [#moe.bits<width = 4>]>, offset = 8,
          scales = [#moe.field<element = f16, operand = 1, block = [1, 32]>]>)
        : tensor<8x96x64xbf16> -> tensor<8x96x32xi8>, tensor<8x96x2xf16>
      return %quantized, %scales : tensor<8x96x32xi8>, tensor<8x96x2xf16>
    }
    ```
  }];
  let arguments = (ins RankedTensorOf<[MoE_Float]>:$source,
                       UnitAttr:$transposed, MoE_FormatAttr:$format);
  let results = (outs Variadic<MoE_FieldTensor>:$fields);
  let assemblyFormat = [{
    $source (`transposed` $transposed^)? `format` `(` $format `)` attr-dict `:`
    type($source) `->` type($fields)
  }];
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    Value getQuantized() { return getFields()[0]; }
    Value getScales() { return getFields()[1]; }
    FieldAttr getScale() {
      return cast<FieldAttr>(getFormat().getScales()[0]);
    }
    /// Rows and columns of a matrix; dimensions before them.
    int64_t getN() {
      return getSource().getType().getShape().take_back(2)[getTransposed()];
    }
    int64_t getK() {
      return getSource().getType().getShape().take_back(2)[!getTransposed()];
    }
    int64_t getNumLeadingDims() { return getSource().getType().getRank() - 2; }
    /// True if the source is a matrix whose rows are rounded one by one.
    bool isRowwise() {
      return getNumLeadingDims() == 0 && !getTransposed() &&
             getScale().getBlockRows() == 1;
    }
    /// Returns null if a format has what the operation needs, else a reason.
    static const char *reasonNotToQuantize(FormatAttr format);
    /// Returns the types of the fields of matrices of `shape`. The format has
    /// what the operation needs.
    static ::llvm::SmallVector<::mlir::RankedTensorType>
    getFieldTypes(::llvm::ArrayRef<int64_t> shape, bool transposed,
                  FormatAttr format);
  }];
}

//===----------------------------------------------------------------------===//
// moe.dequantize
//===----------------------------------------------------------------------===//

def MoE_DequantizeOp : MoE_Op<"dequantize", [
    Pure,
    DeclareOpInterfaceMethods<ReifyRankedShapedTypeOpInterface,
                              ["reifyResultShapes"]>]> {
  let summary = "decode quantised weights";
  let description = [{
    Decodes weights `[…, N, K]` whose codes, scales and zero points are stored
    in `fields` as `format` says. Arithmetic is in f32:

    `result[…, n, k] = (code − offset − zero) · Π scales − Π mins`

    rounded once to the type of the result. The first field has the codes. The
    dimensions before `N` and `K` are the leading dimensions of every field.

    A fusion into the matmul that reads the weights may skip the final rounding
    and scale partial sums instead of weights.

    Weights of 4 bits with a scale for each 32, as gpt-oss stores them, and of 8
    bits with a scale for each block of 128 × 128:

    ```mlir
    func.func @mxfp4(%blocks: tensor<8x96x2x16xi8>, %scales: tensor<8x96x2xi8>)
        -> tensor<8x96x64xbf16> {
      %w = moe.dequantize %blocks, %scales format(<
          codes = <element = f4E2M1FN, bits = [#moe.bits<width = 4>]>,
          scales = [#moe.field<element = f8E8M0FNU, operand = 1,
                               block = [1, 32]>]>)
        : tensor<8x96x2x16xi8>, tensor<8x96x2xi8> -> tensor<8x96x64xbf16>
      return %w : tensor<8x96x64xbf16>
    }

    func.func @fp8(%w: tensor<8x320x256xf8E4M3FN>, %scales: tensor<8x3x2xf32>)
        -> tensor<8x320x256xbf16> {
      %d = moe.dequantize %w, %scales format(<
          codes = <element = f8E4M3FN>,
          scales = [#moe.field<element = f32, operand = 1,
                               block = [128, 128]>]>)
        : tensor<8x320x256xf8E4M3FN>, tensor<8x3x2xf32>
        -> tensor<8x320x256xbf16>
      return %d : tensor<8x320x256xbf16>
    }
    ```
  }];
  let arguments = (ins Variadic<MoE_FieldTensor>:$fields,
                       MoE_FormatAttr:$format);
  let results = (outs RankedTensorOf<[MoE_Float]>:$result);
  let assemblyFormat = [{
    $fields `format` `(` $format `)` attr-dict `:` type($fields) `->`
    type($result)
  }];
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    /// Rows and columns of a matrix; dimensions before them.
    int64_t getN() { return getType().getDimSize(getNumLeadingDims()); }
    int64_t getK() { return getType().getShape().back(); }
    int64_t getNumLeadingDims() { return getType().getRank() - 2; }
  }];
}

#endif // MOE_DIALECT_MOE_IR_MOEQUANTIZATIONOPS_TD
