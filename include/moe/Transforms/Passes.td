//===- Passes.td - Passes for any program ------------------*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_TRANSFORMS_PASSES_TD
#define MOE_TRANSFORMS_PASSES_TD

include "mlir/Pass/PassBase.td"

def MoERaiseOperations : Pass<"moe-raise-operations"> {
  let summary = "Replace operations of other dialects that say how";
  let description = [{
    An operation that implements `RaisableOpInterface`, as the operations of a
    compiler that embeds this project may, is replaced by the operations that
    compute the same. If it has none, it stays, and a remark has its reason.
  }];
  let statistics = [
    Statistic<"numRaised", "operations-raised", "operations replaced">
  ];
  let dependentDialects = ["::mlir::arith::ArithDialect",
                           "::mlir::linalg::LinalgDialect",
                           "::mlir::moe::MoEDialect",
                           "::mlir::tensor::TensorDialect"];
}

def MoEVerifyShapes : Pass<"moe-verify-shapes"> {
  let summary = "Verify that the extents of linalg operations agree";
  let description = [{
    The verifier of linalg compares extents only if all loops of an operation
    are static: it accepts a matmul of `tensor<?x17xf32>` and
    `tensor<32x8xf32>`. This pass compares every static extent with the others
    of its loop, and an extent that is indexed by an expression (as in a
    convolution) with the expression's largest value.
  }];
}

def MoEVerifyLowered : Pass<"moe-verify-lowered", "::mlir::ModuleOp"> {
  let summary = "Verify that no other dialects are left";
  let description = [{
    Ends a pipeline: an operation of a dialect that is not among `dialects`,
    other than a module, is an error that names it.
  }];
  let options = [
    ListOption<"dialects", "dialects", "std::string",
               "the dialects that are lowered">
  ];
}

def MoETensorsToLinalg : Pass<"moe-tensors-to-linalg"> {
  let summary = "Lower tensor operations without loops to linalg";
  let description = [{
    Softmax, Winograd transforms, `linalg.pack` and `linalg.unpack`, and
    `tensor.splat`, `tensor.concat`, `tensor.gather`, `tensor.scatter` and
    `tensor.bitcast` have no lowering to loops or no bufferization, and neither
    has an `arith.select` of tensors by a scalar condition. They become linalg
    operations that have both. Indices of a gather are clamped to the extents of
    the source; a scatter skips indices that are out of range.
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::linalg::LinalgDialect",
    "::mlir::math::MathDialect", "::mlir::scf::SCFDialect",
    "::mlir::tensor::TensorDialect"
  ];
}

def MoECarryInPlace : Pass<"moe-carry-in-place", "::mlir::ModuleOp"> {
  let summary = "Bufferize loop-carried tensors in place";
  let description = [{
    If the analysis of one-shot bufferization finds that `scf.for` or
    `scf.while` yields a tensor in another buffer than that of its iteration
    argument, a `bufferization.materialize_in_destination` at the end of the
    body copies it there. A tensor whose extents may change between iterations
    is an error.
  }];
  let statistics = [
    Statistic<"numCopied", "copied", "tensors that iterations copy">
  ];
  let dependentDialects = ["::mlir::bufferization::BufferizationDialect",
                           "::mlir::tensor::TensorDialect"];
}

def MemRefCopyToLinalg : Pass<"memref-copy-to-linalg"> {
  let summary = "Lower memref.copy to linalg";
  let description = [{
    A strided `memref.copy` lowers to a call into MLIR's runner library, which
    an artifact does not have. As `linalg.generic` it becomes loops.
  }];
  let dependentDialects = ["::mlir::linalg::LinalgDialect"];
}

def MoEExpandSmallFloats : Pass<"moe-expand-small-floats"> {
  let summary = "Convert to and from f8 and f16 with integer arithmetic";
  let description = [{
    Conversions of scalars and vectors between `f8E4M3FN` or `f8E5M2` and f64,
    f32, f16 or bf16 become operations on integers and f32 that every processor
    has: LLVM has no type of 8-bit floats. The option `f16` expands those of
    f16, too, for processors that would call a helper of the compiler's library.
    Conversions are exact or round to nearest even; overflow becomes infinity
    or, in f8E4M3FN, NaN. f64 is first rounded to f32 with round-to-odd, which
    avoids double rounding.
  }];
  let options = [
    Option<"f16", "f16", "bool", "false",
           "also expand conversions of f16">
  ];
  let dependentDialects = ["::mlir::arith::ArithDialect",
                           "::mlir::math::MathDialect"];
}

def MoEPromoteSmallFloats : Pass<"moe-promote-small-floats"> {
  let summary = "Compute arithmetic of f16 and bf16 in f32";
  let description = [{
    Operations of arith, math and vector that compute with f16 or bf16 take
    their operands extended to f32, and their results are rounded to the type
    that they had. Operations that only move values (constants, `arith.select`,
    `arith.bitcast`, shuffles) stay. Unlike in
    `arith-emulate-unsupported-floats` no pair of conversions may be folded
    away, so every operation rounds.
  }];
  let dependentDialects = ["::mlir::arith::ArithDialect"];
}

def MoEMoveBF16AsI16 : Pass<"moe-move-bf16-as-i16", "::mlir::ModuleOp"> {
  let summary = "Give bf16 values of the LLVM dialect the type i16";
  let description = [{
    On processors without bf16, LLVM keeps such a value as f32 and calls a
    rounding helper to load and store it. A value that is only moved (loaded,
    stored, selected, passed on) has the same bits as i16. Operations that
    compute with bf16 (dot products on processors that have them) get their
    operands by `llvm.bitcast`. Kernels inside `gpu.module` stay as they are.
  }];
  let dependentDialects = ["::mlir::LLVM::LLVMDialect"];
}

def MoEFuseElementwise : Pass<"moe-fuse-elementwise"> {
  let summary = "Make one operation of a chain of elementwise ones";
  let description = [{
    Fuses elementwise operations of linalg where the result of one has no other
    use, as `linalg-fuse-elementwise-ops` does. That pass also fuses operations
    that read their destination, such as a product that adds to zeros, and in
    MLIR 22.1 computes something else then; here neither operation reads its
    destination or has a reduction.
  }];
  let dependentDialects = ["::mlir::linalg::LinalgDialect"];
}

#endif // MOE_TRANSFORMS_PASSES_TD
