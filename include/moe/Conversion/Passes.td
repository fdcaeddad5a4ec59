//===- Passes.td - Conversions out of the moe dialect ------*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CONVERSION_PASSES_TD
#define MOE_CONVERSION_PASSES_TD

include "mlir/Pass/PassBase.td"

def ConvertMoEToLinalg : Pass<"convert-moe-to-linalg"> {
  let summary = "Lower moe operations to linalg, scf and tensor";
  let description = [{
    The reference lowering: every operation becomes plain linalg, scf, tensor,
    arith and math that follow its documentation literally. It is the oracle for
    every faster path, so it is kept simple rather than fast.
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::linalg::LinalgDialect",
    "::mlir::math::MathDialect", "::mlir::scf::SCFDialect",
    "::mlir::tensor::TensorDialect"
  ];
}

def ConvertMoERoutingToLinalg : Pass<"convert-moe-routing-to-linalg"> {
  let summary = "Lower moe operations that have no kernels to linalg";
  let description = [{
    Lowers `moe.gate`, `moe.route`, `moe.dispatch` and `moe.expert` as
    `convert-moe-to-linalg` does, and leaves `moe.grouped_matmul`,
    `moe.grouped_contract`, `moe.gather_sum`, `moe.pack`, `moe.quantize_rows`
    and `moe.round_matrices` to the kernels of another lowering. `moe.quantize`
    becomes `moe.round_matrices` if its codes have 4 or 8 bits. A grouped matmul
    of quantized operands is lowered, too, because no CPU kernel reads them.
    `moe.combine` is an error; run `moe-decompose-combine` before.
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::linalg::LinalgDialect",
    "::mlir::math::MathDialect", "::mlir::scf::SCFDialect",
    "::mlir::tensor::TensorDialect"
  ];
}

/// A pass with the target options of a CPU.
class CPUPass<string name> : Pass<name, "::mlir::ModuleOp"> {
  let options = [
    Option<"vectorBits", "vector-bits", "int64_t", "128",
           "bits of a vector register">,
    Option<"vectorRegisters", "vector-registers", "int64_t", "16",
           "number of vector registers">,
    Option<"bf16Dot", "bf16-dot", "bool", "false",
           "use bf16 dot products (AVX512_BF16)">,
    Option<"int8Dot", "int8-dot", "bool", "false",
           "use dot products of 8-bit integers (AVX512_VNNI or AVX-VNNI)">,
    Option<"bytePermute", "byte-permute", "bool", "false",
           "look bytes up in tables of 128 (AVX512_VBMI)">,
    Option<"prefetchedPages", "prefetched-pages", "int64_t", "0",
           "pages of 4 KiB from which weights are prefetched side by side">
  ];
}

def MoEPackWeights : CPUPass<"moe-pack-weights"> {
  let summary = "Pack weights into the panels that CPU kernels read";
  let description = [{
    Packs the weights of every `moe.grouped_matmul` into panels for the target
    CPU. Weights of an exported function are packed once: the pass adds a
    function `<name>__prepare<n>` that packs the weights of any number of
    experts and that the runtime calls when a layer is created. The exported
    function takes the packed weights as an argument; weights that it no longer
    reads are marked as not retained. Other weights are packed in each call, and
    a remark reports it.
  }];
  let statistics = [
    Statistic<"numPrepared", "weights-prepared", "weights packed once">,
    Statistic<"numInCall", "weights-in-call", "weights packed in every call">
  ];
  let dependentDialects = ["::mlir::func::FuncDialect",
                           "::mlir::tensor::TensorDialect"];
}

def MoEQuantizeActivations : CPUPass<"moe-quantize-activations"> {
  let summary = "Round the rows of grouped matmuls to 8 bits";
  let description = [{
    In functions with `moe.activations = "int8"`: `moe.quantize_rows` rounds the
    rows of every `moe.grouped_matmul` whose weights are packed with a format
    that has a kernel for such rows on the target CPU. Rows of other matmuls
    stay exact, which a remark reports.
  }];
  let statistics = [
    Statistic<"numQuantized", "matmuls", "grouped matmuls with rounded rows">
  ];
  let dependentDialects = ["::mlir::tensor::TensorDialect"];
}

def ConvertMoEToCPU : CPUPass<"convert-moe-to-cpu"> {
  let summary = "Lower grouped matmuls to vector kernels and parallel tasks";
  let description = [{
    `moe.grouped_matmul` on buffers and packed weights becomes an `scf.forall`
    over tasks, each a block of rows of one expert and a few panels of weights.
    A task calls micro-kernels that keep the accumulators of a tile in vector
    registers. `moe.grouped_contract` becomes an `scf.forall` over parts of the
    result of an expert, `moe.gather_sum` one over blocks of tokens, `moe.pack`
    one over panels, `moe.quantize_rows` one over rows, `moe.round_matrices` one
    over blocks of rows, or over matrices to measure their errors. Every
    accumulation runs over ascending k, or over ascending rows of an expert, so
    a result is bitwise the same for any number of threads, and that of a row
    for any number of rows.
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::func::FuncDialect",
    "::mlir::LLVM::LLVMDialect", "::mlir::math::MathDialect",
    "::mlir::memref::MemRefDialect", "::mlir::scf::SCFDialect",
    "::mlir::vector::VectorDialect", "::mlir::x86vector::X86VectorDialect"
  ];
}

/// A pass with the target option of a GPU.
class GPUPass<string name> : Pass<name, "::mlir::ModuleOp"> {
  let options = [
    Option<"arch", "arch", "std::string", "\"sm_80\"",
           "target architecture, such as sm_80 or sm_90a">
  ];
}

def MoEFuseRouter : Pass<"moe-fuse-router"> {
  let summary = "Group the operations of a router for one GPU kernel";
  let description = [{
    The `moe.grouped_matmul` of the logits, the `moe.gate` that alone reads them
    and, if the kernel can route, the `moe.route` of its choices become one
    `moe.fused`: logits stay in shared memory. With a route it also yields
    zeros, the counters of a combine that `moe-fuse-combine` may fuse: as many
    as the tiles of its result have rows.

    A gate whose logits come from a matmul that cannot be fused is left as it
    is, and a remark gives the reason.
  }];
  let statistics = [
    Statistic<"numFused", "routers-fused", "routers grouped">
  ];
  let dependentDialects = ["::mlir::arith::ArithDialect",
                           "::mlir::moe::MoEDialect",
                           "::mlir::tensor::TensorDialect"];
}

def MoETileForGPU : GPUPass<"moe-tile-for-gpu"> {
  let summary = "Choose the tiles of grouped matmuls on a GPU";
  let description = [{
    Attaches `moe.tiles` to every `moe.grouped_matmul` on tensors that tensor
    cores can compute: an array of `#moe.tile`, one for each kernel to generate,
    in ascending order of rows. Each suits a range of rows per expert.
  }];
  let options = [
    Option<"arch", "arch", "std::string", "\"sm_80\"",
           "target architecture, such as sm_80 or sm_90a">,
    Option<"gatherFence", "gather-fence", "::mlir::moe::GatherFence",
           "::mlir::moe::GatherFence::Producer",
           "warps that issue the proxy fence between cp.async and wgmma",
           [{::llvm::cl::values(
               clEnumValN(::mlir::moe::GatherFence::Producer, "producer",
                          "the warps that copy gathered rows"),
               clEnumValN(::mlir::moe::GatherFence::Consumer, "consumer",
                          "the warps that issue wgmma"))}]>
  ];
  let statistics = [
    Statistic<"numTiled", "tiled", "grouped matmuls with tiles">
  ];
}

def MoEFuseCombine : Pass<"moe-fuse-combine"> {
  let summary = "Group a grouped matmul and its combine for one GPU kernel";
  let description = [{
    A `moe.grouped_matmul` with `moe.tiles` and the `moe.gather_sum` that alone
    reads its rows become one `moe.fused`, which saves the launch of the
    combine. The last block to store rows of the matmul adds them up: of all
    tokens if these are few, otherwise of each token whose last row it has.
    Blocks count their arrivals in counters that a router clears, so only
    matmuls whose offsets come from the `moe.fused` of a router are fused.
  }];
  let statistics = [
    Statistic<"numFused", "combines-fused", "combines grouped with a matmul">
  ];
  let dependentDialects = ["::mlir::moe::MoEDialect"];
}

def ConvertMoEToGPU : GPUPass<"convert-moe-to-gpu"> {
  let summary = "Lower moe operations to kernels for NVIDIA GPUs";
  let description = [{
    `moe.gate`, `moe.route`, `moe.quantize`, `moe.gather_sum`,
    `moe.grouped_matmul` with `moe.tiles`, and `moe.fused`, on tensors, become
    `moe_rt.launch` of kernels in a `gpu.module`. An operation implements
    `GPUKernelOpInterface` to be lowered.

    The kernel of a router scatters the choices itself if one block handles all
    tokens at a time; otherwise a second kernel does.

    Of the tiles of a grouped matmul the host launches the first that covers the
    mean number of rows per expert.

    Operations without a matching kernel are left for later lowerings, and a
    remark gives the reason.
  }];
  let statistics = [
    Statistic<"numLowered", "lowered", "operations lowered to kernels">,
    Statistic<"numMissed", "missed", "operations left for later lowerings">
  ];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::gpu::GPUDialect",
    "::mlir::math::MathDialect", "::mlir::moe_rt::MoERuntimeDialect",
    "::mlir::LLVM::LLVMDialect", "::mlir::NVVM::NVVMDialect",
    "::mlir::scf::SCFDialect", "::mlir::tensor::TensorDialect",
    "::mlir::vector::VectorDialect"
  ];
}

def MoEOutlineTasks : Pass<"moe-outline-tasks", "::mlir::ModuleOp"> {
  let summary = "Lower moe_rt.parallel to calls of the executor";
  let description = [{
    Runs after the conversion to the LLVM dialect. The region of each
    `moe_rt.parallel` moves to a function `void task(void *context, i64 index)`,
    and the operation becomes a call of the executor's `parallel_for`
    (`moe_rt/executor.h`) with that function. The caller stores the values that
    the region uses from outside in a structure on its stack, and tasks load
    them from it by `context`. The caller runs a single task itself. A
    `moe_rt.stage` becomes a call of `begin_stage` (`moe_rt/abi.h`) unless that
    is null.
  }];
  let dependentDialects = ["::mlir::LLVM::LLVMDialect"];
}

def MoELaunchesToCalls : Pass<"moe-launches-to-calls", "::mlir::ModuleOp"> {
  let summary = "Lower moe_rt.launch to calls of the launcher";
  let description = [{
    A function that launches kernels takes the launcher of the runtime
    (`moe_rt/launcher.h`) as a new last argument. Each `moe_rt.launch` on
    buffers stores the arguments of the kernel in an array on the stack and
    calls the launcher's `launch` with the number of the kernel in the module,
    the grid and that array. `moe_rt.multiprocessors` loads the launcher's field
    of this name. The signature of the function then asks for arguments that are
    aligned to 16 bytes, because kernels load 16 bytes at once.
  }];
  let dependentDialects = ["::mlir::LLVM::LLVMDialect",
                           "::mlir::arith::ArithDialect",
                           "::mlir::memref::MemRefDialect"];
}

#endif // MOE_CONVERSION_PASSES_TD
