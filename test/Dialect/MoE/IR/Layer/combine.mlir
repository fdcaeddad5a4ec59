// RUN: moe-opt %s | FileCheck %s
// What is printed parses to the same, as bytecode too.
// RUN: moe-opt %s | moe-opt | FileCheck %s
// RUN: moe-opt %s --mlir-print-op-generic | moe-opt | FileCheck %s
// RUN: moe-opt %s --emit-bytecode | moe-opt | FileCheck %s
// RUN: moe-opt %s --mlir-print-op-generic | FileCheck %s --check-prefix=GENERIC

// CHECK-LABEL: func.func @minimal(
// CHECK-SAME:    %[[G:.*]]: tensor<?x16xf32>, %[[P:.*]]: tensor<?x2xi32>)
// CHECK-NEXT:    %combined = moe.combine %[[G]], %[[P]] : tensor<?x16xf32>, tensor<?x2xi32>
// CHECK-NEXT:    return %combined : tensor<?x16xf32>
// GENERIC-LABEL: sym_name = "minimal"
// GENERIC:         "moe.combine"(%{{.*}}, %{{.*}}) <{operandSegmentSizes = array<i32: 1, 1, 0, 0>}>
func.func @minimal(%g: tensor<?x16xf32>, %p: tensor<?x2xi32>) -> tensor<?x16xf32> {
  %y = moe.combine %g, %p : tensor<?x16xf32>, tensor<?x2xi32>
  return %y : tensor<?x16xf32>
}

// CHECK-LABEL: func.func @operands(
// CHECK-SAME:    %[[G:[^:]*]]: tensor<?x16xbf16>, %[[P:[^:]*]]: tensor<?x2xi32>, %[[W:[^:]*]]: tensor<?x2xf32>, %[[D:[^:]*]]: tensor<?x16xbf16>
// CHECK:         moe.combine %[[G]], %[[P]] weights(%[[W]] : tensor<?x2xf32>) :
// CHECK:         moe.combine %[[G]], %[[P]] dropped(%[[D]] : tensor<?x16xbf16>) :
// CHECK:         moe.combine %[[G]], %[[P]] weights(%[[W]] : tensor<?x2xf32>) dropped(%[[D]] : tensor<?x16xbf16>)
// CHECK-SAME:      normalize(<sum>) {my.note = "kept"} :
// GENERIC-LABEL: sym_name = "operands"
// GENERIC:         operandSegmentSizes = array<i32: 1, 1, 1, 0>
// GENERIC:         operandSegmentSizes = array<i32: 1, 1, 0, 1>
// GENERIC:         normalize = #moe.normalize<sum>, operandSegmentSizes = array<i32: 1, 1, 1, 1>
func.func @operands(%g: tensor<?x16xbf16>, %p: tensor<?x2xi32>, %w: tensor<?x2xf32>, %d: tensor<?x16xbf16>) {
  %y0 = moe.combine %g, %p weights(%w : tensor<?x2xf32>) : tensor<?x16xbf16>, tensor<?x2xi32>
  %y1 = moe.combine %g, %p dropped(%d : tensor<?x16xbf16>) : tensor<?x16xbf16>, tensor<?x2xi32>
  %y2 = moe.combine %g, %p weights(%w : tensor<?x2xf32>) dropped(%d : tensor<?x16xbf16>)
    normalize(<sum>) {my.note = "kept"} : tensor<?x16xbf16>, tensor<?x2xi32>
  return
}

// T is that of the positions, H and the type are those of the rows.
// CHECK-LABEL: func.func @static_tokens(
func.func @static_tokens(%g: tensor<?x16xf16>, %p: tensor<5x2xi32>, %h: tensor<12x?xf32>, %q: tensor<0x1xi32>)
    -> (tensor<5x16xf16>, tensor<0x?xf32>) {
  %y0 = moe.combine %g, %p : tensor<?x16xf16>, tensor<5x2xi32>
  %y1 = moe.combine %h, %q : tensor<12x?xf32>, tensor<0x1xi32>
  return %y0, %y1 : tensor<5x16xf16>, tensor<0x?xf32>
}
