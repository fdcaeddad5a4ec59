// RUN: moe-opt %s -moe-expert-to-grouped | FileCheck %s
// RUN: moe-opt %s -moe-expert-to-grouped --remarks-filter-missed=moe-fuse -o /dev/null 2>&1 | FileCheck %s --check-prefix=MISSED

// MISSED: [Missed] ExpertNotGrouped | Category:moe-fuse | Function=row_vector | Remark="not fused: an elementwise operation indexes a value from outside by the row within the expert"

// An element for each row of an expert: among all rows it is another one.
// CHECK-LABEL: func.func @row_vector(
// CHECK:         moe.expert
// CHECK-NOT:     moe.grouped_matmul
func.func @row_vector(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %v: tensor<?xf32>) -> tensor<?x4xf32> {
  %y = moe.expert %x, %o {
  ^bb0(%r: tensor<?x4xf32>):
    %s = linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i)>, affine_map<(i, j) -> (i, j)>], iterator_types = ["parallel", "parallel"]}
      ins(%r, %v : tensor<?x4xf32>, tensor<?xf32>) outs(%r : tensor<?x4xf32>) {
    ^bb0(%a: f32, %d: f32, %u: f32):
      %t = arith.mulf %a, %d : f32
      linalg.yield %t : f32
    } -> tensor<?x4xf32>
    moe.yield %s : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}
