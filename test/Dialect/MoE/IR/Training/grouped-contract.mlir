// RUN: moe-opt %s | FileCheck %s
// What is printed parses to the same, as bytecode too.
// RUN: moe-opt %s | moe-opt | FileCheck %s
// RUN: moe-opt %s --mlir-print-op-generic | moe-opt | FileCheck %s
// RUN: moe-opt %s --emit-bytecode | moe-opt | FileCheck %s

// All rows belong to one expert.
// CHECK-LABEL: func.func @minimal(
// CHECK-NEXT:    %[[W:.*]] = moe.grouped_contract %{{[a-z0-9]+}}, %{{[a-z0-9]+}} outs(%{{[a-z0-9]+}} : tensor<1x4x6xf32>) : tensor<?x4xf32>, tensor<9x6xf32> -> tensor<1x4x6xf32>
// CHECK-NEXT:    return %[[W]]
func.func @minimal(%x: tensor<?x4xf32>, %y: tensor<9x6xf32>, %o: tensor<1x4x6xf32>) -> tensor<1x4x6xf32> {
  %w = moe.grouped_contract %x, %y outs(%o : tensor<1x4x6xf32>) : tensor<?x4xf32>, tensor<9x6xf32> -> tensor<1x4x6xf32>
  return %w : tensor<1x4x6xf32>
}

// CHECK-LABEL: func.func @all(
// CHECK:         moe.grouped_contract %{{[a-z0-9]+}} gather(%{{[a-z0-9]+}} : tensor<?xi32>), %{{[a-z0-9]+}} gather(%{{[a-z0-9]+}} : tensor<7xi32>)
// CHECK-SAME:      offsets(%{{[a-z0-9]+}} : tensor<6xi32>) first(2) accumulate outs(%{{[a-z0-9]+}} : tensor<3x4x6xf32>) {my.note = "kept"}
// CHECK-SAME:      : tensor<?x4xbf16>, tensor<5x6xbf16> -> tensor<3x4x6xf32>
func.func @all(%x: tensor<?x4xbf16>, %g: tensor<?xi32>, %y: tensor<5x6xbf16>, %h: tensor<7xi32>, %e: tensor<6xi32>,
               %o: tensor<3x4x6xf32>) -> tensor<3x4x6xf32> {
  %w = moe.grouped_contract %x gather(%g : tensor<?xi32>), %y gather(%h : tensor<7xi32>) offsets(%e : tensor<6xi32>)
      first(2) accumulate outs(%o : tensor<3x4x6xf32>) {my.note = "kept"}
    : tensor<?x4xbf16>, tensor<5x6xbf16> -> tensor<3x4x6xf32>
  return %w : tensor<3x4x6xf32>
}

// One side gathers.
// CHECK-LABEL: func.func @one_side(
// CHECK:         moe.grouped_contract %{{[a-z0-9]+}}, %{{[a-z0-9]+}} gather(%{{[a-z0-9]+}} : tensor<?xi32>) offsets(
func.func @one_side(%x: tensor<?x4xf16>, %y: tensor<?x6xf16>, %h: tensor<?xi32>, %e: tensor<3xi32>,
                    %o: tensor<2x4x6xf16>) -> tensor<2x4x6xf16> {
  %w = moe.grouped_contract %x, %y gather(%h : tensor<?xi32>) offsets(%e : tensor<3xi32>) outs(%o : tensor<2x4x6xf16>)
    : tensor<?x4xf16>, tensor<?x6xf16> -> tensor<2x4x6xf16>
  return %w : tensor<2x4x6xf16>
}

// CHECK-LABEL: func.func @buffers(
// CHECK:         moe.grouped_contract %{{[a-z0-9]+}}, %{{[a-z0-9]+}} offsets(%{{[a-z0-9]+}} : memref<3xi32>) outs(%{{[a-z0-9]+}} : memref<2x4x6xbf16>) : memref<?x4xf32>, memref<?x6xf32>{{$}}
func.func @buffers(%x: memref<?x4xf32>, %y: memref<?x6xf32>, %e: memref<3xi32>, %o: memref<2x4x6xbf16>) {
  moe.grouped_contract %x, %y offsets(%e : memref<3xi32>) outs(%o : memref<2x4x6xbf16>) : memref<?x4xf32>, memref<?x6xf32>
  return
}
