//===- Passes.td - Training --------------------------------*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_TRANSFORMS_TRAINING_PASSES_TD
#define MOE_DIALECT_MOE_TRANSFORMS_TRAINING_PASSES_TD

include "mlir/Pass/PassBase.td"

def MoEDifferentiate : Pass<"moe-differentiate", "::mlir::ModuleOp"> {
  let summary = "Add the backward function of each layer";
  let description = [{
    For each public function `NAME` with a `moe` operation, adds `NAME_backward`
    (reverse mode). It takes the arguments of `NAME` that it needs, the tensors
    that `NAME` saves, and the gradient of each float result; it returns the
    gradient of each float argument, in the type of the argument. `NAME` returns
    what it saves after its own results.

    The function consists of the operations that `moe-fuse` leaves. Saved are
    the ids and weights of `moe.gate`, its logits, the results of `moe.route`,
    and the accumulators of a `moe.grouped_matmul` whose epilogue is not linear,
    in the type of its rows: nothing has a row of the hidden size for each
    choice. Other values are computed again. Tensors with a row for each choice
    are saved as `[T, K, ...]`, since the caller allocates for T tokens. With
    `recompute` only the gate and the route are saved, and the backward function
    computes these accumulators again.

    - `moe.gather_sum` of the last matmul: the gradient by the weights is the
      dot product of the activation and of its gradient before the weight, over
      the intermediate size. The outputs of the experts are neither saved nor
      computed again.
    - `moe.grouped_matmul`: one with transposed weights for the rows, whose
      epilogue is the derivative of the epilogue before it, and
      `moe.grouped_contract` for the weights. An expert without rows has zeros.
    - `moe.gate`: `moe.gate_gradient`.
    - `moe.exchange` of the rows of a `moe.partition`: the gradient of the
      output goes to the ranks that the tokens went to, with the weights of
      their choices; home come the rows of the gradient of the input and the dot
      products for the weights, one for each choice. The partition is saved.
    - `linalg.generic` and regions: rules of arith and math, in f32. The
      gradient of a maximum or minimum goes to the operand that is strictly the
      largest or smallest, and to the last one otherwise, so that ReLU has 0 at
      0.

    The choice of experts, integers and comparisons are constant. Any other
    operation between an argument and a result is an error. With `arguments`
    only those of these names (`moe.name`) or numbers have a gradient, and what
    only others need is neither saved nor computed.

    Of arguments of a static shape, gradients of `f32-gradients` are f32, and
    are rounded nowhere; those of `accumulate` are added to what the memory of
    the result has, in place: the backward function takes that as an argument
    `ARGUMENT_gradient_sum` with the attribute `moe.accumulates`, which
    `moe-export` makes one with the result. Both take names or numbers, or
    `all`.

    The backward function of a layer that `moe-parallelize` spread over ranks
    has `moe.forward`, the symbol of the layer, and the saved tensors have the
    `moe.role` `saved`: each rank keeps its own between the two calls.
  }];
  let options = [
    ListOption<"arguments", "arguments", "std::string",
               "arguments with a gradient, by name or number; none for all "
               "tensors of floats">,
    ListOption<"f32Gradients", "f32-gradients", "std::string",
               "arguments whose gradient is f32, by name or number, or all">,
    ListOption<"accumulate", "accumulate", "std::string",
               "arguments whose gradient is added to what its result has, by "
               "name or number, or all">,
    Option<"recompute", "recompute", "bool", "false",
           "compute products of grouped rows again instead of saving their "
           "accumulators">
  ];
  let statistics = [
    Statistic<"numFunctions", "functions", "backward functions added">
  ];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::linalg::LinalgDialect",
    "::mlir::math::MathDialect", "::mlir::moe::MoEDialect",
    "::mlir::scf::SCFDialect", "::mlir::tensor::TensorDialect"];
}

#endif // MOE_DIALECT_MOE_TRANSFORMS_TRAINING_PASSES_TD
