// RUN: moe-opt %s -moe-plan-capacity='tokens=0:1000 memory-limit=8KiB flops=1e12 bandwidth=1e11' | FileCheck %s
// RUN: moe-opt %s -moe-plan-capacity='tokens=0:1000 memory-limit=8KiB flops=1e12 bandwidth=1e11' -moe-reference-to-buffers | FileCheck %s --check-prefix=CODE
// RUN: moe-opt %s -moe-plan-capacity='tokens=0:10 memory-limit=1MB flops=1e12 bandwidth=1e11' | FileCheck %s --check-prefix=ALL
// RUN: not moe-opt %s -moe-plan-capacity='tokens=0:1000 memory-limit=100 flops=1e12 bandwidth=1e11' 2>&1 | FileCheck %s --check-prefix=NONE

// The largest chunk: with one token more it would be above the limit.
// CHECK:       func.func @layer(
// CHECK-SAME:    moe.plan = #moe.plan<min = 0, max = 1000, chunk = [[#CHUNK:]], workspace = [[#BYTES:]],
// CHECK-SAME:    #moe.tile_range<min = 0,
// CHECK-SAME:    max = [[#CHUNK]], variant
// CODE:        func.func @layer(
// CODE:          scf.for
// ALL:         #moe.plan<min = 0, max = 10, workspace
// NONE:        error: expected a memory limit of at least [[#]] bytes for 1000 tokens, got 100
// NONE:        note: this limit allows chunks of one token
func.func @layer(%l: tensor<?x4xf32>, %x: tensor<?x16xf32>) -> tensor<?x16xf32> {
  %weights, %ids = moe.gate %l top_k(2) : tensor<?x4xf32>
  %g, %o, %p = moe.dispatch %x, %ids experts(4) : tensor<?x16xf32>, tensor<?x2xi32>
  %y = moe.combine %g, %p weights(%weights : tensor<?x2xf32>) : tensor<?x16xf32>, tensor<?x2xi32>
  return %y : tensor<?x16xf32>
}
