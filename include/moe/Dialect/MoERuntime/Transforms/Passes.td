//===- Passes.td - Passes for host tasks and launches ------*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOERUNTIME_TRANSFORMS_PASSES_TD
#define MOE_DIALECT_MOERUNTIME_TRANSFORMS_PASSES_TD

include "mlir/Pass/PassBase.td"

def MoELinalgToTasks : Pass<"moe-linalg-to-tasks"> {
  let summary = "Split operations on all tokens into parallel blocks of tokens";
  let description = [{
    A linalg operation on buffers whose first loop is parallel with a dynamic
    extent (tokens, or grouped rows) becomes an `scf.forall` over blocks of that
    loop. Adjacent operations share one `scf.forall`, and so do loops over such
    operations and matmuls with few columns (a router's), as long as no token
    reads what another one wrote. Thus the matmul of a router and its gate run
    together, block by block. The computation of each element does not change.
  }];
  let statistics = [
    Statistic<"numLoops", "loops", "parallel loops created">,
    Statistic<"numFused", "operations-fused",
              "operations fused into the loop of another">
  ];
  let options = [
    Option<"elements", "elements", "int64_t", "2048",
           "approximate size of the iteration space of a block">
  ];
  let dependentDialects = ["::mlir::arith::ArithDialect",
                           "::mlir::memref::MemRefDialect",
                           "::mlir::scf::SCFDialect"];
}

def MoEVectorizeRows : Pass<"moe-vectorize-rows"> {
  let summary = "Vectorize operations on buffers along contiguous rows";
  let description = [{
    Vectorizes linalg operations on buffers along the innermost loop if its
    extent is static and each operand is either contiguous or invariant along
    it. A gate is computed by such operations: scores, maxima and their indices,
    sums, weights. Reductions keep their order. Operations whose body is not
    elementwise, or whose elements are not whole bytes, stay scalar.
  }];
  let statistics = [
    Statistic<"numVectorized", "vectorized", "operations vectorized">
  ];
  let options = [
    Option<"elements", "elements", "int64_t", "64",
           "maximum number of elements of a vector">
  ];
  let dependentDialects = ["::mlir::affine::AffineDialect",
                           "::mlir::arith::ArithDialect",
                           "::mlir::memref::MemRefDialect",
                           "::mlir::scf::SCFDialect",
                           "::mlir::vector::VectorDialect"];
}

def MoEForallToParallel : Pass<"moe-forall-to-parallel", "::mlir::ModuleOp"> {
  let summary = "Run parallel loops on the executor of the runtime";
  let description = [{
    An `scf.forall` of an exported function becomes `moe_rt.parallel` on an
    executor, which the function takes as a new last argument. A nested
    `scf.forall`, or one of a function that is not exported, becomes a
    sequential loop.
  }];
  let dependentDialects = ["::mlir::arith::ArithDialect",
                           "::mlir::LLVM::LLVMDialect",
                           "::mlir::moe_rt::MoERuntimeDialect",
                           "::mlir::scf::SCFDialect"];
}

def MoENameStages : Pass<"moe-name-stages", "::mlir::ModuleOp"> {
  let summary = "Name the operations of a layer in their locations";
  let description = [{
    The location of each operation of the `moe` dialect and each linalg
    operation of an exported function gets a name, `gate` or `grouped_matmul`,
    with a number if there are several. Lowerings hand locations on, so that
    `moe-mark-stages` finds what loops compute.
  }];
}

def MoEMarkStages : Pass<"moe-mark-stages", "::mlir::ModuleOp"> {
  let summary = "Tell the runtime which stage a layer is in";
  let description = [{
    Inserts `moe_rt.stage` into each function that takes an executor, ahead of
    loops, tasks and calls, wherever their name by `moe-name-stages` is another
    one than before. Several operations in one loop are one stage. The attribute
    `moe.stages` of the function has the names, and the kernels that each stage
    calls; `moe.stage` of tasks has the name of their stage.
  }];
  let statistics = [Statistic<"numStages", "stages", "stages of functions">];
  let dependentDialects = ["::mlir::moe_rt::MoERuntimeDialect"];
}

def MoEConstantsToDevice : Pass<"moe-constants-to-device", "::mlir::ModuleOp"> {
  let summary = "Initialize constant buffers on the device";
  let description = [{
    Constant buffers are globals in host memory, which kernels cannot read. In
    exported functions the pass replaces each `memref.get_global` by an
    allocation and writes its elements: by `linalg.fill` if they are equal,
    otherwise by a store for each. More than 1024 stores are an error.
  }];
  let dependentDialects = ["::mlir::arith::ArithDialect",
                           "::mlir::linalg::LinalgDialect",
                           "::mlir::memref::MemRefDialect"];
}

def MoEParallelizeCounts : Pass<"moe-parallelize-counts"> {
  let summary = "Parallelize integer sums with atomic additions";
  let description = [{
    A `linalg.generic` on buffers that sums integers over all its iterations
    into one element becomes an `scf.parallel` whose iterations add with
    `memref.atomic_rmw`. The sum is the same in any order.
  }];
  let statistics = [
    Statistic<"numParallel", "counts", "operations parallelized">
  ];
  let dependentDialects = ["::mlir::memref::MemRefDialect",
                           "::mlir::scf::SCFDialect"];
}

def MoECompactLaunches : Pass<"moe-compact-launches"> {
  let summary = "Copy launch operands that kernels cannot access in place";
  let description = [{
    Kernels of the LLVM dialect take pointers to compact data, aligned to 16
    bytes. A buffer operand of `moe_rt.launch` that may violate this (a slice of
    columns, rows from an odd one on) is copied to a compact, aligned buffer,
    and copied back if the kernel writes it.

    The operands of `moe.grouped_matmul`, `moe.grouped_contract` and
    `moe.gather_sum` on buffers are copied if the elements of a row are not
    contiguous (every other column).
  }];
  let statistics = [
    Statistic<"numCopied", "copied", "operands copied">
  ];
  let dependentDialects = ["::mlir::memref::MemRefDialect"];
}

def MoEScalarsToDevice : Pass<"moe-scalars-to-device", "::mlir::ModuleOp"> {
  let summary = "Pass scalars between kernels through device memory";
  let description = [{
    In exported functions on buffers, a scalar that `moe-outline-kernels` will
    compute in one kernel (a loaded element, and what depends on it) and use in
    another is stored to a buffer by the first and loaded by the other: its
    value never reaches the host.
  }];
  let statistics = [
    Statistic<"numStored", "stored", "scalars passed between kernels">
  ];
  let dependentDialects = ["::mlir::memref::MemRefDialect"];
}

def MoEOutlineKernels : Pass<"moe-outline-kernels", "::mlir::ModuleOp"> {
  let summary = "Outline the remaining device code into kernels";
  let description = [{
    Exported functions run on the host, their buffers are on the device.
    Operations that read or write elements become kernels: an `scf.parallel` a
    kernel with a thread for each iteration; anything else, and parallel loops
    whose bounds only the device knows, a kernel of one thread. Loops and
    branches around launches stay on the host; it is an error if their bounds
    come out of a kernel.
  }];
  let statistics = [
    Statistic<"numParallel", "parallel",
              "kernels with a thread for each iteration">,
    Statistic<"numSerial", "serial", "kernels of one thread">
  ];
  let dependentDialects = ["::mlir::arith::ArithDialect",
                           "::mlir::gpu::GPUDialect",
                           "::mlir::moe_rt::MoERuntimeDialect",
                           "::mlir::scf::SCFDialect"];
}

def MoEOverlapLaunches : Pass<"moe-overlap-launches", "::mlir::ModuleOp"> {
  let summary = "Let kernels begin before the launch ahead of them has ended";
  let description = [{
    Programmatic dependent launch, on sm_90 and later. `griddepcontrol.wait` is
    inserted into each kernel but the first of a function, ahead of the first
    operation that writes global memory, or reads what the launches of the
    operation before write; `griddepcontrol.launch_dependents` follows. What
    comes before, the prologue, runs while the launch before ends: barriers are
    initialized, weights prefetched, tiles scheduled. A kernel that reads
    nothing of the launch before, and writes at its end, waits there.

    The first kernel lets its dependents begin at once: it is launched when all
    before has ended. `moe.primaries` of a kernel names the kernels that write
    nothing of what its prologue reads. The runtime lets a launch begin early if
    the one directly before it, of those that were not empty, is of such a
    kernel.
  }];
  let statistics = [
    Statistic<"numOverlapped", "overlapped", "kernels that may begin early">
  ];
  let dependentDialects = ["::mlir::LLVM::LLVMDialect"];
}

#endif // MOE_DIALECT_MOERUNTIME_TRANSFORMS_PASSES_TD
