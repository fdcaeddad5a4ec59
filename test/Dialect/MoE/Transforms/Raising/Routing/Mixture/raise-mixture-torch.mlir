// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-routing | FileCheck %s

// transformers' "batched_mm" experts: weights gathered for each choice.

// CHECK-LABEL: func.func @batched(
// CHECK:         %[[SCORES:.*]] = linalg.softmax dimension(1)
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate %[[SCORES]] top_k(3) score(none)
// CHECK-NOT:     "torch.aten.{{(topk|_softmax|sort|one_hot|cumsum|bmm|index|scatter|split)}}
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}}, %[[IDS]] experts(8)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<9xi32>) weights(%{{.*}} : tensor<8x96x32xf32>) transposed
// CHECK-NOT:     "torch.aten
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<9xi32>) weights(%{{.*}} : tensor<8x32x48xf32>) transposed
// CHECK:         moe.combine %[[Y]], %[[PLACES]] weights(
// CHECK-NOT:     "torch.aten
func.func @batched(%x: !torch.vtensor<[?,32],f32>, %router: !torch.vtensor<[8,32],f32>,
    %up: !torch.vtensor<[8,96,32],f32>,
    %down: !torch.vtensor<[8,32,48],f32>)
    -> !torch.vtensor<[?,32],f32> {
  %0 = "torch.constant.int"() <{value = 0 : i64}> : () -> !torch.int
  %1 = "torch.aten.size.int"(%x, %0) : (!torch.vtensor<[?,32],f32>, !torch.int) -> !torch.int
  %2 = "torch.constant.int"() <{value = 1 : i64}> : () -> !torch.int
  %3 = "torch.prim.ListConstruct"(%2, %0) : (!torch.int, !torch.int) -> !torch.list<int>
  %4 = "torch.aten.permute"(%router, %3) : (!torch.vtensor<[8,32],f32>, !torch.list<int>) -> !torch.vtensor<[32,8],f32>
  %5 = "torch.aten.mm"(%x, %4) : (!torch.vtensor<[?,32],f32>, !torch.vtensor<[32,8],f32>) -> !torch.vtensor<[?,8],f32>
  %6 = "torch.constant.int"() <{value = -1 : i64}> : () -> !torch.int
  %7 = "torch.constant.bool"() <{value = false}> : () -> !torch.bool
  %8 = "torch.aten._softmax"(%5, %6, %7) : (!torch.vtensor<[?,8],f32>, !torch.int, !torch.bool) -> !torch.vtensor<[?,8],f32>
  %9 = "torch.constant.int"() <{value = 3 : i64}> : () -> !torch.int
  %10 = "torch.constant.bool"() <{value = true}> : () -> !torch.bool
  %11:2 = "torch.aten.topk"(%8, %9, %6, %10, %10) : (!torch.vtensor<[?,8],f32>, !torch.int, !torch.int, !torch.bool, !torch.bool) -> (!torch.vtensor<[?,3],f32>, !torch.vtensor<[?,3],si64>)
  %12 = "torch.prim.ListConstruct"(%6) : (!torch.int) -> !torch.list<int>
  %13 = "torch.constant.none"() : () -> !torch.none
  %14 = "torch.aten.sum.dim_IntList"(%11#0, %12, %10, %13) : (!torch.vtensor<[?,3],f32>, !torch.list<int>, !torch.bool, !torch.none) -> !torch.vtensor<[?,1],f32>
  %15 = "torch.aten.div.Tensor"(%11#0, %14) : (!torch.vtensor<[?,3],f32>, !torch.vtensor<[?,1],f32>) -> !torch.vtensor<[?,3],f32>
  %16 = "torch.aten.view"(%11#1, %12) : (!torch.vtensor<[?,3],si64>, !torch.list<int>) -> !torch.vtensor<[?],si64>
  %17 = "torch.aten.view"(%15, %12) : (!torch.vtensor<[?,3],f32>, !torch.list<int>) -> !torch.vtensor<[?],f32>
  %18 = "torch.aten.unsqueeze"(%x, %2) : (!torch.vtensor<[?,32],f32>, !torch.int) -> !torch.vtensor<[?,1,32],f32>
  %19 = "torch.constant.int"() <{value = 32 : i64}> : () -> !torch.int
  %20 = "torch.prim.ListConstruct"(%1, %9, %19) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %21 = "torch.aten.expand"(%18, %20, %7) : (!torch.vtensor<[?,1,32],f32>, !torch.list<int>, !torch.bool) -> !torch.vtensor<[?,3,32],f32>
  %22 = "torch.aten.clone"(%21, %0) : (!torch.vtensor<[?,3,32],f32>, !torch.int) -> !torch.vtensor<[?,3,32],f32>
  %23 = "torch.aten.mul.int"(%1, %9) : (!torch.int, !torch.int) -> !torch.int
  %24 = "torch.prim.ListConstruct"(%23, %19) : (!torch.int, !torch.int) -> !torch.list<int>
  %25 = "torch.aten.view"(%22, %24) : (!torch.vtensor<[?,3,32],f32>, !torch.list<int>) -> !torch.vtensor<[?,32],f32>
  %26 = "torch.prim.ListConstruct"(%16) : (!torch.vtensor<[?],si64>) -> !torch.list<optional<vtensor>>
  %27 = "torch.aten.index.Tensor"(%up, %26) : (!torch.vtensor<[8,96,32],f32>, !torch.list<optional<vtensor>>) -> !torch.vtensor<[?,96,32],f32>
  %28 = "torch.aten.unsqueeze"(%25, %6) : (!torch.vtensor<[?,32],f32>, !torch.int) -> !torch.vtensor<[?,32,1],f32>
  %29 = "torch.aten.bmm"(%27, %28) : (!torch.vtensor<[?,96,32],f32>, !torch.vtensor<[?,32,1],f32>) -> !torch.vtensor<[?,96,1],f32>
  %30 = "torch.constant.int"() <{value = 2 : i64}> : () -> !torch.int
  %31 = "torch.prim.ListConstruct"(%30) : (!torch.int) -> !torch.list<int>
  %32 = "torch.prims.squeeze"(%29, %31) : (!torch.vtensor<[?,96,1],f32>, !torch.list<int>) -> !torch.vtensor<[?,96],f32>
  %33 = "torch.constant.int"() <{value = 48 : i64}> : () -> !torch.int
  %34 = "torch.prim.ListConstruct"(%33, %33) : (!torch.int, !torch.int) -> !torch.list<int>
  %35 = "torch.aten.split_with_sizes"(%32, %34, %6) : (!torch.vtensor<[?,96],f32>, !torch.list<int>, !torch.int) -> !torch.list<vtensor>
  %36:2 = "torch.prim.ListUnpack"(%35) : (!torch.list<vtensor>) -> (!torch.vtensor<[?,48],f32>, !torch.vtensor<[?,48],f32>)
  %37 = "torch.aten.sigmoid"(%36#0) : (!torch.vtensor<[?,48],f32>) -> !torch.vtensor<[?,48],f32>
  %38 = "torch.aten.mul.Tensor"(%36#0, %37) : (!torch.vtensor<[?,48],f32>, !torch.vtensor<[?,48],f32>) -> !torch.vtensor<[?,48],f32>
  %39 = "torch.aten.mul.Tensor"(%38, %36#1) : (!torch.vtensor<[?,48],f32>, !torch.vtensor<[?,48],f32>) -> !torch.vtensor<[?,48],f32>
  %40 = "torch.aten.index.Tensor"(%down, %26) : (!torch.vtensor<[8,32,48],f32>, !torch.list<optional<vtensor>>) -> !torch.vtensor<[?,32,48],f32>
  %41 = "torch.aten.unsqueeze"(%39, %6) : (!torch.vtensor<[?,48],f32>, !torch.int) -> !torch.vtensor<[?,48,1],f32>
  %42 = "torch.aten.bmm"(%40, %41) : (!torch.vtensor<[?,32,48],f32>, !torch.vtensor<[?,48,1],f32>) -> !torch.vtensor<[?,32,1],f32>
  %43 = "torch.prims.squeeze"(%42, %31) : (!torch.vtensor<[?,32,1],f32>, !torch.list<int>) -> !torch.vtensor<[?,32],f32>
  %44 = "torch.aten.unsqueeze"(%17, %6) : (!torch.vtensor<[?],f32>, !torch.int) -> !torch.vtensor<[?,1],f32>
  %45 = "torch.aten.mul.Tensor"(%43, %44) : (!torch.vtensor<[?,32],f32>, !torch.vtensor<[?,1],f32>) -> !torch.vtensor<[?,32],f32>
  %46 = "torch.aten.view"(%45, %20) : (!torch.vtensor<[?,32],f32>, !torch.list<int>) -> !torch.vtensor<[?,3,32],f32>
  %47 = "torch.prim.ListConstruct"(%2) : (!torch.int) -> !torch.list<int>
  %48 = "torch.aten.sum.dim_IntList"(%46, %47, %7, %13) : (!torch.vtensor<[?,3,32],f32>, !torch.list<int>, !torch.bool, !torch.none) -> !torch.vtensor<[?,32],f32>
  return %48 : !torch.vtensor<[?,32],f32>
}

// -----

// All experts on all tokens; weights by scatter.

// CHECK-LABEL: func.func @tiled(
// CHECK:         %[[SCORES:.*]] = linalg.softmax dimension(1)
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate %[[SCORES]] top_k(3) score(none)
// CHECK-NOT:     "torch.aten.{{(topk|_softmax|sort|one_hot|cumsum|bmm|index|scatter|split)}}
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}}, %[[IDS]] experts(8)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<9xi32>) weights(%{{.*}} : tensor<8x96x32xf32>) transposed
// CHECK-NOT:     "torch.aten
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<9xi32>) weights(%{{.*}} : tensor<8x32x48xf32>) transposed
// CHECK:         moe.combine %[[Y]], %[[PLACES]] weights(
// CHECK-NOT:     "torch.aten
func.func @tiled(%x: !torch.vtensor<[?,32],f32>, %router: !torch.vtensor<[8,32],f32>,
    %up: !torch.vtensor<[8,96,32],f32>,
    %down: !torch.vtensor<[8,32,48],f32>)
    -> !torch.vtensor<[?,32],f32> {
  %0 = "torch.constant.int"() <{value = 0 : i64}> : () -> !torch.int
  %1 = "torch.aten.size.int"(%x, %0) : (!torch.vtensor<[?,32],f32>, !torch.int) -> !torch.int
  %2 = "torch.constant.int"() <{value = 1 : i64}> : () -> !torch.int
  %3 = "torch.prim.ListConstruct"(%2, %0) : (!torch.int, !torch.int) -> !torch.list<int>
  %4 = "torch.aten.permute"(%router, %3) : (!torch.vtensor<[8,32],f32>, !torch.list<int>) -> !torch.vtensor<[32,8],f32>
  %5 = "torch.aten.mm"(%x, %4) : (!torch.vtensor<[?,32],f32>, !torch.vtensor<[32,8],f32>) -> !torch.vtensor<[?,8],f32>
  %6 = "torch.constant.int"() <{value = -1 : i64}> : () -> !torch.int
  %7 = "torch.constant.bool"() <{value = false}> : () -> !torch.bool
  %8 = "torch.aten._softmax"(%5, %6, %7) : (!torch.vtensor<[?,8],f32>, !torch.int, !torch.bool) -> !torch.vtensor<[?,8],f32>
  %9 = "torch.constant.int"() <{value = 3 : i64}> : () -> !torch.int
  %10 = "torch.constant.bool"() <{value = true}> : () -> !torch.bool
  %11:2 = "torch.aten.topk"(%8, %9, %6, %10, %10) : (!torch.vtensor<[?,8],f32>, !torch.int, !torch.int, !torch.bool, !torch.bool) -> (!torch.vtensor<[?,3],f32>, !torch.vtensor<[?,3],si64>)
  %12 = "torch.prim.ListConstruct"(%6) : (!torch.int) -> !torch.list<int>
  %13 = "torch.constant.none"() : () -> !torch.none
  %14 = "torch.aten.sum.dim_IntList"(%11#0, %12, %10, %13) : (!torch.vtensor<[?,3],f32>, !torch.list<int>, !torch.bool, !torch.none) -> !torch.vtensor<[?,1],f32>
  %15 = "torch.aten.div.Tensor"(%11#0, %14) : (!torch.vtensor<[?,3],f32>, !torch.vtensor<[?,1],f32>) -> !torch.vtensor<[?,3],f32>
  %16 = "torch.constant.int"() <{value = 6 : i64}> : () -> !torch.int
  %17 = "torch.constant.device"() <{value = "cpu"}> : () -> !torch.Device
  %18 = "torch.constant.int"() <{value = 8 : i64}> : () -> !torch.int
  %19 = "torch.prim.ListConstruct"(%1, %18) : (!torch.int, !torch.int) -> !torch.list<int>
  %20 = "torch.prim.ListConstruct"(%18, %2) : (!torch.int, !torch.int) -> !torch.list<int>
  %21 = "torch.aten.empty_strided"(%19, %20, %16, %0, %17, %7) : (!torch.list<int>, !torch.list<int>, !torch.int, !torch.int, !torch.Device, !torch.bool) -> !torch.vtensor<[?,8],f32>
  %22 = "torch.aten.full_like"(%21, %0, %13, %13, %13, %7, %13) : (!torch.vtensor<[?,8],f32>, !torch.int, !torch.none, !torch.none, !torch.none, !torch.bool, !torch.none) -> !torch.vtensor<[?,8],f32>
  %23 = "torch.aten.scatter.src"(%22, %2, %11#1, %15) : (!torch.vtensor<[?,8],f32>, !torch.int, !torch.vtensor<[?,3],si64>, !torch.vtensor<[?,3],f32>) -> !torch.vtensor<[?,8],f32>
  %24 = "torch.aten.repeat"(%x, %20) : (!torch.vtensor<[?,32],f32>, !torch.list<int>) -> !torch.vtensor<[?,32],f32>
  %25 = "torch.constant.int"() <{value = 32 : i64}> : () -> !torch.int
  %26 = "torch.prim.ListConstruct"(%18, %6, %25) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %27 = "torch.aten.view"(%24, %26) : (!torch.vtensor<[?,32],f32>, !torch.list<int>) -> !torch.vtensor<[8,?,32],f32>
  %28 = "torch.constant.int"() <{value = 2 : i64}> : () -> !torch.int
  %29 = "torch.prim.ListConstruct"(%0, %28, %2) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %30 = "torch.aten.permute"(%up, %29) : (!torch.vtensor<[8,96,32],f32>, !torch.list<int>) -> !torch.vtensor<[8,32,96],f32>
  %31 = "torch.aten.bmm"(%27, %30) : (!torch.vtensor<[8,?,32],f32>, !torch.vtensor<[8,32,96],f32>) -> !torch.vtensor<[8,?,96],f32>
  %32 = "torch.constant.int"() <{value = 48 : i64}> : () -> !torch.int
  %33 = "torch.prim.ListConstruct"(%32, %32) : (!torch.int, !torch.int) -> !torch.list<int>
  %34 = "torch.aten.split_with_sizes"(%31, %33, %6) : (!torch.vtensor<[8,?,96],f32>, !torch.list<int>, !torch.int) -> !torch.list<vtensor>
  %35:2 = "torch.prim.ListUnpack"(%34) : (!torch.list<vtensor>) -> (!torch.vtensor<[8,?,48],f32>, !torch.vtensor<[8,?,48],f32>)
  %36 = "torch.aten.sigmoid"(%35#0) : (!torch.vtensor<[8,?,48],f32>) -> !torch.vtensor<[8,?,48],f32>
  %37 = "torch.aten.mul.Tensor"(%35#0, %36) : (!torch.vtensor<[8,?,48],f32>, !torch.vtensor<[8,?,48],f32>) -> !torch.vtensor<[8,?,48],f32>
  %38 = "torch.aten.mul.Tensor"(%37, %35#1) : (!torch.vtensor<[8,?,48],f32>, !torch.vtensor<[8,?,48],f32>) -> !torch.vtensor<[8,?,48],f32>
  %39 = "torch.aten.permute"(%down, %29) : (!torch.vtensor<[8,32,48],f32>, !torch.list<int>) -> !torch.vtensor<[8,48,32],f32>
  %40 = "torch.aten.bmm"(%38, %39) : (!torch.vtensor<[8,?,48],f32>, !torch.vtensor<[8,48,32],f32>) -> !torch.vtensor<[8,?,32],f32>
  %41 = "torch.aten.permute"(%23, %3) : (!torch.vtensor<[?,8],f32>, !torch.list<int>) -> !torch.vtensor<[8,?],f32>
  %42 = "torch.aten.unsqueeze"(%41, %6) : (!torch.vtensor<[8,?],f32>, !torch.int) -> !torch.vtensor<[8,?,1],f32>
  %43 = "torch.aten.mul.Tensor"(%40, %42) : (!torch.vtensor<[8,?,32],f32>, !torch.vtensor<[8,?,1],f32>) -> !torch.vtensor<[8,?,32],f32>
  %44 = "torch.prim.ListConstruct"(%0) : (!torch.int) -> !torch.list<int>
  %45 = "torch.aten.sum.dim_IntList"(%43, %44, %7, %13) : (!torch.vtensor<[8,?,32],f32>, !torch.list<int>, !torch.bool, !torch.none) -> !torch.vtensor<[?,32],f32>
  return %45 : !torch.vtensor<[?,32],f32>
}

// -----

// The same as einsums, which are batched products of reshaped tensors here.

// CHECK-LABEL: func.func @einsum(
// CHECK:         %[[SCORES:.*]] = linalg.softmax dimension(1)
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate %[[SCORES]] top_k(3) score(none)
// CHECK-NOT:     "torch.aten.{{(topk|_softmax|sort|one_hot|cumsum|bmm|index|scatter|split)}}
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}}, %[[IDS]] experts(8)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<9xi32>) weights(%{{.*}} : tensor<8x96x32xf32>) transposed
// CHECK-NOT:     "torch.aten
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<9xi32>) weights(%{{.*}} : tensor<8x32x48xf32>) transposed
// CHECK:         moe.combine %[[Y]], %[[PLACES]] weights(
// CHECK-NOT:     "torch.aten
func.func @einsum(%x: !torch.vtensor<[12,32],f32>, %router: !torch.vtensor<[8,32],f32>,
    %up: !torch.vtensor<[8,96,32],f32>,
    %down: !torch.vtensor<[8,32,48],f32>)
    -> !torch.vtensor<[12,32],f32> {
  %0 = "torch.constant.int"() <{value = 1 : i64}> : () -> !torch.int
  %1 = "torch.constant.int"() <{value = 0 : i64}> : () -> !torch.int
  %2 = "torch.prim.ListConstruct"(%0, %1) : (!torch.int, !torch.int) -> !torch.list<int>
  %3 = "torch.aten.permute"(%router, %2) : (!torch.vtensor<[8,32],f32>, !torch.list<int>) -> !torch.vtensor<[32,8],f32>
  %4 = "torch.aten.mm"(%x, %3) : (!torch.vtensor<[12,32],f32>, !torch.vtensor<[32,8],f32>) -> !torch.vtensor<[12,8],f32>
  %5 = "torch.constant.int"() <{value = -1 : i64}> : () -> !torch.int
  %6 = "torch.constant.bool"() <{value = false}> : () -> !torch.bool
  %7 = "torch.aten._softmax"(%4, %5, %6) : (!torch.vtensor<[12,8],f32>, !torch.int, !torch.bool) -> !torch.vtensor<[12,8],f32>
  %8 = "torch.constant.int"() <{value = 3 : i64}> : () -> !torch.int
  %9 = "torch.constant.bool"() <{value = true}> : () -> !torch.bool
  %10:2 = "torch.aten.topk"(%7, %8, %5, %9, %9) : (!torch.vtensor<[12,8],f32>, !torch.int, !torch.int, !torch.bool, !torch.bool) -> (!torch.vtensor<[12,3],f32>, !torch.vtensor<[12,3],si64>)
  %11 = "torch.prim.ListConstruct"(%5) : (!torch.int) -> !torch.list<int>
  %12 = "torch.constant.none"() : () -> !torch.none
  %13 = "torch.aten.sum.dim_IntList"(%10#0, %11, %9, %12) : (!torch.vtensor<[12,3],f32>, !torch.list<int>, !torch.bool, !torch.none) -> !torch.vtensor<[12,1],f32>
  %14 = "torch.aten.div.Tensor"(%10#0, %13) : (!torch.vtensor<[12,3],f32>, !torch.vtensor<[12,1],f32>) -> !torch.vtensor<[12,3],f32>
  %15 = "torch.constant.int"() <{value = 6 : i64}> : () -> !torch.int
  %16 = "torch.constant.int"() <{value = 8 : i64}> : () -> !torch.int
  %17 = "torch.aten.one_hot"(%10#1, %16) : (!torch.vtensor<[12,3],si64>, !torch.int) -> !torch.vtensor<[12,3,8],si64>
  %18 = "torch.prims.convert_element_type"(%17, %15) : (!torch.vtensor<[12,3,8],si64>, !torch.int) -> !torch.vtensor<[12,3,8],f32>
  %19 = "torch.aten.unsqueeze"(%14, %5) : (!torch.vtensor<[12,3],f32>, !torch.int) -> !torch.vtensor<[12,3,1],f32>
  %20 = "torch.aten.mul.Tensor"(%18, %19) : (!torch.vtensor<[12,3,8],f32>, !torch.vtensor<[12,3,1],f32>) -> !torch.vtensor<[12,3,8],f32>
  %21 = "torch.prim.ListConstruct"(%0) : (!torch.int) -> !torch.list<int>
  %22 = "torch.aten.sum.dim_IntList"(%20, %21, %6, %12) : (!torch.vtensor<[12,3,8],f32>, !torch.list<int>, !torch.bool, !torch.none) -> !torch.vtensor<[12,8],f32>
  %23 = "torch.constant.int"() <{value = 2 : i64}> : () -> !torch.int
  %24 = "torch.aten.unsqueeze"(%x, %23) : (!torch.vtensor<[12,32],f32>, !torch.int) -> !torch.vtensor<[12,32,1],f32>
  %25 = "torch.aten.unsqueeze"(%24, %8) : (!torch.vtensor<[12,32,1],f32>, !torch.int) -> !torch.vtensor<[12,32,1,1],f32>
  %26 = "torch.prim.ListConstruct"(%1, %23, %8, %0) : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %27 = "torch.aten.permute"(%25, %26) : (!torch.vtensor<[12,32,1,1],f32>, !torch.list<int>) -> !torch.vtensor<[12,1,1,32],f32>
  %28 = "torch.aten.unsqueeze"(%up, %8) : (!torch.vtensor<[8,96,32],f32>, !torch.int) -> !torch.vtensor<[8,96,32,1],f32>
  %29 = "torch.prim.ListConstruct"(%8, %1, %0, %23) : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %30 = "torch.aten.permute"(%28, %29) : (!torch.vtensor<[8,96,32,1],f32>, !torch.list<int>) -> !torch.vtensor<[1,8,96,32],f32>
  %31 = "torch.prim.ListConstruct"(%1, %8, %0, %23) : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %32 = "torch.aten.permute"(%27, %31) : (!torch.vtensor<[12,1,1,32],f32>, !torch.list<int>) -> !torch.vtensor<[12,32,1,1],f32>
  %33 = "torch.constant.int"() <{value = 12 : i64}> : () -> !torch.int
  %34 = "torch.constant.int"() <{value = 32 : i64}> : () -> !torch.int
  %35 = "torch.prim.ListConstruct"(%0, %33, %34) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %36 = "torch.aten.view"(%32, %35) : (!torch.vtensor<[12,32,1,1],f32>, !torch.list<int>) -> !torch.vtensor<[1,12,32],f32>
  %37 = "torch.prim.ListConstruct"(%8, %0, %23, %1) : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %38 = "torch.aten.permute"(%30, %37) : (!torch.vtensor<[1,8,96,32],f32>, !torch.list<int>) -> !torch.vtensor<[32,8,96,1],f32>
  %39 = "torch.constant.int"() <{value = 768 : i64}> : () -> !torch.int
  %40 = "torch.prim.ListConstruct"(%0, %34, %39) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %41 = "torch.aten.view"(%38, %40) : (!torch.vtensor<[32,8,96,1],f32>, !torch.list<int>) -> !torch.vtensor<[1,32,768],f32>
  %42 = "torch.aten.bmm"(%36, %41) : (!torch.vtensor<[1,12,32],f32>, !torch.vtensor<[1,32,768],f32>) -> !torch.vtensor<[1,12,768],f32>
  %43 = "torch.constant.int"() <{value = 96 : i64}> : () -> !torch.int
  %44 = "torch.prim.ListConstruct"(%33, %0, %16, %43) : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %45 = "torch.aten.view"(%42, %44) : (!torch.vtensor<[1,12,768],f32>, !torch.list<int>) -> !torch.vtensor<[12,1,8,96],f32>
  %46 = "torch.aten.permute"(%45, %26) : (!torch.vtensor<[12,1,8,96],f32>, !torch.list<int>) -> !torch.vtensor<[12,8,96,1],f32>
  %47 = "torch.prim.ListConstruct"(%33, %16, %43) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %48 = "torch.aten.view"(%46, %47) : (!torch.vtensor<[12,8,96,1],f32>, !torch.list<int>) -> !torch.vtensor<[12,8,96],f32>
  %49 = "torch.constant.int"() <{value = 48 : i64}> : () -> !torch.int
  %50 = "torch.prim.ListConstruct"(%49, %49) : (!torch.int, !torch.int) -> !torch.list<int>
  %51 = "torch.aten.split_with_sizes"(%48, %50, %5) : (!torch.vtensor<[12,8,96],f32>, !torch.list<int>, !torch.int) -> !torch.list<vtensor>
  %52:2 = "torch.prim.ListUnpack"(%51) : (!torch.list<vtensor>) -> (!torch.vtensor<[12,8,48],f32>, !torch.vtensor<[12,8,48],f32>)
  %53 = "torch.aten.sigmoid"(%52#0) : (!torch.vtensor<[12,8,48],f32>) -> !torch.vtensor<[12,8,48],f32>
  %54 = "torch.aten.mul.Tensor"(%52#0, %53) : (!torch.vtensor<[12,8,48],f32>, !torch.vtensor<[12,8,48],f32>) -> !torch.vtensor<[12,8,48],f32>
  %55 = "torch.aten.mul.Tensor"(%54, %52#1) : (!torch.vtensor<[12,8,48],f32>, !torch.vtensor<[12,8,48],f32>) -> !torch.vtensor<[12,8,48],f32>
  %56 = "torch.aten.unsqueeze"(%55, %8) : (!torch.vtensor<[12,8,48],f32>, !torch.int) -> !torch.vtensor<[12,8,48,1],f32>
  %57 = "torch.prim.ListConstruct"(%1, %0, %8, %23) : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %58 = "torch.aten.permute"(%56, %57) : (!torch.vtensor<[12,8,48,1],f32>, !torch.list<int>) -> !torch.vtensor<[12,8,1,48],f32>
  %59 = "torch.aten.unsqueeze"(%down, %8) : (!torch.vtensor<[8,32,48],f32>, !torch.int) -> !torch.vtensor<[8,32,48,1],f32>
  %60 = "torch.aten.permute"(%59, %29) : (!torch.vtensor<[8,32,48,1],f32>, !torch.list<int>) -> !torch.vtensor<[1,8,32,48],f32>
  %61 = "torch.prim.ListConstruct"(%0, %1, %8, %23) : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %62 = "torch.aten.permute"(%58, %61) : (!torch.vtensor<[12,8,1,48],f32>, !torch.list<int>) -> !torch.vtensor<[8,12,48,1],f32>
  %63 = "torch.prim.ListConstruct"(%16, %33, %49) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %64 = "torch.aten.view"(%62, %63) : (!torch.vtensor<[8,12,48,1],f32>, !torch.list<int>) -> !torch.vtensor<[8,12,48],f32>
  %65 = "torch.prim.ListConstruct"(%0, %8, %23, %1) : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %66 = "torch.aten.permute"(%60, %65) : (!torch.vtensor<[1,8,32,48],f32>, !torch.list<int>) -> !torch.vtensor<[8,48,32,1],f32>
  %67 = "torch.prim.ListConstruct"(%16, %49, %34) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %68 = "torch.aten.view"(%66, %67) : (!torch.vtensor<[8,48,32,1],f32>, !torch.list<int>) -> !torch.vtensor<[8,48,32],f32>
  %69 = "torch.aten.bmm"(%64, %68) : (!torch.vtensor<[8,12,48],f32>, !torch.vtensor<[8,48,32],f32>) -> !torch.vtensor<[8,12,32],f32>
  %70 = "torch.prim.ListConstruct"(%16, %33, %0, %34) : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %71 = "torch.aten.view"(%69, %70) : (!torch.vtensor<[8,12,32],f32>, !torch.list<int>) -> !torch.vtensor<[8,12,1,32],f32>
  %72 = "torch.aten.permute"(%71, %61) : (!torch.vtensor<[8,12,1,32],f32>, !torch.list<int>) -> !torch.vtensor<[12,8,32,1],f32>
  %73 = "torch.prim.ListConstruct"(%33, %16, %34) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %74 = "torch.aten.view"(%72, %73) : (!torch.vtensor<[12,8,32,1],f32>, !torch.list<int>) -> !torch.vtensor<[12,8,32],f32>
  %75 = "torch.prim.ListConstruct"(%1, %23, %0) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %76 = "torch.aten.permute"(%74, %75) : (!torch.vtensor<[12,8,32],f32>, !torch.list<int>) -> !torch.vtensor<[12,32,8],f32>
  %77 = "torch.aten.unsqueeze"(%22, %23) : (!torch.vtensor<[12,8],f32>, !torch.int) -> !torch.vtensor<[12,8,1],f32>
  %78 = "torch.aten.permute"(%77, %75) : (!torch.vtensor<[12,8,1],f32>, !torch.list<int>) -> !torch.vtensor<[12,1,8],f32>
  %79 = "torch.prim.ListConstruct"(%1, %0, %23) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %80 = "torch.aten.permute"(%76, %79) : (!torch.vtensor<[12,32,8],f32>, !torch.list<int>) -> !torch.vtensor<[12,32,8],f32>
  %81 = "torch.prim.ListConstruct"(%33, %34, %16) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %82 = "torch.aten.view"(%80, %81) : (!torch.vtensor<[12,32,8],f32>, !torch.list<int>) -> !torch.vtensor<[12,32,8],f32>
  %83 = "torch.aten.permute"(%78, %75) : (!torch.vtensor<[12,1,8],f32>, !torch.list<int>) -> !torch.vtensor<[12,8,1],f32>
  %84 = "torch.prim.ListConstruct"(%33, %16, %0) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %85 = "torch.aten.view"(%83, %84) : (!torch.vtensor<[12,8,1],f32>, !torch.list<int>) -> !torch.vtensor<[12,8,1],f32>
  %86 = "torch.aten.bmm"(%82, %85) : (!torch.vtensor<[12,32,8],f32>, !torch.vtensor<[12,8,1],f32>) -> !torch.vtensor<[12,32,1],f32>
  %87 = "torch.prim.ListConstruct"(%33, %34, %0) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %88 = "torch.aten.view"(%86, %87) : (!torch.vtensor<[12,32,1],f32>, !torch.list<int>) -> !torch.vtensor<[12,32,1],f32>
  %89 = "torch.aten.permute"(%88, %79) : (!torch.vtensor<[12,32,1],f32>, !torch.list<int>) -> !torch.vtensor<[12,32,1],f32>
  %90 = "torch.prim.ListConstruct"(%33, %34) : (!torch.int, !torch.int) -> !torch.list<int>
  %91 = "torch.aten.view"(%89, %90) : (!torch.vtensor<[12,32,1],f32>, !torch.list<int>) -> !torch.vtensor<[12,32],f32>
  return %91 : !torch.vtensor<[12,32],f32>
}

// -----

// Places by cumsum, masks of slots: a capacity, with any number of tokens.

// CHECK-LABEL: func.func @capacity(
// CHECK:         %[[SCORES:.*]] = linalg.softmax dimension(1)
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate %[[SCORES]] top_k(3) score(none)
// CHECK-NOT:     "torch.aten.{{(topk|_softmax|sort|one_hot|cumsum|bmm|index|scatter|split)}}
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}}, %[[IDS]] experts(8) capacity(<fixed = 6>)
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<9xi32>) weights(%{{.*}} : tensor<8x96x32xf32>) transposed
// CHECK-NOT:     "torch.aten
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<9xi32>) weights(%{{.*}} : tensor<8x32x48xf32>) transposed
// CHECK:         moe.combine %[[Y]], %[[PLACES]] weights(
// CHECK-NOT:     "torch.aten
func.func @capacity(%x: !torch.vtensor<[?,32],f32>, %router: !torch.vtensor<[8,32],f32>,
    %up: !torch.vtensor<[8,96,32],f32>,
    %down: !torch.vtensor<[8,32,48],f32>)
    -> !torch.vtensor<[?,32],f32> {
  %0 = "torch.constant.int"() <{value = 0 : i64}> : () -> !torch.int
  %1 = "torch.aten.size.int"(%x, %0) : (!torch.vtensor<[?,32],f32>, !torch.int) -> !torch.int
  %2 = "torch.constant.int"() <{value = 1 : i64}> : () -> !torch.int
  %3 = "torch.prim.ListConstruct"(%2, %0) : (!torch.int, !torch.int) -> !torch.list<int>
  %4 = "torch.aten.permute"(%router, %3) : (!torch.vtensor<[8,32],f32>, !torch.list<int>) -> !torch.vtensor<[32,8],f32>
  %5 = "torch.aten.mm"(%x, %4) : (!torch.vtensor<[?,32],f32>, !torch.vtensor<[32,8],f32>) -> !torch.vtensor<[?,8],f32>
  %6 = "torch.constant.int"() <{value = -1 : i64}> : () -> !torch.int
  %7 = "torch.constant.bool"() <{value = false}> : () -> !torch.bool
  %8 = "torch.aten._softmax"(%5, %6, %7) : (!torch.vtensor<[?,8],f32>, !torch.int, !torch.bool) -> !torch.vtensor<[?,8],f32>
  %9 = "torch.constant.int"() <{value = 3 : i64}> : () -> !torch.int
  %10 = "torch.constant.bool"() <{value = true}> : () -> !torch.bool
  %11:2 = "torch.aten.topk"(%8, %9, %6, %10, %10) : (!torch.vtensor<[?,8],f32>, !torch.int, !torch.int, !torch.bool, !torch.bool) -> (!torch.vtensor<[?,3],f32>, !torch.vtensor<[?,3],si64>)
  %12 = "torch.prim.ListConstruct"(%6) : (!torch.int) -> !torch.list<int>
  %13 = "torch.constant.none"() : () -> !torch.none
  %14 = "torch.aten.sum.dim_IntList"(%11#0, %12, %10, %13) : (!torch.vtensor<[?,3],f32>, !torch.list<int>, !torch.bool, !torch.none) -> !torch.vtensor<[?,1],f32>
  %15 = "torch.aten.div.Tensor"(%11#0, %14) : (!torch.vtensor<[?,3],f32>, !torch.vtensor<[?,1],f32>) -> !torch.vtensor<[?,3],f32>
  %16 = "torch.constant.int"() <{value = 6 : i64}> : () -> !torch.int
  %17 = "torch.aten.view"(%11#1, %12) : (!torch.vtensor<[?,3],si64>, !torch.list<int>) -> !torch.vtensor<[?],si64>
  %18 = "torch.constant.int"() <{value = 8 : i64}> : () -> !torch.int
  %19 = "torch.aten.one_hot"(%17, %18) : (!torch.vtensor<[?],si64>, !torch.int) -> !torch.vtensor<[?,8],si64>
  %20 = "torch.aten.cumsum"(%19, %0, %13) : (!torch.vtensor<[?,8],si64>, !torch.int, !torch.none) -> !torch.vtensor<[?,8],si64>
  %21 = "torch.aten.sub.Scalar"(%20, %2, %2) : (!torch.vtensor<[?,8],si64>, !torch.int, !torch.int) -> !torch.vtensor<[?,8],si64>
  %22 = "torch.aten.mul.Tensor"(%21, %19) : (!torch.vtensor<[?,8],si64>, !torch.vtensor<[?,8],si64>) -> !torch.vtensor<[?,8],si64>
  %23 = "torch.aten.sum.dim_IntList"(%22, %12, %7, %13) : (!torch.vtensor<[?,8],si64>, !torch.list<int>, !torch.bool, !torch.none) -> !torch.vtensor<[?],si64>
  %24 = "torch.aten.lt.Scalar"(%23, %16) : (!torch.vtensor<[?],si64>, !torch.int) -> !torch.vtensor<[?],i1>
  %25 = "torch.constant.int"() <{value = 5 : i64}> : () -> !torch.int
  %26 = "torch.aten.clamp"(%23, %13, %25) : (!torch.vtensor<[?],si64>, !torch.none, !torch.int) -> !torch.vtensor<[?],si64>
  %27 = "torch.aten.one_hot"(%26, %16) : (!torch.vtensor<[?],si64>, !torch.int) -> !torch.vtensor<[?,6],si64>
  %28 = "torch.prims.convert_element_type"(%27, %16) : (!torch.vtensor<[?,6],si64>, !torch.int) -> !torch.vtensor<[?,6],f32>
  %29 = "torch.aten.unsqueeze"(%24, %6) : (!torch.vtensor<[?],i1>, !torch.int) -> !torch.vtensor<[?,1],i1>
  %30 = "torch.prims.convert_element_type"(%29, %16) : (!torch.vtensor<[?,1],i1>, !torch.int) -> !torch.vtensor<[?,1],f32>
  %31 = "torch.aten.mul.Tensor"(%28, %30) : (!torch.vtensor<[?,6],f32>, !torch.vtensor<[?,1],f32>) -> !torch.vtensor<[?,6],f32>
  %32 = "torch.prims.convert_element_type"(%19, %16) : (!torch.vtensor<[?,8],si64>, !torch.int) -> !torch.vtensor<[?,8],f32>
  %33 = "torch.aten.unsqueeze"(%32, %6) : (!torch.vtensor<[?,8],f32>, !torch.int) -> !torch.vtensor<[?,8,1],f32>
  %34 = "torch.aten.unsqueeze"(%31, %2) : (!torch.vtensor<[?,6],f32>, !torch.int) -> !torch.vtensor<[?,1,6],f32>
  %35 = "torch.aten.mul.Tensor"(%33, %34) : (!torch.vtensor<[?,8,1],f32>, !torch.vtensor<[?,1,6],f32>) -> !torch.vtensor<[?,8,6],f32>
  %36 = "torch.prim.ListConstruct"(%6, %9, %18, %16) : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %37 = "torch.aten.view"(%35, %36) : (!torch.vtensor<[?,8,6],f32>, !torch.list<int>) -> !torch.vtensor<[?,3,8,6],f32>
  %38 = "torch.prim.ListConstruct"(%2) : (!torch.int) -> !torch.list<int>
  %39 = "torch.aten.sum.dim_IntList"(%37, %38, %7, %13) : (!torch.vtensor<[?,3,8,6],f32>, !torch.list<int>, !torch.bool, !torch.none) -> !torch.vtensor<[?,8,6],f32>
  %40 = "torch.aten.unsqueeze"(%15, %6) : (!torch.vtensor<[?,3],f32>, !torch.int) -> !torch.vtensor<[?,3,1],f32>
  %41 = "torch.aten.unsqueeze"(%40, %6) : (!torch.vtensor<[?,3,1],f32>, !torch.int) -> !torch.vtensor<[?,3,1,1],f32>
  %42 = "torch.aten.mul.Tensor"(%37, %41) : (!torch.vtensor<[?,3,8,6],f32>, !torch.vtensor<[?,3,1,1],f32>) -> !torch.vtensor<[?,3,8,6],f32>
  %43 = "torch.aten.sum.dim_IntList"(%42, %38, %7, %13) : (!torch.vtensor<[?,3,8,6],f32>, !torch.list<int>, !torch.bool, !torch.none) -> !torch.vtensor<[?,8,6],f32>
  %44 = "torch.aten.unsqueeze"(%39, %9) : (!torch.vtensor<[?,8,6],f32>, !torch.int) -> !torch.vtensor<[?,8,6,1],f32>
  %45 = "torch.constant.int"() <{value = 2 : i64}> : () -> !torch.int
  %46 = "torch.prim.ListConstruct"(%2, %45, %9, %0) : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %47 = "torch.aten.permute"(%44, %46) : (!torch.vtensor<[?,8,6,1],f32>, !torch.list<int>) -> !torch.vtensor<[8,6,1,?],f32>
  %48 = "torch.aten.unsqueeze"(%x, %45) : (!torch.vtensor<[?,32],f32>, !torch.int) -> !torch.vtensor<[?,32,1],f32>
  %49 = "torch.aten.unsqueeze"(%48, %9) : (!torch.vtensor<[?,32,1],f32>, !torch.int) -> !torch.vtensor<[?,32,1,1],f32>
  %50 = "torch.prim.ListConstruct"(%45, %9, %2, %0) : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %51 = "torch.aten.permute"(%49, %50) : (!torch.vtensor<[?,32,1,1],f32>, !torch.list<int>) -> !torch.vtensor<[1,1,32,?],f32>
  %52 = "torch.prim.ListConstruct"(%0, %2, %9, %45) : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %53 = "torch.aten.permute"(%47, %52) : (!torch.vtensor<[8,6,1,?],f32>, !torch.list<int>) -> !torch.vtensor<[8,6,?,1],f32>
  %54 = "torch.constant.int"() <{value = 48 : i64}> : () -> !torch.int
  %55 = "torch.prim.ListConstruct"(%2, %54, %1) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %56 = "torch.aten.view"(%53, %55) : (!torch.vtensor<[8,6,?,1],f32>, !torch.list<int>) -> !torch.vtensor<[1,48,?],f32>
  %57 = "torch.prim.ListConstruct"(%9, %45, %0, %2) : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %58 = "torch.aten.permute"(%51, %57) : (!torch.vtensor<[1,1,32,?],f32>, !torch.list<int>) -> !torch.vtensor<[?,32,1,1],f32>
  %59 = "torch.constant.int"() <{value = 32 : i64}> : () -> !torch.int
  %60 = "torch.prim.ListConstruct"(%2, %1, %59) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %61 = "torch.aten.view"(%58, %60) : (!torch.vtensor<[?,32,1,1],f32>, !torch.list<int>) -> !torch.vtensor<[1,?,32],f32>
  %62 = "torch.aten.bmm"(%56, %61) : (!torch.vtensor<[1,48,?],f32>, !torch.vtensor<[1,?,32],f32>) -> !torch.vtensor<[1,48,32],f32>
  %63 = "torch.prim.ListConstruct"(%18, %16, %2, %59) : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %64 = "torch.aten.view"(%62, %63) : (!torch.vtensor<[1,48,32],f32>, !torch.list<int>) -> !torch.vtensor<[8,6,1,32],f32>
  %65 = "torch.aten.permute"(%64, %52) : (!torch.vtensor<[8,6,1,32],f32>, !torch.list<int>) -> !torch.vtensor<[8,6,32,1],f32>
  %66 = "torch.prim.ListConstruct"(%18, %16, %59) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %67 = "torch.aten.view"(%65, %66) : (!torch.vtensor<[8,6,32,1],f32>, !torch.list<int>) -> !torch.vtensor<[8,6,32],f32>
  %68 = "torch.prim.ListConstruct"(%0, %45, %2) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %69 = "torch.aten.permute"(%up, %68) : (!torch.vtensor<[8,96,32],f32>, !torch.list<int>) -> !torch.vtensor<[8,32,96],f32>
  %70 = "torch.aten.bmm"(%67, %69) : (!torch.vtensor<[8,6,32],f32>, !torch.vtensor<[8,32,96],f32>) -> !torch.vtensor<[8,6,96],f32>
  %71 = "torch.prim.ListConstruct"(%54, %54) : (!torch.int, !torch.int) -> !torch.list<int>
  %72 = "torch.aten.split_with_sizes"(%70, %71, %6) : (!torch.vtensor<[8,6,96],f32>, !torch.list<int>, !torch.int) -> !torch.list<vtensor>
  %73:2 = "torch.prim.ListUnpack"(%72) : (!torch.list<vtensor>) -> (!torch.vtensor<[8,6,48],f32>, !torch.vtensor<[8,6,48],f32>)
  %74 = "torch.aten.sigmoid"(%73#0) : (!torch.vtensor<[8,6,48],f32>) -> !torch.vtensor<[8,6,48],f32>
  %75 = "torch.aten.mul.Tensor"(%73#0, %74) : (!torch.vtensor<[8,6,48],f32>, !torch.vtensor<[8,6,48],f32>) -> !torch.vtensor<[8,6,48],f32>
  %76 = "torch.aten.mul.Tensor"(%75, %73#1) : (!torch.vtensor<[8,6,48],f32>, !torch.vtensor<[8,6,48],f32>) -> !torch.vtensor<[8,6,48],f32>
  %77 = "torch.aten.permute"(%down, %68) : (!torch.vtensor<[8,32,48],f32>, !torch.list<int>) -> !torch.vtensor<[8,48,32],f32>
  %78 = "torch.aten.bmm"(%76, %77) : (!torch.vtensor<[8,6,48],f32>, !torch.vtensor<[8,48,32],f32>) -> !torch.vtensor<[8,6,32],f32>
  %79 = "torch.aten.unsqueeze"(%43, %9) : (!torch.vtensor<[?,8,6],f32>, !torch.int) -> !torch.vtensor<[?,8,6,1],f32>
  %80 = "torch.prim.ListConstruct"(%0, %9, %45, %2) : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %81 = "torch.aten.permute"(%79, %80) : (!torch.vtensor<[?,8,6,1],f32>, !torch.list<int>) -> !torch.vtensor<[?,1,6,8],f32>
  %82 = "torch.aten.unsqueeze"(%78, %9) : (!torch.vtensor<[8,6,32],f32>, !torch.int) -> !torch.vtensor<[8,6,32,1],f32>
  %83 = "torch.prim.ListConstruct"(%9, %45, %2, %0) : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %84 = "torch.aten.permute"(%82, %83) : (!torch.vtensor<[8,6,32,1],f32>, !torch.list<int>) -> !torch.vtensor<[1,32,6,8],f32>
  %85 = "torch.prim.ListConstruct"(%0, %45, %9, %2) : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %86 = "torch.aten.permute"(%81, %85) : (!torch.vtensor<[?,1,6,8],f32>, !torch.list<int>) -> !torch.vtensor<[?,6,8,1],f32>
  %87 = "torch.aten.clone"(%86, %0) : (!torch.vtensor<[?,6,8,1],f32>, !torch.int) -> !torch.vtensor<[?,6,8,1],f32>
  %88 = "torch.prim.ListConstruct"(%2, %1, %54) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %89 = "torch.aten.view"(%87, %88) : (!torch.vtensor<[?,6,8,1],f32>, !torch.list<int>) -> !torch.vtensor<[1,?,48],f32>
  %90 = "torch.aten.permute"(%84, %50) : (!torch.vtensor<[1,32,6,8],f32>, !torch.list<int>) -> !torch.vtensor<[6,8,32,1],f32>
  %91 = "torch.aten.clone"(%90, %0) : (!torch.vtensor<[6,8,32,1],f32>, !torch.int) -> !torch.vtensor<[6,8,32,1],f32>
  %92 = "torch.prim.ListConstruct"(%2, %54, %59) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %93 = "torch.aten.view"(%91, %92) : (!torch.vtensor<[6,8,32,1],f32>, !torch.list<int>) -> !torch.vtensor<[1,48,32],f32>
  %94 = "torch.aten.bmm"(%89, %93) : (!torch.vtensor<[1,?,48],f32>, !torch.vtensor<[1,48,32],f32>) -> !torch.vtensor<[1,?,32],f32>
  %95 = "torch.prim.ListConstruct"(%1, %2, %2, %59) : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %96 = "torch.aten.view"(%94, %95) : (!torch.vtensor<[1,?,32],f32>, !torch.list<int>) -> !torch.vtensor<[?,1,1,32],f32>
  %97 = "torch.prim.ListConstruct"(%0, %9, %2, %45) : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %98 = "torch.aten.permute"(%96, %97) : (!torch.vtensor<[?,1,1,32],f32>, !torch.list<int>) -> !torch.vtensor<[?,32,1,1],f32>
  %99 = "torch.prim.ListConstruct"(%1, %59) : (!torch.int, !torch.int) -> !torch.list<int>
  %100 = "torch.aten.view"(%98, %99) : (!torch.vtensor<[?,32,1,1],f32>, !torch.list<int>) -> !torch.vtensor<[?,32],f32>
  return %100 : !torch.vtensor<[?,32],f32>
}
