// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-grouped | FileCheck %s
// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-grouped --remarks-filter-missed=moe-raise -o /dev/null 2>&1 | FileCheck %s --check-prefix=REMARK

// transformers' "grouped_mm" experts in bf16, as torch-mlir imports them: the
// groups are ends, the rows after the last one undefined, and the weights a
// transposed view.

// CHECK-LABEL: func.func @ends(
// CHECK-SAME:      %[[X:[^ ]*]]: !torch.vtensor<[?,64],bf16>, %[[W:[^ ]*]]: !torch.vtensor<[8,32,64],bf16>, %[[ENDS:[^ ]*]]: !torch.vtensor<[8],si32>
// CHECK:         %[[E:.*]] = "torch_c.to_builtin_tensor"(%[[ENDS]])
// CHECK-SAME:        -> tensor<8xi32>
// CHECK:         %[[OFFSETS:.*]] = tensor.insert_slice %[[E]] into %{{.*}}[1] [8] [1] : tensor<8xi32> into tensor<9xi32>
// CHECK:         %[[ROWS:.*]] = "torch_c.to_builtin_tensor"(%[[X]])
// CHECK:         %[[WEIGHTS:.*]] = "torch_c.to_builtin_tensor"(%[[W]])
// CHECK:         %[[INIT:.*]] = tensor.empty(%{{.*}}) : tensor<?x32xbf16>
// CHECK-NOT:     linalg.fill
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %[[ROWS]] offsets(%[[OFFSETS]] : tensor<9xi32>)
// CHECK-SAME:        weights(%[[WEIGHTS]] : tensor<8x32x64xbf16>) transposed outs(%[[INIT]]
// CHECK:         "torch_c.from_builtin_tensor"(%[[Y]])
// CHECK-SAME:        -> !torch.vtensor<[?,32],bf16>
func.func @ends(%x: !torch.vtensor<[?,64],bf16>, %w: !torch.vtensor<[8,32,64],bf16>,
                %ends: !torch.vtensor<[8],si32>) -> !torch.vtensor<[?,32],bf16> {
  %none = "torch.constant.none"() : () -> !torch.none
  %a = "torch.constant.int"() <{value = -2 : i64}> : () -> !torch.int
  %b = "torch.constant.int"() <{value = -1 : i64}> : () -> !torch.int
  %t = "torch.aten.transpose.int"(%w, %a, %b) : (!torch.vtensor<[8,32,64],bf16>, !torch.int, !torch.int) -> !torch.vtensor<[8,64,32],bf16>
  %y = "torch.operator"(%x, %t, %ends, %none, %none) <{name = "torch.aten._grouped_mm"}> : (!torch.vtensor<[?,64],bf16>, !torch.vtensor<[8,64,32],bf16>, !torch.vtensor<[8],si32>, !torch.none, !torch.none) -> !torch.vtensor<[?,32],bf16>
  return %y : !torch.vtensor<[?,32],bf16>
}

// -----

// The same for other types, where rows of no group are 0. On plain tensors no
// conversion is needed.

// CHECK-LABEL: func.func @fallback(
// CHECK-NOT:     torch_c
// CHECK:         linalg.fill ins(%{{.*}} : f32) outs(%{{.*}} : tensor<?x32xf32>)
// CHECK:         moe.grouped_matmul {{.*}}weights(%arg1 : tensor<8x64x32xf32>) outs
func.func @fallback(%x: tensor<?x64xf32>, %w: tensor<8x64x32xf32>,
                    %ends: tensor<8xi64>) -> tensor<?x32xf32> {
  %y = "torch.operator"(%x, %w, %ends) <{name = "torch.transformers.grouped_mm_fallback"}> : (tensor<?x64xf32>, tensor<8x64x32xf32>, tensor<8xi64>) -> tensor<?x32xf32>
  return %y : tensor<?x32xf32>
}

// -----

// The gradient of the weights has the columns of the first operand in groups.

// CHECK-LABEL: func.func @gradient(
// CHECK:         %[[ROWS:.*]] = linalg.transpose ins(%arg0 : tensor<64x?xbf16>)
// CHECK:         moe.grouped_contract %[[ROWS]], %arg1 offsets({{.*}}) outs({{.*}}) : tensor<?x64xbf16>, tensor<?x32xbf16> -> tensor<8x64x32xbf16>
func.func @gradient(%x: tensor<64x?xbf16>, %dy: tensor<?x32xbf16>,
                    %ends: tensor<8xi32>) -> tensor<8x64x32xbf16> {
  %y = "torch.operator"(%x, %dy, %ends) <{name = "torch.aten._grouped_mm"}> : (tensor<64x?xbf16>, tensor<?x32xbf16>, tensor<8xi32>) -> tensor<8x64x32xbf16>
  return %y : tensor<8x64x32xbf16>
}

// -----

// Without ends each matrix has its own weights.

// CHECK-LABEL: func.func @batches(
// CHECK:         %[[ZERO:.*]] = linalg.fill {{.*}} outs(%{{.*}} : tensor<8x4x32xf32>)
// CHECK:         %[[Y:.*]] = linalg.batch_matmul ins(%arg0, %arg1 : tensor<8x4x64xbf16>, tensor<8x64x32xbf16>) outs(%[[ZERO]]
// CHECK:         arith.truncf %[[Y]] : tensor<8x4x32xf32> to tensor<8x4x32xbf16>
func.func @batches(%x: tensor<8x4x64xbf16>, %w: tensor<8x64x32xbf16>) -> tensor<8x4x32xbf16> {
  %none = "torch.constant.none"() : () -> !torch.none
  %y = "torch.operator"(%x, %w, %none) <{name = "torch.aten._grouped_mm"}> : (tensor<8x4x64xbf16>, tensor<8x64x32xbf16>, !torch.none) -> tensor<8x4x32xbf16>
  return %y : tensor<8x4x32xbf16>
}

// -----

// Ends of columns: each matrix and the columns of its group.

// CHECK-LABEL: func.func @columns(
// CHECK:         %[[ROWS:.*]] = linalg.transpose ins(%arg1 : tensor<64x?xf32>)
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %[[ROWS]] offsets(%{{.*}} : tensor<9xi32>) weights(%arg0 : tensor<8x32x64xf32>) transposed outs(%{{.*}} : tensor<?x32xf32>)
// CHECK:         linalg.transpose ins(%[[Y]] : tensor<?x32xf32>) outs(%{{.*}} : tensor<32x?xf32>) permutation = [1, 0]
func.func @columns(%w: tensor<8x32x64xf32>, %x: tensor<64x?xf32>, %ends: tensor<8xi32>) -> tensor<32x?xf32> {
  %y = "torch.operator"(%w, %x, %ends) <{name = "torch.aten._grouped_mm"}> : (tensor<8x32x64xf32>, tensor<64x?xf32>, tensor<8xi32>) -> tensor<32x?xf32>
  return %y : tensor<32x?xf32>
}

// -----

// CHECK-LABEL: func.func @left(
// CHECK-NOT:     moe.grouped_matmul
// CHECK-NOT:     linalg
// REMARK-DAG:  'torch.operator': the batches do not fit
// REMARK-DAG:  'torch.operator': expected batches [g, m, k] and [g, k, n] where there is no offs
// REMARK-DAG:  'torch.operator': expected matrices [g, m, k] and columns [k, n]
// REMARK-DAG:  'torch.operator': expected 8 groups, got tensor<4xi32>
// REMARK-DAG:  'torch.operator': it has a bias
// REMARK-DAG:  'torch.operator': expected matrices, or rows and weights [g, k, n]
// REMARK-DAG:  'torch.operator': the extents do not fit
// REMARK-DAG:  'torch.operator': an operand is no tensor of known rank
// REMARK-NOT:  torch.aten.other
func.func @left(%x: tensor<?x64xbf16>, %x3: tensor<8x4x64xbf16>, %w: tensor<8x64x32xbf16>,
                %wt: tensor<8x32x64xbf16>, %bias: tensor<8x32xbf16>,
                %ends: tensor<8xi32>, %u: !torch.vtensor, %columns: tensor<64x?xbf16>, %few: tensor<4xi32>) {
  %none = "torch.constant.none"() : () -> !torch.none
  %0 = "torch.operator"(%x3, %wt, %none) <{name = "torch.aten._grouped_mm"}> : (tensor<8x4x64xbf16>, tensor<8x32x64xbf16>, !torch.none) -> tensor<8x4x32xbf16>
  %6 = "torch.operator"(%x, %w, %none) <{name = "torch.aten._grouped_mm"}> : (tensor<?x64xbf16>, tensor<8x64x32xbf16>, !torch.none) -> tensor<?x32xbf16>
  %7 = "torch.operator"(%x3, %columns, %few) <{name = "torch.aten._grouped_mm"}> : (tensor<8x4x64xbf16>, tensor<64x?xbf16>, tensor<4xi32>) -> tensor<4x?xbf16>
  %1 = "torch.operator"(%x, %w, %ends, %bias) <{name = "torch.aten._grouped_mm"}> : (tensor<?x64xbf16>, tensor<8x64x32xbf16>, tensor<8xi32>, tensor<8x32xbf16>) -> tensor<?x32xbf16>
  %2 = "torch.operator"(%x3, %x, %ends) <{name = "torch.aten._grouped_mm"}> : (tensor<8x4x64xbf16>, tensor<?x64xbf16>, tensor<8xi32>) -> tensor<8x4x32xbf16>
  // Weights [g, n, k] that nothing transposed.
  %3 = "torch.operator"(%x, %wt, %ends) <{name = "torch.aten._grouped_mm"}> : (tensor<?x64xbf16>, tensor<8x32x64xbf16>, tensor<8xi32>) -> tensor<?x32xbf16>
  %4 = "torch.operator"(%u, %w, %ends) <{name = "torch.aten._grouped_mm"}> : (!torch.vtensor, tensor<8x64x32xbf16>, tensor<8xi32>) -> tensor<?x32xbf16>
  %8 = "torch.operator"(%columns, %x, %ends) <{name = "torch.transformers.grouped_mm_fallback"}> : (tensor<64x?xbf16>, tensor<?x64xbf16>, tensor<8xi32>) -> tensor<8x64x64xbf16>
  %5 = "torch.operator"(%x, %w, %ends) <{name = "torch.aten.other"}> : (tensor<?x64xbf16>, tensor<8x64x32xbf16>, tensor<8xi32>) -> tensor<?x32xbf16>
  return
}
