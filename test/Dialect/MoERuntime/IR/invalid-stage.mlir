// RUN: moe-opt %s -split-input-file -verify-diagnostics

func.func @negative(%executor: !llvm.ptr) {
  // expected-error @+1 {{attribute 'index' failed to satisfy constraint: 64-bit signless integer attribute whose value is non-negative}}
  moe_rt.stage %executor, -1 : !llvm.ptr
  return
}

// -----

// expected-error @+1 {{expected moe.stages of an operation to be [{name = "stage", kernels = ["kernel"]}], got [{name = "gate"}]}}
func.func @no_kernels() attributes {moe.stages = [{name = "gate"}]} {
  return
}

// -----

// expected-error @+1 {{expected moe.stage of an operation to be a string, got 1 : i64}}
func.func @number() attributes {moe.stage = 1} {
  return
}
