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
      the function writes; the argument attributes `moe.role` and `moe.name`
      say what each argument is (`input` unless marked `weight`).
    * Each `moe.dispatch` reports: its offsets and, unless they say all, because
      a `moe.gate` chose and none is dropped, a pair of counters: the choices
      that named an expert and those with an id that is none.
    * `moe.tokens = [min, max]` is checked, or added with the largest range in
      which row numbers fit 32 bits.

    Every dynamic extent of an exported function is the number of tokens, `T`. A
    result that has another is an error. An operation on `T` rows and on as many
    as a type says sets `moe.tokens` to that number. The signature is recorded
    in the attribute `moe.signature`, from which the metadata of an artifact is
    made.
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect",
    "::mlir::bufferization::BufferizationDialect",
    "::mlir::linalg::LinalgDialect", "::mlir::memref::MemRefDialect",
    "::mlir::moe::MoEDialect", "::mlir::tensor::TensorDialect"
  ];
}

def MoEPlaceResults : Pass<"moe-place-results"> {
  let summary = "Compute results in the buffers that they go to";
  let description = [{
    Where a tensor that `bufferization.materialize_in_destination` writes to a
    buffer was computed into an empty one, by one operation or by several that
    overwrite one destination after the other, the buffer takes the place of the
    empty tensor: it needs neither memory of its own nor a copy.

    Only a buffer that has no other use is such a place.
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
    `i32 moe_entry_<name>(void **args)`, and makes every other function of the
    module internal, but for those that size the workspace.
  }];
  let dependentDialects = ["::mlir::LLVM::LLVMDialect"];
}

#endif // MOE_DIALECT_MOE_TRANSFORMS_ABI_PASSES_TD
