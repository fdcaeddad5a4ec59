// RUN: moe-opt %s --allow-unregistered-dialect -o %t.before
// RUN: moe-opt %s --allow-unregistered-dialect --moe-raise-routing --moe-raise-grouped --moe-raise-gate --remarks-filter-missed=moe-raise -o %t.after 2>%t.remarks
// RUN: diff %t.before %t.after
// RUN: count 0 < %t.remarks

// Programs without experts stay as they are, to the letter, also where a
// canonicalization would change them: the softmax and the products of
// attention in StableHLO, and constants that nothing uses.
func.func @stablehlo(%q: tensor<16x8xf32>, %k: tensor<16x8xf32>, %v: tensor<16x8xf32>, %table: tensor<50x8xf32>, %words: tensor<16x1xi32>, %wide: tensor<?x16xf32>, %start: tensor<2xi32>, %limit: tensor<2xi32>, %step: tensor<2xi32>) -> (tensor<16x8xf32>, tensor<16x8xf32>, tensor<?x8xf32>) {
  %unused = arith.constant 3 : i32
  %zero = "stablehlo.constant"() <{value = dense<0.0> : tensor<f32>}> : () -> tensor<f32>
  %least = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %dead = "stablehlo.multiply"(%q, %k) : (tensor<16x8xf32>, tensor<16x8xf32>) -> tensor<16x8xf32>
  %s = "stablehlo.dot_general"(%q, %k) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<16x8xf32>, tensor<16x8xf32>) -> tensor<16x16xf32>
  %max = "stablehlo.reduce"(%s, %least) <{dimensions = array<i64: 1>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %m = "stablehlo.maximum"(%a, %b) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%m) : (tensor<f32>) -> ()
  }) : (tensor<16x16xf32>, tensor<f32>) -> tensor<16xf32>
  %max2 = "stablehlo.broadcast_in_dim"(%max) <{broadcast_dimensions = array<i64: 0>}> : (tensor<16xf32>) -> tensor<16x16xf32>
  %d = "stablehlo.subtract"(%s, %max2) : (tensor<16x16xf32>, tensor<16x16xf32>) -> tensor<16x16xf32>
  %e = "stablehlo.exponential"(%d) : (tensor<16x16xf32>) -> tensor<16x16xf32>
  %sum = "stablehlo.reduce"(%e, %zero) <{dimensions = array<i64: 1>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %m = "stablehlo.add"(%a, %b) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%m) : (tensor<f32>) -> ()
  }) : (tensor<16x16xf32>, tensor<f32>) -> tensor<16xf32>
  %sum2 = "stablehlo.broadcast_in_dim"(%sum) <{broadcast_dimensions = array<i64: 0>}> : (tensor<16xf32>) -> tensor<16x16xf32>
  %p = "stablehlo.divide"(%e, %sum2) : (tensor<16x16xf32>, tensor<16x16xf32>) -> tensor<16x16xf32>
  %o = "stablehlo.dot_general"(%p, %v) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<16x16xf32>, tensor<16x8xf32>) -> tensor<16x8xf32>
  // An embedding, and columns of any number of rows.
  %g = "stablehlo.gather"(%table, %words) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 8>}> : (tensor<50x8xf32>, tensor<16x1xi32>) -> tensor<16x8xf32>
  %c = "stablehlo.real_dynamic_slice"(%wide, %start, %limit, %step) : (tensor<?x16xf32>, tensor<2xi32>, tensor<2xi32>, tensor<2xi32>) -> tensor<?x8xf32>
  return %o, %g, %c : tensor<16x8xf32>, tensor<16x8xf32>, tensor<?x8xf32>
}

#map = affine_map<(d0, d1) -> (d0, d1)>
func.func @linalg(%x: tensor<4x16x8xf32>, %w: tensor<4x8x8xf32>, %y: tensor<16x8xf32>) -> (tensor<4x16x8xf32>, tensor<16x8xf32>, index) {
  %c0 = arith.constant 0 : index
  %dead = arith.addi %c0, %c0 : index
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<4x16x8xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<4x16x8xf32>) -> tensor<4x16x8xf32>
  %0 = linalg.batch_matmul ins(%x, %w : tensor<4x16x8xf32>, tensor<4x8x8xf32>) outs(%f : tensor<4x16x8xf32>) -> tensor<4x16x8xf32>
  %i = tensor.empty() : tensor<16x8xf32>
  %1 = linalg.generic {indexing_maps = [#map, #map], iterator_types = ["parallel", "parallel"]} ins(%y : tensor<16x8xf32>) outs(%i : tensor<16x8xf32>) {
  ^bb0(%in: f32, %out: f32):
    %r = arith.maximumf %in, %zero : f32
    linalg.yield %r : f32
  } -> tensor<16x8xf32>
  %dim = tensor.dim %y, %c0 : tensor<16x8xf32>
  return %0, %1, %dim : tensor<4x16x8xf32>, tensor<16x8xf32>, index
}
