// RUN: moe-opt %s -split-input-file -verify-diagnostics --moe-parallelize=slots=4

// Positions say where rows are on one rank.
func.func @positions(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>) -> (tensor<?x16xf32>, tensor<?x2xi32>) {
  %rows, %offsets, %positions = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x2xi32>
  %o = moe.combine %rows, %positions : tensor<?x16xf32>, tensor<?x2xi32>
  // expected-error@+1 {{uses the positions of a moe.dispatch whose experts are spread over ranks}}
  return %o, %positions : tensor<?x16xf32>, tensor<?x2xi32>
}

// -----

func.func @offsets(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>) -> (tensor<?x16xf32>, tensor<9xi32>) {
  %rows, %offsets, %positions = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x2xi32>
  %o = moe.combine %rows, %positions : tensor<?x16xf32>, tensor<?x2xi32>
  // expected-error@+1 {{uses the offsets of a moe.dispatch whose experts are spread over ranks}}
  return %o, %offsets : tensor<?x16xf32>, tensor<9xi32>
}

// -----

// A mean over tokens is of one rank alone.
// expected-error@+1 {{expected tokens that depend on one another by capacities and gates alone, to spread the experts over ranks}}
func.func @reduction(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>) -> (tensor<?x16xf32>, tensor<16xf32>) {
  %rows, %offsets, %positions = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x2xi32>
  %o = moe.combine %rows, %positions : tensor<?x16xf32>, tensor<?x2xi32>
  %zero = arith.constant dense<0.0> : tensor<16xf32>
  // expected-note@+1 {{a reduction over the tokens}}
  %mean = linalg.reduce ins(%o : tensor<?x16xf32>) outs(%zero : tensor<16xf32>) dimensions = [0]
    (%a: f32, %b: f32) {
      %s = arith.addf %a, %b : f32
      linalg.yield %s : f32
    }
  return %o, %mean : tensor<?x16xf32>, tensor<16xf32>
}

// -----

func.func @static(%x: tensor<4x16xf32>, %ids: tensor<4x2xi32>) -> tensor<4x16xf32> {
  // expected-error@+1 {{expected a dynamic number of tokens, to spread the experts over ranks, got 'tensor<4x16xf32>'}}
  %rows, %offsets, %positions = moe.dispatch %x, %ids experts(8) : tensor<4x16xf32>, tensor<4x2xi32>
  %o = moe.combine %rows, %positions : tensor<8x16xf32>, tensor<4x2xi32>
  return %o : tensor<4x16xf32>
}

// -----

// Experts of two kinds: a call could not check ids of its caller.
func.func @kinds(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>, %w: tensor<6x16xf32>) -> tensor<?x16xf32> {
  // expected-error@+1 {{expected ids of a gate, to spread experts of several kinds over ranks, got an argument}}
  %rows, %offsets, %positions = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x2xi32>
  %y = moe.expert %rows, %offsets params(%w : tensor<6x16xf32>) init(%rows : tensor<?x16xf32>) first(0) count(6) {
  ^bb0(%r: tensor<?x16xf32>, %v: tensor<16xf32>):
    moe.yield %r : tensor<?x16xf32>
  } : tensor<?x16xf32>, tensor<9xi32> -> tensor<?x16xf32>
  %o = moe.combine %y, %positions : tensor<?x16xf32>, tensor<?x2xi32>
  return %o : tensor<?x16xf32>
}

// -----

// The parameters of all experts are on no rank.
func.func @shared_parameter(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>, %w: tensor<8x16xf32>) -> (tensor<?x16xf32>, tensor<?x16xf32>) {
  %rows, %offsets, %positions = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x2xi32>
  %y = moe.expert %rows, %offsets params(%w : tensor<8x16xf32>) {
  ^bb0(%r: tensor<?x16xf32>, %v: tensor<16xf32>):
    moe.yield %r : tensor<?x16xf32>
  } : tensor<?x16xf32>, tensor<9xi32> -> tensor<?x16xf32>
  %o = moe.combine %y, %positions : tensor<?x16xf32>, tensor<?x2xi32>
  // expected-error@+1 {{uses a parameter of experts that are spread over ranks}}
  %s = linalg.generic {indexing_maps = [affine_map<(t, h, e) -> (e, h)>, affine_map<(t, h, e) -> (t, h)>], iterator_types = ["parallel", "parallel", "reduction"]}
      ins(%w : tensor<8x16xf32>) outs(%x : tensor<?x16xf32>) {
  ^bb0(%p: f32, %q: f32):
    %t = arith.addf %p, %q : f32
    linalg.yield %t : f32
  } -> tensor<?x16xf32>
  return %o, %s : tensor<?x16xf32>, tensor<?x16xf32>
}

// -----

// A parameter that is reshaped across experts.
func.func @reshaped(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>, %w: tensor<128xf32>) -> tensor<?x16xf32> {
  %rows, %offsets, %positions = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x2xi32>
  // expected-error@+1 {{expected a reshape of each expert, to spread the experts over ranks}}
  %e = tensor.expand_shape %w [[0, 1]] output_shape [8, 16] : tensor<128xf32> into tensor<8x16xf32>
  %y = moe.expert %rows, %offsets params(%e : tensor<8x16xf32>) {
  ^bb0(%r: tensor<?x16xf32>, %v: tensor<16xf32>):
    moe.yield %r : tensor<?x16xf32>
  } : tensor<?x16xf32>, tensor<9xi32> -> tensor<?x16xf32>
  %o = moe.combine %y, %positions : tensor<?x16xf32>, tensor<?x2xi32>
  return %o : tensor<?x16xf32>
}

// -----

// Slots of all ranks are numbered in i32.
func.func @slots(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>) -> tensor<?x16xf32> attributes {moe.parallel = #moe.parallel<slots = 2147483647>} {
  // expected-error@+1 {{expected between 1 and 268435455 slots on a rank for 8 experts, got 2147483647}}
  %rows, %offsets, %positions = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x2xi32>
  %o = moe.combine %rows, %positions : tensor<?x16xf32>, tensor<?x2xi32>
  return %o : tensor<?x16xf32>
}
