// RUN: moe-opt %s -convert-moe-to-linalg -canonicalize -cse | FileCheck %s
// RUN: moe-opt %s -convert-moe-routing-to-linalg -canonicalize -cse | FileCheck %s

// The two halves of a byte, a table of 16 values, a scale for each 32 columns.
// CHECK-LABEL: func.func @grouped(
// CHECK-SAME:    %[[W:.*]]: tensor<3x2x16xi8>, %[[S:.*]]: tensor<3x2xi8>
// CHECK-DAG:     %[[TABLE:.*]] = arith.constant dense<[0.000000e+00, 5.000000e-01, {{.*}}, -6.000000e+00]> : tensor<16xf32>
// CHECK:         linalg.generic {{.*}}iterator_types = ["parallel", "parallel"]}
// CHECK-DAG:       %[[N:.*]] = linalg.index 0
// CHECK-DAG:       %[[K:.*]] = linalg.index 1
// CHECK:           %[[BYTE:.*]] = arith.divui %[[K]], %c2
// CHECK:           %[[GROUP:.*]] = arith.divui %[[BYTE]], %c16
// CHECK:           %[[INNER:.*]] = arith.remui %[[BYTE]], %c16
// CHECK:           %[[CODE:.*]] = tensor.extract %[[W]][%[[N]], %[[GROUP]], %[[INNER]]]
// CHECK:           %[[WIDE:.*]] = arith.extui %[[CODE]] : i8 to i32
// CHECK:           %[[SHIFTED:.*]] = arith.shrui %[[WIDE]]
// CHECK:           %[[FOUR:.*]] = arith.andi %[[SHIFTED]], %c15_i32
// CHECK:           %[[INDEX:.*]] = arith.index_castui %[[FOUR]]
// CHECK:           %[[VALUE:.*]] = tensor.extract %[[TABLE]][%[[INDEX]]]
// CHECK:           %[[BLOCK:.*]] = arith.divui %[[K]], %c32
// CHECK:           %[[EXPONENT:.*]] = tensor.extract %[[S]][%[[N]], %[[BLOCK]]]
// CHECK:           arith.shli %{{.*}}, %c23_i32
// CHECK:           %[[SCALE:.*]] = arith.bitcast %{{.*}} : i32 to f32
// CHECK:           %[[P:.*]] = arith.mulf %[[SCALE]], %[[VALUE]]
// CHECK:           %[[R:.*]] = arith.truncf %[[P]] : f32 to bf16
// CHECK:           linalg.yield %[[R]]
func.func @grouped(%w: tensor<3x2x16xi8>, %s: tensor<3x2xi8>) -> tensor<3x64xbf16> {
  %d = moe.dequantize %w, %s format(<codes = <element = f4E2M1FN, bits = [#moe.bits<width = 4>]>,
      scales = [#moe.field<element = f8E8M0FNU, operand = 1, block = [1, 32]>]>)
    : tensor<3x2x16xi8>, tensor<3x2xi8> -> tensor<3x64xbf16>
  return %d : tensor<3x64xbf16>
}

// Without fields beside the codes nothing is scaled.
// CHECK-LABEL: func.func @codes(
// CHECK-SAME:    %[[W:.*]]: tensor<?x4x8xi8>
// CHECK:         %[[E:.*]] = tensor.dim %[[W]], %c0
// CHECK:         tensor.empty(%[[E]]) : tensor<?x4x8xf32>
// CHECK-NOT:       arith.mulf
// CHECK:           arith.sitofp
// CHECK-NOT:       arith.subf
func.func @codes(%w: tensor<?x4x8xi8>) -> tensor<?x4x8xf32> {
  %d = moe.dequantize %w format(<codes = <element = si8>>) : tensor<?x4x8xi8> -> tensor<?x4x8xf32>
  return %d : tensor<?x4x8xf32>
}
