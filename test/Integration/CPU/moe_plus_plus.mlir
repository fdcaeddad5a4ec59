// MoE++: five SwiGLU experts, then a zero, a copy and a constant expert; the
// constant one is a0 x + a1 v with a = softmax(x Wc).
// RUN: moe-compile %s -o %t.moe

#lhs = affine_map<(m, n, k) -> (m, k)>
#rhs_t = affine_map<(m, n, k) -> (n, k)>
#out = affine_map<(m, n, k) -> (m, n)>
#id = affine_map<(i, j) -> (i, j)>
#row = affine_map<(i, j) -> (j)>
#first = affine_map<(i, j) -> (i, 0)>
#second = affine_map<(i, j) -> (i, 1)>

func.func @layer(
    %x: tensor<?x24xf32> {moe.role = "input", moe.name = "x"},
    %router: tensor<8x24xf32> {moe.role = "weight", moe.name = "router"},
    %gate_proj: tensor<5x40x24xf32> {moe.role = "weight", moe.name = "gate_proj"},
    %up_proj: tensor<5x40x24xf32> {moe.role = "weight", moe.name = "up_proj"},
    %down_proj: tensor<5x24x40xf32> {moe.role = "weight", moe.name = "down_proj"},
    %constant_vector: tensor<1x24xf32> {moe.role = "weight", moe.name = "constant_vector"},
    %constant_router: tensor<1x2x24xf32> {moe.role = "weight", moe.name = "constant_router"})
    -> (tensor<?x24xf32>) {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %t = tensor.dim %x, %c0 : tensor<?x24xf32>
  %empty = tensor.empty(%t) : tensor<?x8xf32>
  %zeros = linalg.fill ins(%zero : f32) outs(%empty : tensor<?x8xf32>) -> tensor<?x8xf32>
  %logits = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out]
      ins(%x, %router : tensor<?x24xf32>, tensor<8x24xf32>) outs(%zeros : tensor<?x8xf32>) -> tensor<?x8xf32>
  %weights, %ids = moe.gate %logits top_k(2) : tensor<?x8xf32>
  %grouped, %offsets, %positions = moe.dispatch %x, %ids experts(8)
      : tensor<?x24xf32>, tensor<?x2xi32>
  %ffn = moe.expert %grouped, %offsets
      params(%gate_proj, %up_proj, %down_proj
             : tensor<5x40x24xf32>, tensor<5x40x24xf32>, tensor<5x24x40xf32>)
      first(0) count(5) uncovered(zero) {
  ^bb0(%rows: tensor<?x24xf32>, %gate_proj_e: tensor<40x24xf32>, %up_proj_e: tensor<40x24xf32>, %down_proj_e: tensor<24x40xf32>):
    %n = tensor.dim %rows, %c0 : tensor<?x24xf32>
    %empty_1 = tensor.empty(%n) : tensor<?x40xf32>
    %zeros_1 = linalg.fill ins(%zero : f32) outs(%empty_1 : tensor<?x40xf32>) -> tensor<?x40xf32>
    %g = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out]
        ins(%rows, %gate_proj_e : tensor<?x24xf32>, tensor<40x24xf32>) outs(%zeros_1 : tensor<?x40xf32>) -> tensor<?x40xf32>
    %empty_2 = tensor.empty(%n) : tensor<?x40xf32>
    %zeros_2 = linalg.fill ins(%zero : f32) outs(%empty_2 : tensor<?x40xf32>) -> tensor<?x40xf32>
    %u = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out]
        ins(%rows, %up_proj_e : tensor<?x24xf32>, tensor<40x24xf32>) outs(%zeros_2 : tensor<?x40xf32>) -> tensor<?x40xf32>
    %empty_3 = tensor.empty(%n) : tensor<?x40xf32>
    %h = linalg.generic {indexing_maps = [#id, #id, #id],
        iterator_types = ["parallel", "parallel"]}
        ins(%g, %u : tensor<?x40xf32>, tensor<?x40xf32>) outs(%empty_3 : tensor<?x40xf32>) {
    ^bb0(%a: f32, %b: f32, %old: f32):
      %neg = arith.negf %a : f32
      %exp = math.exp %neg : f32
      %one = arith.constant 1.0 : f32
      %den = arith.addf %one, %exp : f32
      %act = arith.divf %a, %den : f32
      %r = arith.mulf %act, %b : f32
      linalg.yield %r : f32
    } -> tensor<?x40xf32>
    %empty_4 = tensor.empty(%n) : tensor<?x24xf32>
    %zeros_3 = linalg.fill ins(%zero : f32) outs(%empty_4 : tensor<?x24xf32>) -> tensor<?x24xf32>
    %d = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out]
        ins(%h, %down_proj_e : tensor<?x40xf32>, tensor<24x40xf32>) outs(%zeros_3 : tensor<?x24xf32>) -> tensor<?x24xf32>
    moe.yield %d : tensor<?x24xf32>
  } : tensor<?x24xf32>, tensor<9xi32> -> tensor<?x24xf32>
  %copy = moe.expert %grouped, %offsets
      init(%ffn : tensor<?x24xf32>) first(6) count(1) {
  ^bb0(%rows_1: tensor<?x24xf32>):
    moe.yield %rows_1 : tensor<?x24xf32>
  } : tensor<?x24xf32>, tensor<9xi32> -> tensor<?x24xf32>
  %constant = moe.expert %grouped, %offsets
      params(%constant_vector, %constant_router
             : tensor<1x24xf32>, tensor<1x2x24xf32>)
      init(%copy : tensor<?x24xf32>) first(7) count(1) {
  ^bb0(%rows_2: tensor<?x24xf32>, %constant_vector_e: tensor<24xf32>, %constant_router_e: tensor<2x24xf32>):
    %n_2 = tensor.dim %rows_2, %c0 : tensor<?x24xf32>
    %empty_5 = tensor.empty(%n_2) : tensor<?x2xf32>
    %zeros_4 = linalg.fill ins(%zero : f32) outs(%empty_5 : tensor<?x2xf32>) -> tensor<?x2xf32>
    %mix = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out]
        ins(%rows_2, %constant_router_e : tensor<?x24xf32>, tensor<2x24xf32>) outs(%zeros_4 : tensor<?x2xf32>) -> tensor<?x2xf32>
    %empty_6 = tensor.empty(%n_2) : tensor<?x24xf32>
    %mixed = linalg.generic {indexing_maps = [#id, #row, #first, #second, #id],
        iterator_types = ["parallel", "parallel"]}
        ins(%rows_2, %constant_vector_e, %mix, %mix : tensor<?x24xf32>, tensor<24xf32>, tensor<?x2xf32>, tensor<?x2xf32>) outs(%empty_6 : tensor<?x24xf32>) {
    ^bb0(%a: f32, %b: f32, %c: f32, %d: f32, %old: f32):
      %one = arith.constant 1.0 : f32
      %gap = arith.subf %d, %c : f32
      %exp = math.exp %gap : f32
      %den = arith.addf %one, %exp : f32
      %a0 = arith.divf %one, %den : f32
      %a1 = arith.subf %one, %a0 : f32
      %m0 = arith.mulf %a0, %a : f32
      %m1 = arith.mulf %a1, %b : f32
      %r = arith.addf %m0, %m1 : f32
      linalg.yield %r : f32
    } -> tensor<?x24xf32>
    moe.yield %mixed : tensor<?x24xf32>
  } : tensor<?x24xf32>, tensor<9xi32> -> tensor<?x24xf32>
  %y = moe.combine %constant, %positions weights(%weights : tensor<?x2xf32>)
      : tensor<?x24xf32>, tensor<?x2xi32>
  return %y : tensor<?x24xf32>
}
