// RUN: moe-opt %s --split-input-file --moe-raise-routing --moe-raise-grouped | FileCheck %s

// The last index among equal scores, the smallest score, and a maximum that
// starts elsewhere are no choice of a gate.
// RUN: sed 's/arith.cmpf ogt/arith.cmpf oge/; s/cmpf oeq/cmpf one/' %s | moe-opt - --split-input-file --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/arith.cmpf ogt/arith.cmpf olt/; s/arith.minsi/arith.maxsi/' %s | moe-opt - --split-input-file --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/0xFF800000/0.25/' %s | moe-opt - --split-input-file --moe-raise-routing | FileCheck %s --check-prefix=NONE
// NONE-NOT: moe.

// An argmax in linalg: a reduction that keeps a value and its index.

#te = affine_map<(t, e) -> (t, e)>
#t = affine_map<(t, e) -> (t)>
#eth = affine_map<(t, h, e) -> (e, t, h)>
#th = affine_map<(t, h, e) -> (t, h)>
#t3 = affine_map<(t, h, e) -> (t)>
// CHECK-LABEL: func.func @pair(
// CHECK-SAME:      %[[X:[^ ]*]]: tensor<?x32xf32>, %{{[^ ]*}}: tensor<32x4xf32>, %[[UP:[^ ]*]]: tensor<4x32x48xf32>, %[[DOWN:[^ ]*]]: tensor<4x48x32xf32>
// CHECK:         %{{.*}}, %[[IDS:.*]] = moe.gate %{{.*}} top_k(1) score(none)
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %[[X]], %[[IDS]] experts(4)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[UP]] :
// CHECK:         moe.grouped_matmul %{{.*}} weights(%[[DOWN]] :
// CHECK:         moe.combine %{{.*}}, %[[PLACES]] weights(
// CHECK-NOT:     linalg.batch_matmul
func.func @pair(%x: tensor<?x32xf32>, %wr: tensor<32x4xf32>, %w1: tensor<4x32x48xf32>, %w2: tensor<4x48x32xf32>) -> tensor<?x32xf32> {
  %c0 = arith.constant 0 : index
  %z = arith.constant 0.0 : f32
  %ninf = arith.constant 0xFF800000 : f32
  %zi = arith.constant 0 : i32
  %T = tensor.dim %x, %c0 : tensor<?x32xf32>
  %e0 = tensor.empty(%T) : tensor<?x4xf32>
  %f0 = linalg.fill ins(%z : f32) outs(%e0 : tensor<?x4xf32>) -> tensor<?x4xf32>
  %logits = linalg.matmul ins(%x, %wr : tensor<?x32xf32>, tensor<32x4xf32>) outs(%f0 : tensor<?x4xf32>) -> tensor<?x4xf32>
  %p = linalg.softmax dimension(1) ins(%logits : tensor<?x4xf32>) outs(%e0 : tensor<?x4xf32>) -> tensor<?x4xf32>
  %ev = tensor.empty(%T) : tensor<?xf32>
  %fv = linalg.fill ins(%ninf : f32) outs(%ev : tensor<?xf32>) -> tensor<?xf32>
  %ei = tensor.empty(%T) : tensor<?xi32>
  %fi = linalg.fill ins(%zi : i32) outs(%ei : tensor<?xi32>) -> tensor<?xi32>
  %v, %id = linalg.generic {indexing_maps = [#te, #t, #t], iterator_types = ["parallel", "reduction"]} ins(%p : tensor<?x4xf32>) outs(%fv, %fi : tensor<?xf32>, tensor<?xi32>) {
  ^bb0(%a: f32, %b: f32, %i: i32):
    %e = linalg.index 1 : index
    %ec = arith.index_cast %e : index to i32
    %gt = arith.cmpf ogt, %a, %b : f32
    %nv = arith.select %gt, %a, %b : f32
    %ni = arith.select %gt, %ec, %i : i32
    linalg.yield %nv, %ni : f32, i32
  } -> (tensor<?xf32>, tensor<?xi32>)
  %eb = tensor.empty(%T) : tensor<4x?x32xf32>
  %xb = linalg.broadcast ins(%x : tensor<?x32xf32>) outs(%eb : tensor<4x?x32xf32>) dimensions = [0]
  %eu = tensor.empty(%T) : tensor<4x?x48xf32>
  %fu = linalg.fill ins(%z : f32) outs(%eu : tensor<4x?x48xf32>) -> tensor<4x?x48xf32>
  %up = linalg.batch_matmul ins(%xb, %w1 : tensor<4x?x32xf32>, tensor<4x32x48xf32>) outs(%fu : tensor<4x?x48xf32>) -> tensor<4x?x48xf32>
  %act = linalg.map ins(%up : tensor<4x?x48xf32>) outs(%eu : tensor<4x?x48xf32>) (%a: f32, %o: f32) {
    %m = arith.maximumf %a, %z : f32
    linalg.yield %m : f32
  }
  %fd = linalg.fill ins(%z : f32) outs(%eb : tensor<4x?x32xf32>) -> tensor<4x?x32xf32>
  %down = linalg.batch_matmul ins(%act, %w2 : tensor<4x?x48xf32>, tensor<4x48x32xf32>) outs(%fd : tensor<4x?x32xf32>) -> tensor<4x?x32xf32>
  %ey = tensor.empty(%T) : tensor<?x32xf32>
  %fy = linalg.fill ins(%z : f32) outs(%ey : tensor<?x32xf32>) -> tensor<?x32xf32>
  %y = linalg.generic {indexing_maps = [#eth, #t3, #t3, #th], iterator_types = ["parallel", "parallel", "reduction"]} ins(%down, %v, %id : tensor<4x?x32xf32>, tensor<?xf32>, tensor<?xi32>) outs(%fy : tensor<?x32xf32>) {
  ^bb0(%a: f32, %b: f32, %i: i32, %o: f32):
    %e = linalg.index 2 : index
    %ec = arith.index_cast %e : index to i32
    %eq = arith.cmpi eq, %ec, %i : i32
    %w = arith.select %eq, %b, %z : f32
    %m = arith.mulf %a, %w : f32
    %s = arith.addf %o, %m : f32
    linalg.yield %s : f32
  } -> tensor<?x32xf32>
  return %y : tensor<?x32xf32>
}

// -----

// The smallest index among the scores that are equal to their maximum.

#te = affine_map<(t, e) -> (t, e)>
#t = affine_map<(t, e) -> (t)>
#eth = affine_map<(t, h, e) -> (e, t, h)>
#th = affine_map<(t, h, e) -> (t, h)>
#t3 = affine_map<(t, h, e) -> (t)>
// CHECK-LABEL: func.func @first(
// CHECK-SAME:      %[[X:[^ ]*]]: tensor<?x32xf32>, %{{[^ ]*}}: tensor<32x4xf32>, %[[UP:[^ ]*]]: tensor<4x32x48xf32>, %[[DOWN:[^ ]*]]: tensor<4x48x32xf32>
// CHECK:         %{{.*}}, %[[IDS:.*]] = moe.gate %{{.*}} top_k(1) score(none)
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %[[X]], %[[IDS]] experts(4)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%[[UP]] :
// CHECK:         moe.grouped_matmul %{{.*}} weights(%[[DOWN]] :
// CHECK:         moe.combine %{{.*}}, %[[PLACES]] weights(
// CHECK-NOT:     linalg.batch_matmul
func.func @first(%x: tensor<?x32xf32>, %wr: tensor<32x4xf32>, %w1: tensor<4x32x48xf32>, %w2: tensor<4x48x32xf32>) -> tensor<?x32xf32> {
  %c0 = arith.constant 0 : index
  %z = arith.constant 0.0 : f32
  %ninf = arith.constant 0xFF800000 : f32
  %zi = arith.constant 0 : i32
  %T = tensor.dim %x, %c0 : tensor<?x32xf32>
  %e0 = tensor.empty(%T) : tensor<?x4xf32>
  %f0 = linalg.fill ins(%z : f32) outs(%e0 : tensor<?x4xf32>) -> tensor<?x4xf32>
  %logits = linalg.matmul ins(%x, %wr : tensor<?x32xf32>, tensor<32x4xf32>) outs(%f0 : tensor<?x4xf32>) -> tensor<?x4xf32>
  %p = linalg.softmax dimension(1) ins(%logits : tensor<?x4xf32>) outs(%e0 : tensor<?x4xf32>) -> tensor<?x4xf32>
  %ev = tensor.empty(%T) : tensor<?xf32>
  %fv = linalg.fill ins(%ninf : f32) outs(%ev : tensor<?xf32>) -> tensor<?xf32>
  %ei = tensor.empty(%T) : tensor<?xi32>
  %none = arith.constant 4 : i32
  %fi = linalg.fill ins(%none : i32) outs(%ei : tensor<?xi32>) -> tensor<?xi32>
  %v = linalg.generic {indexing_maps = [#te, #t], iterator_types = ["parallel", "reduction"]} ins(%p : tensor<?x4xf32>) outs(%fv : tensor<?xf32>) {
  ^bb0(%a: f32, %b: f32):
    %m = arith.maximumf %a, %b : f32
    linalg.yield %m : f32
  } -> tensor<?xf32>
  %id = linalg.generic {indexing_maps = [#te, #t, #t], iterator_types = ["parallel", "reduction"]} ins(%p, %v : tensor<?x4xf32>, tensor<?xf32>) outs(%fi : tensor<?xi32>) {
  ^bb0(%a: f32, %b: f32, %i: i32):
    %e = linalg.index 1 : index
    %ec = arith.index_cast %e : index to i32
    %eq = arith.cmpf oeq, %a, %b : f32
    %at = arith.select %eq, %ec, %none : i32
    %ni = arith.minsi %at, %i : i32
    linalg.yield %ni : i32
  } -> tensor<?xi32>
  %eb = tensor.empty(%T) : tensor<4x?x32xf32>
  %xb = linalg.broadcast ins(%x : tensor<?x32xf32>) outs(%eb : tensor<4x?x32xf32>) dimensions = [0]
  %eu = tensor.empty(%T) : tensor<4x?x48xf32>
  %fu = linalg.fill ins(%z : f32) outs(%eu : tensor<4x?x48xf32>) -> tensor<4x?x48xf32>
  %up = linalg.batch_matmul ins(%xb, %w1 : tensor<4x?x32xf32>, tensor<4x32x48xf32>) outs(%fu : tensor<4x?x48xf32>) -> tensor<4x?x48xf32>
  %act = linalg.map ins(%up : tensor<4x?x48xf32>) outs(%eu : tensor<4x?x48xf32>) (%a: f32, %o: f32) {
    %m = arith.maximumf %a, %z : f32
    linalg.yield %m : f32
  }
  %fd = linalg.fill ins(%z : f32) outs(%eb : tensor<4x?x32xf32>) -> tensor<4x?x32xf32>
  %down = linalg.batch_matmul ins(%act, %w2 : tensor<4x?x48xf32>, tensor<4x48x32xf32>) outs(%fd : tensor<4x?x32xf32>) -> tensor<4x?x32xf32>
  %ey = tensor.empty(%T) : tensor<?x32xf32>
  %fy = linalg.fill ins(%z : f32) outs(%ey : tensor<?x32xf32>) -> tensor<?x32xf32>
  %y = linalg.generic {indexing_maps = [#eth, #t3, #t3, #th], iterator_types = ["parallel", "parallel", "reduction"]} ins(%down, %v, %id : tensor<4x?x32xf32>, tensor<?xf32>, tensor<?xi32>) outs(%fy : tensor<?x32xf32>) {
  ^bb0(%a: f32, %b: f32, %i: i32, %o: f32):
    %e = linalg.index 2 : index
    %ec = arith.index_cast %e : index to i32
    %eq = arith.cmpi eq, %ec, %i : i32
    %w = arith.select %eq, %b, %z : f32
    %m = arith.mulf %a, %w : f32
    %s = arith.addf %o, %m : f32
    linalg.yield %s : f32
  } -> tensor<?x32xf32>
  return %y : tensor<?x32xf32>
}
