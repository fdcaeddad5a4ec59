//===- Passes.td - Expert parallelism ----------------------*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_TRANSFORMS_PARALLEL_PASSES_TD
#define MOE_DIALECT_MOE_TRANSFORMS_PARALLEL_PASSES_TD

include "mlir/Pass/PassBase.td"

def MoEParallelize : Pass<"moe-parallelize", "::mlir::ModuleOp"> {
  let summary = "Spread the experts of layers over ranks";
  let description = [{
    Rewrites each public function with `moe.parallel` for a rank that holds
    `slots` of the `E` experts and the tokens of its own. With `slots` or
    `ranks` the pass sets the attribute on functions with a `moe.dispatch`.

    Each `moe.dispatch` becomes `moe.place` and `moe.partition` of its ids, a
    `moe.exchange` that brings each token once to every rank with one of its
    experts, and a `moe.dispatch` of the received rows to the local slots. The
    rows of the experts go home by `moe.collect` and a second `moe.exchange`,
    one for each choice, so that `moe.combine` adds the same rows in the same
    order as one rank does: the bits do not depend on the ranks. The parameters
    of experts, and the arguments that they are computed from, have `slots`
    instead of `E` leading elements. The function has a further argument,
    `placement`, which says what slots each expert has.

    What depends on all tokens is decided for all of them: `moe.all_gather`
    brings the operands of such a gate (`expert_choice`, `score_axis(tokens)`)
    and the ids of a dispatch with a capacity to all ranks, `moe.keep` drops
    what one rank would drop, and `moe.own_rows` takes the tokens of this rank.
    With `scope = rank` each rank decides for its own tokens, and gathers none.

    With `reduce = per_rank`, the experts' rank adds the rows of each token by a
    `moe.combine`, whose weights leave with the tokens, and one row of a token
    comes home from each rank. There a `moe.combine` adds these.

    Of experts of several kinds (`moe.expert` on ranges of ids), those of the
    largest range are spread. Every rank runs the others for its own tokens.
  }];
  let options = [
    Option<"slots", "slots", "int64_t", "0",
           "experts that a rank holds at most; 0 for functions with "
           "moe.parallel alone">,
    Option<"ranks", "ranks", "int64_t", "0",
           "as many slots as this many ranks need to hold all experts">,
    Option<"replicas", "replicas", "int64_t", "1",
           "ranks that hold an expert at most">,
    Option<"reduce", "reduce", "::mlir::moe::RankReduction",
           "::mlir::moe::RankReduction::Ordered",
           "how the rows of a token are added that several ranks have",
           [{::llvm::cl::values(
             clEnumValN(::mlir::moe::RankReduction::Ordered, "ordered",
                        "at home, in the order of choices"),
             clEnumValN(::mlir::moe::RankReduction::PerRank, "per_rank",
                        "on each rank, then at home"))}]>,
    Option<"scope", "scope", "::mlir::moe::TokenScope",
           "::mlir::moe::TokenScope::Group",
           "whose tokens compete for the places of an expert",
           [{::llvm::cl::values(
             clEnumValN(::mlir::moe::TokenScope::Group, "group",
                        "those of all ranks"),
             clEnumValN(::mlir::moe::TokenScope::Rank, "rank",
                        "those of each rank"))}]>
  ];
  let statistics = [
    Statistic<"numDispatches", "dispatches", "dispatches spread over ranks">
  ];
  let dependentDialects = ["::mlir::moe::MoEDialect",
                           "::mlir::tensor::TensorDialect"];
}

def MoESplitAtExchanges : Pass<"moe-split-at-exchanges", "::mlir::ModuleOp"> {
  let summary = "Cut functions into parts between which ranks exchange rows";
  let description = [{
    Cuts each public function with `moe.exchange`, `moe.all_gather` or
    `moe.own_rows` at these operations into functions `NAME.part0`,
    `NAME.part1`, ... of what lies between them, and removes it. A part returns
    what later parts or exchanges read. It has one dynamic extent, as every
    exported function: the tokens of this rank, the rows that it received, or
    the tokens of all ranks. `NAME.beside1`, ... have work on the tokens of this
    rank that can run while an exchange does, such as a shared expert.

    `moe.programs` of the module says how the runtime runs the parts: `values`
    with their types, and `steps`, calls of parts and exchanges.

    Results whose `moe.role` is `saved` may have the rows of any part; a value
    has `saved = "after"` if the runtime keeps it after a call. The arguments of
    this role of a function with `moe.forward`, which stands after the function
    that it names, have the rows that were saved and `saved = "before"`.
  }];
  let statistics = [
    Statistic<"numParts", "parts", "functions that layers were cut into">
  ];
  let dependentDialects = ["::mlir::moe::MoEDialect",
                           "::mlir::tensor::TensorDialect"];
}

#endif // MOE_DIALECT_MOE_TRANSFORMS_PARALLEL_PASSES_TD
