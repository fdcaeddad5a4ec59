//===- Passes.td - Passes of the moe dialect ---------------*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_TRANSFORMS_PASSES_TD
#define MOE_DIALECT_MOE_TRANSFORMS_PASSES_TD

include "mlir/Pass/PassBase.td"

//===----------------------------------------------------------------------===//
// What a program must be, before and after
//===----------------------------------------------------------------------===//

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

def MoEPlanCapacity : Pass<"moe-plan-capacity", "::mlir::ModuleOp"> {
  let summary = "Plan bounds, kernel variants and memory before anything runs";
  let description = [{
    Gives every public function an attribute `moe.plan` with, for all T of a
    range: bounds of the rows, tiles and padding of each dispatch that hold for
    every routing, the kernel variant for each range of T, whether a capacity can
    be exceeded, and the bytes of the workspace. `moe-export` and
    `moe-allocs-to-arena` check that it is true.

    The variant is the one whose tiles take the shortest time at the rates of the
    machine, on average under the model of the routing: each tile reads the weights of its
    expert once. With `by-mean-rows` it is what the host takes on a GPU, or two of
    them, `FIRST+SECOND`: the device gives each expert to one by its rows.
    The workspace is that of the pipeline `lowering`, run on a copy.

    Where the workspace exceeds `memory-limit`, calls run in chunks of the largest
    number of tokens that fits, with the same bits. If tokens depend on one
    another, or if not even one token fits, that is an error with the reason and
    the least limit that works.

    With `print`, writes the plan, what a call costs and what the routing is like
    to stdout, as text or JSON.
  }];
  let options = [
    Option<"tokens", "tokens", "std::string", "\"\"",
           "MIN:MAX, the range of T; by default moe.tokens, or all">,
    Option<"memoryLimit", "memory-limit", "std::string", "\"\"",
           "bytes of the workspace, such as 4096, 64MiB or 2GB">,
    Option<"imbalance", "imbalance", "std::string", "\"uniform\"",
           "model of the routing: worst, uniform[:DELTA], zipf:S[:DELTA] or "
           "histogram:FILE[:DELTA]">,
    Option<"gpu", "gpu", "std::string", "\"\"",
           "the GPU whose rates the plan takes, such as h100-pcie; by default the "
           "one that stands for `machine`, and this processor without it">,
    Option<"flops", "flops", "double", "0",
           "operations in a second; 0 stands for those of the machine">,
    Option<"bandwidth", "bandwidth", "double", "0",
           "bytes in a second; 0 stands for those of the machine">,
    ListOption<"variants", "variants", "std::string",
               "kernel variants as NAME:ROWS, the rows of a tile, with :ragged "
               "where the last tile of an expert is not padded">,
    Option<"byMeanRows", "by-mean-rows", "bool", "false",
           "whether kernels take the variant with the fewest rows that hold an "
           "expert's on average, and with it the last for experts with many where "
           "that may pay, as those for a GPU do, instead of the one of the "
           "shortest time">,
    Option<"lowering", "lowering", "std::string",
           "\"moe-reference-to-buffers\"",
           "pipeline that makes the workspace">,
    Option<"machine", "machine", "std::string", "\"\"",
           "architecture of the GPU that the plan is for, such as sm_90a; a "
           "workspace has the reports of a call there, too">,
    Option<"print", "print", "std::string", "\"\"", "text or json">
  ];
  let dependentDialects = ["::mlir::moe::MoEDialect"];
}

def MoEExport : Pass<"moe-export", "::mlir::ModuleOp"> {
  let summary = "Give functions the calling convention of the runtime";
  let description = [{
    Turns every public function into an entry of an artifact:

    * Each tensor result becomes a memref argument that the caller provides and
      the function writes; the argument attributes `moe.role` and `moe.name`
      say what each argument is (`input` unless marked `weight`).
    * Each `moe.dispatch` reports: its offsets and, unless they say all, because a
      `moe.gate` chose and none is dropped, a pair of counters: the choices that
      named an expert and those with an id that is none.
    * `moe.tokens = [min, max]` is checked, or added with the largest range in
      which row numbers fit 32 bits.

    Every dynamic extent of an exported function is the number of tokens, `T`. A
    result that has another is an error. An operation on `T` rows and on as many as
    a type says sets `moe.tokens` to that number.
    The signature is recorded in the attribute `moe.signature`, from which the
    metadata of an artifact is made.
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::bufferization::BufferizationDialect",
    "::mlir::linalg::LinalgDialect", "::mlir::memref::MemRefDialect",
    "::mlir::tensor::TensorDialect"
  ];
}

def MoEChunkTokens : Pass<"moe-chunk-tokens", "::mlir::ModuleOp"> {
  let summary = "Run a call in chunks of tokens";
  let description = [{
    Puts the body of a function that `moe-export` prepared into a loop over chunks
    of tokens, if its `moe.plan` has a chunk: of each chunk it reads the rows of
    the inputs and writes those of the outputs, and what it reports is added up.
    The workspace is then that of one chunk, whatever T is.

    The results have the same bits. So a function in which tokens depend on one
    another is an error: a capacity, experts that choose, a softmax over the
    tokens. So is one on buffers.
  }];
  let options = [
    Option<"chunk", "chunk", "int64_t", "0",
           "tokens of a chunk, for functions without a plan">
  ];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::bufferization::BufferizationDialect",
    "::mlir::linalg::LinalgDialect", "::mlir::memref::MemRefDialect",
    "::mlir::scf::SCFDialect", "::mlir::tensor::TensorDialect"
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

def MoEAllocsToArena : Pass<"moe-allocs-to-arena", "::mlir::ModuleOp"> {
  let summary = "Place every buffer of an exported function in one workspace";
  let description = [{
    Replaces each `memref.alloc` of a function that `moe-export` prepared by a
    view into one workspace argument, appended to the function, and makes the
    function `moe_workspace_<name>(T)` that says how large it has to be.

    The size of a buffer may depend on data (rows of one expert): then its upper
    bound as a function of `T` counts, found through minima, sums, products and
    extents. A buffer whose size has no such bound, or that outlives an iteration
    of the loop it is made in, is an error.
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

def MemRefCopyToLinalg : Pass<"memref-copy-to-linalg"> {
  let summary = "Turn memref.copy into linalg";
  let description = [{
    A strided `memref.copy` lowers to a call into MLIR's runner library, which an
    artifact does not have. As `linalg.generic` it becomes loops.
  }];
  let dependentDialects = ["::mlir::linalg::LinalgDialect"];
}

def MoELinalgToTasks : Pass<"moe-linalg-to-tasks"> {
  let summary = "Split operations on all tokens into parallel blocks of them";
  let description = [{
    An operation on buffers whose first loop is parallel and has a dynamic extent
    (tokens, or grouped rows) becomes an `scf.forall` over blocks of it. Those that
    follow one another share one, and so do loops over such operations and products
    with few columns (a router's), as long as no token reads what another wrote:
    the router's product and the gate are one step, block by block. Each element is
    computed as before.
  }];
  let statistics = [
    Statistic<"numLoops", "loops", "parallel loops made">,
    Statistic<"numFused", "operations-fused", "operations that share another's loop">
  ];
  let options = [
    Option<"elements", "elements", "int64_t", "2048",
           "elements of the iteration space in a block, about">
  ];
  let dependentDialects = ["::mlir::arith::ArithDialect",
                           "::mlir::memref::MemRefDialect",
                           "::mlir::scf::SCFDialect"];
}

def MoEVectorizeRows : Pass<"moe-vectorize-rows"> {
  let summary = "Vectorize operations on buffers along contiguous rows";
  let description = [{
    An operation on buffers whose innermost loop has a static extent, and whose
    operands have its elements next to one another or the same for all, becomes
    loops around vectors of the elements: scores, maxima and their indices, sums,
    weights. Sums are added in the same order as before. Bodies with operations
    that have no counterpart on vectors, and elements that are not whole bytes, stay
    as they are.
  }];
  let statistics = [
    Statistic<"numVectorized", "vectorized", "operations vectorized">
  ];
  let options = [
    Option<"elements", "elements", "int64_t", "64",
           "most elements in a vector">
  ];
  let dependentDialects = ["::mlir::affine::AffineDialect",
                           "::mlir::arith::ArithDialect",
                           "::mlir::memref::MemRefDialect",
                           "::mlir::scf::SCFDialect",
                           "::mlir::vector::VectorDialect"];
}

def MoEConstantsToDevice : Pass<"moe-constants-to-device", "::mlir::ModuleOp"> {
  let summary = "Write constant buffers on the device";
  let description = [{
    In exported functions, buffers of constants, which are data of the program on
    the host, become buffers of the function that are filled, or written element by
    element.
  }];
  let dependentDialects = ["::mlir::arith::ArithDialect",
                           "::mlir::linalg::LinalgDialect",
                           "::mlir::memref::MemRefDialect"];
}

def MoEParallelizeCounts : Pass<"moe-parallelize-counts"> {
  let summary = "Let iterations add to counts atomically";
  let description = [{
    A sum of integers over all iterations of an operation on buffers becomes an
    `scf.parallel` whose iterations add with `memref.atomic_rmw`: the order of
    additions does not matter.
  }];
  let statistics = [
    Statistic<"numParallel", "counts", "operations made parallel">
  ];
  let dependentDialects = ["::mlir::memref::MemRefDialect",
                           "::mlir::scf::SCFDialect"];
}

def MoECompactLaunches : Pass<"moe-compact-launches"> {
  let summary = "Copy what kernels are given and cannot read as it lies";
  let description = [{
    Kernels of the LLVM dialect take pointers to compact data that begin at a
    multiple of 16 bytes. A buffer of a `moe.launch` of which that is not known (a
    slice of columns, rows from an odd one on) is copied to one of which it is, and
    copied back where the kernel writes.

    The same holds for rows of a `moe.grouped_matmul` and a `moe.gather_sum` on
    buffers whose elements do not lie beside each other (every other column).
  }];
  let statistics = [
    Statistic<"numCopied", "copied", "operands of launches that are copied">
  ];
  let dependentDialects = ["::mlir::memref::MemRefDialect"];
}

def MoEScalarsToDevice : Pass<"moe-scalars-to-device", "::mlir::ModuleOp"> {
  let summary = "Keep what kernels compute for other kernels on the device";
  let description = [{
    In exported functions on buffers, a number that `moe-outline-kernels` will
    compute in one kernel (an element that is read, and what follows from it) and
    use in another one is stored in a buffer by the first and loaded by the other:
    the host cannot know it.
  }];
  let statistics = [
    Statistic<"numStored", "stored", "numbers that kernels pass on">
  ];
  let dependentDialects = ["::mlir::memref::MemRefDialect"];
}

def MoEOutlineKernels : Pass<"moe-outline-kernels", "::mlir::ModuleOp"> {
  let summary = "Make kernels of what the device has to do without one";
  let description = [{
    In exported functions on buffers, which run on the host with buffers of the
    device, operations that read or write elements become kernels: an
    `scf.parallel` one with a thread for each iteration, anything else one of a
    single thread, with those parallel loops whose bounds only the device knows.
    Loops and branches around launches stay on the host; where their bounds come
    out of a kernel, that is an error.
  }];
  let statistics = [
    Statistic<"numParallel", "parallel", "kernels with a thread for each iteration">,
    Statistic<"numSerial", "serial", "kernels of one thread">
  ];
  let dependentDialects = ["::mlir::gpu::GPUDialect", "::mlir::scf::SCFDialect",
                           "::mlir::arith::ArithDialect"];
}

def MoELaunchesToCalls : Pass<"moe-launches-to-calls", "::mlir::ModuleOp"> {
  let summary = "Call the runtime for each launch";
  let description = [{
    `moe.launch` on buffers becomes a call of the function that the runtime passes
    in (`moe_rt/launcher.h`), with the number of the kernel, the grid and the
    arguments; `moe.multiprocessors` is read from the same structure, which the
    function takes as one more argument.
  }];
  let dependentDialects = ["::mlir::LLVM::LLVMDialect",
                           "::mlir::arith::ArithDialect",
                           "::mlir::memref::MemRefDialect"];
}

def MoEForallToParallel : Pass<"moe-forall-to-parallel", "::mlir::ModuleOp"> {
  let summary = "Give parallel loops to the executor of the runtime";
  let description = [{
    An `scf.forall` of an exported function becomes `moe.parallel` on an executor
    that the function takes as a new last argument; one inside another, or in a
    function that is not exported, becomes a loop.
  }];
  let dependentDialects = ["::mlir::arith::ArithDialect",
                           "::mlir::LLVM::LLVMDialect",
                           "::mlir::scf::SCFDialect"];
}

def MoEOutlineTasks : Pass<"moe-outline-tasks", "::mlir::ModuleOp"> {
  let summary = "Turn moe.parallel into functions and calls of the executor";
  let description = [{
    Runs on the LLVM dialect. The region of each `moe.parallel` becomes a function
    `void task(void *context, i64 index)`, what it uses from outside goes through
    a structure on the stack of the caller, and the executor's `parallel_for`
    (moe_rt/executor.h) is called with both.
  }];
  let dependentDialects = ["::mlir::LLVM::LLVMDialect"];
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

//===----------------------------------------------------------------------===//
// moe-fuse: what runs together
//===----------------------------------------------------------------------===//

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

#endif // MOE_DIALECT_MOE_TRANSFORMS_PASSES_TD
