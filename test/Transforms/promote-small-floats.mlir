// RUN: moe-opt %s -moe-promote-small-floats | FileCheck %s

// Each operation rounds: no conversion allows its neighbour to be left out.
// CHECK-LABEL: func.func @computes(
// CHECK-SAME:    %[[X:.*]]: bf16, %[[Y:.*]]: vector<4xf16>)
// CHECK:         %[[WIDE:.*]] = arith.extf %[[X]] : bf16 to f32
// CHECK:         %[[SUM:.*]] = arith.addf %[[WIDE]], %{{.*}} : f32
// CHECK:         %[[ROUNDED:.*]] = arith.truncf %[[SUM]] : f32 to bf16
// CHECK:         %[[FACTOR:.*]] = arith.extf %[[ROUNDED]] : bf16 to f32
// CHECK:         math.fma %[[FACTOR]], %{{.*}} : f32
// CHECK:         vector.reduction <add>, %{{.*}} : vector<4xf32> into f32
// CHECK:         arith.truncf %{{.*}} : f32 to f16
// CHECK-NOT:     contract
func.func @computes(%x: bf16, %y: vector<4xf16>) -> (bf16, f16) {
  %0 = arith.addf %x, %x : bf16
  %1 = math.fma %0, %x, %x : bf16
  %2 = vector.reduction <add>, %y : vector<4xf16> into f16
  return %1, %2 : bf16, f16
}

// What moves numbers stays, and so do f32 and tensors.
// CHECK-LABEL: func.func @moves(
// CHECK-NOT:     arith.extf
// CHECK-NOT:     arith.truncf
// CHECK:         return
func.func @moves(%c: i1, %x: bf16, %y: f32, %z: tensor<4xbf16>) -> (bf16, i16, f32, tensor<4xbf16>) {
  %0 = arith.constant 1.0 : bf16
  %1 = arith.select %c, %x, %0 : bf16
  %2 = arith.bitcast %1 : bf16 to i16
  %3 = arith.addf %y, %y : f32
  %4 = arith.addf %z, %z : tensor<4xbf16>
  return %1, %2, %3, %4 : bf16, i16, f32, tensor<4xbf16>
}
