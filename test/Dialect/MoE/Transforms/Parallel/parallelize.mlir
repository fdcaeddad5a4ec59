// RUN: moe-opt %s -split-input-file --moe-parallelize="slots=4 replicas=2" | FileCheck %s

// Without experts nothing changes.
// CHECK-LABEL: func.func @gate_alone(
// CHECK-SAME:    %{{[a-z0-9]+}}: tensor<?x8xf32>) ->
// CHECK-NOT:     moe.all_gather
func.func @gate_alone(%l: tensor<?x8xf32>) -> tensor<?x2xf32> {
  %w, %ids = moe.gate %l top_k(2) : tensor<?x8xf32>
  return %w : tensor<?x2xf32>
}

// -----

// What a capacity drops is decided for the tokens of all ranks; the dispatch on
// the rank of the experts has none. The weights of the rows travel along.
// CHECK-LABEL: func.func @capacity(
// CHECK-SAME:    %[[PLACEMENT:[a-z0-9]+]]: tensor<8x2xi32>
// CHECK-SAME:    moe.parallel = #moe.parallel<slots = 4, replicas = 2>
// CHECK:         %[[ALL:.*]] = moe.all_gather %[[IDS:.*]] : tensor<?x2xi32>
// CHECK:         %[[ALL_WEIGHTS:.*]] = moe.all_gather %{{.*}} : tensor<?x2xf32>
// CHECK:         %[[KEPT:.*]] = moe.keep %[[ALL]] weights(%[[ALL_WEIGHTS]] : tensor<?x2xf32>) experts(8) capacity(<fixed = 5>) priority(probability)
// CHECK:         %[[OWN:.*]] = moe.own_rows %[[KEPT]]
// CHECK:         moe.place %[[OWN]], %[[PLACEMENT]]
// CHECK:         %[[ROWS:.*]]:3, %{{.*}} = moe.exchange
// CHECK:         moe.dispatch %[[ROWS]]#0, %[[ROWS]]#1 weights(%[[ROWS]]#2 : tensor<?x2xf32>) experts(4) scale_rows
func.func @capacity(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>, %w: tensor<?x2xf32>) -> tensor<?x16xf32> {
  %rows, %offsets, %positions = moe.dispatch %x, %ids weights(%w : tensor<?x2xf32>) experts(8) capacity(<fixed = 5>) priority(probability) scale_rows : tensor<?x16xf32>, tensor<?x2xi32>
  %o = moe.combine %rows, %positions : tensor<?x16xf32>, tensor<?x2xi32>
  return %o : tensor<?x16xf32>
}

// -----

// Experts choose among the tokens of all ranks.
// CHECK-LABEL: func.func @expert_choice(
// CHECK:         %[[ALL:.*]] = moe.all_gather %{{.*}} : tensor<?x8xf32>
// CHECK:         %[[WEIGHTS:.*]], %[[IDS:.*]] = moe.gate %[[ALL]]
// CHECK-DAG:     moe.own_rows %[[WEIGHTS]]
// CHECK-DAG:     moe.own_rows %[[IDS]]
func.func @expert_choice(%x: tensor<?x16xf32>, %l: tensor<?x8xf32>) -> tensor<?x16xf32> {
  %w, %ids = moe.gate %l top_k(8) select(expert_choice) capacity(<factor = 2.0>) : tensor<?x8xf32>
  %rows, %offsets, %positions = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x8xi32>
  %o = moe.combine %rows, %positions weights(%w : tensor<?x8xf32>) : tensor<?x16xf32>, tensor<?x8xi32>
  return %o : tensor<?x16xf32>
}

// -----

// Parameters are narrowed through what computes them for each expert; a vector
// of as many elements as experts that is shared by all stays.
// CHECK-LABEL: func.func @computed(
// CHECK-SAME:    %[[W:[a-z0-9]+]]: tensor<4x16x8xf32> {moe.experts = 8 : i64}, %[[B:[a-z0-9]+]]: tensor<8xf32>,
// CHECK:         tensor.extract_slice %[[W]][0, 0, 0] [4, 8, 8] [1, 1, 1] : tensor<4x16x8xf32> to tensor<4x8x8xf32>
// CHECK:         linalg.generic {{.*}} ins(%{{.*}}, %[[B]] : tensor<4x8x8xf32>, tensor<8xf32>)
func.func @computed(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>, %w: tensor<8x16x8xf32>, %b: tensor<8xf32>) -> tensor<?x16xf32> {
  %rows, %offsets, %positions = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x2xi32>
  %half = tensor.extract_slice %w[0, 0, 0] [8, 8, 8] [1, 1, 1] : tensor<8x16x8xf32> to tensor<8x8x8xf32>
  %e = tensor.empty() : tensor<8x8x8xf32>
  %sum = linalg.generic {indexing_maps = [affine_map<(e, i, j) -> (e, i, j)>, affine_map<(e, i, j) -> (j)>, affine_map<(e, i, j) -> (e, i, j)>],
                         iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%half, %b : tensor<8x8x8xf32>, tensor<8xf32>) outs(%e : tensor<8x8x8xf32>) {
  ^bb0(%p: f32, %q: f32, %r: f32):
    %s = arith.addf %p, %q : f32
    linalg.yield %s : f32
  } -> tensor<8x8x8xf32>
  %y = moe.expert %rows, %offsets params(%sum : tensor<8x8x8xf32>) {
  ^bb0(%r: tensor<?x16xf32>, %v: tensor<8x8xf32>):
    moe.yield %r : tensor<?x16xf32>
  } : tensor<?x16xf32>, tensor<9xi32> -> tensor<?x16xf32>
  %o = moe.combine %y, %positions : tensor<?x16xf32>, tensor<?x2xi32>
  return %o : tensor<?x16xf32>
}

// -----

// Of experts of several kinds those of the largest range travel; the others,
// here zero and copy experts, run where the tokens are. The combine reads the
// rows of both.
// CHECK-LABEL: func.func @kinds(
// CHECK-SAME:    tensor<4x16x16xf32> {moe.experts = 6 : i64}, %[[PLACEMENT:[a-z0-9]+]]: tensor<6x2xi32>
// CHECK:         %[[SPREAD:.*]] = linalg.generic
// CHECK:         %[[HERE:.*]] = linalg.generic
// CHECK:         %[[GROUPED:.*]], %[[OFFSETS:.*]], %[[OTHERS:.*]] = moe.dispatch %{{.*}}, %[[HERE]] experts(8)
// CHECK:         moe.place %[[SPREAD]], %[[PLACEMENT]]
// CHECK:         moe.exchange
// CHECK:         %[[LOCAL:.*]], %[[LOCAL_OFFSETS:.*]], %{{.*}} = moe.dispatch {{.*}} experts(4)
// CHECK:         %[[ZERO:.*]] = linalg.fill
// CHECK:         moe.expert %[[LOCAL]], %[[LOCAL_OFFSETS]] params(%{{.*}}) count(4) {
// CHECK:         %[[COPY:.*]] = moe.expert %[[GROUPED]], %[[OFFSETS]] init(%[[ZERO]] : tensor<?x16xf32>) first(7) count(1)
// CHECK:         %[[CAME:.*]] = tensor.collapse_shape
// CHECK:         %[[ROWS:.*]] = tensor.concat dim(0) %[[CAME]], %[[COPY]]
// CHECK:         %[[POSITIONS:.*]] = linalg.generic {{.*}} ins(%{{.*}}, %[[OTHERS]]
// CHECK:         moe.combine %[[ROWS]], %[[POSITIONS]]
func.func @kinds(%x: tensor<?x16xf32>, %l: tensor<?x8xf32>, %w: tensor<6x16x16xf32>) -> tensor<?x16xf32> {
  %weights, %ids = moe.gate %l top_k(2) : tensor<?x8xf32>
  %rows, %offsets, %positions = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x2xi32>
  %y = moe.expert %rows, %offsets params(%w : tensor<6x16x16xf32>) first(1) count(6) uncovered(zero) {
  ^bb0(%r: tensor<?x16xf32>, %v: tensor<16x16xf32>):
    %p = linalg.matmul ins(%r, %v : tensor<?x16xf32>, tensor<16x16xf32>) outs(%r : tensor<?x16xf32>) -> tensor<?x16xf32>
    moe.yield %p : tensor<?x16xf32>
  } : tensor<?x16xf32>, tensor<9xi32> -> tensor<?x16xf32>
  %z = moe.expert %rows, %offsets init(%y : tensor<?x16xf32>) first(7) count(1) {
  ^bb0(%r: tensor<?x16xf32>):
    moe.yield %r : tensor<?x16xf32>
  } : tensor<?x16xf32>, tensor<9xi32> -> tensor<?x16xf32>
  %o = moe.combine %z, %positions weights(%weights : tensor<?x2xf32>) : tensor<?x16xf32>, tensor<?x2xi32>
  return %o : tensor<?x16xf32>
}
