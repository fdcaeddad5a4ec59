// RUN: moe-opt %s -moe-export -moe-chunk-tokens=chunk=3 -split-input-file -verify-diagnostics

// Tokens that depend on one another.

// expected-error @+1 {{expected tokens that do not depend on one another, to run them in chunks}}
func.func @capacity(%x: tensor<?x6xf32>, %ids: tensor<?x2xi32>) -> tensor<?x6xf32> {
  // expected-note @+1 {{which choices exceed the capacity depends on all tokens of a call}}
  %g, %o, %p = moe.dispatch %x, %ids experts(4) capacity(<fixed = 5>) : tensor<?x6xf32>, tensor<?x2xi32>
  %y = moe.combine %g, %p : tensor<?x6xf32>, tensor<?x2xi32>
  return %y : tensor<?x6xf32>
}

// -----

// expected-error @+1 {{expected tokens that do not depend on one another}}
func.func @expert_choice(%l: tensor<?x4xf32>) -> tensor<?x4xi32> {
  // expected-note @+1 {{experts choose among all tokens of a call}}
  %w, %i = moe.gate %l top_k(4) select(expert_choice) capacity(<factor = 1.0>) : tensor<?x4xf32>
  return %i : tensor<?x4xi32>
}

// -----

// expected-error @+1 {{expected tokens that do not depend on one another}}
func.func @softmax_of_tokens(%l: tensor<?x4xf32>) -> tensor<?x2xf32> {
  // expected-note @+1 {{the softmax runs over all tokens of a call}}
  %w, %i = moe.gate %l top_k(2) score_axis(tokens) : tensor<?x4xf32>
  return %w : tensor<?x2xf32>
}

// -----

// expected-error @+1 {{expected tokens that do not depend on one another}}
func.func @reduction(%x: tensor<?x6xf32>) -> tensor<?x6xf32> {
  %zero = arith.constant dense<0.0> : tensor<6xf32>
  // expected-note @+1 {{a reduction over the tokens}}
  %sum = linalg.reduce ins(%x : tensor<?x6xf32>) outs(%zero : tensor<6xf32>) dimensions = [0]
    (%a: f32, %b: f32) {
      %s = arith.addf %a, %b : f32
      linalg.yield %s : f32
    }
  %y = linalg.map ins(%x : tensor<?x6xf32>) outs(%x : tensor<?x6xf32>) (%a: f32, %old: f32) {
    linalg.yield %a : f32
  }
  return %y : tensor<?x6xf32>
}

// -----

// expected-error @+1 {{expected tokens that do not depend on one another}}
func.func @number(%x: tensor<?xi64>) -> tensor<?xi64> {
  // expected-note @+1 {{the index of a token is used}}
  %y = linalg.generic {indexing_maps = [affine_map<(i) -> (i)>], iterator_types = ["parallel"]}
      outs(%x : tensor<?xi64>) {
    ^bb0(%a: i64):
      %i = linalg.index 0 : index
      %j = arith.index_cast %i : index to i64
      linalg.yield %j : i64
  } -> tensor<?xi64>
  return %y : tensor<?xi64>
}

// -----

// expected-error @+1 {{expected tokens that do not depend on one another}}
func.func @how_many(%x: tensor<?x6xf32>) -> tensor<?x6xf32> {
  %c0 = arith.constant 0 : index
  %t = tensor.dim %x, %c0 : tensor<?x6xf32>
  // expected-note @+1 {{'arith.index_cast' is not known to treat every token alone}}
  %i = arith.index_cast %t : index to i64
  %f = arith.sitofp %i : i64 to f32
  %y = linalg.map ins(%x : tensor<?x6xf32>) outs(%x : tensor<?x6xf32>) (%a: f32, %old: f32) {
    %b = arith.divf %a, %f : f32
    linalg.yield %b : f32
  }
  return %y : tensor<?x6xf32>
}

// -----

// A product of tokens with tokens.
// expected-error @+1 {{expected tokens that do not depend on one another}}
func.func @attention(%x: tensor<?x6xf32>, %z: tensor<?x6xf32>) -> tensor<?x6xf32> {
  %zero = arith.constant dense<0.0> : tensor<6x6xf32>
  // expected-note @+1 {{a reduction over the tokens}}
  %s = linalg.matmul indexing_maps = [affine_map<(m, n, k) -> (k, m)>, affine_map<(m, n, k) -> (k, n)>, affine_map<(m, n, k) -> (m, n)>]
    ins(%x, %z : tensor<?x6xf32>, tensor<?x6xf32>) outs(%zero : tensor<6x6xf32>) -> tensor<6x6xf32>
  %y = linalg.matmul ins(%x, %s : tensor<?x6xf32>, tensor<6x6xf32>) outs(%x : tensor<?x6xf32>) -> tensor<?x6xf32>
  return %y : tensor<?x6xf32>
}

// -----

// Rows of one expert that are summed.
// expected-error @+1 {{expected tokens that do not depend on one another}}
func.func @expert(%l: tensor<?x4xf32>, %x: tensor<?x6xf32>) -> tensor<?x6xf32> {
  %weights, %ids = moe.gate %l top_k(2) : tensor<?x4xf32>
  %g, %o, %p = moe.dispatch %x, %ids experts(4) : tensor<?x6xf32>, tensor<?x2xi32>
  %zero = arith.constant dense<0.0> : tensor<6xf32>
  %h = moe.expert %g, %o {
  ^bb0(%r: tensor<?x6xf32>):
    // expected-note @+1 {{a reduction over the tokens}}
    %sum = linalg.reduce ins(%r : tensor<?x6xf32>) outs(%zero : tensor<6xf32>) dimensions = [0]
      (%a: f32, %b: f32) {
        %s = arith.addf %a, %b : f32
        linalg.yield %s : f32
      }
    %y = linalg.broadcast ins(%sum : tensor<6xf32>) outs(%r : tensor<?x6xf32>) dimensions = [0]
    moe.yield %y : tensor<?x6xf32>
  } : tensor<?x6xf32>, tensor<5xi32> -> tensor<?x6xf32>
  %y = moe.combine %h, %p weights(%weights : tensor<?x2xf32>) : tensor<?x6xf32>, tensor<?x2xi32>
  return %y : tensor<?x6xf32>
}

// -----

// expected-error @+1 {{expected tokens that do not depend on one another}}
func.func @second_dimension(%x: tensor<6x?xf32>) -> tensor<6x?xf32> {
  // expected-note @-1 {{T is not the first dimension of argument 0}}
  %y = linalg.map ins(%x : tensor<6x?xf32>) outs(%x : tensor<6x?xf32>) (%a: f32, %old: f32) {
    linalg.yield %a : f32
  }
  return %y : tensor<6x?xf32>
}

// -----

// expected-error @+1 {{expected tokens that do not depend on one another}}
func.func @no_token(%x: tensor<?x4xf32>, %s: tensor<4xf32>) -> (tensor<?x4xf32>, tensor<4xf32>) {
  // expected-note @-1 {{a result is not one row for each token}}
  return %x, %s : tensor<?x4xf32>, tensor<4xf32>
}

// -----

// Offsets that are a result, and not only reported.
// expected-error @+1 {{expected tokens that do not depend on one another}}
func.func @offsets(%x: tensor<?x6xf32>, %ids: tensor<?x2xi32>) -> tensor<5xi32> {
  // expected-note @-1 {{a result is not one row for each token}}
  %g, %o, %p = moe.dispatch %x, %ids experts(4) : tensor<?x6xf32>, tensor<?x2xi32>
  return %o : tensor<5xi32>
}
