//===- TilingInterfaceImpl.h - Tiling of moe operations ---------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_TRANSFORMS_TILINGINTERFACEIMPL_H
#define MOE_DIALECT_MOE_TRANSFORMS_TILINGINTERFACEIMPL_H

namespace mlir {
class DialectRegistry;

namespace moe {

/// Attaches TilingInterface to moe.gate (over tokens) and moe.combine (over
/// tokens and columns).
void registerTilingInterfaceExternalModels(DialectRegistry &registry);

} // namespace moe
} // namespace mlir

#endif // MOE_DIALECT_MOE_TRANSFORMS_TILINGINTERFACEIMPL_H
