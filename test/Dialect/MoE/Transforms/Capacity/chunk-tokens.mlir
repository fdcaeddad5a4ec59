// RUN: moe-opt %s -moe-export -moe-chunk-tokens=chunk=3 -canonicalize -cse | FileCheck %s
// Without a chunk it is only said that there could be one, in which tokens may be
// left out.
// RUN: moe-opt %s -moe-export -moe-chunk-tokens | FileCheck %s --check-prefix=WHOLE --implicit-check-not=scf.for
// WHOLE:      func.func @layer(
// WHOLE-SAME: attributes {moe.independent_tokens,
// WHOLE:      func.func @gate(
// WHOLE-SAME: attributes {moe.independent_tokens,

// The rows of each chunk are read and written where they are; offsets and counters
// are summed. (Ids that a gate was given have counters.)
// CHECK-LABEL: func.func @layer(
// CHECK-SAME:    %[[L:[a-z0-9]+]]: tensor<?x4xf32> {{[^%]*}}, %[[X:[a-z0-9]+]]: tensor<?x6xf32> {{[^%]*}}, %{{[a-z0-9]+}}: tensor<?x2xi32> {{[^%]*}}, %[[Y:[a-z0-9]+]]: memref<?x6xf32>, %[[O:[a-z0-9]+]]: memref<5xi32>, %[[C:[a-z0-9]+]]: memref<2xi64>
// CHECK:         %[[T:.*]] = tensor.dim %[[L]], %c0
// CHECK:         %[[SUMS:.*]]:2 = scf.for %[[I:.*]] = %c0 to %[[T]] step %c3 iter_args(%[[A:.*]] = %{{.*}}, %[[B:.*]] = %{{.*}}) -> (tensor<5xi32>, tensor<2xi64>)
// CHECK:           %[[LEFT:.*]] = arith.subi %[[T]], %[[I]]
// CHECK:           %[[MOST:.*]] = arith.minsi %[[T]], %c3
// CHECK:           %[[N:.*]] = arith.minsi %[[MOST]], %[[LEFT]]
// CHECK:           %[[LS:.*]] = tensor.extract_slice %[[L]][%[[I]], 0] [%[[N]], 4] [1, 1]
// CHECK:           %[[XS:.*]] = tensor.extract_slice %[[X]][%[[I]], 0] [%[[N]], 6] [1, 1]
// CHECK:           %[[YS:.*]] = memref.subview %[[Y]][%[[I]], 0] [%[[N]], 6] [1, 1]
// CHECK:           moe.gate %[[LS]]
// CHECK:           %{{.*}}, %[[OS:.*]], %{{.*}} = moe.dispatch %[[XS]]
// CHECK:           bufferization.materialize_in_destination %{{.*}} in restrict writable %[[YS]]
// CHECK:           linalg.add ins(%[[A]], %[[OS]] : tensor<5xi32>, tensor<5xi32>) outs(%[[A]]
// CHECK:           linalg.add ins(%[[B]], %{{.*}} : tensor<2xi64>, tensor<2xi64>) outs(%[[B]]
// CHECK:         bufferization.materialize_in_destination %[[SUMS]]#0 in restrict writable %[[O]]
// CHECK:         bufferization.materialize_in_destination %[[SUMS]]#1 in restrict writable %[[C]]
func.func @layer(%l: tensor<?x4xf32>, %x: tensor<?x6xf32>, %given: tensor<?x2xi32>) -> tensor<?x6xf32> {
  %weights, %ids = moe.gate %l ids(%given : tensor<?x2xi32>) top_k(2) : tensor<?x4xf32>
  %g, %o, %p = moe.dispatch %x, %ids experts(4) : tensor<?x6xf32>, tensor<?x2xi32>
  %y = moe.combine %g, %p weights(%weights : tensor<?x2xf32>) : tensor<?x6xf32>, tensor<?x2xi32>
  return %y : tensor<?x6xf32>
}

// No reports, no sums.
// CHECK-LABEL: func.func @gate(
// CHECK:         scf.for
// CHECK-NOT:     iter_args
// CHECK:           moe.gate
func.func @gate(%l: tensor<?x4xf32>) -> tensor<?x2xf32> {
  %weights, %ids = moe.gate %l top_k(2) : tensor<?x4xf32>
  return %weights : tensor<?x2xf32>
}
