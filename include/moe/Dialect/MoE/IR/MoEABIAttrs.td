//===- MoEABIAttrs.td - Signatures of functions ------------*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_IR_MOEABIATTRS_TD
#define MOE_DIALECT_MOE_IR_MOEABIATTRS_TD

include "moe/Dialect/MoE/IR/MoEAttrs.td"

def MoE_ArgumentRole : MoE_I32Enum<"ArgumentRole",
    "what an argument of an exported function is for", [
  I32EnumAttrCase<"Input", 0, "input">,
  I32EnumAttrCase<"Weight", 1, "weight">,
  I32EnumAttrCase<"Prepared", 2, "prepared">,
  I32EnumAttrCase<"Output", 3, "output">,
  I32EnumAttrCase<"Offsets", 4, "offsets">,
  I32EnumAttrCase<"Counters", 5, "counters">
]>;

def MoE_ArgumentAttr : AttrDef<MoE_Dialect, "Argument"> {
  let mnemonic = "argument";
  let summary = "an argument of an exported function, as the runtime sees it";
  let description = [{
    The caller passes each `input` and `output`; the layer keeps each `weight`.
    A `prepared` argument is the result of the function `prepare` on the weights
    `sources`. The runtime reads `offsets` and `counters` of a dispatch after a
    call.

    A dynamic extent of `type` is the number of tokens. `num_experts` is the
    upper bound of ids in an input of expert ids, `source` lists the tensors of
    a checkpoint that a weight is stacked from, and `convert` allows other
    element types there. `source_format` is what the file calls the format of
    their blocks, e.g. "q4_K": blocks of other formats may have as many bytes.
    Only preparations read a weight that is not `retained`.
    The caller aligns the data to `alignment` bytes. Calls do not read a
    prepared argument that `measures` the relative error of a quantised weight,
    one number for each expert.

    Example: `#moe.argument<name = "x", role = input, type =
    tensor<?x64xbf16>>`.
  }];
  let parameters = (ins
    "StringAttr":$name, "ArgumentRole":$role, "RankedTensorType":$type,
    DefaultValuedParameter<"int64_t", "0">:$num_experts,
    OptionalParameter<"ArrayAttr">:$source,
    OptionalParameter<"StringAttr">:$source_format,
    DefaultValuedParameter<"bool", "false">:$convert,
    DefaultValuedParameter<"bool", "true">:$retained,
    DefaultValuedParameter<"int64_t", "0">:$alignment,
    OptionalParameter<"StringAttr">:$prepare,
    OptionalParameter<"ArrayAttr">:$sources,
    OptionalParameter<"StringAttr">:$measures);
  let builders = [AttrBuilderWithInferredContext<
    (ins "StringAttr":$name, "ArgumentRole":$role, "RankedTensorType":$type), [{
      return $_get(name.getContext(), name, role, type, 0, ArrayAttr(),
                   StringAttr(), false, true, 0, StringAttr(), ArrayAttr(),
                   StringAttr());
    }]>];
  let assemblyFormat = "`<` struct(params) `>`";
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    /// True if the runtime reads the argument after a call.
    bool isReport() const {
      return getRole() == ArgumentRole::Offsets ||
             getRole() == ArgumentRole::Counters;
    }
    ArgumentAttr withAlignment(int64_t bytes) const;
    ArgumentAttr withRetained(bool retained) const;
  }];
}

def MoE_DispatchReportAttr : AttrDef<MoE_Dialect, "DispatchReport"> {
  let mnemonic = "dispatch_report";
  let summary = "where a call reports what a dispatch did";
  let description = [{
    `offsets` and `counters` name arguments. Without `counters` no choice can be
    invalid or dropped.
  }];
  let parameters = (ins "int64_t":$num_experts, "int64_t":$top_k,
                        "StringAttr":$offsets,
                        OptionalParameter<"StringAttr">:$counters);
  let assemblyFormat = "`<` struct(params) `>`";
}

def MoE_SignatureAttr : AttrDef<MoE_Dialect, "Signature"> {
  let mnemonic = "signature";
  let summary = "the calling convention of an exported function";
  let description = [{
    `arguments` has a `#moe.argument` for each argument of the function that the
    caller or the layer provides, in order; `dispatches` has a
    `#moe.dispatch_report` for each `moe.dispatch` at the top level of the
    function. The metadata of an artifact is made from it.
  }];
  let parameters = (ins OptionalParameter<"ArrayAttr">:$arguments,
                        OptionalParameter<"ArrayAttr">:$dispatches);
  let assemblyFormat = "(`<` struct(params)^ `>`)?";
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    size_t getNumArguments() const {
      return getArguments() ? getArguments().size() : 0;
    }
    /// Returns the argument at an index; null if out of range.
    ArgumentAttr getArgument(size_t index) const;
    SignatureAttr withArguments(llvm::ArrayRef<Attribute> arguments) const;
  }];
}

#endif // MOE_DIALECT_MOE_IR_MOEABIATTRS_TD
