// Gemma 4: the router reads the RMS-normed input times a scale; softmax, the
// best K, renormalised, times a scale per expert; GeGLU experts with the tanh
// form.
// RUN: moe-compile %s -o %t.moe

#lhs = affine_map<(m, n, k) -> (m, k)>
#rhs_t = affine_map<(m, n, k) -> (n, k)>
#out = affine_map<(m, n, k) -> (m, n)>
#id = affine_map<(i, j) -> (i, j)>
#row = affine_map<(i, j) -> (j)>
#column = affine_map<(i, j) -> (i)>

func.func @layer(
    %x: tensor<?x24xf32> {moe.role = "input", moe.name = "x"},
    %router_scale: tensor<24xf32> {moe.role = "weight", moe.name = "router_scale"},
    %router: tensor<8x24xf32> {moe.role = "weight", moe.name = "router"},
    %per_expert_scale: tensor<8xf32> {moe.role = "weight", moe.name = "per_expert_scale"},
    %gate_up_proj: tensor<8x80x24xf32> {moe.role = "weight", moe.name = "gate_up_proj"},
    %down_proj: tensor<8x24x40xf32> {moe.role = "weight", moe.name = "down_proj"})
    -> (tensor<?x24xf32>) {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %t = tensor.dim %x, %c0 : tensor<?x24xf32>
  %squares_empty = tensor.empty(%t) : tensor<?xf32>
  %squares_zero = linalg.fill ins(%zero : f32) outs(%squares_empty : tensor<?xf32>) -> tensor<?xf32>
  %squares = linalg.generic {indexing_maps = [#id, #column], iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<?x24xf32>) outs(%squares_zero : tensor<?xf32>) {
  ^bb0(%a: f32, %sum: f32):
    %square = arith.mulf %a, %a : f32
    %r = arith.addf %sum, %square : f32
    linalg.yield %r : f32
  } -> tensor<?xf32>
  %empty = tensor.empty(%t) : tensor<?x24xf32>
  %normed = linalg.generic {indexing_maps = [#id, #column, #row, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%x, %squares, %router_scale : tensor<?x24xf32>, tensor<?xf32>, tensor<24xf32>) outs(%empty : tensor<?x24xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32, %old: f32):
    %size = arith.constant 24.0 : f32
    %eps = arith.constant 1.0e-06 : f32
    %root = arith.constant 0.2041241452319315 : f32
    %mean = arith.divf %b, %size : f32
    %safe = arith.addf %mean, %eps : f32
    %inverse = math.rsqrt %safe : f32
    %unit = arith.mulf %a, %inverse : f32
    %s = arith.mulf %unit, %c : f32
    %r = arith.mulf %s, %root : f32
    linalg.yield %r : f32
  } -> tensor<?x24xf32>
  %empty_1 = tensor.empty(%t) : tensor<?x8xf32>
  %zeros = linalg.fill ins(%zero : f32) outs(%empty_1 : tensor<?x8xf32>) -> tensor<?x8xf32>
  %logits = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out]
      ins(%normed, %router : tensor<?x24xf32>, tensor<8x24xf32>) outs(%zeros : tensor<?x8xf32>) -> tensor<?x8xf32>
  %weights, %ids = moe.gate %logits top_k(3) normalize(<sum>) : tensor<?x8xf32>
  %empty_2 = tensor.empty(%t) : tensor<?x3xf32>
  %weights_scaled = linalg.generic {indexing_maps = [#id, #id, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%weights, %ids : tensor<?x3xf32>, tensor<?x3xi32>) outs(%empty_2 : tensor<?x3xf32>) {
  ^bb0(%a: f32, %b: i32, %old: f32):
    %e = arith.index_cast %b : i32 to index
    %s = tensor.extract %per_expert_scale[%e] : tensor<8xf32>
    %r = arith.mulf %a, %s : f32
    linalg.yield %r : f32
  } -> tensor<?x3xf32>
  %grouped, %offsets, %positions = moe.dispatch %x, %ids experts(8)
      : tensor<?x24xf32>, tensor<?x3xi32>
  %expert_rows = moe.expert %grouped, %offsets
      params(%gate_up_proj, %down_proj
             : tensor<8x80x24xf32>, tensor<8x24x40xf32>) {
  ^bb0(%rows: tensor<?x24xf32>, %gate_up_proj_e: tensor<80x24xf32>, %down_proj_e: tensor<24x40xf32>):
    %n = tensor.dim %rows, %c0 : tensor<?x24xf32>
    %empty_3 = tensor.empty(%n) : tensor<?x80xf32>
    %zeros_1 = linalg.fill ins(%zero : f32) outs(%empty_3 : tensor<?x80xf32>) -> tensor<?x80xf32>
    %gate_up = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out]
        ins(%rows, %gate_up_proj_e : tensor<?x24xf32>, tensor<80x24xf32>) outs(%zeros_1 : tensor<?x80xf32>) -> tensor<?x80xf32>
    %gate_part = tensor.extract_slice %gate_up[0, 0] [%n, 40] [1, 1]
        : tensor<?x80xf32> to tensor<?x40xf32>
    %up_part = tensor.extract_slice %gate_up[0, 40] [%n, 40] [1, 1]
        : tensor<?x80xf32> to tensor<?x40xf32>
    %empty_4 = tensor.empty(%n) : tensor<?x40xf32>
    %h = linalg.generic {indexing_maps = [#id, #id, #id],
        iterator_types = ["parallel", "parallel"]}
        ins(%gate_part, %up_part : tensor<?x40xf32>, tensor<?x40xf32>) outs(%empty_4 : tensor<?x40xf32>) {
    ^bb0(%a: f32, %b: f32, %old: f32):
      %half = arith.constant 0.5 : f32
      %one = arith.constant 1.0 : f32
      %k0 = arith.constant 0.7978845608028654 : f32
      %k1 = arith.constant 0.044715 : f32
      %a2 = arith.mulf %a, %a : f32
      %a3 = arith.mulf %a2, %a : f32
      %cubic = arith.mulf %k1, %a3 : f32
      %inner = arith.addf %a, %cubic : f32
      %scaled = arith.mulf %k0, %inner : f32
      %tanh = math.tanh %scaled : f32
      %plus = arith.addf %one, %tanh : f32
      %halved = arith.mulf %half, %a : f32
      %act = arith.mulf %halved, %plus : f32
      %r = arith.mulf %act, %b : f32
      linalg.yield %r : f32
    } -> tensor<?x40xf32>
    %empty_5 = tensor.empty(%n) : tensor<?x24xf32>
    %zeros_2 = linalg.fill ins(%zero : f32) outs(%empty_5 : tensor<?x24xf32>) -> tensor<?x24xf32>
    %d = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out]
        ins(%h, %down_proj_e : tensor<?x40xf32>, tensor<24x40xf32>) outs(%zeros_2 : tensor<?x24xf32>) -> tensor<?x24xf32>
    moe.yield %d : tensor<?x24xf32>
  } : tensor<?x24xf32>, tensor<9xi32> -> tensor<?x24xf32>
  %y = moe.combine %expert_rows, %positions weights(%weights_scaled : tensor<?x3xf32>)
      : tensor<?x24xf32>, tensor<?x3xi32>
  return %y : tensor<?x24xf32>
}
