// RUN: moe-opt %s -moe-tensors-to-linalg | FileCheck %s

// CHECK-LABEL: func.func @softmax(
// CHECK-NOT:     linalg.softmax
// CHECK:         arith.maxnumf
// CHECK:         math.exp
// CHECK:         arith.divf
func.func @softmax(%x: tensor<?x8xf32>, %e: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %z = linalg.softmax dimension(1) ins(%x : tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
  return %z : tensor<?x8xf32>
}

// CHECK-LABEL: func.func @splat(
// CHECK-SAME:    %[[V:.*]]: f32, %[[N:.*]]: index
// CHECK:         %[[E:.*]] = tensor.empty(%[[N]]) : tensor<?x4xf32>
// CHECK:         linalg.fill ins(%[[V]] : f32) outs(%[[E]] : tensor<?x4xf32>)
func.func @splat(%v: f32, %n: index) -> tensor<?x4xf32> {
  %s = tensor.splat %v[%n] : tensor<?x4xf32>
  return %s : tensor<?x4xf32>
}

// CHECK-LABEL: func.func @concat(
// CHECK-COUNT-2: tensor.insert_slice
func.func @concat(%x: tensor<?x4xf32>, %y: tensor<?x2xf32>) -> tensor<?x6xf32> {
  %c = tensor.concat dim(1) %x, %y : (tensor<?x4xf32>, tensor<?x2xf32>) -> tensor<?x6xf32>
  return %c : tensor<?x6xf32>
}

// An index is held to the table.
// CHECK-LABEL: func.func @gather(
// CHECK-SAME:    %[[TABLE:.*]]: tensor<5x4x3xf32>, %[[I:.*]]: tensor<?x2xi32>)
// CHECK:         linalg.generic {{.*}} outs(%{{.*}} : tensor<?x4xf32>)
// CHECK:           %[[T:.*]] = linalg.index 0
// CHECK:           %[[F:.*]] = tensor.extract %[[I]][%[[T]], %c0{{.*}}]
// CHECK:           arith.index_cast %[[F]]
// CHECK-NEXT:      arith.minsi %{{.*}}, %c4
// CHECK-NEXT:      %[[A:.*]] = arith.maxsi %{{.*}}, %c0
// CHECK:           tensor.extract %[[I]][%[[T]], %c1{{.*}}]
// CHECK:           arith.minsi %{{.*}}, %c2
// CHECK-NEXT:      %[[B:.*]] = arith.maxsi %{{.*}}, %c0
// CHECK:           %[[J:.*]] = linalg.index 1
// CHECK:           tensor.extract %[[TABLE]][%[[A]], %[[J]], %[[B]]]
func.func @gather(%table: tensor<5x4x3xf32>, %i: tensor<?x2xi32>) -> tensor<?x4xf32> {
  %y = tensor.gather %table[%i] gather_dims([0, 2]) : (tensor<5x4x3xf32>, tensor<?x2xi32>) -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// CHECK-LABEL: func.func @bits(
// CHECK:         linalg.generic
// CHECK:           arith.bitcast %{{.*}} : f32 to i32
func.func @bits(%x: tensor<?x4xf32>) -> tensor<?x4xi32> {
  %y = tensor.bitcast %x : tensor<?x4xf32> to tensor<?x4xi32>
  return %y : tensor<?x4xi32>
}

// CHECK-LABEL: func.func @select(
// CHECK-SAME:    %[[C:.*]]: i1,
// CHECK:         linalg.generic
// CHECK:           arith.select %[[C]], %{{.*}}, %{{.*}} : f32
func.func @select(%c: i1, %x: tensor<?x4xf32>, %y: tensor<?x4xf32>) -> tensor<?x4xf32> {
  %z = arith.select %c, %x, %y : tensor<?x4xf32>
  return %z : tensor<?x4xf32>
}

// CHECK-LABEL: func.func @pack(
// CHECK-NOT:     linalg.pack
// CHECK:         linalg.transpose
func.func @pack(%x: tensor<8x6xf32>, %e: tensor<2x3x4x2xf32>) -> tensor<2x3x4x2xf32> {
  %y = linalg.pack %x inner_dims_pos = [0, 1] inner_tiles = [4, 2] into %e : tensor<8x6xf32> -> tensor<2x3x4x2xf32>
  return %y : tensor<2x3x4x2xf32>
}

// What goes nowhere is left out.
// CHECK-LABEL: func.func @scatter(
// CHECK-SAME:    %[[X:.*]]: tensor<?x4xf32>, %[[Y:.*]]: tensor<5x4xf32>, %[[I:.*]]: tensor<?x1xi32>)
// CHECK:         scf.for %[[T:.*]] = {{.*}} iter_args(%[[Z:.*]] = %[[Y]])
// CHECK:           %[[N:.*]] = tensor.extract %[[I]][%[[T]], %{{.*}}]
// CHECK:           %[[K:.*]] = arith.index_cast %[[N]]
// CHECK:           %[[C:.*]] = arith.cmpi ult, %[[K]], %c5
// CHECK:           scf.if %[[C]]
// CHECK:             tensor.extract_slice %[[X]][%[[T]], 0] [1, 4] [1, 1] : tensor<?x4xf32> to tensor<4xf32>
// CHECK:             tensor.insert_slice %{{.*}} into %[[Z]][%[[K]], 0] [1, 4] [1, 1]
// CHECK:           } else {
// CHECK:             scf.yield %[[Z]]
func.func @scatter(%x: tensor<?x4xf32>, %y: tensor<5x4xf32>, %i: tensor<?x1xi32>) -> tensor<5x4xf32> {
  %z = tensor.scatter %x into %y[%i] scatter_dims([0]) unique : (tensor<?x4xf32>, tensor<5x4xf32>, tensor<?x1xi32>) -> tensor<5x4xf32>
  return %z : tensor<5x4xf32>
}
