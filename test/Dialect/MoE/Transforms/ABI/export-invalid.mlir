// RUN: moe-opt %s -moe-export -split-input-file -verify-diagnostics

//===----------------------------------------------------------------------===//
// Types
//===----------------------------------------------------------------------===//

// expected-error @+1 {{expected 'arg0' to be a ranked tensor of f32, f16, bf16, f64, f8E4M3FN, f8E5M2, f8E8M0FNU, i8, i16, i32 or i64 to export 'scalar', got 'f32'}}
func.func @scalar(%x: f32, %y: tensor<4xf32>) -> tensor<4xf32> {
  return %y : tensor<4xf32>
}

// -----

// expected-error @+1 {{expected 'x' to be a ranked tensor of f32, f16, bf16, f64, f8E4M3FN, f8E5M2, f8E8M0FNU, i8, i16, i32 or i64 to export 'vector', got 'vector<4xf32>'}}
func.func @vector(%x: vector<4xf32> {moe.name = "x"}, %y: tensor<4xf32>) -> tensor<4xf32> {
  return %y : tensor<4xf32>
}

// -----

// expected-error @+1 {{got 'memref<4xf32>'}}
func.func @memref(%x: memref<4xf32>, %y: tensor<4xf32>) -> tensor<4xf32> {
  return %y : tensor<4xf32>
}

// -----

// expected-error @+1 {{got 'tensor<*xf32>'}}
func.func @unranked(%x: tensor<*xf32>, %y: tensor<4xf32>) -> tensor<4xf32> {
  return %y : tensor<4xf32>
}

// -----

// expected-error @+1 {{got 'tensor<4xi1>'}}
func.func @element(%x: tensor<4xi1>, %y: tensor<4xf32>) -> tensor<4xf32> {
  return %y : tensor<4xf32>
}

// -----

// expected-error @+1 {{got 'tensor<4xindex>'}}
func.func @index(%x: tensor<4xindex>, %y: tensor<4xf32>) -> tensor<4xf32> {
  return %y : tensor<4xf32>
}

// -----

// Elements in memory are row after row.
// expected-error @+1 {{got 'tensor<4x4xf32, "tiled">'}}
func.func @encoding(%x: tensor<4x4xf32, "tiled">, %y: tensor<4xf32>) -> tensor<4xf32> {
  return %y : tensor<4xf32>
}

// -----

// expected-error @+1 {{expected 'y1' to be a ranked tensor of f32, f16, bf16, f64, f8E4M3FN, f8E5M2, f8E8M0FNU, i8, i16, i32 or i64 to export 'result', got 'index'}}
func.func @result(%x: tensor<4xf32>) -> (tensor<4xf32>, index) {
  %c0 = arith.constant 0 : index
  return %x, %c0 : tensor<4xf32>, index
}

// -----

// expected-error @+1 {{expected 'y' to be a ranked tensor of f32, f16, bf16, f64, f8E4M3FN, f8E5M2, f8E8M0FNU, i8, i16, i32 or i64 to export 'result_memref', got 'memref<4xf32>'}}
func.func @result_memref(%x: tensor<4xf32>) -> memref<4xf32> {
  %y = memref.alloc() : memref<4xf32>
  return %y : memref<4xf32>
}

// -----

// expected-error @+1 {{expected weight 'w' to have a static shape, got 'tensor<?x4xf32>'}}
func.func @weight(%w: tensor<?x4xf32> {moe.role = "weight", moe.name = "w"}) -> tensor<?x4xf32> {
  return %w : tensor<?x4xf32>
}

// -----

//===----------------------------------------------------------------------===//
// Names, roles, tokens
//===----------------------------------------------------------------------===//

// expected-error @+1 {{expected moe.role of 'arg0' to be "input" or "weight", got "output"}}
func.func @role(%x: tensor<4xf32> {moe.role = "output"}) -> tensor<4xf32> {
  return %x : tensor<4xf32>
}

// -----

// expected-error @+1 {{expected each argument and result of the exported function 'names' to have a name of its own, got 'x' twice}}
func.func @names(%x: tensor<4xf32> {moe.name = "x"}, %y: tensor<4xf32> {moe.name = "x"}) -> tensor<4xf32> {
  return %x : tensor<4xf32>
}

// -----

// expected-error @+1 {{got 'y' twice}}
func.func @name_of_result(%x: tensor<4xf32> {moe.name = "y"}) -> tensor<4xf32> {
  return %x : tensor<4xf32>
}

// -----

// expected-error @+1 {{expected moe.tokens to be [min, max] with 0 <= min <= max, got [4]}}
func.func @tokens_one(%x: tensor<4xf32>) -> tensor<4xf32> attributes {moe.tokens = [4]} {
  return %x : tensor<4xf32>
}

// -----

// expected-error @+1 {{expected moe.tokens to be [min, max] with 0 <= min <= max, got [0, 1, 2]}}
func.func @tokens_three(%x: tensor<4xf32>) -> tensor<4xf32> attributes {moe.tokens = [0, 1, 2]} {
  return %x : tensor<4xf32>
}

// -----

// expected-error @+1 {{expected moe.tokens to be [min, max] with 0 <= min <= max, got [-1, 4]}}
func.func @tokens_negative(%x: tensor<4xf32>) -> tensor<4xf32> attributes {moe.tokens = [-1, 4]} {
  return %x : tensor<4xf32>
}

// -----

// expected-error @+1 {{expected moe.tokens to be [min, max] with 0 <= min <= max, got [4, 3]}}
func.func @tokens_order(%x: tensor<4xf32>) -> tensor<4xf32> attributes {moe.tokens = [4, 3]} {
  return %x : tensor<4xf32>
}

// -----

// expected-error @+1 {{expected moe.tokens to be [min, max] with 0 <= min <= max, got ["1", "4"]}}
func.func @tokens_strings(%x: tensor<4xf32>) -> tensor<4xf32> attributes {moe.tokens = ["1", "4"]} {
  return %x : tensor<4xf32>
}

// -----

// expected-error @+1 {{expected moe.tokens to be [min, max] with 0 <= min <= max, got [0 : i128, 4 : i128]}}
func.func @tokens_wide(%x: tensor<4xf32>) -> tensor<4xf32> attributes {moe.tokens = [0 : i128, 4 : i128]} {
  return %x : tensor<4xf32>
}

// -----

// A range in another form is not overlooked.
// expected-error @+1 {{expected moe.tokens to be [min, max] with 0 <= min <= max, got array<i64: 1, 4>}}
func.func @tokens_array(%x: tensor<4xf32>) -> tensor<4xf32> attributes {moe.tokens = array<i64: 1, 4>} {
  return %x : tensor<4xf32>
}

// -----

// expected-error @+1 {{expected a maximum of at most 1073741823 tokens in moe.tokens, so that the rows fit 32 bits, got 1073741824}}
func.func @tokens_large(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>) -> tensor<?x4xf32>
    attributes {moe.tokens = [0, 1073741824]} {
  %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<?x4xf32>, tensor<?x2xi32>
  return %g : tensor<?x4xf32>
}

// -----

//===----------------------------------------------------------------------===//
// Functions
//===----------------------------------------------------------------------===//

// expected-error @+1 {{expected the exported function 'nothing' to return a tensor}}
func.func @nothing(%x: tensor<4xf32>) {
  return
}

// -----

// expected-error @+1 {{expected the exported function 'no_return' to return a tensor}}
func.func @no_return(%x: tensor<4xf32>) -> tensor<4xf32> {
  llvm.unreachable
}

// -----

// expected-error @+1 {{expected one block in the exported function 'blocks', got 2}}
func.func @blocks(%x: tensor<4xf32>) -> tensor<4xf32> {
  cf.br ^bb1
^bb1:
  return %x : tensor<4xf32>
}

// -----

// expected-error @+1 {{expected the exported function 'called' not to be called within the module}}
func.func @called(%x: tensor<4xf32>) -> tensor<4xf32> {
  return %x : tensor<4xf32>
}
func.func private @caller(%x: tensor<4xf32>) -> tensor<4xf32> {
  %y = call @called(%x) : (tensor<4xf32>) -> tensor<4xf32>
  return %y : tensor<4xf32>
}

// -----

// expected-error @+1 {{expected the exported function 'moe_workspace_layer' to have another name: those with 'moe_workspace_' are made for the runtime}}
func.func @moe_workspace_layer(%x: tensor<4xf32>) -> tensor<4xf32> {
  return %x : tensor<4xf32>
}

// -----

// expected-error @+1 {{those with 'moe_entry_' are made for the runtime}}
func.func @moe_entry_layer(%x: tensor<4xf32>) -> tensor<4xf32> {
  return %x : tensor<4xf32>
}

// -----

// expected-error @+1 {{those with '_mlir_ciface_' are made for the runtime}}
func.func @_mlir_ciface_layer(%x: tensor<4xf32>) -> tensor<4xf32> {
  return %x : tensor<4xf32>
}

// -----

// expected-error @+1 {{expected arguments and results of the exported function 'nameless' to have names that are not empty}}
func.func @nameless(%x: tensor<?x4xf32> {moe.name = ""}) -> tensor<?x4xf32> {
  return %x : tensor<?x4xf32>
}

// -----

//===----------------------------------------------------------------------===//
// Results that are added to
//===----------------------------------------------------------------------===//

// expected-error @+1 {{expected an argument with moe.accumulates = "z" to have the type of that result, got 'tensor<4xf32>'}}
func.func @nothing_to_add_to(%x: tensor<4xf32>, %s: tensor<4xf32> {moe.accumulates = "z"}) -> tensor<4xf32> {
  return %s : tensor<4xf32>
}

// -----

// expected-error @+1 {{expected an argument with moe.accumulates = "y" to have the type of that result, got 'tensor<4xf32>'}}
func.func @another_type(%x: tensor<4xf32>, %s: tensor<4xf32> {moe.accumulates = "y"}) -> (tensor<4xf16> {moe.name = "y"}) {
  %y = arith.truncf %s : tensor<4xf32> to tensor<4xf16>
  return %y : tensor<4xf16>
}
