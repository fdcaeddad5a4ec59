//===- MoEGroupedOps.td - Fused operations -----------------*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_IR_MOEGROUPEDOPS_TD
#define MOE_DIALECT_MOE_IR_MOEGROUPEDOPS_TD

include "moe/Dialect/MoE/IR/MoEDialect.td"
include "moe/Dialect/MoE/IR/MoEAttrs.td"
include "moe/Dialect/MoE/IR/MoEFormatAttrs.td"
include "mlir/Interfaces/DestinationStyleOpInterface.td"
include "mlir/Interfaces/InferTypeOpInterface.td"
include "mlir/Interfaces/SideEffectInterfaces.td"
include "mlir/IR/OpAsmInterface.td"

//===----------------------------------------------------------------------===//
// moe.route
//===----------------------------------------------------------------------===//

def MoE_RouteOp : MoE_Op<"route", [
    Pure,
    DeclareOpInterfaceMethods<InferTypeOpInterface>,
    DeclareOpInterfaceMethods<ReifyRankedShapedTypeOpInterface,
                              ["reifyResultShapes"]>,
    DeclareOpInterfaceMethods<OpAsmOpInterface, ["getAsmResultNames"]>]> {
  let summary = "group the choices of the tokens by expert, without their rows";
  let description = [{
    Like `moe.dispatch` with the same attributes, but without the copies:
    instead of the grouped rows it returns `tokens` `[R]`, the index of the
    token that each grouped row comes from, −1 in rows that no expert covers.
    `moe.grouped_matmul` gathers by these indices.

    ```mlir
    func.func @route(%ids: tensor<?x2xi32>)
        -> (tensor<9xi32>, tensor<?x2xi32>) {
      %tokens, %offsets, %positions = moe.route %ids experts(8)
        : tensor<?x2xi32>
      return %offsets, %positions : tensor<9xi32>, tensor<?x2xi32>
    }
    ```
  }];
  let arguments = (ins
    MoE_Ids:$ids, Optional<MoE_Matrix>:$weights,
    I64Attr:$num_experts, OptionalAttr<MoE_CapacityAttr>:$capacity,
    DefaultValuedAttr<MoE_PriorityAttr, "Priority::Position">:$priority,
    DefaultValuedAttr<MoE_OverflowAttr, "Overflow::Drop">:$overflow,
    OptionalAttr<I64Attr>:$choices);
  let results = (outs 1DTensorOf<[I32]>:$tokens, MoE_Offsets:$offsets,
                      MoE_Ids:$positions);
  let assemblyFormat = [{
    $ids (`weights` `(` $weights^ `:` type($weights) `)`)?
    `experts` `(` $num_experts `)` (`capacity` `(` $capacity^ `)`)?
    (`priority` `(` custom<Keyword>($priority)^ `)`)?
    (`overflow` `(` custom<Keyword>($overflow)^ `)`)?
    (`choices` `(` $choices^ `)`)? attr-dict `:` type($ids)
  }];
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    int64_t getTopK() { return getIds().getType().getDimSize(1); }
    /// Choices of a token that are kept at most: `choices`, or all K.
    int64_t getMaxChoices() { return getChoices().value_or(getTopK()); }
  }];
}

//===----------------------------------------------------------------------===//
// moe.grouped_matmul
//===----------------------------------------------------------------------===//

def MoE_PanelsAttr : AttrDef<MoE_Dialect, "Panels"> {
  let mnemonic = "panels";
  let summary = "layout of packed weights";
  let description = [{
    The weights `[E, k, n]` of `matmuls` matmuls are stored as `[E, ⌈n /
    (columns / matmuls)⌉, ⌈k / depth⌉, columns, depth]`: panels of `columns`
    columns, of which each matmul has an equal, contiguous share; within a
    panel, `depth` consecutive elements along `k` are adjacent. Padding beyond
    `n` and `k` is zero.

    With `format` the weights stay quantised, and are stored as `[E, panels,
    bytes]`, in the order in which a kernel reads them. Along k a panel has
    blocks: the numbers (scales, minima, zero points) that the format has for
    each block, then its groups. A group has its steps, then the numbers that
    the format has for each group; where all numbers are of groups of one size,
    there are no blocks. Numbers are widened to bytes. A step has `depth`
    elements along k and as many words of 32 bits for each column as their codes
    need:

    * 4 bits: 8 elements. Bits `4i` to `4i + 3` are the code of `k = [0, 4, 2,
      6, 1, 5, 3, 7][i]`, so that shifts of words of 16 bits yield neighbours.
    * 8 bits: 8 elements, in two words; the bytes of a word are elements `[0, 2,
      1, 3]`, those of f8E4M3FN `[0, 1, 2, 3]`.
    * 6 bits: 16 elements, in three words. Bits `2j`, `2j + 1` of byte `i` of
      the first are the upper bits of `k = 4j + [0, 2, 1, 3][i]`; the others
      have the lower bits, as codes of 4 bits.
  }];
  let parameters = (ins "int64_t":$matmuls, "int64_t":$columns,
                        "int64_t":$depth,
                        OptionalParameter<"FormatAttr">:$format);
  let assemblyFormat = "`<` struct(params) `>`";
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    /// Columns of one matmul in a panel.
    int64_t getShare() const { return getColumns() / getMatmuls(); }
    /// Shape of the packed weights of `experts` experts, which may be dynamic.
    SmallVector<int64_t> getShape(int64_t experts, int64_t k, int64_t n) const;
  }];
}

def MoE_RowsLike : AnyTypeOf<[MoE_Matrix, MemRefRankOf<[MoE_Float], [2]>],
    "2-D tensor or memref of f32, f16 or bf16">;
def MoE_IndicesLike : AnyTypeOf<[1DTensorOf<[I32]>, MemRefRankOf<[I32], [1]>],
    "1-D tensor or memref of i32">;
def MoE_WeightsLike
    : AnyTypeOf<[RankedTensorOf<[MoE_Float]>, MemRefOf<[MoE_Float]>],
    "tensor or memref of f32, f16 or bf16">;
def MoE_OperandLike : AnyTypeOf<[AnyRankedTensor, AnyMemRef],
    "ranked tensor or memref">;
// Elements of matmul operands: f8E4M3FN is never a result. Packed weights with
// a format and rows of moe.quantize_rows are bytes.
def MoE_MatmulElement
    : AnyTypeOf<[MoE_Float, F8E4M3FN, I8], "f32, f16, bf16, f8E4M3FN or i8">;
def MoE_MatmulRowsLike
    : AnyTypeOf<[2DTensorOf<[MoE_MatmulElement]>,
                 MemRefRankOf<[MoE_MatmulElement], [2]>],
    "2-D tensor or memref of f32, f16, bf16, f8E4M3FN or i8">;
def MoE_MatmulWeightsLike
    : AnyTypeOf<[RankedTensorOf<[MoE_MatmulElement]>,
                 MemRefOf<[MoE_MatmulElement]>],
    "tensor or memref of f32, f16, bf16, f8E4M3FN or i8">;
def MoE_RowScalesLike : AnyTypeOf<[2DTensorOf<[F32]>, MemRefRankOf<[F32], [2]>],
    "2-D tensor or memref of f32">;
def MoE_ScalesLike : AnyTypeOf<[3DTensorOf<[F32]>, MemRefRankOf<[F32], [3]>],
    "3-D tensor or memref of f32">;

def MoE_GroupedMatmulOp : MoE_Op<"grouped_matmul", [
    AttrSizedOperandSegments, DestinationStyleOpInterface, SingleBlock,
    DeclareOpInterfaceMethods<MemoryEffectsOpInterface, ["getEffects"]>,
    DeclareOpInterfaceMethods<ReifyRankedShapedTypeOpInterface,
                              ["reifyResultShapes"]>,
    DeclareOpInterfaceMethods<OpAsmOpInterface,
                              ["getAsmBlockArgumentNames"]>]> {
  let summary = "multiply the rows of each expert with its weights";
  let description = [{
    For every expert `e` and each of its rows `offsets[e] ≤ r < offsets[e+1]`

    `result[r, n] = epilogue(Σ_k lhs[g(r), k] · weights_0[e, k, n], …)`

    where `g(r)` is `gather[r]` if given and `r` otherwise. Accumulators are f32
    and run over ascending `k`. The region is the epilogue: it takes one
    accumulator for each of `weights` and one element of each of `operands`, and
    yields an element for each of `outs`, which have one shape and give the
    types of the results. Rows of no expert keep the values of `outs`.

    * Without `offsets` all rows belong to one expert: an ordinary matmul.
    * `weights` are `[E, K, N]`, with `transposed` `[E, N, K]` (K-major), all of
      one shape; or, with `panels`, one operand in that packed layout. `first`
      is the expert that the first weights belong to.
    * `maps` has for each of `operands` an affine map from `(e, r, n)`, the
      index of the weights, the row and the column, to its dimensions: a
      projection.
    * Operands of `f8E4M3FN` (rows and weights, or weights alone) are exact in
      f32. With `blocks = [b_k, b_n]` the partial sum of each `b_k` steps along
      `k` is scaled: `Σ_B (Σ_{k in B} lhs[g(r), k] · weights[e, k, n]) ·
      (lhs_scales[g(r), B] · weight_scales[e, B, n / b_n])` over ascending
      blocks `B`, in f32. `lhs_scales` are `[rows, ⌈K/b_k⌉]`; there is one
      `weight_scales` for each of `weights`, `[E, ⌈K/b_k⌉, ⌈N/b_n⌉]`, with
      `transposed` `[E, ⌈N/b_n⌉, ⌈K/b_k⌉]`. Scales that are not given are 1.
    * Rows of `i8` are those of `moe.quantize_rows`, whose weights stay packed
      with a format. The products of integers are exact; the sum of each 32 is
      scaled by the scale of the row in f32, the sum of each group of weights by
      its scale.

    Several results keep what a backward pass needs, such as the accumulators
    beside the activation, in one pass over the operands.

    Indices out of range are clamped: offsets to the number of rows, and
    gathered rows to those of `lhs`.

    ```mlir
    func.func @swiglu(%x: tensor<?x64xf32>, %tokens: tensor<?xi32>,
                      %offsets: tensor<9xi32>, %gate: tensor<8x64x128xf32>,
                      %up: tensor<8x64x128xf32>, %init: tensor<?x128xf32>)
        -> tensor<?x128xf32> {
      %h = moe.grouped_matmul %x gather(%tokens : tensor<?xi32>)
          offsets(%offsets : tensor<9xi32>)
          weights(%gate, %up : tensor<8x64x128xf32>, tensor<8x64x128xf32>)
          outs(%init : tensor<?x128xf32>) {
      ^bb0(%g: f32, %u: f32):
        %one = arith.constant 1.0 : f32
        %n = arith.negf %g : f32
        %e = math.exp %n : f32
        %d = arith.addf %e, %one : f32
        %s = arith.divf %g, %d : f32
        %r = arith.mulf %s, %u : f32
        moe.yield %r : f32
      } : tensor<?x64xf32> -> tensor<?x128xf32>
      return %h : tensor<?x128xf32>
    }
    ```

    8-bit rows and weights with block scales:

    ```mlir
    func.func @scaled(%x: tensor<?x256xf8E4M3FN>, %x_scales: tensor<?x2xf32>,
                      %offsets: tensor<9xi32>, %w: tensor<8x384x256xf8E4M3FN>,
                      %w_scales: tensor<8x3x2xf32>, %init: tensor<?x384xbf16>)
        -> tensor<?x384xbf16> {
      %y = moe.grouped_matmul %x offsets(%offsets : tensor<9xi32>)
          weights(%w : tensor<8x384x256xf8E4M3FN>) transposed
          lhs_scales(%x_scales : tensor<?x2xf32>)
          weight_scales(%w_scales : tensor<8x3x2xf32>) blocks([128, 128])
          outs(%init : tensor<?x384xbf16>) {
      ^bb0(%sum: f32):
        %r = arith.truncf %sum : f32 to bf16
        moe.yield %r : bf16
      } : tensor<?x256xf8E4M3FN> -> tensor<?x384xbf16>
      return %y : tensor<?x384xbf16>
    }
    ```
  }];
  let arguments = (ins
    MoE_MatmulRowsLike:$lhs, Optional<MoE_IndicesLike>:$gather,
    Optional<MoE_IndicesLike>:$offsets,
    Variadic<MoE_MatmulWeightsLike>:$weights,
    Optional<MoE_RowScalesLike>:$lhs_scales,
    Variadic<MoE_ScalesLike>:$weight_scales,
    Variadic<MoE_OperandLike>:$extras, Variadic<MoE_RowsLike>:$inits,
    UnitAttr:$transposed, OptionalAttr<MoE_PanelsAttr>:$panels,
    OptionalAttr<AffineMapArrayAttr>:$maps, OptionalAttr<I64Attr>:$first,
    OptionalAttr<DenseI64ArrayAttr>:$blocks);
  let results = (outs Variadic<MoE_Matrix>:$results);
  let regions = (region SizedRegion<1>:$epilogue);
  let assemblyFormat = [{
    $lhs (`gather` `(` $gather^ `:` type($gather) `)`)?
    (`offsets` `(` $offsets^ `:` type($offsets) `)`)?
    `weights` `(` $weights `:` type($weights) `)` (`transposed` $transposed^)?
    (`panels` `(` $panels^ `)`)? (`first` `(` $first^ `)`)?
    (`lhs_scales` `(` $lhs_scales^ `:` type($lhs_scales) `)`)?
    (`weight_scales` `(` $weight_scales^ `:` type($weight_scales) `)`)?
    (`blocks` `(` $blocks^ `)`)?
    (`operands` `(` $extras^ `:` type($extras) `)`)?
    (`maps` `(` $maps^ `)`)? `outs` `(` $inits `:` type($inits) `)`
    $epilogue attr-dict `:` type($lhs) (`->` type($results)^)?
  }];
  let hasVerifier = 1;
  let hasRegionVerifier = 1;
  let extraClassDeclaration = [{
    MutableOperandRange getDpsInitsMutable() { return getInitsMutable(); }
    /// The first destination and result, and often the only ones. On buffers
    /// there is no result.
    Value getInit() { return getInits().front(); }
    OpOperand &getInitMutable() { return getInitsMutable()[0]; }
    TypedValue<RankedTensorType> getResult() {
      return getNumResults() == 0
                 ? TypedValue<RankedTensorType>()
                 : cast<TypedValue<RankedTensorType>>(getResults().front());
    }
    /// True if there is one destination, which all kernels write.
    bool hasOneInit() { return getInits().size() == 1; }
    /// Accumulators that the epilogue takes.
    int64_t getNumAccumulators() {
      return getPanels() ? getPanels()->getMatmuls() : getWeights().size();
    }
    /// Number of experts that have weights here.
    int64_t getExpertCount() {
      return cast<ShapedType>(getWeights().front().getType()).getDimSize(0);
    }
    int64_t getFirstExpert() { return getFirst().value_or(0); }
    /// Elements of a row of `lhs`, and columns of the result.
    int64_t getK();
    int64_t getN() {
      return cast<ShapedType>(getInit().getType()).getDimSize(1);
    }
    /// True if the rows are those of moe.quantize_rows.
    bool hasQuantizedRows() {
      return cast<ShapedType>(getLhs().getType()).getElementType().isInteger(8);
    }
    /// True if partial sums are scaled in blocks; the steps along k and the
    /// columns that one scale covers.
    bool isScaled() { return getBlocks().has_value(); }
    int64_t getBlockK() { return (*getBlocks())[0]; }
    int64_t getBlockN() { return (*getBlocks())[1]; }
    /// True if an operand has 8 bits, or partial sums are scaled.
    bool isQuantized();
    /// The map of operand `index` from (e, r, n).
    AffineMap getOperandMap(unsigned index) {
      return cast<AffineMapAttr>((*getMaps())[index]).getValue();
    }
    YieldOp getYield();
    /// True if the epilogue yields only the accumulator of the first weights.
    bool isPlain();
  }];
}

//===----------------------------------------------------------------------===//
// moe.gather_sum
//===----------------------------------------------------------------------===//

def MoE_Choices2D : AnyTypeOf<[MoE_Ids, MemRefRankOf<[I32], [2]>],
    "2-D tensor or memref of i32">;
def MoE_F32Like : AnyTypeOf<[2DTensorOf<[F32]>, MemRefRankOf<[F32], [2]>],
    "2-D tensor or memref of f32">;

def MoE_GatherSumOp : MoE_Op<"gather_sum", [
    AttrSizedOperandSegments, DestinationStyleOpInterface,
    DeclareOpInterfaceMethods<MemoryEffectsOpInterface, ["getEffects"]>,
    DeclareOpInterfaceMethods<ReifyRankedShapedTypeOpInterface,
                              ["reifyResultShapes"]>]> {
  let summary = "sum gathered rows in a fixed order";
  let description = [{
    `result[t, h] = Σ_k weights[t, k] · rows[positions[t, k], h]`, over
    ascending `k`, in f32, rounded once: a `moe.combine` with final weights. A
    position that is out of range adds nothing, or `weights[t, k] · dropped[t,
    h]` if `dropped` is given. Without `weights` every weight is 1.

    ```mlir
    func.func @gather_sum(%rows: tensor<?x64xbf16>, %positions: tensor<?x2xi32>,
                          %weights: tensor<?x2xf32>, %init: tensor<?x64xbf16>)
        -> tensor<?x64xbf16> {
      %y = moe.gather_sum %rows, %positions weights(%weights : tensor<?x2xf32>)
        outs(%init : tensor<?x64xbf16>)
        : tensor<?x64xbf16>, tensor<?x2xi32> -> tensor<?x64xbf16>
      return %y : tensor<?x64xbf16>
    }
    ```
  }];
  let arguments = (ins
    MoE_RowsLike:$rows, MoE_Choices2D:$positions,
    Optional<MoE_F32Like>:$weights,
    Optional<MoE_RowsLike>:$dropped, MoE_RowsLike:$init);
  let results = (outs Optional<MoE_Matrix>:$result);
  let assemblyFormat = [{
    $rows `,` $positions (`weights` `(` $weights^ `:` type($weights) `)`)?
    (`dropped` `(` $dropped^ `:` type($dropped) `)`)?
    `outs` `(` $init `:` type($init) `)` attr-dict
    `:` type($rows) `,` type($positions) (`->` type($result)^)?
  }];
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    MutableOperandRange getDpsInitsMutable() { return getInitMutable(); }
    int64_t getTopK() {
      return cast<ShapedType>(getPositions().getType()).getDimSize(1);
    }
  }];
}

//===----------------------------------------------------------------------===//
// moe.fused
//===----------------------------------------------------------------------===//

def MoE_FusedOp : MoE_Op<"fused", [
    RecursiveMemoryEffects, SingleBlock, NoRegionArguments]> {
  let summary = "group operations that one kernel computes";
  let description = [{
    Computes what the operations in the region compute; the results are the
    values that it yields. `moe-fuse-router` and `moe-fuse-combine` group the
    operations of a kernel, and `convert-moe-to-gpu` chooses the kernel by the
    operations in the region. A lowering without such a kernel inlines the
    region.

    `counters` are zeros that the blocks of the kernel count their arrivals in.
    The kernel overwrites them, so they must have no other use.

    ```mlir
    func.func @router(%x: tensor<?x64xf32>, %w: tensor<1x64x8xf32>,
                      %init: tensor<?x8xf32>)
        -> (tensor<?x2xf32>, tensor<?x2xi32>) {
      %results:2 = moe.fused {
        %logits = moe.grouped_matmul %x weights(%w : tensor<1x64x8xf32>)
            outs(%init : tensor<?x8xf32>) {
        ^bb0(%accumulator: f32):
          moe.yield %accumulator : f32
        } : tensor<?x64xf32> -> tensor<?x8xf32>
        %weights, %ids = moe.gate %logits top_k(2) : tensor<?x8xf32>
        moe.yield %weights, %ids : tensor<?x2xf32>, tensor<?x2xi32>
      } -> tensor<?x2xf32>, tensor<?x2xi32>
      return %results#0, %results#1 : tensor<?x2xf32>, tensor<?x2xi32>
    }
    ```
  }];
  let arguments = (ins Optional<1DTensorOf<[I32]>>:$counters);
  let results = (outs Variadic<AnyRankedTensor>:$results);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = [{
    (`counters` `(` $counters^ `:` type($counters) `)`)? $body attr-dict
    (`->` type($results)^)?
  }];
  let hasVerifier = 1;
  let hasRegionVerifier = 1;
  let extraClassDeclaration = [{
    YieldOp getYield();
    /// Moves `ops`, in this order, into a new operation at the insertion point
    /// that yields `values`, and replaces their uses outside of it.
    static FusedOp wrap(RewriterBase &rewriter, Location loc,
                        ArrayRef<Operation *> ops, ValueRange values,
                        Value counters = {});
  }];
}

//===----------------------------------------------------------------------===//
// moe.pack
//===----------------------------------------------------------------------===//

def MoE_PackOp : MoE_Op<"pack", [
    DestinationStyleOpInterface,
    DeclareOpInterfaceMethods<MemoryEffectsOpInterface, ["getEffects"]>,
    DeclareOpInterfaceMethods<ReifyRankedShapedTypeOpInterface,
                              ["reifyResultShapes"]>]> {
  let summary = "pack weights into panels for a kernel";
  let description = [{
    Packs the weights of a `moe.grouped_matmul`, `[E, K, N]` or with
    `transposed` `[E, N, K]`, into the layout `panels`. If that has a format,
    the operands are the fields of the weights, as of `moe.dequantize`, for one
    matmul after the other, and `extents` are `[K, N]`.

    ```mlir
    func.func @pack(%w: tensor<8x24x40xbf16>, %init: tensor<8x1x12x64x2xbf16>)
        -> tensor<8x1x12x64x2xbf16> {
      %p = moe.pack %w panels(<matmuls = 1, columns = 64, depth = 2>)
        outs(%init : tensor<8x1x12x64x2xbf16>)
        : tensor<8x24x40xbf16> -> tensor<8x1x12x64x2xbf16>
      return %p : tensor<8x1x12x64x2xbf16>
    }
    ```
  }];
  let arguments = (ins Variadic<MoE_OperandLike>:$weights,
                       MoE_OperandLike:$init,
                       UnitAttr:$transposed, MoE_PanelsAttr:$panels,
                       OptionalAttr<DenseI64ArrayAttr>:$extents);
  let results = (outs Optional<AnyRankedTensor>:$result);
  let assemblyFormat = [{
    $weights (`transposed` $transposed^)? `panels` `(` $panels `)`
    (`extents` `(` $extents^ `)`)?
    `outs` `(` $init `:` type($init) `)` attr-dict
    `:` type($weights) (`->` type($result)^)?
  }];
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    MutableOperandRange getDpsInitsMutable() { return getInitMutable(); }
    /// Rows and columns of one expert's weights.
    int64_t getK() {
      if (getExtents())
        return (*getExtents())[0];
      auto type = cast<ShapedType>(getWeights().front().getType());
      return type.getDimSize(getTransposed() ? 2 : 1);
    }
    int64_t getN() {
      if (getExtents())
        return (*getExtents())[1];
      auto type = cast<ShapedType>(getWeights().front().getType());
      return type.getDimSize(getTransposed() ? 1 : 2);
    }
    /// Fields of one matmul: 1 without a format.
    int64_t getNumFields() {
      FormatAttr format = getPanels().getFormat();
      return format ? format.getNumOperands() : 1;
    }
  }];
}

//===----------------------------------------------------------------------===//
// moe.quantize_rows
//===----------------------------------------------------------------------===//

def MoE_QuantizedRowsLike
    : AnyTypeOf<[2DTensorOf<[I8]>, MemRefRankOf<[I8], [2]>],
    "2-D tensor or memref of i8">;

def MoE_QuantizeRowsOp : MoE_Op<"quantize_rows", [
    DestinationStyleOpInterface,
    DeclareOpInterfaceMethods<MemoryEffectsOpInterface, ["getEffects"]>,
    DeclareOpInterfaceMethods<ReifyRankedShapedTypeOpInterface,
                              ["reifyResultShapes"]>]> {
  let summary = "round rows to integers of 8 bits for a CPU kernel";
  let description = [{
    Rounds each 32 elements of a row, `K` of them, to integers of 8 bits with
    one scale: `scale = max |row[k]| / 127` in f32, and `q[k] = row[k] · (127 /
    max |row[k]|)`, to nearest even. If `max |row[k]|` is below 2⁻¹¹⁹, the scale
    and the integers are 0. A group with a NaN or an infinity has such a scale,
    and so every product with it is NaN or infinite.

    The result has 48 bytes for each group, in the order in which a kernel reads
    them: the integers, in each four of them in the order `0, 2, 1, 3` (that of
    the bytes of `#moe.panels` with a format); the scale; and three pairs of
    sums of integers, in i16: of elements `0, 2` and of elements `1, 3` of each
    four, over all, over the first 16, and over the last 16.

    ```mlir
    func.func @quantize_rows(%x: tensor<?x64xbf16>, %init: tensor<?x96xi8>)
        -> tensor<?x96xi8> {
      %q = moe.quantize_rows %x outs(%init : tensor<?x96xi8>)
        : tensor<?x64xbf16> -> tensor<?x96xi8>
      return %q : tensor<?x96xi8>
    }
    ```
  }];
  let arguments = (ins MoE_RowsLike:$rows, MoE_QuantizedRowsLike:$init);
  let results = (outs Optional<2DTensorOf<[I8]>>:$result);
  let assemblyFormat = [{
    $rows `outs` `(` $init `:` type($init) `)` attr-dict
    `:` type($rows) (`->` type($result)^)?
  }];
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    MutableOperandRange getDpsInitsMutable() { return getInitMutable(); }
    /// Elements of a row.
    int64_t getK() {
      return cast<ShapedType>(getRows().getType()).getDimSize(1);
    }
  }];
}

//===----------------------------------------------------------------------===//
// moe.round_matrices
//===----------------------------------------------------------------------===//

def MoE_RoundMatricesOp : MoE_Op<"round_matrices", [
    DestinationStyleOpInterface,
    DeclareOpInterfaceMethods<MemoryEffectsOpInterface, ["getEffects"]>]> {
  let summary = "round matrices for a CPU kernel, or measure what that costs";
  let description = [{
    With two destinations, computes the fields of `moe.quantize`. With one, the
    relative error of each matrix, `‖rounded − w‖ / ‖w‖` in the Frobenius norm
    (0 for zeros), where the rounded matrix is what `moe.dequantize` would
    decode from the fields, in f32.

    ```mlir
    func.func @round(%w: tensor<8x96x64xbf16>, %codes: tensor<8x96x64xi8>,
                     %scales: tensor<8x96x1xf32>, %init: tensor<8xf32>)
        -> (tensor<8x96x64xi8>, tensor<8x96x1xf32>, tensor<8xf32>) {
      %q, %s = moe.round_matrices %w format(<
          codes = <element = si8>,
          scales = [#moe.field<element = f32, operand = 1, block = [1, 64]>]>)
          outs(%codes, %scales : tensor<8x96x64xi8>, tensor<8x96x1xf32>)
        : tensor<8x96x64xbf16> -> tensor<8x96x64xi8>, tensor<8x96x1xf32>
      %errors = moe.round_matrices %w format(<
          codes = <element = si8>,
          scales = [#moe.field<element = f32, operand = 1, block = [1, 64]>]>)
          outs(%init : tensor<8xf32>)
        : tensor<8x96x64xbf16> -> tensor<8xf32>
      return %q, %s, %errors
        : tensor<8x96x64xi8>, tensor<8x96x1xf32>, tensor<8xf32>
    }
    ```
  }];
  let arguments = (ins MoE_WeightsLike:$source, UnitAttr:$transposed,
                       MoE_FormatAttr:$format,
                       Variadic<MoE_OperandLike>:$inits);
  let results = (outs Variadic<AnyRankedTensor>:$results);
  let assemblyFormat = [{
    $source (`transposed` $transposed^)? `format` `(` $format `)`
    `outs` `(` $inits `:` type($inits) `)` attr-dict
    `:` type($source) (`->` type($results)^)?
  }];
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    MutableOperandRange getDpsInitsMutable() { return getInitsMutable(); }
    ShapedType getSourceType() {
      return ::mlir::cast<ShapedType>(getSource().getType());
    }
    /// Rows and columns of a matrix; dimensions before them.
    int64_t getN() {
      return getSourceType().getShape().take_back(2)[getTransposed()];
    }
    int64_t getK() {
      return getSourceType().getShape().take_back(2)[!getTransposed()];
    }
    int64_t getNumLeadingDims() { return getSourceType().getRank() - 2; }
    /// True if errors are computed, not fields.
    bool isMeasurement() { return getInits().size() == 1; }
    /// Returns null if the kernel takes matrices with `k` columns, else a
    /// reason.
    static const char *reasonNotToRound(FormatAttr format, int64_t k);
  }];
}

#endif // MOE_DIALECT_MOE_IR_MOEGROUPEDOPS_TD
