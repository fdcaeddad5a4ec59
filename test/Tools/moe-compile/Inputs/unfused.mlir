func.func @f(%x: tensor<?x4xf32>, %l: tensor<4x2xf32> {moe.role = "weight"}) -> (tensor<?x4xf32>, tensor<?x1xf32>) {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %t = tensor.dim %x, %c0 : tensor<?x4xf32>
  %e = tensor.empty(%t) : tensor<?x2xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x2xf32>) -> tensor<?x2xf32>
  %p = linalg.matmul ins(%x, %l : tensor<?x4xf32>, tensor<4x2xf32>) outs(%f : tensor<?x2xf32>) -> tensor<?x2xf32>
  %w, %i = moe.gate %p top_k(1) : tensor<?x2xf32>
  %g, %o, %q = moe.dispatch %x, %i experts(2) : tensor<?x4xf32>, tensor<?x1xi32>
  %y = moe.expert %g, %o {
  ^bb0(%r: tensor<?x4xf32>):
    %n = tensor.dim %r, %c0 : tensor<?x4xf32>
    %d = tensor.empty(%n) : tensor<?x4xf32>
    %s = linalg.softmax dimension(1) ins(%r : tensor<?x4xf32>) outs(%d : tensor<?x4xf32>) -> tensor<?x4xf32>
    moe.yield %s : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  %z = moe.combine %y, %q : tensor<?x4xf32>, tensor<?x1xi32>
  return %z, %w : tensor<?x4xf32>, tensor<?x1xf32>
}
