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
  let summary = "Turn expert regions into grouped matmuls";
  let description = [{
    A `moe.expert` whose region consists of matmuls of rows with parameters,
    elementwise operations and slices of columns becomes `moe.grouped_matmul`
    and `linalg.generic` on the rows of all experts. Any other region is left as
    it is, and a remark names the operation that is not supported.

    A tensor filled with a constant becomes a scalar operand of the elementwise
    operation that reads it, and a broadcast is read as the tensor it repeats.
  }];
  let statistics = [
    Statistic<"numGrouped", "experts-grouped",
              "experts turned into grouped matmuls">,
    Statistic<"numLeft", "experts-left", "experts that were left as they are">
  ];
  let dependentDialects = ["::mlir::linalg::LinalgDialect",
                           "::mlir::moe::MoEDialect",
                           "::mlir::tensor::TensorDialect"];
}

def MoEDenseToGrouped : Pass<"moe-dense-to-grouped"> {
  let summary = "Turn plain matmuls into grouped matmuls with one group";
  let description = [{
    Matmuls outside of experts (of the router, of shared experts) that
    accumulate into zeros in f32 become `moe.grouped_matmul` without offsets, so
    that they fuse and get kernels as those of experts do.
  }];
  let statistics = [
    Statistic<"numGrouped", "matmuls-grouped",
              "matmuls turned into grouped ones">
  ];
  let dependentDialects = ["::mlir::moe::MoEDialect",
                           "::mlir::tensor::TensorDialect"];
}

def MoEFuseScales : Pass<"moe-fuse-scales"> {
  let summary = "Fuse dequantization into grouped matmuls";
  let description = [{
    A `moe.grouped_matmul` of rows or weights that a `linalg.generic`
    dequantizes, `extf(quantized) · scale` with one scale for each block (its
    map divides the dimensions by the extents of a block), reads the quantized
    operand instead and takes the scales as operands of its own. A rounding of
    the dequantized values to 16 bits is dropped. A `moe.dequantize` of f8E4M3FN
    with one scale of 16 or 32 bits for each block is fused likewise if the
    rows have 16 bits and tensor cores can scale such blocks (multiples of 8 by
    128, or whole matrices), unless `keep-formats` leaves it to the packing of
    weights; others are decoded once.

    Weights are fused before rows: f8E4M3FN rows cannot be multiplied with
    16-bit weights.
  }];
  let options = [
    Option<"keepFormats", "keep-formats", "bool", "false",
           "leave moe.dequantize as it is">
  ];
  let statistics = [
    Statistic<"numFused", "scales-fused", "operands whose scales were fused">
  ];
}

def MoEFuseColumns : Pass<"moe-fuse-columns"> {
  let summary = "Turn slices of a matmul into matmuls of slices";
  let description = [{
    Where the weights of two matmuls are stored as one (gate and up,
    concatenated or interleaved), slices of the result become matmuls of slices
    of the weights, which can fuse with the operation that joins them.
  }];
  let statistics = [
    Statistic<"numFused", "slices-fused", "slices moved to the weights">
  ];
  let dependentDialects = ["::mlir::moe::MoEDialect",
                           "::mlir::tensor::TensorDialect"];
}

def MoEFuseEpilogue : Pass<"moe-fuse-epilogue"> {
  let summary = "Fuse elementwise operations into the epilogue of matmuls";
  let description = [{
    An elementwise operation on the result of a `moe.grouped_matmul` that has no
    other user becomes part of its epilogue. Matmuls of the same rows that it
    joins (gate and up) become one with several accumulators.
  }];
  let statistics = [
    Statistic<"numFused", "epilogues-fused", "elementwise operations fused">,
    Statistic<"numMerged", "matmuls-merged", "matmuls merged into another">
  ];
  let dependentDialects = ["::mlir::linalg::LinalgDialect",
                           "::mlir::moe::MoEDialect"];
}

def MoEFuseGather : Pass<"moe-fuse-gather"> {
  let summary = "Fuse the gather of dispatched rows into matmuls";
  let description = [{
    A `moe.dispatch` whose grouped rows only matmuls read becomes a `moe.route`,
    and the matmuls gather the rows of the tokens: grouped rows are never in
    memory.
  }];
  let statistics = [
    Statistic<"numFused", "gathers-fused", "matmuls that gather">
  ];
}

def MoEDecomposeCombine : Pass<"moe-decompose-combine"> {
  let summary = "Decompose moe.combine into its weights and a moe.gather_sum";
  let description = [{
    The weights are extended to f32 and, with `normalize`, divided by the sum of
    those that were kept, by operations of linalg. `moe.gather_sum` adds the
    rows with the final weights; kernels are made for that operation.
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
