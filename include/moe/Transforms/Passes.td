//===- Passes.td - Passes for any program ------------------*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_TRANSFORMS_PASSES_TD
#define MOE_TRANSFORMS_PASSES_TD

include "mlir/Pass/PassBase.td"

def MoEVerifyShapes : Pass<"moe-verify-shapes"> {
  let summary = "Refuse operations of linalg whose extents contradict each other";
  let description = [{
    The verifier of linalg compares extents only where all loops of an operation are
    static: it accepts a product of `tensor<?x17xf32>` and `tensor<32x8xf32>`. This
    pass compares every static extent with the others of its loop, and extents that
    are read by way of an expression (those of a convolution) with its largest
    value.
  }];
}

def MoEVerifyLowered : Pass<"moe-verify-lowered", "::mlir::ModuleOp"> {
  let summary = "Refuse operations of other dialects than those given";
  let description = [{
    The end of a pipeline: an operation of a dialect that is not among `dialects`,
    modules apart, is an error with its name and place.
  }];
  let options = [
    ListOption<"dialects", "dialects", "std::string",
               "the dialects that are lowered">
  ];
}

def MoETensorsToLinalg : Pass<"moe-tensors-to-linalg"> {
  let summary = "Express operations on tensors by linalg that has loops";
  let description = [{
    Softmax, Winograd transforms, `linalg.pack` and `linalg.unpack`, and
    `tensor.splat`, `tensor.concat`, `tensor.gather`, `tensor.scatter` and
    `tensor.bitcast` have no loops or no buffers of their own, and neither has an
    `arith.select` of tensors by one condition. They become operations that have.
    Indices of a gather are held to the extents of what they index; a scatter leaves
    out what goes outside.
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::linalg::LinalgDialect",
    "::mlir::math::MathDialect", "::mlir::scf::SCFDialect",
    "::mlir::tensor::TensorDialect"
  ];
}

def MoECarryInPlace : Pass<"moe-carry-in-place", "::mlir::ModuleOp"> {
  let summary = "Let loops carry tensors in one buffer";
  let description = [{
    Where an iteration of `scf.for` or `scf.while` computes the tensor that it
    passes to the next in another buffer than it came in, by the analysis of
    one-shot bufferization, a `bufferization.materialize_in_destination` at its end
    copies it there. A tensor whose extents may change from one iteration to
    another is an error.
  }];
  let statistics = [
    Statistic<"numCopied", "copied", "tensors that iterations copy">
  ];
  let dependentDialects = ["::mlir::bufferization::BufferizationDialect",
                           "::mlir::tensor::TensorDialect"];
}

def MemRefCopyToLinalg : Pass<"memref-copy-to-linalg"> {
  let summary = "Turn memref.copy into linalg";
  let description = [{
    A strided `memref.copy` lowers to a call into MLIR's runner library, which an
    artifact does not have. As `linalg.generic` it becomes loops.
  }];
  let dependentDialects = ["::mlir::linalg::LinalgDialect"];
}

def MoEExpandSmallFloats : Pass<"moe-expand-small-floats"> {
  let summary = "Convert to and from f8E4M3FN and f16 with integer arithmetic";
  let description = [{
    Conversions of scalars and vectors between `f8E4M3FN` and f64, f32, f16 or
    bf16 become operations on integers and f32 that every processor has: LLVM has
    no type of 8-bit floats. So do those of f16 with the option `f16`, for
    processors that would call a helper of the compiler's library. They are exact,
    or round to nearest even; what is too large becomes infinity or, in f8E4M3FN,
    which has none, NaN. f64 is rounded to f32 to odd first, so that it is in
    effect rounded once.
  }];
  let options = [
    Option<"f16", "f16", "bool", "false",
           "whether to expand the conversions of f16, too">
  ];
  let dependentDialects = ["::mlir::arith::ArithDialect",
                           "::mlir::math::MathDialect"];
}

def MoEPromoteSmallFloats : Pass<"moe-promote-small-floats"> {
  let summary = "Compute arithmetic of f16 and bf16 in f32";
  let description = [{
    Operations of arith, math and vector that compute with f16 or bf16 take
    their operands extended to f32, and their results are rounded to the type
    that they had. What only moves numbers (constants, `arith.select`,
    `arith.bitcast`, shuffles) stays. Unlike `arith-emulate-unsupported-floats`
    no conversion allows its neighbour to be left out, so each operation rounds.
  }];
  let dependentDialects = ["::mlir::arith::ArithDialect"];
}

def MoEMoveBF16AsI16 : Pass<"moe-move-bf16-as-i16", "::mlir::ModuleOp"> {
  let summary = "Give bf16 values of the LLVM dialect the type i16";
  let description = [{
    LLVM's code generators for processors without bf16 keep a value of that type
    as f32: to load it and to store it calls a helper that rounds. Where it is
    only moved (loaded, stored, selected, passed on), i16 holds the same bits on
    every processor. Operations that compute with bf16 (dot products of a
    processor that has them) get their operands by `llvm.bitcast`. Kernels inside
    `gpu.module` are left alone.
  }];
  let dependentDialects = ["::mlir::LLVM::LLVMDialect"];
}

#endif // MOE_TRANSFORMS_PASSES_TD
