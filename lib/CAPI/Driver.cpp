//===- Driver.cpp - Compile a module to an artifact -----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe-c/Driver.h"
#include "moe/Driver/Driver.h"

#include "mlir/CAPI/IR.h"
#include "mlir/CAPI/Support.h"

using namespace mlir;

using Artifact = SmallVector<char, 0>;

MoeArtifact moeCompile(MlirModule module, MlirStringRef options) {
  FailureOr<Artifact> artifact =
      moe::compileArtifact(unwrap(module), unwrap(options));
  return {failed(artifact) ? nullptr : new Artifact(std::move(*artifact))};
}

MlirStringRef moeArtifactGetBytes(MoeArtifact artifact) {
  auto &bytes = *static_cast<Artifact *>(artifact.ptr);
  return mlirStringRefCreate(bytes.data(), bytes.size());
}

void moeArtifactDestroy(MoeArtifact artifact) {
  delete static_cast<Artifact *>(artifact.ptr);
}
