//===- MoEOps.td - Operations of the moe dialect -----------*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_IR_MOEOPS_TD
#define MOE_DIALECT_MOE_IR_MOEOPS_TD

include "moe/Dialect/MoE/IR/MoEDialect.td"
include "moe/Dialect/MoE/IR/MoEABIAttrs.td"
include "moe/Dialect/MoE/IR/MoEPlanAttrs.td"
include "mlir/Interfaces/InferTypeOpInterface.td"
include "mlir/Interfaces/SideEffectInterfaces.td"
include "mlir/Interfaces/ControlFlowInterfaces.td"
include "mlir/IR/OpAsmInterface.td"

class MoE_Op<string mnemonic, list<Trait> traits = []>
    : Op<MoE_Dialect, mnemonic, traits>;

def MoE_Float : AnyTypeOf<[F32, F16, BF16], "f32, f16 or bf16">;
def MoE_FloatTypeAttr : TypeAttrBase<"::mlir::FloatType", "f32, f16 or bf16">;
def MoE_Matrix : 2DTensorOf<[MoE_Float]>;
def MoE_Vector : 1DTensorOf<[MoE_Float]>;
def MoE_Ids : 2DTensorOf<[I32]>;
def MoE_Offsets : 1DTensorOf<[I32]>;

//===----------------------------------------------------------------------===//
// moe.gate
//===----------------------------------------------------------------------===//

def MoE_GateOp : MoE_Op<"gate", [
    Pure, AttrSizedOperandSegments,
    DeclareOpInterfaceMethods<InferTypeOpInterface>,
    DeclareOpInterfaceMethods<ReifyRankedShapedTypeOpInterface,
                              ["reifyResultShapes"]>,
    DeclareOpInterfaceMethods<OpAsmOpInterface, ["getAsmResultNames"]>]> {
  let summary = "choose experts for every token and weigh them";
  let description = [{
    Computes from the logits `[T, E]` of the router the ids `[T, K]` of the
    experts of every token, best first, and their weights `[T, K]`. The matmul
    of the router stays outside, as an ordinary `linalg.matmul`.

    The steps, in order; each is an attribute and they combine freely:

    1. `noise` `[T, E]` is added to the logits (Tensor2Tensor's noisy top-k).
       NaN becomes −inf.
    2. With `order`, the `score` function runs over all experts before the
       selection (`score_then_select`), over the selected logits after it
       (`select_then_score`), or again for each choice over the remaining
       experts (`score_each_choice`). The last takes a `margin` `m`: an expert
       whose logit `l` has `(best − l) / max(|l|, best) > m` counts as −inf
       while that choice is scored (SparseMixer, Phi-3.5-MoE). A softmax runs
       over the experts of a token, or over the tokens with
       `score_axis(tokens)`.
    3. Selection scores are the scores plus `bias` `[E]`; the bias never reaches
       the weights. `groups` limits the selection to the best groups of experts.
    4. `token_choice`: every token takes its `K` best experts. `expert_choice`:
       every expert takes its `C` best tokens, `C` from `capacity`; `K = E`, and
       column `e` of token `t` is `e` if expert `e` chose `t`, else −1. With
       `ids` `[T, K]` the choice is given (hash routing, or a recorded route)
       and only the weights are computed. With `score_each_choice` a given
       choice without an expert takes the best that is left, with weight 0.
    5. A choice whose score is not above `threshold` becomes −1 (ReMoE: `relu`,
       `K = E`, threshold 0). A choice without an expert has weight 0.
    6. `normalize` divides the weights of a token, then `scale` multiplies them.

    With `softmax` and `sigmoid` every weight is finite for any logits: if the
    largest logit of a softmax is infinite, the experts with that logit share
    the weight, and if a denominator of `normalize` is 0, the weights are 0.
    `none` and `relu` pass an infinite logit on.

    Arithmetic is in f32. `score_type` is the type of the weights: scores,
    denominators, quotients and scaled weights are each rounded to it. With
    `score_then_select` the selection compares rounded scores, as a router in
    bf16 does; the other orders compare logits.

    Mixtral's gate (softmax, the best two, renormalised):

    ```mlir
    func.func @mixtral(%logits: tensor<?x8xf32>)
        -> (tensor<?x2xf32>, tensor<?x2xi32>) {
      %weights, %ids = moe.gate %logits top_k(2) normalize(<sum>)
        : tensor<?x8xf32>
      return %weights, %ids : tensor<?x2xf32>, tensor<?x2xi32>
    }
    ```

    DeepSeek-V3's (sigmoid, bias for the selection only, four of eight groups):

    ```mlir
    func.func @deepseek_v3(%logits: tensor<?x256xf32>, %bias: tensor<256xf32>)
        -> (tensor<?x8xf32>, tensor<?x8xi32>) {
      %weights, %ids = moe.gate %logits bias(%bias : tensor<256xf32>) top_k(8)
        score(sigmoid) groups(<count = 8, keep = 4, score = top2_sum>)
        normalize(<sum, epsilon = 1.0e-20>) scale(2.5)
        : tensor<?x256xf32>
      return %weights, %ids : tensor<?x8xf32>, tensor<?x8xi32>
    }
    ```
  }];
  let arguments = (ins
    MoE_Matrix:$logits, Optional<MoE_Vector>:$bias,
    Optional<MoE_Matrix>:$noise, Optional<MoE_Ids>:$given_ids,
    I64Attr:$top_k,
    DefaultValuedAttr<MoE_ScoreAttr, "Score::Softmax">:$score,
    DefaultValuedAttr<MoE_ScoreAxisAttr, "ScoreAxis::Experts">:$score_axis,
    DefaultValuedAttr<MoE_OrderAttr, "Order::ScoreThenSelect">:$order,
    DefaultValuedAttr<MoE_SelectionAttr, "Selection::TokenChoice">:$selection,
    OptionalAttr<F64Attr>:$margin, OptionalAttr<MoE_GroupsAttr>:$groups,
    OptionalAttr<MoE_CapacityAttr>:$capacity,
    OptionalAttr<F64Attr>:$threshold,
    OptionalAttr<MoE_NormalizeAttr>:$normalize,
    OptionalAttr<F64Attr>:$scale,
    OptionalAttr<MoE_FloatTypeAttr>:$score_type);
  let results = (outs MoE_Matrix:$weights, MoE_Ids:$ids);
  let assemblyFormat = [{
    $logits (`bias` `(` $bias^ `:` type($bias) `)`)?
    (`noise` `(` $noise^ `:` type($noise) `)`)?
    (`ids` `(` $given_ids^ `:` type($given_ids) `)`)?
    `top_k` `(` $top_k `)` (`score` `(` custom<Keyword>($score)^ `)`)?
    (`score_axis` `(` custom<Keyword>($score_axis)^ `)`)?
    (`order` `(` custom<Keyword>($order)^ `)`)?
    (`select` `(` custom<Keyword>($selection)^ `)`)?
    (`margin` `(` $margin^ `)`)?
    (`groups` `(` $groups^ `)`)? (`capacity` `(` $capacity^ `)`)?
    (`threshold` `(` $threshold^ `)`)? (`normalize` `(` $normalize^ `)`)?
    (`scale` `(` $scale^ `)`)? (`score_type` `(` $score_type^ `)`)?
    attr-dict `:` type($logits)
  }];
  let hasVerifier = 1;
  let hasCanonicalizer = 1;
  let extraClassDeclaration = [{
    int64_t getNumExperts() { return getLogits().getType().getDimSize(1); }
    /// Returns the type of scores and weights: `score_type`, or f32 without it.
    FloatType getScoreElementType();
    /// True if each expert chooses tokens, so that a token may be chosen by any
    /// number of experts.
    bool isChosenByExperts() {
      return getSelection() == Selection::ExpertChoice;
    }
    /// Returns why the choices of a token depend on other tokens of a call;
    /// empty if they do not.
    StringRef getTokenDependence();
    /// True if an id may be -1, no expert.
    bool mayLeaveOut() { return isChosenByExperts() || getThreshold(); }
  }];
}

//===----------------------------------------------------------------------===//
// moe.dispatch
//===----------------------------------------------------------------------===//

def MoE_DispatchOp : MoE_Op<"dispatch", [
    Pure,
    DeclareOpInterfaceMethods<InferTypeOpInterface>,
    DeclareOpInterfaceMethods<ReifyRankedShapedTypeOpInterface,
                              ["reifyResultShapes"]>,
    DeclareOpInterfaceMethods<OpAsmOpInterface, ["getAsmResultNames"]>]> {
  let summary = "group the rows of the tokens by expert";
  let description = [{
    Copies row `t` of `rows` `[T, H]` once for each choice `ids[t, k]` that is
    kept, grouped by expert and within an expert in order of `(t, k)`. Results:

    * `grouped` `[R, H]`, whose first `offsets[E]` rows are covered. `R` is
      `T·K`, or `min(T·K, E·C)` with a capacity `C`. Other rows are `undefined`
      or `zero`, according to `uncovered`.
    * `offsets` `[E + 1]`: expert `e` owns rows `offsets[e]` to `offsets[e+1]`.
    * `positions` `[T, K]`: the row of each choice; −1 if it was dropped or has
      no expert.

    Without `capacity` nothing is dropped. With one, `priority` selects the
    choices that a full expert keeps: the first in token order (`position`), all
    first choices before all second ones (`choice`, GShard and
    Mesh-TensorFlow), or those of the largest `weights` `[T, K]` (`probability`,
    DeepSpeed; ties to the lowest token). With `overflow(next_choice)` a token
    whose expert is full falls back to its next choice: of its `K` candidates,
    the first `choices` whose expert has room are kept.

    With `scale_rows` each copy is multiplied by its weight, in f32, rounded
    once (Llama 4 weighs the input of an expert, not its output).

    ```mlir
    func.func @capacity(%x: tensor<?x64xf32>, %ids: tensor<?x2xi32>)
        -> (tensor<?x64xf32>, tensor<9xi32>, tensor<?x2xi32>) {
      %grouped, %offsets, %positions = moe.dispatch %x, %ids experts(8)
        capacity(<factor = 2.5, rounding = floor, minimum = 4, at_most_tokens>)
        priority(choice) : tensor<?x64xf32>, tensor<?x2xi32>
      return %grouped, %offsets, %positions
        : tensor<?x64xf32>, tensor<9xi32>, tensor<?x2xi32>
    }
    ```
  }];
  let arguments = (ins
    MoE_Matrix:$rows, MoE_Ids:$ids, Optional<MoE_Matrix>:$weights,
    I64Attr:$num_experts, OptionalAttr<MoE_CapacityAttr>:$capacity,
    DefaultValuedAttr<MoE_PriorityAttr, "Priority::Position">:$priority,
    DefaultValuedAttr<MoE_OverflowAttr, "Overflow::Drop">:$overflow,
    OptionalAttr<I64Attr>:$choices,
    DefaultValuedAttr<MoE_UncoveredAttr, "Uncovered::Undefined">:$uncovered,
    UnitAttr:$scale_rows);
  let results = (outs MoE_Matrix:$grouped, MoE_Offsets:$offsets,
                      MoE_Ids:$positions);
  let assemblyFormat = [{
    $rows `,` $ids (`weights` `(` $weights^ `:` type($weights) `)`)?
    `experts` `(` $num_experts `)` (`capacity` `(` $capacity^ `)`)?
    (`priority` `(` custom<Keyword>($priority)^ `)`)?
    (`overflow` `(` custom<Keyword>($overflow)^ `)`)?
    (`choices` `(` $choices^ `)`)?
    (`uncovered` `(` custom<Keyword>($uncovered)^ `)`)?
    (`scale_rows` $scale_rows^)? attr-dict `:` type($rows) `,` type($ids)
  }];
  let hasVerifier = 1;
  let hasCanonicalizer = 1;
  let extraClassDeclaration = [{
    int64_t getTopK() { return getIds().getType().getDimSize(1); }
    /// Returns how many choices of a token are kept at most: `choices`, or all
    /// K.
    int64_t getMaxChoices() { return getChoices().value_or(getTopK()); }
    /// Returns why the rows of a token depend on other tokens of a call; empty
    /// if they do not.
    StringRef getTokenDependence() {
      return getCapacity() ? "which choices exceed the capacity depends on all "
                             "tokens of a call"
                           : "";
    }
  }];
}

//===----------------------------------------------------------------------===//
// moe.expert
//===----------------------------------------------------------------------===//

def MoE_ExpertOp : MoE_Op<"expert", [
    AttrSizedOperandSegments, RecursiveMemoryEffects,
    SingleBlock,
    DeclareOpInterfaceMethods<ReifyRankedShapedTypeOpInterface,
                              ["reifyResultShapes"]>,
    DeclareOpInterfaceMethods<OpAsmOpInterface,
                              ["getAsmBlockArgumentNames"]>]> {
  let summary = "apply a region to the rows of each expert";
  let description = [{
    Runs the region once for each expert `e` of a range, on the rows
    `grouped[offsets[e] : offsets[e+1], :]` and the slices `params[e - first]`
    of the parameters, whose leading dimension is the number of experts in the
    range. The region yields the same number of rows, which become these rows of
    the result.

    The range is `first` to `first + count`, by default all `E` experts. Rows
    outside it are those of `init` or, without it, `undefined` or `zero`,
    according to `uncovered`. Experts of different kinds can thus share grouped
    rows (MoE++: `init(%grouped)` makes the others copy experts,
    `uncovered(zero)` zero experts).

    The region may use values from above; it does not run for an expert without
    rows.

    ```mlir
    func.func @relu_mlp(%grouped: tensor<?x64xf32>, %offsets: tensor<9xi32>,
                        %up: tensor<8x64x128xf32>, %down: tensor<8x128x64xf32>)
        -> tensor<?x64xf32> {
      %y = moe.expert %grouped, %offsets
          params(%up, %down : tensor<8x64x128xf32>, tensor<8x128x64xf32>) {
      ^bb0(%rows: tensor<?x64xf32>, %u: tensor<64x128xf32>,
           %d: tensor<128x64xf32>):
        %c0 = arith.constant 0 : index
        %zero = arith.constant 0.0 : f32
        %n = tensor.dim %rows, %c0 : tensor<?x64xf32>
        %e0 = tensor.empty(%n) : tensor<?x128xf32>
        %z0 = linalg.fill ins(%zero : f32)
                          outs(%e0 : tensor<?x128xf32>) -> tensor<?x128xf32>
        %h = linalg.matmul ins(%rows, %u : tensor<?x64xf32>, tensor<64x128xf32>)
                           outs(%z0 : tensor<?x128xf32>) -> tensor<?x128xf32>
        %a = linalg.max ins(%h, %z0 : tensor<?x128xf32>, tensor<?x128xf32>)
                        outs(%e0 : tensor<?x128xf32>) -> tensor<?x128xf32>
        %e1 = tensor.empty(%n) : tensor<?x64xf32>
        %z1 = linalg.fill ins(%zero : f32)
                          outs(%e1 : tensor<?x64xf32>) -> tensor<?x64xf32>
        %o = linalg.matmul ins(%a, %d : tensor<?x128xf32>, tensor<128x64xf32>)
                           outs(%z1 : tensor<?x64xf32>) -> tensor<?x64xf32>
        moe.yield %o : tensor<?x64xf32>
      } : tensor<?x64xf32>, tensor<9xi32> -> tensor<?x64xf32>
      return %y : tensor<?x64xf32>
    }
    ```
  }];
  let arguments = (ins
    MoE_Matrix:$grouped, MoE_Offsets:$offsets,
    Variadic<AnyRankedTensor>:$params, Optional<MoE_Matrix>:$init,
    OptionalAttr<I64Attr>:$first, OptionalAttr<I64Attr>:$count,
    DefaultValuedAttr<MoE_UncoveredAttr, "Uncovered::Undefined">:$uncovered);
  let results = (outs MoE_Matrix:$result);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = [{
    $grouped `,` $offsets (`params` `(` $params^ `:` type($params) `)`)?
    (`init` `(` $init^ `:` type($init) `)`)? (`first` `(` $first^ `)`)?
    (`count` `(` $count^ `)`)?
    (`uncovered` `(` custom<Keyword>($uncovered)^ `)`)? $body
    attr-dict `:` type($grouped) `,` type($offsets) `->` type($result)
  }];
  let hasVerifier = 1;
  let hasRegionVerifier = 1;
  let hasFolder = 1;
  let hasCanonicalizer = 1;
  let extraClassDeclaration = [{
    /// Returns the experts of the whole layer, from `offsets`.
    int64_t getNumExperts() { return getOffsets().getType().getDimSize(0) - 1; }
    int64_t getFirstExpert() { return getFirst().value_or(0); }
    /// Returns the experts of the range.
    int64_t getExpertCount() {
      return getCount().value_or(getNumExperts() - getFirstExpert());
    }
    YieldOp getYield();
  }];
}

//===----------------------------------------------------------------------===//
// moe.combine
//===----------------------------------------------------------------------===//

def MoE_CombineOp : MoE_Op<"combine", [
    Pure, AttrSizedOperandSegments,
    DeclareOpInterfaceMethods<InferTypeOpInterface>,
    DeclareOpInterfaceMethods<ReifyRankedShapedTypeOpInterface,
                              ["reifyResultShapes"]>,
    DeclareOpInterfaceMethods<OpAsmOpInterface, ["getAsmResultNames"]>]> {
  let summary = "add up the rows of every token, weighted";
  let description = [{
    `y[t, h] = Σ_k w[t, k] · grouped[positions[t, k], h]`, over ascending `k`,
    in f32, rounded once to the type of `grouped`. A choice at position −1 adds
    nothing, or `w[t, k] · dropped[t, h]` with `dropped` `[T, H]` (a dropped
    token skips its expert, with the same weight).
    Without `weights` every weight is 1.

    `normalize` divides the weights of a token by those of the choices that were
    kept (renormalising after drops, DeepSpeed).

    ```mlir
    func.func @weighted_sum(%grouped: tensor<?x64xf32>,
                            %positions: tensor<?x2xi32>,
                            %weights: tensor<?x2xf32>) -> tensor<?x64xf32> {
      %y = moe.combine %grouped, %positions weights(%weights : tensor<?x2xf32>)
        : tensor<?x64xf32>, tensor<?x2xi32>
      return %y : tensor<?x64xf32>
    }
    ```
  }];
  let arguments = (ins
    MoE_Matrix:$grouped, MoE_Ids:$positions, Optional<MoE_Matrix>:$weights,
    Optional<MoE_Matrix>:$dropped, OptionalAttr<MoE_NormalizeAttr>:$normalize);
  let results = (outs MoE_Matrix:$result);
  let assemblyFormat = [{
    $grouped `,` $positions (`weights` `(` $weights^ `:` type($weights) `)`)?
    (`dropped` `(` $dropped^ `:` type($dropped) `)`)?
    (`normalize` `(` $normalize^ `)`)? attr-dict
    `:` type($grouped) `,` type($positions)
  }];
  let hasVerifier = 1;
  let hasCanonicalizer = 1;
  let extraClassDeclaration = [{
    int64_t getTopK() { return getPositions().getType().getDimSize(1); }
  }];
}

//===----------------------------------------------------------------------===//
// moe.yield
//===----------------------------------------------------------------------===//

def MoE_YieldOp : MoE_Op<"yield", [
    Pure, ReturnLike, Terminator,
    ParentOneOf<["::mlir::moe::ExpertOp", "::mlir::moe::GroupedMatmulOp",
                 "::mlir::moe::FusedOp"]>]> {
  let summary = "return the values of a region";
  let description = [{
    Ends the region of `moe.expert` with the rows of the expert, `[n, H']` for
    `n` input rows, the epilogue of `moe.grouped_matmul` with an element of
    each result, and the region of `moe.fused` with its results.

    ```mlir
    func.func @identity(%grouped: tensor<?x4xf32>, %offsets: tensor<3xi32>)
        -> tensor<?x4xf32> {
      %y = moe.expert %grouped, %offsets {
      ^bb0(%rows: tensor<?x4xf32>):
        moe.yield %rows : tensor<?x4xf32>
      } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
      return %y : tensor<?x4xf32>
    }
    ```
  }];
  let arguments = (ins
    Variadic<AnyTypeOf<[AnyRankedTensor, MoE_Float]>>:$values);
  let assemblyFormat = "$values attr-dict `:` type($values)";
  let extraClassDeclaration = [{
    /// The only value, of an expert or of an epilogue with one result.
    Value getValue() { return getValues().front(); }
  }];
}

include "moe/Dialect/MoE/IR/MoEGroupedOps.td"
include "moe/Dialect/MoE/IR/MoELossOps.td"
include "moe/Dialect/MoE/IR/MoEParallelOps.td"
include "moe/Dialect/MoE/IR/MoEQuantizationOps.td"
include "moe/Dialect/MoE/IR/MoETrainingOps.td"

#endif // MOE_DIALECT_MOE_IR_MOEOPS_TD
