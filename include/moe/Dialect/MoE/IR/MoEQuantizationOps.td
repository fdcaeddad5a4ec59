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

def MoE_QuantizeOp : MoE_Op<"quantize", [
    Pure,
    DeclareOpInterfaceMethods<InferTypeOpInterface>,
    DeclareOpInterfaceMethods<ReifyRankedShapedTypeOpInterface,
                              ["reifyResultShapes"]>,
    DeclareOpInterfaceMethods<OpAsmOpInterface, ["getAsmResultNames"]>]> {
  let summary = "round rows to 8 bits, with a scale for each block of columns";
  let description = [{
    For each row and each block of `block` columns, of which the last may be
    shorter: `scale = max |row[k]| / 448`, in f32, and
    `quantized[k] = row[k] / scale`, rounded to f8E4M3FN, to nearest even,
    saturating at ±448. A block of zeros has scale 0 and quantized zeros. The
    scale of a block with a NaN is NaN, and so is every product with it.

    ```mlir
    func.func @quantize(%x: tensor<?x320xbf16>)
        -> (tensor<?x320xf8E4M3FN>, tensor<?x3xf32>) {
      %quantized, %scales = moe.quantize %x block(128) : tensor<?x320xbf16>
      return %quantized, %scales : tensor<?x320xf8E4M3FN>, tensor<?x3xf32>
    }
    ```
  }];
  let arguments = (ins MoE_Matrix:$rows, I64Attr:$block);
  let results = (outs 2DTensorOf<[F8E4M3FN]>:$quantized,
                      2DTensorOf<[F32]>:$scales);
  let assemblyFormat = "$rows `block` `(` $block `)` attr-dict `:` type($rows)";
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    int64_t getColumns() { return getRows().getType().getDimSize(1); }
  }];
}

//===----------------------------------------------------------------------===//
// moe.dequantize
//===----------------------------------------------------------------------===//

def MoE_FieldTensor
    : RankedTensorOf<[F32, F16, BF16, F8E4M3FN, F8E5M2, F8E8M0FNU, I8, I16,
                      I32]>;

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
