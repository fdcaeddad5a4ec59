//===- MoEABI.h - Names shared by passes and artifacts ----------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_IR_MOEABI_H
#define MOE_DIALECT_MOE_IR_MOEABI_H

#include "moe/Dialect/MoE/IR/MoE.h"

namespace mlir::moe {

//===----------------------------------------------------------------------===//
// Attributes of functions and modules
//===----------------------------------------------------------------------===//

/// SignatureAttr of an exported function.
inline constexpr StringLiteral signatureAttrName = "moe.signature";
/// PlanAttr of a function.
inline constexpr StringLiteral planAttrName = "moe.plan";
/// [min, max] of T in calls of a function.
inline constexpr StringLiteral tokensAttrName = "moe.tokens";
/// On an exported function: how rows enter its matmuls of quantised weights,
/// "exact" (the default) or "int8".
inline constexpr StringLiteral activationsAttrName = "moe.activations";
/// On an exported function: the format in which moe-quantize-weights rounds its
/// weights, as FormatAttr.
inline constexpr StringLiteral weightFormatAttrName = "moe.weight_format";
/// Unit: the tokens of a function do not depend on one another, so that a call
/// may skip the last ones.
inline constexpr StringLiteral independentTokensAttrName =
    "moe.independent_tokens";
/// On a layer: how its experts are spread over ranks, as ParallelAttr.
inline constexpr StringLiteral parallelAttrName = "moe.parallel";
/// On a module: how the runtime runs the parts of each layer that was split at
/// its exchanges, as `moe-split-at-exchanges` records it.
inline constexpr StringLiteral programsAttrName = "moe.programs";
/// On a backward function that runs over ranks: the forward function, whose
/// program keeps what it saves ("saved" in `moe.role`) for that of this one.
inline constexpr StringLiteral forwardAttrName = "moe.forward";
/// `moe.role` of a tensor that a forward function saves for its backward
/// function and that the runtime keeps between the two calls.
inline constexpr StringLiteral savedRole = "saved";
/// On an argument: the result that it is the memory of; on an exported
/// function: all such results.
inline constexpr StringLiteral accumulatesAttrName = "moe.accumulates";
/// On a function that packs weights: the exported function it packs them for.
inline constexpr StringLiteral preparesAttrName = "moe.prepares";
/// On an exported function: its stages on a CPU, an array of dictionaries
/// {name = "gate", kernels = ["f32_6x2x16", ...]}.
inline constexpr StringLiteral stagesAttrName = "moe.stages";
/// Unit: the last argument of a GPU kernel is the address (i64) of the number
/// of live tokens, or 0 if all are live.
inline constexpr StringLiteral liveTokensAttrName = "moe.live_tokens";
/// i64: bytes of dynamic shared memory of a GPU kernel.
inline constexpr StringLiteral sharedBytesAttrName = "moe.shared_bytes";
/// Array of symbols, of a GPU kernel: the kernels under whose launch, directly
/// before its own, it may begin (programmatic dependent launch).
inline constexpr StringLiteral primariesAttrName = "moe.primaries";
/// Array of #moe.tile of a moe.grouped_matmul: the tiles of its GPU kernels, by
/// ascending rows.
inline constexpr StringLiteral tilesAttrName = "moe.tiles";
/// Arrays of dictionaries: the PTX images of a module and the kernels in them.
inline constexpr StringLiteral imagesAttrName = "moe.images";
/// On a module: functions of the artifact whose code is that of another, a
/// dictionary from their names to {code = @function, sources = {argument =
/// ["tensor", ...]}}.
inline constexpr StringLiteral layersAttrName = "moe.layers";
inline constexpr StringLiteral kernelsAttrName = "moe.kernels";

/// Returns the signature of an exported function, or null.
inline SignatureAttr getSignature(Operation *function) {
  return function->getAttrOfType<SignatureAttr>(signatureAttrName);
}
inline bool isExported(Operation *function) {
  return function->hasAttr(signatureAttrName);
}
inline void setSignature(Operation *function, SignatureAttr signature) {
  function->setAttr(signatureAttrName, signature);
}

//===----------------------------------------------------------------------===//
// Symbols of an artifact
//===----------------------------------------------------------------------===//

/// Prefix of `i32 moe_entry_<name>(void **arguments, executor *)`.
inline constexpr StringLiteral entryPrefix = "moe_entry_";
/// Prefix of `i64 moe_workspace_<name>(i64 tokens)`, which returns bytes.
inline constexpr StringLiteral workspacePrefix = "moe_workspace_";

/// Returns the name of an element type in metadata, such as `bf16`; empty if
/// artifacts do not support the type.
StringRef getDTypeName(Type type);

} // namespace mlir::moe

#endif // MOE_DIALECT_MOE_IR_MOEABI_H
