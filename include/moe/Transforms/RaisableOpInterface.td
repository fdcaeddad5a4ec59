//===- RaisableOpInterface.td - Operations of others -------*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_TRANSFORMS_RAISABLEOPINTERFACE_TD
#define MOE_TRANSFORMS_RAISABLEOPINTERFACE_TD

include "mlir/IR/OpBase.td"

def RaisableOpInterface : OpInterface<"RaisableOpInterface"> {
  let description = [{
    An operation of another dialect that knows which operations of `moe` and of
    MLIR compute the same. `moe-raise-operations`, the first pass of every
    pipeline, replaces it by them. A dialect implements the interface in ODS or,
    where it must not depend on this project, by an external model.
  }];
  let cppNamespace = "::mlir::moe";
  let methods = [
    InterfaceMethod<[{
        Creates, at the insertion point of the rewriter, operations that compute
        the same, and returns a value for each result, of its type. If there are
        none, fails with the reason in `why`. Neither changes the operation
        itself nor erases another one.
      }],
      "::mlir::FailureOr<::mlir::SmallVector<::mlir::Value>>", "raise",
      (ins "::mlir::RewriterBase &":$rewriter, "std::string &":$why)>
  ];
}

#endif // MOE_TRANSFORMS_RAISABLEOPINTERFACE_TD
