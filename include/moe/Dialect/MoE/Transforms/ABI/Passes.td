//===- Passes.td - Entry points of an artifact -------------*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_TRANSFORMS_ABI_PASSES_TD
#define MOE_DIALECT_MOE_TRANSFORMS_ABI_PASSES_TD

include "mlir/Pass/PassBase.td"

def MoEExport : Pass<"moe-export", "::mlir::ModuleOp"> {
  let summary = "Give functions the calling convention of the runtime";
  let description = [{
    Turns every public function into an entry of an artifact:

    * Each tensor result becomes a memref argument that the caller provides and
      the function writes. The attributes `moe.role` and `moe.name` describe
      each argument (`input` unless marked `weight`).
    * For each `moe.dispatch` the function reports the offsets and two counters:
      valid choices and invalid ids. The counters are omitted if a `moe.gate`
      chose the ids and none can be dropped.
    * `moe.tokens = [min, max]` is checked, or added with the largest range in
      which row indices fit 32 bits.

    Every dynamic extent of an exported function is the number of tokens, `T`;
    another dynamic extent of a result is an error. If an operation has both `T`
    rows and a static number of rows, `moe.tokens` becomes that number. The
    signature is recorded in the attribute `moe.signature`, from which the
    metadata of an artifact is made.
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect",
    "::mlir::bufferization::BufferizationDialect",
    "::mlir::linalg::LinalgDialect", "::mlir::memref::MemRefDialect",
    "::mlir::moe::MoEDialect", "::mlir::tensor::TensorDialect"
  ];
}

def MoEDecodeWeights : Pass<"moe-decode-weights", "::mlir::ModuleOp"> {
  let summary = "Decode quantised weights once, when a layer is created";
  let description = [{
    Where no kernel reads the format of quantised weights, moves their
    `moe.dequantize` into a function `<name>__prepare<n>` that decodes the
    weights of any number of experts and that the runtime calls when a layer is
    created. The exported function takes the decoded weights as an argument. A
    remark reports their size, and weights that the function computes, which are
    decoded in every call.
  }];
  let statistics = [
    Statistic<"numDecoded", "weights-decoded", "weights decoded once">
  ];
  let dependentDialects = ["::mlir::func::FuncDialect",
                           "::mlir::moe::MoEDialect",
                           "::mlir::tensor::TensorDialect"];
}

def MoEPlaceResults : Pass<"moe-place-results"> {
  let summary = "Compute results in their destination buffers";
  let description = [{
    If a result was computed into a `tensor.empty`, directly or through a chain
    of destination-style operations, its destination buffer replaces the empty
    tensor, which saves an allocation and a copy. The buffer must have no other
    use.
  }];
  let statistics = [
    Statistic<"numPlaced", "results-placed", "results computed in place">
  ];
  let dependentDialects = ["::mlir::bufferization::BufferizationDialect"];
}

def MoEEntryPoints : Pass<"moe-entry-points", "::mlir::ModuleOp"> {
  let summary = "Make the functions that the runtime calls";
  let description = [{
    Runs on the LLVM dialect. For each function that `moe-export` prepared, adds
    `i32 moe_entry_<name>(void **arguments, executor)`, and makes every other
    function of the module internal, except those that size the workspace.
  }];
  let dependentDialects = ["::mlir::LLVM::LLVMDialect"];
}

#endif // MOE_DIALECT_MOE_TRANSFORMS_ABI_PASSES_TD
