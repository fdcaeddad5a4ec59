// RUN: moe-opt %s -convert-moe-to-gpu -canonicalize -cse -split-input-file | FileCheck %s
// RUN: moe-opt %s -convert-moe-to-gpu -split-input-file --remarks-filter-missed=moe-gpu -o /dev/null 2>&1 | FileCheck %s --check-prefix=MISSED

// A warp quantizes a block of a row, four columns a lane.
// CHECK:       llvm.func @quantize(%[[X:.*]]: !llvm.ptr<1>, %[[Q:.*]]: !llvm.ptr<1>, %[[S:.*]]: !llvm.ptr<1>, %[[PARTS:.*]]: i64)
// CHECK:         scf.for %[[PART:.*]] = %{{.*}} to %[[PARTS]] step
// CHECK:           %[[ROW:.*]] = arith.divui %[[PART]], %c3_i64
// CHECK:           llvm.load %{{.*}} {alignment = 8 : i64} : !llvm.ptr<1> -> vector<4xbf16>
// CHECK-NOT:       llvm.load
// CHECK-COUNT-5:   nvvm.shfl.sync bfly
// CHECK:           %[[SCALE:.*]] = arith.divf %{{.*}}, %{{.*}} : f32
// CHECK:           scf.if
// CHECK-NEXT:        %[[AT:.*]] = llvm.getelementptr %[[S]][%[[PART]]]
// CHECK-NEXT:        llvm.store %[[SCALE]], %[[AT]]
// CHECK:           arith.truncf %{{.*}} : vector<4xf32> to vector<4xf8E4M3FN>
// CHECK:           llvm.store %{{.*}}, %{{.*}} {alignment = 4 : i64} : vector<4xi8>, !llvm.ptr<1>
// CHECK-LABEL: func.func @rows(
// CHECK:         moe_rt.launch @kernels::@quantize blocks(%{{.*}}) ins(%{{.*}} : tensor<?x320xbf16>)
// CHECK-SAME:      outs(%{{.*}}, %{{.*}} : tensor<?x320xf8E4M3FN>, tensor<?x3xf32>)
func.func @rows(%x: tensor<?x320xbf16>) -> (tensor<?x320xf8E4M3FN>, tensor<?x3xf32>) {
  %q, %s = moe.quantize %x format(<codes = <element = f8E4M3FN>, scales = [#moe.field<element = f32, operand = 1, block = [1, 128]>]>)
      : tensor<?x320xbf16> -> tensor<?x320xf8E4M3FN>, tensor<?x3xf32>
  return %q, %s : tensor<?x320xf8E4M3FN>, tensor<?x3xf32>
}

// -----

// Rows that are not aligned for vectors: one column at a time.
// CHECK:         llvm.load %{{.*}} : !llvm.ptr<1> -> vector<1xf32>
// CHECK-LABEL: func.func @odd(
func.func @odd(%x: tensor<?x37xf32>) -> (tensor<?x37xf8E4M3FN>, tensor<?x3xf32>) {
  %q, %s = moe.quantize %x format(<codes = <element = f8E4M3FN>, scales = [#moe.field<element = f32, operand = 1, block = [1, 16]>]>)
      : tensor<?x37xf32> -> tensor<?x37xf8E4M3FN>, tensor<?x3xf32>
  return %q, %s : tensor<?x37xf8E4M3FN>, tensor<?x3xf32>
}

// -----

// MISSED: NotLowered | Category:moe-gpu {{.*}}Remark="'moe.quantize' not lowered to a GPU kernel: blocks of more than 1024 columns"
// CHECK-LABEL: func.func @long(
// CHECK:         moe.quantize
func.func @long(%x: tensor<?x2048xf32>) -> (tensor<?x2048xf8E4M3FN>, tensor<?x2xf32>) {
  %q, %s = moe.quantize %x format(<codes = <element = f8E4M3FN>, scales = [#moe.field<element = f32, operand = 1, block = [1, 1025]>]>)
      : tensor<?x2048xf32> -> tensor<?x2048xf8E4M3FN>, tensor<?x2xf32>
  return %q, %s : tensor<?x2048xf8E4M3FN>, tensor<?x2xf32>
}
