// RUN: moe-opt %s -split-input-file -moe-quantize-weights -verify-diagnostics

// expected-error @+1 {{moe.weight_format: expected one scale}}
func.func @no_scale(%x: tensor<?x64xf32>) attributes {moe.weight_format = #moe.format<codes = <element = f8E4M3FN>>} {
  return
}

// -----

// expected-error @+1 {{expected moe.weight_format of an operation to be a #moe.format, got 4 : i64}}
func.func @integer(%x: tensor<?x64xf32>) attributes {moe.weight_format = 4 : i64} {
  return
}
