//===- inputs.h - Tensors to run with ---------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RUN_INPUTS_H
#define MOE_RUN_INPUTS_H

#include "program.h"

namespace moe::run {

/// The file of each tensor of a signature, from the values of a repeated
/// option: [NAME=]FILE. Empty where none is given. A .safetensors file without
/// a name stands for all tensors that no other value names.
io::Expected<std::vector<std::string>>
assignFiles(const char *option, const std::vector<std::string> &values,
            const std::vector<Signature> &signature);

/// Read a tensor from a .npy file, or that of the name from a .safetensors one.
io::Expected<io::Tensor> readTensor(const std::string &path,
                                    const std::string &name);

io::Expected<std::vector<io::Tensor>>
readInputs(const Program &program, const std::vector<std::string> &values);

io::Expected<std::vector<io::Tensor>> drawInputs(const Program &program,
                                                 int64_t tokens, uint64_t seed);

/// T of these inputs; nothing if none has a dynamic extent. The runtime checks
/// that they agree.
std::optional<int64_t> findTokens(const Program &program,
                                  const std::vector<io::Tensor> &inputs);

} // namespace moe::run

#endif // MOE_RUN_INPUTS_H
