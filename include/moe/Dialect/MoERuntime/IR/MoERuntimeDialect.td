//===- MoERuntimeDialect.td - The moe_rt dialect -----------*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOERUNTIME_IR_MOERUNTIMEDIALECT_TD
#define MOE_DIALECT_MOERUNTIME_IR_MOERUNTIMEDIALECT_TD

include "mlir/IR/OpBase.td"

def MoERuntime_Dialect : Dialect {
  let name = "moe_rt";
  let cppNamespace = "::mlir::moe_rt";
  let summary = "Host tasks and kernel launches of a compiled layer";
  let description = [{
    The operations with which a compiled layer runs code through the runtime.
    Passes create them; no layer is written with them.

    * `moe_rt.parallel` runs tasks on the threads of the host.
      `moe-forall-to-parallel` creates it, and `moe-outline-tasks` lowers it to
      a call of `parallel_for` (`moe_rt/executor.h`).
    * `moe_rt.launch` starts a GPU kernel, `moe_rt.multiprocessors` returns the
      number of multiprocessors. `convert-moe-to-gpu` and `moe-outline-kernels`
      create them, and `moe-launches-to-calls` lowers them to a call of the
      launcher and a load of its field (`moe_rt/launcher.h`).
  }];
  let useDefaultAttributePrinterParser = 1;
  let dependentDialects = ["::mlir::arith::ArithDialect",
                           "::mlir::tensor::TensorDialect"];
}

#endif // MOE_DIALECT_MOERUNTIME_IR_MOERUNTIMEDIALECT_TD
