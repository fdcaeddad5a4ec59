// RUN: moe-opt %s -moe-plan-capacity='memory-limit=4KiB tokens=0:1000' -split-input-file -verify-diagnostics
// RUN: not moe-opt %s -moe-plan-capacity='tokens=7' 2>&1 | FileCheck %s --check-prefix=TOKENS
// RUN: not moe-opt %s -moe-plan-capacity='tokens=7:6' 2>&1 | FileCheck %s --check-prefix=TOKENS
// RUN: not moe-opt %s -moe-plan-capacity='tokens=-1:6' 2>&1 | FileCheck %s --check-prefix=TOKENS
// TOKENS: error: expected tokens=MIN:MAX with 0 <= MIN <= MAX, got '
// RUN: not moe-opt %s -moe-plan-capacity='memory-limit=4XB' 2>&1 | FileCheck %s --check-prefix=BYTES
// RUN: not moe-opt %s -moe-plan-capacity='memory-limit=-4' 2>&1 | FileCheck %s --check-prefix=BYTES
// RUN: not moe-opt %s -moe-plan-capacity='memory-limit=0.3KiB' 2>&1 | FileCheck %s --check-prefix=BYTES
// RUN: not moe-opt %s -moe-plan-capacity='memory-limit=9999999999GB' 2>&1 | FileCheck %s --check-prefix=BYTES
// BYTES: error: expected a memory limit such as 4096, 64MiB or 0.5GiB, within 64 bits, got '
// RUN: not moe-opt %s -moe-plan-capacity='imbalance=even' 2>&1 | FileCheck %s --check-prefix=MODEL
// MODEL: error: expected an imbalance of worst, uniform[:DELTA], zipf:S[:DELTA] or histogram:FILE[:DELTA], got 'even'
// RUN: not moe-opt %s -moe-plan-capacity='flops=inf' 2>&1 | FileCheck %s --check-prefix=RATE
// RUN: not moe-opt %s -moe-plan-capacity='bandwidth=-1' 2>&1 | FileCheck %s --check-prefix=RATE
// RUN: not moe-opt %s -moe-plan-capacity='gpu=a100' 2>&1 | FileCheck %s --check-prefix=GPU
// GPU: error: expected a GPU whose rates are known, a100-sxm, {{.*}} or an architecture, got 'a100'
// RUN: not moe-opt %s -moe-plan-capacity='machine=sm_50' 2>&1 | FileCheck %s --check-prefix=ARCH
// ARCH: error: expected a GPU whose rates are known, {{.*}} got 'sm_50'
// RUN: not moe-opt %s -moe-plan-capacity='bandwidth=5GB' 2>&1 | FileCheck %s --check-prefix=RATE
// RATE: error: expected {{flops|bandwidth}} above 0, such as {{.*}}, got '{{inf|-1|5GB}}'
// RUN: not moe-opt %s -moe-plan-capacity='variants=narrow' 2>&1 | FileCheck %s --check-prefix=VARIANT
// RUN: not moe-opt %s -moe-plan-capacity='variants=narrow:0' 2>&1 | FileCheck %s --check-prefix=VARIANT
// RUN: not moe-opt %s -moe-plan-capacity='variants=narrow:4:rugged' 2>&1 | FileCheck %s --check-prefix=VARIANT
// VARIANT: error: expected variants as NAME:ROWS or NAME:ROWS:ragged with 1 to 2^20 rows in a tile, got 'narrow
// RUN: not moe-opt %s -moe-plan-capacity='lowering=moe-nothing' 2>&1 | FileCheck %s --check-prefix=LOWERING
// LOWERING: error: expected lowering to be a pipeline, got 'moe-nothing'
// RUN: not moe-opt %s -moe-print-plan='format=xml' 2>&1 | FileCheck %s --check-prefix=PRINT
// PRINT: error: expected format=text or format=json, got 'xml'
// RUN: not moe-opt %s -moe-print-plan='lowering=moe-nothing' 2>&1 | FileCheck %s --check-prefix=LOWERING
// RUN: echo 'func.func @f(%%x: tensor<?x4xf32>) -> tensor<?x4xf32> { return %%x : tensor<?x4xf32> }' \
// RUN:   | not moe-opt -moe-plan-capacity='lowering=canonicalize' 2>&1 | FileCheck %s --check-prefix=NOTHING
// NOTHING: error: expected 'canonicalize' to make a workspace within 64 bits

// A capacity holds for all tokens of a call.
// expected-error @+1 {{expected a memory limit of at least }}
func.func @capacity(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>) -> tensor<?x16xf32> {
  // expected-note @+1 {{a call cannot run in chunks of tokens: which choices exceed the capacity depends on all tokens of a call}}
  %g, %o, %p = moe.dispatch %x, %ids experts(4) capacity(<fixed = 500>) : tensor<?x16xf32>, tensor<?x2xi32>
  %y = moe.combine %g, %p : tensor<?x16xf32>, tensor<?x2xi32>
  return %y : tensor<?x16xf32>
}

// -----

// expected-error @+1 {{expected tokens within 0:100, got 0:1000}}
func.func @range(%x: tensor<?x16xf32>) -> tensor<?x16xf32> attributes {moe.tokens = [0, 100]} {
  return %x : tensor<?x16xf32>
}

// -----

// expected-error @+1 {{expected at most one dynamic extent to count the cost, got 'tensor<?x?xf32>'}}
func.func @extents(%x: tensor<?x?xf32>) -> tensor<?x?xf32> {
  return %x : tensor<?x?xf32>
}

// -----

func.func @square(%x: tensor<?x16xf32>, %z: tensor<?x?xf32>) -> tensor<?x16xf32> {
  // expected-error @+1 {{expected a contraction over at most one dynamic extent to count its cost, got 2}}
  %y = linalg.matmul ins(%z, %x : tensor<?x?xf32>, tensor<?x16xf32>) outs(%x : tensor<?x16xf32>) -> tensor<?x16xf32>
  return %y : tensor<?x16xf32>
}

// -----

// expected-error @+1 {{expected elements that are integers or floats to count the cost, got 'complex<f32>'}}
func.func @complex(%x: tensor<?x16xcomplex<f32>>) -> tensor<?x16xcomplex<f32>> {
  return %x : tensor<?x16xcomplex<f32>>
}
