// RUN: moe-opt %s -moe-export -moe-pack-weights="vector-bits=256" -canonicalize --remarks-filter-missed=moe-pack-weights 2>%t | FileCheck %s
// RUN: FileCheck %s --check-prefix=REMARK --implicit-check-not=WeightsNotPrepacked < %t

// Weights that the function arranges otherwise, expert by expert, are packed
// once, from there.

// REMARK-COUNT-2: [Missed] WeightsNotPrepacked | Category:moe-pack-weights | Function={{across_experts|of_an_input}}

// Two matrices of each expert as one, transposed and scaled, and a part of it.
// CHECK-LABEL: func.func @views(
// CHECK-SAME:    %[[PACKED:[a-z0-9]+]]: tensor<3x{{[0-9x]+}}xf32> {bufferization.writable = false})
// CHECK-SAME:    #moe.argument<name = "w", role = weight, type = tensor<3x2x8x4xf32>, retained = false>
// CHECK:         moe.grouped_matmul %{{.*}} weights(%[[PACKED]] :
// CHECK-NOT:     linalg.generic
// CHECK-NOT:     moe.pack
// CHECK:       func.func @views__prepare0(
// CHECK-SAME:    %[[W:.*]]: tensor<?x2x8x4xf32> {moe.name = "w"})
// CHECK:         %[[ONE:.*]] = tensor.collapse_shape %[[W]] {{\[\[}}0], [1, 2], [3]] : tensor<?x2x8x4xf32> into tensor<?x16x4xf32>
// CHECK:         %[[T:.*]] = linalg.generic {{.*}} ins(%[[ONE]] : tensor<?x16x4xf32>) outs(%{{.*}} : tensor<?x4x16xf32>)
// CHECK:           arith.mulf
// CHECK:         %[[PART:.*]] = tensor.extract_slice %[[T]][0, 0, 8] [%{{.*}}, 4, 8] [1, 1, 1]
// CHECK:         moe.pack %[[PART]]
#in = affine_map<(e, k, n) -> (e, n, k)>
#out = affine_map<(e, k, n) -> (e, k, n)>
func.func @views(%x: tensor<?x4xf32>, %o: tensor<4xi32>, %w: tensor<3x2x8x4xf32> {moe.role = "weight", moe.name = "w"}) -> tensor<?x8xf32> {
  %c0 = arith.constant 0 : index
  %two = arith.constant 2.0 : f32
  %t = tensor.dim %x, %c0 : tensor<?x4xf32>
  %e = tensor.empty(%t) : tensor<?x8xf32>
  %one = tensor.collapse_shape %w [[0], [1, 2], [3]] : tensor<3x2x8x4xf32> into tensor<3x16x4xf32>
  %te = tensor.empty() : tensor<3x4x16xf32>
  %tr = linalg.generic {indexing_maps = [#in, #out], iterator_types = ["parallel", "parallel", "parallel"]} ins(%one : tensor<3x16x4xf32>) outs(%te : tensor<3x4x16xf32>) {
  ^bb0(%in: f32, %out: f32):
    %m = arith.mulf %in, %two : f32
    linalg.yield %m : f32
  } -> tensor<3x4x16xf32>
  %part = tensor.extract_slice %tr[0, 0, 8] [3, 4, 8] [1, 1, 1] : tensor<3x4x16xf32> to tensor<3x4x8xf32>
  %y = moe.grouped_matmul %x offsets(%o : tensor<4xi32>) weights(%part : tensor<3x4x8xf32>) outs(%e : tensor<?x8xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// A matrix [n, k], transposed, as that of one expert.
// CHECK-LABEL: func.func @one(
// CHECK-NOT:     linalg.generic
// CHECK:       func.func @one__prepare0(
// CHECK-SAME:    %[[W:.*]]: tensor<?x8x4xf32> {moe.name = "w"})
// CHECK:         %[[T:.*]] = linalg.generic {{.*}} ins(%[[W]] : tensor<?x8x4xf32>) outs(%{{.*}} : tensor<?x4x8xf32>)
// CHECK:         moe.pack %[[T]]
#nk = affine_map<(k, n) -> (n, k)>
#kn = affine_map<(k, n) -> (k, n)>
func.func @one(%x: tensor<?x4xf32>, %o: tensor<2xi32>, %w: tensor<8x4xf32> {moe.role = "weight", moe.name = "w"}) -> tensor<?x8xf32> {
  %c0 = arith.constant 0 : index
  %t = tensor.dim %x, %c0 : tensor<?x4xf32>
  %e = tensor.empty(%t) : tensor<?x8xf32>
  %te = tensor.empty() : tensor<4x8xf32>
  %tr = linalg.generic {indexing_maps = [#nk, #kn], iterator_types = ["parallel", "parallel"]} ins(%w : tensor<8x4xf32>) outs(%te : tensor<4x8xf32>) {
  ^bb0(%in: f32, %out: f32):
    linalg.yield %in : f32
  } -> tensor<4x8xf32>
  %g = tensor.expand_shape %tr [[0, 1], [2]] output_shape [1, 4, 8] : tensor<4x8xf32> into tensor<1x4x8xf32>
  %y = moe.grouped_matmul %x offsets(%o : tensor<2xi32>) weights(%g : tensor<1x4x8xf32>) outs(%e : tensor<?x8xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// The experts are not the first dimension: a part of them cannot be prepared.
// CHECK-LABEL: func.func @across_experts(
// CHECK:         linalg.generic
// CHECK:         moe.pack
#ken = affine_map<(e, k, n) -> (k, e, n)>
func.func @across_experts(%x: tensor<?x4xf32>, %o: tensor<5xi32>, %w: tensor<4x4x8xf32> {moe.role = "weight", moe.name = "w"}) -> tensor<?x8xf32> {
  %c0 = arith.constant 0 : index
  %t = tensor.dim %x, %c0 : tensor<?x4xf32>
  %e = tensor.empty(%t) : tensor<?x8xf32>
  %te = tensor.empty() : tensor<4x4x8xf32>
  %tr = linalg.generic {indexing_maps = [#ken, #out], iterator_types = ["parallel", "parallel", "parallel"]} ins(%w : tensor<4x4x8xf32>) outs(%te : tensor<4x4x8xf32>) {
  ^bb0(%in: f32, %out: f32):
    linalg.yield %in : f32
  } -> tensor<4x4x8xf32>
  %y = moe.grouped_matmul %x offsets(%o : tensor<5xi32>) weights(%tr : tensor<4x4x8xf32>) outs(%e : tensor<?x8xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// CHECK-LABEL: func.func @of_an_input(
// CHECK:         tensor.collapse_shape
// CHECK:         moe.pack
func.func @of_an_input(%x: tensor<?x4xf32>, %o: tensor<4xi32>, %w: tensor<3x4x2x4xf32>) -> tensor<?x8xf32> {
  %c0 = arith.constant 0 : index
  %t = tensor.dim %x, %c0 : tensor<?x4xf32>
  %e = tensor.empty(%t) : tensor<?x8xf32>
  %one = tensor.collapse_shape %w [[0], [1], [2, 3]] : tensor<3x4x2x4xf32> into tensor<3x4x8xf32>
  %y = moe.grouped_matmul %x offsets(%o : tensor<4xi32>) weights(%one : tensor<3x4x8xf32>) outs(%e : tensor<?x8xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}
