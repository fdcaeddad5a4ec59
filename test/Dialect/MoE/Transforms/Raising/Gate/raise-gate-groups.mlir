// RUN: moe-opt %s --moe-raise-gate --canonicalize -split-input-file | FileCheck %s

#id = affine_map<(d0, d1) -> (d0, d1)>
#rows = affine_map<(d0, d1, d2) -> (d0, d1)>
#cube = affine_map<(d0, d1, d2) -> (d0, d1, d2)>
#choices = affine_map<(d0, d1, d2) -> (d0, d2)>

// CHECK-LABEL: @top2_sum
// CHECK-NEXT: moe.gate %arg0 top_k(3) score(none) groups(<count = 4, keep = 2, score = top2_sum>)
// CHECK-NEXT: return
func.func @top2_sum(%scores: tensor<?x8xf32>, %others: tensor<?x8xf32>, %t: index)
    -> (tensor<?x3xf32>, tensor<?x3xi32>) {
  %grouped = tensor.expand_shape %scores [[0], [1, 2]] output_shape [%t, 4, 2]
    : tensor<?x8xf32> into tensor<?x4x2xf32>
  %rows = tensor.collapse_shape %grouped [[0, 1], [2]]
    : tensor<?x4x2xf32> into tensor<?x2xf32>
  %two, %unused = moe.gate %rows top_k(2) score(none) : tensor<?x2xf32>
  %best = tensor.expand_shape %two [[0, 1], [2]] output_shape [%t, 4, 2]
    : tensor<?x2xf32> into tensor<?x4x2xf32>
  %zero = arith.constant 0.0 : f32
  %start = arith.constant 0.0 : f32
  %scoresEmpty = tensor.empty(%t) : tensor<?x4xf32>
  %started = linalg.fill ins(%start : f32) outs(%scoresEmpty : tensor<?x4xf32>)
    -> tensor<?x4xf32>
  %groupScores = linalg.generic {indexing_maps = [#cube, #rows],
      iterator_types = ["parallel", "parallel", "reduction"]}
      ins(%best : tensor<?x4x2xf32>) outs(%started : tensor<?x4xf32>) {
  ^bb0(%x: f32, %old: f32):
    %r = arith.addf %old, %x : f32
    linalg.yield %r : f32
  } -> tensor<?x4xf32>
  %w, %groups = moe.gate %groupScores top_k(2) score(none) : tensor<?x4xf32>
  %empty = tensor.empty(%t) : tensor<?x4xf32>
  %zeros = linalg.fill ins(%zero : f32) outs(%empty : tensor<?x4xf32>)
    -> tensor<?x4xf32>
  %marks = linalg.generic {indexing_maps = [#choices, #rows],
      iterator_types = ["parallel", "parallel", "reduction"]}
      ins(%groups : tensor<?x2xi32>) outs(%zeros : tensor<?x4xf32>) {
  ^bb0(%id: i32, %old: f32):
    %index = linalg.index 1 : index
    %group = arith.index_cast %id : i32 to index
    %here = arith.cmpi eq, %index, %group : index
    %one = arith.constant 1.0 : f32
    %r = arith.select %here, %one, %old : f32
    linalg.yield %r : f32
  } -> tensor<?x4xf32>
  %all = tensor.empty(%t) : tensor<?x4x2xf32>
  %repeated = linalg.generic {indexing_maps = [#rows, #cube],
      iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%marks : tensor<?x4xf32>) outs(%all : tensor<?x4x2xf32>) {
  ^bb0(%x: f32, %old: f32):
    linalg.yield %x : f32
  } -> tensor<?x4x2xf32>
  %mask = tensor.collapse_shape %repeated [[0], [1, 2]]
    : tensor<?x4x2xf32> into tensor<?x8xf32>
  %maskedEmpty = tensor.empty(%t) : tensor<?x8xi1>
  %kept = linalg.generic {indexing_maps = [#id, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%mask : tensor<?x8xf32>) outs(%maskedEmpty : tensor<?x8xi1>) {
  ^bb0(%x: f32, %old: i1):
    %r = arith.cmpf une, %x, %zero : f32
    linalg.yield %r : i1
  } -> tensor<?x8xi1>
  %dropped = linalg.generic {indexing_maps = [#id, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%kept : tensor<?x8xi1>) outs(%maskedEmpty : tensor<?x8xi1>) {
  ^bb0(%x: i1, %old: i1):
    %true = arith.constant true
    %r = arith.xori %x, %true : i1
    linalg.yield %r : i1
  } -> tensor<?x8xi1>
  %selectedEmpty = tensor.empty(%t) : tensor<?x8xf32>
  %selected = linalg.generic {indexing_maps = [#id, #id, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%dropped, %scores : tensor<?x8xi1>, tensor<?x8xf32>)
      outs(%selectedEmpty : tensor<?x8xf32>) {
  ^bb0(%m: i1, %x: f32, %old: f32):
    %fill = arith.constant 0xFF800000 : f32
    %r = arith.select %m, %fill, %x : f32
    linalg.yield %r : f32
  } -> tensor<?x8xf32>
  %weights, %ids = moe.gate %selected top_k(3) score(none) : tensor<?x8xf32>
  return %weights, %ids : tensor<?x3xf32>, tensor<?x3xi32>
}

// -----

#id = affine_map<(d0, d1) -> (d0, d1)>
#rows = affine_map<(d0, d1, d2) -> (d0, d1)>
#cube = affine_map<(d0, d1, d2) -> (d0, d1, d2)>
#choices = affine_map<(d0, d1, d2) -> (d0, d2)>

// CHECK-LABEL: @max
// CHECK-NEXT: moe.gate %arg0 top_k(3) score(none) groups(<count = 4, keep = 2, fill = zero>)
// CHECK-NEXT: return
func.func @max(%scores: tensor<?x8xf32>, %others: tensor<?x8xf32>, %t: index)
    -> tensor<?x3xi32> {
  %grouped = tensor.expand_shape %scores [[0], [1, 2]] output_shape [%t, 4, 2]
    : tensor<?x8xf32> into tensor<?x4x2xf32>
  %zero = arith.constant 0.0 : f32
  %start = arith.constant 0xFF800000 : f32
  %scoresEmpty = tensor.empty(%t) : tensor<?x4xf32>
  %started = linalg.fill ins(%start : f32) outs(%scoresEmpty : tensor<?x4xf32>)
    -> tensor<?x4xf32>
  %groupScores = linalg.generic {indexing_maps = [#cube, #rows],
      iterator_types = ["parallel", "parallel", "reduction"]}
      ins(%grouped : tensor<?x4x2xf32>) outs(%started : tensor<?x4xf32>) {
  ^bb0(%x: f32, %old: f32):
    %r = arith.maximumf %old, %x : f32
    linalg.yield %r : f32
  } -> tensor<?x4xf32>
  %w, %groups = moe.gate %groupScores top_k(2) score(none) : tensor<?x4xf32>
  %empty = tensor.empty(%t) : tensor<?x4xf32>
  %zeros = linalg.fill ins(%zero : f32) outs(%empty : tensor<?x4xf32>)
    -> tensor<?x4xf32>
  %marks = linalg.generic {indexing_maps = [#choices, #rows],
      iterator_types = ["parallel", "parallel", "reduction"]}
      ins(%groups : tensor<?x2xi32>) outs(%zeros : tensor<?x4xf32>) {
  ^bb0(%id: i32, %old: f32):
    %index = linalg.index 1 : index
    %group = arith.index_cast %id : i32 to index
    %here = arith.cmpi eq, %index, %group : index
    %one = arith.constant 1.0 : f32
    %r = arith.select %here, %one, %old : f32
    linalg.yield %r : f32
  } -> tensor<?x4xf32>
  %all = tensor.empty(%t) : tensor<?x4x2xf32>
  %repeated = linalg.generic {indexing_maps = [#rows, #cube],
      iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%marks : tensor<?x4xf32>) outs(%all : tensor<?x4x2xf32>) {
  ^bb0(%x: f32, %old: f32):
    linalg.yield %x : f32
  } -> tensor<?x4x2xf32>
  %mask = tensor.collapse_shape %repeated [[0], [1, 2]]
    : tensor<?x4x2xf32> into tensor<?x8xf32>
  %maskedEmpty = tensor.empty(%t) : tensor<?x8xi1>
  %kept = linalg.generic {indexing_maps = [#id, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%mask : tensor<?x8xf32>) outs(%maskedEmpty : tensor<?x8xi1>) {
  ^bb0(%x: f32, %old: i1):
    %r = arith.cmpf une, %x, %zero : f32
    linalg.yield %r : i1
  } -> tensor<?x8xi1>
  %dropped = linalg.generic {indexing_maps = [#id, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%kept : tensor<?x8xi1>) outs(%maskedEmpty : tensor<?x8xi1>) {
  ^bb0(%x: i1, %old: i1):
    %true = arith.constant true
    %r = arith.xori %x, %true : i1
    linalg.yield %r : i1
  } -> tensor<?x8xi1>
  %selectedEmpty = tensor.empty(%t) : tensor<?x8xf32>
  %selected = linalg.generic {indexing_maps = [#id, #id, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%dropped, %scores : tensor<?x8xi1>, tensor<?x8xf32>)
      outs(%selectedEmpty : tensor<?x8xf32>) {
  ^bb0(%m: i1, %x: f32, %old: f32):
    %fill = arith.constant 0.0 : f32
    %r = arith.select %m, %fill, %x : f32
    linalg.yield %r : f32
  } -> tensor<?x8xf32>
  %weights, %ids = moe.gate %selected top_k(3) score(none) : tensor<?x8xf32>
  return %ids : tensor<?x3xi32>
}

// -----

#id = affine_map<(d0, d1) -> (d0, d1)>
#rows = affine_map<(d0, d1, d2) -> (d0, d1)>
#cube = affine_map<(d0, d1, d2) -> (d0, d1, d2)>
#choices = affine_map<(d0, d1, d2) -> (d0, d2)>

// A masked expert may win against scores below 0, with the weight 0.
// CHECK-LABEL: @masked_weights
// CHECK: moe.gate %{{.*}} top_k(3) score(none) : tensor<?x8xf32>
func.func @masked_weights(%scores: tensor<?x8xf32>, %others: tensor<?x8xf32>, %t: index)
    -> (tensor<?x3xf32>, tensor<?x3xi32>) {
  %grouped = tensor.expand_shape %scores [[0], [1, 2]] output_shape [%t, 4, 2]
    : tensor<?x8xf32> into tensor<?x4x2xf32>
  %zero = arith.constant 0.0 : f32
  %start = arith.constant 0xFF800000 : f32
  %scoresEmpty = tensor.empty(%t) : tensor<?x4xf32>
  %started = linalg.fill ins(%start : f32) outs(%scoresEmpty : tensor<?x4xf32>)
    -> tensor<?x4xf32>
  %groupScores = linalg.generic {indexing_maps = [#cube, #rows],
      iterator_types = ["parallel", "parallel", "reduction"]}
      ins(%grouped : tensor<?x4x2xf32>) outs(%started : tensor<?x4xf32>) {
  ^bb0(%x: f32, %old: f32):
    %r = arith.maximumf %old, %x : f32
    linalg.yield %r : f32
  } -> tensor<?x4xf32>
  %w, %groups = moe.gate %groupScores top_k(2) score(none) : tensor<?x4xf32>
  %empty = tensor.empty(%t) : tensor<?x4xf32>
  %zeros = linalg.fill ins(%zero : f32) outs(%empty : tensor<?x4xf32>)
    -> tensor<?x4xf32>
  %marks = linalg.generic {indexing_maps = [#choices, #rows],
      iterator_types = ["parallel", "parallel", "reduction"]}
      ins(%groups : tensor<?x2xi32>) outs(%zeros : tensor<?x4xf32>) {
  ^bb0(%id: i32, %old: f32):
    %index = linalg.index 1 : index
    %group = arith.index_cast %id : i32 to index
    %here = arith.cmpi eq, %index, %group : index
    %one = arith.constant 1.0 : f32
    %r = arith.select %here, %one, %old : f32
    linalg.yield %r : f32
  } -> tensor<?x4xf32>
  %all = tensor.empty(%t) : tensor<?x4x2xf32>
  %repeated = linalg.generic {indexing_maps = [#rows, #cube],
      iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%marks : tensor<?x4xf32>) outs(%all : tensor<?x4x2xf32>) {
  ^bb0(%x: f32, %old: f32):
    linalg.yield %x : f32
  } -> tensor<?x4x2xf32>
  %mask = tensor.collapse_shape %repeated [[0], [1, 2]]
    : tensor<?x4x2xf32> into tensor<?x8xf32>
  %maskedEmpty = tensor.empty(%t) : tensor<?x8xi1>
  %kept = linalg.generic {indexing_maps = [#id, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%mask : tensor<?x8xf32>) outs(%maskedEmpty : tensor<?x8xi1>) {
  ^bb0(%x: f32, %old: i1):
    %r = arith.cmpf une, %x, %zero : f32
    linalg.yield %r : i1
  } -> tensor<?x8xi1>
  %dropped = linalg.generic {indexing_maps = [#id, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%kept : tensor<?x8xi1>) outs(%maskedEmpty : tensor<?x8xi1>) {
  ^bb0(%x: i1, %old: i1):
    %true = arith.constant true
    %r = arith.xori %x, %true : i1
    linalg.yield %r : i1
  } -> tensor<?x8xi1>
  %selectedEmpty = tensor.empty(%t) : tensor<?x8xf32>
  %selected = linalg.generic {indexing_maps = [#id, #id, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%dropped, %scores : tensor<?x8xi1>, tensor<?x8xf32>)
      outs(%selectedEmpty : tensor<?x8xf32>) {
  ^bb0(%m: i1, %x: f32, %old: f32):
    %fill = arith.constant 0.0 : f32
    %r = arith.select %m, %fill, %x : f32
    linalg.yield %r : f32
  } -> tensor<?x8xf32>
  %weights, %ids = moe.gate %selected top_k(3) score(none) : tensor<?x8xf32>
  return %weights, %ids : tensor<?x3xf32>, tensor<?x3xi32>
}

// -----

#id = affine_map<(d0, d1) -> (d0, d1)>
#rows = affine_map<(d0, d1, d2) -> (d0, d1)>
#cube = affine_map<(d0, d1, d2) -> (d0, d1, d2)>
#choices = affine_map<(d0, d1, d2) -> (d0, d2)>

// Groups that other scores rank.
// CHECK-LABEL: @other_scores
// CHECK: moe.gate %{{.*}} top_k(3) score(none) : tensor<?x8xf32>
func.func @other_scores(%scores: tensor<?x8xf32>, %others: tensor<?x8xf32>, %t: index)
    -> (tensor<?x3xf32>, tensor<?x3xi32>) {
  %grouped = tensor.expand_shape %others [[0], [1, 2]] output_shape [%t, 4, 2]
    : tensor<?x8xf32> into tensor<?x4x2xf32>
  %rows = tensor.collapse_shape %grouped [[0, 1], [2]]
    : tensor<?x4x2xf32> into tensor<?x2xf32>
  %two, %unused = moe.gate %rows top_k(2) score(none) : tensor<?x2xf32>
  %best = tensor.expand_shape %two [[0, 1], [2]] output_shape [%t, 4, 2]
    : tensor<?x2xf32> into tensor<?x4x2xf32>
  %zero = arith.constant 0.0 : f32
  %start = arith.constant 0.0 : f32
  %scoresEmpty = tensor.empty(%t) : tensor<?x4xf32>
  %started = linalg.fill ins(%start : f32) outs(%scoresEmpty : tensor<?x4xf32>)
    -> tensor<?x4xf32>
  %groupScores = linalg.generic {indexing_maps = [#cube, #rows],
      iterator_types = ["parallel", "parallel", "reduction"]}
      ins(%best : tensor<?x4x2xf32>) outs(%started : tensor<?x4xf32>) {
  ^bb0(%x: f32, %old: f32):
    %r = arith.addf %old, %x : f32
    linalg.yield %r : f32
  } -> tensor<?x4xf32>
  %w, %groups = moe.gate %groupScores top_k(2) score(none) : tensor<?x4xf32>
  %empty = tensor.empty(%t) : tensor<?x4xf32>
  %zeros = linalg.fill ins(%zero : f32) outs(%empty : tensor<?x4xf32>)
    -> tensor<?x4xf32>
  %marks = linalg.generic {indexing_maps = [#choices, #rows],
      iterator_types = ["parallel", "parallel", "reduction"]}
      ins(%groups : tensor<?x2xi32>) outs(%zeros : tensor<?x4xf32>) {
  ^bb0(%id: i32, %old: f32):
    %index = linalg.index 1 : index
    %group = arith.index_cast %id : i32 to index
    %here = arith.cmpi eq, %index, %group : index
    %one = arith.constant 1.0 : f32
    %r = arith.select %here, %one, %old : f32
    linalg.yield %r : f32
  } -> tensor<?x4xf32>
  %all = tensor.empty(%t) : tensor<?x4x2xf32>
  %repeated = linalg.generic {indexing_maps = [#rows, #cube],
      iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%marks : tensor<?x4xf32>) outs(%all : tensor<?x4x2xf32>) {
  ^bb0(%x: f32, %old: f32):
    linalg.yield %x : f32
  } -> tensor<?x4x2xf32>
  %mask = tensor.collapse_shape %repeated [[0], [1, 2]]
    : tensor<?x4x2xf32> into tensor<?x8xf32>
  %maskedEmpty = tensor.empty(%t) : tensor<?x8xi1>
  %kept = linalg.generic {indexing_maps = [#id, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%mask : tensor<?x8xf32>) outs(%maskedEmpty : tensor<?x8xi1>) {
  ^bb0(%x: f32, %old: i1):
    %r = arith.cmpf une, %x, %zero : f32
    linalg.yield %r : i1
  } -> tensor<?x8xi1>
  %dropped = linalg.generic {indexing_maps = [#id, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%kept : tensor<?x8xi1>) outs(%maskedEmpty : tensor<?x8xi1>) {
  ^bb0(%x: i1, %old: i1):
    %true = arith.constant true
    %r = arith.xori %x, %true : i1
    linalg.yield %r : i1
  } -> tensor<?x8xi1>
  %selectedEmpty = tensor.empty(%t) : tensor<?x8xf32>
  %selected = linalg.generic {indexing_maps = [#id, #id, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%dropped, %scores : tensor<?x8xi1>, tensor<?x8xf32>)
      outs(%selectedEmpty : tensor<?x8xf32>) {
  ^bb0(%m: i1, %x: f32, %old: f32):
    %fill = arith.constant 0xFF800000 : f32
    %r = arith.select %m, %fill, %x : f32
    linalg.yield %r : f32
  } -> tensor<?x8xf32>
  %weights, %ids = moe.gate %selected top_k(3) score(none) : tensor<?x8xf32>
  return %weights, %ids : tensor<?x3xf32>, tensor<?x3xi32>
}

// -----

#id = affine_map<(d0, d1) -> (d0, d1)>
#rows = affine_map<(d0, d1, d2) -> (d0, d1)>
#cube = affine_map<(d0, d1, d2) -> (d0, d1, d2)>
#choices = affine_map<(d0, d1, d2) -> (d0, d2)>

// Dropped experts count as 1, which no attribute says.
// CHECK-LABEL: @other_fill
// CHECK: moe.gate %{{.*}} top_k(3) score(none) : tensor<?x8xf32>
func.func @other_fill(%scores: tensor<?x8xf32>, %others: tensor<?x8xf32>, %t: index)
    -> (tensor<?x3xf32>, tensor<?x3xi32>) {
  %grouped = tensor.expand_shape %scores [[0], [1, 2]] output_shape [%t, 4, 2]
    : tensor<?x8xf32> into tensor<?x4x2xf32>
  %zero = arith.constant 0.0 : f32
  %start = arith.constant 0xFF800000 : f32
  %scoresEmpty = tensor.empty(%t) : tensor<?x4xf32>
  %started = linalg.fill ins(%start : f32) outs(%scoresEmpty : tensor<?x4xf32>)
    -> tensor<?x4xf32>
  %groupScores = linalg.generic {indexing_maps = [#cube, #rows],
      iterator_types = ["parallel", "parallel", "reduction"]}
      ins(%grouped : tensor<?x4x2xf32>) outs(%started : tensor<?x4xf32>) {
  ^bb0(%x: f32, %old: f32):
    %r = arith.maximumf %old, %x : f32
    linalg.yield %r : f32
  } -> tensor<?x4xf32>
  %w, %groups = moe.gate %groupScores top_k(2) score(none) : tensor<?x4xf32>
  %empty = tensor.empty(%t) : tensor<?x4xf32>
  %zeros = linalg.fill ins(%zero : f32) outs(%empty : tensor<?x4xf32>)
    -> tensor<?x4xf32>
  %marks = linalg.generic {indexing_maps = [#choices, #rows],
      iterator_types = ["parallel", "parallel", "reduction"]}
      ins(%groups : tensor<?x2xi32>) outs(%zeros : tensor<?x4xf32>) {
  ^bb0(%id: i32, %old: f32):
    %index = linalg.index 1 : index
    %group = arith.index_cast %id : i32 to index
    %here = arith.cmpi eq, %index, %group : index
    %one = arith.constant 1.0 : f32
    %r = arith.select %here, %one, %old : f32
    linalg.yield %r : f32
  } -> tensor<?x4xf32>
  %all = tensor.empty(%t) : tensor<?x4x2xf32>
  %repeated = linalg.generic {indexing_maps = [#rows, #cube],
      iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%marks : tensor<?x4xf32>) outs(%all : tensor<?x4x2xf32>) {
  ^bb0(%x: f32, %old: f32):
    linalg.yield %x : f32
  } -> tensor<?x4x2xf32>
  %mask = tensor.collapse_shape %repeated [[0], [1, 2]]
    : tensor<?x4x2xf32> into tensor<?x8xf32>
  %maskedEmpty = tensor.empty(%t) : tensor<?x8xi1>
  %kept = linalg.generic {indexing_maps = [#id, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%mask : tensor<?x8xf32>) outs(%maskedEmpty : tensor<?x8xi1>) {
  ^bb0(%x: f32, %old: i1):
    %r = arith.cmpf une, %x, %zero : f32
    linalg.yield %r : i1
  } -> tensor<?x8xi1>
  %dropped = linalg.generic {indexing_maps = [#id, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%kept : tensor<?x8xi1>) outs(%maskedEmpty : tensor<?x8xi1>) {
  ^bb0(%x: i1, %old: i1):
    %true = arith.constant true
    %r = arith.xori %x, %true : i1
    linalg.yield %r : i1
  } -> tensor<?x8xi1>
  %selectedEmpty = tensor.empty(%t) : tensor<?x8xf32>
  %selected = linalg.generic {indexing_maps = [#id, #id, #id],
      iterator_types = ["parallel", "parallel"]}
      ins(%dropped, %scores : tensor<?x8xi1>, tensor<?x8xf32>)
      outs(%selectedEmpty : tensor<?x8xf32>) {
  ^bb0(%m: i1, %x: f32, %old: f32):
    %fill = arith.constant 1.0 : f32
    %r = arith.select %m, %fill, %x : f32
    linalg.yield %r : f32
  } -> tensor<?x8xf32>
  %weights, %ids = moe.gate %selected top_k(3) score(none) : tensor<?x8xf32>
  return %weights, %ids : tensor<?x3xf32>, tensor<?x3xi32>
}
