//===- Passes.td - Fusion into grouped matmuls -------------*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_TRANSFORMS_FUSION_PASSES_TD
#define MOE_DIALECT_MOE_TRANSFORMS_FUSION_PASSES_TD

include "mlir/Pass/PassBase.td"

def MoEExpertToGrouped : Pass<"moe-expert-to-grouped"> {
  let summary = "Turn experts into products over the rows of all of them";
  let description = [{
    A `moe.expert` whose region is made of products of rows with parameters,
    elementwise operations and slices of columns becomes `moe.grouped_matmul` and
    `linalg.generic` on the rows of all experts. Any other region is left, and a
    remark says what it does that this pass does not know.

    A constant that a tensor is filled with is a number of the elementwise operation
    that reads it, and what repeats the elements of a tensor is read as that tensor.
  }];
  let statistics = [
    Statistic<"numGrouped", "experts-grouped", "experts that became products">,
    Statistic<"numLeft", "experts-left", "experts that were left as they are">
  ];
  let dependentDialects = ["::mlir::linalg::LinalgDialect",
                           "::mlir::moe::MoEDialect",
                           "::mlir::tensor::TensorDialect"];
}

def MoEDenseToGrouped : Pass<"moe-dense-to-grouped"> {
  let summary = "Turn ordinary products into grouped ones with one group";
  let description = [{
    The products outside of experts (of the router, of shared experts) that sum
    into zeros in f32 become `moe.grouped_matmul` without offsets, so that they
    fuse and run as the experts' do.
  }];
  let statistics = [
    Statistic<"numGrouped", "products-grouped", "products that became grouped">
  ];
  let dependentDialects = ["::mlir::moe::MoEDialect",
                           "::mlir::tensor::TensorDialect"];
}

def MoEFuseScales : Pass<"moe-fuse-scales"> {
  let summary = "Multiply quantized factors, and scale the sums";
  let description = [{
    A `moe.grouped_matmul` of rows or weights that a `linalg.generic` dequantizes,
    `extf(quantized) · scale` with one scale for each block (its map divides the
    dimensions by the extents of a block), reads the quantized factors instead and
    takes the scales as its own. Dequantized factors that were rounded to 16 bits
    are not rounded any more.

    Weights become quantized before rows do: rows of f8E4M3FN have no product with
    weights of 16 bits.
  }];
  let statistics = [
    Statistic<"numFused", "scales-fused", "operands whose scales were fused">
  ];
}

def MoEFuseColumns : Pass<"moe-fuse-columns"> {
  let summary = "Turn slices of a product into products of slices";
  let description = [{
    Where weights of two products are stored as one (gate and up, beside each
    other or interleaved), the product of all columns, sliced, becomes products of
    the sliced weights, which can be fused with what joins them.
  }];
  let statistics = [
    Statistic<"numFused", "slices-fused", "slices moved to the weights">
  ];
  let dependentDialects = ["::mlir::moe::MoEDialect",
                           "::mlir::tensor::TensorDialect"];
}

def MoEFuseEpilogue : Pass<"moe-fuse-epilogue"> {
  let summary = "Fuse elementwise operations into the products before them";
  let description = [{
    An elementwise operation on the result of a `moe.grouped_matmul` that nobody
    else reads becomes part of its epilogue; products of the same rows that it
    joins (gate and up) become one.
  }];
  let statistics = [
    Statistic<"numFused", "epilogues-fused", "elementwise operations fused">,
    Statistic<"numMerged", "products-merged", "products merged into another">
  ];
  let dependentDialects = ["::mlir::linalg::LinalgDialect",
                           "::mlir::moe::MoEDialect"];
}

def MoEFuseGather : Pass<"moe-fuse-gather"> {
  let summary = "Gather the rows of tokens where a product reads them";
  let description = [{
    A `moe.dispatch` whose grouped rows only products read becomes a `moe.route`,
    and the products gather: the grouped rows are never in memory.
  }];
  let statistics = [
    Statistic<"numFused", "gathers-fused", "products that gather">
  ];
}

def MoEDecomposeCombine : Pass<"moe-decompose-combine"> {
  let summary = "Decompose moe.combine into its weights and a moe.gather_sum";
  let description = [{
    The weights are extended to f32 and, with `normalize`, divided by the sum of
    those that were kept, by operations of linalg. `moe.gather_sum` adds the rows
    with the final weights; kernels are made for that operation.
  }];
  let statistics = [
    Statistic<"numDecomposed", "combines-decomposed", "combines decomposed">
  ];
  let dependentDialects = ["::mlir::arith::ArithDialect",
                           "::mlir::linalg::LinalgDialect",
                           "::mlir::math::MathDialect",
                           "::mlir::moe::MoEDialect",
                           "::mlir::scf::SCFDialect",
                           "::mlir::tensor::TensorDialect"];
}

#endif // MOE_DIALECT_MOE_TRANSFORMS_FUSION_PASSES_TD
