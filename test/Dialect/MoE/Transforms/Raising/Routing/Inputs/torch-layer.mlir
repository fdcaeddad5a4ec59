func.func @grouped(%x: !torch.vtensor<[12,32],f32>, %router: !torch.vtensor<[8,32],f32>,
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
  %16 = "torch.constant.device"() <{value = "cpu"}> : () -> !torch.Device
  %17 = "torch.aten.view"(%10#1, %11) : (!torch.vtensor<[12,3],si64>, !torch.list<int>) -> !torch.vtensor<[36],si64>
  %18 = "torch.aten.view"(%14, %11) : (!torch.vtensor<[12,3],f32>, !torch.list<int>) -> !torch.vtensor<[36],f32>
  %19:2 = "torch.aten.sort"(%17, %5, %6) : (!torch.vtensor<[36],si64>, !torch.int, !torch.bool) -> (!torch.vtensor<[36],si64>, !torch.vtensor<[36],si64>)
  %20 = "torch.prim.NumToTensor.Scalar"(%8) : (!torch.int) -> !torch.vtensor<[],si64>
  %21 = "torch.constant.str"() <{value = "floor"}> : () -> !torch.str
  %22 = "torch.aten.div.Tensor_mode"(%19#1, %20, %21) : (!torch.vtensor<[36],si64>, !torch.vtensor<[],si64>, !torch.str) -> !torch.vtensor<[36],si64>
  %23 = "torch.prim.ListConstruct"(%22) : (!torch.vtensor<[36],si64>) -> !torch.list<optional<vtensor>>
  %24 = "torch.aten.index.Tensor"(%x, %23) : (!torch.vtensor<[12,32],f32>, !torch.list<optional<vtensor>>) -> !torch.vtensor<[36,32],f32>
  %25 = "torch.prim.ListConstruct"(%19#1) : (!torch.vtensor<[36],si64>) -> !torch.list<optional<vtensor>>
  %26 = "torch.aten.index.Tensor"(%18, %25) : (!torch.vtensor<[36],f32>, !torch.list<optional<vtensor>>) -> !torch.vtensor<[36],f32>
  %27 = "torch.prims.convert_element_type"(%19#0, %15) : (!torch.vtensor<[36],si64>, !torch.int) -> !torch.vtensor<[36],f32>
  %28 = "torch.constant.int"() <{value = 8 : i64}> : () -> !torch.int
  %29 = "torch.constant.int"() <{value = 7 : i64}> : () -> !torch.int
  %30 = "torch.operator"(%27, %28, %1, %29) <{name = "torch.aten.histc"}> : (!torch.vtensor<[36],f32>, !torch.int, !torch.int, !torch.int) -> !torch.vtensor<[8],f32>
  %31 = "torch.aten.cumsum"(%30, %1, %8) : (!torch.vtensor<[8],f32>, !torch.int, !torch.int) -> !torch.vtensor<[8],si32>
  %32 = "torch.constant.int"() <{value = 2 : i64}> : () -> !torch.int
  %33 = "torch.prim.ListConstruct"(%1, %32, %0) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %34 = "torch.aten.permute"(%up, %33) : (!torch.vtensor<[8,96,32],f32>, !torch.list<int>) -> !torch.vtensor<[8,32,96],f32>
  %35 = "torch.operator"(%24, %34, %31) <{name = "torch.transformers.grouped_mm_fallback"}> : (!torch.vtensor<[36,32],f32>, !torch.vtensor<[8,32,96],f32>, !torch.vtensor<[8],si32>) -> !torch.vtensor<[36,96],f32>
  %36 = "torch.constant.int"() <{value = 48 : i64}> : () -> !torch.int
  %37 = "torch.prim.ListConstruct"(%36, %36) : (!torch.int, !torch.int) -> !torch.list<int>
  %38 = "torch.aten.split_with_sizes"(%35, %37, %5) : (!torch.vtensor<[36,96],f32>, !torch.list<int>, !torch.int) -> !torch.list<vtensor>
  %39:2 = "torch.prim.ListUnpack"(%38) : (!torch.list<vtensor>) -> (!torch.vtensor<[36,48],f32>, !torch.vtensor<[36,48],f32>)
  %40 = "torch.aten.sigmoid"(%39#0) : (!torch.vtensor<[36,48],f32>) -> !torch.vtensor<[36,48],f32>
  %41 = "torch.aten.mul.Tensor"(%39#0, %40) : (!torch.vtensor<[36,48],f32>, !torch.vtensor<[36,48],f32>) -> !torch.vtensor<[36,48],f32>
  %42 = "torch.aten.mul.Tensor"(%41, %39#1) : (!torch.vtensor<[36,48],f32>, !torch.vtensor<[36,48],f32>) -> !torch.vtensor<[36,48],f32>
  %43 = "torch.aten.permute"(%down, %33) : (!torch.vtensor<[8,32,48],f32>, !torch.list<int>) -> !torch.vtensor<[8,48,32],f32>
  %44 = "torch.operator"(%42, %43, %31) <{name = "torch.transformers.grouped_mm_fallback"}> : (!torch.vtensor<[36,48],f32>, !torch.vtensor<[8,48,32],f32>, !torch.vtensor<[8],si32>) -> !torch.vtensor<[36,32],f32>
  %45 = "torch.aten.unsqueeze"(%26, %5) : (!torch.vtensor<[36],f32>, !torch.int) -> !torch.vtensor<[36,1],f32>
  %46 = "torch.aten.mul.Tensor"(%44, %45) : (!torch.vtensor<[36,32],f32>, !torch.vtensor<[36,1],f32>) -> !torch.vtensor<[36,32],f32>
  %47 = "torch.aten.empty_like"(%19#1, %12, %12, %12, %6, %12) : (!torch.vtensor<[36],si64>, !torch.none, !torch.none, !torch.none, !torch.bool, !torch.none) -> !torch.vtensor<[36],si64>
  %48 = "torch.constant.int"() <{value = 36 : i64}> : () -> !torch.int
  %49 = "torch.aten.arange.start_step"(%1, %48, %0, %12, %1, %16, %6) : (!torch.int, !torch.int, !torch.int, !torch.none, !torch.int, !torch.Device, !torch.bool) -> !torch.vtensor<[36],si64>
  %50 = "torch.aten.index_put"(%47, %25, %49, %6) : (!torch.vtensor<[36],si64>, !torch.list<optional<vtensor>>, !torch.vtensor<[36],si64>, !torch.bool) -> !torch.vtensor<[36],si64>
  %51 = "torch.prim.ListConstruct"(%50) : (!torch.vtensor<[36],si64>) -> !torch.list<optional<vtensor>>
  %52 = "torch.aten.index.Tensor"(%46, %51) : (!torch.vtensor<[36,32],f32>, !torch.list<optional<vtensor>>) -> !torch.vtensor<[36,32],f32>
  %53 = "torch.constant.int"() <{value = 32 : i64}> : () -> !torch.int
  %54 = "torch.prim.ListConstruct"(%5, %8, %53) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %55 = "torch.aten.view"(%52, %54) : (!torch.vtensor<[36,32],f32>, !torch.list<int>) -> !torch.vtensor<[12,3,32],f32>
  %56 = "torch.prim.ListConstruct"(%0) : (!torch.int) -> !torch.list<int>
  %57 = "torch.aten.sum.dim_IntList"(%55, %56, %6, %12) : (!torch.vtensor<[12,3,32],f32>, !torch.list<int>, !torch.bool, !torch.none) -> !torch.vtensor<[12,32],f32>
  return %57 : !torch.vtensor<[12,32],f32>
}

