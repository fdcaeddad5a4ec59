// RUN: moe-opt %s --moe-expand-small-floats | FileCheck %s

// CHECK-LABEL: func.func @widen(
// CHECK-NOT:     arith.extf {{.*}} f8E4M3FN
// CHECK:         arith.bitcast %{{.*}} : f8E4M3FN to i8
// CHECK:         arith.shli
func.func @widen(%x: f8E4M3FN) -> f32 {
  %y = arith.extf %x : f8E4M3FN to f32
  return %y : f32
}
