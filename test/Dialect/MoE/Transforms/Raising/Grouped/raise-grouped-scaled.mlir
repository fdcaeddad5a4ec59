// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-grouped | FileCheck %s
// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-grouped --remarks-filter-missed=moe-raise -o /dev/null 2>&1 | FileCheck %s --check-prefix=REMARK

// torch.aten._scaled_grouped_mm: 8-bit rows and weights, with a scale of each
// row and of each column of the weights, which are a transposed view.

// CHECK-DAG:   #[[ROW:.*]] = affine_map<(d0, d1, d2) -> (d1)>
// CHECK-DAG:   #[[COLUMN:.*]] = affine_map<(d0, d1, d2) -> (d0, d2)>
// CHECK-LABEL: func.func @rows(
// CHECK-SAME:      %[[X:[^ ]*]]: !torch.vtensor<[?,64],f8E4M3FN>, %[[W:[^ ]*]]: !torch.vtensor<[8,32,64],f8E4M3FN>, %[[A:[^ ]*]]: !torch.vtensor<[?],f32>, %[[B:[^ ]*]]: !torch.vtensor<[8,32],f32>
// CHECK:         %[[ROWS:.*]] = "torch_c.to_builtin_tensor"(%[[X]])
// CHECK:         %[[WEIGHTS:.*]] = "torch_c.to_builtin_tensor"(%[[W]])
// CHECK-NOT:     linalg.fill
// CHECK:         %[[SA:.*]] = "torch_c.to_builtin_tensor"(%[[A]]) : {{.*}} -> tensor<?xf32>
// CHECK:         %[[SB:.*]] = "torch_c.to_builtin_tensor"(%[[B]]) : {{.*}} -> tensor<8x32xf32>
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %[[ROWS]] offsets(%{{.*}} : tensor<9xi32>) weights(%[[WEIGHTS]] : tensor<8x32x64xf8E4M3FN>) transposed operands(%[[SA]], %[[SB]] : tensor<?xf32>, tensor<8x32xf32>) maps([#[[ROW]], #[[COLUMN]]]) outs(%{{.*}} : tensor<?x32xbf16>)
// CHECK-NEXT:    ^bb0(%[[SUM:.*]]: f32, %[[S1:.*]]: f32, %[[S2:.*]]: f32):
// CHECK-NEXT:      %[[P1:.*]] = arith.mulf %[[SUM]], %[[S1]]
// CHECK-NEXT:      %[[P2:.*]] = arith.mulf %[[P1]], %[[S2]]
// CHECK-NEXT:      %[[R:.*]] = arith.truncf %[[P2]] : f32 to bf16
// CHECK:         "torch_c.from_builtin_tensor"(%[[Y]])
func.func @rows(%x: !torch.vtensor<[?,64],f8E4M3FN>, %w: !torch.vtensor<[8,32,64],f8E4M3FN>, %a: !torch.vtensor<[?],f32>, %b: !torch.vtensor<[8,32],f32>,
                %ends: !torch.vtensor<[8],si32>) -> !torch.vtensor<[?,32],bf16> {
  %none = "torch.constant.none"() : () -> !torch.none
  %bf16 = "torch.constant.int"() <{value = 15 : i64}> : () -> !torch.int
  %fast = "torch.constant.bool"() <{value = false}> : () -> !torch.bool
  %i = "torch.constant.int"() <{value = 1 : i64}> : () -> !torch.int
  %j = "torch.constant.int"() <{value = 2 : i64}> : () -> !torch.int
  %t = "torch.aten.transpose.int"(%w, %i, %j) : (!torch.vtensor<[8,32,64],f8E4M3FN>, !torch.int, !torch.int) -> !torch.vtensor<[8,64,32],f8E4M3FN>
  %y = "torch.operator"(%x, %t, %a, %b, %ends, %none, %none, %bf16, %fast) <{name = "torch.aten._scaled_grouped_mm"}> : (!torch.vtensor<[?,64],f8E4M3FN>, !torch.vtensor<[8,64,32],f8E4M3FN>, !torch.vtensor<[?],f32>, !torch.vtensor<[8,32],f32>, !torch.vtensor<[8],si32>, !torch.none, !torch.none, !torch.int, !torch.bool) -> !torch.vtensor<[?,32],bf16>
  return %y : !torch.vtensor<[?,32],bf16>
}

// -----

// torch.aten._scaled_grouped_mm_v2 has lists of scales, and recipes: 1 is a scale
// of each row. It has no operands after the ends.

// CHECK-LABEL: func.func @second(
// CHECK:         moe.grouped_matmul %arg0 offsets(%{{.*}} : tensor<9xi32>) weights(%arg1 : tensor<8x64x32xf8E4M3FN>) operands(%arg2, %arg3 : tensor<?xf32>, tensor<8x32xf32>)
func.func @second(%x: tensor<?x64xf8E4M3FN>, %w: tensor<8x64x32xf8E4M3FN>, %a: tensor<?xf32>, %b: tensor<8x32xf32>, %ends: tensor<8xi32>) -> tensor<?x32xbf16> {
  %none = "torch.constant.none"() : () -> !torch.none
  %fast = "torch.constant.bool"() <{value = false}> : () -> !torch.bool
  %bf16 = "torch.constant.int"() <{value = 15 : i64}> : () -> !torch.int
  %0 = "torch.constant.int"() <{value = 0 : i64}> : () -> !torch.int
  %1 = "torch.constant.int"() <{value = 1 : i64}> : () -> !torch.int
  %as = "torch.prim.ListConstruct"(%a) : (tensor<?xf32>) -> !torch.list<vtensor>
  %bs = "torch.prim.ListConstruct"(%b) : (tensor<8x32xf32>) -> !torch.list<vtensor>
  %recipe = "torch.prim.ListConstruct"(%1) : (!torch.int) -> !torch.list<int>
  %swizzle = "torch.prim.ListConstruct"(%0) : (!torch.int) -> !torch.list<int>
  %dims = "torch.prim.ListConstruct"() : () -> !torch.list<int>
  %y = "torch.operator"(%x, %w, %as, %recipe, %swizzle, %bs, %recipe, %swizzle, %ends, %none, %bf16, %dims, %fast) <{name = "torch.aten._scaled_grouped_mm_v2"}> : (tensor<?x64xf8E4M3FN>, tensor<8x64x32xf8E4M3FN>, !torch.list<vtensor>, !torch.list<int>, !torch.list<int>, !torch.list<vtensor>, !torch.list<int>, !torch.list<int>, tensor<8xi32>, !torch.none, !torch.int, !torch.list<int>, !torch.bool) -> tensor<?x32xbf16>
  return %y : tensor<?x32xbf16>
}

// -----

// Its blocks of 128, two scales of one operand, swizzled ones, and dimensions.

// CHECK-LABEL: func.func @recipes(
// CHECK-NOT:     moe.
// REMARK-COUNT-3: 'torch.operator': a recipe is not one scale of each row and column
// REMARK:         'torch.operator': it names the dimensions that it contracts
func.func @recipes(%x: tensor<?x64xf8E4M3FN>, %w: tensor<8x64x32xf8E4M3FN>, %a: tensor<?xf32>, %b: tensor<8x32xf32>, %ends: tensor<8xi32>) {
  %none = "torch.constant.none"() : () -> !torch.none
  %0 = "torch.constant.int"() <{value = 0 : i64}> : () -> !torch.int
  %1 = "torch.constant.int"() <{value = 1 : i64}> : () -> !torch.int
  %4 = "torch.constant.int"() <{value = 4 : i64}> : () -> !torch.int
  %as = "torch.prim.ListConstruct"(%a) : (tensor<?xf32>) -> !torch.list<vtensor>
  %two = "torch.prim.ListConstruct"(%a, %a) : (tensor<?xf32>, tensor<?xf32>) -> !torch.list<vtensor>
  %bs = "torch.prim.ListConstruct"(%b) : (tensor<8x32xf32>) -> !torch.list<vtensor>
  %r1 = "torch.prim.ListConstruct"(%1) : (!torch.int) -> !torch.list<int>
  %r4 = "torch.prim.ListConstruct"(%4) : (!torch.int) -> !torch.list<int>
  %s0 = "torch.prim.ListConstruct"(%0) : (!torch.int) -> !torch.list<int>
  %5 = "torch.operator"(%x, %w, %as, %r4, %s0, %bs, %r1, %s0, %ends) <{name = "torch.aten._scaled_grouped_mm_v2"}> : (tensor<?x64xf8E4M3FN>, tensor<8x64x32xf8E4M3FN>, !torch.list<vtensor>, !torch.list<int>, !torch.list<int>, !torch.list<vtensor>, !torch.list<int>, !torch.list<int>, tensor<8xi32>) -> tensor<?x32xbf16>
  %6 = "torch.operator"(%x, %w, %two, %r1, %s0, %bs, %r1, %s0, %ends) <{name = "torch.aten._scaled_grouped_mm_v2"}> : (tensor<?x64xf8E4M3FN>, tensor<8x64x32xf8E4M3FN>, !torch.list<vtensor>, !torch.list<int>, !torch.list<int>, !torch.list<vtensor>, !torch.list<int>, !torch.list<int>, tensor<8xi32>) -> tensor<?x32xbf16>
  %7 = "torch.operator"(%x, %w, %as, %r1, %r1, %bs, %r1, %s0, %ends) <{name = "torch.aten._scaled_grouped_mm_v2"}> : (tensor<?x64xf8E4M3FN>, tensor<8x64x32xf8E4M3FN>, !torch.list<vtensor>, !torch.list<int>, !torch.list<int>, !torch.list<vtensor>, !torch.list<int>, !torch.list<int>, tensor<8xi32>) -> tensor<?x32xbf16>
  %8 = "torch.operator"(%x, %w, %as, %r1, %s0, %bs, %r1, %s0, %ends, %none, %none, %s0) <{name = "torch.aten._scaled_grouped_mm_v2"}> : (tensor<?x64xf8E4M3FN>, tensor<8x64x32xf8E4M3FN>, !torch.list<vtensor>, !torch.list<int>, !torch.list<int>, !torch.list<vtensor>, !torch.list<int>, !torch.list<int>, tensor<8xi32>, !torch.none, !torch.none, !torch.list<int>) -> tensor<?x32xbf16>
  return
}

// -----

// Scales of blocks, in e8m0 or of the other operand; the transposed layout that
// nothing transposed; other types.

// CHECK-LABEL: func.func @left(
// CHECK-NOT:     moe.
// REMARK-DAG:  'torch.operator': expected scales of f32 of each row and of each column of the weights, got tensor<?x2xf32> and tensor<8x32xf32>
// REMARK-DAG:  got tensor<?xf32> and tensor<8x64xf32>
// REMARK-DAG:  got tensor<?xf8E8M0FNU> and tensor<8x32xf8E8M0FNU>
// REMARK-DAG:  'torch.operator': the extents do not fit
// REMARK-DAG:  'torch.operator': expected rows and weights of f8E4M3FN, got tensor<?x64xbf16>
// REMARK-DAG:  'torch.operator': it has a bias or a scale of the result
// REMARK-DAG:  'torch.operator': expected the operands self, mat2, their scales and offs
// REMARK-DAG:  'torch.operator': it has no offs: a batched matmul
// REMARK-DAG:  'torch.operator': expected rows and weights [g, k, n]
func.func @left(%x: tensor<?x64xf8E4M3FN>, %w: tensor<8x64x32xf8E4M3FN>, %wt: tensor<8x32x64xf8E4M3FN>, %a: tensor<?xf32>, %b: tensor<8x32xf32>, %ends: tensor<8xi32>,
                %ab: tensor<?x2xf32>, %bk: tensor<8x64xf32>, %ae: tensor<?xf8E8M0FNU>, %be: tensor<8x32xf8E8M0FNU>, %xb: tensor<?x64xbf16>, %wb: tensor<8x64x32xbf16>, %xt: tensor<64x?xf8E4M3FN>) {
  %none = "torch.constant.none"() : () -> !torch.none
  %0 = "torch.operator"(%x, %w, %ab, %b, %ends) <{name = "torch.aten._scaled_grouped_mm"}> : (tensor<?x64xf8E4M3FN>, tensor<8x64x32xf8E4M3FN>, tensor<?x2xf32>, tensor<8x32xf32>, tensor<8xi32>) -> tensor<?x32xbf16>
  %1 = "torch.operator"(%x, %w, %a, %bk, %ends) <{name = "torch.aten._scaled_grouped_mm"}> : (tensor<?x64xf8E4M3FN>, tensor<8x64x32xf8E4M3FN>, tensor<?xf32>, tensor<8x64xf32>, tensor<8xi32>) -> tensor<?x32xbf16>
  %2 = "torch.operator"(%x, %w, %ae, %be, %ends) <{name = "torch.aten._scaled_grouped_mm"}> : (tensor<?x64xf8E4M3FN>, tensor<8x64x32xf8E4M3FN>, tensor<?xf8E8M0FNU>, tensor<8x32xf8E8M0FNU>, tensor<8xi32>) -> tensor<?x32xbf16>
  %3 = "torch.operator"(%x, %wt, %a, %b, %ends) <{name = "torch.aten._scaled_grouped_mm"}> : (tensor<?x64xf8E4M3FN>, tensor<8x32x64xf8E4M3FN>, tensor<?xf32>, tensor<8x32xf32>, tensor<8xi32>) -> tensor<?x32xbf16>
  %4 = "torch.operator"(%xb, %wb, %a, %b, %ends) <{name = "torch.aten._scaled_grouped_mm"}> : (tensor<?x64xbf16>, tensor<8x64x32xbf16>, tensor<?xf32>, tensor<8x32xf32>, tensor<8xi32>) -> tensor<?x32xbf16>
  %5 = "torch.operator"(%x, %w, %a, %b, %ends, %b) <{name = "torch.aten._scaled_grouped_mm"}> : (tensor<?x64xf8E4M3FN>, tensor<8x64x32xf8E4M3FN>, tensor<?xf32>, tensor<8x32xf32>, tensor<8xi32>, tensor<8x32xf32>) -> tensor<?x32xbf16>
  %6 = "torch.operator"(%x, %w, %a, %b, %ends) <{name = "torch.aten._scaled_grouped_mm_v2"}> : (tensor<?x64xf8E4M3FN>, tensor<8x64x32xf8E4M3FN>, tensor<?xf32>, tensor<8x32xf32>, tensor<8xi32>) -> tensor<?x32xbf16>
  %7 = "torch.operator"(%x, %w, %a, %b, %none) <{name = "torch.aten._scaled_grouped_mm"}> : (tensor<?x64xf8E4M3FN>, tensor<8x64x32xf8E4M3FN>, tensor<?xf32>, tensor<8x32xf32>, !torch.none) -> tensor<?x32xbf16>
  %8 = "torch.operator"(%xt, %x, %a, %b, %ends) <{name = "torch.aten._scaled_grouped_mm"}> : (tensor<64x?xf8E4M3FN>, tensor<?x64xf8E4M3FN>, tensor<?xf32>, tensor<8x32xf32>, tensor<8xi32>) -> tensor<8x64x64xbf16>
  return
}
