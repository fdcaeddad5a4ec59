//===- MoEFormatAttrs.td - Formats of quantised tensors ----*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_IR_MOEFORMATATTRS_TD
#define MOE_DIALECT_MOE_IR_MOEFORMATATTRS_TD

include "moe/Dialect/MoE/IR/MoEAttrs.td"

def MoE_BitsAttr : AttrDef<MoE_Dialect, "Bits"> {
  let mnemonic = "bits";
  let summary = "where some bits of packed values are";
  let description = [{
    For `count` values from `first` on (0: all), bits `[shift, shift + width)`
    of a value. `v` counts values from `first`:

    * A width below 8 packs `p = (8 − bit) / width` values in a byte: value `v`
      is in byte `byte + v / (p · run) · run + v % run`, from bit
      `bit + width · (v / run % p)` on. With `run = 1` neighbours share a byte;
      with `run = 16` and a width of 4 the low halves of 16 bytes hold values 0
      to 15, and their high halves 16 to 31.
    * A width of 8, 16 or 32: value `v` is in the bytes from
      `byte + v · width / 8` on, the lowest first.
  }];
  let parameters = (ins "int64_t":$width,
                        DefaultValuedParameter<"int64_t", "0">:$byte,
                        DefaultValuedParameter<"int64_t", "0">:$bit,
                        DefaultValuedParameter<"int64_t", "1">:$run,
                        DefaultValuedParameter<"int64_t", "0">:$first,
                        DefaultValuedParameter<"int64_t", "0">:$count,
                        DefaultValuedParameter<"int64_t", "0">:$shift);
  let assemblyFormat = "`<` struct(params) `>`";
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    /// Number of values in a byte; 1 if a value has whole bytes.
    int64_t getValuesPerByte() const {
      return getWidth() < 8 ? (8 - getBit()) / getWidth() : 1;
    }
    /// Number of bytes of a value: 1 if it shares a byte.
    int64_t getBytesPerValue() const {
      return getWidth() < 8 ? 1 : getWidth() / 8;
    }
    /// Number of bytes up to the end of the first `count` values.
    int64_t getNumBytes(int64_t count) const;
  }];
}

def MoE_FieldAttr : AttrDef<MoE_Dialect, "Field"> {
  let mnemonic = "field";
  let summary = "numbers of a quantised tensor";
  let description = [{
    One number for each `block` of `[rows, columns]` elements, of which the last
    may be partial; without `block` one for each element. The number of element
    `(n, k)` is that of block `(n / rows, k / columns)`.

    `operand` is the index of the tensor that has the numbers. Without `bits` it
    is `[…, ⌈N / rows⌉, ⌈K / columns⌉]`, of which last extents of 1 may be
    missing. With `bits` the numbers of a row are
    packed in its bytes, `[…, ⌈N / rows⌉, …]`, the lowest byte of a word first,
    where dimensions after that of the rows are one sequence. With `axis = 0`
    those of a column are packed, `[…, words, ⌈K / columns⌉]`.

    `element` is `f32`, `f16`, `bf16`, a float of 8 bits (`f8E4M3FN`, `f8E5M2`,
    `f8E8M0FNU`) or 4 bits (`f4E2M1FN`), or an integer that says its sign, such
    as `ui4` or `si8`. With `divide` the number divides instead of multiplying.
  }];
  let parameters = (ins "Type":$element,
                        DefaultValuedParameter<"int64_t", "0">:$operand,
                        DefaultValuedParameter<"Pair", "Pair{1, 1}">:$block,
                        OptionalParameter<"ArrayAttr">:$bits,
                        DefaultValuedParameter<"int64_t", "1">:$axis,
                        DefaultValuedParameter<"bool", "false">:$divide);
  let assemblyFormat = "`<` struct(params) `>`";
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    /// Rows and columns of the elements that share a number.
    int64_t getBlockRows() const { return getBlock().first; }
    int64_t getBlockColumns() const { return getBlock().second; }
    /// Number of bits of a number.
    int64_t getWidth() const { return getElement().getIntOrFloatBitWidth(); }
    /// Number of bytes that hold `count` numbers; there are `bits`.
    int64_t getNumBytes(int64_t count) const;
  }];
}

def MoE_FormatAttr : AttrDef<MoE_Dialect, "Format"> {
  let mnemonic = "format";
  let summary = "how quantised weights are stored";
  let description = [{
    An element of a matrix `[N, K]` is

    `(code − offset − zero) · Π scales − Π mins`

    in f32, with the factors of a product in the order of the list. With `table`
    a code is the index of its value. Products without factors are 1 for
    `scales` and 0 for `mins`.

    With `record = [elements, bytes]` a row of the first operand is a sequence
    of records of `bytes` bytes with `elements` elements each, of which the last
    may be partial. Fields of the first operand are then packed in a record.

    Four bits with a scale in f16 for each 32 elements, 18 bytes a record, as
    GGUF's q4_0:

    ```
    #moe.format<
      codes = <element = ui4,
               bits = [#moe.bits<width = 4, byte = 2, run = 16>]>,
      record = [32, 18], offset = 8,
      scales = [#moe.field<element = f16, block = [1, 32],
                           bits = [#moe.bits<width = 16>]>]>
    ```
  }];
  let parameters = (ins "FieldAttr":$codes,
                        DefaultValuedParameter<"Pair", "Pair{0, 0}">:$record,
                        DefaultValuedParameter<"int64_t", "0">:$offset,
                        OptionalParameter<"DenseF32ArrayAttr">:$table,
                        OptionalParameter<"ArrayAttr">:$scales,
                        OptionalParameter<"ArrayAttr">:$mins,
                        OptionalParameter<"FieldAttr">:$zero);
  let assemblyFormat = "`<` struct(params) `>`";
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    /// Number of operands that the fields use.
    int64_t getNumOperands() const;
    /// All fields: codes, zero, scales and mins.
    SmallVector<FieldAttr> getFields() const;
    /// Rows of the matrix for each row of operand `index`; 0 if it packs rows.
    int64_t getBlockRows(int64_t index) const;
    /// True if `field` is packed in records.
    bool isInRecord(FieldAttr field) const {
      return hasRecords() && field.getOperand() == 0;
    }
    bool hasRecords() const { return getRecordElements() != 0; }
    int64_t getRecordElements() const { return getRecord().first; }
    int64_t getRecordBytes() const { return getRecord().second; }
  }];
}

#endif // MOE_DIALECT_MOE_IR_MOEFORMATATTRS_TD
