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
    For `min` to `max` tokens, the kernel is `variant` with tiles of `rows`
    rows. With `ragged` the last tile of an expert has only the remaining rows,
    without padding. Any routing of T tokens needs at most `tiles` tiles with at
    most `padding` rows of padding; each bound is the minimum over the results
    of its map.
  }];
  let parameters = (ins "int64_t":$min, "int64_t":$max, "StringAttr":$variant,
                        "int64_t":$rows, "AffineMapAttr":$tiles,
                        "AffineMapAttr":$padding,
                        DefaultValuedParameter<"bool", "false">:$ragged);
  let assemblyFormat = "`<` struct(params) `>`";
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    /// Returns the multiple that the rows of an expert are padded to.
    int64_t getGranularity() const { return getRagged() ? 1 : getRows(); }
  }];
}

def MoE_DispatchPlanAttr : AttrDef<MoE_Dialect, "DispatchPlan"> {
  let mnemonic = "dispatch_plan";
  let summary = "the plan of one dispatch";
  let description = [{
    `rows` bounds the grouped rows and `fullest` the rows of one expert, for any
    routing of T tokens; each bound is the minimum over the results of its map.
    `overflow` says whether a capacity can be exceeded, and what happens then.
    `ranges` has the variants for all T, in ascending order.
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
    A plan for calls of `min` to `max` tokens. With `chunk` above 0 a call runs
    in chunks of that many tokens, and T in all bounds is the size of a chunk.
    `workspace` bounds the bytes that a call needs; −1 is unknown. `dispatches`
    has a plan for each `moe.dispatch` at the top level of the function, in
    order.
  }];
  let parameters = (ins "int64_t":$min, "int64_t":$max,
                        DefaultValuedParameter<"int64_t", "0">:$chunk,
                        DefaultValuedParameter<"int64_t", "-1">:$workspace,
                        "ArrayAttr":$dispatches);
  let assemblyFormat = "`<` struct(params) `>`";
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    /// Returns the largest number of tokens that run at once.
    int64_t getMaxTokensAtOnce() const {
      return getChunk() > 0 ? std::min(getChunk(), getMax()) : getMax();
    }
  }];
}

#endif // MOE_DIALECT_MOE_IR_MOEPLANATTRS_TD
