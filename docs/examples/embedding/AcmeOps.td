// The dialect of a compiler that knows grouped products and routers of its own.

include "mlir/IR/OpBase.td"
include "mlir/Interfaces/SideEffectInterfaces.td"
include "moe/Transforms/RaisableOpInterface.td"

def Acme_Dialect : Dialect {
  let name = "acme";
  let cppNamespace = "::acme";
}

class Acme_Op<string mnemonic, list<Trait> traits = []>
    : Op<Acme_Dialect, mnemonic, traits # [Pure]>;

// It says itself how it is raised.
def Acme_RouterOp : Acme_Op<"router", [
    DeclareOpInterfaceMethods<RaisableOpInterface>]> {
  let summary = "weights and ids of the best `k` experts of each token";
  let arguments = (ins AnyRankedTensor:$x, AnyRankedTensor:$weights,
                       I64Attr:$k);
  let results = (outs AnyRankedTensor:$scores, AnyRankedTensor:$ids);
  let assemblyFormat = [{
    $x `,` $weights `best` $k attr-dict `:` functional-type(operands, results)
  }];
}

// It knows nothing of MoE; Acme.cpp attaches a model of the interface.
def Acme_GroupedProductOp : Acme_Op<"grouped_product"> {
  let summary = "multiply the rows of each group with its weights";
  let arguments = (ins AnyRankedTensor:$rows, AnyRankedTensor:$offsets,
                       AnyRankedTensor:$weights, UnitAttr:$saturate);
  let results = (outs AnyRankedTensor:$result);
  let assemblyFormat = [{
    $rows `,` $offsets `,` $weights (`saturate` $saturate^)? attr-dict `:`
    functional-type(operands, results)
  }];
}
