// RUN: moe-opt %s | FileCheck %s
// What is printed parses to the same, as bytecode too.
// RUN: moe-opt %s | moe-opt | FileCheck %s
// RUN: moe-opt %s --mlir-print-op-generic | moe-opt | FileCheck %s
// RUN: moe-opt %s --emit-bytecode | moe-opt | FileCheck %s

// CHECK-LABEL: func.func @minimal(
// CHECK-NEXT:    %[[Y:.*]] = moe.gather_sum %{{[a-z0-9]+}}, %{{[a-z0-9]+}} outs(%{{[a-z0-9]+}} : tensor<?x16xf32>) : tensor<9x16xf32>, tensor<?x2xi32> -> tensor<?x16xf32>
// CHECK-NEXT:    return %[[Y]]
func.func @minimal(%x: tensor<9x16xf32>, %p: tensor<?x2xi32>, %o: tensor<?x16xf32>) -> tensor<?x16xf32> {
  %y = moe.gather_sum %x, %p outs(%o : tensor<?x16xf32>) : tensor<9x16xf32>, tensor<?x2xi32> -> tensor<?x16xf32>
  return %y : tensor<?x16xf32>
}

// CHECK-LABEL: func.func @all(
// CHECK:         moe.gather_sum %{{[a-z0-9]+}}, %{{[a-z0-9]+}} weights(%{{[a-z0-9]+}} : tensor<?x2xf32>) dropped(%{{[a-z0-9]+}} : tensor<?x16xbf16>)
// CHECK-SAME:      outs(%{{[a-z0-9]+}} : tensor<?x16xbf16>) {my.note = "kept"} : tensor<?x16xbf16>, tensor<?x2xi32> -> tensor<?x16xbf16>
func.func @all(%x: tensor<?x16xbf16>, %p: tensor<?x2xi32>, %w: tensor<?x2xf32>, %d: tensor<?x16xbf16>, %o: tensor<?x16xbf16>) -> tensor<?x16xbf16> {
  %y = moe.gather_sum %x, %p weights(%w : tensor<?x2xf32>) dropped(%d : tensor<?x16xbf16>) outs(%o : tensor<?x16xbf16>)
    {my.note = "kept"} : tensor<?x16xbf16>, tensor<?x2xi32> -> tensor<?x16xbf16>
  return %y : tensor<?x16xbf16>
}

// CHECK-LABEL: func.func @buffers(
// CHECK:         moe.gather_sum %{{[a-z0-9]+}}, %{{[a-z0-9]+}} outs(%{{[a-z0-9]+}} : memref<?x16xf16>) : memref<?x16xf16>, memref<?x1xi32>{{$}}
func.func @buffers(%x: memref<?x16xf16>, %p: memref<?x1xi32>, %o: memref<?x16xf16>) {
  moe.gather_sum %x, %p outs(%o : memref<?x16xf16>) : memref<?x16xf16>, memref<?x1xi32>
  return
}
