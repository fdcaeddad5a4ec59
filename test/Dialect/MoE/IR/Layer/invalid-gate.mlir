// RUN: moe-opt %s -split-input-file -verify-diagnostics

//===----------------------------------------------------------------------===//
// Types
//===----------------------------------------------------------------------===//

func.func @rank(%l: tensor<8xf32>) {
  // expected-error @+1 {{operand #0 must be 2D tensor of f32, f16 or bf16 values, but got 'tensor<8xf32>'}}
  %w, %i = "moe.gate"(%l) <{top_k = 2 : i64, operandSegmentSizes = array<i32: 1, 0, 0, 0>}>
    : (tensor<8xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>)
  return
}

// -----

func.func @rank_custom(%l: tensor<8xf32>) {
  // expected-error @+1 {{expected logits of rank 2, got 'tensor<8xf32>'}}
  %w, %i = moe.gate %l top_k(2) : tensor<8xf32>
  return
}

// -----

func.func @unranked(%l: tensor<*xf32>) {
  // expected-error @+1 {{operand #0 must be 2D tensor of f32, f16 or bf16 values, but got 'tensor<*xf32>'}}
  %w, %i = "moe.gate"(%l) <{top_k = 2 : i64, operandSegmentSizes = array<i32: 1, 0, 0, 0>}>
    : (tensor<*xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>)
  return
}

// -----

func.func @element_type(%l: tensor<?x8xf64>) {
  // expected-error @+1 {{operand #0 must be 2D tensor of f32, f16 or bf16 values, but got 'tensor<?x8xf64>'}}
  %w, %i = moe.gate %l top_k(2) : tensor<?x8xf64>
  return
}

// -----

func.func @result_type(%l: tensor<?x8xf32>) {
  // expected-error @+2 {{inferred type(s) 'tensor<?x2xf32>', 'tensor<?x2xi32>' are incompatible with return type(s) of operation 'tensor<?x3xf32>', 'tensor<?x3xi32>'}}
  // expected-error @+1 {{failed to infer returned types}}
  %w, %i = "moe.gate"(%l) <{top_k = 2 : i64, operandSegmentSizes = array<i32: 1, 0, 0, 0>}>
    : (tensor<?x8xf32>) -> (tensor<?x3xf32>, tensor<?x3xi32>)
  return
}

// -----

func.func @score_type_integer(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{attribute 'score_type' failed to satisfy constraint: f32, f16 or bf16}}
  %w, %i = moe.gate %l top_k(2) score_type(i32) : tensor<?x8xf32>
  return
}

// -----

func.func @score_type_double(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{result #0 must be 2D tensor of f32, f16 or bf16 values, but got 'tensor<?x2xf64>'}}
  %w, %i = moe.gate %l top_k(2) score_type(f64) : tensor<?x8xf32>
  return
}

// -----

func.func @dynamic_experts(%l: tensor<?x?xf32>) {
  // expected-error @+1 {{expected logits with a static number of experts, got 'tensor<?x?xf32>'}}
  %w, %i = moe.gate %l top_k(2) : tensor<?x?xf32>
  return
}

// -----

func.func @no_experts(%l: tensor<?x0xf32>) {
  // expected-error @+1 {{expected a number of experts between 1 and 2147483646, got 0}}
  %w, %i = moe.gate %l top_k(1) : tensor<?x0xf32>
  return
}

// -----

// Ids are 32-bit.
func.func @too_many_experts(%l: tensor<?x2147483647xf32>) {
  // expected-error @+1 {{expected a number of experts between 1 and 2147483646, got 2147483647}}
  %w, %i = moe.gate %l top_k(1) : tensor<?x2147483647xf32>
  return
}

// -----

//===----------------------------------------------------------------------===//
// top_k and the shapes of the operands
//===----------------------------------------------------------------------===//

func.func @top_k_missing(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{requires attribute 'top_k'}}
  %w, %i = "moe.gate"(%l) <{operandSegmentSizes = array<i32: 1, 0, 0, 0>}>
    : (tensor<?x8xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>)
  return
}

// -----

func.func @top_k_zero(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{expected top_k of at least 1, got 0}}
  %w, %i = moe.gate %l top_k(0) : tensor<?x8xf32>
  return
}

// -----

func.func @top_k_negative(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{expected top_k between 1 and 8, got -9223372036854775808}}
  %w, %i = "moe.gate"(%l) <{top_k = -9223372036854775808 : i64, operandSegmentSizes = array<i32: 1, 0, 0, 0>}>
    : (tensor<?x8xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>)
  return
}

// -----

func.func @top_k_large(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{expected top_k between 1 and 8, got 9}}
  %w, %i = moe.gate %l top_k(9) : tensor<?x8xf32>
  return
}

// -----

func.func @top_k_huge(%l: tensor<4x8xf32>) {
  // expected-error @+1 {{expected top_k between 1 and 8, got 9223372036854775807}}
  %w, %i = moe.gate %l top_k(9223372036854775807) : tensor<4x8xf32>
  return
}

// -----

func.func @bias(%l: tensor<?x8xf32>, %b: tensor<7xf32>) {
  // expected-error @+1 {{expected bias of shape 8, got 7}}
  %w, %i = moe.gate %l bias(%b : tensor<7xf32>) top_k(2) : tensor<?x8xf32>
  return
}

// -----

func.func @bias_rank(%l: tensor<?x8xf32>, %b: tensor<1x8xf32>) {
  // expected-error @+1 {{operand #1 must be 1D tensor of f32, f16 or bf16 values}}
  %w, %i = moe.gate %l bias(%b : tensor<1x8xf32>) top_k(2) : tensor<?x8xf32>
  return
}

// -----

func.func @noise(%l: tensor<?x8xf32>, %n: tensor<?x4xf32>) {
  // expected-error @+1 {{expected noise of shape ?x8, got ?x4}}
  %w, %i = moe.gate %l noise(%n : tensor<?x4xf32>) top_k(2) : tensor<?x8xf32>
  return
}

// -----

func.func @noise_tokens(%l: tensor<5x8xf32>, %n: tensor<4x8xf32>) {
  // expected-error @+1 {{expected noise of shape 5x8, got 4x8}}
  %w, %i = moe.gate %l noise(%n : tensor<4x8xf32>) top_k(2) : tensor<5x8xf32>
  return
}

// -----

func.func @given_ids(%l: tensor<?x8xf32>, %g: tensor<?x3xi32>) {
  // expected-error @+1 {{expected given ids of shape ?x2, got ?x3}}
  %w, %i = moe.gate %l ids(%g : tensor<?x3xi32>) top_k(2) : tensor<?x8xf32>
  return
}

// -----

func.func @given_ids_type(%l: tensor<?x8xf32>, %g: tensor<?x2xi64>) {
  // expected-error @+1 {{operand #1 must be 2D tensor of 32-bit signless integer values, but got 'tensor<?x2xi64>'}}
  %w, %i = moe.gate %l ids(%g : tensor<?x2xi64>) top_k(2) : tensor<?x8xf32>
  return
}

// -----

//===----------------------------------------------------------------------===//
// How experts are scored
//===----------------------------------------------------------------------===//

func.func @axis_needs_softmax(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{score_axis(tokens) needs score(softmax) and order(score_then_select)}}
  %w, %i = moe.gate %l top_k(2) score(sigmoid) score_axis(tokens) : tensor<?x8xf32>
  return
}

// -----

func.func @axis_needs_order(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{score_axis(tokens) needs score(softmax) and order(score_then_select)}}
  %w, %i = moe.gate %l top_k(2) score_axis(tokens) order(select_then_score) : tensor<?x8xf32>
  return
}

// -----

func.func @each_choice_needs_softmax(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{order(score_each_choice) needs score(softmax)}}
  %w, %i = moe.gate %l top_k(2) score(relu) order(score_each_choice) : tensor<?x8xf32>
  return
}

// -----

func.func @each_choice_bias(%l: tensor<?x8xf32>, %b: tensor<8xf32>) {
  // expected-error @+1 {{order(score_each_choice) takes no bias and no groups}}
  %w, %i = moe.gate %l bias(%b : tensor<8xf32>) top_k(2) order(score_each_choice) : tensor<?x8xf32>
  return
}

// -----

func.func @each_choice_groups(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{order(score_each_choice) takes no bias and no groups}}
  %w, %i = moe.gate %l top_k(2) order(score_each_choice) groups(<count = 2, keep = 1>) : tensor<?x8xf32>
  return
}

// -----

func.func @margin_order(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{margin needs order(score_each_choice)}}
  %w, %i = moe.gate %l top_k(2) margin(0.1) : tensor<?x8xf32>
  return
}

// -----

func.func @margin_negative(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{expected a margin of at least 0}}
  %w, %i = moe.gate %l top_k(2) order(score_each_choice) margin(-0.1) : tensor<?x8xf32>
  return
}

// -----

func.func @margin_nan(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{expected a margin of at least 0}}
  %w, %i = moe.gate %l top_k(2) order(score_each_choice) margin(0x7FF8000000000000) : tensor<?x8xf32>
  return
}

// -----

func.func @margin_integer(%l: tensor<?x8xf32>) {
  // expected-error @+2 {{unexpected decimal integer literal for a floating point value}}
  // expected-note @+1 {{add a trailing dot to make the literal a float}}
  %w, %i = moe.gate %l top_k(2) order(score_each_choice) margin(1) : tensor<?x8xf32>
  return
}

// -----

func.func @threshold(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{expected a threshold that is not NaN}}
  %w, %i = moe.gate %l top_k(2) threshold(0x7FF8000000000000) : tensor<?x8xf32>
  return
}

// -----

func.func @scale_infinite(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{expected a scale that is finite in f32}}
  %w, %i = moe.gate %l top_k(2) scale(0x7FF0000000000000) : tensor<?x8xf32>
  return
}

// -----

func.func @scale_nan(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{expected a scale that is finite in f32}}
  %w, %i = moe.gate %l top_k(2) scale(0x7FF8000000000000) : tensor<?x8xf32>
  return
}

// -----

// Arithmetic is in f32: this is infinite there, and times 0 not a number.
func.func @scale_large(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{expected a scale that is finite in f32}}
  %w, %i = moe.gate %l top_k(2) scale(-1.0e39) : tensor<?x8xf32>
  return
}

// -----

//===----------------------------------------------------------------------===//
// Who selects whom
//===----------------------------------------------------------------------===//

func.func @expert_choice_capacity(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{select(expert_choice) needs a capacity}}
  %w, %i = moe.gate %l top_k(8) select(expert_choice) : tensor<?x8xf32>
  return
}

// -----

func.func @token_choice_capacity(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{capacity needs select(expert_choice); that of a dispatch is an attribute of moe.dispatch}}
  %w, %i = moe.gate %l top_k(2) capacity(<factor = 1.0>) : tensor<?x8xf32>
  return
}

// -----

func.func @expert_choice_top_k(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{select(expert_choice) needs top_k(8), one column for each expert, got 2}}
  %w, %i = moe.gate %l top_k(2) select(expert_choice) capacity(<factor = 1.0>) : tensor<?x8xf32>
  return
}

// -----

func.func @expert_choice_ids(%l: tensor<?x8xf32>, %g: tensor<?x8xi32>) {
  // expected-error @+1 {{select(expert_choice) takes no given ids, no groups and no other order than score_then_select}}
  %w, %i = moe.gate %l ids(%g : tensor<?x8xi32>) top_k(8) select(expert_choice) capacity(<factor = 1.0>) : tensor<?x8xf32>
  return
}

// -----

func.func @expert_choice_groups(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{select(expert_choice) takes no given ids, no groups and no other order than score_then_select}}
  %w, %i = moe.gate %l top_k(8) select(expert_choice) groups(<count = 2, keep = 2>) capacity(<factor = 1.0>) : tensor<?x8xf32>
  return
}

// -----

func.func @expert_choice_order(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{select(expert_choice) takes no given ids, no groups and no other order than score_then_select}}
  %w, %i = moe.gate %l top_k(8) order(select_then_score) select(expert_choice) capacity(<factor = 1.0>) : tensor<?x8xf32>
  return
}

// -----

func.func @ids_and_bias(%l: tensor<?x8xf32>, %b: tensor<8xf32>, %g: tensor<?x2xi32>) {
  // expected-error @+1 {{expected no bias and no groups with given ids}}
  %w, %i = moe.gate %l bias(%b : tensor<8xf32>) ids(%g : tensor<?x2xi32>) top_k(2) : tensor<?x8xf32>
  return
}

// -----

func.func @ids_and_groups(%l: tensor<?x8xf32>, %g: tensor<?x2xi32>) {
  // expected-error @+1 {{expected no bias and no groups with given ids}}
  %w, %i = moe.gate %l ids(%g : tensor<?x2xi32>) top_k(2) groups(<count = 2, keep = 1>) : tensor<?x8xf32>
  return
}

// -----

func.func @groups_divide(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{expected a number of groups that divides 8 experts, got 3}}
  %w, %i = moe.gate %l top_k(2) groups(<count = 3, keep = 2>) : tensor<?x8xf32>
  return
}

// -----

func.func @groups_huge(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{expected a number of groups that divides 8 experts, got 9223372036854775807}}
  %w, %i = moe.gate %l top_k(2) groups(<count = 9223372036854775807, keep = 9223372036854775807>) : tensor<?x8xf32>
  return
}

// -----

func.func @groups_of_one(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{group score top2_sum needs at least 2 experts in each group, got 1}}
  %w, %i = moe.gate %l top_k(2) groups(<count = 8, keep = 4, score = top2_sum>) : tensor<?x8xf32>
  return
}

// -----

func.func @groups_top_k(%l: tensor<?x8xf32>) {
  // expected-error @+1 {{expected top_k of at most 2, the experts in the groups kept, got 3}}
  %w, %i = moe.gate %l top_k(3) groups(<count = 4, keep = 1>) : tensor<?x8xf32>
  return
}
