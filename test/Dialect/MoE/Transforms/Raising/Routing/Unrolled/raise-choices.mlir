// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-routing | FileCheck %s

// A loop over the choices of a token, unrolled: weights are gathered by a column
// of the ids, and the results are weighed by that column of the weights.

// CHECK-LABEL: func.func @choices(
// CHECK-SAME:      %[[X:.*]]: tensor<?x16xf32>, %[[DOWN:.*]]: tensor<3x24x16xf32>, %{{.*}}: tensor<16x3xf32>, %[[UP:.*]]: tensor<3x16x24xf32>)
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %[[X]], %[[IDS]] experts(3)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<4xi32>) weights(%[[UP]] :
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<4xi32>) weights(%[[DOWN]] :
// CHECK:         %[[SUM:.*]] = moe.combine %[[Y]], %[[PLACES]] weights(%[[W]] :
// CHECK:         return %[[SUM]]

// CHECK-LABEL: func.func @columns(
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate
// CHECK:         moe.dispatch %{{.*}}, %[[IDS]] experts(3)
// CHECK-COUNT-2: moe.grouped_matmul
// CHECK:         moe.combine %{{.*}} weights(%[[W]] :

// The first choice twice; the weights of the other choice; another function;
// the down projection of the first choice in both.
// RUN: sed 's/"stablehlo.dynamic_gather"(%40#1, %60/"stablehlo.dynamic_gather"(%40#1, %43/; s/%ids\[0, 1\]/%ids[0, 0]/' %s | moe-opt - --split-input-file --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/"stablehlo.dynamic_gather"(%40#0, %60/"stablehlo.dynamic_gather"(%40#0, %43/; s/%w\[0, 1\]/%w[0, 0]/' %s | moe-opt - --split-input-file --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/%69 = "stablehlo.tanh"/%69 = "stablehlo.logistic"/; s/%h1 = math.tanh/%h1 = math.exp/' %s | moe-opt - --split-input-file --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/"stablehlo.gather"(%arg6, %66)/"stablehlo.gather"(%arg6, %51)/; s/ins(%h1, %d1/ins(%h1, %d0/' %s | moe-opt - --split-input-file --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE

// NONE:     moe.gate
// NONE-NOT: moe.dispatch
// NONE:     func.func @columns
// NONE-NOT: moe.dispatch

"func.func"() <{function_type = (tensor<?x16xf32>, tensor<3x24x16xf32>, tensor<16x3xf32>, tensor<3x16x24xf32>) -> tensor<?x16xf32>, sym_name = "choices"}> ({
^bb0(%arg5: tensor<?x16xf32>, %arg6: tensor<3x24x16xf32>, %arg7: tensor<16x3xf32>, %arg8: tensor<3x16x24xf32>):
  %16 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %17 = "stablehlo.constant"() <{value = dense<1> : tensor<1xi32>}> : () -> tensor<1xi32>
  %18 = "stablehlo.constant"() <{value = dense<3> : tensor<i32>}> : () -> tensor<i32>
  %19 = "stablehlo.constant"() <{value = dense<3> : tensor<1xi32>}> : () -> tensor<1xi32>
  %20 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %21 = "stablehlo.constant"() <{value = dense<16> : tensor<1xi32>}> : () -> tensor<1xi32>
  %22 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %23 = "stablehlo.constant"() <{value = dense<1> : tensor<i32>}> : () -> tensor<i32>
  %24 = "stablehlo.get_dimension_size"(%arg5) <{dimension = 0 : i64}> : (tensor<?x16xf32>) -> tensor<i32>
  %25 = "stablehlo.dot_general"(%arg5, %arg7) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<?x16xf32>, tensor<16x3xf32>) -> tensor<?x3xf32>
  %26 = "stablehlo.reduce"(%25, %16) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg11: tensor<f32>, %arg12: tensor<f32>):
    %76 = "stablehlo.maximum"(%arg11, %arg12) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%76) : (tensor<f32>) -> ()
  }) : (tensor<?x3xf32>, tensor<f32>) -> tensor<?xf32>
  %27 = "stablehlo.reshape"(%24) : (tensor<i32>) -> tensor<1xi32>
  %28 = "stablehlo.dynamic_broadcast_in_dim"(%16, %27) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<1xi32>) -> tensor<?xf32>
  %29 = "stablehlo.maximum"(%28, %26) : (tensor<?xf32>, tensor<?xf32>) -> tensor<?xf32>
  %30 = "stablehlo.concatenate"(%27, %17) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %31 = "stablehlo.dynamic_broadcast_in_dim"(%29, %30) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xf32>, tensor<2xi32>) -> tensor<?x1xf32>
  %32 = "stablehlo.concatenate"(%27, %19) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %33 = "stablehlo.dynamic_broadcast_in_dim"(%31, %32) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x3xf32>
  %34 = "stablehlo.subtract"(%25, %33) : (tensor<?x3xf32>, tensor<?x3xf32>) -> tensor<?x3xf32>
  %35 = "stablehlo.exponential"(%34) : (tensor<?x3xf32>) -> tensor<?x3xf32>
  %36 = "stablehlo.reduce"(%35, %20) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg9: tensor<f32>, %arg10: tensor<f32>):
    %75 = "stablehlo.add"(%arg9, %arg10) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%75) : (tensor<f32>) -> ()
  }) : (tensor<?x3xf32>, tensor<f32>) -> tensor<?xf32>
  %37 = "stablehlo.dynamic_broadcast_in_dim"(%36, %30) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xf32>, tensor<2xi32>) -> tensor<?x1xf32>
  %38 = "stablehlo.dynamic_broadcast_in_dim"(%37, %32) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x3xf32>
  %39 = "stablehlo.divide"(%35, %38) : (tensor<?x3xf32>, tensor<?x3xf32>) -> tensor<?x3xf32>
  %40:2 = "stablehlo.composite"(%39) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<?x3xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>)
  %41 = "stablehlo.concatenate"(%27, %21) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %42 = "stablehlo.dynamic_broadcast_in_dim"(%20, %41) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<2xi32>) -> tensor<?x16xf32>
  %43 = "stablehlo.broadcast_in_dim"(%22) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<1xi32>
  %44 = "stablehlo.dynamic_gather"(%40#1, %43, %30) <{dimension_numbers = #stablehlo.gather<offset_dims = [0], collapsed_slice_dims = [1], start_index_map = [1]>, indices_are_sorted = true}> : (tensor<?x2xi32>, tensor<1xi32>, tensor<2xi32>) -> tensor<?xi32>
  %45 = "stablehlo.dynamic_gather"(%40#0, %43, %30) <{dimension_numbers = #stablehlo.gather<offset_dims = [0, 1], start_index_map = [1]>, indices_are_sorted = true}> : (tensor<?x2xf32>, tensor<1xi32>, tensor<2xi32>) -> tensor<?x1xf32>
  %46 = "stablehlo.dynamic_broadcast_in_dim"(%22, %27) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %47 = "stablehlo.compare"(%44, %46) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi1>
  %48 = "stablehlo.dynamic_broadcast_in_dim"(%18, %27) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %49 = "stablehlo.add"(%44, %48) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %50 = "stablehlo.select"(%47, %49, %44) : (tensor<?xi1>, tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %51 = "stablehlo.dynamic_broadcast_in_dim"(%50, %30) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xi32>, tensor<2xi32>) -> tensor<?x1xi32>
  %52 = "stablehlo.gather"(%arg8, %51) <{dimension_numbers = #stablehlo.gather<offset_dims = [1, 2], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16, 24>}> : (tensor<3x16x24xf32>, tensor<?x1xi32>) -> tensor<?x16x24xf32>
  %53 = "stablehlo.dot_general"(%arg5, %52) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<?x16xf32>, tensor<?x16x24xf32>) -> tensor<?x24xf32>
  %54 = "stablehlo.tanh"(%53) : (tensor<?x24xf32>) -> tensor<?x24xf32>
  %55 = "stablehlo.gather"(%arg6, %51) <{dimension_numbers = #stablehlo.gather<offset_dims = [1, 2], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 24, 16>}> : (tensor<3x24x16xf32>, tensor<?x1xi32>) -> tensor<?x24x16xf32>
  %56 = "stablehlo.dot_general"(%54, %55) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<?x24xf32>, tensor<?x24x16xf32>) -> tensor<?x16xf32>
  %57 = "stablehlo.dynamic_broadcast_in_dim"(%45, %41) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x16xf32>
  %58 = "stablehlo.multiply"(%57, %56) : (tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x16xf32>
  %59 = "stablehlo.add"(%42, %58) : (tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x16xf32>
  %60 = "stablehlo.broadcast_in_dim"(%23) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<1xi32>
  %61 = "stablehlo.dynamic_gather"(%40#1, %60, %30) <{dimension_numbers = #stablehlo.gather<offset_dims = [0], collapsed_slice_dims = [1], start_index_map = [1]>, indices_are_sorted = true}> : (tensor<?x2xi32>, tensor<1xi32>, tensor<2xi32>) -> tensor<?xi32>
  %62 = "stablehlo.dynamic_gather"(%40#0, %60, %30) <{dimension_numbers = #stablehlo.gather<offset_dims = [0, 1], start_index_map = [1]>, indices_are_sorted = true}> : (tensor<?x2xf32>, tensor<1xi32>, tensor<2xi32>) -> tensor<?x1xf32>
  %63 = "stablehlo.compare"(%61, %46) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi1>
  %64 = "stablehlo.add"(%61, %48) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %65 = "stablehlo.select"(%63, %64, %61) : (tensor<?xi1>, tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %66 = "stablehlo.dynamic_broadcast_in_dim"(%65, %30) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xi32>, tensor<2xi32>) -> tensor<?x1xi32>
  %67 = "stablehlo.gather"(%arg8, %66) <{dimension_numbers = #stablehlo.gather<offset_dims = [1, 2], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16, 24>}> : (tensor<3x16x24xf32>, tensor<?x1xi32>) -> tensor<?x16x24xf32>
  %68 = "stablehlo.dot_general"(%arg5, %67) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<?x16xf32>, tensor<?x16x24xf32>) -> tensor<?x24xf32>
  %69 = "stablehlo.tanh"(%68) : (tensor<?x24xf32>) -> tensor<?x24xf32>
  %70 = "stablehlo.gather"(%arg6, %66) <{dimension_numbers = #stablehlo.gather<offset_dims = [1, 2], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 24, 16>}> : (tensor<3x24x16xf32>, tensor<?x1xi32>) -> tensor<?x24x16xf32>
  %71 = "stablehlo.dot_general"(%69, %70) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<?x24xf32>, tensor<?x24x16xf32>) -> tensor<?x16xf32>
  %72 = "stablehlo.dynamic_broadcast_in_dim"(%62, %41) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x16xf32>
  %73 = "stablehlo.multiply"(%72, %71) : (tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x16xf32>
  %74 = "stablehlo.add"(%59, %73) : (tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x16xf32>
  "func.return"(%74) : (tensor<?x16xf32>) -> ()
}) : () -> ()

// -----

#id = affine_map<(t, i, j) -> (t)>
#all = affine_map<(t, i, j) -> (t, i, j)>
#row = affine_map<(t, j) -> (t)>
#rows = affine_map<(t, j) -> (t, j)>
func.func @columns(%x: tensor<?x16xf32>, %router: tensor<16x3xf32>, %up: tensor<3x16x24xf32>, %down: tensor<3x24x16xf32>) -> tensor<?x16xf32> {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %t = tensor.dim %x, %c0 : tensor<?x16xf32>
  %se = tensor.empty(%t) : tensor<?x3xf32>
  %sz = linalg.fill ins(%zero : f32) outs(%se : tensor<?x3xf32>) -> tensor<?x3xf32>
  %scores = linalg.matmul ins(%x, %router : tensor<?x16xf32>, tensor<16x3xf32>) outs(%sz : tensor<?x3xf32>) -> tensor<?x3xf32>
  %w, %ids = moe.gate %scores top_k(2) score(softmax) : tensor<?x3xf32>

  %i0 = tensor.extract_slice %ids[0, 0] [%t, 1] [1, 1] : tensor<?x2xi32> to tensor<?xi32>
  %g0 = tensor.extract_slice %w[0, 0] [%t, 1] [1, 1] : tensor<?x2xf32> to tensor<?xf32>
  %ue0 = tensor.empty(%t) : tensor<?x16x24xf32>
  %u0 = linalg.generic {indexing_maps = [#id, #all], iterator_types = ["parallel", "parallel", "parallel"]} ins(%i0 : tensor<?xi32>) outs(%ue0 : tensor<?x16x24xf32>) {
  ^bb0(%in: i32, %out: f32):
    %e = arith.index_cast %in : i32 to index
    %i = linalg.index 1 : index
    %j = linalg.index 2 : index
    %v = tensor.extract %up[%e, %i, %j] : tensor<3x16x24xf32>
    linalg.yield %v : f32
  } -> tensor<?x16x24xf32>
  %de0 = tensor.empty(%t) : tensor<?x24x16xf32>
  %d0 = linalg.generic {indexing_maps = [#id, #all], iterator_types = ["parallel", "parallel", "parallel"]} ins(%i0 : tensor<?xi32>) outs(%de0 : tensor<?x24x16xf32>) {
  ^bb0(%in: i32, %out: f32):
    %e = arith.index_cast %in : i32 to index
    %i = linalg.index 1 : index
    %j = linalg.index 2 : index
    %v = tensor.extract %down[%e, %i, %j] : tensor<3x24x16xf32>
    linalg.yield %v : f32
  } -> tensor<?x24x16xf32>
  %he0 = tensor.empty(%t) : tensor<?x24xf32>
  %hz0 = linalg.fill ins(%zero : f32) outs(%he0 : tensor<?x24xf32>) -> tensor<?x24xf32>
  %a0 = linalg.batch_vecmat ins(%x, %u0 : tensor<?x16xf32>, tensor<?x16x24xf32>) outs(%hz0 : tensor<?x24xf32>) -> tensor<?x24xf32>
  %h0 = math.tanh %a0 : tensor<?x24xf32>
  %ye0 = tensor.empty(%t) : tensor<?x16xf32>
  %yz0 = linalg.fill ins(%zero : f32) outs(%ye0 : tensor<?x16xf32>) -> tensor<?x16xf32>
  %y0 = linalg.batch_vecmat ins(%h0, %d0 : tensor<?x24xf32>, tensor<?x24x16xf32>) outs(%yz0 : tensor<?x16xf32>) -> tensor<?x16xf32>

  %i1 = tensor.extract_slice %ids[0, 1] [%t, 1] [1, 1] : tensor<?x2xi32> to tensor<?xi32>
  %g1 = tensor.extract_slice %w[0, 1] [%t, 1] [1, 1] : tensor<?x2xf32> to tensor<?xf32>
  %ue1 = tensor.empty(%t) : tensor<?x16x24xf32>
  %u1 = linalg.generic {indexing_maps = [#id, #all], iterator_types = ["parallel", "parallel", "parallel"]} ins(%i1 : tensor<?xi32>) outs(%ue1 : tensor<?x16x24xf32>) {
  ^bb0(%in: i32, %out: f32):
    %e = arith.index_cast %in : i32 to index
    %i = linalg.index 1 : index
    %j = linalg.index 2 : index
    %v = tensor.extract %up[%e, %i, %j] : tensor<3x16x24xf32>
    linalg.yield %v : f32
  } -> tensor<?x16x24xf32>
  %de1 = tensor.empty(%t) : tensor<?x24x16xf32>
  %d1 = linalg.generic {indexing_maps = [#id, #all], iterator_types = ["parallel", "parallel", "parallel"]} ins(%i1 : tensor<?xi32>) outs(%de1 : tensor<?x24x16xf32>) {
  ^bb0(%in: i32, %out: f32):
    %e = arith.index_cast %in : i32 to index
    %i = linalg.index 1 : index
    %j = linalg.index 2 : index
    %v = tensor.extract %down[%e, %i, %j] : tensor<3x24x16xf32>
    linalg.yield %v : f32
  } -> tensor<?x24x16xf32>
  %he1 = tensor.empty(%t) : tensor<?x24xf32>
  %hz1 = linalg.fill ins(%zero : f32) outs(%he1 : tensor<?x24xf32>) -> tensor<?x24xf32>
  %a1 = linalg.batch_vecmat ins(%x, %u1 : tensor<?x16xf32>, tensor<?x16x24xf32>) outs(%hz1 : tensor<?x24xf32>) -> tensor<?x24xf32>
  %h1 = math.tanh %a1 : tensor<?x24xf32>
  %ye1 = tensor.empty(%t) : tensor<?x16xf32>
  %yz1 = linalg.fill ins(%zero : f32) outs(%ye1 : tensor<?x16xf32>) -> tensor<?x16xf32>
  %y1 = linalg.batch_vecmat ins(%h1, %d1 : tensor<?x24xf32>, tensor<?x24x16xf32>) outs(%yz1 : tensor<?x16xf32>) -> tensor<?x16xf32>

  %oe = tensor.empty(%t) : tensor<?x16xf32>
  %sum = linalg.generic {indexing_maps = [#rows, #row, #rows, #row, #rows], iterator_types = ["parallel", "parallel"]} ins(%y0, %g0, %y1, %g1 : tensor<?x16xf32>, tensor<?xf32>, tensor<?x16xf32>, tensor<?xf32>) outs(%oe : tensor<?x16xf32>) {
  ^bb0(%p: f32, %pw: f32, %q: f32, %qw: f32, %out: f32):
    %pm = arith.mulf %p, %pw : f32
    %qm = arith.mulf %q, %qw : f32
    %s = arith.addf %pm, %qm : f32
    linalg.yield %s : f32
  } -> tensor<?x16xf32>
  return %sum : tensor<?x16xf32>
}
