// A name that nothing reads is an error wherever it stands, and so is a value of
// another kind than is read.

// RUN: moe-opt %s -split-input-file -verify-diagnostics

func.func @misspelt(%x: tensor<?x4xf32> {moe.role = "input"},
    // expected-error @+1 {{expected one of moe.name, moe.role, moe.source, moe.source_format, moe.convert, moe.experts, moe.accumulates as the moe attribute of argument 1, got moe.roles}}
    %w: tensor<4x4xf32> {moe.roles = "weight"}) -> tensor<?x4xf32> {
  return %x : tensor<?x4xf32>
}

// -----

// That of an operation is none of an argument.
// expected-error @+1 {{expected one of moe.name, moe.role, moe.source, moe.source_format, moe.convert, moe.experts, moe.accumulates as the moe attribute of argument 0, got moe.tokens}}
func.func private @declared(tensor<?x4xf32> {moe.tokens = [1, 2]}) -> tensor<?x4xf32>

// -----

// expected-error @+1 {{expected one of moe.name, moe.role as the moe attribute of result 0, got moe.source}}
func.func @result(%x: tensor<?x4xf32>) -> (tensor<?x4xf32> {moe.source = ["output"]}) {
  return %x : tensor<?x4xf32>
}

// -----

// expected-error @+1 {{expected one of moe.tokens, moe.activations, moe.weight_format, moe.plan, moe.parallel, moe.forward, moe.programs, moe.accumulates, moe.signature, moe.independent_tokens, moe.prepares, moe.layers, moe.stages, moe.stage, moe.kernel, moe.live_tokens, moe.shared_bytes, moe.work, moe.primaries, moe.images, moe.kernels, moe.tiles, moe.multicast as the moe attribute of an operation, got moe.token}}
func.func @range(%x: tensor<?x4xf32>) -> tensor<?x4xf32> attributes {moe.token = [1, 2]} {
  return %x : tensor<?x4xf32>
}

// -----

func.func @inner(%x: tensor<?x4xf32>) -> tensor<?x4xf32> {
  // expected-error @+1 {{as the moe attribute of an operation, got moe.name}}
  %0 = tensor.cast %x {moe.name = "y"} : tensor<?x4xf32> to tensor<?x4xf32>
  return %0 : tensor<?x4xf32>
}

// -----

// expected-error @+1 {{expected moe.role of argument 0 to be a string, got 1 : i32}}
func.func @role_type(%x: tensor<4xf32> {moe.role = 1 : i32}) -> tensor<4xf32> {
  return %x : tensor<4xf32>
}

// -----

// expected-error @+1 {{expected moe.name of argument 0 to be a string, got @x}}
func.func @name_type(%x: tensor<4xf32> {moe.name = @x}) -> tensor<4xf32> {
  return %x : tensor<4xf32>
}

// -----

// expected-error @+1 {{expected moe.source of argument 0 to be an array of strings, got "w"}}
func.func @source_type(%x: tensor<4xf32> {moe.source = "w"}) -> tensor<4xf32> {
  return %x : tensor<4xf32>
}

// -----

// expected-error @+1 {{expected moe.name of result 0 to be a string, got 1 : i64}}
func.func @result_type(%x: tensor<4xf32>) -> (tensor<4xf32> {moe.name = 1}) {
  return %x : tensor<4xf32>
}

// -----

// expected-error @+1 {{expected moe.layers of an operation to be {name = {code = @function, sources = {argument = ["tensor"]}}}, got {layer_1 = {code = @layer_0}}}}
module attributes {moe.layers = {layer_1 = {code = @layer_0}}} {}

// -----

// expected-error @+1 {{expected moe.primaries of an operation to be an array of symbols, got ["up"]}}
llvm.func @down() attributes {moe.primaries = ["up"]}

// -----

// expected-error @+1 {{expected moe.parallel of an operation to be a #moe.parallel, got 4 : i64}}
func.func @parallel(%x: tensor<?x4xf32>) -> tensor<?x4xf32> attributes {moe.parallel = 4} {
  return %x : tensor<?x4xf32>
}

// -----

// expected-error @+1 {{expected moe.forward of an operation to be a symbol, got "layer"}}
func.func @backward(%x: tensor<?x4xf32>) -> tensor<?x4xf32> attributes {moe.forward = "layer"} {
  return %x : tensor<?x4xf32>
}

// -----

// expected-error @+1 {{expected moe.role of result 0 to be "saved", got "output"}}
func.func @result_role(%x: tensor<?x4xf32>) -> (tensor<?x4xf32> {moe.role = "output"}) {
  return %x : tensor<?x4xf32>
}

// -----

// expected-error @+1 {{expected moe.programs of an operation to be [{name = "layer", signature = #moe.signature<>, steps = []}], got ["layer"]}}
module attributes {moe.programs = ["layer"]} {}

// -----

// expected-error @+1 {{expected moe.accumulates of argument 0 to be a string, got 0 : i64}}
func.func @accumulates(%w: tensor<4x4xf32> {moe.accumulates = 0}) -> tensor<4x4xf32> {
  return %w : tensor<4x4xf32>
}

// -----

// expected-error @+1 {{expected moe.experts of argument 0 to be an integer, got "8"}}
func.func @experts(%w: tensor<4x4xf32> {moe.experts = "8"}) -> tensor<4x4xf32> {
  return %w : tensor<4x4xf32>
}

// -----

// expected-error @+1 {{expected moe.multicast of an operation to be "none", "weights" or "rows", got "columns"}}
func.func @multicast() attributes {moe.multicast = "columns"} {
  return
}
