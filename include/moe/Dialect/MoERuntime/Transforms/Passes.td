//===- Passes.td - Host tasks and device launches ----------*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOERUNTIME_TRANSFORMS_PASSES_TD
#define MOE_DIALECT_MOERUNTIME_TRANSFORMS_PASSES_TD

include "mlir/Pass/PassBase.td"

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

#endif // MOE_DIALECT_MOERUNTIME_TRANSFORMS_PASSES_TD
