// RUN: moe-opt %s --moe-plan-capacity='tokens=1:4096 variants=rows6:6:ragged' | FileCheck %s

// For every routing: at most two rows a token, and no expert can be full.
// CHECK:      #[[ROWS:.*]] = affine_map<(d0) -> (d0 * 2)>
// CHECK:      moe.plan = #moe.plan<min = 1, max = 4096, workspace = {{[0-9]+}}
// CHECK-SAME: #moe.dispatch_plan<experts = 8, top_k = 2, rows = #[[ROWS]]
// CHECK-SAME: overflow = impossible
func.func @layer(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>) -> tensor<?x16xf32> {
  %rows, %offsets, %positions = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x2xi32>
  %y = moe.combine %rows, %positions : tensor<?x16xf32>, tensor<?x2xi32>
  return %y : tensor<?x16xf32>
}
