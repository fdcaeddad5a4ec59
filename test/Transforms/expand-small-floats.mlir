// RUN: moe-opt %s -moe-expand-small-floats | FileCheck %s
// RUN: moe-opt %s -moe-expand-small-floats=f16 | FileCheck %s --check-prefix=F16

// CHECK-LABEL: func.func @extend(
// CHECK-SAME:    %[[X:.*]]: f8E4M3FN)
// CHECK-DAG:     %[[BYTE:.*]] = arith.bitcast %[[X]] : f8E4M3FN to i8
// CHECK-DAG:     %[[BITS:.*]] = arith.extui %[[BYTE]] : i8 to i32
// CHECK-NOT:     arith.extf
// CHECK:         return %{{.*}} : f32
func.func @extend(%x: f8E4M3FN) -> f32 {
  %y = arith.extf %x : f8E4M3FN to f32
  return %y : f32
}

// CHECK-LABEL: func.func @extend_to_bf16(
// CHECK-NOT:     arith.extf
// CHECK:         arith.truncf %{{.*}} : f32 to bf16
func.func @extend_to_bf16(%x: f8E4M3FN) -> bf16 {
  %y = arith.extf %x : f8E4M3FN to bf16
  return %y : bf16
}

// CHECK-LABEL: func.func @round(
// CHECK-NOT:     arith.truncf
// CHECK:         %[[BYTE:.*]] = arith.trunci %{{.*}} : vector<4xi32> to vector<4xi8>
// CHECK:         arith.bitcast %[[BYTE]] : vector<4xi8> to vector<4xf8E4M3FN>
func.func @round(%x: vector<4xf32>) -> vector<4xf8E4M3FN> {
  %y = arith.truncf %x : vector<4xf32> to vector<4xf8E4M3FN>
  return %y : vector<4xf8E4M3FN>
}

// With infinity, which f8E4M3FN lacks.
// CHECK-LABEL: func.func @with_infinity(
// CHECK-NOT:     arith.extf
// CHECK:         arith.constant 2139095040 : i32
// CHECK-NOT:     arith.truncf
// CHECK:         return
func.func @with_infinity(%x: f8E5M2, %y: f32) -> (f32, f8E5M2) {
  %a = arith.extf %x : f8E5M2 to f32
  %b = arith.truncf %y : f32 to f8E5M2
  return %a, %b : f32, f8E5M2
}

// Another type, another rounding and tensors stay.
// CHECK-LABEL: func.func @others(
// CHECK:         arith.extf %{{.*}} : f8E4M3B11FNUZ to f32
// CHECK:         arith.truncf %{{.*}} upward : f32 to f8E4M3FN
// CHECK:         arith.extf %{{.*}} : tensor<4xf8E4M3FN> to tensor<4xf32>
func.func @others(%x: f8E4M3B11FNUZ, %y: f32, %z: tensor<4xf8E4M3FN>) -> (f32, f8E4M3FN, tensor<4xf32>) {
  %a = arith.extf %x : f8E4M3B11FNUZ to f32
  %b = arith.truncf %y upward : f32 to f8E4M3FN
  %c = arith.extf %z : tensor<4xf8E4M3FN> to tensor<4xf32>
  return %a, %b, %c : f32, f8E4M3FN, tensor<4xf32>
}

// Processors that convert f16 keep these; others get integer arithmetic.
// CHECK-LABEL: func.func @half(
// CHECK:         arith.extf
// CHECK:         arith.truncf
// F16-LABEL:   func.func @half(
// F16-NOT:       arith.extf
// F16-NOT:       arith.truncf
// F16:           arith.bitcast %{{.*}} : i16 to f16
func.func @half(%x: f16, %y: f32) -> (f32, f16) {
  %a = arith.extf %x : f16 to f32
  %b = arith.truncf %y : f32 to f16
  return %a, %b : f32, f16
}

// One rounding, not two: f32 is rounded to odd in between.
// CHECK-LABEL: func.func @from_f64(
// CHECK:         %[[NEAREST:.*]] = arith.truncf %{{.*}} : f64 to f32
// CHECK:         arith.extf %[[NEAREST]] : f32 to f64
// CHECK:         arith.muli
// CHECK:         arith.truncf %{{.*}} : f32 to bf16
// CHECK-NOT:     f64 to bf16
// CHECK:         return
func.func @from_f64(%x: f64) -> bf16 {
  %y = arith.truncf %x : f64 to bf16
  return %y : bf16
}
