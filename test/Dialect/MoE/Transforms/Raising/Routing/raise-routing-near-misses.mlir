// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-routing | FileCheck %s

// Programs that look like a dispatch and are none. The first one is one; each
// other differs from it in one place.


// CHECK-LABEL: func.func @dispatch(
// CHECK:         moe.dispatch
// CHECK-NOT:     stablehlo.sort
// CHECK-NOT:     stablehlo.scatter
// CHECK:         moe.combine %{{.*}} weights(%{{.*}} : tensor<5x2xf32>)
func.func @dispatch(%x: tensor<5x16xf32>, %s: tensor<5x8xf32>, %y: tensor<10x16xf32>, %w: tensor<5x2xf32>)
    -> (tensor<10x16xf32>, tensor<8xi32>, tensor<5x16xf32>) {
  %zero = "stablehlo.constant"() <{value = dense<0.0> : tensor<f32>}> : () -> tensor<f32>
  %values, %top = "chlo.top_k"(%s) <{k = 2 : i64}> : (tensor<5x8xf32>) -> (tensor<5x2xf32>, tensor<5x2xi32>)
  %flat = "stablehlo.reshape"(%top) : (tensor<5x2xi32>) -> tensor<10xi32>
  %iota = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<10xi32>
  %order:2 = "stablehlo.sort"(%flat, %iota) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>, %c: tensor<i32>, %d: tensor<i32>):
    %r = "stablehlo.compare"(%a, %b) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%r) : (tensor<i1>) -> ()
  }) : (tensor<10xi32>, tensor<10xi32>) -> (tensor<10xi32>, tensor<10xi32>)
  %inverse:2 = "stablehlo.sort"(%order#1, %iota) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>, %c: tensor<i32>, %d: tensor<i32>):
    %r = "stablehlo.compare"(%a, %b) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%r) : (tensor<i1>) -> ()
  }) : (tensor<10xi32>, tensor<10xi32>) -> (tensor<10xi32>, tensor<10xi32>)
  %k = "stablehlo.constant"() <{value = dense<2> : tensor<10xi32>}> : () -> tensor<10xi32>
  %tokens = "stablehlo.divide"(%order#1, %k) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %t = "stablehlo.reshape"(%tokens) : (tensor<10xi32>) -> tensor<10x1xi32>
  %rows = "stablehlo.gather"(%x, %t) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<5x16xf32>, tensor<10x1xi32>) -> tensor<10x16xf32>
  %bins = "stablehlo.constant"() <{value = dense<0> : tensor<8xi32>}> : () -> tensor<8xi32>
  %one = "stablehlo.constant"() <{value = dense<1> : tensor<10xi32>}> : () -> tensor<10xi32>
  %i = "stablehlo.reshape"(%flat) : (tensor<10xi32>) -> tensor<10x1xi32>
  %counts = "stablehlo.scatter"(%bins, %i, %one) <{scatter_dimension_numbers = #stablehlo.scatter<inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>):
    %r = "stablehlo.add"(%a, %b) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%r) : (tensor<i32>) -> ()
  }) : (tensor<8xi32>, tensor<10x1xi32>, tensor<10xi32>) -> tensor<8xi32>
  %p = "stablehlo.reshape"(%inverse#1) : (tensor<10xi32>) -> tensor<10x1xi32>
  %back = "stablehlo.gather"(%y, %p) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<10x16xf32>, tensor<10x1xi32>) -> tensor<10x16xf32>
  %slots = "stablehlo.reshape"(%back) : (tensor<10x16xf32>) -> tensor<5x2x16xf32>
  %wide = "stablehlo.broadcast_in_dim"(%w) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<5x2xf32>) -> tensor<5x2x16xf32>
  %scaled = "stablehlo.multiply"(%slots, %wide) : (tensor<5x2x16xf32>, tensor<5x2x16xf32>) -> tensor<5x2x16xf32>
  %sum = "stablehlo.reduce"(%scaled, %zero) <{dimensions = array<i64: 1>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %r = "stablehlo.add"(%a, %b) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%r) : (tensor<f32>) -> ()
  }) : (tensor<5x2x16xf32>, tensor<f32>) -> tensor<5x16xf32>
  return %rows, %counts, %sum : tensor<10x16xf32>, tensor<8xi32>, tensor<5x16xf32>
}

// -----

// The last expert first.

// CHECK-LABEL: func.func @descending(
// CHECK-NOT:     {{moe.(dispatch|combine)}}
// CHECK:         {{^ +return}}
func.func @descending(%x: tensor<5x16xf32>, %s: tensor<5x8xf32>, %y: tensor<10x16xf32>, %w: tensor<5x2xf32>)
    -> (tensor<10x16xf32>, tensor<8xi32>, tensor<5x16xf32>) {
  %zero = "stablehlo.constant"() <{value = dense<0.0> : tensor<f32>}> : () -> tensor<f32>
  %values, %top = "chlo.top_k"(%s) <{k = 2 : i64}> : (tensor<5x8xf32>) -> (tensor<5x2xf32>, tensor<5x2xi32>)
  %flat = "stablehlo.reshape"(%top) : (tensor<5x2xi32>) -> tensor<10xi32>
  %iota = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<10xi32>
  %order:2 = "stablehlo.sort"(%flat, %iota) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>, %c: tensor<i32>, %d: tensor<i32>):
    %r = "stablehlo.compare"(%a, %b) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction GT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%r) : (tensor<i1>) -> ()
  }) : (tensor<10xi32>, tensor<10xi32>) -> (tensor<10xi32>, tensor<10xi32>)
  %inverse:2 = "stablehlo.sort"(%order#1, %iota) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>, %c: tensor<i32>, %d: tensor<i32>):
    %r = "stablehlo.compare"(%a, %b) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%r) : (tensor<i1>) -> ()
  }) : (tensor<10xi32>, tensor<10xi32>) -> (tensor<10xi32>, tensor<10xi32>)
  %k = "stablehlo.constant"() <{value = dense<2> : tensor<10xi32>}> : () -> tensor<10xi32>
  %tokens = "stablehlo.divide"(%order#1, %k) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %t = "stablehlo.reshape"(%tokens) : (tensor<10xi32>) -> tensor<10x1xi32>
  %rows = "stablehlo.gather"(%x, %t) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<5x16xf32>, tensor<10x1xi32>) -> tensor<10x16xf32>
  %bins = "stablehlo.constant"() <{value = dense<0> : tensor<8xi32>}> : () -> tensor<8xi32>
  %one = "stablehlo.constant"() <{value = dense<1> : tensor<10xi32>}> : () -> tensor<10xi32>
  %i = "stablehlo.reshape"(%flat) : (tensor<10xi32>) -> tensor<10x1xi32>
  %counts = "stablehlo.scatter"(%bins, %i, %one) <{scatter_dimension_numbers = #stablehlo.scatter<inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>):
    %r = "stablehlo.add"(%a, %b) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%r) : (tensor<i32>) -> ()
  }) : (tensor<8xi32>, tensor<10x1xi32>, tensor<10xi32>) -> tensor<8xi32>
  %p = "stablehlo.reshape"(%inverse#1) : (tensor<10xi32>) -> tensor<10x1xi32>
  %back = "stablehlo.gather"(%y, %p) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<10x16xf32>, tensor<10x1xi32>) -> tensor<10x16xf32>
  %slots = "stablehlo.reshape"(%back) : (tensor<10x16xf32>) -> tensor<5x2x16xf32>
  %wide = "stablehlo.broadcast_in_dim"(%w) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<5x2xf32>) -> tensor<5x2x16xf32>
  %scaled = "stablehlo.multiply"(%slots, %wide) : (tensor<5x2x16xf32>, tensor<5x2x16xf32>) -> tensor<5x2x16xf32>
  %sum = "stablehlo.reduce"(%scaled, %zero) <{dimensions = array<i64: 1>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %r = "stablehlo.add"(%a, %b) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%r) : (tensor<f32>) -> ()
  }) : (tensor<5x2x16xf32>, tensor<f32>) -> tensor<5x16xf32>
  return %rows, %counts, %sum : tensor<10x16xf32>, tensor<8xi32>, tensor<5x16xf32>
}

// -----

// The tokens are those of another number of choices.

// CHECK-LABEL: func.func @other_divisor(
// CHECK-NOT:     moe.dispatch
// CHECK:         stablehlo.gather
// CHECK:         {{^ +return}}
func.func @other_divisor(%x: tensor<5x16xf32>, %s: tensor<5x8xf32>, %y: tensor<10x16xf32>, %w: tensor<5x2xf32>)
    -> (tensor<10x16xf32>, tensor<8xi32>, tensor<5x16xf32>) {
  %zero = "stablehlo.constant"() <{value = dense<0.0> : tensor<f32>}> : () -> tensor<f32>
  %values, %top = "chlo.top_k"(%s) <{k = 2 : i64}> : (tensor<5x8xf32>) -> (tensor<5x2xf32>, tensor<5x2xi32>)
  %flat = "stablehlo.reshape"(%top) : (tensor<5x2xi32>) -> tensor<10xi32>
  %iota = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<10xi32>
  %order:2 = "stablehlo.sort"(%flat, %iota) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>, %c: tensor<i32>, %d: tensor<i32>):
    %r = "stablehlo.compare"(%a, %b) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%r) : (tensor<i1>) -> ()
  }) : (tensor<10xi32>, tensor<10xi32>) -> (tensor<10xi32>, tensor<10xi32>)
  %inverse:2 = "stablehlo.sort"(%order#1, %iota) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>, %c: tensor<i32>, %d: tensor<i32>):
    %r = "stablehlo.compare"(%a, %b) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%r) : (tensor<i1>) -> ()
  }) : (tensor<10xi32>, tensor<10xi32>) -> (tensor<10xi32>, tensor<10xi32>)
  %k = "stablehlo.constant"() <{value = dense<3> : tensor<10xi32>}> : () -> tensor<10xi32>
  %tokens = "stablehlo.divide"(%order#1, %k) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %t = "stablehlo.reshape"(%tokens) : (tensor<10xi32>) -> tensor<10x1xi32>
  %rows = "stablehlo.gather"(%x, %t) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<5x16xf32>, tensor<10x1xi32>) -> tensor<10x16xf32>
  %bins = "stablehlo.constant"() <{value = dense<0> : tensor<8xi32>}> : () -> tensor<8xi32>
  %one = "stablehlo.constant"() <{value = dense<1> : tensor<10xi32>}> : () -> tensor<10xi32>
  %i = "stablehlo.reshape"(%flat) : (tensor<10xi32>) -> tensor<10x1xi32>
  %counts = "stablehlo.scatter"(%bins, %i, %one) <{scatter_dimension_numbers = #stablehlo.scatter<inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>):
    %r = "stablehlo.add"(%a, %b) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%r) : (tensor<i32>) -> ()
  }) : (tensor<8xi32>, tensor<10x1xi32>, tensor<10xi32>) -> tensor<8xi32>
  %p = "stablehlo.reshape"(%inverse#1) : (tensor<10xi32>) -> tensor<10x1xi32>
  %back = "stablehlo.gather"(%y, %p) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<10x16xf32>, tensor<10x1xi32>) -> tensor<10x16xf32>
  %slots = "stablehlo.reshape"(%back) : (tensor<10x16xf32>) -> tensor<5x2x16xf32>
  %wide = "stablehlo.broadcast_in_dim"(%w) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<5x2xf32>) -> tensor<5x2x16xf32>
  %scaled = "stablehlo.multiply"(%slots, %wide) : (tensor<5x2x16xf32>, tensor<5x2x16xf32>) -> tensor<5x2x16xf32>
  %sum = "stablehlo.reduce"(%scaled, %zero) <{dimensions = array<i64: 1>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %r = "stablehlo.add"(%a, %b) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%r) : (tensor<f32>) -> ()
  }) : (tensor<5x2x16xf32>, tensor<f32>) -> tensor<5x16xf32>
  return %rows, %counts, %sum : tensor<10x16xf32>, tensor<8xi32>, tensor<5x16xf32>
}

// -----

// The rows are not those of the tokens.

// CHECK-LABEL: func.func @more_rows(
// CHECK-NOT:     moe.dispatch
// CHECK:         stablehlo.gather
// CHECK:         {{^ +return}}
func.func @more_rows(%x: tensor<6x16xf32>, %s: tensor<5x8xf32>, %y: tensor<10x16xf32>, %w: tensor<5x2xf32>)
    -> (tensor<10x16xf32>, tensor<8xi32>, tensor<5x16xf32>) {
  %zero = "stablehlo.constant"() <{value = dense<0.0> : tensor<f32>}> : () -> tensor<f32>
  %values, %top = "chlo.top_k"(%s) <{k = 2 : i64}> : (tensor<5x8xf32>) -> (tensor<5x2xf32>, tensor<5x2xi32>)
  %flat = "stablehlo.reshape"(%top) : (tensor<5x2xi32>) -> tensor<10xi32>
  %iota = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<10xi32>
  %order:2 = "stablehlo.sort"(%flat, %iota) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>, %c: tensor<i32>, %d: tensor<i32>):
    %r = "stablehlo.compare"(%a, %b) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%r) : (tensor<i1>) -> ()
  }) : (tensor<10xi32>, tensor<10xi32>) -> (tensor<10xi32>, tensor<10xi32>)
  %inverse:2 = "stablehlo.sort"(%order#1, %iota) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>, %c: tensor<i32>, %d: tensor<i32>):
    %r = "stablehlo.compare"(%a, %b) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%r) : (tensor<i1>) -> ()
  }) : (tensor<10xi32>, tensor<10xi32>) -> (tensor<10xi32>, tensor<10xi32>)
  %k = "stablehlo.constant"() <{value = dense<2> : tensor<10xi32>}> : () -> tensor<10xi32>
  %tokens = "stablehlo.divide"(%order#1, %k) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %t = "stablehlo.reshape"(%tokens) : (tensor<10xi32>) -> tensor<10x1xi32>
  %rows = "stablehlo.gather"(%x, %t) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<6x16xf32>, tensor<10x1xi32>) -> tensor<10x16xf32>
  %bins = "stablehlo.constant"() <{value = dense<0> : tensor<8xi32>}> : () -> tensor<8xi32>
  %one = "stablehlo.constant"() <{value = dense<1> : tensor<10xi32>}> : () -> tensor<10xi32>
  %i = "stablehlo.reshape"(%flat) : (tensor<10xi32>) -> tensor<10x1xi32>
  %counts = "stablehlo.scatter"(%bins, %i, %one) <{scatter_dimension_numbers = #stablehlo.scatter<inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>):
    %r = "stablehlo.add"(%a, %b) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%r) : (tensor<i32>) -> ()
  }) : (tensor<8xi32>, tensor<10x1xi32>, tensor<10xi32>) -> tensor<8xi32>
  %p = "stablehlo.reshape"(%inverse#1) : (tensor<10xi32>) -> tensor<10x1xi32>
  %back = "stablehlo.gather"(%y, %p) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<10x16xf32>, tensor<10x1xi32>) -> tensor<10x16xf32>
  %slots = "stablehlo.reshape"(%back) : (tensor<10x16xf32>) -> tensor<5x2x16xf32>
  %wide = "stablehlo.broadcast_in_dim"(%w) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<5x2xf32>) -> tensor<5x2x16xf32>
  %scaled = "stablehlo.multiply"(%slots, %wide) : (tensor<5x2x16xf32>, tensor<5x2x16xf32>) -> tensor<5x2x16xf32>
  %sum = "stablehlo.reduce"(%scaled, %zero) <{dimensions = array<i64: 1>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %r = "stablehlo.add"(%a, %b) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%r) : (tensor<f32>) -> ()
  }) : (tensor<5x2x16xf32>, tensor<f32>) -> tensor<5x16xf32>
  return %rows, %counts, %sum : tensor<10x16xf32>, tensor<8xi32>, tensor<5x16xf32>
}

// -----

// Counts of more bins than experts stay.

// CHECK-LABEL: func.func @more_bins(
// CHECK:         moe.dispatch
// CHECK:         stablehlo.scatter
// CHECK:         {{^ +return}}
func.func @more_bins(%x: tensor<5x16xf32>, %s: tensor<5x8xf32>, %y: tensor<10x16xf32>, %w: tensor<5x2xf32>)
    -> (tensor<10x16xf32>, tensor<9xi32>, tensor<5x16xf32>) {
  %zero = "stablehlo.constant"() <{value = dense<0.0> : tensor<f32>}> : () -> tensor<f32>
  %values, %top = "chlo.top_k"(%s) <{k = 2 : i64}> : (tensor<5x8xf32>) -> (tensor<5x2xf32>, tensor<5x2xi32>)
  %flat = "stablehlo.reshape"(%top) : (tensor<5x2xi32>) -> tensor<10xi32>
  %iota = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<10xi32>
  %order:2 = "stablehlo.sort"(%flat, %iota) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>, %c: tensor<i32>, %d: tensor<i32>):
    %r = "stablehlo.compare"(%a, %b) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%r) : (tensor<i1>) -> ()
  }) : (tensor<10xi32>, tensor<10xi32>) -> (tensor<10xi32>, tensor<10xi32>)
  %inverse:2 = "stablehlo.sort"(%order#1, %iota) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>, %c: tensor<i32>, %d: tensor<i32>):
    %r = "stablehlo.compare"(%a, %b) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%r) : (tensor<i1>) -> ()
  }) : (tensor<10xi32>, tensor<10xi32>) -> (tensor<10xi32>, tensor<10xi32>)
  %k = "stablehlo.constant"() <{value = dense<2> : tensor<10xi32>}> : () -> tensor<10xi32>
  %tokens = "stablehlo.divide"(%order#1, %k) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %t = "stablehlo.reshape"(%tokens) : (tensor<10xi32>) -> tensor<10x1xi32>
  %rows = "stablehlo.gather"(%x, %t) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<5x16xf32>, tensor<10x1xi32>) -> tensor<10x16xf32>
  %bins = "stablehlo.constant"() <{value = dense<0> : tensor<9xi32>}> : () -> tensor<9xi32>
  %one = "stablehlo.constant"() <{value = dense<1> : tensor<10xi32>}> : () -> tensor<10xi32>
  %i = "stablehlo.reshape"(%flat) : (tensor<10xi32>) -> tensor<10x1xi32>
  %counts = "stablehlo.scatter"(%bins, %i, %one) <{scatter_dimension_numbers = #stablehlo.scatter<inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>):
    %r = "stablehlo.add"(%a, %b) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%r) : (tensor<i32>) -> ()
  }) : (tensor<9xi32>, tensor<10x1xi32>, tensor<10xi32>) -> tensor<9xi32>
  %p = "stablehlo.reshape"(%inverse#1) : (tensor<10xi32>) -> tensor<10x1xi32>
  %back = "stablehlo.gather"(%y, %p) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<10x16xf32>, tensor<10x1xi32>) -> tensor<10x16xf32>
  %slots = "stablehlo.reshape"(%back) : (tensor<10x16xf32>) -> tensor<5x2x16xf32>
  %wide = "stablehlo.broadcast_in_dim"(%w) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<5x2xf32>) -> tensor<5x2x16xf32>
  %scaled = "stablehlo.multiply"(%slots, %wide) : (tensor<5x2x16xf32>, tensor<5x2x16xf32>) -> tensor<5x2x16xf32>
  %sum = "stablehlo.reduce"(%scaled, %zero) <{dimensions = array<i64: 1>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %r = "stablehlo.add"(%a, %b) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%r) : (tensor<f32>) -> ()
  }) : (tensor<5x2x16xf32>, tensor<f32>) -> tensor<5x16xf32>
  return %rows, %counts, %sum : tensor<10x16xf32>, tensor<9xi32>, tensor<5x16xf32>
}

// -----

// Each choice counts twice.

// CHECK-LABEL: func.func @twice(
// CHECK:         moe.dispatch
// CHECK:         stablehlo.scatter
// CHECK:         {{^ +return}}
func.func @twice(%x: tensor<5x16xf32>, %s: tensor<5x8xf32>, %y: tensor<10x16xf32>, %w: tensor<5x2xf32>)
    -> (tensor<10x16xf32>, tensor<8xi32>, tensor<5x16xf32>) {
  %zero = "stablehlo.constant"() <{value = dense<0.0> : tensor<f32>}> : () -> tensor<f32>
  %values, %top = "chlo.top_k"(%s) <{k = 2 : i64}> : (tensor<5x8xf32>) -> (tensor<5x2xf32>, tensor<5x2xi32>)
  %flat = "stablehlo.reshape"(%top) : (tensor<5x2xi32>) -> tensor<10xi32>
  %iota = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<10xi32>
  %order:2 = "stablehlo.sort"(%flat, %iota) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>, %c: tensor<i32>, %d: tensor<i32>):
    %r = "stablehlo.compare"(%a, %b) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%r) : (tensor<i1>) -> ()
  }) : (tensor<10xi32>, tensor<10xi32>) -> (tensor<10xi32>, tensor<10xi32>)
  %inverse:2 = "stablehlo.sort"(%order#1, %iota) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>, %c: tensor<i32>, %d: tensor<i32>):
    %r = "stablehlo.compare"(%a, %b) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%r) : (tensor<i1>) -> ()
  }) : (tensor<10xi32>, tensor<10xi32>) -> (tensor<10xi32>, tensor<10xi32>)
  %k = "stablehlo.constant"() <{value = dense<2> : tensor<10xi32>}> : () -> tensor<10xi32>
  %tokens = "stablehlo.divide"(%order#1, %k) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %t = "stablehlo.reshape"(%tokens) : (tensor<10xi32>) -> tensor<10x1xi32>
  %rows = "stablehlo.gather"(%x, %t) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<5x16xf32>, tensor<10x1xi32>) -> tensor<10x16xf32>
  %bins = "stablehlo.constant"() <{value = dense<0> : tensor<8xi32>}> : () -> tensor<8xi32>
  %one = "stablehlo.constant"() <{value = dense<2> : tensor<10xi32>}> : () -> tensor<10xi32>
  %i = "stablehlo.reshape"(%flat) : (tensor<10xi32>) -> tensor<10x1xi32>
  %counts = "stablehlo.scatter"(%bins, %i, %one) <{scatter_dimension_numbers = #stablehlo.scatter<inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>):
    %r = "stablehlo.add"(%a, %b) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%r) : (tensor<i32>) -> ()
  }) : (tensor<8xi32>, tensor<10x1xi32>, tensor<10xi32>) -> tensor<8xi32>
  %p = "stablehlo.reshape"(%inverse#1) : (tensor<10xi32>) -> tensor<10x1xi32>
  %back = "stablehlo.gather"(%y, %p) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<10x16xf32>, tensor<10x1xi32>) -> tensor<10x16xf32>
  %slots = "stablehlo.reshape"(%back) : (tensor<10x16xf32>) -> tensor<5x2x16xf32>
  %wide = "stablehlo.broadcast_in_dim"(%w) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<5x2xf32>) -> tensor<5x2x16xf32>
  %scaled = "stablehlo.multiply"(%slots, %wide) : (tensor<5x2x16xf32>, tensor<5x2x16xf32>) -> tensor<5x2x16xf32>
  %sum = "stablehlo.reduce"(%scaled, %zero) <{dimensions = array<i64: 1>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %r = "stablehlo.add"(%a, %b) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%r) : (tensor<f32>) -> ()
  }) : (tensor<5x2x16xf32>, tensor<f32>) -> tensor<5x16xf32>
  return %rows, %counts, %sum : tensor<10x16xf32>, tensor<8xi32>, tensor<5x16xf32>
}

// -----

// Rows are gathered by the order, not by its inverse.

// CHECK-LABEL: func.func @order_again(
// CHECK-NOT:     moe.combine
// CHECK:         {{^ +return}}
func.func @order_again(%x: tensor<5x16xf32>, %s: tensor<5x8xf32>, %y: tensor<10x16xf32>, %w: tensor<5x2xf32>)
    -> (tensor<10x16xf32>, tensor<8xi32>, tensor<5x16xf32>) {
  %zero = "stablehlo.constant"() <{value = dense<0.0> : tensor<f32>}> : () -> tensor<f32>
  %values, %top = "chlo.top_k"(%s) <{k = 2 : i64}> : (tensor<5x8xf32>) -> (tensor<5x2xf32>, tensor<5x2xi32>)
  %flat = "stablehlo.reshape"(%top) : (tensor<5x2xi32>) -> tensor<10xi32>
  %iota = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<10xi32>
  %order:2 = "stablehlo.sort"(%flat, %iota) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>, %c: tensor<i32>, %d: tensor<i32>):
    %r = "stablehlo.compare"(%a, %b) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%r) : (tensor<i1>) -> ()
  }) : (tensor<10xi32>, tensor<10xi32>) -> (tensor<10xi32>, tensor<10xi32>)
  %inverse:2 = "stablehlo.sort"(%order#1, %iota) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>, %c: tensor<i32>, %d: tensor<i32>):
    %r = "stablehlo.compare"(%a, %b) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%r) : (tensor<i1>) -> ()
  }) : (tensor<10xi32>, tensor<10xi32>) -> (tensor<10xi32>, tensor<10xi32>)
  %k = "stablehlo.constant"() <{value = dense<2> : tensor<10xi32>}> : () -> tensor<10xi32>
  %tokens = "stablehlo.divide"(%order#1, %k) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %t = "stablehlo.reshape"(%tokens) : (tensor<10xi32>) -> tensor<10x1xi32>
  %rows = "stablehlo.gather"(%x, %t) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<5x16xf32>, tensor<10x1xi32>) -> tensor<10x16xf32>
  %bins = "stablehlo.constant"() <{value = dense<0> : tensor<8xi32>}> : () -> tensor<8xi32>
  %one = "stablehlo.constant"() <{value = dense<1> : tensor<10xi32>}> : () -> tensor<10xi32>
  %i = "stablehlo.reshape"(%flat) : (tensor<10xi32>) -> tensor<10x1xi32>
  %counts = "stablehlo.scatter"(%bins, %i, %one) <{scatter_dimension_numbers = #stablehlo.scatter<inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>):
    %r = "stablehlo.add"(%a, %b) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%r) : (tensor<i32>) -> ()
  }) : (tensor<8xi32>, tensor<10x1xi32>, tensor<10xi32>) -> tensor<8xi32>
  %p = "stablehlo.reshape"(%order#1) : (tensor<10xi32>) -> tensor<10x1xi32>
  %back = "stablehlo.gather"(%y, %p) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<10x16xf32>, tensor<10x1xi32>) -> tensor<10x16xf32>
  %slots = "stablehlo.reshape"(%back) : (tensor<10x16xf32>) -> tensor<5x2x16xf32>
  %wide = "stablehlo.broadcast_in_dim"(%w) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<5x2xf32>) -> tensor<5x2x16xf32>
  %scaled = "stablehlo.multiply"(%slots, %wide) : (tensor<5x2x16xf32>, tensor<5x2x16xf32>) -> tensor<5x2x16xf32>
  %sum = "stablehlo.reduce"(%scaled, %zero) <{dimensions = array<i64: 1>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %r = "stablehlo.add"(%a, %b) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%r) : (tensor<f32>) -> ()
  }) : (tensor<5x2x16xf32>, tensor<f32>) -> tensor<5x16xf32>
  return %rows, %counts, %sum : tensor<10x16xf32>, tensor<8xi32>, tensor<5x16xf32>
}

// -----

// The sum is one over the columns.

// CHECK-LABEL: func.func @sum_of_columns(
// CHECK:         tensor.collapse_shape %positions
// CHECK-NOT:     {{stablehlo.sort|moe.combine}}
// CHECK:         {{^ +return}}
func.func @sum_of_columns(%x: tensor<5x16xf32>, %s: tensor<5x8xf32>, %y: tensor<10x16xf32>, %w: tensor<5x2xf32>)
    -> (tensor<10x16xf32>, tensor<8xi32>, tensor<5x2xf32>) {
  %zero = "stablehlo.constant"() <{value = dense<0.0> : tensor<f32>}> : () -> tensor<f32>
  %values, %top = "chlo.top_k"(%s) <{k = 2 : i64}> : (tensor<5x8xf32>) -> (tensor<5x2xf32>, tensor<5x2xi32>)
  %flat = "stablehlo.reshape"(%top) : (tensor<5x2xi32>) -> tensor<10xi32>
  %iota = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<10xi32>
  %order:2 = "stablehlo.sort"(%flat, %iota) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>, %c: tensor<i32>, %d: tensor<i32>):
    %r = "stablehlo.compare"(%a, %b) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%r) : (tensor<i1>) -> ()
  }) : (tensor<10xi32>, tensor<10xi32>) -> (tensor<10xi32>, tensor<10xi32>)
  %inverse:2 = "stablehlo.sort"(%order#1, %iota) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>, %c: tensor<i32>, %d: tensor<i32>):
    %r = "stablehlo.compare"(%a, %b) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%r) : (tensor<i1>) -> ()
  }) : (tensor<10xi32>, tensor<10xi32>) -> (tensor<10xi32>, tensor<10xi32>)
  %k = "stablehlo.constant"() <{value = dense<2> : tensor<10xi32>}> : () -> tensor<10xi32>
  %tokens = "stablehlo.divide"(%order#1, %k) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %t = "stablehlo.reshape"(%tokens) : (tensor<10xi32>) -> tensor<10x1xi32>
  %rows = "stablehlo.gather"(%x, %t) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<5x16xf32>, tensor<10x1xi32>) -> tensor<10x16xf32>
  %bins = "stablehlo.constant"() <{value = dense<0> : tensor<8xi32>}> : () -> tensor<8xi32>
  %one = "stablehlo.constant"() <{value = dense<1> : tensor<10xi32>}> : () -> tensor<10xi32>
  %i = "stablehlo.reshape"(%flat) : (tensor<10xi32>) -> tensor<10x1xi32>
  %counts = "stablehlo.scatter"(%bins, %i, %one) <{scatter_dimension_numbers = #stablehlo.scatter<inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>):
    %r = "stablehlo.add"(%a, %b) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%r) : (tensor<i32>) -> ()
  }) : (tensor<8xi32>, tensor<10x1xi32>, tensor<10xi32>) -> tensor<8xi32>
  %p = "stablehlo.reshape"(%inverse#1) : (tensor<10xi32>) -> tensor<10x1xi32>
  %back = "stablehlo.gather"(%y, %p) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<10x16xf32>, tensor<10x1xi32>) -> tensor<10x16xf32>
  %slots = "stablehlo.reshape"(%back) : (tensor<10x16xf32>) -> tensor<5x2x16xf32>
  %wide = "stablehlo.broadcast_in_dim"(%w) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<5x2xf32>) -> tensor<5x2x16xf32>
  %scaled = "stablehlo.multiply"(%slots, %wide) : (tensor<5x2x16xf32>, tensor<5x2x16xf32>) -> tensor<5x2x16xf32>
  %sum = "stablehlo.reduce"(%scaled, %zero) <{dimensions = array<i64: 2>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %r = "stablehlo.add"(%a, %b) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%r) : (tensor<f32>) -> ()
  }) : (tensor<5x2x16xf32>, tensor<f32>) -> tensor<5x2xf32>
  return %rows, %counts, %sum : tensor<10x16xf32>, tensor<8xi32>, tensor<5x2xf32>
}

// -----

// The weights are [K, T].

// CHECK-LABEL: func.func @swapped_weights(
// CHECK:         tensor.collapse_shape %positions
// CHECK-NOT:     {{stablehlo.sort|moe.combine}}
// CHECK:         {{^ +return}}
func.func @swapped_weights(%x: tensor<5x16xf32>, %s: tensor<5x8xf32>, %y: tensor<10x16xf32>, %w: tensor<2x5xf32>)
    -> (tensor<10x16xf32>, tensor<8xi32>, tensor<5x16xf32>) {
  %zero = "stablehlo.constant"() <{value = dense<0.0> : tensor<f32>}> : () -> tensor<f32>
  %values, %top = "chlo.top_k"(%s) <{k = 2 : i64}> : (tensor<5x8xf32>) -> (tensor<5x2xf32>, tensor<5x2xi32>)
  %flat = "stablehlo.reshape"(%top) : (tensor<5x2xi32>) -> tensor<10xi32>
  %iota = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<10xi32>
  %order:2 = "stablehlo.sort"(%flat, %iota) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>, %c: tensor<i32>, %d: tensor<i32>):
    %r = "stablehlo.compare"(%a, %b) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%r) : (tensor<i1>) -> ()
  }) : (tensor<10xi32>, tensor<10xi32>) -> (tensor<10xi32>, tensor<10xi32>)
  %inverse:2 = "stablehlo.sort"(%order#1, %iota) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>, %c: tensor<i32>, %d: tensor<i32>):
    %r = "stablehlo.compare"(%a, %b) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%r) : (tensor<i1>) -> ()
  }) : (tensor<10xi32>, tensor<10xi32>) -> (tensor<10xi32>, tensor<10xi32>)
  %k = "stablehlo.constant"() <{value = dense<2> : tensor<10xi32>}> : () -> tensor<10xi32>
  %tokens = "stablehlo.divide"(%order#1, %k) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %t = "stablehlo.reshape"(%tokens) : (tensor<10xi32>) -> tensor<10x1xi32>
  %rows = "stablehlo.gather"(%x, %t) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<5x16xf32>, tensor<10x1xi32>) -> tensor<10x16xf32>
  %bins = "stablehlo.constant"() <{value = dense<0> : tensor<8xi32>}> : () -> tensor<8xi32>
  %one = "stablehlo.constant"() <{value = dense<1> : tensor<10xi32>}> : () -> tensor<10xi32>
  %i = "stablehlo.reshape"(%flat) : (tensor<10xi32>) -> tensor<10x1xi32>
  %counts = "stablehlo.scatter"(%bins, %i, %one) <{scatter_dimension_numbers = #stablehlo.scatter<inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>):
    %r = "stablehlo.add"(%a, %b) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%r) : (tensor<i32>) -> ()
  }) : (tensor<8xi32>, tensor<10x1xi32>, tensor<10xi32>) -> tensor<8xi32>
  %p = "stablehlo.reshape"(%inverse#1) : (tensor<10xi32>) -> tensor<10x1xi32>
  %back = "stablehlo.gather"(%y, %p) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<10x16xf32>, tensor<10x1xi32>) -> tensor<10x16xf32>
  %slots = "stablehlo.reshape"(%back) : (tensor<10x16xf32>) -> tensor<5x2x16xf32>
  %wide = "stablehlo.broadcast_in_dim"(%w) <{broadcast_dimensions = array<i64: 1, 0>}> : (tensor<2x5xf32>) -> tensor<5x2x16xf32>
  %scaled = "stablehlo.multiply"(%slots, %wide) : (tensor<5x2x16xf32>, tensor<5x2x16xf32>) -> tensor<5x2x16xf32>
  %sum = "stablehlo.reduce"(%scaled, %zero) <{dimensions = array<i64: 1>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %r = "stablehlo.add"(%a, %b) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%r) : (tensor<f32>) -> ()
  }) : (tensor<5x2x16xf32>, tensor<f32>) -> tensor<5x16xf32>
  return %rows, %counts, %sum : tensor<10x16xf32>, tensor<8xi32>, tensor<5x16xf32>
}

// -----

// Nothing says that ids which are given are those of experts.

// CHECK-LABEL: func.func @given(
// CHECK-NOT:     {{moe.(dispatch|route|combine)}}
// CHECK:         {{^ +return}}
func.func @given(%x: tensor<5x16xf32>, %s: tensor<5x8xf32>, %y: tensor<10x16xf32>, %w: tensor<5x2xf32>, %given: tensor<5x2xi32>)
    -> (tensor<10x16xf32>, tensor<8xi32>, tensor<5x16xf32>) {
  %zero = "stablehlo.constant"() <{value = dense<0.0> : tensor<f32>}> : () -> tensor<f32>
  %values, %top = "chlo.top_k"(%s) <{k = 2 : i64}> : (tensor<5x8xf32>) -> (tensor<5x2xf32>, tensor<5x2xi32>)
  %flat = "stablehlo.reshape"(%given) : (tensor<5x2xi32>) -> tensor<10xi32>
  %iota = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<10xi32>
  %order:2 = "stablehlo.sort"(%flat, %iota) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>, %c: tensor<i32>, %d: tensor<i32>):
    %r = "stablehlo.compare"(%a, %b) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%r) : (tensor<i1>) -> ()
  }) : (tensor<10xi32>, tensor<10xi32>) -> (tensor<10xi32>, tensor<10xi32>)
  %inverse:2 = "stablehlo.sort"(%order#1, %iota) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>, %c: tensor<i32>, %d: tensor<i32>):
    %r = "stablehlo.compare"(%a, %b) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%r) : (tensor<i1>) -> ()
  }) : (tensor<10xi32>, tensor<10xi32>) -> (tensor<10xi32>, tensor<10xi32>)
  %k = "stablehlo.constant"() <{value = dense<2> : tensor<10xi32>}> : () -> tensor<10xi32>
  %tokens = "stablehlo.divide"(%order#1, %k) : (tensor<10xi32>, tensor<10xi32>) -> tensor<10xi32>
  %t = "stablehlo.reshape"(%tokens) : (tensor<10xi32>) -> tensor<10x1xi32>
  %rows = "stablehlo.gather"(%x, %t) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<5x16xf32>, tensor<10x1xi32>) -> tensor<10x16xf32>
  %bins = "stablehlo.constant"() <{value = dense<0> : tensor<8xi32>}> : () -> tensor<8xi32>
  %one = "stablehlo.constant"() <{value = dense<1> : tensor<10xi32>}> : () -> tensor<10xi32>
  %i = "stablehlo.reshape"(%flat) : (tensor<10xi32>) -> tensor<10x1xi32>
  %counts = "stablehlo.scatter"(%bins, %i, %one) <{scatter_dimension_numbers = #stablehlo.scatter<inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}> ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>):
    %r = "stablehlo.add"(%a, %b) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%r) : (tensor<i32>) -> ()
  }) : (tensor<8xi32>, tensor<10x1xi32>, tensor<10xi32>) -> tensor<8xi32>
  %p = "stablehlo.reshape"(%inverse#1) : (tensor<10xi32>) -> tensor<10x1xi32>
  %back = "stablehlo.gather"(%y, %p) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<10x16xf32>, tensor<10x1xi32>) -> tensor<10x16xf32>
  %slots = "stablehlo.reshape"(%back) : (tensor<10x16xf32>) -> tensor<5x2x16xf32>
  %wide = "stablehlo.broadcast_in_dim"(%w) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<5x2xf32>) -> tensor<5x2x16xf32>
  %scaled = "stablehlo.multiply"(%slots, %wide) : (tensor<5x2x16xf32>, tensor<5x2x16xf32>) -> tensor<5x2x16xf32>
  %sum = "stablehlo.reduce"(%scaled, %zero) <{dimensions = array<i64: 1>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %r = "stablehlo.add"(%a, %b) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%r) : (tensor<f32>) -> ()
  }) : (tensor<5x2x16xf32>, tensor<f32>) -> tensor<5x16xf32>
  return %rows, %counts, %sum : tensor<10x16xf32>, tensor<8xi32>, tensor<5x16xf32>
}
