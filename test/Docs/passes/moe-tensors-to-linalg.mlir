// RUN: moe-opt %s --moe-tensors-to-linalg | FileCheck %s

// A splat is a fill.
// CHECK-LABEL: func.func @splat(
// CHECK:         tensor.empty
// CHECK:         linalg.fill
func.func @splat(%v: f32, %n: index) -> tensor<?x4xf32> {
  %s = tensor.splat %v[%n] : tensor<?x4xf32>
  return %s : tensor<?x4xf32>
}
