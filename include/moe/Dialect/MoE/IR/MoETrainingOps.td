//===- MoETrainingOps.td - Operations of backward passes ---*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_IR_MOETRAININGOPS_TD
#define MOE_DIALECT_MOE_IR_MOETRAININGOPS_TD

include "moe/Dialect/MoE/IR/MoEDialect.td"
include "moe/Dialect/MoE/IR/MoEAttrs.td"
include "mlir/Interfaces/DestinationStyleOpInterface.td"
include "mlir/Interfaces/InferTypeOpInterface.td"
include "mlir/Interfaces/SideEffectInterfaces.td"

//===----------------------------------------------------------------------===//
// moe.gate_gradient
//===----------------------------------------------------------------------===//

def MoE_GateGradientOp : MoE_Op<"gate_gradient", [
    Pure,
    DeclareOpInterfaceMethods<InferTypeOpInterface>,
    DeclareOpInterfaceMethods<ReifyRankedShapedTypeOpInterface,
                              ["reifyResultShapes"]>]> {
  let summary = "gradient of the weights of moe.gate";
  let description = [{
    From the `logits` `[T, E]` (and `noise`) that a `moe.gate` took, the `ids`
    `[T, K]` that it chose and the `gradient` `[T, K]` of a loss by its weights,
    computes the gradient by the logits, `[T, E]` in their type. The attributes
    are those of the gate. The choice is constant: `bias`, `groups`,
    `threshold` and `capacity` decide `ids` and have no gradient. Neither has a
    choice whose id is −1 or out of range. With `order(select_then_score)` a
    softmax runs over the choices in `ids`, so a threshold must not have left
    out any of those that the gate scored. With `order(score_each_choice)` a
    choice without an expert took the best that was left, as in `moe.gate`: a
    threshold must not have left out a given one.

    Scores and gradients are computed in f32, without the roundings to
    `score_type`. A denominator of `normalize` that is 0 makes the gradients
    of its token 0, as its weights are 0 whatever the scores. A NaN in
    `gradient` reaches the logits of its own token only, with
    `score_axis(tokens)` those of all tokens.

    ```mlir
    func.func @mixtral(%logits: tensor<?x8xf32>, %ids: tensor<?x2xi32>,
                       %gradient: tensor<?x2xf32>) -> tensor<?x8xf32> {
      %d = moe.gate_gradient %logits, %ids, %gradient normalize(<sum>)
        : tensor<?x8xf32>, tensor<?x2xi32>, tensor<?x2xf32>
      return %d : tensor<?x8xf32>
    }
    ```
  }];
  let arguments = (ins
    MoE_Matrix:$logits, MoE_Ids:$ids, MoE_Matrix:$gradient,
    Optional<MoE_Matrix>:$noise,
    DefaultValuedAttr<MoE_ScoreAttr, "Score::Softmax">:$score,
    DefaultValuedAttr<MoE_ScoreAxisAttr, "ScoreAxis::Experts">:$score_axis,
    DefaultValuedAttr<MoE_OrderAttr, "Order::ScoreThenSelect">:$order,
    OptionalAttr<F64Attr>:$margin, OptionalAttr<MoE_NormalizeAttr>:$normalize,
    OptionalAttr<F64Attr>:$scale);
  let results = (outs MoE_Matrix:$result);
  let assemblyFormat = [{
    $logits `,` $ids `,` $gradient (`noise` `(` $noise^ `:` type($noise) `)`)?
    (`score` `(` custom<Keyword>($score)^ `)`)?
    (`score_axis` `(` custom<Keyword>($score_axis)^ `)`)?
    (`order` `(` custom<Keyword>($order)^ `)`)?
    (`margin` `(` $margin^ `)`)? (`normalize` `(` $normalize^ `)`)?
    (`scale` `(` $scale^ `)`)?
    attr-dict `:` type($logits) `,` type($ids) `,` type($gradient)
  }];
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    int64_t getNumExperts() { return getLogits().getType().getDimSize(1); }
    int64_t getTopK() { return getIds().getType().getDimSize(1); }
    /// Returns why the gradient of a token depends on other tokens of a call;
    /// empty if it does not.
    StringRef getTokenDependence() {
      return getScoreAxis() == ScoreAxis::Tokens
                 ? "the softmax runs over all tokens of a call"
                 : "";
    }
  }];
}

//===----------------------------------------------------------------------===//
// moe.grouped_contract
//===----------------------------------------------------------------------===//

def MoE_ExpertMatricesLike
    : AnyTypeOf<[3DTensorOf<[MoE_Float]>, MemRefRankOf<[MoE_Float], [3]>],
    "3-D tensor or memref of f32, f16 or bf16">;

def MoE_GroupedContractOp : MoE_Op<"grouped_contract", [
    AttrSizedOperandSegments, DestinationStyleOpInterface,
    DeclareOpInterfaceMethods<MemoryEffectsOpInterface, ["getEffects"]>,
    DeclareOpInterfaceMethods<ReifyRankedShapedTypeOpInterface,
                              ["reifyResultShapes"]>]> {
  let summary = "contract two matrices over the rows of each expert";
  let description = [{
    For every expert `e`

    `result[e, k, n] = Σ_r lhs[g(r), k] · rhs[h(r), n]`, over
    `offsets[e] ≤ r < offsets[e+1]`

    where `g(r)` is `lhs_gather[r]` if given and `r` otherwise, and `h(r)` the
    same of `rhs_gather`: the gradient of the weights `[E, K, N]` of
    `moe.grouped_matmul` with rows `lhs` and a result whose gradient is `rhs`.
    The sums are f32, run over ascending `r` and are rounded once to the type
    of the result. An expert without rows has zeros. With `accumulate` the sums
    start from `outs`, otherwise from zero.

    Without `offsets` all rows belong to one expert. `first` is the expert that
    the first matrix belongs to. Indices out of range are clamped as by
    `moe.grouped_matmul`.

    ```mlir
    func.func @weight_gradient(%x: tensor<?x64xf32>, %tokens: tensor<?xi32>,
                               %offsets: tensor<9xi32>,
                               %gradient: tensor<?x128xf32>,
                               %init: tensor<8x64x128xf32>)
        -> tensor<8x64x128xf32> {
      %d = moe.grouped_contract %x gather(%tokens : tensor<?xi32>), %gradient
          offsets(%offsets : tensor<9xi32>)
          outs(%init : tensor<8x64x128xf32>)
        : tensor<?x64xf32>, tensor<?x128xf32> -> tensor<8x64x128xf32>
      return %d : tensor<8x64x128xf32>
    }
    ```
  }];
  let arguments = (ins
    MoE_RowsLike:$lhs, Optional<MoE_IndicesLike>:$lhs_gather,
    MoE_RowsLike:$rhs, Optional<MoE_IndicesLike>:$rhs_gather,
    Optional<MoE_IndicesLike>:$offsets, MoE_ExpertMatricesLike:$init,
    OptionalAttr<I64Attr>:$first, UnitAttr:$accumulate);
  let results = (outs Optional<3DTensorOf<[MoE_Float]>>:$result);
  let assemblyFormat = [{
    $lhs (`gather` `(` $lhs_gather^ `:` type($lhs_gather) `)`)? `,`
    $rhs (`gather` `(` $rhs_gather^ `:` type($rhs_gather) `)`)?
    (`offsets` `(` $offsets^ `:` type($offsets) `)`)?
    (`first` `(` $first^ `)`)? (`accumulate` $accumulate^)?
    `outs` `(` $init `:` type($init) `)` attr-dict
    `:` type($lhs) `,` type($rhs) (`->` type($result)^)?
  }];
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    MutableOperandRange getDpsInitsMutable() { return getInitMutable(); }
    int64_t getExpertCount() {
      return cast<ShapedType>(getInit().getType()).getDimSize(0);
    }
    int64_t getFirstExpert() { return getFirst().value_or(0); }
    /// Columns of `lhs` and of `rhs`.
    int64_t getK() {
      return cast<ShapedType>(getLhs().getType()).getDimSize(1);
    }
    int64_t getN() {
      return cast<ShapedType>(getRhs().getType()).getDimSize(1);
    }
  }];
}

#endif // MOE_DIALECT_MOE_IR_MOETRAININGOPS_TD
