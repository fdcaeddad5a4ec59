// RUN: moe-opt %s -moe-fuse-epilogue -canonicalize -cse -mlir-print-local-scope | FileCheck %s
// RUN: moe-opt %s -moe-fuse-epilogue --remarks-filter-passed=moe-fuse --remarks-filter-missed=moe-fuse -o /dev/null 2>&1 | FileCheck %s --check-prefix=REMARK

#ij = affine_map<(i, j) -> (i, j)>
#ji = affine_map<(i, j) -> (j, i)>
#i = affine_map<(i, j) -> (i)>
#j = affine_map<(i, j) -> (j)>

// A chain of operations goes into one epilogue, with what it reads beside: a
// vector of columns, one of rows and a constant.
// REMARK:        [Passed] EpilogueFused | Category:moe-fuse | Function=chain | Remark="elementwise operation fused into the epilogue of a matmul"
// REMARK:        [Passed] EpilogueFused | Category:moe-fuse | Function=chain | Remark="elementwise operation fused into the epilogue of a matmul"
// CHECK-LABEL: func.func @chain(
// CHECK-SAME:    %[[X:[a-z0-9]*]]: tensor<?x4xf32>, %[[W:[a-z0-9]*]]: tensor<1x4x8xf32>, %[[B:[a-z0-9]*]]: tensor<8xf32>, %[[R:[a-z0-9]*]]: tensor<?xbf16>, %{{.*}}, %[[F:[a-z0-9]*]]: tensor<?x8xbf16>)
// CHECK:         %[[HALF:.*]] = arith.constant 5.000000e-01 : f32
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %[[X]] weights(%[[W]] : tensor<1x4x8xf32>)
// CHECK-SAME:      operands(%[[B]], %[[R]] : tensor<8xf32>, tensor<?xbf16>)
// CHECK-SAME:      maps([affine_map<(d0, d1, d2) -> (d2)>, affine_map<(d0, d1, d2) -> (d1)>]) outs(%[[F]] : tensor<?x8xbf16>) {
// CHECK-NEXT:    ^bb0(%[[S:.*]]: f32, %[[C:.*]]: f32, %[[D:.*]]: bf16):
// CHECK-DAG:       %[[T:.*]] = arith.addf %[[S]], %[[C]] : f32
// CHECK-DAG:       %[[G:.*]] = arith.extf %[[D]] : bf16 to f32
// CHECK-DAG:       %[[P:.*]] = arith.mulf %[[T]], %[[G]] : f32
// CHECK-DAG:       %[[Q:.*]] = arith.mulf %[[P]], %[[HALF]] : f32
// CHECK:           %[[O:.*]] = arith.truncf %[[Q]] : f32 to bf16
// CHECK-NEXT:      moe.yield %[[O]] : bf16
// CHECK-NOT:     linalg.generic
// CHECK:         return %[[Y]]
func.func @chain(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %b: tensor<8xf32>, %r: tensor<?xbf16>,
                 %e: tensor<?x8xf32>, %f: tensor<?x8xbf16>) -> tensor<?x8xbf16> {
  %half = arith.constant 0.5 : f32
  %p = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) outs(%e : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  %q = linalg.generic {indexing_maps = [#ij, #j, #ij], iterator_types = ["parallel", "parallel"]}
    ins(%p, %b : tensor<?x8xf32>, tensor<8xf32>) outs(%e : tensor<?x8xf32>) {
  ^bb0(%a: f32, %c: f32, %u: f32):
    %t = arith.addf %a, %c : f32
    linalg.yield %t : f32
  } -> tensor<?x8xf32>
  %y = linalg.generic {indexing_maps = [#ij, #i, #ij], iterator_types = ["parallel", "parallel"]}
    ins(%q, %r : tensor<?x8xf32>, tensor<?xbf16>) outs(%f : tensor<?x8xbf16>) {
  ^bb0(%a: f32, %c: bf16, %u: bf16):
    %d = arith.extf %c : bf16 to f32
    %t = arith.mulf %a, %d : f32
    %h = arith.mulf %t, %half : f32
    %o = arith.truncf %h : f32 to bf16
    linalg.yield %o : bf16
  } -> tensor<?x8xbf16>
  return %y : tensor<?x8xbf16>
}

// Gate and up: one product of two weights, each with what it did to its sums.
// REMARK:        [Passed] EpilogueFused | Category:moe-fuse | Function=gate_and_up | Remark="matmuls of the same rows fused with the operation that joins them"
// CHECK-LABEL: func.func @gate_and_up(
// CHECK-SAME:    %{{.*}}, %{{.*}}, %[[G:[a-z0-9]*]]: tensor<2x4x8xf32>, %[[U:[a-z0-9]*]]: tensor<2x4x8xf32>, %[[B:[a-z0-9]*]]: tensor<2x8xf32>)
// CHECK:         moe.grouped_matmul %{{.*}} offsets(%{{.*}} : tensor<4xi32>) weights(%[[G]], %[[U]] : tensor<2x4x8xf32>, tensor<2x4x8xf32>) first(1)
// CHECK-SAME:      operands(%[[B]] : tensor<2x8xf32>) maps([affine_map<(d0, d1, d2) -> (d0, d2)>])
// CHECK-NEXT:    ^bb0(%[[SG:.*]]: f32, %[[SU:.*]]: f32, %[[C:.*]]: f32):
// CHECK-NEXT:      %[[T:.*]] = arith.addf %[[SU]], %[[C]] : f32
// CHECK-NEXT:      %[[M:.*]] = arith.mulf %[[SG]], %[[T]] : f32
// CHECK-NEXT:      moe.yield %[[M]] : f32
// CHECK-NOT:     moe.grouped_matmul
func.func @gate_and_up(%x: tensor<6x4xf32>, %o: tensor<4xi32>, %wg: tensor<2x4x8xf32>, %wu: tensor<2x4x8xf32>, %b: tensor<2x8xf32>) -> tensor<6x8xf32> {
  %e = tensor.empty() : tensor<6x8xf32>
  %g = moe.grouped_matmul %x offsets(%o : tensor<4xi32>) weights(%wg : tensor<2x4x8xf32>) first(1) outs(%e : tensor<6x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<6x4xf32> -> tensor<6x8xf32>
  %u = moe.grouped_matmul %x offsets(%o : tensor<4xi32>) weights(%wu : tensor<2x4x8xf32>) first(1)
      operands(%b : tensor<2x8xf32>) maps([affine_map<(e, r, n) -> (e, n)>]) outs(%e : tensor<6x8xf32>) {
  ^bb0(%s: f32, %c: f32):
    %t = arith.addf %s, %c : f32
    moe.yield %t : f32
  } : tensor<6x4xf32> -> tensor<6x8xf32>
  %y = linalg.mul ins(%g, %u : tensor<6x8xf32>, tensor<6x8xf32>) outs(%e : tensor<6x8xf32>) -> tensor<6x8xf32>
  return %y : tensor<6x8xf32>
}

// Products of other rows are not one; the first is fused, the other is read.
// REMARK:        [Passed] EpilogueFused | Category:moe-fuse | Function=other_rows | Remark="elementwise operation fused into the epilogue of a matmul"
// CHECK-LABEL: func.func @other_rows(
// CHECK:         %[[B:.*]] = moe.grouped_matmul %arg1
// CHECK:         moe.grouped_matmul %arg0 {{.*}} operands(%[[B]] : tensor<6x8xf32>) maps([affine_map<(d0, d1, d2) -> (d1, d2)>])
// CHECK-NOT:     linalg
func.func @other_rows(%x: tensor<6x4xf32>, %v: tensor<6x4xf32>, %w: tensor<1x4x8xf32>) -> tensor<6x8xf32> {
  %e = tensor.empty() : tensor<6x8xf32>
  %a = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) outs(%e : tensor<6x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<6x4xf32> -> tensor<6x8xf32>
  %b = moe.grouped_matmul %v weights(%w : tensor<1x4x8xf32>) outs(%e : tensor<6x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<6x4xf32> -> tensor<6x8xf32>
  %y = linalg.add ins(%a, %b : tensor<6x8xf32>, tensor<6x8xf32>) outs(%e : tensor<6x8xf32>) -> tensor<6x8xf32>
  return %y : tensor<6x8xf32>
}

// REMARK:        [Missed] EpilogueNotFused | Category:moe-fuse | Function=two_uses | Remark="not fused: the matmul has other uses"
// CHECK-LABEL: func.func @two_uses(
// CHECK:         moe.grouped_matmul
// CHECK:         linalg.generic
func.func @two_uses(%x: tensor<6x4xf32>, %w: tensor<1x4x8xf32>) -> (tensor<6x8xf32>, tensor<6x8xf32>) {
  %e = tensor.empty() : tensor<6x8xf32>
  %a = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) outs(%e : tensor<6x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<6x4xf32> -> tensor<6x8xf32>
  %y = linalg.exp ins(%a : tensor<6x8xf32>) outs(%e : tensor<6x8xf32>) -> tensor<6x8xf32>
  return %a, %y : tensor<6x8xf32>, tensor<6x8xf32>
}

// The rows of no expert are what they were: the operation works on them, too.
// REMARK:        [Missed] EpilogueNotFused | Category:moe-fuse | Function=rows_of_no_expert | Remark="not fused: the matmul has other uses"
// CHECK-LABEL: func.func @rows_of_no_expert(
// CHECK:         moe.grouped_matmul
// CHECK:         linalg.generic
func.func @rows_of_no_expert(%x: tensor<6x4xf32>, %o: tensor<3xi32>, %w: tensor<2x4x8xf32>, %e: tensor<6x8xf32>) -> tensor<6x8xf32> {
  %a = moe.grouped_matmul %x offsets(%o : tensor<3xi32>) weights(%w : tensor<2x4x8xf32>) outs(%e : tensor<6x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<6x4xf32> -> tensor<6x8xf32>
  %f = tensor.empty() : tensor<6x8xf32>
  %y = linalg.exp ins(%a : tensor<6x8xf32>) outs(%f : tensor<6x8xf32>) -> tensor<6x8xf32>
  return %y : tensor<6x8xf32>
}

// REMARK:        [Missed] EpilogueNotFused | Category:moe-fuse | Function=packed | Remark="not fused: the matmul has other uses"
// CHECK-LABEL: func.func @packed(
// CHECK:         moe.grouped_matmul
// CHECK:         linalg.generic
func.func @packed(%x: tensor<6x4xf32>, %w: tensor<1x1x4x8x1xf32>) -> tensor<6x8xf32> {
  %e = tensor.empty() : tensor<6x8xf32>
  %a = moe.grouped_matmul %x weights(%w : tensor<1x1x4x8x1xf32>) panels(<matmuls = 1, columns = 8, depth = 1>) outs(%e : tensor<6x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<6x4xf32> -> tensor<6x8xf32>
  %y = linalg.exp ins(%a : tensor<6x8xf32>) outs(%e : tensor<6x8xf32>) -> tensor<6x8xf32>
  return %y : tensor<6x8xf32>
}

// REMARK:        [Missed] EpilogueNotFused | Category:moe-fuse | Function=transpose | Remark="not fused: the matmul has other uses"
// CHECK-LABEL: func.func @transpose(
// CHECK:         moe.grouped_matmul
// CHECK:         linalg.generic
func.func @transpose(%x: tensor<8x4xf32>, %w: tensor<1x4x8xf32>) -> tensor<8x8xf32> {
  %e = tensor.empty() : tensor<8x8xf32>
  %a = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) outs(%e : tensor<8x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<8x4xf32> -> tensor<8x8xf32>
  %y = linalg.generic {indexing_maps = [#ij, #ji, #ij], iterator_types = ["parallel", "parallel"]}
    ins(%a, %a : tensor<8x8xf32>, tensor<8x8xf32>) outs(%e : tensor<8x8xf32>) {
  ^bb0(%b: f32, %c: f32, %u: f32):
    %t = arith.addf %b, %c : f32
    linalg.yield %t : f32
  } -> tensor<8x8xf32>
  return %y : tensor<8x8xf32>
}

// REMARK:        [Missed] EpilogueNotFused | Category:moe-fuse | Function=row_sums | Remark="not fused: not elementwise on the result of a matmul"
// CHECK-LABEL: func.func @row_sums(
// CHECK:         moe.grouped_matmul
// CHECK:         linalg.generic
func.func @row_sums(%x: tensor<6x4xf32>, %w: tensor<1x4x8xf32>, %f: tensor<6xf32>) -> tensor<6xf32> {
  %e = tensor.empty() : tensor<6x8xf32>
  %a = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) outs(%e : tensor<6x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<6x4xf32> -> tensor<6x8xf32>
  %y = linalg.generic {indexing_maps = [#ij, #i], iterator_types = ["parallel", "reduction"]}
    ins(%a : tensor<6x8xf32>) outs(%f : tensor<6xf32>) {
  ^bb0(%b: f32, %c: f32):
    %t = arith.addf %b, %c : f32
    linalg.yield %t : f32
  } -> tensor<6xf32>
  return %y : tensor<6xf32>
}

// What is read from the destination, and indices, are not there in an epilogue.
// REMARK-COUNT-2: [Missed] EpilogueNotFused | Category:moe-fuse | Function=destination_and_index | Remark="not fused: not elementwise on the result of a matmul"
// CHECK-LABEL: func.func @destination_and_index(
// CHECK-COUNT-2: moe.grouped_matmul
// CHECK-COUNT-2: linalg.generic
func.func @destination_and_index(%x: tensor<6x4xf32>, %w: tensor<1x4x8xf32>, %v: tensor<1x4x8xf32>, %d: tensor<6x8xf32>) -> (tensor<6x8xf32>, tensor<6x8xf32>) {
  %e = tensor.empty() : tensor<6x8xf32>
  %a = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) outs(%e : tensor<6x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<6x4xf32> -> tensor<6x8xf32>
  %b = moe.grouped_matmul %x weights(%v : tensor<1x4x8xf32>) outs(%e : tensor<6x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<6x4xf32> -> tensor<6x8xf32>
  %y = linalg.generic {indexing_maps = [#ij, #ij], iterator_types = ["parallel", "parallel"]} ins(%a : tensor<6x8xf32>) outs(%d : tensor<6x8xf32>) {
  ^bb0(%s: f32, %u: f32):
    %t = arith.addf %s, %u : f32
    linalg.yield %t : f32
  } -> tensor<6x8xf32>
  %z = linalg.generic {indexing_maps = [#ij, #ij], iterator_types = ["parallel", "parallel"]} ins(%b : tensor<6x8xf32>) outs(%e : tensor<6x8xf32>) {
  ^bb0(%s: f32, %u: f32):
    %i = linalg.index 0 : index
    %k = arith.index_cast %i : index to i32
    %l = arith.sitofp %k : i32 to f32
    %t = arith.addf %s, %l : f32
    linalg.yield %t : f32
  } -> tensor<6x8xf32>
  return %y, %z : tensor<6x8xf32>, tensor<6x8xf32>
}
// REMARK-NOT: EpilogueNotFused
