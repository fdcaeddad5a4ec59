// RUN: moe-opt %s | FileCheck %s
// What is printed parses to the same, as bytecode too.
// RUN: moe-opt %s | moe-opt | FileCheck %s
// RUN: moe-opt %s --mlir-print-op-generic | moe-opt | FileCheck %s
// RUN: moe-opt %s --emit-bytecode | moe-opt | FileCheck %s

// CHECK-DAG: #[[EN:.*]] = affine_map<(d0, d1, d2) -> (d0, d2)>
// CHECK-DAG: #[[R:.*]] = affine_map<(d0, d1, d2) -> (d1)>

// CHECK-LABEL: func.func @dense(
// CHECK:         moe.grouped_matmul %{{.*}} weights(%{{.*}} : tensor<1x4x8xf32>) outs(%{{.*}} : tensor<?x8xf32>) {
// CHECK-NEXT:    ^bb0(%[[SUM:sum]]: f32):
// CHECK-NEXT:      moe.yield %[[SUM]] : f32
// CHECK-NEXT:    } : tensor<?x4xf32> -> tensor<?x8xf32>
func.func @dense(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// CHECK-LABEL: func.func @all(
// CHECK:         moe.grouped_matmul %{{.*}} gather(%{{.*}} : tensor<?xi32>) offsets(%{{.*}} : tensor<9xi32>)
// CHECK-SAME:      weights(%{{.*}}, %{{.*}} : tensor<2x8x4xbf16>, tensor<2x8x4xbf16>) transposed first(6)
// CHECK-SAME:      operands(%{{.*}}, %{{.*}} : tensor<2x8xf32>, tensor<?xi8>) maps([#[[EN]], #[[R]]])
// CHECK-SAME:      outs(%{{.*}} : tensor<?x8xbf16>) {
// CHECK-NEXT:    ^bb0(%sum: f32, %sum_0: f32, %operand: f32, %operand_1: i8):
// CHECK:         } {my.note = "kept"} : tensor<7x4xbf16> -> tensor<?x8xbf16>
func.func @all(%x: tensor<7x4xbf16>, %n: tensor<?xi32>, %offsets: tensor<9xi32>, %w: tensor<2x8x4xbf16>,
               %b: tensor<2x8xf32>, %q: tensor<?xi8>, %o: tensor<?x8xbf16>) -> tensor<?x8xbf16> {
  %y = moe.grouped_matmul %x gather(%n : tensor<?xi32>) offsets(%offsets : tensor<9xi32>)
      weights(%w, %w : tensor<2x8x4xbf16>, tensor<2x8x4xbf16>) transposed first(6)
      operands(%b, %q : tensor<2x8xf32>, tensor<?xi8>)
      maps([affine_map<(e, r, n) -> (e, n)>, affine_map<(e, r, n) -> (r)>]) outs(%o : tensor<?x8xbf16>) {
  ^bb0(%g: f32, %u: f32, %bias: f32, %scale: i8):
    %f = arith.sitofp %scale : i8 to f32
    %p = arith.mulf %g, %u : f32
    %s = math.fma %p, %f, %bias : f32
    %r = arith.truncf %s : f32 to bf16
    moe.yield %r : bf16
  } {my.note = "kept"} : tensor<7x4xbf16> -> tensor<?x8xbf16>
  return %y : tensor<?x8xbf16>
}

// On buffers there is no result; packed weights are one operand.
// CHECK-LABEL: func.func @buffers(
// CHECK:         moe.grouped_matmul %{{.*}} weights(%{{.*}} : memref<1x2x4x8x1xf32>)
// CHECK-SAME:      panels(<matmuls = 2, columns = 8, depth = 1>) outs(%{{.*}} : memref<?x8xf32>) {
// CHECK-NEXT:    ^bb0(%sum: f32, %sum_0: f32):
// CHECK:         } : memref<?x4xf32>{{$}}
func.func @buffers(%x: memref<?x4xf32>, %w: memref<1x2x4x8x1xf32>, %o: memref<?x8xf32>) {
  moe.grouped_matmul %x weights(%w : memref<1x2x4x8x1xf32>) panels(<matmuls = 2, columns = 8, depth = 1>)
      outs(%o : memref<?x8xf32>) {
  ^bb0(%g: f32, %u: f32):
    moe.yield %g : f32
  } : memref<?x4xf32>
  return
}

// A scalar of the function, and an operand without dimensions.
// CHECK-LABEL: func.func @captured(
// CHECK-SAME:    %{{.*}}, %[[SCALE:[a-z0-9]*]]: f32,
// CHECK:         arith.mulf %{{.*}}, %[[SCALE]] : f32
func.func @captured(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %scale: f32, %v: tensor<f32>, %o: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %y = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) operands(%v : tensor<f32>)
      maps([affine_map<(e, r, n) -> ()>]) outs(%o : tensor<?x8xf32>) {
  ^bb0(%s: f32, %a: f32):
    %m = arith.mulf %s, %scale : f32
    %r = arith.addf %m, %a : f32
    moe.yield %r : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// The accumulator beside the activation, in another type.
// CHECK-LABEL: func.func @several(
// CHECK:         %{{.*}}:2 = moe.grouped_matmul %{{.*}} weights(%{{.*}} : tensor<1x4x8xf32>)
// CHECK-SAME:      outs(%{{.*}}, %{{.*}} : tensor<?x8xf32>, tensor<?x8xbf16>) {
// CHECK:           moe.yield %{{.*}}, %{{.*}} : f32, bf16
// CHECK-NEXT:    } : tensor<?x4xf32> -> tensor<?x8xf32>, tensor<?x8xbf16>
func.func @several(%x: tensor<?x4xf32>, %w: tensor<1x4x8xf32>, %o: tensor<?x8xf32>, %p: tensor<?x8xbf16>) -> (tensor<?x8xf32>, tensor<?x8xbf16>) {
  %y:2 = moe.grouped_matmul %x weights(%w : tensor<1x4x8xf32>) outs(%o, %p : tensor<?x8xf32>, tensor<?x8xbf16>) {
  ^bb0(%s: f32):
    %a = math.tanh %s : f32
    %b = arith.truncf %s : f32 to bf16
    moe.yield %a, %b : f32, bf16
  } : tensor<?x4xf32> -> tensor<?x8xf32>, tensor<?x8xbf16>
  return %y#0, %y#1 : tensor<?x8xf32>, tensor<?x8xbf16>
}
