// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-routing | FileCheck %s

// GShard: the place of a choice is a running sum of the one-hot mask over the
// choices, token by token; the tensor [T, E, C] that combines is a sum over the
// choices, and the mask that dispatches is 1 where it is above 0.

// CHECK-LABEL: func.func @tokens_first(
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[POSITIONS:.*]] = moe.dispatch %arg0, %[[IDS]] experts(4) capacity(<fixed = 3>) : tensor<6x8xf32>
// CHECK:         %[[H:.*]] = moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%arg2 : tensor<4x8x16xf32>) outs(%{{.*}} : tensor<12x16xf32>)
// CHECK:         %[[A:.*]] = "stablehlo.tanh"(%[[H]]) : (tensor<12x16xf32>) -> tensor<12x16xf32>
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %[[A]] offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%arg3 : tensor<4x16x8xf32>) outs
// CHECK:         %[[SUM:.*]] = moe.combine %[[Y]], %[[POSITIONS]] weights(%[[W]] : tensor<6x2xf32>)
// CHECK:         return %[[SUM]]
func.func @tokens_first(%x: tensor<6x8xf32>, %logits: tensor<6x4xf32>, %up: tensor<4x8x16xf32>, %down: tensor<4x16x8xf32>) -> tensor<6x8xf32> {
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

// All first choices before all second ones; the place of a choice is -1 where
// it is of another expert, and its largest is that of the token.

// CHECK-LABEL: func.func @first_choices_first(
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[POSITIONS:.*]] = moe.dispatch %arg0, %[[IDS]] experts(4) capacity(<fixed = 3>) priority(choice) : tensor<6x8xf32>
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<5xi32>) weights(%arg2 : tensor<4x8x8xf32>) outs
// CHECK:         moe.combine %[[Y]], %[[POSITIONS]] weights(%[[W]] : tensor<6x2xf32>)
func.func @first_choices_first(%x: tensor<6x8xf32>, %logits: tensor<6x4xf32>, %up: tensor<4x8x8xf32>) -> tensor<6x8xf32> {
  %zero = "stablehlo.constant"() <{value = dense<0.0> : tensor<f32>}> : () -> tensor<f32>
  %none = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %least = "stablehlo.constant"() <{value = dense<-2147483648> : tensor<i32>}> : () -> tensor<i32>
  %ones = "stablehlo.constant"() <{value = dense<1> : tensor<12x4xi32>}> : () -> tensor<12x4xi32>
  %w, %ids = moe.gate %logits top_k(2) score(none) : tensor<6x4xf32>
  %swapped = "stablehlo.transpose"(%ids) <{permutation = array<i64: 1, 0>}> : (tensor<6x2xi32>) -> tensor<2x6xi32>
  %flat = "stablehlo.reshape"(%swapped) : (tensor<2x6xi32>) -> tensor<12xi32>
  %i = "stablehlo.broadcast_in_dim"(%flat) <{broadcast_dimensions = array<i64: 0>}> : (tensor<12xi32>) -> tensor<12x4xi32>
  %e = "stablehlo.iota"() <{iota_dimension = 1 : i64}> : () -> tensor<12x4xi32>
  %hot = "stablehlo.compare"(%i, %e) <{comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<12x4xi32>, tensor<12x4xi32>) -> tensor<12x4xi1>
  %mask = "stablehlo.convert"(%hot) : (tensor<12x4xi1>) -> tensor<12x4xi32>
  %sums = "stablehlo.reduce_window"(%mask, %none) <{padding = dense<[[11, 0], [0, 0]]> : tensor<2x2xi64>, window_dimensions = array<i64: 12, 1>}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>):
    %s = "stablehlo.add"(%a, %b) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%s) : (tensor<i32>) -> ()
  }) : (tensor<12x4xi32>, tensor<i32>) -> tensor<12x4xi32>
  %own = "stablehlo.multiply"(%sums, %mask) : (tensor<12x4xi32>, tensor<12x4xi32>) -> tensor<12x4xi32>
  %from0 = "stablehlo.subtract"(%own, %ones) : (tensor<12x4xi32>, tensor<12x4xi32>) -> tensor<12x4xi32>
  %split = "stablehlo.reshape"(%from0) : (tensor<12x4xi32>) -> tensor<2x6x4xi32>
  %places = "stablehlo.transpose"(%split) <{permutation = array<i64: 1, 0, 2>}> : (tensor<2x6x4xi32>) -> tensor<6x2x4xi32>
  %place = "stablehlo.reduce"(%places, %least) <{dimensions = array<i64: 1>}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>):
    %s = "stablehlo.maximum"(%a, %b) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%s) : (tensor<i32>) -> ()
  }) : (tensor<6x2x4xi32>, tensor<i32>) -> tensor<6x4xi32>
  %p = "stablehlo.broadcast_in_dim"(%place) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<6x4xi32>) -> tensor<6x4x3xi32>
  %c = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<6x4x3xi32>
  %slot = "stablehlo.compare"(%p, %c) <{comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<6x4x3xi32>, tensor<6x4x3xi32>) -> tensor<6x4x3xi1>
  %dispatch = "stablehlo.convert"(%slot) : (tensor<6x4x3xi1>) -> tensor<6x4x3xf32>
  %ie = "stablehlo.broadcast_in_dim"(%ids) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<6x2xi32>) -> tensor<6x2x4xi32>
  %ee = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<6x2x4xi32>
  %chosen = "stablehlo.compare"(%ie, %ee) <{comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<6x2x4xi32>, tensor<6x2x4xi32>) -> tensor<6x2x4xi1>
  %one = "stablehlo.convert"(%chosen) : (tensor<6x2x4xi1>) -> tensor<6x2x4xf32>
  %wide = "stablehlo.broadcast_in_dim"(%w) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<6x2xf32>) -> tensor<6x2x4xf32>
  %weighted = "stablehlo.multiply"(%one, %wide) : (tensor<6x2x4xf32>, tensor<6x2x4xf32>) -> tensor<6x2x4xf32>
  %gates = "stablehlo.reduce"(%weighted, %zero) <{dimensions = array<i64: 1>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %s = "stablehlo.add"(%a, %b) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%s) : (tensor<f32>) -> ()
  }) : (tensor<6x2x4xf32>, tensor<f32>) -> tensor<6x4xf32>
  %combine = "stablehlo.dot_general"(%gates, %dispatch) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0, 1], rhs_batching_dimensions = [0, 1]>}> : (tensor<6x4xf32>, tensor<6x4x3xf32>) -> tensor<6x4x3xf32>
  %rows = "stablehlo.dot_general"(%dispatch, %x) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [0], rhs_contracting_dimensions = [0]>}> : (tensor<6x4x3xf32>, tensor<6x8xf32>) -> tensor<4x3x8xf32>
  %y = "stablehlo.dot_general"(%rows, %up) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<4x3x8xf32>, tensor<4x8x8xf32>) -> tensor<4x3x8xf32>
  %out = "stablehlo.dot_general"(%combine, %y) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [2, 1], rhs_contracting_dimensions = [1, 0]>}> : (tensor<6x4x3xf32>, tensor<4x3x8xf32>) -> tensor<6x8xf32>
  return %out : tensor<6x8xf32>
}
