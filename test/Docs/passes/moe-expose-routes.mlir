// RUN: moe-opt %s --moe-expose-routes=mode=record | FileCheck %s

// The layer also returns where its tokens go.
// CHECK-LABEL: func @layer(
// CHECK-SAME:    -> (tensor<?x16xf32> {moe.name = "y"}, tensor<?x2xi32> {moe.name = "route_ids"}, tensor<?x2xf32> {moe.name = "route_weights"})
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate
// CHECK:         return %{{.*}}, %[[IDS]], %[[W]]
func.func @layer(%x: tensor<?x16xf32>, %logits: tensor<?x8xf32>) -> tensor<?x16xf32> {
  %w, %ids = moe.gate %logits top_k(2) : tensor<?x8xf32>
  %grouped, %offsets, %positions = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x2xi32>
  %y = moe.combine %grouped, %positions weights(%w : tensor<?x2xf32>) : tensor<?x16xf32>, tensor<?x2xi32>
  return %y : tensor<?x16xf32>
}
