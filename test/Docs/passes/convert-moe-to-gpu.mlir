// RUN: moe-opt %s --convert-moe-to-gpu='arch=sm_80' | FileCheck %s

// A kernel, and its launch with a block for each token.
// CHECK:       gpu.module @{{.*}} [#nvvm.target<O = 3, chip = "sm_80">]
// CHECK:         llvm.func @gather_sum(
// CHECK-SAME:    gpu.kernel
// CHECK-LABEL: func.func @combined(
// CHECK:         moe_rt.launch @{{.*}}::@gather_sum
func.func @combined(%rows: tensor<?x40xbf16>, %positions: tensor<?x2xi32>, %init: tensor<?x40xbf16>) -> tensor<?x40xbf16> {
  %y = moe.gather_sum %rows, %positions outs(%init : tensor<?x40xbf16>)
    : tensor<?x40xbf16>, tensor<?x2xi32> -> tensor<?x40xbf16>
  return %y : tensor<?x40xbf16>
}
