// RUN: moe-opt %s -split-input-file --moe-parallelize="slots=4 reduce=per_rank" | FileCheck %s --check-prefix=SUMS
// RUN: moe-opt %s -split-input-file --moe-parallelize="slots=4 scope=rank" | FileCheck %s --check-prefix=RANK

// The weights leave with the tokens; each token with a slot brings home one
// row of a rank, and at home no weights are left.
// SUMS-LABEL: func.func @choices(
// SUMS-SAME:    %[[W:[a-z0-9]+]]: tensor<?x2xf32>
// SUMS-SAME:    moe.parallel = #moe.parallel<slots = 4, reduce = per_rank>
// SUMS:         %[[SLOTS:.*]] = moe.place
// SUMS:         %[[TOKENS:.*]], %{{.*}}, %[[SEND:.*]], %{{.*}}, %{{.*}} = moe.partition %[[SLOTS]] slots(4) ranks(8)
// SUMS:         %[[FIRST:.*]] = linalg.generic {{.*}} ins(%[[SLOTS]], %[[SLOTS]] : {{.*}}) outs(%[[SLOTS]] :
// SUMS:         %{{.*}}, %{{.*}}, %{{.*}}, %[[HOME:.*]], %{{.*}} = moe.partition %[[FIRST]]
// SUMS:         tensor.extract %[[W]]
// SUMS:         %[[ROWS:.*]]:3, %[[RECEIVED:.*]] = moe.exchange
// SUMS:         %{{.*}}, %{{.*}}, %[[POSITIONS:.*]] = moe.dispatch %[[ROWS]]#0, %[[ROWS]]#1 experts(4)
// SUMS:         %[[SUM:.*]] = moe.combine %{{.*}}, %[[POSITIONS]] weights(%[[ROWS]]#2 : tensor<?x2xf32>)
// SUMS:         %[[ORDER:.*]], %[[BACK:.*]] = moe.collect %{{.*}}, %[[RECEIVED]] : tensor<?x1xi32>, tensor<8xi32>
// SUMS:         %[[CAME:.*]] = moe.exchange %[[SUM]] gather(%[[ORDER]] : tensor<?x1xi32>) send(%[[BACK]] : tensor<8xi32>) expect(%[[SEND]] : tensor<8xi32>) : tensor<?x16xf32> -> tensor<?x2x16xf32>
// SUMS:         %[[COLLAPSED:.*]] = tensor.collapse_shape %[[CAME]]
// SUMS:         moe.combine %[[COLLAPSED]], %[[HOME]] : tensor<?x16xf32>, tensor<?x2xi32>
func.func @choices(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>, %w: tensor<?x2xf32>) -> tensor<?x16xf32> {
  %rows, %offsets, %positions = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x2xi32>
  %o = moe.combine %rows, %positions weights(%w : tensor<?x2xf32>) : tensor<?x16xf32>, tensor<?x2xi32>
  return %o : tensor<?x16xf32>
}

// -----

// Weights are normalised over choices with a slot before they leave; rows of
// dropped choices are listed behind the others, with their weights.
// SUMS-LABEL: func.func @dropped(
// SUMS-SAME:    %[[X:[a-z0-9]+]]: tensor<?x16xf32>
// SUMS:         %[[SLOTS:.*]] = moe.place
// SUMS:         %[[NORMALIZED:.*]] = linalg.generic {{.*}} outs(%{{.*}} : tensor<?x2xf32>) {
// SUMS:           arith.maximumf
// SUMS:           arith.divf
// SUMS:         tensor.extract %[[NORMALIZED]]
// SUMS:         moe.combine
// SUMS-NOT:     normalize
// SUMS:         %[[ALL:.*]] = tensor.concat dim(0) %{{.*}}, %[[X]]
// SUMS:         moe.combine %[[ALL]], %{{.*}} weights(%{{.*}} : tensor<?x2xf32>) :

// Nothing is gathered: each rank drops tokens of its own.
// RANK-LABEL: func.func @dropped(
// RANK-SAME:    %[[IDS:[a-z0-9]+]]: tensor<?x2xi32>
// RANK-SAME:    moe.parallel = #moe.parallel<slots = 4, scope = rank>
// RANK-NOT:     moe.all_gather
// RANK:         %[[KEPT:.*]] = moe.keep %[[IDS]] experts(8) capacity(<factor = 1.000000e+00>)
// RANK-NOT:     moe.own_rows
// RANK:         moe.place %[[KEPT]]
func.func @dropped(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>, %w: tensor<?x2xf32>) -> tensor<?x16xf32> {
  %rows, %offsets, %positions = moe.dispatch %x, %ids experts(8) capacity(<factor = 1.0>) : tensor<?x16xf32>, tensor<?x2xi32>
  %o = moe.combine %rows, %positions weights(%w : tensor<?x2xf32>) dropped(%x : tensor<?x16xf32>) normalize(<sum, epsilon = 1.0e-7, guard = clamp>)
    : tensor<?x16xf32>, tensor<?x2xi32>
  return %o : tensor<?x16xf32>
}

// -----

// RANK-LABEL: func.func @expert_choice(
// RANK-SAME:    %[[L:[a-z0-9]+]]: tensor<?x8xf32>
// RANK-NOT:     moe.all_gather
// RANK:         moe.gate %[[L]] top_k(8) select(expert_choice)
// RANK-NOT:     moe.own_rows
// RANK:         moe.place
func.func @expert_choice(%x: tensor<?x16xf32>, %l: tensor<?x8xf32>) -> tensor<?x16xf32> {
  %w, %ids = moe.gate %l top_k(8) select(expert_choice) capacity(<factor = 2.0>) : tensor<?x8xf32>
  %rows, %offsets, %positions = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x8xi32>
  %o = moe.combine %rows, %positions weights(%w : tensor<?x8xf32>) : tensor<?x16xf32>, tensor<?x8xi32>
  return %o : tensor<?x16xf32>
}
