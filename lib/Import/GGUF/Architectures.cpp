//===- Architectures.cpp - Gates that metadata leaves open ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Architectures.h"

using namespace mlir::moe::importer;

static constexpr auto sigmoid = GatingFunction::Sigmoid;

static constexpr Architecture architectures[] = {
    {"bailingmoe2"},
    {"dbrx", /*normalizes=*/true},
    {"deepseek"},
    {"deepseek2"},
    {"ernie4_5-moe", true},
    {"glm4moe", false, sigmoid},
    {"gpt-oss", false, GatingFunction::SoftmaxOfChosen, /*clampedSwiGLU=*/true},
    {"granitemoe", true},
    {"hunyuan-moe", true},
    {"jamba"},
    {"lfm2moe", true, sigmoid},
    // Mixtral, too.
    {"llama", true},
    {"llama4", false, sigmoid, false, /*scalesInput=*/true},
    {"minimax-m2", true, sigmoid},
    {"mistral3", true},
    {"olmoe"},
    {"phimoe", true},
    {"qwen2moe"},
    {"qwen35moe", true},
    {"qwen3moe", true},
    {"qwen3next", true},
};

llvm::ArrayRef<Architecture> mlir::moe::importer::getArchitectures() {
  return architectures;
}
