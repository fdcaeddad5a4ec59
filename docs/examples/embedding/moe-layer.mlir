// The layer of layer.mlir in the dialect moe alone.

func.func @layer(%x: tensor<?x24xf32> {moe.name = "x"},
                 %router: tensor<24x4xf32> {moe.role = "weight", moe.name = "router"},
                 %up: tensor<4x24x40xf32> {moe.role = "weight", moe.name = "up"},
                 %down: tensor<4x40x24xf32> {moe.role = "weight", moe.name = "down"})
    -> tensor<?x24xf32> {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %t = tensor.dim %x, %c0 : tensor<?x24xf32>
  %e = tensor.empty(%t) : tensor<?x4xf32>
  %z = linalg.fill ins(%zero : f32) outs(%e : tensor<?x4xf32>) -> tensor<?x4xf32>
  %logits = linalg.matmul ins(%x, %router : tensor<?x24xf32>, tensor<24x4xf32>)
                          outs(%z : tensor<?x4xf32>) -> tensor<?x4xf32>
  %weights, %ids = moe.gate %logits top_k(2) : tensor<?x4xf32>
  %rows, %offsets, %positions = moe.dispatch %x, %ids experts(4)
    : tensor<?x24xf32>, tensor<?x2xi32>
  %y = moe.expert %rows, %offsets
      params(%up, %down : tensor<4x24x40xf32>, tensor<4x40x24xf32>) {
  ^bb0(%r: tensor<?x24xf32>, %u: tensor<24x40xf32>, %d: tensor<40x24xf32>):
    %n = tensor.dim %r, %c0 : tensor<?x24xf32>
    %e0 = tensor.empty(%n) : tensor<?x40xf32>
    %z0 = linalg.fill ins(%zero : f32) outs(%e0 : tensor<?x40xf32>) -> tensor<?x40xf32>
    %h = linalg.matmul ins(%r, %u : tensor<?x24xf32>, tensor<24x40xf32>)
                       outs(%z0 : tensor<?x40xf32>) -> tensor<?x40xf32>
    %a = math.absf %h : tensor<?x40xf32>
    %e1 = tensor.empty(%n) : tensor<?x24xf32>
    %z1 = linalg.fill ins(%zero : f32) outs(%e1 : tensor<?x24xf32>) -> tensor<?x24xf32>
    %o = linalg.matmul ins(%a, %d : tensor<?x40xf32>, tensor<40x24xf32>)
                       outs(%z1 : tensor<?x24xf32>) -> tensor<?x24xf32>
    moe.yield %o : tensor<?x24xf32>
  } : tensor<?x24xf32>, tensor<5xi32> -> tensor<?x24xf32>
  %r = moe.combine %y, %positions weights(%weights : tensor<?x2xf32>)
    : tensor<?x24xf32>, tensor<?x2xi32>
  return %r : tensor<?x24xf32>
}
