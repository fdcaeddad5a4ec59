// LLVM calls helpers of the compiler's library for some operations: found after
// linking, before anything is written.
// RUN: rm -f %t.moe
// RUN: not moe-compile %s -o %t.moe 2>&1 | FileCheck %s
// RUN: not ls %t.moe
// CHECK: error: the code calls '__divti3', which neither it nor the C or math library has
func.func @f(%x: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %y = linalg.map ins(%x : tensor<?x8xf32>) outs(%x : tensor<?x8xf32>) (%v: f32, %o: f32) {
    %i = arith.fptosi %v : f32 to i64
    %w = arith.extsi %i : i64 to i128
    %large = arith.constant 1180591620717411303424 : i128
    %s = arith.addi %w, %large : i128
    %q = arith.divsi %s, %w : i128
    %r = arith.trunci %q : i128 to i64
    %f = arith.sitofp %r : i64 to f32
    linalg.yield %f : f32
  }
  return %y : tensor<?x8xf32>
}
