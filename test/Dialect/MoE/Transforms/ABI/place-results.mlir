// RUN: moe-opt %s -moe-place-results -split-input-file | FileCheck %s

// The buffer takes the place of the empty tensor, through operations that overwrite
// it one after the other.
// CHECK-LABEL: func.func @placed(
// CHECK-SAME:    %[[X:.*]]: tensor<?x4xf32>, %[[Y:.*]]: memref<?x4xf32>)
// CHECK:         %[[PLACE:.*]] = bufferization.to_tensor %[[Y]] restrict writable
// CHECK:         %[[FILLED:.*]] = linalg.fill {{.*}} outs(%[[PLACE]]
// CHECK:         linalg.add {{.*}} outs(%[[FILLED]]
func.func @placed(%x: tensor<?x4xf32>, %y: memref<?x4xf32>) {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %n = tensor.dim %x, %c0 : tensor<?x4xf32>
  %e = tensor.empty(%n) : tensor<?x4xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x4xf32>) -> tensor<?x4xf32>
  %r = linalg.add ins(%x, %x : tensor<?x4xf32>, tensor<?x4xf32>) outs(%f : tensor<?x4xf32>) -> tensor<?x4xf32>
  bufferization.materialize_in_destination %r in restrict writable %y : (tensor<?x4xf32>, memref<?x4xf32>) -> ()
  return
}

// -----

// A view of the buffer is made before.
// CHECK-LABEL: func.func @view(
// CHECK:         %[[PART:.*]] = memref.subview
// CHECK:         %[[PLACE:.*]] = bufferization.to_tensor %[[PART]] restrict writable
// CHECK:         linalg.add {{.*}} outs(%[[PLACE]]
func.func @view(%x: tensor<2x4xf32>, %y: memref<8x4xf32>, %at: index) {
  %e = tensor.empty() : tensor<2x4xf32>
  %r = linalg.add ins(%x, %x : tensor<2x4xf32>, tensor<2x4xf32>) outs(%e : tensor<2x4xf32>) -> tensor<2x4xf32>
  %part = memref.subview %y[%at, 0] [2, 4] [1, 1] : memref<8x4xf32> to memref<2x4xf32, strided<[4, 1], offset: ?>>
  bufferization.materialize_in_destination %r in restrict writable %part : (tensor<2x4xf32>, memref<2x4xf32, strided<[4, 1], offset: ?>>) -> ()
  return
}

// -----

// Two results of one operation each have their own place, one result in two places
// has the first.
// CHECK-LABEL: func.func @several(
// CHECK-SAME:    %{{.*}}: tensor<4xf32>, %[[A:.*]]: memref<4xf32>, %[[B:.*]]: memref<4xf32>, %[[C:.*]]: memref<4xf32>)
// CHECK-DAG:     %[[PA:.*]] = bufferization.to_tensor %[[A]] restrict writable
// CHECK-DAG:     %[[PB:.*]] = bufferization.to_tensor %[[B]] restrict writable
// CHECK-NOT:     bufferization.to_tensor %[[C]]
// CHECK:         outs(%[[PA]], %[[PB]]
#id = affine_map<(i) -> (i)>
func.func @several(%x: tensor<4xf32>, %a: memref<4xf32>, %b: memref<4xf32>, %c: memref<4xf32>) {
  %e = tensor.empty() : tensor<4xf32>
  %r:2 = linalg.generic {indexing_maps = [#id, #id, #id], iterator_types = ["parallel"]}
      ins(%x : tensor<4xf32>) outs(%e, %e : tensor<4xf32>, tensor<4xf32>) {
  ^bb0(%v: f32, %o: f32, %p: f32):
    %n = arith.negf %v : f32
    linalg.yield %v, %n : f32, f32
  } -> (tensor<4xf32>, tensor<4xf32>)
  bufferization.materialize_in_destination %r#0 in restrict writable %a : (tensor<4xf32>, memref<4xf32>) -> ()
  bufferization.materialize_in_destination %r#1 in restrict writable %b : (tensor<4xf32>, memref<4xf32>) -> ()
  bufferization.materialize_in_destination %r#1 in restrict writable %c : (tensor<4xf32>, memref<4xf32>) -> ()
  return
}

// -----

// Not where the buffer has other uses, where somebody else reads what is overwritten,
// where the destination holds something, where it was converted, nor where the buffer
// is not there yet.
// CHECK-LABEL: func.func @left(
// CHECK-NOT:     bufferization.to_tensor %{{.*}} restrict writable
func.func @left(%x: tensor<4xf32>, %a: memref<4xf32>, %b: memref<4xf32>, %c: memref<4xf32>, %d: memref<4xf32>, %i: memref<1xindex>, %many: memref<8x4xf32>) -> (f32, tensor<4xf32>) {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<4xf32>
  %r = linalg.add ins(%x, %x : tensor<4xf32>, tensor<4xf32>) outs(%e : tensor<4xf32>) -> tensor<4xf32>
  %v = memref.load %a[%c0] : memref<4xf32>
  bufferization.materialize_in_destination %r in restrict writable %a : (tensor<4xf32>, memref<4xf32>) -> ()
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<4xf32>) -> tensor<4xf32>
  %s = linalg.add ins(%x, %x : tensor<4xf32>, tensor<4xf32>) outs(%f : tensor<4xf32>) -> tensor<4xf32>
  bufferization.materialize_in_destination %s in restrict writable %b : (tensor<4xf32>, memref<4xf32>) -> ()
  %t = linalg.add ins(%x, %x : tensor<4xf32>, tensor<4xf32>) outs(%x : tensor<4xf32>) -> tensor<4xf32>
  bufferization.materialize_in_destination %t in restrict writable %c : (tensor<4xf32>, memref<4xf32>) -> ()
  bufferization.materialize_in_destination %x in restrict writable %d : (tensor<4xf32>, memref<4xf32>) -> ()
  %u = linalg.add ins(%x, %x : tensor<4xf32>, tensor<4xf32>) outs(%e : tensor<4xf32>) -> tensor<4xf32>
  %at = memref.load %i[%c0] : memref<1xindex>
  %part = memref.subview %many[%at, 0] [1, 4] [1, 1] : memref<8x4xf32> to memref<4xf32, strided<[1], offset: ?>>
  bufferization.materialize_in_destination %u in restrict writable %part : (tensor<4xf32>, memref<4xf32, strided<[1], offset: ?>>) -> ()
  return %v, %f : f32, tensor<4xf32>
}

// -----

// Nor where the result is read later, or the place is written in some cases only.
// CHECK-LABEL: func.func @later(
// CHECK-NOT:     bufferization.to_tensor %{{.*}} restrict writable
func.func @later(%x: tensor<4xf32>, %a: memref<4xf32>, %b: memref<4xf32>, %c: i1) -> tensor<4xf32> {
  %e = tensor.empty() : tensor<4xf32>
  %r = linalg.add ins(%x, %x : tensor<4xf32>, tensor<4xf32>) outs(%e : tensor<4xf32>) -> tensor<4xf32>
  bufferization.materialize_in_destination %r in restrict writable %a : (tensor<4xf32>, memref<4xf32>) -> ()
  %s = linalg.exp ins(%x : tensor<4xf32>) outs(%r : tensor<4xf32>) -> tensor<4xf32>
  scf.if %c {
    bufferization.materialize_in_destination %s in restrict writable %b : (tensor<4xf32>, memref<4xf32>) -> ()
  }
  return %s : tensor<4xf32>
}

// -----

// Each part of a result is computed in its part of the buffer.
// CHECK-LABEL: func.func @parts(
// CHECK-SAME:    %{{.*}}: tensor<4xf32>, %[[Y:.*]]: memref<2x4xf32>)
// CHECK-DAG:     %[[FIRST:.*]] = memref.subview %[[Y]][0, 0] [1, 4] [1, 1] : {{.*}} to memref<4xf32, strided<[1]>>
// CHECK-DAG:     %[[A:.*]] = bufferization.to_tensor %[[FIRST]] restrict writable
// CHECK-DAG:     %[[SECOND:.*]] = memref.subview %[[Y]][1, 0] [1, 4] [1, 1]
// CHECK-DAG:     %[[B:.*]] = bufferization.to_tensor %[[SECOND]] restrict writable
// CHECK-DAG:     linalg.exp {{.*}} outs(%[[A]]
// CHECK-DAG:     linalg.add {{.*}} outs(%[[B]]
// CHECK-NOT:     tensor.insert_slice
func.func @parts(%x: tensor<4xf32>, %y: memref<2x4xf32>) {
  %e = tensor.empty() : tensor<4xf32>
  %a = linalg.exp ins(%x : tensor<4xf32>) outs(%e : tensor<4xf32>) -> tensor<4xf32>
  %b = linalg.add ins(%x, %x : tensor<4xf32>, tensor<4xf32>) outs(%e : tensor<4xf32>) -> tensor<4xf32>
  %whole = tensor.empty() : tensor<2x4xf32>
  %one = tensor.insert_slice %a into %whole[0, 0] [1, 4] [1, 1] : tensor<4xf32> into tensor<2x4xf32>
  %two = tensor.insert_slice %b into %one[1, 0] [1, 4] [1, 1] : tensor<4xf32> into tensor<2x4xf32>
  bufferization.materialize_in_destination %two in restrict writable %y : (tensor<2x4xf32>, memref<2x4xf32>) -> ()
  return
}

// -----

// Not where parts overlap, where there is something between them, or where somebody reads the first part alone.
// CHECK-LABEL: func.func @no_parts(
// CHECK-NOT:     memref.subview
func.func @no_parts(%x: tensor<4xf32>, %f: tensor<8xf32>, %a: memref<8xf32>, %b: memref<8xf32>, %c: memref<8xf32>) -> tensor<8xf32> {
  %whole = tensor.empty() : tensor<8xf32>
  %a1 = tensor.insert_slice %x into %whole[0] [4] [1] : tensor<4xf32> into tensor<8xf32>
  %a2 = tensor.insert_slice %x into %a1[3] [4] [1] : tensor<4xf32> into tensor<8xf32>
  bufferization.materialize_in_destination %a2 in restrict writable %a : (tensor<8xf32>, memref<8xf32>) -> ()
  %b1 = tensor.insert_slice %x into %f[4] [4] [1] : tensor<4xf32> into tensor<8xf32>
  bufferization.materialize_in_destination %b1 in restrict writable %b : (tensor<8xf32>, memref<8xf32>) -> ()
  %c1 = tensor.insert_slice %x into %f[0] [4] [1] : tensor<4xf32> into tensor<8xf32>
  %c2 = tensor.insert_slice %x into %c1[4] [4] [1] : tensor<4xf32> into tensor<8xf32>
  bufferization.materialize_in_destination %c2 in restrict writable %c : (tensor<8xf32>, memref<8xf32>) -> ()
  return %c1 : tensor<8xf32>
}

// -----

// A tensor that is only expanded is computed in the buffer, collapsed likewise.
// CHECK-LABEL: func.func @expanded(
// CHECK-SAME:    %{{.*}}: tensor<?x4xf32>, %[[Y:.*]]: memref<?x2x4xf32>, %{{.*}}: index)
// CHECK:         %[[ROWS:.*]] = memref.collapse_shape %[[Y]] {{\[\[}}0, 1], [2]]
// CHECK:         %[[PLACE:.*]] = bufferization.to_tensor %[[ROWS]] restrict writable
// CHECK:         %[[SUM:.*]] = linalg.add {{.*}} outs(%[[PLACE]]
// CHECK-NOT:     expand_shape
// CHECK:         materialize_in_destination %[[SUM]] in restrict writable %[[ROWS]]
func.func @expanded(%x: tensor<?x4xf32>, %y: memref<?x2x4xf32>, %t: index) {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x4xf32>
  %e = tensor.empty(%n) : tensor<?x4xf32>
  %r = linalg.add ins(%x, %x : tensor<?x4xf32>, tensor<?x4xf32>) outs(%e : tensor<?x4xf32>) -> tensor<?x4xf32>
  %s = tensor.expand_shape %r [[0, 1], [2]] output_shape [%t, 2, 4] : tensor<?x4xf32> into tensor<?x2x4xf32>
  bufferization.materialize_in_destination %s in restrict writable %y : (tensor<?x2x4xf32>, memref<?x2x4xf32>) -> ()
  return
}

// -----

// Rows of a part of a buffer are not collapsible.
// CHECK-LABEL: func.func @strided(
// CHECK:         tensor.expand_shape
func.func @strided(%x: tensor<4x4xf32>, %y: memref<2x2x4xf32, strided<[16, 4, 1]>>) {
  %e = tensor.empty() : tensor<4x4xf32>
  %r = linalg.add ins(%x, %x : tensor<4x4xf32>, tensor<4x4xf32>) outs(%e : tensor<4x4xf32>) -> tensor<4x4xf32>
  %s = tensor.expand_shape %r [[0, 1], [2]] output_shape [2, 2, 4] : tensor<4x4xf32> into tensor<2x2x4xf32>
  bufferization.materialize_in_destination %s in restrict writable %y : (tensor<2x2x4xf32>, memref<2x2x4xf32, strided<[16, 4, 1]>>) -> ()
  return
}

// -----

// Nothing is computed in a view of a buffer that is read until then: not in one that a part
// or a collapsed destination is, either.
// CHECK-LABEL: func.func @read(
// CHECK-NOT:     bufferization.to_tensor %{{.*}} restrict writable
func.func @read(%x: tensor<8xf32>, %w: tensor<4xf32>, %a: memref<2x4xf32>, %b: memref<2x4xf32>) -> (f32, tensor<2x4xf32>) {
  %c0 = arith.constant 0 : index
  %before = bufferization.to_tensor %b restrict : memref<2x4xf32> to tensor<2x4xf32>
  %e = tensor.empty() : tensor<8xf32>
  %r = linalg.add ins(%x, %x : tensor<8xf32>, tensor<8xf32>) outs(%e : tensor<8xf32>) -> tensor<8xf32>
  %v = memref.load %a[%c0, %c0] : memref<2x4xf32>
  %s = tensor.expand_shape %r [[0, 1]] output_shape [2, 4] : tensor<8xf32> into tensor<2x4xf32>
  bufferization.materialize_in_destination %s in restrict writable %a : (tensor<2x4xf32>, memref<2x4xf32>) -> ()
  %f = tensor.empty() : tensor<4xf32>
  %p = linalg.exp ins(%w : tensor<4xf32>) outs(%f : tensor<4xf32>) -> tensor<4xf32>
  %q = linalg.add ins(%w, %w : tensor<4xf32>, tensor<4xf32>) outs(%f : tensor<4xf32>) -> tensor<4xf32>
  %g = tensor.empty() : tensor<2x4xf32>
  %z = linalg.exp ins(%before : tensor<2x4xf32>) outs(%g : tensor<2x4xf32>) -> tensor<2x4xf32>
  %one = tensor.insert_slice %p into %g[0, 0] [1, 4] [1, 1] : tensor<4xf32> into tensor<2x4xf32>
  %two = tensor.insert_slice %q into %one[1, 0] [1, 4] [1, 1] : tensor<4xf32> into tensor<2x4xf32>
  bufferization.materialize_in_destination %two in restrict writable %b : (tensor<2x4xf32>, memref<2x4xf32>) -> ()
  return %v, %z : f32, tensor<2x4xf32>
}
