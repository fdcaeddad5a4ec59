//===- Passes.td - Raising of ordinary operations ----------*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_TRANSFORMS_RAISING_PASSES_TD
#define MOE_DIALECT_MOE_TRANSFORMS_RAISING_PASSES_TD

include "mlir/Pass/PassBase.td"

def MoERaiseGate : Pass<"moe-raise-gate"> {
  let summary = "Fold the operations around a top-k into one gate";
  let description = [{
    A router that comes from another framework is a top-k, `moe.gate` with
    `score(none)`, among ordinary operations of linalg. Each pattern folds one
    step of a gate into it, where the result is the same bit for bit:

    - a softmax, a sigmoid or √softplus of the logits before the selection;
    - a bias that is added for the selection only, with weights gathered from
      the scores without it;
    - the selection of the best groups of experts, with a mask on the others;
    - a softmax or a sigmoid of the selected logits;
    - the division of the weights by their sum, with an epsilon or a bound;
    - a constant factor on the weights;
    - conversions between float types, as `score_type`.

    What no pattern matches stays as it is, and the gate chooses from it.
  }];
  let statistics = [
    Statistic<"numSteps", "steps-folded", "steps folded into gates">
  ];
  let dependentDialects = ["::mlir::moe::MoEDialect"];
}

def MoERaiseGrouped : Pass<"moe-raise-grouped"> {
  let summary = "Turn grouped products of other dialects into ours";
  let description = [{
    Operations of other dialects that multiply the rows of each group with the
    weights of the group become `moe.grouped_matmul`. They are matched by name
    and may be registered or not; their attributes are read as text. Where the
    dialect is not registered they are in the generic form, and the context
    allows unregistered dialects.

    | operation | groups | rows of no group |
    | --- | --- | --- |
    | `chlo.ragged_dot`, `stablehlo.composite "chlo.ragged_dot"` | sizes | 0 |
    | `stablehlo.dot_general` of all rows with all weights, masked | ends | 0 |
    | a sum of such products with slices of the weights | sizes | 0 |
    | `torch.operator "torch.aten._grouped_mm"` | ends | undefined |
    | `torch.operator "torch.transformers.grouped_mm_fallback"` | ends | 0 |
    | `torch.operator "torch.aten._scaled_grouped_mm[_v2]"` | ends | undefined |
    | batched products with gathered weights, StableHLO or linalg | ids | – |

    Products that are ragged along the contraction, the gradients of weights,
    become a loop over the groups with a matmul of linalg; a group without rows
    gives zeros. Sizes are not negative, and ends do not decrease; both may
    exceed the rows. The masked form is that of JAX for CPUs, which sums over
    the groups. A transpose of the weights is folded into their layout.

    Each batch of a `chlo.ragged_dot` with batching dimensions becomes a product
    of its own; where these are ragged, an ordinary batched matmul. Rows whose
    weights were gathered by an id of each row are grouped by `moe.route`, and
    return to their places by `moe.combine`. Scales of 8-bit rows and columns
    are factors in the epilogue.

    A grouped product without ends is a batched matmul. Where the ends are those
    of columns, it is that of the transposes.

    What no pattern matches stays as it is, and a remark of `moe-raise` has the
    reason where it is one of these operations: integer types, a bias, scales of
    blocks. Modules without any of them are not changed.
  }];
  let statistics = [
    Statistic<"numRaised", "products-raised", "grouped products raised">
  ];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::linalg::LinalgDialect",
    "::mlir::moe::MoEDialect", "::mlir::scf::SCFDialect",
    "::mlir::tensor::TensorDialect"];
}

def MoERaiseRouting : Pass<"moe-raise-routing"> {
  let summary = "Turn choices of other dialects into dispatches";
  let description = [{
    Programs sort the choices of their tokens by expert and gather rows in that
    order. In StableHLO, matched by name as in `moe-raise-grouped`:

    | operation | becomes |
    | --- | --- |
    | `chlo.top_k`, and its composite | `moe.gate` with `score(none)` |
    | an argmax that experts use, a reduction of two | the same of one choice |
    | a softmax of the last dimension, spelt out | `linalg.softmax` |
    | a slice of columns of any number of rows | `tensor.extract_slice` |
    | a gather of the tokens' rows by the stably sorted ids | `moe.dispatch` |
    | the counts of the ids, by a scatter or one-hot sum | its offsets |
    | the inverse permutation, by a sort or scatter | its positions |
    | what else uses the sorted ids or their order | those of a `moe.route` |
    | rows gathered by the inverse, weighted and summed | `moe.combine` |
    | a scatter that adds rows at their tokens | `moe.combine` |
    | sorted rows times `w[ids]` of the sorted ids | `moe.grouped_matmul` |

    Rows are raised only where the ids come from a gate, so that each is one of
    an expert, and where the extents are known to be the same: then offsets,
    rows and positions are those of the program exactly. Bounds that JAX checks
    and that hold are removed. Operations of StableHLO without an effect that
    nothing uses any more are erased. Sums are in f32 and rounded once.

    Programs without a sort compute columns of each token and expert, of each
    expert and slot of a capacity, or of each choice with weights gathered for
    it, and add them up by weights. Masks and weights are followed by what their
    dimensions are: tokens, choices, experts, slots. From the sum at the end the
    products, activations and biases follow, back to the rows of the tokens:

    | the sum has | becomes |
    | --- | --- |
    | weights `[T, E]`, 0 but for the choices | `moe.dispatch`, `moe.combine` |
    | places `[T, E, C]` by a running sum | `moe.dispatch` with `capacity` |
    | places `[G, S, E, C]` in groups of tokens | the same, of E · G parts |
    | rows that were weighed before the experts | `moe.dispatch` `scale_rows` |
    | weights `[T, K]`, experts by `w[ids]` | `moe.dispatch`, `moe.combine` |
    | rows scattered to `[E, C, H]`, gathered back | the same with `capacity` |
    | a term for each expert, of the same form | `moe.dispatch`, `moe.combine` |
    | a `stablehlo.while` over the experts | `moe.dispatch`, `moe.combine` |

    Tokens may be a batch `[B, S]` of static extents: the scores are computed of
    rows. Weights that are scores of all experts under a mask, over their sum,
    are those of the choices.

    The products between them become `moe.grouped_matmul`, a bias of each expert
    is added in its epilogue. Of what a token did not choose nothing is
    computed: a NaN there, times 0, does not reach the result.

    Programs of torch-mlir are read as these operations, by name too: `topk`,
    `max.dim`, `sort`, `argsort`, `one_hot`, `histc`, `bincount`, `cumsum`,
    `index`, `index_select`, `gather`, `scatter`, `index_put`, `index_add`,
    `bmm`, `einsum`, views, elementwise operations and others, as
    `torch.aten.topk` or `"torch.operator"` with this name. So are programs of
    linalg, if a `moe.gate` is there. What is raised replaces values of the
    program; all else stays the operation that it is. PyTorch's `sort` may order
    the choices of one expert otherwise than a dispatch, whose order all of its
    uses have then.

    Blocks without a top-k or grouped product are not changed. Functions that
    are called have to be inlined before. `moe-raise-grouped`
    comes after: it takes offsets from the dispatch, and leaves out the zeros in
    rows of no expert where there are none.
  }];
  let statistics = [
    Statistic<"numGates", "gates-raised", "top-k raised to gates">,
    Statistic<"numDispatches", "dispatches-raised", "dispatches raised">,
    Statistic<"numCombinations", "combinations-raised", "combinations raised">,
    Statistic<"numMixtures", "mixtures-raised", "layers without a sort raised">
  ];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::linalg::LinalgDialect",
    "::mlir::moe::MoEDialect", "::mlir::tensor::TensorDialect"];
}

#endif // MOE_DIALECT_MOE_TRANSFORMS_RAISING_PASSES_TD
