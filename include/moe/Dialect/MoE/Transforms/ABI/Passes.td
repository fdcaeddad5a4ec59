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
    * For each `moe.dispatch` and `moe.route` the function reports the offsets
      and two counters: valid choices and invalid ids. The counters are omitted
      if a `moe.gate` chose the ids and none can be dropped.
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

def MoEExposeRoutes : Pass<"moe-expose-routes", "::mlir::ModuleOp"> {
  let summary = "Return the routes of a layer, or take them as arguments";
  let description = [{
    A route is what a `moe.dispatch` and its `moe.combine` get from a router:
    ids and weights `[T, K]`. For each public function:

    * `record` adds results: the ids of its dispatches, then the weights. Where
      there is one of each they are called `route_ids` and `route_weights`,
      otherwise numbers follow. The other results stay as they are.
    * `replay` adds arguments of these names, which replace the ids and weights.
      A router that computes nothing else becomes dead code.
    * `replay-ids` adds the ids alone; the gate that chose them computes weights
      of the given ones. Its bias, groups, capacity and threshold, which only
      the selection reads, are removed.

    Values that are already arguments stay arguments. Runs ahead of
    `moe-export`.
  }];
  let options = [
    Option<"mode", "mode", "::mlir::moe::RouteMode",
           "::mlir::moe::RouteMode::Record",
           "what to do with them: record (the default), replay, replay-ids", [{
             ::llvm::cl::values(
                 clEnumValN(::mlir::moe::RouteMode::Record, "record",
                            "return them"),
                 clEnumValN(::mlir::moe::RouteMode::Replay, "replay",
                            "take ids and weights as arguments"),
                 clEnumValN(::mlir::moe::RouteMode::ReplayIds, "replay-ids",
                            "take ids as arguments"))
           }]>
  ];
}

def MoEQuantizeWeights : Pass<"moe-quantize-weights", "::mlir::ModuleOp"> {
  let summary = "Quantise the weights of experts and of dense matmuls";
  let description = [{
    In a function with the attribute `moe.weight_format`, a `#moe.format`,
    replaces each weight by `moe.dequantize` of its `moe.quantize`, in blocks
    that are cut to the matrix. A weight is quantised if it has 16 or 32 bits
    and only matmuls read it: of experts, or dense ones such as those of shared
    experts. Columns of the format are those along which the matmul sums. The
    router keeps its weights: matmuls whose result reaches `moe.gate` through
    elementwise operations. So do matrices of one row, such as the gate of
    shared experts. A remark says why a weight is not quantised.
  }];
  let statistics = [
    Statistic<"numQuantized", "weights-quantized", "weights quantised">
  ];
  let dependentDialects = ["::mlir::moe::MoEDialect"];
}

def MoEMeasureQuantization
    : Pass<"moe-measure-quantization", "::mlir::ModuleOp"> {
  let summary = "Measure the error of quantised weights once";
  let description = [{
    For each `moe.quantize` of a weight of an exported function, adds a function
    `<name>__prepare<n>` that computes the relative error of each expert,
    `‖decoded − w‖ / ‖w‖` in the Frobenius norm, and an argument that holds it
    and that calls do not read. The runtime reports it.
  }];
  let statistics = [
    Statistic<"numMeasured", "weights-measured", "weights measured">
  ];
  let dependentDialects = [
    "::mlir::func::FuncDialect", "::mlir::moe::MoEDialect",
    "::mlir::tensor::TensorDialect"
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
    decoded in every call. A `moe.quantize` of weights whose fields matmuls read
    becomes such a function, too.
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
