// RUN: moe-opt %s "-moe-verify-lowered=dialects=func,arith" -split-input-file -verify-diagnostics -allow-unregistered-dialect

func.func @lowered(%x: i32) -> i32 {
  %y = arith.addi %x, %x : i32
  return %y : i32
}

// -----

func.func @other(%x: f32) -> f32 {
  // expected-error @+1 {{'math.exp' op was not lowered; expected only operations of 'func', 'arith'}}
  %y = math.exp %x : f32
  return %y : f32
}

// -----

// What the cast stands beside says more.
func.func @cast(%x: index) -> f32 {
  %i = builtin.unrealized_conversion_cast %x : index to i64
  // expected-error @+1 {{'unknown.operation' op was not lowered}}
  %y = "unknown.operation"(%i) : (i64) -> f32
  return %y : f32
}

// -----

func.func @cast_alone(%x: index) -> i64 {
  // expected-error @+1 {{'builtin.unrealized_conversion_cast' op was not lowered}}
  %i = builtin.unrealized_conversion_cast %x : index to i64
  return %i : i64
}
