// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-routing | FileCheck %s

// The mask is 1 where weights are above 0, and they may be below.

// CHECK-LABEL: func.func @negative_weights(
// CHECK-NOT:     moe.{{dispatch|combine|grouped_matmul}}
func.func @negative_weights(%x: tensor<6x8xf32>, %logits: tensor<6x4xf32>, %up: tensor<4x8x16xf32>, %down: tensor<4x16x8xf32>) -> tensor<6x8xf32> {
  %zero = "stablehlo.constant"() <{value = dense<0.0> : tensor<f32>}> : () -> tensor<f32>
  %zeros = "stablehlo.constant"() <{value = dense<0.0> : tensor<6x4x3xf32>}> : () -> tensor<6x4x3xf32>
  %w, %ids = moe.gate %logits top_k(2) score(none) : tensor<6x4xf32>
  %i = "stablehlo.broadcast_in_dim"(%ids) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<6x2xi32>) -> tensor<6x2x4xi32>
  %e = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<6x2x4xi32>
  %hot = "stablehlo.compare"(%i, %e) <{comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<6x2x4xi32>, tensor<6x2x4xi32>) -> tensor<6x2x4xi1>
  %mask = "stablehlo.convert"(%hot) : (tensor<6x2x4xi1>) -> tensor<6x2x4xf32>
  %flat = "stablehlo.reshape"(%mask) : (tensor<6x2x4xf32>) -> tensor<12x4xf32>
  %sums = "stablehlo.reduce_window"(%flat, %zero) <{padding = dense<[[11, 0], [0, 0]]> : tensor<2x2xi64>, window_dimensions = array<i64: 12, 1>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %s = "stablehlo.add"(%a, %b) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%s) : (tensor<f32>) -> ()
  }) : (tensor<12x4xf32>, tensor<f32>) -> tensor<12x4xf32>
  %counts = "stablehlo.reshape"(%sums) : (tensor<12x4xf32>) -> tensor<6x2x4xf32>
  %before = "stablehlo.subtract"(%counts, %mask) : (tensor<6x2x4xf32>, tensor<6x2x4xf32>) -> tensor<6x2x4xf32>
  %own = "stablehlo.multiply"(%before, %mask) : (tensor<6x2x4xf32>, tensor<6x2x4xf32>) -> tensor<6x2x4xf32>
  %place = "stablehlo.reduce"(%own, %zero) <{dimensions = array<i64: 2>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %s = "stablehlo.add"(%a, %b) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%s) : (tensor<f32>) -> ()
  }) : (tensor<6x2x4xf32>, tensor<f32>) -> tensor<6x2xf32>
  %int = "stablehlo.convert"(%place) : (tensor<6x2xf32>) -> tensor<6x2xi32>
  %p = "stablehlo.broadcast_in_dim"(%int) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<6x2xi32>) -> tensor<6x2x3xi32>
  %c = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<6x2x3xi32>
  %slot = "stablehlo.compare"(%p, %c) <{comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<6x2x3xi32>, tensor<6x2x3xi32>) -> tensor<6x2x3xi1>
  %slots = "stablehlo.convert"(%slot) : (tensor<6x2x3xi1>) -> tensor<6x2x3xf32>
  %weighted = "stablehlo.dot_general"(%w, %mask) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0, 1], rhs_batching_dimensions = [0, 1]>}> : (tensor<6x2xf32>, tensor<6x2x4xf32>) -> tensor<6x2x4xf32>
  %combine = "stablehlo.dot_general"(%weighted, %slots) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<6x2x4xf32>, tensor<6x2x3xf32>) -> tensor<6x4x3xf32>
  %positive = "stablehlo.compare"(%combine, %zeros) <{comparison_direction = #stablehlo<comparison_direction GT>}> : (tensor<6x4x3xf32>, tensor<6x4x3xf32>) -> tensor<6x4x3xi1>
  %dispatch = "stablehlo.convert"(%positive) : (tensor<6x4x3xi1>) -> tensor<6x4x3xf32>
  %rows = "stablehlo.dot_general"(%dispatch, %x) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [0], rhs_contracting_dimensions = [0]>}> : (tensor<6x4x3xf32>, tensor<6x8xf32>) -> tensor<4x3x8xf32>
  %h = "stablehlo.dot_general"(%rows, %up) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<4x3x8xf32>, tensor<4x8x16xf32>) -> tensor<4x3x16xf32>
  %act = "stablehlo.tanh"(%h) : (tensor<4x3x16xf32>) -> tensor<4x3x16xf32>
  %y = "stablehlo.dot_general"(%act, %down) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<4x3x16xf32>, tensor<4x16x8xf32>) -> tensor<4x3x8xf32>
  %out = "stablehlo.dot_general"(%combine, %y) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [2, 1], rhs_contracting_dimensions = [1, 0]>}> : (tensor<6x4x3xf32>, tensor<4x3x8xf32>) -> tensor<6x8xf32>
  return %out : tensor<6x8xf32>
}

// -----

// Places from the last choice to the first one.

// CHECK-LABEL: func.func @last_first(
// CHECK-NOT:     moe.{{dispatch|combine|grouped_matmul}}
func.func @last_first(%x: tensor<6x8xf32>, %logits: tensor<6x4xf32>, %up: tensor<4x8x16xf32>, %down: tensor<4x16x8xf32>) -> tensor<6x8xf32> {
  %zero = "stablehlo.constant"() <{value = dense<0.0> : tensor<f32>}> : () -> tensor<f32>
  %zeros = "stablehlo.constant"() <{value = dense<0.0> : tensor<6x4x3xf32>}> : () -> tensor<6x4x3xf32>
  %init = tensor.empty() : tensor<6x4xf32>
  %scores = linalg.softmax dimension(1) ins(%logits : tensor<6x4xf32>) outs(%init : tensor<6x4xf32>) -> tensor<6x4xf32>
  %w, %ids = moe.gate %scores top_k(2) score(none) : tensor<6x4xf32>
  %i = "stablehlo.broadcast_in_dim"(%ids) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<6x2xi32>) -> tensor<6x2x4xi32>
  %e = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<6x2x4xi32>
  %hot = "stablehlo.compare"(%i, %e) <{comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<6x2x4xi32>, tensor<6x2x4xi32>) -> tensor<6x2x4xi1>
  %mask = "stablehlo.convert"(%hot) : (tensor<6x2x4xi1>) -> tensor<6x2x4xf32>
  %flat = "stablehlo.reshape"(%mask) : (tensor<6x2x4xf32>) -> tensor<12x4xf32>
  %sums = "stablehlo.reduce_window"(%flat, %zero) <{padding = dense<[[0, 11], [0, 0]]> : tensor<2x2xi64>, window_dimensions = array<i64: 12, 1>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %s = "stablehlo.add"(%a, %b) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%s) : (tensor<f32>) -> ()
  }) : (tensor<12x4xf32>, tensor<f32>) -> tensor<12x4xf32>
  %counts = "stablehlo.reshape"(%sums) : (tensor<12x4xf32>) -> tensor<6x2x4xf32>
  %before = "stablehlo.subtract"(%counts, %mask) : (tensor<6x2x4xf32>, tensor<6x2x4xf32>) -> tensor<6x2x4xf32>
  %own = "stablehlo.multiply"(%before, %mask) : (tensor<6x2x4xf32>, tensor<6x2x4xf32>) -> tensor<6x2x4xf32>
  %place = "stablehlo.reduce"(%own, %zero) <{dimensions = array<i64: 2>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %s = "stablehlo.add"(%a, %b) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%s) : (tensor<f32>) -> ()
  }) : (tensor<6x2x4xf32>, tensor<f32>) -> tensor<6x2xf32>
  %int = "stablehlo.convert"(%place) : (tensor<6x2xf32>) -> tensor<6x2xi32>
  %p = "stablehlo.broadcast_in_dim"(%int) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<6x2xi32>) -> tensor<6x2x3xi32>
  %c = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<6x2x3xi32>
  %slot = "stablehlo.compare"(%p, %c) <{comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<6x2x3xi32>, tensor<6x2x3xi32>) -> tensor<6x2x3xi1>
  %slots = "stablehlo.convert"(%slot) : (tensor<6x2x3xi1>) -> tensor<6x2x3xf32>
  %weighted = "stablehlo.dot_general"(%w, %mask) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0, 1], rhs_batching_dimensions = [0, 1]>}> : (tensor<6x2xf32>, tensor<6x2x4xf32>) -> tensor<6x2x4xf32>
  %combine = "stablehlo.dot_general"(%weighted, %slots) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<6x2x4xf32>, tensor<6x2x3xf32>) -> tensor<6x4x3xf32>
  %positive = "stablehlo.compare"(%combine, %zeros) <{comparison_direction = #stablehlo<comparison_direction GT>}> : (tensor<6x4x3xf32>, tensor<6x4x3xf32>) -> tensor<6x4x3xi1>
  %dispatch = "stablehlo.convert"(%positive) : (tensor<6x4x3xi1>) -> tensor<6x4x3xf32>
  %rows = "stablehlo.dot_general"(%dispatch, %x) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [0], rhs_contracting_dimensions = [0]>}> : (tensor<6x4x3xf32>, tensor<6x8xf32>) -> tensor<4x3x8xf32>
  %h = "stablehlo.dot_general"(%rows, %up) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<4x3x8xf32>, tensor<4x8x16xf32>) -> tensor<4x3x16xf32>
  %act = "stablehlo.tanh"(%h) : (tensor<4x3x16xf32>) -> tensor<4x3x16xf32>
  %y = "stablehlo.dot_general"(%act, %down) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<4x3x16xf32>, tensor<4x16x8xf32>) -> tensor<4x3x8xf32>
  %out = "stablehlo.dot_general"(%combine, %y) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [2, 1], rhs_contracting_dimensions = [1, 0]>}> : (tensor<6x4x3xf32>, tensor<4x3x8xf32>) -> tensor<6x8xf32>
  return %out : tensor<6x8xf32>
}

// -----

// Places from 1.

// CHECK-LABEL: func.func @from_one(
// CHECK-NOT:     moe.{{dispatch|combine|grouped_matmul}}
func.func @from_one(%x: tensor<6x8xf32>, %logits: tensor<6x4xf32>, %up: tensor<4x8x16xf32>, %down: tensor<4x16x8xf32>) -> tensor<6x8xf32> {
  %zero = "stablehlo.constant"() <{value = dense<0.0> : tensor<f32>}> : () -> tensor<f32>
  %zeros = "stablehlo.constant"() <{value = dense<0.0> : tensor<6x4x3xf32>}> : () -> tensor<6x4x3xf32>
  %init = tensor.empty() : tensor<6x4xf32>
  %scores = linalg.softmax dimension(1) ins(%logits : tensor<6x4xf32>) outs(%init : tensor<6x4xf32>) -> tensor<6x4xf32>
  %w, %ids = moe.gate %scores top_k(2) score(none) : tensor<6x4xf32>
  %i = "stablehlo.broadcast_in_dim"(%ids) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<6x2xi32>) -> tensor<6x2x4xi32>
  %e = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<6x2x4xi32>
  %hot = "stablehlo.compare"(%i, %e) <{comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<6x2x4xi32>, tensor<6x2x4xi32>) -> tensor<6x2x4xi1>
  %mask = "stablehlo.convert"(%hot) : (tensor<6x2x4xi1>) -> tensor<6x2x4xf32>
  %flat = "stablehlo.reshape"(%mask) : (tensor<6x2x4xf32>) -> tensor<12x4xf32>
  %sums = "stablehlo.reduce_window"(%flat, %zero) <{padding = dense<[[11, 0], [0, 0]]> : tensor<2x2xi64>, window_dimensions = array<i64: 12, 1>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %s = "stablehlo.add"(%a, %b) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%s) : (tensor<f32>) -> ()
  }) : (tensor<12x4xf32>, tensor<f32>) -> tensor<12x4xf32>
  %counts = "stablehlo.reshape"(%sums) : (tensor<12x4xf32>) -> tensor<6x2x4xf32>
  %before = "stablehlo.subtract"(%counts, %mask) : (tensor<6x2x4xf32>, tensor<6x2x4xf32>) -> tensor<6x2x4xf32>
  %own = "stablehlo.multiply"(%counts, %mask) : (tensor<6x2x4xf32>, tensor<6x2x4xf32>) -> tensor<6x2x4xf32>
  %place = "stablehlo.reduce"(%own, %zero) <{dimensions = array<i64: 2>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %s = "stablehlo.add"(%a, %b) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%s) : (tensor<f32>) -> ()
  }) : (tensor<6x2x4xf32>, tensor<f32>) -> tensor<6x2xf32>
  %int = "stablehlo.convert"(%place) : (tensor<6x2xf32>) -> tensor<6x2xi32>
  %p = "stablehlo.broadcast_in_dim"(%int) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<6x2xi32>) -> tensor<6x2x3xi32>
  %c = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<6x2x3xi32>
  %slot = "stablehlo.compare"(%p, %c) <{comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<6x2x3xi32>, tensor<6x2x3xi32>) -> tensor<6x2x3xi1>
  %slots = "stablehlo.convert"(%slot) : (tensor<6x2x3xi1>) -> tensor<6x2x3xf32>
  %weighted = "stablehlo.dot_general"(%w, %mask) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0, 1], rhs_batching_dimensions = [0, 1]>}> : (tensor<6x2xf32>, tensor<6x2x4xf32>) -> tensor<6x2x4xf32>
  %combine = "stablehlo.dot_general"(%weighted, %slots) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<6x2x4xf32>, tensor<6x2x3xf32>) -> tensor<6x4x3xf32>
  %positive = "stablehlo.compare"(%combine, %zeros) <{comparison_direction = #stablehlo<comparison_direction GT>}> : (tensor<6x4x3xf32>, tensor<6x4x3xf32>) -> tensor<6x4x3xi1>
  %dispatch = "stablehlo.convert"(%positive) : (tensor<6x4x3xi1>) -> tensor<6x4x3xf32>
  %rows = "stablehlo.dot_general"(%dispatch, %x) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [0], rhs_contracting_dimensions = [0]>}> : (tensor<6x4x3xf32>, tensor<6x8xf32>) -> tensor<4x3x8xf32>
  %h = "stablehlo.dot_general"(%rows, %up) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<4x3x8xf32>, tensor<4x8x16xf32>) -> tensor<4x3x16xf32>
  %act = "stablehlo.tanh"(%h) : (tensor<4x3x16xf32>) -> tensor<4x3x16xf32>
  %y = "stablehlo.dot_general"(%act, %down) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<4x3x16xf32>, tensor<4x16x8xf32>) -> tensor<4x3x8xf32>
  %out = "stablehlo.dot_general"(%combine, %y) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [2, 1], rhs_contracting_dimensions = [1, 0]>}> : (tensor<6x4x3xf32>, tensor<4x3x8xf32>) -> tensor<6x8xf32>
  return %out : tensor<6x8xf32>
}

// -----

// A running sum over the experts, not the choices.

// CHECK-LABEL: func.func @experts_summed(
// CHECK-NOT:     moe.{{dispatch|combine|grouped_matmul}}
func.func @experts_summed(%x: tensor<6x8xf32>, %logits: tensor<6x4xf32>, %up: tensor<4x8x16xf32>, %down: tensor<4x16x8xf32>) -> tensor<6x8xf32> {
  %zero = "stablehlo.constant"() <{value = dense<0.0> : tensor<f32>}> : () -> tensor<f32>
  %zeros = "stablehlo.constant"() <{value = dense<0.0> : tensor<6x4x3xf32>}> : () -> tensor<6x4x3xf32>
  %init = tensor.empty() : tensor<6x4xf32>
  %scores = linalg.softmax dimension(1) ins(%logits : tensor<6x4xf32>) outs(%init : tensor<6x4xf32>) -> tensor<6x4xf32>
  %w, %ids = moe.gate %scores top_k(2) score(none) : tensor<6x4xf32>
  %i = "stablehlo.broadcast_in_dim"(%ids) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<6x2xi32>) -> tensor<6x2x4xi32>
  %e = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<6x2x4xi32>
  %hot = "stablehlo.compare"(%i, %e) <{comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<6x2x4xi32>, tensor<6x2x4xi32>) -> tensor<6x2x4xi1>
  %mask = "stablehlo.convert"(%hot) : (tensor<6x2x4xi1>) -> tensor<6x2x4xf32>
  %flat = "stablehlo.reshape"(%mask) : (tensor<6x2x4xf32>) -> tensor<12x4xf32>
  %sums = "stablehlo.reduce_window"(%flat, %zero) <{padding = dense<[[0, 0], [3, 0]]> : tensor<2x2xi64>, window_dimensions = array<i64: 1, 4>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %s = "stablehlo.add"(%a, %b) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%s) : (tensor<f32>) -> ()
  }) : (tensor<12x4xf32>, tensor<f32>) -> tensor<12x4xf32>
  %counts = "stablehlo.reshape"(%sums) : (tensor<12x4xf32>) -> tensor<6x2x4xf32>
  %before = "stablehlo.subtract"(%counts, %mask) : (tensor<6x2x4xf32>, tensor<6x2x4xf32>) -> tensor<6x2x4xf32>
  %own = "stablehlo.multiply"(%before, %mask) : (tensor<6x2x4xf32>, tensor<6x2x4xf32>) -> tensor<6x2x4xf32>
  %place = "stablehlo.reduce"(%own, %zero) <{dimensions = array<i64: 2>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %s = "stablehlo.add"(%a, %b) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%s) : (tensor<f32>) -> ()
  }) : (tensor<6x2x4xf32>, tensor<f32>) -> tensor<6x2xf32>
  %int = "stablehlo.convert"(%place) : (tensor<6x2xf32>) -> tensor<6x2xi32>
  %p = "stablehlo.broadcast_in_dim"(%int) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<6x2xi32>) -> tensor<6x2x3xi32>
  %c = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<6x2x3xi32>
  %slot = "stablehlo.compare"(%p, %c) <{comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<6x2x3xi32>, tensor<6x2x3xi32>) -> tensor<6x2x3xi1>
  %slots = "stablehlo.convert"(%slot) : (tensor<6x2x3xi1>) -> tensor<6x2x3xf32>
  %weighted = "stablehlo.dot_general"(%w, %mask) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0, 1], rhs_batching_dimensions = [0, 1]>}> : (tensor<6x2xf32>, tensor<6x2x4xf32>) -> tensor<6x2x4xf32>
  %combine = "stablehlo.dot_general"(%weighted, %slots) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<6x2x4xf32>, tensor<6x2x3xf32>) -> tensor<6x4x3xf32>
  %positive = "stablehlo.compare"(%combine, %zeros) <{comparison_direction = #stablehlo<comparison_direction GT>}> : (tensor<6x4x3xf32>, tensor<6x4x3xf32>) -> tensor<6x4x3xi1>
  %dispatch = "stablehlo.convert"(%positive) : (tensor<6x4x3xi1>) -> tensor<6x4x3xf32>
  %rows = "stablehlo.dot_general"(%dispatch, %x) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [0], rhs_contracting_dimensions = [0]>}> : (tensor<6x4x3xf32>, tensor<6x8xf32>) -> tensor<4x3x8xf32>
  %h = "stablehlo.dot_general"(%rows, %up) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<4x3x8xf32>, tensor<4x8x16xf32>) -> tensor<4x3x16xf32>
  %act = "stablehlo.tanh"(%h) : (tensor<4x3x16xf32>) -> tensor<4x3x16xf32>
  %y = "stablehlo.dot_general"(%act, %down) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<4x3x16xf32>, tensor<4x16x8xf32>) -> tensor<4x3x8xf32>
  %out = "stablehlo.dot_general"(%combine, %y) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [2, 1], rhs_contracting_dimensions = [1, 0]>}> : (tensor<6x4x3xf32>, tensor<4x3x8xf32>) -> tensor<6x8xf32>
  return %out : tensor<6x8xf32>
}

// -----

// Counts that are rounded.

// CHECK-LABEL: func.func @counts_of_16_bits(
// CHECK-NOT:     moe.{{dispatch|combine|grouped_matmul}}
func.func @counts_of_16_bits(%x: tensor<6x8xf32>, %logits: tensor<6x4xf32>, %up: tensor<4x8x16xf32>, %down: tensor<4x16x8xf32>) -> tensor<6x8xf32> {
  %zero = "stablehlo.constant"() <{value = dense<0.0> : tensor<f32>}> : () -> tensor<f32>
  %zeros = "stablehlo.constant"() <{value = dense<0.0> : tensor<6x4x3xf32>}> : () -> tensor<6x4x3xf32>
  %init = tensor.empty() : tensor<6x4xf32>
  %scores = linalg.softmax dimension(1) ins(%logits : tensor<6x4xf32>) outs(%init : tensor<6x4xf32>) -> tensor<6x4xf32>
  %w, %ids = moe.gate %scores top_k(2) score(none) : tensor<6x4xf32>
  %i = "stablehlo.broadcast_in_dim"(%ids) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<6x2xi32>) -> tensor<6x2x4xi32>
  %e = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<6x2x4xi32>
  %hot = "stablehlo.compare"(%i, %e) <{comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<6x2x4xi32>, tensor<6x2x4xi32>) -> tensor<6x2x4xi1>
  %mask = "stablehlo.convert"(%hot) : (tensor<6x2x4xi1>) -> tensor<6x2x4xf32>
  %flat = "stablehlo.reshape"(%mask) : (tensor<6x2x4xf32>) -> tensor<12x4xf32>
  %sums = "stablehlo.reduce_window"(%flat, %zero) <{padding = dense<[[11, 0], [0, 0]]> : tensor<2x2xi64>, window_dimensions = array<i64: 12, 1>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %s = "stablehlo.add"(%a, %b) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%s) : (tensor<f32>) -> ()
  }) : (tensor<12x4xf32>, tensor<f32>) -> tensor<12x4xf32>
  %short = "stablehlo.convert"(%sums) : (tensor<12x4xf32>) -> tensor<12x4xbf16>
  %long = "stablehlo.convert"(%short) : (tensor<12x4xbf16>) -> tensor<12x4xf32>
  %counts = "stablehlo.reshape"(%long) : (tensor<12x4xf32>) -> tensor<6x2x4xf32>
  %before = "stablehlo.subtract"(%counts, %mask) : (tensor<6x2x4xf32>, tensor<6x2x4xf32>) -> tensor<6x2x4xf32>
  %own = "stablehlo.multiply"(%before, %mask) : (tensor<6x2x4xf32>, tensor<6x2x4xf32>) -> tensor<6x2x4xf32>
  %place = "stablehlo.reduce"(%own, %zero) <{dimensions = array<i64: 2>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %s = "stablehlo.add"(%a, %b) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%s) : (tensor<f32>) -> ()
  }) : (tensor<6x2x4xf32>, tensor<f32>) -> tensor<6x2xf32>
  %int = "stablehlo.convert"(%place) : (tensor<6x2xf32>) -> tensor<6x2xi32>
  %p = "stablehlo.broadcast_in_dim"(%int) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<6x2xi32>) -> tensor<6x2x3xi32>
  %c = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<6x2x3xi32>
  %slot = "stablehlo.compare"(%p, %c) <{comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<6x2x3xi32>, tensor<6x2x3xi32>) -> tensor<6x2x3xi1>
  %slots = "stablehlo.convert"(%slot) : (tensor<6x2x3xi1>) -> tensor<6x2x3xf32>
  %weighted = "stablehlo.dot_general"(%w, %mask) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0, 1], rhs_batching_dimensions = [0, 1]>}> : (tensor<6x2xf32>, tensor<6x2x4xf32>) -> tensor<6x2x4xf32>
  %combine = "stablehlo.dot_general"(%weighted, %slots) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<6x2x4xf32>, tensor<6x2x3xf32>) -> tensor<6x4x3xf32>
  %positive = "stablehlo.compare"(%combine, %zeros) <{comparison_direction = #stablehlo<comparison_direction GT>}> : (tensor<6x4x3xf32>, tensor<6x4x3xf32>) -> tensor<6x4x3xi1>
  %dispatch = "stablehlo.convert"(%positive) : (tensor<6x4x3xi1>) -> tensor<6x4x3xf32>
  %rows = "stablehlo.dot_general"(%dispatch, %x) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [0], rhs_contracting_dimensions = [0]>}> : (tensor<6x4x3xf32>, tensor<6x8xf32>) -> tensor<4x3x8xf32>
  %h = "stablehlo.dot_general"(%rows, %up) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<4x3x8xf32>, tensor<4x8x16xf32>) -> tensor<4x3x16xf32>
  %act = "stablehlo.tanh"(%h) : (tensor<4x3x16xf32>) -> tensor<4x3x16xf32>
  %y = "stablehlo.dot_general"(%act, %down) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<4x3x16xf32>, tensor<4x16x8xf32>) -> tensor<4x3x8xf32>
  %out = "stablehlo.dot_general"(%combine, %y) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [2, 1], rhs_contracting_dimensions = [1, 0]>}> : (tensor<6x4x3xf32>, tensor<4x3x8xf32>) -> tensor<6x8xf32>
  return %out : tensor<6x8xf32>
}

// -----

// Gates transposed, where there are as many tokens as experts; the sum over the
// tokens; a matrix for each token that is none of an expert.

// CHECK-LABEL: func.func @square(
// CHECK-NOT:     moe.{{dispatch|combine|grouped_matmul}}
func.func @square(%x: tensor<4x8xf32>, %logits: tensor<4x4xf32>, %up: tensor<4x8x8xf32>, %each: tensor<4x4x8xf32>) -> (tensor<4x8xf32>, tensor<4x8xf32>, tensor<4x8xf32>) {
  %zeros = "stablehlo.constant"() <{value = dense<0.0> : tensor<4x4xf32>}> : () -> tensor<4x4xf32>
  %w, %ids = moe.gate %logits top_k(2) score(none) : tensor<4x4xf32>
  %t = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<4x2x1xi32>
  %e = "stablehlo.reshape"(%ids) : (tensor<4x2xi32>) -> tensor<4x2x1xi32>
  %at = "stablehlo.concatenate"(%t, %e) <{dimension = 2 : i64}> : (tensor<4x2x1xi32>, tensor<4x2x1xi32>) -> tensor<4x2x2xi32>
  %gates = "stablehlo.scatter"(%zeros, %at, %w) <{scatter_dimension_numbers = #stablehlo.scatter<inserted_window_dims = [0, 1], scatter_dims_to_operand_dims = [0, 1], index_vector_dim = 2>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    "stablehlo.return"(%b) : (tensor<f32>) -> ()
  }) : (tensor<4x4xf32>, tensor<4x2x2xi32>, tensor<4x2xf32>) -> tensor<4x4xf32>
  %y = "stablehlo.dot_general"(%x, %up) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<4x8xf32>, tensor<4x8x8xf32>) -> tensor<4x4x8xf32>
  %swapped = "stablehlo.transpose"(%gates) <{permutation = array<i64: 1, 0>}> : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %0 = "stablehlo.dot_general"(%swapped, %y) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<4x4xf32>, tensor<4x4x8xf32>) -> tensor<4x8xf32>
  %1 = "stablehlo.dot_general"(%gates, %y) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [1], rhs_batching_dimensions = [1], lhs_contracting_dimensions = [0], rhs_contracting_dimensions = [0]>}> : (tensor<4x4xf32>, tensor<4x4x8xf32>) -> tensor<4x8xf32>
  %2 = "stablehlo.dot_general"(%gates, %each) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<4x4xf32>, tensor<4x4x8xf32>) -> tensor<4x8xf32>
  return %0, %1, %2 : tensor<4x8xf32>, tensor<4x8xf32>, tensor<4x8xf32>
}
