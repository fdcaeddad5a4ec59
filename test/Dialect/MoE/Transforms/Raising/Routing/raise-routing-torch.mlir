// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-routing --moe-raise-grouped | FileCheck %s
// Bins up to their number, which no id is, are the same.
// RUN: sed 's/value = 7 : i64/value = 8 : i64/' %s | moe-opt - --split-input-file --allow-unregistered-dialect --moe-raise-routing --moe-raise-grouped | FileCheck %s
// RUN: sed 's/value = 7 : i64/value = 6 : i64/' %s | moe-opt - --split-input-file --allow-unregistered-dialect --moe-raise-routing --moe-raise-grouped | FileCheck %s --check-prefix=BINS
// BINS: "torch.aten.histc"

// transformers' "grouped_mm" experts, as torch-mlir imports them, with any number of
// tokens: what is between the products stays an operation of torch.

// CHECK-LABEL: func.func @grouped(
// CHECK:         %[[SCORES:.*]] = linalg.softmax dimension(1)
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate %[[SCORES]] top_k(3) score(none)
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}}, %[[IDS]] experts(8)
// CHECK-NOT:     "torch.aten.{{(topk|_softmax|sort|argsort|one_hot|histc|cumsum|index)}}
// CHECK-NOT:     linalg.fill{{.*}}x96x
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<9xi32>) weights(%{{.*}} : tensor<8x96x32xf32>) transposed
// CHECK:         "torch.aten.mul.Tensor"
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<9xi32>) weights(%{{.*}} : tensor<8x32x48xf32>) transposed
// CHECK:         moe.combine %[[Y]], %[[PLACES]] weights(
// CHECK-NOT:     "torch.aten.{{(index|sum)}}
// CHECK:         return
func.func @grouped(%x: !torch.vtensor<[?,32],f32>, %router: !torch.vtensor<[8,32],f32>,
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
  %18 = "torch.aten.view"(%11#1, %12) : (!torch.vtensor<[?,3],si64>, !torch.list<int>) -> !torch.vtensor<[?],si64>
  %19 = "torch.aten.view"(%15, %12) : (!torch.vtensor<[?,3],f32>, !torch.list<int>) -> !torch.vtensor<[?],f32>
  %20:2 = "torch.aten.sort"(%18, %6, %7) : (!torch.vtensor<[?],si64>, !torch.int, !torch.bool) -> (!torch.vtensor<[?],si64>, !torch.vtensor<[?],si64>)
  %21 = "torch.prim.NumToTensor.Scalar"(%9) : (!torch.int) -> !torch.vtensor<[],si64>
  %22 = "torch.constant.str"() <{value = "floor"}> : () -> !torch.str
  %23 = "torch.aten.div.Tensor_mode"(%20#1, %21, %22) : (!torch.vtensor<[?],si64>, !torch.vtensor<[],si64>, !torch.str) -> !torch.vtensor<[?],si64>
  %24 = "torch.prim.ListConstruct"(%23) : (!torch.vtensor<[?],si64>) -> !torch.list<optional<vtensor>>
  %25 = "torch.aten.index.Tensor"(%x, %24) : (!torch.vtensor<[?,32],f32>, !torch.list<optional<vtensor>>) -> !torch.vtensor<[?,32],f32>
  %26 = "torch.prim.ListConstruct"(%20#1) : (!torch.vtensor<[?],si64>) -> !torch.list<optional<vtensor>>
  %27 = "torch.aten.index.Tensor"(%19, %26) : (!torch.vtensor<[?],f32>, !torch.list<optional<vtensor>>) -> !torch.vtensor<[?],f32>
  %28 = "torch.prims.convert_element_type"(%20#0, %16) : (!torch.vtensor<[?],si64>, !torch.int) -> !torch.vtensor<[?],f32>
  %29 = "torch.constant.int"() <{value = 8 : i64}> : () -> !torch.int
  %30 = "torch.constant.int"() <{value = 7 : i64}> : () -> !torch.int
  %31 = "torch.operator"(%28, %29, %0, %30) <{name = "torch.aten.histc"}> : (!torch.vtensor<[?],f32>, !torch.int, !torch.int, !torch.int) -> !torch.vtensor<[8],f32>
  %32 = "torch.aten.cumsum"(%31, %0, %9) : (!torch.vtensor<[8],f32>, !torch.int, !torch.int) -> !torch.vtensor<[8],si32>
  %33 = "torch.constant.int"() <{value = 2 : i64}> : () -> !torch.int
  %34 = "torch.prim.ListConstruct"(%0, %33, %2) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %35 = "torch.aten.permute"(%up, %34) : (!torch.vtensor<[8,96,32],f32>, !torch.list<int>) -> !torch.vtensor<[8,32,96],f32>
  %36 = "torch.operator"(%25, %35, %32) <{name = "torch.transformers.grouped_mm_fallback"}> : (!torch.vtensor<[?,32],f32>, !torch.vtensor<[8,32,96],f32>, !torch.vtensor<[8],si32>) -> !torch.vtensor<[?,96],f32>
  %37 = "torch.constant.int"() <{value = 48 : i64}> : () -> !torch.int
  %38 = "torch.prim.ListConstruct"(%37, %37) : (!torch.int, !torch.int) -> !torch.list<int>
  %39 = "torch.aten.split_with_sizes"(%36, %38, %6) : (!torch.vtensor<[?,96],f32>, !torch.list<int>, !torch.int) -> !torch.list<vtensor>
  %40:2 = "torch.prim.ListUnpack"(%39) : (!torch.list<vtensor>) -> (!torch.vtensor<[?,48],f32>, !torch.vtensor<[?,48],f32>)
  %41 = "torch.aten.sigmoid"(%40#0) : (!torch.vtensor<[?,48],f32>) -> !torch.vtensor<[?,48],f32>
  %42 = "torch.aten.mul.Tensor"(%40#0, %41) : (!torch.vtensor<[?,48],f32>, !torch.vtensor<[?,48],f32>) -> !torch.vtensor<[?,48],f32>
  %43 = "torch.aten.mul.Tensor"(%42, %40#1) : (!torch.vtensor<[?,48],f32>, !torch.vtensor<[?,48],f32>) -> !torch.vtensor<[?,48],f32>
  %44 = "torch.aten.permute"(%down, %34) : (!torch.vtensor<[8,32,48],f32>, !torch.list<int>) -> !torch.vtensor<[8,48,32],f32>
  %45 = "torch.operator"(%43, %44, %32) <{name = "torch.transformers.grouped_mm_fallback"}> : (!torch.vtensor<[?,48],f32>, !torch.vtensor<[8,48,32],f32>, !torch.vtensor<[8],si32>) -> !torch.vtensor<[?,32],f32>
  %46 = "torch.aten.unsqueeze"(%27, %6) : (!torch.vtensor<[?],f32>, !torch.int) -> !torch.vtensor<[?,1],f32>
  %47 = "torch.aten.mul.Tensor"(%45, %46) : (!torch.vtensor<[?,32],f32>, !torch.vtensor<[?,1],f32>) -> !torch.vtensor<[?,32],f32>
  %48 = "torch.aten.empty_like"(%20#1, %13, %13, %13, %7, %13) : (!torch.vtensor<[?],si64>, !torch.none, !torch.none, !torch.none, !torch.bool, !torch.none) -> !torch.vtensor<[?],si64>
  %49 = "torch.aten.mul.int"(%9, %1) : (!torch.int, !torch.int) -> !torch.int
  %50 = "torch.aten.arange.start_step"(%0, %49, %2, %13, %0, %17, %7) : (!torch.int, !torch.int, !torch.int, !torch.none, !torch.int, !torch.Device, !torch.bool) -> !torch.vtensor<[?],si64>
  %51 = "torch.aten.index_put"(%48, %26, %50, %7) : (!torch.vtensor<[?],si64>, !torch.list<optional<vtensor>>, !torch.vtensor<[?],si64>, !torch.bool) -> !torch.vtensor<[?],si64>
  %52 = "torch.prim.ListConstruct"(%51) : (!torch.vtensor<[?],si64>) -> !torch.list<optional<vtensor>>
  %53 = "torch.aten.index.Tensor"(%47, %52) : (!torch.vtensor<[?,32],f32>, !torch.list<optional<vtensor>>) -> !torch.vtensor<[?,32],f32>
  %54 = "torch.constant.int"() <{value = 32 : i64}> : () -> !torch.int
  %55 = "torch.prim.ListConstruct"(%6, %9, %54) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %56 = "torch.aten.view"(%53, %55) : (!torch.vtensor<[?,32],f32>, !torch.list<int>) -> !torch.vtensor<[?,3,32],f32>
  %57 = "torch.prim.ListConstruct"(%2) : (!torch.int) -> !torch.list<int>
  %58 = "torch.aten.sum.dim_IntList"(%56, %57, %7, %13) : (!torch.vtensor<[?,3,32],f32>, !torch.list<int>, !torch.bool, !torch.none) -> !torch.vtensor<[?,32],f32>
  return %58 : !torch.vtensor<[?,32],f32>
}

// -----

// Counts by a sum of one_hot, tokens by repeat_interleave, rows that are added.

// CHECK-LABEL: func.func @index_add(
// CHECK:         %[[SCORES:.*]] = linalg.softmax dimension(1)
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate %[[SCORES]] top_k(3) score(none)
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}}, %[[IDS]] experts(8)
// CHECK-NOT:     "torch.aten.{{(topk|_softmax|sort|argsort|one_hot|histc|cumsum|index)}}
// CHECK-NOT:     linalg.fill{{.*}}x96x
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<9xi32>) weights(%{{.*}} : tensor<8x96x32xf32>) transposed
// CHECK:         "torch.aten.mul.Tensor"
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<9xi32>) weights(%{{.*}} : tensor<8x32x48xf32>) transposed
// CHECK:         moe.combine %[[Y]], %[[PLACES]] weights(
// CHECK-NOT:     "torch.aten.{{(index|index_add)}}
// CHECK:         return
func.func @index_add(%x: !torch.vtensor<[12,32],f32>, %router: !torch.vtensor<[8,32],f32>,
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
  %15 = "torch.constant.device"() <{value = "cpu"}> : () -> !torch.Device
  %16 = "torch.constant.int"() <{value = 36 : i64}> : () -> !torch.int
  %17 = "torch.prim.ListConstruct"(%16) : (!torch.int) -> !torch.list<int>
  %18 = "torch.aten.view"(%10#1, %17) : (!torch.vtensor<[12,3],si64>, !torch.list<int>) -> !torch.vtensor<[36],si64>
  %19:2 = "torch.operator"(%18, %9, %5, %6) <{name = "torch.aten.sort.stable"}> : (!torch.vtensor<[36],si64>, !torch.bool, !torch.int, !torch.bool) -> (!torch.vtensor<[36],si64>, !torch.vtensor<[36],si64>)
  %20 = "torch.constant.int"() <{value = 12 : i64}> : () -> !torch.int
  %21 = "torch.aten.arange.start_step"(%1, %20, %0, %12, %1, %15, %6) : (!torch.int, !torch.int, !torch.int, !torch.none, !torch.int, !torch.Device, !torch.bool) -> !torch.vtensor<[12],si64>
  %22 = "torch.aten.unsqueeze"(%21, %0) : (!torch.vtensor<[12],si64>, !torch.int) -> !torch.vtensor<[12,1],si64>
  %23 = "torch.prim.ListConstruct"(%20, %8) : (!torch.int, !torch.int) -> !torch.list<int>
  %24 = "torch.aten.expand"(%22, %23, %6) : (!torch.vtensor<[12,1],si64>, !torch.list<int>, !torch.bool) -> !torch.vtensor<[12,3],si64>
  %25 = "torch.aten.clone"(%24, %1) : (!torch.vtensor<[12,3],si64>, !torch.int) -> !torch.vtensor<[12,3],si64>
  %26 = "torch.aten.view"(%25, %17) : (!torch.vtensor<[12,3],si64>, !torch.list<int>) -> !torch.vtensor<[36],si64>
  %27 = "torch.prim.ListConstruct"(%19#1) : (!torch.vtensor<[36],si64>) -> !torch.list<optional<vtensor>>
  %28 = "torch.aten.index.Tensor"(%26, %27) : (!torch.vtensor<[36],si64>, !torch.list<optional<vtensor>>) -> !torch.vtensor<[36],si64>
  %29 = "torch.constant.int"() <{value = 8 : i64}> : () -> !torch.int
  %30 = "torch.aten.one_hot"(%18, %29) : (!torch.vtensor<[36],si64>, !torch.int) -> !torch.vtensor<[36,8],si64>
  %31 = "torch.prim.ListConstruct"(%1) : (!torch.int) -> !torch.list<int>
  %32 = "torch.aten.sum.dim_IntList"(%30, %31, %6, %12) : (!torch.vtensor<[36,8],si64>, !torch.list<int>, !torch.bool, !torch.none) -> !torch.vtensor<[8],si64>
  %33 = "torch.aten.cumsum"(%32, %1, %12) : (!torch.vtensor<[8],si64>, !torch.int, !torch.none) -> !torch.vtensor<[8],si64>
  %34 = "torch.prims.convert_element_type"(%33, %8) : (!torch.vtensor<[8],si64>, !torch.int) -> !torch.vtensor<[8],si32>
  %35 = "torch.aten.index_select"(%x, %1, %28) : (!torch.vtensor<[12,32],f32>, !torch.int, !torch.vtensor<[36],si64>) -> !torch.vtensor<[36,32],f32>
  %36 = "torch.constant.int"() <{value = 2 : i64}> : () -> !torch.int
  %37 = "torch.prim.ListConstruct"(%1, %36, %0) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %38 = "torch.aten.permute"(%up, %37) : (!torch.vtensor<[8,96,32],f32>, !torch.list<int>) -> !torch.vtensor<[8,32,96],f32>
  %39 = "torch.operator"(%35, %38, %34) <{name = "torch.transformers.grouped_mm_fallback"}> : (!torch.vtensor<[36,32],f32>, !torch.vtensor<[8,32,96],f32>, !torch.vtensor<[8],si32>) -> !torch.vtensor<[36,96],f32>
  %40 = "torch.constant.int"() <{value = 48 : i64}> : () -> !torch.int
  %41 = "torch.prim.ListConstruct"(%40, %40) : (!torch.int, !torch.int) -> !torch.list<int>
  %42 = "torch.aten.split_with_sizes"(%39, %41, %5) : (!torch.vtensor<[36,96],f32>, !torch.list<int>, !torch.int) -> !torch.list<vtensor>
  %43:2 = "torch.prim.ListUnpack"(%42) : (!torch.list<vtensor>) -> (!torch.vtensor<[36,48],f32>, !torch.vtensor<[36,48],f32>)
  %44 = "torch.aten.sigmoid"(%43#0) : (!torch.vtensor<[36,48],f32>) -> !torch.vtensor<[36,48],f32>
  %45 = "torch.aten.mul.Tensor"(%43#0, %44) : (!torch.vtensor<[36,48],f32>, !torch.vtensor<[36,48],f32>) -> !torch.vtensor<[36,48],f32>
  %46 = "torch.aten.mul.Tensor"(%45, %43#1) : (!torch.vtensor<[36,48],f32>, !torch.vtensor<[36,48],f32>) -> !torch.vtensor<[36,48],f32>
  %47 = "torch.aten.permute"(%down, %37) : (!torch.vtensor<[8,32,48],f32>, !torch.list<int>) -> !torch.vtensor<[8,48,32],f32>
  %48 = "torch.operator"(%46, %47, %34) <{name = "torch.transformers.grouped_mm_fallback"}> : (!torch.vtensor<[36,48],f32>, !torch.vtensor<[8,48,32],f32>, !torch.vtensor<[8],si32>) -> !torch.vtensor<[36,32],f32>
  %49 = "torch.aten.view"(%14, %17) : (!torch.vtensor<[12,3],f32>, !torch.list<int>) -> !torch.vtensor<[36],f32>
  %50 = "torch.aten.index.Tensor"(%49, %27) : (!torch.vtensor<[36],f32>, !torch.list<optional<vtensor>>) -> !torch.vtensor<[36],f32>
  %51 = "torch.aten.unsqueeze"(%50, %5) : (!torch.vtensor<[36],f32>, !torch.int) -> !torch.vtensor<[36,1],f32>
  %52 = "torch.aten.mul.Tensor"(%48, %51) : (!torch.vtensor<[36,32],f32>, !torch.vtensor<[36,1],f32>) -> !torch.vtensor<[36,32],f32>
  %53 = "torch.aten.full_like"(%x, %1, %12, %12, %12, %6, %0) : (!torch.vtensor<[12,32],f32>, !torch.int, !torch.none, !torch.none, !torch.none, !torch.bool, !torch.int) -> !torch.vtensor<[12,32],f32>
  %54 = "torch.prim.ListConstruct"(%28) : (!torch.vtensor<[36],si64>) -> !torch.list<optional<vtensor>>
  %55 = "torch.aten.index_put"(%53, %54, %52, %9) : (!torch.vtensor<[12,32],f32>, !torch.list<optional<vtensor>>, !torch.vtensor<[36,32],f32>, !torch.bool) -> !torch.vtensor<[12,32],f32>
  return %55 : !torch.vtensor<[12,32],f32>
}
