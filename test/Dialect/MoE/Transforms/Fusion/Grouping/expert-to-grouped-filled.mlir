// RUN: moe-opt %s -moe-fuse | FileCheck %s
// RUN: moe-opt %s -moe-fuse --remarks-filter-missed=moe-fuse -o /dev/null 2>&1 | FileCheck %s --check-prefix=MISSED --allow-empty

// A tensor with one constant in all of its elements is a number of the epilogue,
// and what repeats the elements of another tensor is read as that tensor.
// MISSED-NOT: ExpertNotGrouped

// The zeros that the product sums into, as the documentation of moe.expert has it.
// CHECK-LABEL: func.func @filled(
// CHECK-NOT:     moe.expert
// CHECK:         moe.grouped_matmul
// CHECK-NEXT:    ^bb0(%[[S:.*]]: f32):
// CHECK:           %[[M:.*]] = arith.maximumf %[[S]], %cst
// CHECK-NEXT:      moe.yield %[[M]]
// CHECK-NOT:     linalg.generic
func.func @filled(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %w: tensor<2x4x8xf32>) -> tensor<?x8xf32> {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %y = moe.expert %x, %o params(%w : tensor<2x4x8xf32>) {
  ^bb0(%r: tensor<?x4xf32>, %v: tensor<4x8xf32>):
    %n = tensor.dim %r, %c0 : tensor<?x4xf32>
    %e = tensor.empty(%n) : tensor<?x8xf32>
    %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    %p = linalg.matmul ins(%r, %v : tensor<?x4xf32>, tensor<4x8xf32>) outs(%f : tensor<?x8xf32>) -> tensor<?x8xf32>
    %m = linalg.max ins(%p, %f : tensor<?x8xf32>, tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    moe.yield %m : tensor<?x8xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// A splat, and arithmetic on whole tensors.
// CHECK-LABEL: func.func @splat(
// CHECK-NOT:     moe.expert
// CHECK:         moe.grouped_matmul
// CHECK:           arith.mulf
// CHECK:           arith.minimumf
// CHECK-NOT:     linalg.generic
func.func @splat(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %w: tensor<2x4x8xf32>) -> tensor<?x8xf32> {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %two = arith.constant 2.0 : f32
  %y = moe.expert %x, %o params(%w : tensor<2x4x8xf32>) {
  ^bb0(%r: tensor<?x4xf32>, %v: tensor<4x8xf32>):
    %n = tensor.dim %r, %c0 : tensor<?x4xf32>
    %e = tensor.empty(%n) : tensor<?x8xf32>
    %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    %p = linalg.matmul ins(%r, %v : tensor<?x4xf32>, tensor<4x8xf32>) outs(%f : tensor<?x8xf32>) -> tensor<?x8xf32>
    %s = tensor.splat %two[%n] : tensor<?x8xf32>
    %t = arith.mulf %p, %s : tensor<?x8xf32>
    %m = arith.minimumf %t, %s : tensor<?x8xf32>
    moe.yield %m : tensor<?x8xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// A bias, repeated for each row.
// CHECK-LABEL: func.func @broadcast(
// CHECK-SAME:    %[[B:[a-z0-9]*]]: tensor<2x8xf32>)
// CHECK-NOT:     moe.expert
// CHECK:         moe.grouped_matmul {{.*}}operands(%[[B]]
// CHECK:           arith.addf
// CHECK-NOT:     linalg.generic
func.func @broadcast(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %w: tensor<2x4x8xf32>, %b: tensor<2x8xf32>) -> tensor<?x8xf32> {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %y = moe.expert %x, %o params(%w, %b : tensor<2x4x8xf32>, tensor<2x8xf32>) {
  ^bb0(%r: tensor<?x4xf32>, %v: tensor<4x8xf32>, %c: tensor<8xf32>):
    %n = tensor.dim %r, %c0 : tensor<?x4xf32>
    %e = tensor.empty(%n) : tensor<?x8xf32>
    %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    %p = linalg.matmul ins(%r, %v : tensor<?x4xf32>, tensor<4x8xf32>) outs(%f : tensor<?x8xf32>) -> tensor<?x8xf32>
    %all = linalg.broadcast ins(%c : tensor<8xf32>) outs(%e : tensor<?x8xf32>) dimensions = [0]
    %s = linalg.add ins(%p, %all : tensor<?x8xf32>, tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    moe.yield %s : tensor<?x8xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}
