// RUN: moe-opt %s --moe-promote-small-floats | FileCheck %s

// CHECK-LABEL: func.func @add(
// CHECK-COUNT-2: arith.extf %{{.*}} : bf16 to f32
// CHECK:         arith.addf %{{.*}} : f32
// CHECK:         arith.truncf %{{.*}} : f32 to bf16
func.func @add(%a: bf16, %b: bf16) -> bf16 {
  %c = arith.addf %a, %b : bf16
  return %c : bf16
}
