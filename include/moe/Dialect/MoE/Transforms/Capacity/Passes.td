//===- Passes.td - Capacity and memory planning ------------*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_TRANSFORMS_CAPACITY_PASSES_TD
#define MOE_DIALECT_MOE_TRANSFORMS_CAPACITY_PASSES_TD

include "mlir/Pass/PassBase.td"

/// Options of passes that know the target of a plan.
defvar planTargetOptions = [
  Option<"imbalance", "imbalance", "std::string", "\"uniform\"",
         "model of the routing: worst, uniform[:DELTA], zipf:S[:DELTA] or "
         "histogram:FILE[:DELTA]">,
  Option<"gpu", "gpu", "std::string", "\"\"",
         "GPU whose rates to take, such as h100-pcie; by default one of the "
         "architecture `machine` or, without it, this CPU">,
  Option<"flops", "flops", "std::string", "\"\"",
         "floating-point operations per second, such as 1e12 or 2TFLOP/s; by "
         "default those of the machine">,
  Option<"bandwidth", "bandwidth", "std::string", "\"\"",
         "memory bandwidth, such as 1e11 or 100GB/s; by default that of the "
         "machine">,
  ListOption<"variants", "variants", "std::string",
             "kernel variants as NAME:ROWS, the rows of a tile, with :ragged "
             "if the last tile of an expert is not padded">,
  Option<"byMeanRows", "by-mean-rows", "bool", "false",
         "choose variants as the host does for GPU kernels: by the mean rows "
         "of an expert, where it may pay two of them, instead of by the "
         "shortest time">,
  Option<"lowering", "lowering", "std::string", "\"moe-reference-to-buffers\"",
         "pipeline that makes the workspace">,
  Option<"machine", "machine", "std::string", "\"\"",
         "architecture of the GPU that the plan is for, such as sm_90a; a "
         "workspace includes the reports of a call there">
];

def MoEPlanCapacity : Pass<"moe-plan-capacity", "::mlir::ModuleOp"> {
  let summary = "Plan bounds, kernel variants and memory before anything runs";
  let description = [{
    Gives every public function an attribute `moe.plan` that holds for all T of
    a range: bounds of the rows, tiles and padding of each dispatch for every
    routing, the kernel variant for each range of T, whether a capacity can be
    exceeded, and the bytes of the workspace. `moe-export` and
    `moe-allocs-to-arena` verify the plan.

    The variant is the one whose tiles take the shortest time at the rates of
    the machine, on average under the model of the routing: each tile reads the
    weights of its expert once. With `by-mean-rows` it is the one that the host
    picks for a GPU, or a pair `FIRST+SECOND` from which the device selects one
    for each expert by its rows. The workspace is that of the pipeline
    `lowering`, run on a copy.

    If the workspace exceeds `memory-limit`, calls run in chunks of the largest
    number of tokens that fits; the results are bitwise the same. If tokens
    depend on one another, or not even one token fits, an error gives the reason
    and the smallest limit that works.
  }];
  let options = [
    Option<"tokens", "tokens", "std::string", "\"\"",
           "MIN:MAX, the range of T; by default moe.tokens, or all">,
    Option<"memoryLimit", "memory-limit", "std::string", "\"\"",
           "bytes of the workspace, such as 4096, 64MiB or 0.5GiB">,
    Option<"defaultChunk", "default-chunk", "bool", "false",
           "within the limit, the chunks of moe-chunk-tokens=default-chunk">
  ] # planTargetOptions;
  let dependentDialects = ["::mlir::moe::MoEDialect"];
}

def MoEPrintPlan : Pass<"moe-print-plan", "::mlir::ModuleOp"> {
  let summary = "Print plans, with what a call costs, as text or JSON";
  let description = [{
    Prints the plan of each function that `moe-plan-capacity` ran on and, for
    some T, the rows, tiles and padding that the model of the routing expects,
    the operations, bytes and least time of a call, and its workspace. The
    options must be those of the plan.
  }];
  let options = [
    Option<"format", "format", "std::string", "\"text\"", "text or json">
  ] # planTargetOptions;
  let dependentDialects = ["::mlir::moe::MoEDialect"];
}

def MoEChunkTokens : Pass<"moe-chunk-tokens", "::mlir::ModuleOp"> {
  let summary = "Run a call in chunks of tokens";
  let description = [{
    Puts the body of a function that `moe-export` prepared into a loop over
    chunks of tokens, if its `moe.plan` has a chunk. An iteration reads the rows
    of its chunk from the inputs, writes those of the outputs and adds to the
    reports. The workspace is then that of one chunk for any T.

    The results are bitwise the same. A function in which tokens depend on one
    another (a capacity, experts that choose, a softmax over the tokens) is
    therefore an error, and so is a function on buffers.
  }];
  let options = [
    Option<"chunk", "chunk", "int64_t", "0",
           "tokens of a chunk, for functions without a plan">,
    Option<"defaultChunk", "default-chunk", "bool", "false",
           "without another chunk, run in chunks that cost no speed: an expert "
           "gets 80 rows on average, or more if that takes less than 30 MiB. "
           "Calls whose tokens depend on one another run whole">
  ];
  let dependentDialects = [
    "::mlir::arith::ArithDialect",
    "::mlir::bufferization::BufferizationDialect",
    "::mlir::linalg::LinalgDialect", "::mlir::memref::MemRefDialect",
    "::mlir::scf::SCFDialect", "::mlir::tensor::TensorDialect"
  ];
}

def MoEAllocsToArena : Pass<"moe-allocs-to-arena", "::mlir::ModuleOp"> {
  let summary = "Place every buffer of an exported function in one workspace";
  let description = [{
    Replaces each `memref.alloc` of a function that `moe-export` prepared by a
    view into one workspace argument, appended to the function, and adds the
    function `moe_workspace_<name>(T)` that returns its size.

    The size of a buffer may depend on data (rows of one expert). Then the
    workspace is sized by its upper bound as a function of `T`, derived through
    minima, sums, products and extents. A buffer whose size has no such bound,
    or that outlives an iteration of the loop that allocates it, is an error.
  }];
  let options = [
    Option<"alignment", "alignment", "int64_t", "64",
           "alignment of each buffer, in bytes; a power of two">
  ];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::func::FuncDialect",
    "::mlir::memref::MemRefDialect"
  ];
}

#endif // MOE_DIALECT_MOE_TRANSFORMS_CAPACITY_PASSES_TD
