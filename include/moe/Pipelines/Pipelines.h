//===- Pipelines.h - Named pipelines ----------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_PIPELINES_PIPELINES_H
#define MOE_PIPELINES_PIPELINES_H

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassOptions.h"

namespace mlir::moe {

/// The first passes of every path: operations of others, gates and calls become
/// what passes over whole layers read. Functions keep their results.
void addFirstPasses(OpPassManager &pm);

/// Options of the last part of every path, which depend on the CPU.
struct LoweringOptions : PassPipelineOptions<LoweringOptions> {
  Option<bool> f16Conversions{
      *this, "f16-conversions",
      llvm::cl::desc("whether instructions convert f16 to and from f32"),
      llvm::cl::init(false)};
};

/// The reference path: moe operations on tensors to the LLVM dialect, by way of
/// plain linalg and loops. Tests compare the fast paths with it.
void buildReferencePipeline(OpPassManager &pm, const LoweringOptions &options);

/// Its first part: moe operations to linalg, scf and tensor.
void buildReferenceTensorPipeline(OpPassManager &pm);
/// Its second part: tensors to buffers in one workspace.
void buildReferenceBufferPipeline(OpPassManager &pm);
/// Its last part: loops over buffers to the LLVM dialect, with entry points.
/// `f16Conversions` says whether the CPU converts f16 to and from f32.
void buildLowerToLLVMPipeline(OpPassManager &pm, bool f16Conversions);

/// Options of fusion.
struct FusionPipelineOptions : PassPipelineOptions<FusionPipelineOptions> {
  Option<bool> keepFormats{
      *this, "keep-formats",
      llvm::cl::desc("leave moe.dequantize to the packing of weights"),
      llvm::cl::init(false)};
};

/// Fusion: grouped matmuls of all experts, with epilogues and gathered rows.
void buildFusionPipeline(OpPassManager &pm,
                         const FusionPipelineOptions &options);

/// Options of training.
struct TrainingPipelineOptions : PassPipelineOptions<TrainingPipelineOptions> {
  ListOption<std::string> arguments{
      *this, "arguments",
      llvm::cl::desc("arguments with a gradient, by name or number; none for "
                     "all tensors of floats")};
  ListOption<std::string> f32Gradients{
      *this, "f32-gradients",
      llvm::cl::desc("arguments whose gradient is f32, by name or number, or "
                     "all")};
  ListOption<std::string> accumulate{
      *this, "accumulate",
      llvm::cl::desc("arguments whose gradient is added to what its result "
                     "has, by name or number, or all")};
  Option<bool> recompute{
      *this, "recompute",
      llvm::cl::desc("compute products of grouped rows again instead of saving "
                     "their accumulators"),
      llvm::cl::init(false)};
};

/// Training: fuses each layer as written, and adds its backward function. The
/// other pipelines lower both.
void buildTrainingPipeline(OpPassManager &pm,
                           const TrainingPipelineOptions &options);

/// Options of expert parallelism, as those of moe-parallelize.
struct ParallelPipelineOptions : PassPipelineOptions<ParallelPipelineOptions> {
  Option<int64_t> slots{
      *this, "slots",
      llvm::cl::desc("experts that a rank holds at most; 0 for functions with "
                     "moe.parallel alone"),
      llvm::cl::init(0)};
  Option<int64_t> ranks{
      *this, "ranks",
      llvm::cl::desc("as many slots as this many ranks need to hold all "
                     "experts"),
      llvm::cl::init(0)};
  Option<int64_t> replicas{*this, "replicas",
                           llvm::cl::desc("ranks that hold an expert at most"),
                           llvm::cl::init(1)};
  Option<RankReduction> reduce{
      *this, "reduce",
      llvm::cl::desc("how the rows of a token are added that several ranks "
                     "have"),
      llvm::cl::values(clEnumValN(RankReduction::Ordered, "ordered",
                                  "at home, in the order of choices"),
                       clEnumValN(RankReduction::PerRank, "per_rank",
                                  "on each rank, then at home")),
      llvm::cl::init(RankReduction::Ordered)};
  Option<TokenScope> scope{
      *this, "scope",
      llvm::cl::desc("whose tokens compete for the places of an expert"),
      llvm::cl::values(
          clEnumValN(TokenScope::Group, "group", "those of all ranks"),
          clEnumValN(TokenScope::Rank, "rank", "those of each rank")),
      llvm::cl::init(TokenScope::Group)};
};

/// Expert parallelism: spreads the experts of each layer as written over ranks,
/// and cuts it into parts. With `training` it has a backward function, which is
/// cut, too. The other pipelines lower the parts.
void buildParallelPipeline(OpPassManager &pm,
                           const ParallelPipelineOptions &options,
                           const TrainingPipelineOptions *training = nullptr);

/// Options that describe the CPU to kernels; the defaults are those of every
/// x86-64.
struct CPUPipelineOptions : PassPipelineOptions<CPUPipelineOptions> {
  Option<int64_t> vectorBits{*this, "vector-bits",
                             llvm::cl::desc("width of a vector"),
                             llvm::cl::init(128)};
  Option<int64_t> vectorRegisters{*this, "vector-registers",
                                  llvm::cl::desc("number of vector registers"),
                                  llvm::cl::init(16)};
  Option<bool> bf16Dot{*this, "bf16-dot",
                       llvm::cl::desc("whether there are dot products of bf16"),
                       llvm::cl::init(false)};
  Option<bool> int8Dot{
      *this, "int8-dot",
      llvm::cl::desc("whether there are dot products of 8-bit integers"),
      llvm::cl::init(false)};
  Option<bool> bytePermute{
      *this, "byte-permute",
      llvm::cl::desc("whether bytes are looked up in tables of 128"),
      llvm::cl::init(false)};
  Option<int64_t> prefetchedPages{
      *this, "prefetched-pages",
      llvm::cl::desc("pages of 4 KiB from which weights are prefetched side by "
                     "side; 0 for none"),
      llvm::cl::init(0)};
  Option<bool> f16Conversions{
      *this, "f16-conversions",
      llvm::cl::desc("whether instructions convert f16 to and from f32"),
      llvm::cl::init(false)};
};

/// The fast path: fused operations on packed weights, vector kernels and tasks.
void buildCPUPipeline(OpPassManager &pm, const CPUPipelineOptions &options);
/// The same as far as buffers in one workspace.
void buildCPUToBuffersPipeline(OpPassManager &pm,
                               const CPUPipelineOptions &options);

/// Options that describe the GPU to kernels.
struct GPUPipelineOptions : PassPipelineOptions<GPUPipelineOptions> {
  Option<std::string> arch{
      *this, "arch",
      llvm::cl::desc("architecture: sm_90a, or another that the code of sm_80 "
                     "runs on"),
      llvm::cl::init("sm_80")};
  Option<GatherFence> gatherFence{
      *this, "gather-fence",
      llvm::cl::desc("who orders gathered rows before the wgmma that reads "
                     "them"),
      llvm::cl::init(GatherFence::Producer),
      llvm::cl::values(clEnumValN(GatherFence::Producer, "producer",
                                  "the warps that copy rows"),
                       clEnumValN(GatherFence::Consumer, "consumer",
                                  "the warps that multiply"))};
};

/// Kernels for NVIDIA GPUs, as PTX beside the host's code that starts them.
void buildGPUPipeline(OpPassManager &pm, const GPUPipelineOptions &options);
/// The same as far as launches on buffers in one workspace.
void buildGPUToBuffersPipeline(OpPassManager &pm,
                               const GPUPipelineOptions &options);

/// Make the pipelines available by name: `moe-cpu`, `moe-cpu-to-buffers`,
/// `moe-gpu`, `moe-gpu-to-buffers`, `moe-fuse`, `moe-training`,
/// `moe-reference`, `moe-reference-to-buffers`, `moe-lower-to-llvm`.
void registerPipelines();

} // namespace mlir::moe

#endif // MOE_PIPELINES_PIPELINES_H
