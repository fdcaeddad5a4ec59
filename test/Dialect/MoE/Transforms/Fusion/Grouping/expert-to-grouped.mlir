// RUN: moe-opt %s -moe-expert-to-grouped -canonicalize -cse -mlir-print-local-scope | FileCheck %s
// RUN: moe-opt %s -moe-expert-to-grouped --remarks-filter-passed=moe-fuse -o /dev/null 2>&1 | FileCheck %s --check-prefix=PASSED

// PASSED-COUNT-6: ExpertGrouped | Category:moe-fuse | Function={{.*}}Remark="experts turned into grouped matmuls"

// The weights of all experts are those of one product; a parameter of the
// epilogue has the expert in front.
// CHECK-LABEL: func.func @bias(
// CHECK-SAME:    %[[X:.*]]: tensor<?x4xf32>, %[[O:.*]]: tensor<4xi32>, %[[W:.*]]: tensor<2x8x4xf32>, %[[B:.*]]: tensor<2x8xf32>)
// CHECK-NOT:     moe.expert
// CHECK:         %[[R:.*]] = tensor.dim %[[X]], %c0
// CHECK:         %[[INIT:.*]] = tensor.empty(%[[R]]) : tensor<?x8xf32>
// CHECK-NEXT:    %[[Y:.*]] = moe.grouped_matmul %[[X]] offsets(%[[O]] : tensor<4xi32>) weights(%[[W]] : tensor<2x8x4xf32>)
// CHECK-SAME:      transposed first(1) operands(%[[B]] : tensor<2x8xf32>)
// CHECK-SAME:      maps([affine_map<(d0, d1, d2) -> (d0, d2)>]) outs(%[[INIT]] : tensor<?x8xf32>) {
// CHECK-NEXT:    ^bb0(%[[SUM:.*]]: f32, %[[BIAS:.*]]: f32):
// CHECK-NEXT:      %[[S:.*]] = arith.addf %[[SUM]], %[[BIAS]] : f32
// CHECK-NEXT:      moe.yield %[[S]] : f32
// CHECK:         return %[[Y]]
func.func @bias(%x: tensor<?x4xf32>, %o: tensor<4xi32>, %w: tensor<2x8x4xf32>, %b: tensor<2x8xf32>) -> tensor<?x8xf32> {
  %y = moe.expert %x, %o params(%w, %b : tensor<2x8x4xf32>, tensor<2x8xf32>) first(1) count(2) {
  ^bb0(%r: tensor<?x4xf32>, %v: tensor<8x4xf32>, %c: tensor<8xf32>):
    %c0 = arith.constant 0 : index
    %z = arith.constant 0.0 : f32
    %n = tensor.dim %r, %c0 : tensor<?x4xf32>
    %e = tensor.empty(%n) : tensor<?x8xf32>
    %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    %p = linalg.matmul indexing_maps = [affine_map<(i, j, k) -> (i, k)>, affine_map<(i, j, k) -> (j, k)>, affine_map<(i, j, k) -> (i, j)>]
      ins(%r, %v : tensor<?x4xf32>, tensor<8x4xf32>) outs(%f : tensor<?x8xf32>) -> tensor<?x8xf32>
    %s = linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (j)>, affine_map<(i, j) -> (i, j)>], iterator_types = ["parallel", "parallel"]}
      ins(%p, %c : tensor<?x8xf32>, tensor<8xf32>) outs(%e : tensor<?x8xf32>) {
    ^bb0(%a: f32, %d: f32, %u: f32):
      %t = arith.addf %a, %d : f32
      linalg.yield %t : f32
    } -> tensor<?x8xf32>
    moe.yield %s : tensor<?x8xf32>
  } : tensor<?x4xf32>, tensor<4xi32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// A chain of products; named elementwise operations are generic ones.
// CHECK-LABEL: func.func @chain(
// CHECK:         %[[H:.*]] = moe.grouped_matmul %{{.*}} offsets(%{{.*}} : tensor<3xi32>) weights(%{{.*}} : tensor<2x4x8xf32>) outs(
// CHECK:         %[[A:.*]] = linalg.generic {{.*}} ins(%[[H]] : tensor<?x8xf32>)
// CHECK:           math.absf
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %[[A]] offsets(%{{.*}} : tensor<3xi32>) weights(%{{.*}} : tensor<2x8x4xf32>) outs(
// CHECK:         return %[[Y]]
func.func @chain(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %w: tensor<2x4x8xf32>, %u: tensor<2x8x4xf32>) -> tensor<?x4xf32> {
  %y = moe.expert %x, %o params(%w, %u : tensor<2x4x8xf32>, tensor<2x8x4xf32>) {
  ^bb0(%r: tensor<?x4xf32>, %v: tensor<4x8xf32>, %q: tensor<8x4xf32>):
    %c0 = arith.constant 0 : index
    %z = arith.constant 0.0 : f32
    %n = tensor.dim %r, %c0 : tensor<?x4xf32>
    %e = tensor.empty(%n) : tensor<?x8xf32>
    %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    %p = linalg.matmul ins(%r, %v : tensor<?x4xf32>, tensor<4x8xf32>) outs(%f : tensor<?x8xf32>) -> tensor<?x8xf32>
    %a = linalg.abs ins(%p : tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    %g = tensor.empty(%n) : tensor<?x4xf32>
    %h = linalg.fill ins(%z : f32) outs(%g : tensor<?x4xf32>) -> tensor<?x4xf32>
    %s = linalg.matmul ins(%a, %q : tensor<?x8xf32>, tensor<8x4xf32>) outs(%h : tensor<?x4xf32>) -> tensor<?x4xf32>
    moe.yield %s : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// Slices of columns are slices of all rows.
// CHECK-LABEL: func.func @columns(
// CHECK:         %[[P:.*]] = moe.grouped_matmul
// CHECK:         tensor.extract_slice %[[P]][0, 0] [%{{.*}}, 4] [1, 2] : tensor<?x8xf32> to tensor<?x4xf32>
// CHECK:         tensor.extract_slice %[[P]][0, 1] [%{{.*}}, 4] [1, 2] : tensor<?x8xf32> to tensor<?x4xf32>
// CHECK:         linalg.generic
// CHECK-NOT:     moe.expert
func.func @columns(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %w: tensor<2x4x8xf32>) -> tensor<?x4xf32> {
  %y = moe.expert %x, %o params(%w : tensor<2x4x8xf32>) {
  ^bb0(%r: tensor<?x4xf32>, %v: tensor<4x8xf32>):
    %c0 = arith.constant 0 : index
    %z = arith.constant 0.0 : f32
    %n = tensor.dim %r, %c0 : tensor<?x4xf32>
    %e = tensor.empty(%n) : tensor<?x8xf32>
    %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    %p = linalg.matmul ins(%r, %v : tensor<?x4xf32>, tensor<4x8xf32>) outs(%f : tensor<?x8xf32>) -> tensor<?x8xf32>
    %g = tensor.extract_slice %p[0, 0] [%n, 4] [1, 2] : tensor<?x8xf32> to tensor<?x4xf32>
    %u = tensor.extract_slice %p[0, 1] [%n, 4] [1, 2] : tensor<?x8xf32> to tensor<?x4xf32>
    %h = tensor.empty(%n) : tensor<?x4xf32>
    %m = linalg.mul ins(%g, %u : tensor<?x4xf32>, tensor<?x4xf32>) outs(%h : tensor<?x4xf32>) -> tensor<?x4xf32>
    moe.yield %m : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// An expert that does nothing is nothing.
// CHECK-LABEL: func.func @identity(
// CHECK-SAME:    %[[X:.*]]: tensor<?x4xf32>,
// CHECK-NEXT:    return %[[X]]
func.func @identity(%x: tensor<?x4xf32>, %o: tensor<3xi32>) -> tensor<?x4xf32> {
  %y = moe.expert %x, %o {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// The result has the type that it had.
// CHECK-LABEL: func.func @static_rows(
// CHECK:         moe.grouped_matmul {{.*}} outs(%{{.*}} : tensor<6x8xf32>)
// CHECK:         return %{{.*}} : tensor<6x8xf32>
func.func @static_rows(%x: tensor<6x4xf32>, %o: tensor<3xi32>, %w: tensor<2x4x8xf32>) -> tensor<6x8xf32> {
  %y = moe.expert %x, %o params(%w : tensor<2x4x8xf32>) {
  ^bb0(%r: tensor<?x4xf32>, %v: tensor<4x8xf32>):
    %c0 = arith.constant 0 : index
    %z = arith.constant 0.0 : f32
    %n = tensor.dim %r, %c0 : tensor<?x4xf32>
    %e = tensor.empty(%n) : tensor<?x8xf32>
    %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    %p = linalg.matmul ins(%r, %v : tensor<?x4xf32>, tensor<4x8xf32>) outs(%f : tensor<?x8xf32>) -> tensor<?x8xf32>
    moe.yield %p : tensor<?x8xf32>
  } : tensor<6x4xf32>, tensor<3xi32> -> tensor<6x8xf32>
  return %y : tensor<6x8xf32>
}

// A vector of columns from outside is the same for all experts.
// CHECK-LABEL: func.func @captured(
// CHECK-SAME:    %[[X:[a-z0-9]*]]: tensor<?x4xf32>, %{{.*}}, %[[V:[a-z0-9]*]]: tensor<4xf32>)
// CHECK:         linalg.generic {{.*}} ins(%[[X]], %[[V]] : tensor<?x4xf32>, tensor<4xf32>)
// CHECK-NOT:     moe.expert
func.func @captured(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %v: tensor<4xf32>) -> tensor<?x4xf32> {
  %y = moe.expert %x, %o {
  ^bb0(%r: tensor<?x4xf32>):
    %s = linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (j)>, affine_map<(i, j) -> (i, j)>], iterator_types = ["parallel", "parallel"]}
      ins(%r, %v : tensor<?x4xf32>, tensor<4xf32>) outs(%r : tensor<?x4xf32>) {
    ^bb0(%a: f32, %d: f32, %u: f32):
      %t = arith.mulf %a, %d : f32
      linalg.yield %t : f32
    } -> tensor<?x4xf32>
    moe.yield %s : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// Rows that no expert covers: zeros, or what was given, under what the product writes.
// CHECK-LABEL: func.func @zeros_outside(
// CHECK:         %[[ZEROS:.*]] = linalg.fill ins(%{{.*}} : f32) outs(%{{.*}} : tensor<?x8xf32>)
// CHECK:         %[[Y:.*]] = moe.grouped_matmul {{.*}} first(1) outs(%[[ZEROS]] : tensor<?x8xf32>)
// CHECK-NOT:     moe.expert
// CHECK:         return %[[Y]]
func.func @zeros_outside(%x: tensor<?x4xf32>, %o: tensor<4xi32>, %w: tensor<2x4x8xf32>) -> tensor<?x8xf32> {
  %y = moe.expert %x, %o params(%w : tensor<2x4x8xf32>) first(1) uncovered(zero) {
  ^bb0(%r: tensor<?x4xf32>, %v: tensor<4x8xf32>):
    %c0 = arith.constant 0 : index
    %z = arith.constant 0.0 : f32
    %n = tensor.dim %r, %c0 : tensor<?x4xf32>
    %e = tensor.empty(%n) : tensor<?x8xf32>
    %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    %p = linalg.matmul ins(%r, %v : tensor<?x4xf32>, tensor<4x8xf32>) outs(%f : tensor<?x8xf32>) -> tensor<?x8xf32>
    moe.yield %p : tensor<?x8xf32>
  } : tensor<?x4xf32>, tensor<4xi32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// What follows the product becomes its epilogue, so that it reaches no other row.
// CHECK-LABEL: func.func @rows_outside(
// CHECK-SAME:    %[[I:[a-z0-9]*]]: tensor<?x8xbf16>)
// CHECK:         %[[Y:.*]] = moe.grouped_matmul {{.*}} outs(%[[I]] : tensor<?x8xbf16>) {
// CHECK-NEXT:    ^bb0(%[[SUM:.*]]: f32):
// CHECK-NEXT:      %[[R:.*]] = arith.truncf %[[SUM]]
// CHECK-NEXT:      moe.yield %[[R]] : bf16
// CHECK-NOT:     moe.expert
// CHECK:         return %[[Y]]
func.func @rows_outside(%x: tensor<?x4xbf16>, %o: tensor<4xi32>, %w: tensor<2x4x8xbf16>, %i: tensor<?x8xbf16>) -> tensor<?x8xbf16> {
  %y = moe.expert %x, %o params(%w : tensor<2x4x8xbf16>) init(%i : tensor<?x8xbf16>) count(2) {
  ^bb0(%r: tensor<?x4xbf16>, %v: tensor<4x8xbf16>):
    %c0 = arith.constant 0 : index
    %z = arith.constant 0.0 : f32
    %n = tensor.dim %r, %c0 : tensor<?x4xbf16>
    %e = tensor.empty(%n) : tensor<?x8xf32>
    %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    %p = linalg.matmul ins(%r, %v : tensor<?x4xbf16>, tensor<4x8xbf16>) outs(%f : tensor<?x8xf32>) -> tensor<?x8xf32>
    %d = tensor.empty(%n) : tensor<?x8xbf16>
    %t = linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i, j)>], iterator_types = ["parallel", "parallel"]}
      ins(%p : tensor<?x8xf32>) outs(%d : tensor<?x8xbf16>) {
    ^bb0(%a: f32, %u: bf16):
      %h = arith.truncf %a : f32 to bf16
      linalg.yield %h : bf16
    } -> tensor<?x8xbf16>
    moe.yield %t : tensor<?x8xbf16>
  } : tensor<?x4xbf16>, tensor<4xi32> -> tensor<?x8xbf16>
  return %y : tensor<?x8xbf16>
}
