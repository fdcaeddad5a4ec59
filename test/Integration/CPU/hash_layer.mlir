// Hash layers: the expert comes from the token id, with weight 1.
// RUN: moe-compile %s -o %t.moe

#lhs = affine_map<(m, n, k) -> (m, k)>
#rhs_t = affine_map<(m, n, k) -> (n, k)>
#out = affine_map<(m, n, k) -> (m, n)>
#id = affine_map<(i, j) -> (i, j)>

func.func @layer(
    %x: tensor<?x24xf32> {moe.role = "input", moe.name = "x"},
    %ids: tensor<?x1xi32> {moe.role = "input", moe.name = "ids"},
    %wi: tensor<8x40x24xf32> {moe.role = "weight", moe.name = "wi"},
    %wo: tensor<8x24x40xf32> {moe.role = "weight", moe.name = "wo"})
    -> (tensor<?x24xf32>) {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %grouped, %offsets, %positions = moe.dispatch %x, %ids experts(8)
      : tensor<?x24xf32>, tensor<?x1xi32>
  %expert_rows = moe.expert %grouped, %offsets
      params(%wi, %wo
             : tensor<8x40x24xf32>, tensor<8x24x40xf32>) {
  ^bb0(%rows: tensor<?x24xf32>, %wi_e: tensor<40x24xf32>, %wo_e: tensor<24x40xf32>):
    %n = tensor.dim %rows, %c0 : tensor<?x24xf32>
    %empty = tensor.empty(%n) : tensor<?x40xf32>
    %zeros = linalg.fill ins(%zero : f32) outs(%empty : tensor<?x40xf32>) -> tensor<?x40xf32>
    %u = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out]
        ins(%rows, %wi_e : tensor<?x24xf32>, tensor<40x24xf32>) outs(%zeros : tensor<?x40xf32>) -> tensor<?x40xf32>
    %empty_1 = tensor.empty(%n) : tensor<?x40xf32>
    %h = linalg.generic {indexing_maps = [#id, #id],
        iterator_types = ["parallel", "parallel"]}
        ins(%u : tensor<?x40xf32>) outs(%empty_1 : tensor<?x40xf32>) {
    ^bb0(%a: f32, %old: f32):
      %z = arith.constant 0.0 : f32
      %r = arith.maximumf %a, %z : f32
      linalg.yield %r : f32
    } -> tensor<?x40xf32>
    %empty_2 = tensor.empty(%n) : tensor<?x24xf32>
    %zeros_1 = linalg.fill ins(%zero : f32) outs(%empty_2 : tensor<?x24xf32>) -> tensor<?x24xf32>
    %d = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out]
        ins(%h, %wo_e : tensor<?x40xf32>, tensor<24x40xf32>) outs(%zeros_1 : tensor<?x24xf32>) -> tensor<?x24xf32>
    moe.yield %d : tensor<?x24xf32>
  } : tensor<?x24xf32>, tensor<9xi32> -> tensor<?x24xf32>
  %y = moe.combine %expert_rows, %positions
      : tensor<?x24xf32>, tensor<?x1xi32>
  return %y : tensor<?x24xf32>
}
