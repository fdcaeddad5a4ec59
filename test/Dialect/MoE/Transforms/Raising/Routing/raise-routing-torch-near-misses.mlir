// Programs that look like transformers' "grouped_mm" experts and are none: the
// layer in Inputs, as torch-mlir imports it, changed in one place.

// RUN: moe-opt %S/Inputs/torch-layer.mlir --allow-unregistered-dialect --moe-raise-routing | FileCheck %s

// CHECK: moe.gate
// CHECK: moe.dispatch
// CHECK: moe.combine %{{.*}} weights(

// The smallest scores, and the largest along the tokens.
// RUN: sed 's/topk"(%7, %8, %5, %9, %9)/topk"(%7, %8, %5, %6, %9)/' %S/Inputs/torch-layer.mlir | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/topk"(%7, %8, %5, %9, %9)/topk"(%7, %8, %1, %9, %9)/' %S/Inputs/torch-layer.mlir | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE

// NONE-NOT: moe.
// NONE:     "torch.aten.topk"
// NONE-NOT: moe.

// The last expert first; twice as many tokens as there are; the places of
// another order; a sum over the tokens.
// RUN: sed 's/sort"(%17, %5, %6)/sort"(%17, %5, %9)/' %S/Inputs/torch-layer.mlir | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=GATE
// RUN: sed 's/NumToTensor.Scalar"(%8)/NumToTensor.Scalar"(%0)/' %S/Inputs/torch-layer.mlir | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=TOKENS
// RUN: sed 's/index_put"(%47, %25, %49, %6)/index_put"(%47, %25, %49, %9)/' %S/Inputs/torch-layer.mlir | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=SUM
// RUN: sed 's/%56 = "torch.prim.ListConstruct"(%0)/%56 = "torch.prim.ListConstruct"(%1)/' %S/Inputs/torch-layer.mlir | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=SUM

// GATE:     moe.gate
// GATE-NOT: {{moe.(dispatch|combine)}}
// GATE:     "torch.aten.sum.dim_IntList"
// GATE-NOT: {{moe.(dispatch|combine)}}

// PyTorch's sort may order the choices of an expert otherwise than ours: what is
// left of its uses has ours.
// TOKENS:     moe.route
// TOKENS-NOT: moe.dispatch
// TOKENS:     linalg.generic
// TOKENS:       tensor.extract
// TOKENS:     "torch.aten.div.Tensor_mode"
// TOKENS:     moe.combine

// SUM-NOT: {{"torch.aten.sort|moe.combine}}
// SUM:     moe.dispatch
// SUM-NOT: {{"torch.aten.sort|moe.combine}}
// SUM:     "torch.aten.sum.dim_IntList"
// SUM-NOT: {{"torch.aten.sort|moe.combine}}

// Bins that are not the experts: the ends stay those of the program.
// RUN: sed 's/%29 = "torch.constant.int"() <{value = 7/%29 = "torch.constant.int"() <{value = 6/' %S/Inputs/torch-layer.mlir | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=BINS

// BINS:     moe.dispatch
// BINS:     "torch.operator"{{.*}}"torch.aten.histc"
// BINS:     moe.combine

// Weights in the order of the choices for rows in that of the experts: the sum
// has none of its own.
// RUN: sed 's/unsqueeze"(%26, %5)/unsqueeze"(%18, %5)/' %S/Inputs/torch-layer.mlir | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=WEIGHTS

// WEIGHTS:     moe.dispatch
// WEIGHTS:     "torch.aten.mul.Tensor"
// WEIGHTS:     moe.combine %{{[a-z0-9]+}}, %{{[a-z_0-9]+}} :
