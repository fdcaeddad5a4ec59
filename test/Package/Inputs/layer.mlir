func.func @route(%logits: tensor<?x8xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>) {
  %weights, %ids = moe.gate %logits top_k(2) : tensor<?x8xf32>
  return %weights, %ids : tensor<?x2xf32>, tensor<?x2xi32>
}
