// RUN: moe-opt %s -moe-fuse-gather -mlir-print-local-scope | FileCheck %s
// RUN: moe-opt %s -moe-fuse-gather --remarks-filter-passed=moe-fuse --remarks-filter-missed=moe-fuse -o /dev/null 2>&1 | FileCheck %s --check-prefix=REMARK

// Weights without a say in the choice are not read.
// REMARK:        [Passed] GatherFused | Category:moe-fuse | Function=products | Remark="gather fused into the first matmul"
// CHECK-LABEL: func.func @products(
// CHECK-SAME:    %[[X:[a-z0-9]*]]: tensor<?x4xf32>, %[[IDS:[a-z0-9]*]]: tensor<?x2xi32>, %[[P:[a-z0-9]*]]: tensor<?x2xf32>,
// CHECK-NEXT:    %c0
// CHECK-NEXT:    %[[N:.*]], %[[O:.*]], %[[POS:.*]] = moe.route %[[IDS]] experts(2) : tensor<?x2xi32>
// CHECK-NEXT:    %[[R:.*]] = tensor.dim %[[N]], %c0 : tensor<?xi32>
// CHECK:         moe.grouped_matmul %[[X]] gather(%[[N]] : tensor<?xi32>) offsets(%[[O]] : tensor<3xi32>)
// CHECK:         moe.grouped_matmul %[[X]] gather(%[[N]] : tensor<?xi32>) offsets(%[[O]] : tensor<3xi32>)
// CHECK-NOT:     moe.dispatch
// CHECK:         return %{{.*}}, %{{.*}}, %[[POS]]
func.func @products(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>, %p: tensor<?x2xf32>, %w: tensor<2x4x8xf32>) -> (tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x2xi32>) {
  %c0 = arith.constant 0 : index
  %g, %o, %pos = moe.dispatch %x, %ids weights(%p : tensor<?x2xf32>) experts(2) : tensor<?x4xf32>, tensor<?x2xi32>
  %r = tensor.dim %g, %c0 : tensor<?x4xf32>
  %e = tensor.empty(%r) : tensor<?x8xf32>
  %a = moe.grouped_matmul %g offsets(%o : tensor<3xi32>) weights(%w : tensor<2x4x8xf32>) outs(%e : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  %b = moe.grouped_matmul %g offsets(%o : tensor<3xi32>) weights(%w : tensor<2x4x8xf32>) outs(%e : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    %t = arith.negf %s : f32
    moe.yield %t : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return %a, %b, %pos : tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x2xi32>
}

// Everything that decides which choices are kept comes along.
// REMARK:        [Passed] GatherFused | Category:moe-fuse | Function=attributes
// CHECK-LABEL: func.func @attributes(
// CHECK:         moe.route %{{.*}} weights(%{{.*}} : tensor<6x2xf32>) experts(2) capacity(<fixed = 3>) priority(probability) choices(1) : tensor<6x2xi32>
// CHECK:         moe.route %{{.*}} experts(2) capacity(<fixed = 3>) priority(choice) overflow(next_choice) : tensor<6x2xi32>
func.func @attributes(%x: tensor<6x4xf32>, %ids: tensor<6x2xi32>, %p: tensor<6x2xf32>, %w: tensor<2x4x8xf32>) -> (tensor<6x8xf32>, tensor<6x8xf32>) {
  %e = tensor.empty() : tensor<6x8xf32>
  %g, %o, %pos = moe.dispatch %x, %ids weights(%p : tensor<6x2xf32>) experts(2) capacity(<fixed = 3>) priority(probability) choices(1) : tensor<6x4xf32>, tensor<6x2xi32>
  %a = moe.grouped_matmul %g offsets(%o : tensor<3xi32>) weights(%w : tensor<2x4x8xf32>) outs(%e : tensor<6x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<6x4xf32> -> tensor<6x8xf32>
  %h, %q, %pos2 = moe.dispatch %x, %ids experts(2) capacity(<fixed = 3>) priority(choice) overflow(next_choice) : tensor<6x4xf32>, tensor<6x2xi32>
  %b = moe.grouped_matmul %h offsets(%q : tensor<3xi32>) weights(%w : tensor<2x4x8xf32>) outs(%e : tensor<6x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<6x4xf32> -> tensor<6x8xf32>
  return %a, %b : tensor<6x8xf32>, tensor<6x8xf32>
}

// REMARK:        [Missed] GatherNotFused | Category:moe-fuse | Function=other_use | Remark="not fused: the grouped rows have uses other than matmuls"
// CHECK-LABEL: func.func @other_use(
// CHECK:         moe.dispatch
// CHECK:         moe.grouped_matmul %{{[a-z0-9]*}} offsets
func.func @other_use(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>, %w: tensor<2x4x8xf32>, %e: tensor<?x8xf32>) -> (tensor<?x8xf32>, tensor<?x4xf32>) {
  %g, %o, %pos = moe.dispatch %x, %ids experts(2) : tensor<?x4xf32>, tensor<?x2xi32>
  %a = moe.grouped_matmul %g offsets(%o : tensor<3xi32>) weights(%w : tensor<2x4x8xf32>) outs(%e : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return %a, %g : tensor<?x8xf32>, tensor<?x4xf32>
}

// As an operand of the epilogue, or gathered once more, the rows are needed.
// REMARK-COUNT-2: [Missed] GatherNotFused | Category:moe-fuse | Function=operand | Remark="not fused: the grouped rows have uses other than matmuls"
// CHECK-LABEL: func.func @operand(
// CHECK-COUNT-2: moe.dispatch
func.func @operand(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>, %w: tensor<2x4x4xf32>, %e: tensor<?x4xf32>, %n: tensor<?xi32>) -> (tensor<?x4xf32>, tensor<?x4xf32>) {
  %g, %o, %pos = moe.dispatch %x, %ids experts(2) : tensor<?x4xf32>, tensor<?x2xi32>
  %a = moe.grouped_matmul %g offsets(%o : tensor<3xi32>) weights(%w : tensor<2x4x4xf32>)
      operands(%g : tensor<?x4xf32>) maps([affine_map<(e, r, n) -> (r, n)>]) outs(%e : tensor<?x4xf32>) {
  ^bb0(%s: f32, %t: f32):
    %u = arith.addf %s, %t : f32
    moe.yield %u : f32
  } : tensor<?x4xf32> -> tensor<?x4xf32>
  %h, %q, %pos2 = moe.dispatch %x, %ids experts(2) priority(choice) : tensor<?x4xf32>, tensor<?x2xi32>
  %b = moe.grouped_matmul %h gather(%n : tensor<?xi32>) offsets(%q : tensor<3xi32>) weights(%w : tensor<2x4x4xf32>) outs(%e : tensor<?x4xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x4xf32>
  return %a, %b : tensor<?x4xf32>, tensor<?x4xf32>
}

// REMARK:        [Missed] GatherNotFused | Category:moe-fuse | Function=scaled | Remark="not fused: the rows are scaled by their weights"
// CHECK-LABEL: func.func @scaled(
// CHECK:         moe.dispatch {{.*}} scale_rows
func.func @scaled(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32>, %p: tensor<?x2xf32>, %w: tensor<2x4x8xf32>, %e: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %g, %o, %pos = moe.dispatch %x, %ids weights(%p : tensor<?x2xf32>) experts(2) scale_rows : tensor<?x4xf32>, tensor<?x2xi32>
  %a = moe.grouped_matmul %g offsets(%o : tensor<3xi32>) weights(%w : tensor<2x4x8xf32>) outs(%e : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return %a : tensor<?x8xf32>
}
// REMARK-NOT: Gather
