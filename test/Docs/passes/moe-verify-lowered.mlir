// RUN: not moe-opt %s --moe-verify-lowered='dialects=func,arith' 2>&1 | FileCheck %s

// Only func and arith are allowed here; math is left.
// CHECK: error: 'math.exp' op was not lowered; expected only operations of 'func', 'arith'
func.func @left(%x: f32) -> f32 {
  %y = math.exp %x : f32
  return %y : f32
}
