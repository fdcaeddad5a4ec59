//===- MoEPlanAttrs.td - The capacity plan of a function ---*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_IR_MOEPLANATTRS_TD
#define MOE_DIALECT_MOE_IR_MOEPLANATTRS_TD

include "moe/Dialect/MoE/IR/MoEAttrs.td"

def MoE_OverflowPolicy : MoE_I32Enum<"OverflowPolicy",
    "what a plan knows of choices beyond a capacity", [
  I32EnumAttrCase<"Impossible", 0, "impossible">,
  I32EnumAttrCase<"Drop", 1, "drop">,
  I32EnumAttrCase<"NextChoice", 2, "next_choice">
]>;

def MoE_TileRangeAttr : AttrDef<MoE_Dialect, "TileRange"> {
  let mnemonic = "tile_range";
  let summary = "the kernel variant for a range of T, and its tiles";
  let description = [{
    From `min` to `max` tokens, the variant `variant` with tiles of `rows` rows;
    with `ragged` the last tile of an expert has only the rows that are left,
    and nothing is padding. For every routing of T tokens it needs at most
    `tiles` tiles, of which `padding` rows at most are padding; each is the
    least result of its map.
  }];
  let parameters = (ins "int64_t":$min, "int64_t":$max, "StringAttr":$variant,
                        "int64_t":$rows, "AffineMapAttr":$tiles,
                        "AffineMapAttr":$padding,
                        DefaultValuedParameter<"bool", "false">:$ragged);
  let assemblyFormat = "`<` struct(params) `>`";
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    /// What the rows of an expert are padded to a multiple of.
    int64_t getGranularity() const { return getRagged() ? 1 : getRows(); }
  }];
}

def MoE_DispatchPlanAttr : AttrDef<MoE_Dialect, "DispatchPlan"> {
  let mnemonic = "dispatch_plan";
  let summary = "the plan of one dispatch";
  let description = [{
    `rows` bounds the grouped rows and `fullest` the rows of one expert, for
    every routing of T tokens: each is the least result of its map. `overflow`
    says whether a capacity can be exceeded, and what happens then. `ranges` are
    the variants for all T, in order.
  }];
  let parameters = (ins "int64_t":$experts, "int64_t":$top_k,
                        "AffineMapAttr":$rows, "AffineMapAttr":$fullest,
                        "OverflowPolicy":$overflow, "ArrayAttr":$ranges);
  let assemblyFormat = "`<` struct(params) `>`";
  let genVerifyDecl = 1;
}

def MoE_PlanAttr : AttrDef<MoE_Dialect, "Plan"> {
  let mnemonic = "plan";
  let summary = "the capacity plan of a function";
  let description = [{
    For calls of `min` to `max` tokens. With `chunk` above 0 a call runs in
    pieces of so many tokens, and the T of all bounds is that of a piece.
    `workspace` is what a call takes at most, in bytes; −1 says nothing. One
    dispatch plan for each `moe.dispatch` of the function's own body, in order.
  }];
  let parameters = (ins "int64_t":$min, "int64_t":$max,
                        DefaultValuedParameter<"int64_t", "0">:$chunk,
                        DefaultValuedParameter<"int64_t", "-1">:$workspace,
                        "ArrayAttr":$dispatches);
  let assemblyFormat = "`<` struct(params) `>`";
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    /// The most tokens that run at once.
    int64_t getMaxTokensAtOnce() const {
      return getChunk() > 0 ? std::min(getChunk(), getMax()) : getMax();
    }
  }];
}

#endif // MOE_DIALECT_MOE_IR_MOEPLANATTRS_TD
