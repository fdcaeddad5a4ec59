// RUN: moe-opt %s -moe-export -moe-chunk-tokens=default-chunk | FileCheck %s

// 4 experts and 2 choices: 160 tokens give an expert 80 rows. A row takes 64 KiB for its result and 64 KiB for the
// product in the body, so that 30 MiB hold 120 tokens.
// CHECK-LABEL: func.func @layer(
// CHECK:         %[[STEP:.*]] = arith.constant 160 : index
// CHECK:         scf.for %{{.*}} = %{{.*}} to %{{.*}} step %[[STEP]]
// CHECK:           moe.dispatch
func.func @layer(%x: tensor<?x16384xf32>, %ids: tensor<?x2xi32>, %w: tensor<4x16384x16384xf32> {moe.role = "weight"}) -> tensor<?x16384xf32> {
  %grouped, %offsets, %positions = moe.dispatch %x, %ids experts(4) : tensor<?x16384xf32>, tensor<?x2xi32>
  %rows = moe.expert %grouped, %offsets params(%w : tensor<4x16384x16384xf32>) {
  ^bb0(%r: tensor<?x16384xf32>, %we: tensor<16384x16384xf32>):
    %c0 = arith.constant 0 : index
    %zero = arith.constant 0.0 : f32
    %n = tensor.dim %r, %c0 : tensor<?x16384xf32>
    %e = tensor.empty(%n) : tensor<?x16384xf32>
    %z = linalg.fill ins(%zero : f32) outs(%e : tensor<?x16384xf32>) -> tensor<?x16384xf32>
    %y = linalg.matmul ins(%r, %we : tensor<?x16384xf32>, tensor<16384x16384xf32>) outs(%z : tensor<?x16384xf32>) -> tensor<?x16384xf32>
    moe.yield %y : tensor<?x16384xf32>
  } : tensor<?x16384xf32>, tensor<5xi32> -> tensor<?x16384xf32>
  %y = moe.combine %rows, %positions : tensor<?x16384xf32>, tensor<?x2xi32>
  return %y : tensor<?x16384xf32>
}

// A row of 16 + 16 bytes: all 4,096 tokens need less than 30 MiB.
// CHECK-LABEL: func.func @small(
// CHECK-NOT:     scf.for
// CHECK:         return
func.func @small(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>) -> tensor<?x4xf32> attributes {moe.tokens = [0, 4096]} {
  %grouped, %offsets, %positions = moe.dispatch %x, %ids experts(4) : tensor<?x4xf32>, tensor<?x2xi32>
  %rows = moe.expert %grouped, %offsets {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<5xi32> -> tensor<?x4xf32>
  %y = moe.combine %rows, %positions : tensor<?x4xf32>, tensor<?x2xi32>
  return %y : tensor<?x4xf32>
}

// With a capacity tokens depend on one another.
// CHECK-LABEL: func.func @capacity(
// CHECK-NOT:     scf.for
// CHECK:         return
func.func @capacity(%x: tensor<?x4096xf32>, %ids: tensor<?x2xi32>) -> tensor<?x4096xf32> {
  %grouped, %offsets, %positions = moe.dispatch %x, %ids experts(4) capacity(<factor = 1.0>) : tensor<?x4096xf32>, tensor<?x2xi32>
  %rows = moe.expert %grouped, %offsets {
  ^bb0(%r: tensor<?x4096xf32>):
    moe.yield %r : tensor<?x4096xf32>
  } : tensor<?x4096xf32>, tensor<5xi32> -> tensor<?x4096xf32>
  %y = moe.combine %rows, %positions : tensor<?x4096xf32>, tensor<?x2xi32>
  return %y : tensor<?x4096xf32>
}
