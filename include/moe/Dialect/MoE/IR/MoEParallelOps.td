//===- MoEParallelOps.td - Expert parallelism --------------*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_IR_MOEPARALLELOPS_TD
#define MOE_DIALECT_MOE_IR_MOEPARALLELOPS_TD

include "moe/Dialect/MoE/IR/MoEDialect.td"
include "moe/Dialect/MoE/IR/MoEAttrs.td"
include "mlir/Interfaces/InferTypeOpInterface.td"
include "mlir/Interfaces/SideEffectInterfaces.td"

//===----------------------------------------------------------------------===//
// #moe.parallel
//===----------------------------------------------------------------------===//

def MoE_RankReduction : MoE_I32Enum<"RankReduction",
    "how the rows of a token are added that several ranks have", [
  I32EnumAttrCase<"Ordered", 0, "ordered">,
  I32EnumAttrCase<"PerRank", 1, "per_rank">
]>;
def MoE_RankReductionAttr : MoE_EnumAttr<MoE_RankReduction, "rank_reduction">;

def MoE_TokenScope : MoE_I32Enum<"TokenScope",
    "whose tokens compete for the places of an expert", [
  I32EnumAttrCase<"Group", 0, "group">,
  I32EnumAttrCase<"Rank", 1, "rank">
]>;
def MoE_TokenScopeAttr : MoE_EnumAttr<MoE_TokenScope, "token_scope">;

def MoE_ParallelAttr : AttrDef<MoE_Dialect, "Parallel"> {
  let mnemonic = "parallel";
  let summary = "how the experts of a layer are spread over ranks";
  let description = [{
    Each rank holds up to `slots` experts, and an expert is on at most
    `replicas` ranks. Which experts those are is data, a table `[N, slots]` of
    expert ids for `N` ranks, so that one artifact serves every `N` with
    `N · slots ≥ E`, up to `E` ranks.

    `reduce`: with `ordered`, one row comes home for each choice, and the result
    has the bits of one rank. With `per_rank`, a rank adds up the weighted rows
    of its choices of a token, in f32 over ascending `k`, and rounds the sum to
    the type of the rows; one row of a token comes home from a rank, and home
    adds these in the order of their first choices, in f32, rounded once. Fewer
    bytes travel where a token has several choices on a rank; the result is
    deterministic, but depends on the placement. It differs from that of
    `ordered` by at most `u · Σ_r |s_r| + 2 · K · 2^-24 · Σ_k |w_k · y_k|`,
    then rounded, with the sums `s_r` of the ranks and the unit roundoff `u` of
    the type of the rows (2^-24 for f32, 2^-11 for f16, 2^-8 for bf16).

    `scope`: the tokens that compete for the places of an expert, where there is
    a capacity or experts choose tokens, and that a softmax over tokens runs
    over. With `group` they are those of all ranks, as one rank would have them;
    with `rank` each rank decides for its own tokens alone, and an expert takes
    as many tokens from each rank as its capacity for them is.
  }];
  let parameters = (ins "int64_t":$slots,
      DefaultValuedParameter<"int64_t", "1">:$replicas,
      DefaultValuedParameter<"RankReduction",
                             "RankReduction::Ordered">:$reduce,
      DefaultValuedParameter<"TokenScope", "TokenScope::Group">:$scope);
  let assemblyFormat = "`<` struct(params) `>`";
  let genVerifyDecl = 1;
}

//===----------------------------------------------------------------------===//
// moe.keep
//===----------------------------------------------------------------------===//

def MoE_KeepOp : MoE_Op<"keep", [
    Pure, DeclareOpInterfaceMethods<InferTypeOpInterface>,
    DeclareOpInterfaceMethods<ReifyRankedShapedTypeOpInterface,
                              ["reifyResultShapes"]>,
    DeclareOpInterfaceMethods<OpAsmOpInterface, ["getAsmResultNames"]>]> {
  let summary = "drop the choices beyond a capacity";
  let description = [{
    Returns `ids` `[T, K]` with −1 for the choices that a `moe.dispatch` with
    the same attributes would drop. Before tokens leave their rank, this decides
    for the tokens of all ranks as one rank would.

    ```mlir
    func.func @first_come(%ids: tensor<?x2xi32>) -> tensor<?x2xi32> {
      %kept = moe.keep %ids experts(8)
        capacity(<factor = 1.25, rounding = ceil>) : tensor<?x2xi32>
      return %kept : tensor<?x2xi32>
    }
    ```
  }];
  let arguments = (ins
    MoE_Ids:$ids, Optional<MoE_Matrix>:$weights,
    I64Attr:$num_experts, MoE_CapacityAttr:$capacity,
    DefaultValuedAttr<MoE_PriorityAttr, "Priority::Position">:$priority,
    DefaultValuedAttr<MoE_OverflowAttr, "Overflow::Drop">:$overflow,
    OptionalAttr<I64Attr>:$choices);
  let results = (outs MoE_Ids:$kept);
  let assemblyFormat = [{
    $ids (`weights` `(` $weights^ `:` type($weights) `)`)?
    `experts` `(` $num_experts `)` `capacity` `(` $capacity `)`
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
// moe.place
//===----------------------------------------------------------------------===//

def MoE_PlaceOp : MoE_Op<"place", [
    Pure, DeclareOpInterfaceMethods<InferTypeOpInterface>,
    DeclareOpInterfaceMethods<ReifyRankedShapedTypeOpInterface,
                              ["reifyResultShapes"]>,
    DeclareOpInterfaceMethods<OpAsmOpInterface, ["getAsmResultNames"]>]> {
  let summary = "map experts to slots of ranks";
  let description = [{
    Returns for each choice `ids[t, k]` the slot `rank · slots + local slot`
    that its expert is in, −1 for a choice without an expert. Row `e` of
    `placement` `[E, R]` lists the slots of expert `e`, −1 behind the last one;
    of `n` slots, token `t` takes number `t mod n`. An expert without a slot is
    −1.

    ```mlir
    func.func @place(%ids: tensor<?x2xi32>, %placement: tensor<8x1xi32>)
        -> tensor<?x2xi32> {
      %slots = moe.place %ids, %placement : tensor<?x2xi32>, tensor<8x1xi32>
      return %slots : tensor<?x2xi32>
    }
    ```
  }];
  let arguments = (ins MoE_Ids:$ids, MoE_Ids:$placement);
  let results = (outs MoE_Ids:$slots);
  let assemblyFormat = [{
    $ids `,` $placement attr-dict `:` type($ids) `,` type($placement)
  }];
  let hasVerifier = 1;
}

//===----------------------------------------------------------------------===//
// moe.partition
//===----------------------------------------------------------------------===//

def MoE_PartitionOp : MoE_Op<"partition", [
    Pure, DeclareOpInterfaceMethods<InferTypeOpInterface>,
    DeclareOpInterfaceMethods<ReifyRankedShapedTypeOpInterface,
                              ["reifyResultShapes"]>,
    DeclareOpInterfaceMethods<OpAsmOpInterface, ["getAsmResultNames"]>]> {
  let summary = "list the tokens that go to each rank, once a rank";
  let description = [{
    From the slots `[T, K]` of `moe.place`, with `slots` a rank and at most
    `ranks` ranks:

    * `tokens` `[T, K]`, read as a list: the tokens with a choice on rank 0, in
      ascending order, then those of rank 1, ...; −1 behind the last one.
    * `local` `[T, K, K]`, read as a list of rows: for each of `tokens` the
      slots of its choices on that rank, −1 for its other choices.
    * `send` `[ranks]`: how many of `tokens` go to each rank.
    * `home` `[T, K]`: where the row of a choice will be among the rows that
      come home: by rank, then by token, then by choice. −1 without a slot.
    * `returns` `[ranks]`: how many rows come home from each rank.

    ```mlir
    func.func @partition(%slots: tensor<?x2xi32>) -> tensor<?x2xi32> {
      %tokens, %local, %send, %home, %returns =
        moe.partition %slots slots(2) ranks(8) : tensor<?x2xi32>
      return %home : tensor<?x2xi32>
    }
    ```
  }];
  let arguments = (ins MoE_Ids:$slots, I64Attr:$num_slots, I64Attr:$num_ranks);
  let results = (outs MoE_Ids:$tokens, 3DTensorOf<[I32]>:$local,
                      MoE_Offsets:$send, MoE_Ids:$home, MoE_Offsets:$returns);
  let assemblyFormat = [{
    $slots `slots` `(` $num_slots `)` `ranks` `(` $num_ranks `)` attr-dict
    `:` type($slots)
  }];
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    int64_t getTopK() { return getSlots().getType().getDimSize(1); }
  }];
}

//===----------------------------------------------------------------------===//
// moe.collect
//===----------------------------------------------------------------------===//

def MoE_CollectOp : MoE_Op<"collect", [
    Pure, DeclareOpInterfaceMethods<InferTypeOpInterface>,
    DeclareOpInterfaceMethods<ReifyRankedShapedTypeOpInterface,
                              ["reifyResultShapes"]>,
    DeclareOpInterfaceMethods<OpAsmOpInterface, ["getAsmResultNames"]>]> {
  let summary = "list the rows that go home to each rank";
  let description = [{
    `positions` `[R, K]` are the rows of the choices of `R` received tokens, as
    `moe.dispatch` returns them; `received` `[ranks]` says how many of the
    tokens came from each rank. Returns

    * `order` `[R, K]`, read as a list: the positions that are not −1, by token,
      then by choice, −1 behind the last one.
    * `returns` `[ranks]`: how many of them are for each rank.

    ```mlir
    func.func @collect(%positions: tensor<?x2xi32>, %received: tensor<8xi32>)
        -> (tensor<?x2xi32>, tensor<8xi32>) {
      %order, %returns = moe.collect %positions, %received
        : tensor<?x2xi32>, tensor<8xi32>
      return %order, %returns : tensor<?x2xi32>, tensor<8xi32>
    }
    ```
  }];
  let arguments = (ins MoE_Ids:$positions, MoE_Offsets:$received);
  let results = (outs MoE_Ids:$order, MoE_Offsets:$returns);
  let assemblyFormat = [{
    $positions `,` $received attr-dict `:` type($positions) `,` type($received)
  }];
}

//===----------------------------------------------------------------------===//
// moe.exchange
//===----------------------------------------------------------------------===//

def MoE_ExchangeOp : MoE_Op<"exchange", [
    AttrSizedOperandSegments, AttrSizedResultSegments,
    MemoryEffects<[MemRead, MemWrite]>]> {
  let summary = "exchange rows with the other ranks";
  let description = [{
    Sends `send[r]` rows of each source to rank `r`, those for rank 0 first, and
    returns the rows that the ranks sent to this one, by rank. A row is the last
    dimension of a source; the dimensions before it are read as a list. The
    first source sends its rows in the order of `gather`, the others as they
    are. `received` `[ranks]` has the number of rows of each rank. With `expect`
    it is known beforehand and not exchanged.

    All ranks of a group run the same exchanges in the same order: the operation
    has an effect on the group, so that nothing removes, duplicates or reorders
    it. `moe-split-at-exchanges` cuts functions here; the runtime runs it.

    ```mlir
    func.func @to_experts(%x: tensor<?x64xf32>, %tokens: tensor<?x2xi32>,
                          %local: tensor<?x2x2xi32>, %send: tensor<8xi32>)
        -> tensor<?x64xf32> {
      %rows, %ids, %received = moe.exchange %x, %local
        gather(%tokens : tensor<?x2xi32>) send(%send : tensor<8xi32>)
        : tensor<?x64xf32>, tensor<?x2x2xi32>
        -> tensor<?x64xf32>, tensor<?x2xi32> received tensor<8xi32>
      return %rows : tensor<?x64xf32>
    }
    ```
  }];
  let arguments = (ins
    Variadic<AnyRankedTensor>:$sources, Optional<MoE_Ids>:$gather,
    MoE_Offsets:$send, Optional<MoE_Offsets>:$expect);
  let results = (outs Variadic<AnyRankedTensor>:$rows,
                      Optional<MoE_Offsets>:$received);
  let assemblyFormat = [{
    $sources (`gather` `(` $gather^ `:` type($gather) `)`)?
    `send` `(` $send `:` type($send) `)`
    (`expect` `(` $expect^ `:` type($expect) `)`)? attr-dict
    `:` type($sources) `->` type($rows) (`received` type($received)^)?
  }];
  let hasVerifier = 1;
}

//===----------------------------------------------------------------------===//
// moe.all_gather, moe.own_rows
//===----------------------------------------------------------------------===//

def MoE_AllGatherOp : MoE_Op<"all_gather", [
    AllTypesMatch<["source", "all"]>, MemoryEffects<[MemRead, MemWrite]>]> {
  let summary = "gather the rows of all ranks";
  let description = [{
    Returns the rows of `source` of all ranks, in the order of the ranks. Like
    `moe.exchange` it has an effect on the group.

    ```mlir
    func.func @of_all_ranks(%ids: tensor<?x2xi32>) -> tensor<?x2xi32> {
      %all = moe.all_gather %ids : tensor<?x2xi32>
      return %all : tensor<?x2xi32>
    }
    ```
  }];
  let arguments = (ins AnyRankedTensor:$source);
  let results = (outs AnyRankedTensor:$all);
  let assemblyFormat = "$source attr-dict `:` type($source)";
  let hasVerifier = 1;
}

def MoE_OwnRowsOp : MoE_Op<"own_rows", [
    AllTypesMatch<["all", "own"]>, MemoryEffects<[MemRead, MemWrite]>]> {
  let summary = "take the rows of this rank";
  let description = [{
    Returns the rows of this rank among those of all ranks, which are in the
    order of `moe.all_gather`.

    ```mlir
    func.func @of_this_rank(%all: tensor<?x2xi32>) -> tensor<?x2xi32> {
      %own = moe.own_rows %all : tensor<?x2xi32>
      return %own : tensor<?x2xi32>
    }
    ```
  }];
  let arguments = (ins AnyRankedTensor:$all);
  let results = (outs AnyRankedTensor:$own);
  let assemblyFormat = "$all attr-dict `:` type($all)";
  let hasVerifier = 1;
}

#endif // MOE_DIALECT_MOE_IR_MOEPARALLELOPS_TD
