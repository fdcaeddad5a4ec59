// gpt-oss: router with bias, the best of the logits, then softmax over them.
// Experts with biases, gate and up interleaved, weights [in, out], clamped
// SwiGLU.
// RUN: moe-compile %s -o %t.moe

#lhs = affine_map<(m, n, k) -> (m, k)>
#rhs_t = affine_map<(m, n, k) -> (n, k)>
#out = affine_map<(m, n, k) -> (m, n)>
#id = affine_map<(i, j) -> (i, j)>
#row = affine_map<(i, j) -> (j)>

func.func @layer(
    %x: tensor<?x24xf32> {moe.role = "input", moe.name = "x"},
    %router: tensor<8x24xf32> {moe.role = "weight", moe.name = "router"},
    %router_bias: tensor<8xf32> {moe.role = "weight", moe.name = "router_bias"},
    %gate_up_proj: tensor<8x24x80xf32> {moe.role = "weight", moe.name = "gate_up_proj"},
    %gate_up_proj_bias: tensor<8x80xf32> {moe.role = "weight", moe.name = "gate_up_proj_bias"},
    %down_proj: tensor<8x40x24xf32> {moe.role = "weight", moe.name = "down_proj"},
    %down_proj_bias: tensor<8x24xf32> {moe.role = "weight", moe.name = "down_proj_bias"})
    -> (tensor<?x24xf32>) {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %t = tensor.dim %x, %c0 : tensor<?x24xf32>
  %empty = tensor.empty(%t) : tensor<?x8xf32>
  %zeros = linalg.fill ins(%zero : f32) outs(%empty : tensor<?x8xf32>) -> tensor<?x8xf32>
  %logits = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out]
      ins(%x, %router : tensor<?x24xf32>, tensor<8x24xf32>) outs(%zeros : tensor<?x8xf32>) -> tensor<?x8xf32>
  %empty_1 = tensor.empty(%t) : tensor<?x8xf32>
  %logits_biased = linalg.generic {indexing_maps = [#id, #row, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%logits, %router_bias : tensor<?x8xf32>, tensor<8xf32>) outs(%empty_1 : tensor<?x8xf32>) {
  ^bb0(%a: f32, %b: f32, %old: f32):
    %r = arith.addf %a, %b : f32
    linalg.yield %r : f32
  } -> tensor<?x8xf32>
  %weights, %ids = moe.gate %logits_biased top_k(4) order(select_then_score) : tensor<?x8xf32>
  %grouped, %offsets, %positions = moe.dispatch %x, %ids experts(8)
      : tensor<?x24xf32>, tensor<?x4xi32>
  %expert_rows = moe.expert %grouped, %offsets
      params(%gate_up_proj, %gate_up_proj_bias, %down_proj, %down_proj_bias
             : tensor<8x24x80xf32>, tensor<8x80xf32>, tensor<8x40x24xf32>, tensor<8x24xf32>) {
  ^bb0(%rows: tensor<?x24xf32>, %gate_up_proj_e: tensor<24x80xf32>, %gate_up_proj_bias_e: tensor<80xf32>, %down_proj_e: tensor<40x24xf32>, %down_proj_bias_e: tensor<24xf32>):
    %n = tensor.dim %rows, %c0 : tensor<?x24xf32>
    %empty_2 = tensor.empty(%n) : tensor<?x80xf32>
    %zeros_1 = linalg.fill ins(%zero : f32) outs(%empty_2 : tensor<?x80xf32>) -> tensor<?x80xf32>
    %gate_up = linalg.matmul ins(%rows, %gate_up_proj_e : tensor<?x24xf32>, tensor<24x80xf32>) outs(%zeros_1 : tensor<?x80xf32>) -> tensor<?x80xf32>
    %empty_3 = tensor.empty(%n) : tensor<?x80xf32>
    %gate_up_biased = linalg.generic {indexing_maps = [#id, #row, #id],
        iterator_types = ["parallel", "parallel"]}
        ins(%gate_up, %gate_up_proj_bias_e : tensor<?x80xf32>, tensor<80xf32>) outs(%empty_3 : tensor<?x80xf32>) {
    ^bb0(%a: f32, %b: f32, %old: f32):
      %r = arith.addf %a, %b : f32
      linalg.yield %r : f32
    } -> tensor<?x80xf32>
    %gate_part = tensor.extract_slice %gate_up_biased[0, 0] [%n, 40] [1, 2]
        : tensor<?x80xf32> to tensor<?x40xf32>
    %up_part = tensor.extract_slice %gate_up_biased[0, 1] [%n, 40] [1, 2]
        : tensor<?x80xf32> to tensor<?x40xf32>
    %empty_4 = tensor.empty(%n) : tensor<?x40xf32>
    %h = linalg.generic {indexing_maps = [#id, #id, #id],
        iterator_types = ["parallel", "parallel"]}
        ins(%gate_part, %up_part : tensor<?x40xf32>, tensor<?x40xf32>) outs(%empty_4 : tensor<?x40xf32>) {
    ^bb0(%a: f32, %b: f32, %old: f32):
      %limit = arith.constant 7.0 : f32
      %low = arith.constant -7.0 : f32
      %alpha = arith.constant 1.702 : f32
      %one = arith.constant 1.0 : f32
      %g = arith.minimumf %a, %limit : f32
      %u0 = arith.minimumf %b, %limit : f32
      %u = arith.maximumf %u0, %low : f32
      %scaled = arith.mulf %g, %alpha : f32
      %neg = arith.negf %scaled : f32
      %exp = math.exp %neg : f32
      %den = arith.addf %one, %exp : f32
      %glu = arith.divf %g, %den : f32
      %u1 = arith.addf %u, %one : f32
      %r = arith.mulf %u1, %glu : f32
      linalg.yield %r : f32
    } -> tensor<?x40xf32>
    %empty_5 = tensor.empty(%n) : tensor<?x24xf32>
    %zeros_2 = linalg.fill ins(%zero : f32) outs(%empty_5 : tensor<?x24xf32>) -> tensor<?x24xf32>
    %d = linalg.matmul ins(%h, %down_proj_e : tensor<?x40xf32>, tensor<40x24xf32>) outs(%zeros_2 : tensor<?x24xf32>) -> tensor<?x24xf32>
    %empty_6 = tensor.empty(%n) : tensor<?x24xf32>
    %d_biased = linalg.generic {indexing_maps = [#id, #row, #id],
        iterator_types = ["parallel", "parallel"]}
        ins(%d, %down_proj_bias_e : tensor<?x24xf32>, tensor<24xf32>) outs(%empty_6 : tensor<?x24xf32>) {
    ^bb0(%a: f32, %b: f32, %old: f32):
      %r = arith.addf %a, %b : f32
      linalg.yield %r : f32
    } -> tensor<?x24xf32>
    moe.yield %d_biased : tensor<?x24xf32>
  } : tensor<?x24xf32>, tensor<9xi32> -> tensor<?x24xf32>
  %y = moe.combine %expert_rows, %positions weights(%weights : tensor<?x4xf32>)
      : tensor<?x24xf32>, tensor<?x4xi32>
  return %y : tensor<?x24xf32>
}
