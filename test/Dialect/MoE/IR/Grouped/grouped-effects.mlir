// RUN: moe-opt %s -cse | FileCheck %s --check-prefix=CSE
// RUN: moe-opt %s -canonicalize | FileCheck %s --check-prefix=DCE
// RUN: moe-opt %s -resolve-ranked-shaped-type-result-dims -canonicalize -cse | FileCheck %s --check-prefix=SHAPES

// On tensors the operations with a destination are pure; buffers are read and written.

// CSE-LABEL: func.func @twice(
// CSE:         %[[P:.*]] = moe.pack
// CSE-NOT:     moe.pack
// CSE:         %[[H:.*]] = moe.grouped_matmul
// CSE-NOT:     moe.grouped_matmul
// CSE:         %[[Y:.*]] = moe.gather_sum
// CSE-NOT:     moe.gather_sum
// CSE:         return %[[Y]], %[[Y]]
func.func @twice(%x: tensor<?x4xf32>, %w: tensor<1x4x4xf32>, %n: tensor<?x2xi32>,
                 %e: tensor<1x1x4x4x1xf32>, %o: tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>) {
  %p0 = moe.pack %w panels(<matmuls = 1, columns = 4, depth = 1>) outs(%e : tensor<1x1x4x4x1xf32>) : tensor<1x4x4xf32> -> tensor<1x1x4x4x1xf32>
  %p1 = moe.pack %w panels(<matmuls = 1, columns = 4, depth = 1>) outs(%e : tensor<1x1x4x4x1xf32>) : tensor<1x4x4xf32> -> tensor<1x1x4x4x1xf32>
  %h0 = moe.grouped_matmul %x weights(%p0 : tensor<1x1x4x4x1xf32>) panels(<matmuls = 1, columns = 4, depth = 1>) outs(%o : tensor<?x4xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x4xf32>
  %h1 = moe.grouped_matmul %x weights(%p1 : tensor<1x1x4x4x1xf32>) panels(<matmuls = 1, columns = 4, depth = 1>) outs(%o : tensor<?x4xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x4xf32>
  %y0 = moe.gather_sum %h0, %n outs(%o : tensor<?x4xf32>) : tensor<?x4xf32>, tensor<?x2xi32> -> tensor<?x4xf32>
  %y1 = moe.gather_sum %h1, %n outs(%o : tensor<?x4xf32>) : tensor<?x4xf32>, tensor<?x2xi32> -> tensor<?x4xf32>
  return %y0, %y1 : tensor<?x4xf32>, tensor<?x4xf32>
}

// Epilogues tell products apart.
// CSE-LABEL: func.func @different(
// CSE-COUNT-2: moe.grouped_matmul
func.func @different(%x: tensor<?x4xf32>, %w: tensor<1x4x4xf32>, %o: tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>) {
  %y0 = moe.grouped_matmul %x weights(%w : tensor<1x4x4xf32>) outs(%o : tensor<?x4xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x4xf32>
  %y1 = moe.grouped_matmul %x weights(%w : tensor<1x4x4xf32>) outs(%o : tensor<?x4xf32>) {
  ^bb0(%s: f32):
    %r = arith.negf %s : f32
    moe.yield %r : f32
  } : tensor<?x4xf32> -> tensor<?x4xf32>
  return %y0, %y1 : tensor<?x4xf32>, tensor<?x4xf32>
}

// DCE-LABEL: func.func @unused(
// DCE-NEXT:    return
func.func @unused(%x: tensor<?x4xf32>, %w: tensor<1x4x4xf32>, %n: tensor<?x2xi32>,
                  %e: tensor<1x1x4x4x1xf32>, %o: tensor<?x4xf32>) {
  %p = moe.pack %w panels(<matmuls = 1, columns = 4, depth = 1>) outs(%e : tensor<1x1x4x4x1xf32>) : tensor<1x4x4xf32> -> tensor<1x1x4x4x1xf32>
  %h = moe.grouped_matmul %x weights(%w : tensor<1x4x4xf32>) outs(%o : tensor<?x4xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x4xf32>
  %y = moe.gather_sum %h, %n outs(%o : tensor<?x4xf32>) : tensor<?x4xf32>, tensor<?x2xi32> -> tensor<?x4xf32>
  return
}

// DCE-LABEL: func.func @on_buffers(
// DCE-NEXT:    moe.pack
// DCE-NEXT:    moe.grouped_matmul
// DCE:         moe.gather_sum
// CSE-LABEL: func.func @on_buffers(
// CSE:         moe.pack
// CSE-COUNT-2: moe.gather_sum
func.func @on_buffers(%x: memref<?x4xf32>, %w: memref<1x4x4xf32>, %n: memref<?x2xi32>,
                      %e: memref<1x1x4x4x1xf32>, %o: memref<?x4xf32>) {
  moe.pack %w panels(<matmuls = 1, columns = 4, depth = 1>) outs(%e : memref<1x1x4x4x1xf32>) : memref<1x4x4xf32>
  moe.grouped_matmul %x weights(%w : memref<1x4x4xf32>) outs(%o : memref<?x4xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : memref<?x4xf32>
  moe.gather_sum %x, %n outs(%o : memref<?x4xf32>) : memref<?x4xf32>, memref<?x2xi32>
  moe.gather_sum %x, %n outs(%o : memref<?x4xf32>) : memref<?x4xf32>, memref<?x2xi32>
  return
}

// A load after a write is another load.
// CSE-LABEL: func.func @loads(
// CSE:         %[[A:.*]] = memref.load
// CSE:         moe.gather_sum
// CSE:         %[[B:.*]] = memref.load
// CSE:         return %[[A]], %[[A]], %[[B]]
func.func @loads(%x: memref<?x4xf32>, %n: memref<?x2xi32>, %o: memref<?x4xf32>) -> (f32, f32, f32) {
  %c0 = arith.constant 0 : index
  %a = memref.load %o[%c0, %c0] : memref<?x4xf32>
  %b = memref.load %o[%c0, %c0] : memref<?x4xf32>
  moe.gather_sum %x, %n outs(%o : memref<?x4xf32>) : memref<?x4xf32>, memref<?x2xi32>
  %d = memref.load %o[%c0, %c0] : memref<?x4xf32>
  return %a, %b, %d : f32, f32, f32
}

// Shapes are those of the destination.
// SHAPES-LABEL: func.func @shapes(
// SHAPES-SAME:    %[[R:[a-z0-9]*]]: tensor<?x4xf32>, %[[T:[a-z0-9]*]]: tensor<?x4xf32>, %[[E:[a-z0-9]*]]: tensor<?x1x4x4x1xf32>
// SHAPES-NOT:     moe.
// SHAPES-DAG:     %[[D0:.*]] = tensor.dim %[[R]], %c0
// SHAPES-DAG:     %[[D1:.*]] = tensor.dim %[[T]], %c0
// SHAPES-DAG:     %[[D2:.*]] = tensor.dim %[[E]], %c0
// SHAPES:         return %[[D0]], %[[D1]], %[[D2]]
func.func @shapes(%o: tensor<?x4xf32>, %q: tensor<?x4xf32>, %e: tensor<?x1x4x4x1xf32>, %x: tensor<?x4xf32>,
                  %w: tensor<1x4x4xf32>, %v: tensor<?x4x4xf32>, %n: tensor<?x2xi32>) -> (index, index, index) {
  %c0 = arith.constant 0 : index
  %h = moe.grouped_matmul %x weights(%w : tensor<1x4x4xf32>) outs(%o : tensor<?x4xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x4xf32>
  %y = moe.gather_sum %h, %n outs(%q : tensor<?x4xf32>) : tensor<?x4xf32>, tensor<?x2xi32> -> tensor<?x4xf32>
  %p = moe.pack %v panels(<matmuls = 1, columns = 4, depth = 1>) outs(%e : tensor<?x1x4x4x1xf32>) : tensor<?x4x4xf32> -> tensor<?x1x4x4x1xf32>
  %d0 = tensor.dim %h, %c0 : tensor<?x4xf32>
  %d1 = tensor.dim %y, %c0 : tensor<?x4xf32>
  %d2 = tensor.dim %p, %c0 : tensor<?x1x4x4x1xf32>
  return %d0, %d1, %d2 : index, index, index
}

// CSE-LABEL: func.func @contract(
// CSE:         %[[W:.*]] = moe.grouped_contract
// CSE-NOT:     moe.grouped_contract %{{[a-z0-9]+}}, %{{[a-z0-9]+}} outs
// CSE:         %[[V:.*]] = moe.grouped_contract {{.*}} accumulate
// CSE:         return %[[W]], %[[W]], %[[V]]
// DCE-LABEL: func.func @contract(
// DCE-COUNT-3: moe.grouped_contract
// DCE-NOT:     moe.grouped_contract
// DCE-LABEL: func.func @contract_on_buffers(
func.func @contract(%x: tensor<?x4xf32>, %y: tensor<?x6xf32>, %o: tensor<1x4x6xf32>, %unused_init: tensor<1x6x4xf32>) -> (tensor<1x4x6xf32>, tensor<1x4x6xf32>, tensor<1x4x6xf32>) {
  %a = moe.grouped_contract %x, %y outs(%o : tensor<1x4x6xf32>) : tensor<?x4xf32>, tensor<?x6xf32> -> tensor<1x4x6xf32>
  %b = moe.grouped_contract %x, %y outs(%o : tensor<1x4x6xf32>) : tensor<?x4xf32>, tensor<?x6xf32> -> tensor<1x4x6xf32>
  %c = moe.grouped_contract %x, %y accumulate outs(%o : tensor<1x4x6xf32>) : tensor<?x4xf32>, tensor<?x6xf32> -> tensor<1x4x6xf32>
  %unused = moe.grouped_contract %y, %x outs(%unused_init : tensor<1x6x4xf32>) : tensor<?x6xf32>, tensor<?x4xf32> -> tensor<1x6x4xf32>
  return %a, %b, %c : tensor<1x4x6xf32>, tensor<1x4x6xf32>, tensor<1x4x6xf32>
}

// CSE-LABEL: func.func @contract_on_buffers(
// CSE-COUNT-2: moe.grouped_contract
// DCE:         moe.grouped_contract
func.func @contract_on_buffers(%x: memref<?x4xf32>, %y: memref<?x6xf32>, %o: memref<1x4x6xf32>) {
  moe.grouped_contract %x, %y outs(%o : memref<1x4x6xf32>) : memref<?x4xf32>, memref<?x6xf32>
  moe.grouped_contract %x, %y outs(%o : memref<1x4x6xf32>) : memref<?x4xf32>, memref<?x6xf32>
  return
}
