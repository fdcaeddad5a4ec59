//===- Quantization.cpp - Tensors of quantised checkpoints ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Quantization.h"

#include "llvm/ADT/Twine.h"

using namespace mlir::moe::hf;
using llvm::StringLiteral;
using llvm::StringRef;

namespace {
struct Sign {
  /// The suffix after the name of a weight without its ".weight".
  StringLiteral suffix;
  StringLiteral format;
  /// How to dequantise it; may be empty.
  StringLiteral advice = "";
};
} // namespace

// Suffixes that several formats share follow those of a single format.
static constexpr Sign signs[] = {
    {"_blocks", "MXFP4",
     "Mxfp4Config(dequantize=True) in transformers dequantises it"},
    {"_scales", "MXFP4",
     "Mxfp4Config(dequantize=True) in transformers dequantises it"},
    {".weight_scale_inv", "fp8 with scales of blocks",
     "FineGrainedFP8Config(dequantize=True) in transformers dequantises it"},
    {"_scale_inv", "fp8 with scales of blocks",
     "FineGrainedFP8Config(dequantize=True) in transformers dequantises it"},
    {".qscale_weight", "fp8"},
    {".weight_scale_2", "ModelOpt NVFP4"},
    {".weight_packed", "compressed-tensors"},
    {".weight_global_scale", "compressed-tensors"},
    {".weight_zero_point", "compressed-tensors"},
    {".weight_g_idx", "compressed-tensors"},
    {".weight_scale", "compressed-tensors or ModelOpt"},
    {".g_idx", "GPTQ"},
    {".qweight", "AWQ or GPTQ"},
    {".qzeros", "AWQ or GPTQ"},
    {".weight.absmax", "bitsandbytes"},
    {".weight.quant_map", "bitsandbytes"},
    {".SCB", "bitsandbytes"},
    {".weight.SCB", "bitsandbytes"},
    {".W_q", "HQQ"},
    {".scales", "AWQ, GPTQ or the like"},
};

std::string mlir::moe::hf::describeQuantization(
    StringRef weight, llvm::function_ref<bool(StringRef)> contains) {
  StringRef base = weight;
  (void)base.consume_back(".weight");
  for (const Sign &sign : signs) {
    std::string tensor = (base + sign.suffix).str();
    if (!contains(tensor))
      continue;
    std::string text = ("expected '" + weight +
                        "' in f32, f16 or bf16, got a quantised "
                        "weight (" +
                        sign.format + "): there is a tensor '" + tensor + "'")
                           .str();
    return sign.advice.empty() ? text : text + "; " + sign.advice.str();
  }
  return "";
}
