//===- MoELossOps.td - Losses and balance of routers -------*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_IR_MOELOSSOPS_TD
#define MOE_DIALECT_MOE_IR_MOELOSSOPS_TD

include "moe/Dialect/MoE/IR/MoEDialect.td"
include "moe/Dialect/MoE/IR/MoEAttrs.td"
include "mlir/Interfaces/DestinationStyleOpInterface.td"
include "mlir/Interfaces/InferTypeOpInterface.td"
include "mlir/Interfaces/SideEffectInterfaces.td"

def MoE_Loss : MoE_I32Enum<"Loss", "formula of an auxiliary loss", [
  I32EnumAttrCase<"LoadBalance", 0, "load_balance">,
  I32EnumAttrCase<"RouterZ", 1, "router_z">,
  I32EnumAttrCase<"Importance", 2, "importance">
]>;
def MoE_LossAttr : MoE_EnumAttr<MoE_Loss, "loss">;

def MoE_TokenMask : 1DTensorOf<[I8, I32, I64]>;
def MoE_Scalar : 0DTensorOf<[F32]>;

//===----------------------------------------------------------------------===//
// moe.auxiliary_loss and its gradient
//===----------------------------------------------------------------------===//

class MoE_LossOpBase<string mnemonic, dag upstream>
    : MoE_Op<mnemonic, [
        Pure, AttrSizedOperandSegments,
        DeclareOpInterfaceMethods<InferTypeOpInterface>,
        DeclareOpInterfaceMethods<ReifyRankedShapedTypeOpInterface,
                                  ["reifyResultShapes"]>]> {
  let arguments = !con((ins MoE_LossAttr:$formula, MoE_Matrix:$values),
    upstream,
    (ins Optional<MoE_Ids>:$ids, Optional<MoE_TokenMask>:$mask,
         Optional<MoE_Offsets>:$sequences,
         DefaultValuedAttr<MoE_ScoreAttr, "Score::Softmax">:$score,
         OptionalAttr<I64Attr>:$num_experts, OptionalAttr<I64Attr>:$choices,
         DefaultValuedAttr<F64Attr, "1.0">:$coefficient));
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    int64_t getExpertCount() {
      return getNumExperts().value_or(getValues().getType().getDimSize(1));
    }
    /// Returns how many choices of a token count, the first of `ids`.
    int64_t getCountedChoices() {
      return getChoices().value_or(getIds().getType().getDimSize(1));
    }
  }];
}

def MoE_AuxiliaryLossOp
    : MoE_LossOpBase<"auxiliary_loss", (ins)> {
  let summary = "auxiliary loss of a router";
  let description = [{
    Computes a loss from what a router gave for the tokens of a call, times
    `coefficient`. `T'` is the number of tokens that count: those whose `mask`
    `[T]` is not 0, or all. With `p` the scores of the logits, `c[e]` how often
    expert `e` occurs in `ids` `[T, K]`, and all sums over tokens that count:

    * `load_balance` `E · Σ_e (c[e] / T') · (Σ_t p[t, e] / T')` of the logits
      `[T, E]` (Switch Transformer, `f · P`; with all `K` choices as in
      transformers). `choices(1)` counts first choices only (GShard, DeepSpeed's
      `l_aux` for two choices); a coefficient `α / K` gives fractions of the
      choices (Megatron, DeepSeek). `score` is `softmax`, or `sigmoid`, divided
      by its sum over the experts (DeepSeek-V3). With `sequences` `[S + 1]`, the
      offsets of the sequences that the tokens form, it is the mean of the loss
      of each sequence that has a token (DeepSeek's sequence-wise loss).
    * `router_z` `(Σ_t logsumexp(logits[t])²) / T'` (ST-MoE).
    * `importance` the squared coefficient of variation over the experts,
      `var(I) / (mean(I)² + 10⁻¹⁰)`, of the weights `[T, K]` that each receives,
      `I[e] = Σ weights[t, k]` with `ids[t, k] = e` (Shazeer et al.).

    An id that is −1 or out of range is of no expert. Without a token that
    counts the loss is 0. Counts are exact; the rest is f32. NaN in a token that
    counts makes the loss NaN; others are not read.

    Mixtral's loss in training, with padding:

    ```mlir
    func.func @mixtral(%logits: tensor<?x8xf32>, %ids: tensor<?x2xi32>,
                       %mask: tensor<?xi32>) -> tensor<f32> {
      %loss = moe.auxiliary_loss load_balance %logits
        ids(%ids : tensor<?x2xi32>) mask(%mask : tensor<?xi32>)
        coefficient(1.0e-2) : tensor<?x8xf32>
      return %loss : tensor<f32>
    }
    ```
  }];
  let results = (outs MoE_Scalar:$result);
  let assemblyFormat = [{
    custom<Keyword>($formula) $values (`ids` `(` $ids^ `:` type($ids) `)`)?
    (`mask` `(` $mask^ `:` type($mask) `)`)?
    (`sequences` `(` $sequences^ `:` type($sequences) `)`)?
    (`score` `(` custom<Keyword>($score)^ `)`)?
    (`num_experts` `(` $num_experts^ `)`)? (`choices` `(` $choices^ `)`)?
    (`coefficient` `(` $coefficient^ `)`)? attr-dict `:` type($values)
  }];
}

def MoE_AuxiliaryLossGradientOp
    : MoE_LossOpBase<"auxiliary_loss_gradient", (ins MoE_Scalar:$gradient)> {
  let summary = "gradient of an auxiliary loss of a router";
  let description = [{
    Computes the gradient of `moe.auxiliary_loss` by `values`, in their type,
    from the `gradient` of a loss by its result. The counts are constant. The
    gradient of a token that does not count is 0, and so is that of importance
    where all experts receive the same.

    ```mlir
    func.func @z(%logits: tensor<?x8xf32>, %gradient: tensor<f32>)
        -> tensor<?x8xf32> {
      %d = moe.auxiliary_loss_gradient router_z %logits, %gradient
        coefficient(1.0e-3) : tensor<?x8xf32>, tensor<f32>
      return %d : tensor<?x8xf32>
    }
    ```
  }];
  let results = (outs MoE_Matrix:$result);
  let assemblyFormat = [{
    custom<Keyword>($formula) $values `,` $gradient
    (`ids` `(` $ids^ `:` type($ids) `)`)?
    (`mask` `(` $mask^ `:` type($mask) `)`)?
    (`sequences` `(` $sequences^ `:` type($sequences) `)`)?
    (`score` `(` custom<Keyword>($score)^ `)`)?
    (`num_experts` `(` $num_experts^ `)`)? (`choices` `(` $choices^ `)`)?
    (`coefficient` `(` $coefficient^ `)`)? attr-dict
    `:` type($values) `,` type($gradient)
  }];
}

//===----------------------------------------------------------------------===//
// moe.expert_load
//===----------------------------------------------------------------------===//

def MoE_ExpertLoadOp : MoE_Op<"expert_load", [
    Pure, DeclareOpInterfaceMethods<InferTypeOpInterface>,
    DeclareOpInterfaceMethods<ReifyRankedShapedTypeOpInterface,
                              ["reifyResultShapes"]>]> {
  let summary = "count the choices of each expert";
  let description = [{
    Counts for each expert its occurrences in `ids` `[T, K]`, in tokens whose
    `mask` `[T]` is not 0. An id that is −1 or out of range is of no expert.

    ```mlir
    func.func @load(%ids: tensor<?x2xi32>) -> tensor<8xi32> {
      %load = moe.expert_load %ids num_experts(8) : tensor<?x2xi32>
      return %load : tensor<8xi32>
    }
    ```
  }];
  let arguments = (ins MoE_Ids:$ids, Optional<MoE_TokenMask>:$mask,
                       I64Attr:$num_experts);
  let results = (outs 1DTensorOf<[I32]>:$load);
  let assemblyFormat = [{
    $ids (`mask` `(` $mask^ `:` type($mask) `)`)?
    `num_experts` `(` $num_experts `)` attr-dict `:` type($ids)
  }];
  let hasVerifier = 1;
}

//===----------------------------------------------------------------------===//
// moe.update_bias
//===----------------------------------------------------------------------===//

def MoE_UpdateBiasOp : MoE_Op<"update_bias", [
    Pure, DestinationStyleOpInterface, AllTypesMatch<["bias", "result"]>,
    DeclareOpInterfaceMethods<ReifyRankedShapedTypeOpInterface,
                              ["reifyResultShapes"]>]> {
  let summary = "move the selection bias towards an even load";
  let description = [{
    Adds `rate · sign(mean(load) − load[e])` to the bias of each expert, where
    sign(0) is 0 (auxiliary-loss-free load balancing, arXiv:2408.15664). `load`
    `[E]` is that of `moe.expert_load`, of all ranks and micro-batches of a
    step. Experts are compared exactly, in integers. The bias is updated in
    place where nobody else reads it.

    ```mlir
    func.func @balance(%load: tensor<8xi32>, %bias: tensor<8xf32>)
        -> tensor<8xf32> {
      %new = moe.update_bias %load rate(1.0e-3) outs(%bias : tensor<8xf32>)
        : tensor<8xi32>
      return %new : tensor<8xf32>
    }
    ```
  }];
  let arguments = (ins 1DTensorOf<[I32]>:$load, MoE_Vector:$bias,
                       F64Attr:$rate);
  let results = (outs MoE_Vector:$result);
  let assemblyFormat = [{
    $load `rate` `(` $rate `)` `outs` `(` $bias `:` type($bias) `)` attr-dict
    `:` type($load)
  }];
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    MutableOperandRange getDpsInitsMutable() { return getBiasMutable(); }
  }];
}

#endif // MOE_DIALECT_MOE_IR_MOELOSSOPS_TD
