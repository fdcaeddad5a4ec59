// RUN: moe-opt %s -convert-moe-to-gpu -canonicalize -cse | FileCheck %s
// RUN: moe-opt %s -convert-moe-to-gpu | wc -l | FileCheck %s --check-prefix=LINES

// A large top-k becomes a loop, so that the code size does not grow with it. Eight rows
// are loaded before the first is added; the remainder comes last.
// CHECK-LABEL: llvm.func @gather_sum(
// CHECK:         %[[SUM:.*]] = scf.for %[[K:.*]] = %c0_i64 to %c4000_i64 step %c8_i64 iter_args(%{{.*}} = %{{.*}}) -> (vector<4xf32>)
// CHECK-COUNT-8:   llvm.inline_asm has_side_effects {{.*}}@p ld.global.v4.b32
// CHECK-COUNT-8:   arith.addf
// CHECK:           scf.yield
// CHECK-COUNT-3: llvm.inline_asm has_side_effects {{.*}}@p ld.global.v4.b32
// CHECK-NOT:     llvm.inline_asm
// LINES: {{^[0-9]?[0-9]?[0-9]$}}
func.func @many(%x: tensor<?x4xf32>, %p: tensor<?x4003xi32>, %init: tensor<?x4xf32>) -> tensor<?x4xf32> {
  %y = moe.gather_sum %x, %p outs(%init : tensor<?x4xf32>) : tensor<?x4xf32>, tensor<?x4003xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}
