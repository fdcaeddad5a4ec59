//===- BufferizableOpInterfaceImpl.h - Bufferization ------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_TRANSFORMS_BUFFERIZABLEOPINTERFACEIMPL_H
#define MOE_DIALECT_MOE_TRANSFORMS_BUFFERIZABLEOPINTERFACEIMPL_H

namespace mlir {
class DialectRegistry;

namespace moe {

/// Attach BufferizableOpInterface to the moe operations.
///
/// They are operations on tensors: like `linalg.softmax`, they are decomposed
/// (`convert-moe-to-linalg`, or linalg's AggregatedOpInterface) before buffers
/// come in. The interface gives the analysis what it needs to reason about a
/// function that still has them (operands are read, results are new), and turns
/// the attempt to bufferize one into an error that says what to run.
void registerBufferizableOpInterfaceExternalModels(DialectRegistry &registry);

} // namespace moe
} // namespace mlir

#endif // MOE_DIALECT_MOE_TRANSFORMS_BUFFERIZABLEOPINTERFACEIMPL_H
