// Residual (PR-)MoE: c0 * moe + c1 * mlp with c = softmax(x Wc).
// RUN: moe-compile %s -o %t.moe

#lhs = affine_map<(m, n, k) -> (m, k)>
#rhs_t = affine_map<(m, n, k) -> (n, k)>
#out = affine_map<(m, n, k) -> (m, n)>
#id = affine_map<(i, j) -> (i, j)>
#first = affine_map<(i, j) -> (i, 0)>
#second = affine_map<(i, j) -> (i, 1)>

func.func @layer(
    %x: tensor<?x24xf32> {moe.role = "input", moe.name = "x"},
    %router: tensor<8x24xf32> {moe.role = "weight", moe.name = "router"},
    %wi: tensor<8x40x24xf32> {moe.role = "weight", moe.name = "wi"},
    %wo: tensor<8x24x40xf32> {moe.role = "weight", moe.name = "wo"},
    %mlp_wi: tensor<28x24xf32> {moe.role = "weight", moe.name = "mlp_wi"},
    %mlp_wo: tensor<24x28xf32> {moe.role = "weight", moe.name = "mlp_wo"},
    %coefficient: tensor<2x24xf32> {moe.role = "weight", moe.name = "coefficient"})
    -> (tensor<?x24xf32>) {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %t = tensor.dim %x, %c0 : tensor<?x24xf32>
  %empty = tensor.empty(%t) : tensor<?x8xf32>
  %zeros = linalg.fill ins(%zero : f32) outs(%empty : tensor<?x8xf32>) -> tensor<?x8xf32>
  %logits = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out]
      ins(%x, %router : tensor<?x24xf32>, tensor<8x24xf32>) outs(%zeros : tensor<?x8xf32>) -> tensor<?x8xf32>
  %weights, %ids = moe.gate %logits top_k(1) : tensor<?x8xf32>
  %grouped, %offsets, %positions = moe.dispatch %x, %ids experts(8)
      : tensor<?x24xf32>, tensor<?x1xi32>
  %expert_rows = moe.expert %grouped, %offsets
      params(%wi, %wo
             : tensor<8x40x24xf32>, tensor<8x24x40xf32>) {
  ^bb0(%rows: tensor<?x24xf32>, %wi_e: tensor<40x24xf32>, %wo_e: tensor<24x40xf32>):
    %n = tensor.dim %rows, %c0 : tensor<?x24xf32>
    %empty_1 = tensor.empty(%n) : tensor<?x40xf32>
    %zeros_1 = linalg.fill ins(%zero : f32) outs(%empty_1 : tensor<?x40xf32>) -> tensor<?x40xf32>
    %u = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out]
        ins(%rows, %wi_e : tensor<?x24xf32>, tensor<40x24xf32>) outs(%zeros_1 : tensor<?x40xf32>) -> tensor<?x40xf32>
    %empty_2 = tensor.empty(%n) : tensor<?x40xf32>
    %h = linalg.generic {indexing_maps = [#id, #id],
        iterator_types = ["parallel", "parallel"]}
        ins(%u : tensor<?x40xf32>) outs(%empty_2 : tensor<?x40xf32>) {
    ^bb0(%a: f32, %old: f32):
      %z = arith.constant 0.0 : f32
      %r = arith.maximumf %a, %z : f32
      linalg.yield %r : f32
    } -> tensor<?x40xf32>
    %empty_3 = tensor.empty(%n) : tensor<?x24xf32>
    %zeros_2 = linalg.fill ins(%zero : f32) outs(%empty_3 : tensor<?x24xf32>) -> tensor<?x24xf32>
    %d = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out]
        ins(%h, %wo_e : tensor<?x40xf32>, tensor<24x40xf32>) outs(%zeros_2 : tensor<?x24xf32>) -> tensor<?x24xf32>
    moe.yield %d : tensor<?x24xf32>
  } : tensor<?x24xf32>, tensor<9xi32> -> tensor<?x24xf32>
  %y = moe.combine %expert_rows, %positions weights(%weights : tensor<?x1xf32>)
      : tensor<?x24xf32>, tensor<?x1xi32>
  %empty_4 = tensor.empty(%t) : tensor<?x28xf32>
  %zeros_3 = linalg.fill ins(%zero : f32) outs(%empty_4 : tensor<?x28xf32>) -> tensor<?x28xf32>
  %u_1 = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out]
      ins(%x, %mlp_wi : tensor<?x24xf32>, tensor<28x24xf32>) outs(%zeros_3 : tensor<?x28xf32>) -> tensor<?x28xf32>
  %empty_5 = tensor.empty(%t) : tensor<?x28xf32>
  %h_1 = linalg.generic {indexing_maps = [#id, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%u_1 : tensor<?x28xf32>) outs(%empty_5 : tensor<?x28xf32>) {
  ^bb0(%a: f32, %old: f32):
    %z = arith.constant 0.0 : f32
    %r = arith.maximumf %a, %z : f32
    linalg.yield %r : f32
  } -> tensor<?x28xf32>
  %empty_6 = tensor.empty(%t) : tensor<?x24xf32>
  %zeros_4 = linalg.fill ins(%zero : f32) outs(%empty_6 : tensor<?x24xf32>) -> tensor<?x24xf32>
  %d_1 = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out]
      ins(%h_1, %mlp_wo : tensor<?x28xf32>, tensor<24x28xf32>) outs(%zeros_4 : tensor<?x24xf32>) -> tensor<?x24xf32>
  %empty_7 = tensor.empty(%t) : tensor<?x2xf32>
  %zeros_5 = linalg.fill ins(%zero : f32) outs(%empty_7 : tensor<?x2xf32>) -> tensor<?x2xf32>
  %coefficient_logits = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out]
      ins(%x, %coefficient : tensor<?x24xf32>, tensor<2x24xf32>) outs(%zeros_5 : tensor<?x2xf32>) -> tensor<?x2xf32>
  %empty_8 = tensor.empty(%t) : tensor<?x24xf32>
  %mixed = linalg.generic {indexing_maps = [#id, #id, #first, #second, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%y, %d_1, %coefficient_logits, %coefficient_logits : tensor<?x24xf32>, tensor<?x24xf32>, tensor<?x2xf32>, tensor<?x2xf32>) outs(%empty_8 : tensor<?x24xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32, %d: f32, %old: f32):
    %one = arith.constant 1.0 : f32
    %gap = arith.subf %d, %c : f32
    %exp = math.exp %gap : f32
    %den = arith.addf %one, %exp : f32
    %c0_ = arith.divf %one, %den : f32
    %c1_ = arith.subf %one, %c0_ : f32
    %m0 = arith.mulf %c0_, %a : f32
    %m1 = arith.mulf %c1_, %b : f32
    %r = arith.addf %m0, %m1 : f32
    linalg.yield %r : f32
  } -> tensor<?x24xf32>
  return %mixed : tensor<?x24xf32>
}
