// Two-level mixture (Tensor2Tensor): two of four groups, then two of the
// group's four experts; the gates multiply.
// RUN: moe-compile %s -o %t.moe

#lhs = affine_map<(m, n, k) -> (m, k)>
#rhs_t = affine_map<(m, n, k) -> (n, k)>
#out = affine_map<(m, n, k) -> (m, n)>
#id = affine_map<(i, j) -> (i, j)>

func.func @layer(
    %x: tensor<?x24xf32> {moe.role = "input", moe.name = "x"},
    %router: tensor<4x24xf32> {moe.role = "weight", moe.name = "router"},
    %secondary_router: tensor<4x4x24xf32> {moe.role = "weight", moe.name = "secondary_router"},
    %wi: tensor<16x40x24xf32> {moe.role = "weight", moe.name = "wi"},
    %wo: tensor<16x24x40xf32> {moe.role = "weight", moe.name = "wo"})
    -> (tensor<?x24xf32>) {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %t = tensor.dim %x, %c0 : tensor<?x24xf32>
  %empty = tensor.empty(%t) : tensor<?x4xf32>
  %zeros = linalg.fill ins(%zero : f32) outs(%empty : tensor<?x4xf32>) -> tensor<?x4xf32>
  %logits = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out]
      ins(%x, %router : tensor<?x24xf32>, tensor<4x24xf32>) outs(%zeros : tensor<?x4xf32>) -> tensor<?x4xf32>
  %weights, %ids = moe.gate %logits top_k(2) order(select_then_score) : tensor<?x4xf32>
  %grouped, %offsets, %positions = moe.dispatch %x, %ids experts(4)
      : tensor<?x24xf32>, tensor<?x2xi32>
  %secondary_logits = moe.expert %grouped, %offsets
      params(%secondary_router
             : tensor<4x4x24xf32>) {
  ^bb0(%rows: tensor<?x24xf32>, %secondary_router_e: tensor<4x24xf32>):
    %n = tensor.dim %rows, %c0 : tensor<?x24xf32>
    %empty_1 = tensor.empty(%n) : tensor<?x4xf32>
    %zeros_1 = linalg.fill ins(%zero : f32) outs(%empty_1 : tensor<?x4xf32>) -> tensor<?x4xf32>
    %s = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out]
        ins(%rows, %secondary_router_e : tensor<?x24xf32>, tensor<4x24xf32>) outs(%zeros_1 : tensor<?x4xf32>) -> tensor<?x4xf32>
    moe.yield %s : tensor<?x4xf32>
  } : tensor<?x24xf32>, tensor<5xi32> -> tensor<?x4xf32>
  %rows_total = tensor.dim %grouped, %c0 : tensor<?x24xf32>
  %weights_1, %ids_1 = moe.gate %secondary_logits top_k(2) order(select_then_score) : tensor<?x4xf32>
  %empty_2 = tensor.empty(%rows_total) : tensor<?x2xi32>
  %ids_global = linalg.generic {indexing_maps = [#id, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%ids_1 : tensor<?x2xi32>) outs(%empty_2 : tensor<?x2xi32>) {
  ^bb0(%a: i32, %old: i32):
    %i = linalg.index 0 : index
    %row = arith.index_cast %i : index to i32
    %size = arith.constant 4 : i32
    %c1 = arith.constant 1 : index
    %o1 = tensor.extract %offsets[%c1] : tensor<5xi32>
    %p1 = arith.cmpi sge, %row, %o1 : i32
    %q1 = arith.extui %p1 : i1 to i32
    %c2 = arith.constant 2 : index
    %o2 = tensor.extract %offsets[%c2] : tensor<5xi32>
    %p2 = arith.cmpi sge, %row, %o2 : i32
    %q2 = arith.extui %p2 : i1 to i32
    %c3 = arith.constant 3 : index
    %o3 = tensor.extract %offsets[%c3] : tensor<5xi32>
    %p3 = arith.cmpi sge, %row, %o3 : i32
    %q3 = arith.extui %p3 : i1 to i32
    %s1 = arith.addi %q1, %q2 : i32
    %g = arith.addi %s1, %q3 : i32
    %base = arith.muli %g, %size : i32
    %r = arith.addi %base, %a : i32
    linalg.yield %r : i32
  } -> tensor<?x2xi32>
  %grouped_1, %offsets_1, %positions_1 = moe.dispatch %grouped, %ids_global experts(16)
      : tensor<?x24xf32>, tensor<?x2xi32>
  %expert_rows = moe.expert %grouped_1, %offsets_1
      params(%wi, %wo
             : tensor<16x40x24xf32>, tensor<16x24x40xf32>) {
  ^bb0(%rows_1: tensor<?x24xf32>, %wi_e: tensor<40x24xf32>, %wo_e: tensor<24x40xf32>):
    %n_1 = tensor.dim %rows_1, %c0 : tensor<?x24xf32>
    %empty_3 = tensor.empty(%n_1) : tensor<?x40xf32>
    %zeros_2 = linalg.fill ins(%zero : f32) outs(%empty_3 : tensor<?x40xf32>) -> tensor<?x40xf32>
    %u = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out]
        ins(%rows_1, %wi_e : tensor<?x24xf32>, tensor<40x24xf32>) outs(%zeros_2 : tensor<?x40xf32>) -> tensor<?x40xf32>
    %empty_4 = tensor.empty(%n_1) : tensor<?x40xf32>
    %h = linalg.generic {indexing_maps = [#id, #id],
        iterator_types = ["parallel", "parallel"]}
        ins(%u : tensor<?x40xf32>) outs(%empty_4 : tensor<?x40xf32>) {
    ^bb0(%a: f32, %old: f32):
      %z = arith.constant 0.0 : f32
      %r = arith.maximumf %a, %z : f32
      linalg.yield %r : f32
    } -> tensor<?x40xf32>
    %empty_5 = tensor.empty(%n_1) : tensor<?x24xf32>
    %zeros_3 = linalg.fill ins(%zero : f32) outs(%empty_5 : tensor<?x24xf32>) -> tensor<?x24xf32>
    %d = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out]
        ins(%h, %wo_e : tensor<?x40xf32>, tensor<24x40xf32>) outs(%zeros_3 : tensor<?x24xf32>) -> tensor<?x24xf32>
    moe.yield %d : tensor<?x24xf32>
  } : tensor<?x24xf32>, tensor<17xi32> -> tensor<?x24xf32>
  %y = moe.combine %expert_rows, %positions_1 weights(%weights_1 : tensor<?x2xf32>)
      : tensor<?x24xf32>, tensor<?x2xi32>
  %y_tokens = moe.combine %y, %positions weights(%weights : tensor<?x2xf32>)
      : tensor<?x24xf32>, tensor<?x2xi32>
  return %y_tokens : tensor<?x24xf32>
}
