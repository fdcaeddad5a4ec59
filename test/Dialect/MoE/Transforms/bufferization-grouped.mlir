// RUN: moe-opt %s -one-shot-bufferize="bufferize-function-boundaries function-boundary-type-conversion=identity-layout-map" -canonicalize -cse | FileCheck %s
// RUN: moe-opt %s -one-shot-bufferize="bufferize-function-boundaries function-boundary-type-conversion=identity-layout-map" -canonicalize -cse | FileCheck %s --check-prefix=INPLACE

// A destination that is new memory is written where it is.
// CHECK-LABEL: func.func @in_place(
// CHECK-SAME:    %[[X:[a-z0-9]+]]: memref<?x4xf32>
// CHECK:         %[[Y:.*]] = memref.alloc(%{{.*}}) {{.*}} : memref<?x4xf32>
// CHECK-NEXT:    moe.grouped_matmul %[[X]] weights(%{{.*}} : memref<1x4x4xf32>) operands(%{{.*}} : memref<4xf32>)
// CHECK-SAME:      outs(%[[Y]] : memref<?x4xf32>) {
// CHECK-NEXT:    ^bb0(%[[S:.*]]: f32, %[[B:.*]]: f32):
// CHECK-NEXT:      %[[T:.*]] = arith.addf %[[S]], %[[B]]
// CHECK-NEXT:      moe.yield %[[T]]
// CHECK-NEXT:    } : memref<?x4xf32>
// CHECK-NEXT:    return %[[Y]]
// INPLACE-NOT: memref.copy
// INPLACE-LABEL: func.func @copies
func.func @in_place(%x: tensor<?x4xf32>, %w: tensor<1x4x4xf32>, %b: tensor<4xf32>) -> tensor<?x4xf32> {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x4xf32>
  %e = tensor.empty(%n) : tensor<?x4xf32>
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x4xf32>) operands(%b : tensor<4xf32>)
      maps([affine_map<(e, r, n) -> (n)>]) outs(%e : tensor<?x4xf32>) {
  ^bb0(%s: f32, %c: f32):
    %t = arith.addf %s, %c : f32
    moe.yield %t : f32
  } : tensor<?x4xf32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// What must stay as it was is copied: the caller's rows, and rows that are read
// while the result is written.
// CHECK-LABEL: func.func @copies(
// CHECK-SAME:    %[[X:[a-z0-9]+]]: memref<?x4xf32>, %{{[a-z0-9]+}}: memref<1x4x4xf32>, %[[Y:[a-z0-9]+]]: memref<?x4xf32>
// CHECK:         memref.copy %[[Y]], %[[A:.*]] : memref<?x4xf32>
// CHECK:         moe.grouped_matmul %[[X]] {{.*}} outs(%[[A]] : memref<?x4xf32>)
// CHECK:         memref.copy %[[A]], %[[B:.*]] : memref<?x4xf32>
// CHECK:         moe.grouped_matmul %[[A]] {{.*}} outs(%[[B]] : memref<?x4xf32>)
func.func @copies(%x: tensor<?x4xf32>, %w: tensor<1x4x4xf32>, %y: tensor<?x4xf32> {bufferization.writable = false}) -> tensor<?x4xf32> {
  %a = moe.grouped_matmul %x weights(%w : tensor<1x4x4xf32>) outs(%y : tensor<?x4xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x4xf32>
  %b = moe.grouped_matmul %a weights(%w : tensor<1x4x4xf32>) outs(%a : tensor<?x4xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x4xf32>
  return %b : tensor<?x4xf32>
}

// CHECK-LABEL: func.func @others(
// CHECK:         moe.pack %{{.*}} outs(%{{.*}} : memref<1x1x4x4x1xf32>) : memref<1x4x4xf32>{{$}}
// CHECK:         moe.gather_sum %{{.*}} outs(%{{.*}} : memref<?x4xf32>) : memref<?x4xf32>, memref<?x2xi32>{{$}}
func.func @others(%x: tensor<?x4xf32>, %p: tensor<?x2xi32>, %w: tensor<1x4x4xf32>, %t: index) -> (tensor<?x4xf32>, tensor<1x1x4x4x1xf32>) {
  %e = tensor.empty() : tensor<1x1x4x4x1xf32>
  %f = tensor.empty(%t) : tensor<?x4xf32>
  %a = moe.pack %w panels(<matmuls = 1, columns = 4, depth = 1>) outs(%e : tensor<1x1x4x4x1xf32>) : tensor<1x4x4xf32> -> tensor<1x1x4x4x1xf32>
  %b = moe.gather_sum %x, %p outs(%f : tensor<?x4xf32>) : tensor<?x4xf32>, tensor<?x2xi32> -> tensor<?x4xf32>
  return %b, %a : tensor<?x4xf32>, tensor<1x1x4x4x1xf32>
}

// A contraction writes all of its destination, and reads it only to add to it.
// CHECK-LABEL: func.func @contract(
// CHECK-SAME:    %[[O:[a-z0-9]+]]: memref<1x4x6xf32>)
// CHECK-NOT:     memref.copy
// CHECK:         moe.grouped_contract %{{.*}}, %{{.*}} outs(%[[A:.*]] : memref<1x4x6xf32>) : memref<?x4xf32>, memref<?x6xf32>{{$}}
// CHECK:         memref.copy %[[O]], %[[B:.*]] : memref<1x4x6xf32>
// CHECK:         moe.grouped_contract %{{.*}}, %{{.*}} accumulate outs(%[[B]] : memref<1x4x6xf32>)
// CHECK-NOT:     memref.copy
// CHECK:         moe.grouped_contract %{{.*}}, %{{.*}} accumulate outs(%[[A]] : memref<1x4x6xf32>)
// CHECK:         return %[[A]], %[[B]]
func.func @contract(%x: tensor<?x4xf32>, %y: tensor<?x6xf32>, %o: tensor<1x4x6xf32> {bufferization.writable = false})
    -> (tensor<1x4x6xf32>, tensor<1x4x6xf32>) {
  %a = moe.grouped_contract %x, %y outs(%o : tensor<1x4x6xf32>) : tensor<?x4xf32>, tensor<?x6xf32> -> tensor<1x4x6xf32>
  %b = moe.grouped_contract %x, %y accumulate outs(%o : tensor<1x4x6xf32>) : tensor<?x4xf32>, tensor<?x6xf32> -> tensor<1x4x6xf32>
  %c = moe.grouped_contract %x, %y accumulate outs(%a : tensor<1x4x6xf32>) : tensor<?x4xf32>, tensor<?x6xf32> -> tensor<1x4x6xf32>
  return %c, %b : tensor<1x4x6xf32>, tensor<1x4x6xf32>
}
