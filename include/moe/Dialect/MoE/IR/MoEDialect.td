//===- MoEDialect.td - The moe dialect ---------------------*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_IR_MOEDIALECT_TD
#define MOE_DIALECT_MOE_IR_MOEDIALECT_TD

include "mlir/IR/OpBase.td"

def MoE_Dialect : Dialect {
  let name = "moe";
  let cppNamespace = "::mlir::moe";
  let summary = "Mixture-of-Experts layers as four composable operations";
  let description = [{
    A Mixture-of-Experts layer sends every token to a few of many experts and
    adds up their results. The dialect expresses it with four operations on
    plain tensors:

    ```
    logits ── moe.gate ──► weights, ids          which experts, how strongly
    x, ids ── moe.dispatch ──► rows, offsets, positions     rows by expert
    rows, offsets, parameters ── moe.expert ──► rows        a region per expert
    rows, positions, weights ── moe.combine ──► y           the weighted sum
    ```

    The symbols used throughout:

    | symbol | meaning |
    |---|---|
    | `T` | tokens; always dynamic in a compiled layer |
    | `E` | experts |
    | `K` | choices per token |
    | `H` | hidden size |
    | `R` | most grouped rows: `T·K`; `min(T·K, E·C)` with capacity `C` |

    Every operation guarantees:

    * Ties go to the lowest expert id (or token), NaN counts as −inf.
    * An id is in `[0, E)` or the sentinel −1, "no expert". Any other id reads
      and writes nothing; it is counted, and the runtime reports it.
    * Empty experts, `T = 0`, every token on one expert and `K = E` are
      ordinary cases.
    * Sums run in ascending `k`, in f32, rounded once: the same input gives the
      same bits for any `T` and any number of threads.
    * Element offsets are 64-bit; row indices are `i32`, so `T·K < 2³¹`.

    Attributes of a function that is a layer; any other name that begins with
    `moe.` is an error:

    | attribute | of | meaning |
    |---|---|---|
    | `moe.tokens` | the function | `[min, max]` of `T` |
    | `moe.activations` | the function | `"exact"` or `"int8"` rows of matmuls |
    | `moe.weight_format` | the function | `#moe.format` of the weights |
    | `moe.role` | an argument | `"input"` (the default) or `"weight"` |
    | `moe.name` | an argument or a result | what callers call it |
    | `moe.source` | a weight | the tensors of a checkpoint that it is made of |
    | `moe.source_format` | a weight | the format of their blocks, e.g. "q4_K" |
    | `moe.convert` | a weight | tensors of other float types are converted |
  }];
  let hasOperationAttrVerify = 1;
  let hasRegionArgAttrVerify = 1;
  let hasRegionResultAttrVerify = 1;
  let useDefaultAttributePrinterParser = 1;
  let dependentDialects = ["::mlir::arith::ArithDialect",
                           "::mlir::tensor::TensorDialect"];
}

#endif // MOE_DIALECT_MOE_IR_MOEDIALECT_TD
