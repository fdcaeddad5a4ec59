func.func @gate(%l: tensor<?x8xf32> {moe.name = "logits"})
    -> (tensor<?x2xf32> {moe.name = "weights"}, tensor<?x2xi32> {moe.name = "ids"})
    attributes {moe.tokens = [0, 4096]} {
  %w, %i = moe.gate %l top_k(2) : tensor<?x8xf32>
  return %w, %i : tensor<?x2xf32>, tensor<?x2xi32>
}
