//===- argument_parser.h - Read arguments of signatures ---------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_ARTIFACT_ARGUMENT_PARSER_H
#define MOE_RT_SRC_ARTIFACT_ARGUMENT_PARSER_H

#include "artifact/node.h"
#include "artifact/signature.h"

namespace moe::rt {

inline constexpr size_t maxArguments = 65536;
inline constexpr int64_t maxExperts = int64_t(1) << 24;

/// Read the element type of an argument.
moe_rt_status_t parseDType(const Node &node, Argument &argument);
/// Read a shape, in which an extent may be dynamic or not.
moe_rt_status_t parseShape(const Node &node, bool mayBeDynamic,
                           Argument &argument);
/// Read the range of T and the arguments of a function.
moe_rt_status_t parseSignature(const Node &node, Function &out);
/// The type of an argument, such as "f32[T, 4]".
std::string describe(const Argument &argument);

} // namespace moe::rt

#endif // MOE_RT_SRC_ARTIFACT_ARGUMENT_PARSER_H
