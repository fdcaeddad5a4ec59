// RUN: moe-opt %s -moe-fuse | FileCheck %s
// RUN: moe-opt %s -moe-fuse --remarks-filter-passed=moe-fuse -o /dev/null 2>&1 | FileCheck %s --check-prefix=REMARK

// Routed experts with gate and up as one weight: two products are left, of which
// the first gathers and has all between them in its epilogue.

// REMARK-DAG: ExpertGrouped
// REMARK-DAG: DenseGrouped
// REMARK-DAG: ColumnsFused
// REMARK-DAG: matmuls of the same rows fused with the operation that joins them
// REMARK-DAG: elementwise operation fused into the epilogue of a matmul
// REMARK-DAG: GatherFused

// CHECK-LABEL: func.func @layer(
// CHECK-SAME:    %[[X:[a-z0-9]+]]: tensor<?x4xbf16>, %[[R:[a-z0-9]+]]: tensor<4x3xbf16>, %[[W:[a-z0-9]+]]: tensor<3x4x16xbf16>, %[[D:[a-z0-9]+]]: tensor<3x8x4xbf16>)
// CHECK-DAG:     %[[ROUTER:.*]] = tensor.expand_shape %[[R]]
// CHECK:         %[[LOGITS:.*]] = moe.grouped_matmul %[[X]] weights(%[[ROUTER]] : tensor<1x4x3xbf16>)
// CHECK:         %[[P:.*]], %[[IDS:.*]] = moe.gate %[[LOGITS]]
// CHECK:         %[[N:.*]], %[[O:.*]], %[[POS:.*]] = moe.route %[[IDS]]
// CHECK-DAG:     %[[GATE:.*]] = tensor.extract_slice %[[W]][0, 0, 0] [3, 4, 8] [1, 1, 2]
// CHECK-DAG:     %[[UP:.*]] = tensor.extract_slice %[[W]][0, 0, 1] [3, 4, 8] [1, 1, 2]
// CHECK:         %[[H:.*]] = moe.grouped_matmul %[[X]] gather(%[[N]] : tensor<?xi32>) offsets(%[[O]] : tensor<4xi32>)
// CHECK-SAME:      weights(%[[GATE]], %[[UP]] : tensor<3x4x8xbf16>, tensor<3x4x8xbf16>) outs(%{{.*}} : tensor<?x8xbf16>) {
// CHECK-NEXT:    ^bb0(%[[G:.*]]: f32, %[[U:.*]]: f32):
// CHECK-NEXT:      %[[T:.*]] = math.tanh %[[G]] : f32
// CHECK-NEXT:      %[[M:.*]] = arith.mulf %[[T]], %[[U]] : f32
// CHECK-NEXT:      %[[B:.*]] = arith.truncf %[[M]] : f32 to bf16
// CHECK-NEXT:      moe.yield %[[B]] : bf16
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %[[H]] offsets(%[[O]] : tensor<4xi32>) weights(%[[D]] : tensor<3x8x4xbf16>)
// CHECK:           arith.truncf
// CHECK:         moe.gather_sum %[[Y]], %[[POS]]
// CHECK-NOT:     linalg
func.func @layer(%x: tensor<?x4xbf16>, %router: tensor<4x3xbf16>, %w: tensor<3x4x16xbf16>, %d: tensor<3x8x4xbf16>) -> tensor<?x4xbf16> {
  %c0 = arith.constant 0 : index
  %z = arith.constant 0.0 : f32
  %t = tensor.dim %x, %c0 : tensor<?x4xbf16>
  %e = tensor.empty(%t) : tensor<?x3xf32>
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x3xf32>) -> tensor<?x3xf32>
  %logits = linalg.matmul ins(%x, %router : tensor<?x4xbf16>, tensor<4x3xbf16>) outs(%f : tensor<?x3xf32>) -> tensor<?x3xf32>
  %p, %ids = moe.gate %logits top_k(2) : tensor<?x3xf32>
  %g, %o, %pos = moe.dispatch %x, %ids experts(3) : tensor<?x4xbf16>, tensor<?x2xi32>
  %y = moe.expert %g, %o params(%w, %d : tensor<3x4x16xbf16>, tensor<3x8x4xbf16>) {
  ^bb0(%r: tensor<?x4xbf16>, %v: tensor<4x16xbf16>, %q: tensor<8x4xbf16>):
    %n = tensor.dim %r, %c0 : tensor<?x4xbf16>
    %e0 = tensor.empty(%n) : tensor<?x16xf32>
    %f0 = linalg.fill ins(%z : f32) outs(%e0 : tensor<?x16xf32>) -> tensor<?x16xf32>
    %both = linalg.matmul ins(%r, %v : tensor<?x4xbf16>, tensor<4x16xbf16>) outs(%f0 : tensor<?x16xf32>) -> tensor<?x16xf32>
    %gate = tensor.extract_slice %both[0, 0] [%n, 8] [1, 2] : tensor<?x16xf32> to tensor<?x8xf32>
    %up = tensor.extract_slice %both[0, 1] [%n, 8] [1, 2] : tensor<?x16xf32> to tensor<?x8xf32>
    %e1 = tensor.empty(%n) : tensor<?x8xbf16>
    %h = linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i, j)>], iterator_types = ["parallel", "parallel"]}
      ins(%gate, %up : tensor<?x8xf32>, tensor<?x8xf32>) outs(%e1 : tensor<?x8xbf16>) {
    ^bb0(%a: f32, %b: f32, %c: bf16):
      %s = math.tanh %a : f32
      %m = arith.mulf %s, %b : f32
      %k = arith.truncf %m : f32 to bf16
      linalg.yield %k : bf16
    } -> tensor<?x8xbf16>
    %e2 = tensor.empty(%n) : tensor<?x4xf32>
    %f2 = linalg.fill ins(%z : f32) outs(%e2 : tensor<?x4xf32>) -> tensor<?x4xf32>
    %down = linalg.matmul ins(%h, %q : tensor<?x8xbf16>, tensor<8x4xbf16>) outs(%f2 : tensor<?x4xf32>) -> tensor<?x4xf32>
    %e3 = tensor.empty(%n) : tensor<?x4xbf16>
    %l = linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i, j)>], iterator_types = ["parallel", "parallel"]}
      ins(%down : tensor<?x4xf32>) outs(%e3 : tensor<?x4xbf16>) {
    ^bb0(%a: f32, %c: bf16):
      %k = arith.truncf %a : f32 to bf16
      linalg.yield %k : bf16
    } -> tensor<?x4xbf16>
    moe.yield %l : tensor<?x4xbf16>
  } : tensor<?x4xbf16>, tensor<4xi32> -> tensor<?x4xbf16>
  %out = moe.combine %y, %pos weights(%p : tensor<?x2xf32>) : tensor<?x4xbf16>, tensor<?x2xi32>
  return %out : tensor<?x4xbf16>
}
