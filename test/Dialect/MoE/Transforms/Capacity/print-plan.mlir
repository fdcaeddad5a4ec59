// RUN: moe-opt %s -moe-plan-capacity='tokens=1:64 flops=1TFLOP/s bandwidth=0.1TB/s' \
// RUN:   -moe-print-plan='flops=1TFLOP/s bandwidth=0.1TB/s' -o %t.mlir | FileCheck %s
// RUN: FileCheck %s --check-prefix=IR --input-file=%t.mlir
// RUN: moe-opt %s -moe-plan-capacity='tokens=1:64' -moe-print-plan='format=json' -o /dev/null | FileCheck %s --check-prefix=JSON

// A plan says what is in the attribute and what a call costs.
// CHECK:      plan of @layer for 1 to 64 tokens
// CHECK:        target             rates as given
// CHECK-NEXT:   peak rates         1e+12 FLOP/s in f32, 1e+11 byte/s
// CHECK:        dispatch 0: 4 experts, top_k 2
// CHECK:      T = 1:
// CHECK:      T = 64:
// A function without a plan has nothing to print.
// CHECK-NOT:  plan of

// IR:         func.func @layer({{.*}} attributes {moe.plan = #moe.plan<
// JSON:       "name": "layer"
func.func @layer(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>) -> tensor<?x16xf32> {
  %g, %o, %p = moe.dispatch %x, %ids experts(4) : tensor<?x16xf32>, tensor<?x2xi32>
  %y = moe.combine %g, %p : tensor<?x16xf32>, tensor<?x2xi32>
  return %y : tensor<?x16xf32>
}

func.func private @helper(%x: tensor<?x16xf32>) -> tensor<?x16xf32> {
  return %x : tensor<?x16xf32>
}
