// A function without a body can be called only where every host has it.
// RUN: rm -f %t.moe
// RUN: not moe-compile %s -o %t.moe 2>&1 | FileCheck %s
// RUN: not ls %t.moe
// CHECK: undefined-function.mlir:[[@LINE+1]]:{{.*}} error: function 'g' is called and has no body; an artifact may call only its own functions and those of the C and math libraries
func.func private @g(%x: tensor<?x8xf32>) -> tensor<?x8xf32>
func.func private @unused(%x: tensor<?x8xf32>) -> tensor<?x8xf32>
func.func @f(%x: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %y = call @g(%x) : (tensor<?x8xf32>) -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}
