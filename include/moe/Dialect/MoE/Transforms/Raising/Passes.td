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

#endif // MOE_DIALECT_MOE_TRANSFORMS_RAISING_PASSES_TD
