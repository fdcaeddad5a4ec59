// RUN: moe-opt %s -convert-moe-to-gpu -canonicalize -cse -split-input-file \
// RUN:   | FileCheck %s --implicit-check-not=moe.gate

// A warp scores all experts for a token; a block selects the tokens of an expert.
// CHECK:       llvm.func @gate_scores(%[[LOGITS:[a-z0-9]+]]: !llvm.ptr<1>, %[[SCORES:[a-z0-9]+]]: !llvm.ptr<1>, %[[T:[a-z0-9]+]]: i64)
// CHECK-SAME:    nvvm.maxntid = array<i32: 128, 1, 1>
// CHECK:         scf.if
// CHECK:           arith.cmpf uno
// CHECK:           math.exp
// CHECK:           llvm.getelementptr %[[SCORES]]
// CHECK:       llvm.func @gate_choose(%[[SCORES:[a-z0-9]+]]: !llvm.ptr<1>, %[[WEIGHTS:[a-z0-9]+]]: !llvm.ptr<1>, %[[IDS:[a-z0-9]+]]: !llvm.ptr<1>, %[[T:[a-z0-9]+]]: i32, %[[C:[a-z0-9]+]]: i32)
// CHECK-SAME:    nvvm.maxntid = array<i32: 512, 1, 1>
// CHECK-NOT:     math.exp
// CHECK:         %[[EXPERT:.*]] = nvvm.read.ptx.sreg.ctaid.x
// CHECK:         %[[LEAST:.*]]:3 = scf.for {{.*}} iter_args({{.*}} = %[[C]])
// CHECK:         scf.for {{.*}} to %[[T]]
// CHECK:           llvm.getelementptr %[[WEIGHTS]]
// CHECK:           %[[ID:.*]] = arith.select %{{.*}}, %[[EXPERT]], %c-1_i32
// CHECK:           llvm.getelementptr %[[IDS]]
// CHECK-LABEL: func.func @experts(
// CHECK:         %[[S:.*]] = moe_rt.launch @kernels::@gate_scores {{.*}} outs(%{{.*}} : tensor<?x8xf32>)
// CHECK:         %[[R:.*]]:2 = moe_rt.launch @kernels::@gate_choose blocks(%c8) ins(%[[S]] : {{.*}} outs(%{{.*}}, %{{.*}} : tensor<?x8xbf16>, tensor<?x8xi32>)
// CHECK-NOT:     moe_rt.launch
// CHECK:         return %[[R]]#0, %[[R]]#1
func.func @experts(%l: tensor<?x8xf32>) -> (tensor<?x8xbf16>, tensor<?x8xi32>) {
  %w, %i = moe.gate %l top_k(8) select(expert_choice) capacity(<factor = 2.0>) score_type(bf16) : tensor<?x8xf32>
  return %w, %i : tensor<?x8xbf16>, tensor<?x8xi32>
}

// -----

// With score_axis(tokens) the block computes the softmax, too: the maximum, then the
// sum.
// CHECK:       llvm.func @gate_scores(
// CHECK-NOT:     math.exp
// CHECK:       llvm.func @gate_choose({{.*}}%[[T:[a-z0-9]+]]: i32, %[[C:[a-z0-9]+]]: i32)
// CHECK:         scf.for {{.*}} to %[[T]]
// CHECK:           arith.maximumf
// CHECK:         nvvm.barrier
// CHECK:         scf.for {{.*}} to %[[T]]
// CHECK:           math.exp
// CHECK:           arith.addf
// CHECK:         nvvm.barrier
// CHECK:         scf.for {{.*}} iter_args({{.*}} = %[[C]])
// CHECK-LABEL: func.func @over_tokens(
func.func @over_tokens(%l: tensor<?x8xf32>, %b: tensor<8xf32>) -> (tensor<?x8xf32>, tensor<?x8xi32>) {
  %w, %i = moe.gate %l bias(%b : tensor<8xf32>) top_k(8) score_axis(tokens) select(expert_choice) capacity(<fixed = 3>) : tensor<?x8xf32>
  return %w, %i : tensor<?x8xf32>, tensor<?x8xi32>
}
