//===- MoEAttrs.td - Attributes of the moe dialect ---------*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_IR_MOEATTRS_TD
#define MOE_DIALECT_MOE_IR_MOEATTRS_TD

include "moe/Dialect/MoE/IR/MoEDialect.td"
include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/EnumAttr.td"

class MoE_I32Enum<string name, string summary, list<I32EnumAttrCase> cases>
    : I32EnumAttr<name, summary, cases> {
  let genSpecializedAttr = 0;
  let cppNamespace = "::mlir::moe";
}

class MoE_EnumAttr<EnumAttrInfo enumInfo, string mnemonic>
    : EnumAttr<MoE_Dialect, enumInfo, mnemonic> {
  let assemblyFormat = "$value";
}

/// A double parameter that compares by its bits.
def MoE_RealParameter
    : AttrParameter<"::mlir::moe::Real", "a floating-point number", "double">;

//===----------------------------------------------------------------------===//
// Gate
//===----------------------------------------------------------------------===//

def MoE_Score : MoE_I32Enum<"Score", "function from logits to scores", [
  I32EnumAttrCase<"None", 0, "none">,
  I32EnumAttrCase<"Softmax", 1, "softmax">,
  I32EnumAttrCase<"Sigmoid", 2, "sigmoid">,
  I32EnumAttrCase<"Relu", 3, "relu">,
  I32EnumAttrCase<"SqrtSoftplus", 4, "sqrt_softplus">
]>;
def MoE_ScoreAttr : MoE_EnumAttr<MoE_Score, "score">;

def MoE_ScoreAxis : MoE_I32Enum<"ScoreAxis", "axis a softmax runs over", [
  I32EnumAttrCase<"Experts", 0, "experts">,
  I32EnumAttrCase<"Tokens", 1, "tokens">
]>;
def MoE_ScoreAxisAttr : MoE_EnumAttr<MoE_ScoreAxis, "score_axis">;

def MoE_Order : MoE_I32Enum<"Order", "order of scoring and selecting", [
  I32EnumAttrCase<"ScoreThenSelect", 0, "score_then_select">,
  I32EnumAttrCase<"SelectThenScore", 1, "select_then_score">,
  I32EnumAttrCase<"ScoreEachChoice", 2, "score_each_choice">
]>;
def MoE_OrderAttr : MoE_EnumAttr<MoE_Order, "order">;

def MoE_Selection : MoE_I32Enum<"Selection", "who selects whom", [
  I32EnumAttrCase<"TokenChoice", 0, "token_choice">,
  I32EnumAttrCase<"ExpertChoice", 1, "expert_choice">
]>;
def MoE_SelectionAttr : MoE_EnumAttr<MoE_Selection, "selection">;

def MoE_GroupScore : MoE_I32Enum<"GroupScore", "score of a group of experts", [
  I32EnumAttrCase<"Max", 0, "max">,
  I32EnumAttrCase<"Top2Sum", 1, "top2_sum">
]>;
def MoE_GroupScoreAttr : MoE_EnumAttr<MoE_GroupScore, "group_score">;

def MoE_GroupFill : MoE_I32Enum<"GroupFill",
    "value that stands for the experts of a group that was not kept", [
  I32EnumAttrCase<"NegInf", 0, "neg_inf">,
  I32EnumAttrCase<"Zero", 1, "zero">
]>;
def MoE_GroupFillAttr : MoE_EnumAttr<MoE_GroupFill, "group_fill">;

def MoE_GroupsAttr : AttrDef<MoE_Dialect, "Groups"> {
  let mnemonic = "groups";
  let summary = "group-limited selection";
  let description = [{
    The experts form `count` groups of equal size and consecutive ids. The score
    of a group is that of its best expert (`max`, DeepSeek-V2) or the sum of its
    two best (`top2_sum`, DeepSeek-V3). The `keep` best groups stay; `fill`
    replaces the selection scores of all other experts. The published
    DeepSeek-V3 code fills with −inf; with `zero`, an expert of a dropped group
    beats a kept one whose biased score is negative.
  }];
  let parameters = (ins "int64_t":$count, "int64_t":$keep,
      DefaultValuedParameter<"GroupScore", "GroupScore::Max">:$score,
      DefaultValuedParameter<"GroupFill", "GroupFill::NegInf">:$fill);
  let assemblyFormat = "`<` struct(params) `>`";
  let genVerifyDecl = 1;
}

def MoE_NormalizeKind : MoE_I32Enum<"NormalizeKind",
    "how the weights of one token are normalised", [
  I32EnumAttrCase<"Sum", 0, "sum">,
  I32EnumAttrCase<"Norm", 1, "norm">,
  I32EnumAttrCase<"Softmax", 2, "softmax">
]>;
def MoE_NormalizeKindAttr : MoE_EnumAttr<MoE_NormalizeKind, "normalize_kind">;

def MoE_NormalizeGuard : MoE_I32Enum<"NormalizeGuard",
    "how epsilon keeps the denominator from zero", [
  I32EnumAttrCase<"Add", 0, "add">,
  I32EnumAttrCase<"Clamp", 1, "clamp">
]>;
def MoE_NormalizeGuardAttr
    : MoE_EnumAttr<MoE_NormalizeGuard, "normalize_guard">;

def MoE_NormalizeAttr : AttrDef<MoE_Dialect, "Normalize"> {
  let mnemonic = "normalize";
  let summary = "normalisation of one token's weights";
  let description = [{
    With `d` the denominator: `sum` divides by `d = Σ w`, `norm` by
    `d = (Σ |w|ᵖ)^(1/p)`, `softmax` replaces the weights by their softmax.
    `epsilon` guards the division: `add` divides by `d + epsilon`, `clamp` by
    `max(d, epsilon)`. Choices without an expert are ignored.
  }];
  let parameters = (ins "NormalizeKind":$kind, MoE_RealParameter:$p,
                        MoE_RealParameter:$epsilon, "NormalizeGuard":$guard);
  let hasCustomAssemblyFormat = 1;
  let genVerifyDecl = 1;
}

//===----------------------------------------------------------------------===//
// Dispatch
//===----------------------------------------------------------------------===//

def MoE_Rounding : MoE_I32Enum<"Rounding", "rounding to whole rows", [
  I32EnumAttrCase<"Ceil", 0, "ceil">,
  I32EnumAttrCase<"Floor", 1, "floor">
]>;
def MoE_RoundingAttr : MoE_EnumAttr<MoE_Rounding, "rounding">;

def MoE_CapacityAttr : AttrDef<MoE_Dialect, "Capacity"> {
  let mnemonic = "capacity";
  let summary = "rows that one expert takes";
  let description = [{
    Either `fixed` rows, or from a capacity factor

    `C = max(min(limit, round(factor · T / E)), minimum)`

    where `limit` is `T` if `at_most_tokens` is set and infinite otherwise.
    `factor` covers all choices of a token: DeepSpeed's factor for k choices is
    written `k · factor`. The product is evaluated in f64. Mesh-TensorFlow is
    `<factor = 1.25, rounding = floor, minimum = 4, at_most_tokens>`, DeepSpeed
    `<factor = 2.0, minimum = 4>`, Switch with a fixed capacity `<fixed = 64>`.
  }];
  let parameters = (ins "int64_t":$fixed, MoE_RealParameter:$factor,
                        "Rounding":$rounding, "int64_t":$minimum,
                        "bool":$atMostTokens);
  let hasCustomAssemblyFormat = 1;
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    bool isFixed() const { return getFixed() >= 0; }
    /// Returns the capacity for `tokens` tokens and `experts` experts.
    int64_t evaluate(int64_t tokens, int64_t experts) const;
  }];
}

def MoE_Priority : MoE_I32Enum<"Priority",
    "which choices an expert at its capacity keeps", [
  I32EnumAttrCase<"Position", 0, "position">,
  I32EnumAttrCase<"Choice", 1, "choice">,
  I32EnumAttrCase<"Probability", 2, "probability">
]>;
def MoE_PriorityAttr : MoE_EnumAttr<MoE_Priority, "priority">;

def MoE_Overflow : MoE_I32Enum<"Overflow",
    "what becomes of a choice whose expert is full", [
  I32EnumAttrCase<"Drop", 0, "drop">,
  I32EnumAttrCase<"NextChoice", 1, "next_choice">
]>;
def MoE_OverflowAttr : MoE_EnumAttr<MoE_Overflow, "overflow">;

def MoE_Uncovered : MoE_I32Enum<"Uncovered",
    "content of the rows that no expert covers", [
  I32EnumAttrCase<"Undefined", 0, "undefined">,
  I32EnumAttrCase<"Zero", 1, "zero">
]>;
def MoE_UncoveredAttr : MoE_EnumAttr<MoE_Uncovered, "uncovered">;

//===----------------------------------------------------------------------===//
// Grouped matmul
//===----------------------------------------------------------------------===//

def MoE_MatrixUnit : MoE_I32Enum<"MatrixUnit",
    "matrix instructions of a tile", [
  I32EnumAttrCase<"MmaSync", 0, "mma_sync">,
  I32EnumAttrCase<"Wgmma", 1, "wgmma">
]>;
def MoE_MatrixUnitAttr : MoE_EnumAttr<MoE_MatrixUnit, "matrix_unit">;

def MoE_WarpRoles : MoE_I32Enum<"WarpRoles",
    "roles of the warps of a block", [
  I32EnumAttrCase<"Cooperative", 0, "cooperative">,
  I32EnumAttrCase<"PingPong", 1, "ping_pong">
]>;
def MoE_WarpRolesAttr : MoE_EnumAttr<MoE_WarpRoles, "warp_roles">;

def MoE_GatherFence : MoE_I32Enum<"GatherFence",
    "warps that issue the proxy fence of gathered rows", [
  I32EnumAttrCase<"Producer", 0, "producer">,
  I32EnumAttrCase<"Consumer", 1, "consumer">
]>;
def MoE_GatherFenceAttr : MoE_EnumAttr<MoE_GatherFence, "gather_fence">;

def MoE_TileAttr : AttrDef<MoE_Dialect, "Tile"> {
  let mnemonic = "tile";
  let summary = "tile of a grouped matmul on a GPU";
  let description = [{
    A block computes tiles of `rows` rows of one expert and `columns` columns of
    the result. A pipeline of `stages` stages in shared memory holds `depth`
    elements along k each. Several matmuls with one epilogue have an equal share
    of the columns of a tile.

    * `unit`: `mma_sync` (sm_80 and later, operands loaded by `cp.async`) or
      `wgmma` (sm_90a, operands loaded by TMA in a producer warpgroup).
    * `roles`: `cooperative`, where all consumer warps compute one tile, or
      `ping_pong`, where two consumer warpgroups compute a tile each and one
      runs its mainloop while the other runs its epilogue.
    * `swap_ab`: the weights are the first operand, so that the M of `wgmma` is
      filled however few rows an expert has.
    * `split`: split-K; the blocks of a cluster of this size accumulate a part
      of k each and reduce their accumulators, in order, through distributed
      shared memory.
    * `gather_fence`: `cp.async` writes gathered rows through the generic proxy,
      and `wgmma` reads them through the async proxy. The proxy fence between
      them is issued by the `producer`, which waits for its copies, fences and
      arrives at the barrier of the stage; or by the `consumer` after its wait,
      where the copies arrive themselves (`cp.async.mbarrier.arrive.noinc`).
  }];
  let parameters = (ins
    "MatrixUnit":$unit, "int64_t":$rows, "int64_t":$columns, "int64_t":$depth,
    "int64_t":$stages,
    DefaultValuedParameter<"WarpRoles", "WarpRoles::Cooperative">:$roles,
    DefaultValuedParameter<"bool", "false">:$swap_ab,
    DefaultValuedParameter<"int64_t", "1">:$split,
    DefaultValuedParameter<"GatherFence",
                           "GatherFence::Producer">:$gather_fence);
  let assemblyFormat = "`<` struct(params) `>`";
  let genVerifyDecl = 1;
}

#endif // MOE_DIALECT_MOE_IR_MOEATTRS_TD
