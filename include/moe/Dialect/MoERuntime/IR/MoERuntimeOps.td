//===- MoEDeviceOps.td - Kernels and their launches --------*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_IR_MOEDEVICEOPS_TD
#define MOE_DIALECT_MOE_IR_MOEDEVICEOPS_TD

include "moe/Dialect/MoE/IR/MoEDialect.td"
include "moe/Dialect/MoE/IR/MoEAttrs.td"
include "mlir/Interfaces/DestinationStyleOpInterface.td"
include "mlir/Interfaces/InferTypeOpInterface.td"
include "mlir/Interfaces/SideEffectInterfaces.td"
include "mlir/IR/SymbolInterfaces.td"

//===----------------------------------------------------------------------===//
// #moe.tensor_map
//===----------------------------------------------------------------------===//

def MoE_TensorMapAttr : AttrDef<MoE_Dialect, "TensorMap"> {
  let mnemonic = "tensor_map";
  let summary = "how a kernel's bulk copies see an operand";
  let description = [{
    Operand `input` of a `moe.launch` as a tensor map, an argument of the kernel
    ahead of all others: copies of `box` elements, outermost dimension first, as
    in the type of the operand, that lie in shared memory swizzled over
    `swizzle` bytes (0, 32, 64 or 128).
  }];
  let parameters = (ins "int64_t":$input, ArrayRefParameter<"int64_t">:$box,
                        "int64_t":$swizzle);
  let assemblyFormat =
      "`<` `input` `=` $input `,` `box` `=` `[` $box `]` `,` "
      "`swizzle` `=` $swizzle `>`";
  let genVerifyDecl = 1;
}
def MoE_TensorMapArrayAttr
    : TypedArrayAttrBase<MoE_TensorMapAttr, "array of tensor maps">;

//===----------------------------------------------------------------------===//
// moe.launch
//===----------------------------------------------------------------------===//

def MoE_DeviceData : AnyTypeOf<[AnyRankedTensor, AnyMemRef],
    "ranked tensor or memref">;

def MoE_LaunchOp : MoE_Op<"launch", [
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

    ```
    gpu.module @kernels {
      llvm.func @copy(%x: !llvm.ptr<1>, %y: !llvm.ptr<1>, %n: i64)
          attributes {gpu.kernel, nvvm.kernel, nvvm.maxntid = array<i32: 128>} {
        llvm.return
      }
    }
    func.func @layer(%x: tensor<?xf32>, %init: tensor<?xf32>, %n: index)
        -> tensor<?xf32> {
      %y = moe.launch @kernels::@copy blocks(%n) ins(%x : tensor<?xf32>)
        outs(%init : tensor<?xf32>) scalars(%n : index) -> tensor<?xf32>
      return %y : tensor<?xf32>
    }
    ```
  }];
  let arguments = (ins
    SymbolRefAttr:$kernel, Index:$blocks, Variadic<MoE_DeviceData>:$inputs,
    Variadic<MoE_DeviceData>:$inits, Variadic<AnyType>:$scalars,
    OptionalAttr<MoE_TensorMapArrayAttr>:$maps);
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
// moe.multiprocessors
//===----------------------------------------------------------------------===//

def MoE_MultiprocessorsOp : MoE_Op<"multiprocessors", [Pure]> {
  let summary = "how many multiprocessors the device has";
  let description = [{
    What the runtime passes in, at least 1: kernels that take one tile after the
    other start as many blocks as run at once.
  }];
  let results = (outs Index:$count);
  let assemblyFormat = "attr-dict";
}

#endif // MOE_DIALECT_MOE_IR_MOEDEVICEOPS_TD
