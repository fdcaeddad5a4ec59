// A recorded route is played back: ids are an input, weights their renormalised
// softmax.
// RUN: moe-compile %s -o %t.moe

#lhs = affine_map<(m, n, k) -> (m, k)>
#rhs_t = affine_map<(m, n, k) -> (n, k)>
#out = affine_map<(m, n, k) -> (m, n)>
#id = affine_map<(i, j) -> (i, j)>

func.func @layer(
    %x: tensor<?x24xf32> {moe.role = "input", moe.name = "x"},
    %ids: tensor<?x2xi32> {moe.role = "input", moe.name = "ids"},
    %router: tensor<8x24xf32> {moe.role = "weight", moe.name = "router"},
    %gate_proj: tensor<8x40x24xf32> {moe.role = "weight", moe.name = "gate_proj"},
    %up_proj: tensor<8x40x24xf32> {moe.role = "weight", moe.name = "up_proj"},
    %down_proj: tensor<8x24x40xf32> {moe.role = "weight", moe.name = "down_proj"})
    -> (tensor<?x24xf32>) {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %t = tensor.dim %x, %c0 : tensor<?x24xf32>
  %empty = tensor.empty(%t) : tensor<?x8xf32>
  %zeros = linalg.fill ins(%zero : f32) outs(%empty : tensor<?x8xf32>) -> tensor<?x8xf32>
  %logits = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out]
      ins(%x, %router : tensor<?x24xf32>, tensor<8x24xf32>) outs(%zeros : tensor<?x8xf32>) -> tensor<?x8xf32>
  %weights, %ids_1 = moe.gate %logits ids(%ids : tensor<?x2xi32>) top_k(2) normalize(<sum>) : tensor<?x8xf32>
  %grouped, %offsets, %positions = moe.dispatch %x, %ids_1 experts(8)
      : tensor<?x24xf32>, tensor<?x2xi32>
  %expert_rows = moe.expert %grouped, %offsets
      params(%gate_proj, %up_proj, %down_proj
             : tensor<8x40x24xf32>, tensor<8x40x24xf32>, tensor<8x24x40xf32>) {
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
  %y = moe.combine %expert_rows, %positions weights(%weights : tensor<?x2xf32>)
      : tensor<?x24xf32>, tensor<?x2xi32>
  return %y : tensor<?x24xf32>
}
