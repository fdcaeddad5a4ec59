// RUN: moe-opt %s --moe-name-stages --mlir-print-debuginfo --mlir-print-local-scope | FileCheck %s

// Operations with the same name are numbered; fills and what prepares weights have no name. A
// matmul of all rows is no grouped one.
// CHECK-LABEL: func.func @layer(
// CHECK:         linalg.fill {{.*}} loc("{{[^"]*}}":
// CHECK:         moe.grouped_matmul %{{.*}} weights
// CHECK:           arith.negf {{.*}} loc("{{[^"]*}}":
// CHECK:         } : {{.*}} loc(fused<{moe.stage = "matmul"}>["{{.*}}name-stages.mlir"
// CHECK:         moe.gate {{.*}} loc(fused<{moe.stage = "gate"}>[
// CHECK:         moe.route {{.*}} loc(fused<{moe.stage = "route"}>[
// CHECK:         moe.grouped_matmul %{{.*}} offsets
// CHECK:         } : {{.*}} loc(fused<{moe.stage = "grouped_matmul0"}>[
// CHECK:         moe.grouped_matmul %{{.*}} offsets
// CHECK:         } : {{.*}} loc(fused<{moe.stage = "grouped_matmul1"}>[
// CHECK:         moe.gather_sum {{.*}} loc(fused<{moe.stage = "gather_sum"}>[
// CHECK:         linalg.add {{.*}} loc(fused<{moe.stage = "elementwise"}>[
func.func @layer(%x: tensor<?x8xf32>, %r: tensor<1x8x4xf32>, %w: tensor<4x8x8xf32>) -> tensor<?x8xf32>
    attributes {moe.signature = #moe.signature<arguments = []>} {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %t = tensor.dim %x, %c0 : tensor<?x8xf32>
  %e = tensor.empty(%t) : tensor<?x4xf32>
  %z = linalg.fill ins(%zero : f32) outs(%e : tensor<?x4xf32>) -> tensor<?x4xf32>
  %logits = moe.grouped_matmul %x weights(%r : tensor<1x8x4xf32>) outs(%z : tensor<?x4xf32>) {
  ^bb0(%sum: f32):
    %n = arith.negf %sum : f32
    moe.yield %n : f32
  } : tensor<?x8xf32> -> tensor<?x4xf32>
  %weights, %ids = moe.gate %logits top_k(2) : tensor<?x4xf32>
  %tokens, %offsets, %positions = moe.route %ids experts(4) : tensor<?x2xi32>
  %rows = tensor.dim %tokens, %c0 : tensor<?xi32>
  %e1 = tensor.empty(%rows) : tensor<?x8xf32>
  %h = moe.grouped_matmul %x gather(%tokens : tensor<?xi32>) offsets(%offsets : tensor<5xi32>) weights(%w : tensor<4x8x8xf32>) outs(%e1 : tensor<?x8xf32>) {
  ^bb0(%sum: f32):
    moe.yield %sum : f32
  } : tensor<?x8xf32> -> tensor<?x8xf32>
  %o = moe.grouped_matmul %h offsets(%offsets : tensor<5xi32>) weights(%w : tensor<4x8x8xf32>) outs(%e1 : tensor<?x8xf32>) {
  ^bb0(%sum: f32):
    moe.yield %sum : f32
  } : tensor<?x8xf32> -> tensor<?x8xf32>
  %ey = tensor.empty(%t) : tensor<?x8xf32>
  %y = moe.gather_sum %o, %positions weights(%weights : tensor<?x2xf32>) outs(%ey : tensor<?x8xf32>) : tensor<?x8xf32>, tensor<?x2xi32> -> tensor<?x8xf32>
  %s = linalg.add ins(%y, %x : tensor<?x8xf32>, tensor<?x8xf32>) outs(%ey : tensor<?x8xf32>) -> tensor<?x8xf32>
  return %s : tensor<?x8xf32>
}

// Neither functions that prepare weights nor those that are not exported have stages.
// CHECK-LABEL: func.func @prepare(
// CHECK-NOT:     moe.stage
func.func @prepare(%logits: tensor<?x4xf32>) -> tensor<?x2xi32>
    attributes {moe.prepares = @layer, moe.signature = #moe.signature<arguments = []>} {
  %weights, %ids = moe.gate %logits top_k(2) : tensor<?x4xf32>
  return %ids : tensor<?x2xi32>
}
// CHECK-LABEL: func.func @other(
func.func @other(%logits: tensor<?x4xf32>) -> tensor<?x2xi32> {
  %weights, %ids = moe.gate %logits top_k(2) : tensor<?x4xf32>
  return %ids : tensor<?x2xi32>
}
