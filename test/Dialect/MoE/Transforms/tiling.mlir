// RUN: moe-opt %s -transform-interpreter -canonicalize -cse -split-input-file | FileCheck %s

// The tokens of a gate are independent: a tile takes its rows of the logits, the
// noise and the ids, and the whole bias.
// CHECK-LABEL: func.func @gate_for(
// CHECK-SAME:    %[[L:[^:]*]]: tensor<?x8xf32>, %[[B:[^:]*]]: tensor<8xf32>, %[[N:[^:]*]]: tensor<?x8xf32>)
// CHECK:         %[[T:.*]] = tensor.dim %[[L]], %c0
// CHECK:         scf.for %[[I:.*]] = %c0 to %[[T]] step %c4 iter_args(%[[W0:.*]] = %{{.*}}, %[[I0:.*]] = %{{.*}}) -> (tensor<?x2xbf16>, tensor<?x2xi32>)
// CHECK:           %[[SIZE:.*]] = affine.min
// CHECK:           %[[LT:.*]] = tensor.extract_slice %[[L]][%[[I]], 0] [%[[SIZE]], 8] [1, 1]
// CHECK:           %[[NT:.*]] = tensor.extract_slice %[[N]][%[[I]], 0] [%[[SIZE]], 8] [1, 1]
// CHECK:           %[[W:.*]], %[[IDS:.*]] = moe.gate %[[LT]] bias(%[[B]] : tensor<8xf32>) noise(%[[NT]] : tensor<?x8xf32>) top_k(2)
// CHECK-SAME:        score(sigmoid) normalize(<sum>) scale(2.500000e+00) score_type(bf16) : tensor<?x8xf32>
// CHECK:           tensor.insert_slice %[[W]] into %[[W0]][%[[I]], 0] [%[[SIZE]], 2] [1, 1]
// CHECK:           tensor.insert_slice %[[IDS]] into %[[I0]][%[[I]], 0] [%[[SIZE]], 2] [1, 1]
func.func @gate_for(%l: tensor<?x8xf32>, %b: tensor<8xf32>, %n: tensor<?x8xf32>) -> (tensor<?x2xbf16>, tensor<?x2xi32>) {
  %w, %i = moe.gate %l bias(%b : tensor<8xf32>) noise(%n : tensor<?x8xf32>) top_k(2) score(sigmoid)
    normalize(<sum>) scale(2.5) score_type(bf16) : tensor<?x8xf32>
  return %w, %i : tensor<?x2xbf16>, tensor<?x2xi32>
}
module attributes {transform.with_named_sequence} {
  transform.named_sequence @__transform_main(%m: !transform.any_op {transform.readonly}) {
    %g = transform.structured.match ops{["moe.gate"]} in %m : (!transform.any_op) -> !transform.any_op
    %t, %l = transform.structured.tile_using_for %g tile_sizes [4] : (!transform.any_op) -> (!transform.any_op, !transform.any_op)
    transform.yield
  }
}

// -----

// Static tiles have static types; discardable attributes stay.
// CHECK-LABEL: func.func @gate_forall(
// CHECK-SAME:    %[[L:[^:]*]]: tensor<6x8xf32>, %[[G:[^:]*]]: tensor<6x2xi32>)
// CHECK:         scf.forall (%{{.*}}) in (2)
// CHECK:           tensor.extract_slice %[[L]][%{{.*}}, 0] [3, 8] [1, 1]
// CHECK:           %[[GT:.*]] = tensor.extract_slice %[[G]][%{{.*}}, 0] [3, 2] [1, 1]
// CHECK:           moe.gate %{{.*}} ids(%[[GT]] : tensor<3x2xi32>) top_k(2) {my.note} : tensor<3x8xf32>
// CHECK:           scf.forall.in_parallel
// CHECK-NEXT:        tensor.parallel_insert_slice %{{.*}} [3, 2] [1, 1] : tensor<3x2xf32> into tensor<6x2xf32>
// CHECK-NEXT:        tensor.parallel_insert_slice %{{.*}} [3, 2] [1, 1] : tensor<3x2xi32> into tensor<6x2xi32>
func.func @gate_forall(%l: tensor<6x8xf32>, %g: tensor<6x2xi32>) -> (tensor<6x2xf32>, tensor<6x2xi32>) {
  %w, %i = moe.gate %l ids(%g : tensor<6x2xi32>) top_k(2) {my.note} : tensor<6x8xf32>
  return %w, %i : tensor<6x2xf32>, tensor<6x2xi32>
}
module attributes {transform.with_named_sequence} {
  transform.named_sequence @__transform_main(%m: !transform.any_op {transform.readonly}) {
    %g = transform.structured.match ops{["moe.gate"]} in %m : (!transform.any_op) -> !transform.any_op
    %t, %l = transform.structured.tile_using_forall %g tile_sizes [3] : (!transform.any_op) -> (!transform.any_op, !transform.any_op)
    transform.yield
  }
}

// -----

// A combine is tiled over tokens and columns; a tile may need any grouped row.
// CHECK-LABEL: func.func @combine_for(
// CHECK-SAME:    %[[G:[^:]*]]: tensor<?x16xf32>, %[[P:[^:]*]]: tensor<?x2xi32>, %[[W:[^:]*]]: tensor<?x2xf32>, %[[D:[^:]*]]: tensor<?x16xf32>)
// CHECK-DAG:     %[[T:.*]] = tensor.dim %[[P]], %c0
// CHECK:         scf.for %[[I:.*]] = %c0 to %[[T]] step %c4
// CHECK:           scf.for %[[J:.*]] = %c0 to %c16 step %c8
// CHECK-DAG:         %[[SIZE:.*]] = affine.min
// CHECK-DAG:         %[[R:.*]] = tensor.dim %[[G]], %c0
// CHECK:             %[[GT:.*]] = tensor.extract_slice %[[G]][0, %[[J]]] [%[[R]], 8] [1, 1]
// CHECK:             %[[PT:.*]] = tensor.extract_slice %[[P]][%[[I]], 0] [%[[SIZE]], 2] [1, 1]
// CHECK:             %[[WT:.*]] = tensor.extract_slice %[[W]][%[[I]], 0] [%[[SIZE]], 2] [1, 1]
// CHECK:             %[[DT:.*]] = tensor.extract_slice %[[D]][%[[I]], %[[J]]] [%[[SIZE]], 8] [1, 1]
// CHECK:             %[[Y:.*]] = moe.combine %[[GT]], %[[PT]] weights(%[[WT]] : tensor<?x2xf32>) dropped(%[[DT]] : tensor<?x8xf32>)
// CHECK-SAME:          normalize(<sum>) : tensor<?x8xf32>, tensor<?x2xi32>
// CHECK:             tensor.insert_slice %[[Y]] into %{{.*}}[%[[I]], %[[J]]] [%[[SIZE]], 8] [1, 1]
func.func @combine_for(%g: tensor<?x16xf32>, %p: tensor<?x2xi32>, %w: tensor<?x2xf32>, %d: tensor<?x16xf32>) -> tensor<?x16xf32> {
  %y = moe.combine %g, %p weights(%w : tensor<?x2xf32>) dropped(%d : tensor<?x16xf32>) normalize(<sum>)
    : tensor<?x16xf32>, tensor<?x2xi32>
  return %y : tensor<?x16xf32>
}
module attributes {transform.with_named_sequence} {
  transform.named_sequence @__transform_main(%m: !transform.any_op {transform.readonly}) {
    %c = transform.structured.match ops{["moe.combine"]} in %m : (!transform.any_op) -> !transform.any_op
    %t, %l:2 = transform.structured.tile_using_for %c tile_sizes [4, 8] : (!transform.any_op) -> (!transform.any_op, !transform.any_op, !transform.any_op)
    transform.yield
  }
}

// -----

// Over columns only, and without the optional operands.
// CHECK-LABEL: func.func @combine_forall(
// CHECK-SAME:    %[[G:[^:]*]]: tensor<?x16xf32>, %[[P:[^:]*]]: tensor<?x2xi32>)
// CHECK:         scf.forall (%{{.*}}) in (2)
// CHECK:           moe.combine %{{.*}}, %{{.*}} : tensor<?x8xf32>, tensor<?x2xi32>
func.func @combine_forall(%g: tensor<?x16xf32>, %p: tensor<?x2xi32>) -> tensor<?x16xf32> {
  %y = moe.combine %g, %p : tensor<?x16xf32>, tensor<?x2xi32>
  return %y : tensor<?x16xf32>
}
module attributes {transform.with_named_sequence} {
  transform.named_sequence @__transform_main(%m: !transform.any_op {transform.readonly}) {
    %c = transform.structured.match ops{["moe.combine"]} in %m : (!transform.any_op) -> !transform.any_op
    %t, %l = transform.structured.tile_using_forall %c tile_sizes [0, 8] : (!transform.any_op) -> (!transform.any_op, !transform.any_op)
    transform.yield
  }
}

// -----

// A combine is fused into the loop of what reads it.
// CHECK-LABEL: func.func @fused(
// CHECK:         scf.forall
// CHECK:           %[[Y:.*]] = moe.combine %{{.*}}, %{{.*}} : tensor<?x8xf32>, tensor<?x2xi32>
// CHECK:           linalg.exp ins(%[[Y]] : tensor<?x8xf32>)
func.func @fused(%g: tensor<?x16xf32>, %p: tensor<?x2xi32>, %out: tensor<?x16xf32>) -> tensor<?x16xf32> {
  %y = moe.combine %g, %p : tensor<?x16xf32>, tensor<?x2xi32>
  %z = linalg.exp ins(%y : tensor<?x16xf32>) outs(%out : tensor<?x16xf32>) -> tensor<?x16xf32>
  return %z : tensor<?x16xf32>
}
module attributes {transform.with_named_sequence} {
  transform.named_sequence @__transform_main(%m: !transform.any_op {transform.readonly}) {
    %e = transform.structured.match ops{["linalg.exp"]} in %m : (!transform.any_op) -> !transform.any_op
    %c = transform.structured.match ops{["moe.combine"]} in %m : (!transform.any_op) -> !transform.any_op
    %t, %l = transform.structured.tile_using_forall %e tile_sizes [4, 8] : (!transform.any_op) -> (!transform.any_op, !transform.any_op)
    %f, %n = transform.structured.fuse_into_containing_op %c into %l : (!transform.any_op, !transform.any_op) -> (!transform.any_op, !transform.any_op)
    transform.yield
  }
}
