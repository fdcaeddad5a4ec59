//===- MoERuntimeOps.td - Tasks and launches ---------------*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOERUNTIME_IR_MOERUNTIMEOPS_TD
#define MOE_DIALECT_MOERUNTIME_IR_MOERUNTIMEOPS_TD

include "moe/Dialect/MoERuntime/IR/MoERuntimeDialect.td"
include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/SymbolInterfaces.td"
include "mlir/Interfaces/ControlFlowInterfaces.td"
include "mlir/Interfaces/DestinationStyleOpInterface.td"
include "mlir/Interfaces/InferTypeOpInterface.td"
include "mlir/Interfaces/SideEffectInterfaces.td"

class MoERuntime_Op<string mnemonic, list<Trait> traits = []>
    : Op<MoERuntime_Dialect, mnemonic, traits>;

//===----------------------------------------------------------------------===//
// moe_rt.parallel
//===----------------------------------------------------------------------===//

def MoERuntime_ParallelOp
    : MoERuntime_Op<"parallel", [RecursiveMemoryEffects]> {
  let summary = "run tasks through the executor of the runtime";
  let description = [{
    Runs the region once for each `i64` from 0 to `count`, in any order and at
    the same time, by the executor that the runtime passes in (`moe_rt_executor`
    of `moe_rt/executor.h`, never null); a single task runs in the calling
    thread. `moe-outline-tasks` turns it into a function and a call.

    ```mlir
    func.func @clear(%executor: !llvm.ptr, %tasks: i64, %y: memref<?xf32>) {
      %zero = arith.constant 0.0 : f32
      moe_rt.parallel %executor, %tasks {
      ^bb0(%task: i64):
        %i = arith.index_cast %task : i64 to index
        memref.store %zero, %y[%i] : memref<?xf32>
        moe_rt.done
      } : !llvm.ptr
      return
    }
    ```
  }];
  let arguments = (ins AnyType:$executor, I64:$count);
  let regions = (region MinSizedRegion<1>:$body);
  let assemblyFormat = [{
    $executor `,` $count $body attr-dict `:` type($executor)
  }];
  let hasRegionVerifier = 1;
}

def MoERuntime_DoneOp : MoERuntime_Op<"done", [
    Pure, ReturnLike, Terminator, HasParent<"::mlir::moe_rt::ParallelOp">]> {
  let summary = "end a task of moe_rt.parallel";
  let assemblyFormat = "attr-dict";
}

//===----------------------------------------------------------------------===//
// moe_rt.stage
//===----------------------------------------------------------------------===//

def MoERuntime_StageOp : MoERuntime_Op<"stage", [MemoryEffects<[MemWrite]>]> {
  let summary = "tell the runtime that a stage begins";
  let description = [{
    From here on the function runs stage `index` of its `moe.stages`, until
    another one begins or it returns. `executor` is the last argument of an
    entry point, which has the function to call if the runtime profiles the call
    (`moe_rt_tasks_t` of `moe_rt/abi.h`); otherwise nothing happens.

    ```mlir
    func.func @layer(%executor: !llvm.ptr) {
      moe_rt.stage %executor, 0 : !llvm.ptr
      return
    }
    ```
  }];
  let arguments = (ins AnyType:$executor,
                       ConfinedAttr<I64Attr, [IntNonNegative]>:$index);
  let assemblyFormat = "$executor `,` $index attr-dict `:` type($executor)";
}

//===----------------------------------------------------------------------===//
// #moe_rt.tensor_map
//===----------------------------------------------------------------------===//

def MoERuntime_TensorMapAttr : AttrDef<MoERuntime_Dialect, "TensorMap"> {
  let mnemonic = "tensor_map";
  let summary = "how a kernel's bulk copies see an operand";
  let description = [{
    Operand `input` of a `moe_rt.launch` as a tensor map, an argument of the
    kernel ahead of all others: copies of `box` elements, outermost dimension
    first, as in the type of the operand, that lie in shared memory swizzled
    over `swizzle` bytes (0, 32, 64 or 128).
  }];
  let parameters = (ins "int64_t":$input, ArrayRefParameter<"int64_t">:$box,
                        "int64_t":$swizzle);
  let assemblyFormat =
      "`<` `input` `=` $input `,` `box` `=` `[` $box `]` `,` "
      "`swizzle` `=` $swizzle `>`";
  let genVerifyDecl = 1;
}
def MoERuntime_TensorMapArrayAttr
    : TypedArrayAttrBase<MoERuntime_TensorMapAttr, "array of tensor maps">;

//===----------------------------------------------------------------------===//
// moe_rt.launch
//===----------------------------------------------------------------------===//

def MoERuntime_DeviceData : AnyTypeOf<[AnyRankedTensor, AnyMemRef],
    "ranked tensor or memref">;

def MoERuntime_LaunchOp : MoERuntime_Op<"launch", [
    AttrSizedOperandSegments, DestinationStyleOpInterface,
    DeclareOpInterfaceMethods<SymbolUserOpInterface>,
    DeclareOpInterfaceMethods<MemoryEffectsOpInterface, ["getEffects"]>,
    DeclareOpInterfaceMethods<ReifyRankedShapedTypeOpInterface,
                              ["reifyResultShapes"]>]> {
  let summary = "start a kernel on the device";
  let description = [{
    Runs the kernel `kernel`, a function of the LLVM dialect in a `gpu.module`,
    with a grid of `blocks` blocks, behind the launches before it. The arguments
    of the kernel are, in order: a tensor map for each of `maps`; a pointer to
    the first element of each of `ins`, then of each of `outs`, all of them
    compact; and the `scalars`, `index` as i64. The block size, the bytes of
    dynamic shared memory (`moe.shared_bytes`) and the size of a cluster are
    attributes of the kernel. With no blocks nothing runs.

    ```mlir
    module {
      gpu.module @kernels {
        llvm.func @copy(%x: !llvm.ptr<1>, %y: !llvm.ptr<1>, %n: i64) attributes
            {gpu.kernel, nvvm.kernel, nvvm.maxntid = array<i32: 128>} {
          llvm.return
        }
      }
      func.func @layer(%x: tensor<?xf32>, %init: tensor<?xf32>, %n: index)
          -> tensor<?xf32> {
        %y = moe_rt.launch @kernels::@copy blocks(%n) ins(%x : tensor<?xf32>)
          outs(%init : tensor<?xf32>) scalars(%n : index) -> tensor<?xf32>
        return %y : tensor<?xf32>
      }
    }
    ```
  }];
  let arguments = (ins
    SymbolRefAttr:$kernel, Index:$blocks,
    Variadic<MoERuntime_DeviceData>:$inputs,
    Variadic<MoERuntime_DeviceData>:$inits, Variadic<AnyType>:$scalars,
    OptionalAttr<MoERuntime_TensorMapArrayAttr>:$maps);
  let results = (outs Variadic<AnyRankedTensor>:$outputs);
  let assemblyFormat = [{
    $kernel `blocks` `(` $blocks `)` (`ins` `(` $inputs^ `:` type($inputs) `)`)?
    (`outs` `(` $inits^ `:` type($inits) `)`)?
    (`scalars` `(` $scalars^ `:` type($scalars) `)`)?
    (`maps` `(` $maps^ `)`)? attr-dict (`->` type($outputs)^)?
  }];
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    MutableOperandRange getDpsInitsMutable() { return getInitsMutable(); }
  }];
}

//===----------------------------------------------------------------------===//
// moe_rt.multiprocessors
//===----------------------------------------------------------------------===//

def MoERuntime_MultiprocessorsOp : MoERuntime_Op<"multiprocessors", [Pure]> {
  let summary = "how many multiprocessors the device has";
  let description = [{
    What the runtime passes in, at least 1: kernels that take one tile after the
    other start as many blocks as run at once.

    ```mlir
    %count = moe_rt.multiprocessors
    ```
  }];
  let results = (outs Index:$count);
  let assemblyFormat = "attr-dict";
}

#endif // MOE_DIALECT_MOERUNTIME_IR_MOERUNTIMEOPS_TD
