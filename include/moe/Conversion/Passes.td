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
    The reference lowering: every operation becomes the plainest linalg, scf,
    tensor, arith and math that says what its documentation says. It is the
    oracle for every faster path, so it is kept simple rather than fast.
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
    Lowers `moe.gate`, `moe.route`, `moe.dispatch`, `moe.expert` and
    `moe.quantize` as `convert-moe-to-linalg` does, and leaves
    `moe.grouped_matmul`, `moe.gather_sum` and `moe.pack` to the kernels of
    another lowering. A grouped matmul of quantized operands is lowered, too: no
    kernel of the CPU reads them. `moe.combine` is an error:
    `moe-decompose-combine` comes before.
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::linalg::LinalgDialect",
    "::mlir::math::MathDialect", "::mlir::scf::SCFDialect",
    "::mlir::tensor::TensorDialect"
  ];
}

/// The processor, as far as kernels are concerned.
class CPUPass<string name> : Pass<name, "::mlir::ModuleOp"> {
  let options = [
    Option<"vectorBits", "vector-bits", "int64_t", "128", "width of a vector">,
    Option<"vectorRegisters", "vector-registers", "int64_t", "16",
           "number of vector registers">,
    Option<"bf16Dot", "bf16-dot", "bool", "false",
           "whether there are dot products of bf16 (AVX512_BF16)">
  ];
}

def MoEPackWeights : CPUPass<"moe-pack-weights"> {
  let summary = "Bring weights into the layout that kernels read";
  let description = [{
    Gives every `moe.grouped_matmul` packed weights in panels that suit the
    processor. Where they come from weights of an exported function, a function
    `<name>__prepare<n>` packs them once: it takes the weights of any number of
    experts, and the runtime calls it when a layer is made. The exported function
    takes what is packed; a weight that it no longer reads is marked as not
    retained. Any other weights are packed in each call, which a remark says.
  }];
  let statistics = [
    Statistic<"numPrepared", "weights-prepared", "weights packed once">,
    Statistic<"numInCall", "weights-in-call", "weights packed in every call">
  ];
  let dependentDialects = ["::mlir::func::FuncDialect",
                           "::mlir::tensor::TensorDialect"];
}

def ConvertMoEToCPU : CPUPass<"convert-moe-to-cpu"> {
  let summary = "Lower grouped products to vector kernels and parallel tasks";
  let description = [{
    `moe.grouped_matmul` on buffers and packed weights becomes an `scf.forall`
    over tasks, each a block of rows of one expert with a few panels of weights,
    around micro-kernels that hold the sums of a tile in vector registers.
    `moe.pack` becomes an `scf.forall` over panels. Sums run over ascending k in
    every tile: a row has the same bits whatever the number of rows or threads.
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::func::FuncDialect",
    "::mlir::math::MathDialect", "::mlir::memref::MemRefDialect",
    "::mlir::scf::SCFDialect", "::mlir::vector::VectorDialect",
    "::mlir::x86vector::X86VectorDialect"
  ];
}

/// The GPU, as far as kernels are concerned.
class GPUPass<string name> : Pass<name, "::mlir::ModuleOp"> {
  let options = [
    Option<"arch", "arch", "std::string", "\"sm_80\"",
           "architecture: sm_90a, or another that the code of sm_80 runs on">
  ];
}

def MoETileForGPU : GPUPass<"moe-tile-for-gpu"> {
  let summary = "Choose the tiles of grouped products on a GPU";
  let description = [{
    Gives every `moe.grouped_matmul` on tensors that tensor cores can compute an
    attribute `moe.tiles`: the `#moe.tile` to make a kernel for, one for each range
    of rows that an expert has, those with fewer rows first.
  }];
  let options = [
    Option<"arch", "arch", "std::string", "\"sm_80\"",
           "architecture: sm_90a, or another that the code of sm_80 runs on">,
    Option<"gatherFence", "gather-fence", "::mlir::moe::GatherFence",
           "::mlir::moe::GatherFence::Producer",
           "who orders gathered rows before the wgmma that reads them",
           [{::llvm::cl::values(
               clEnumValN(::mlir::moe::GatherFence::Producer, "producer",
                          "the warps that copy rows"),
               clEnumValN(::mlir::moe::GatherFence::Consumer, "consumer",
                          "the warps that multiply"))}]>
  ];
  let statistics = [Statistic<"numTiled", "tiled", "products with tiles">];
}

def ConvertMoEToGPU : GPUPass<"convert-moe-to-gpu"> {
  let summary = "Lower moe operations to kernels for NVIDIA GPUs";
  let description = [{
    `moe.gate`, `moe.route`, `moe.gather_sum`, and `moe.grouped_matmul` with
    `moe.tiles`, on tensors, become `moe.launch` of kernels in a `gpu.module`.
    A plain product, the gate of its logits and the routing of what that chooses
    become one kernel, and a second one that places the choices where the tokens
    are more than a block has at a time.
    Of the tiles of a product the host takes the first that holds the rows which
    experts have on average. Beyond as many rows in all as two of the last tiles
    have, and up to as many on average, it launches that one for experts with few
    rows and the last for the others: the device tells them apart by the offsets.
    Those that no kernel fits stay, and a remark says why.
  }];
  let statistics = [
    Statistic<"numLowered", "lowered", "operations with kernels">,
    Statistic<"numMissed", "missed", "operations without">
  ];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::gpu::GPUDialect",
    "::mlir::math::MathDialect", "::mlir::LLVM::LLVMDialect",
    "::mlir::NVVM::NVVMDialect", "::mlir::scf::SCFDialect",
    "::mlir::tensor::TensorDialect", "::mlir::vector::VectorDialect"
  ];
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

#endif // MOE_CONVERSION_PASSES_TD
