// RUN: moe-opt %s --allow-unregistered-dialect --moe-raise-routing | FileCheck %s

// Llama 4 as torch-mlir imports it: all experts on all tokens, whose rows are
// weighed before; of rows of zeros the experts make zeros.

// CHECK-LABEL: func.func @scaled(
// CHECK:         %[[W:.*]], %[[IDS:.*]] = moe.gate
// CHECK:         %[[NEG:.*]] = arith.negf %[[W]]
// CHECK:         %[[EXP:.*]] = math.exp %[[NEG]]
// CHECK:         %[[SUM:.*]] = arith.addf %{{.*}}, %[[EXP]]
// CHECK:         %[[SIGMOID:.*]] = arith.divf %{{.*}}, %[[SUM]]
// CHECK:         %[[ROWS:.*]], %[[OFFSETS:.*]], %[[PLACES:.*]] = moe.dispatch %{{.*}}, %[[IDS]] weights(%[[SIGMOID]] : tensor<12x3xf32>) experts(8) scale_rows
// CHECK:         moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<9xi32>) weights(%{{.*}} : tensor<8x96x32xf32>) transposed
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[OFFSETS]] : tensor<9xi32>) weights(%{{.*}} : tensor<8x32x48xf32>) transposed
// CHECK:         moe.combine %[[Y]], %[[PLACES]] : tensor<36x32xf32>
// CHECK-NOT:     "torch.aten.{{(topk|scatter|bmm|sum)}}

// Scores of -1 for the others; a function that is not 0 of -inf; experts that do
// not make zeros of zeros; rows that are added to, not multiplied.
// RUN: sed 's/0xFFF0000000000000/-1.000000e+00/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/"torch.aten.sigmoid"(%18)/"torch.aten.tanh"(%18)/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/(%63, %61#1)/(%62, %62)/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// RUN: sed 's/"torch.aten.mul.Tensor"(%33, %43)/"torch.aten.maximum"(%33, %43)/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE

// NONE:     moe.gate
// NONE-NOT: moe.{{dispatch|grouped_matmul|combine}}

"func.func"() <{function_type = (!torch.vtensor<[12,32],f32>, !torch.vtensor<[8,32],f32>, !torch.vtensor<[8,96,32],f32>, !torch.vtensor<[8,32,48],f32>) -> !torch.vtensor<[12,32],f32>, sym_name = "scaled"}> ({
^bb0(%arg0: !torch.vtensor<[12,32],f32>, %arg1: !torch.vtensor<[8,32],f32>, %arg2: !torch.vtensor<[8,96,32],f32>, %arg3: !torch.vtensor<[8,32,48],f32>):
  %0 = "torch.constant.int"() <{value = 1 : i64}> : () -> !torch.int
  %1 = "torch.constant.int"() <{value = 0 : i64}> : () -> !torch.int
  %2 = "torch.prim.ListConstruct"(%0, %1) : (!torch.int, !torch.int) -> !torch.list<int>
  %3 = "torch.aten.permute"(%arg1, %2) : (!torch.vtensor<[8,32],f32>, !torch.list<int>) -> !torch.vtensor<[32,8],f32>
  %4 = "torch.aten.mm"(%arg0, %3) : (!torch.vtensor<[12,32],f32>, !torch.vtensor<[32,8],f32>) -> !torch.vtensor<[12,8],f32>
  %5 = "torch.constant.int"() <{value = 3 : i64}> : () -> !torch.int
  %6 = "torch.constant.int"() <{value = 1 : i64}> : () -> !torch.int
  %7 = "torch.constant.bool"() <{value = true}> : () -> !torch.bool
  %8 = "torch.constant.bool"() <{value = true}> : () -> !torch.bool
  %9:2 = "torch.aten.topk"(%4, %5, %6, %7, %8) : (!torch.vtensor<[12,8],f32>, !torch.int, !torch.int, !torch.bool, !torch.bool) -> (!torch.vtensor<[12,3],f32>, !torch.vtensor<[12,3],si64>)
  %10 = "torch.constant.float"() <{value = 0xFFF0000000000000 : f64}> : () -> !torch.float
  %11 = "torch.constant.none"() : () -> !torch.none
  %12 = "torch.constant.none"() : () -> !torch.none
  %13 = "torch.constant.none"() : () -> !torch.none
  %14 = "torch.constant.bool"() <{value = false}> : () -> !torch.bool
  %15 = "torch.constant.none"() : () -> !torch.none
  %16 = "torch.aten.full_like"(%4, %10, %11, %12, %13, %14, %15) : (!torch.vtensor<[12,8],f32>, !torch.float, !torch.none, !torch.none, !torch.none, !torch.bool, !torch.none) -> !torch.vtensor<[12,8],f32>
  %17 = "torch.constant.int"() <{value = 1 : i64}> : () -> !torch.int
  %18 = "torch.aten.scatter.src"(%16, %17, %9#1, %9#0) : (!torch.vtensor<[12,8],f32>, !torch.int, !torch.vtensor<[12,3],si64>, !torch.vtensor<[12,3],f32>) -> !torch.vtensor<[12,8],f32>
  %24 = "torch.aten.sigmoid"(%18) : (!torch.vtensor<[12,8],f32>) -> !torch.vtensor<[12,8],f32>
  %30 = "torch.constant.int"() <{value = 8 : i64}> : () -> !torch.int
  %31 = "torch.constant.int"() <{value = 1 : i64}> : () -> !torch.int
  %32 = "torch.prim.ListConstruct"(%30, %31) : (!torch.int, !torch.int) -> !torch.list<int>
  %33 = "torch.aten.repeat"(%arg0, %32) : (!torch.vtensor<[12,32],f32>, !torch.list<int>) -> !torch.vtensor<[96,32],f32>
  %34 = "torch.constant.int"() <{value = 1 : i64}> : () -> !torch.int
  %35 = "torch.constant.int"() <{value = 0 : i64}> : () -> !torch.int
  %36 = "torch.prim.ListConstruct"(%34, %35) : (!torch.int, !torch.int) -> !torch.list<int>
  %37 = "torch.aten.permute"(%24, %36) : (!torch.vtensor<[12,8],f32>, !torch.list<int>) -> !torch.vtensor<[8,12],f32>
  %38 = "torch.constant.int"() <{value = 0 : i64}> : () -> !torch.int
  %39 = "torch.aten.clone"(%37, %38) : (!torch.vtensor<[8,12],f32>, !torch.int) -> !torch.vtensor<[8,12],f32>
  %40 = "torch.constant.int"() <{value = 96 : i64}> : () -> !torch.int
  %41 = "torch.constant.int"() <{value = 1 : i64}> : () -> !torch.int
  %42 = "torch.prim.ListConstruct"(%40, %41) : (!torch.int, !torch.int) -> !torch.list<int>
  %43 = "torch.aten.view"(%39, %42) : (!torch.vtensor<[8,12],f32>, !torch.list<int>) -> !torch.vtensor<[96,1],f32>
  %44 = "torch.aten.mul.Tensor"(%33, %43) : (!torch.vtensor<[96,32],f32>, !torch.vtensor<[96,1],f32>) -> !torch.vtensor<[96,32],f32>
  %45 = "torch.constant.int"() <{value = 8 : i64}> : () -> !torch.int
  %46 = "torch.constant.int"() <{value = -1 : i64}> : () -> !torch.int
  %47 = "torch.constant.int"() <{value = 32 : i64}> : () -> !torch.int
  %48 = "torch.prim.ListConstruct"(%45, %46, %47) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %49 = "torch.aten.view"(%44, %48) : (!torch.vtensor<[96,32],f32>, !torch.list<int>) -> !torch.vtensor<[8,12,32],f32>
  %50 = "torch.constant.int"() <{value = 0 : i64}> : () -> !torch.int
  %51 = "torch.constant.int"() <{value = 2 : i64}> : () -> !torch.int
  %52 = "torch.constant.int"() <{value = 1 : i64}> : () -> !torch.int
  %53 = "torch.prim.ListConstruct"(%50, %51, %52) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %54 = "torch.aten.permute"(%arg2, %53) : (!torch.vtensor<[8,96,32],f32>, !torch.list<int>) -> !torch.vtensor<[8,32,96],f32>
  %55 = "torch.aten.bmm"(%49, %54) : (!torch.vtensor<[8,12,32],f32>, !torch.vtensor<[8,32,96],f32>) -> !torch.vtensor<[8,12,96],f32>
  %56 = "torch.constant.int"() <{value = 48 : i64}> : () -> !torch.int
  %57 = "torch.constant.int"() <{value = 48 : i64}> : () -> !torch.int
  %58 = "torch.prim.ListConstruct"(%56, %57) : (!torch.int, !torch.int) -> !torch.list<int>
  %59 = "torch.constant.int"() <{value = -1 : i64}> : () -> !torch.int
  %60 = "torch.aten.split_with_sizes"(%55, %58, %59) : (!torch.vtensor<[8,12,96],f32>, !torch.list<int>, !torch.int) -> !torch.list<vtensor>
  %61:2 = "torch.prim.ListUnpack"(%60) : (!torch.list<vtensor>) -> (!torch.vtensor<[8,12,48],f32>, !torch.vtensor<[8,12,48],f32>)
  %62 = "torch.aten.sigmoid"(%61#0) : (!torch.vtensor<[8,12,48],f32>) -> !torch.vtensor<[8,12,48],f32>
  %63 = "torch.aten.mul.Tensor"(%61#0, %62) : (!torch.vtensor<[8,12,48],f32>, !torch.vtensor<[8,12,48],f32>) -> !torch.vtensor<[8,12,48],f32>
  %64 = "torch.aten.mul.Tensor"(%63, %61#1) : (!torch.vtensor<[8,12,48],f32>, !torch.vtensor<[8,12,48],f32>) -> !torch.vtensor<[8,12,48],f32>
  %65 = "torch.constant.int"() <{value = 0 : i64}> : () -> !torch.int
  %66 = "torch.constant.int"() <{value = 2 : i64}> : () -> !torch.int
  %67 = "torch.constant.int"() <{value = 1 : i64}> : () -> !torch.int
  %68 = "torch.prim.ListConstruct"(%65, %66, %67) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %69 = "torch.aten.permute"(%arg3, %68) : (!torch.vtensor<[8,32,48],f32>, !torch.list<int>) -> !torch.vtensor<[8,48,32],f32>
  %70 = "torch.aten.bmm"(%64, %69) : (!torch.vtensor<[8,12,48],f32>, !torch.vtensor<[8,48,32],f32>) -> !torch.vtensor<[8,12,32],f32>
  %71 = "torch.constant.int"() <{value = -1 : i64}> : () -> !torch.int
  %72 = "torch.constant.int"() <{value = 32 : i64}> : () -> !torch.int
  %73 = "torch.prim.ListConstruct"(%71, %72) : (!torch.int, !torch.int) -> !torch.list<int>
  %74 = "torch.aten.view"(%70, %73) : (!torch.vtensor<[8,12,32],f32>, !torch.list<int>) -> !torch.vtensor<[96,32],f32>
  %75 = "torch.constant.int"() <{value = 8 : i64}> : () -> !torch.int
  %76 = "torch.constant.int"() <{value = -1 : i64}> : () -> !torch.int
  %77 = "torch.constant.int"() <{value = 32 : i64}> : () -> !torch.int
  %78 = "torch.prim.ListConstruct"(%75, %76, %77) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %79 = "torch.aten.view"(%74, %78) : (!torch.vtensor<[96,32],f32>, !torch.list<int>) -> !torch.vtensor<[8,12,32],f32>
  %80 = "torch.constant.int"() <{value = 0 : i64}> : () -> !torch.int
  %81 = "torch.prim.ListConstruct"(%80) : (!torch.int) -> !torch.list<int>
  %82 = "torch.constant.bool"() <{value = false}> : () -> !torch.bool
  %83 = "torch.constant.none"() : () -> !torch.none
  %84 = "torch.aten.sum.dim_IntList"(%79, %81, %82, %83) : (!torch.vtensor<[8,12,32],f32>, !torch.list<int>, !torch.bool, !torch.none) -> !torch.vtensor<[12,32],f32>
  "func.return"(%84) : (!torch.vtensor<[12,32],f32>) -> ()
}) : () -> ()
