//===- inputs.h - Input tensors ---------------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RUN_INPUTS_H
#define MOE_RUN_INPUTS_H

#include "program.h"

namespace moe::run {

/// Returns the file of each tensor of a signature, from the values of a
/// repeated option: [NAME=]FILE; empty if none is given. A .safetensors file
/// without a name is the file of all tensors without a value of their own.
io::Expected<std::vector<std::string>>
assignFiles(const char *option, const std::vector<std::string> &values,
            const std::vector<Signature> &signature);

/// Reads a tensor from a .npy file, or tensor `name` of a .safetensors file.
io::Expected<io::Tensor> readTensor(const std::string &path,
                                    const std::string &name);

/// With several ranks, the inputs of this rank.
io::Expected<std::vector<io::Tensor>>
readInputs(const Program &program, const std::vector<std::string> &values);

/// Draws inputs of `tokens` tokens in all, and returns those of this rank.
io::Expected<std::vector<io::Tensor>> drawInputs(const Program &program,
                                                 int64_t tokens, uint64_t seed);

/// Returns T of the inputs; nullopt if no extent is dynamic. The runtime
/// verifies that they agree.
std::optional<int64_t> findTokens(const Program &program,
                                  const std::vector<io::Tensor> &inputs);

} // namespace moe::run

#endif // MOE_RUN_INPUTS_H
