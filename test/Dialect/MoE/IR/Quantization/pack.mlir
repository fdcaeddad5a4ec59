// RUN: moe-opt %s | FileCheck %s
// What is printed parses to the same, as bytecode too.
// RUN: moe-opt %s | moe-opt | FileCheck %s
// RUN: moe-opt %s --mlir-print-op-generic | moe-opt | FileCheck %s
// RUN: moe-opt %s --emit-bytecode | moe-opt | FileCheck %s

// 40 columns in panels of 64, 25 steps in pairs.
// CHECK-LABEL: func.func @pairs(
// CHECK-NEXT:    moe.pack %{{.*}} panels(<matmuls = 1, columns = 64, depth = 2>)
// CHECK-SAME:      outs(%{{.*}} : tensor<8x1x13x64x2xbf16>) : tensor<8x25x40xbf16> -> tensor<8x1x13x64x2xbf16>
func.func @pairs(%w: tensor<8x25x40xbf16>, %o: tensor<8x1x13x64x2xbf16>) -> tensor<8x1x13x64x2xbf16> {
  %p = moe.pack %w panels(<matmuls = 1, columns = 64, depth = 2>) outs(%o : tensor<8x1x13x64x2xbf16>) : tensor<8x25x40xbf16> -> tensor<8x1x13x64x2xbf16>
  return %p : tensor<8x1x13x64x2xbf16>
}

// Two products share a panel; the number of experts may be dynamic.
// CHECK-LABEL: func.func @two(
// CHECK-NEXT:    moe.pack %{{.*}}, %{{.*}} transposed panels(<matmuls = 2, columns = 32, depth = 1>)
// CHECK-SAME:      outs(%{{.*}} : tensor<?x3x24x32x1xf32>) {my.note = "kept"} : tensor<?x40x24xf32>, tensor<?x40x24xf32> -> tensor<?x3x24x32x1xf32>
func.func @two(%g: tensor<?x40x24xf32>, %u: tensor<?x40x24xf32>, %o: tensor<?x3x24x32x1xf32>) -> tensor<?x3x24x32x1xf32> {
  %p = moe.pack %g, %u transposed panels(<matmuls = 2, columns = 32, depth = 1>) outs(%o : tensor<?x3x24x32x1xf32>)
    {my.note = "kept"} : tensor<?x40x24xf32>, tensor<?x40x24xf32> -> tensor<?x3x24x32x1xf32>
  return %p : tensor<?x3x24x32x1xf32>
}

// CHECK-LABEL: func.func @buffers(
// CHECK-NEXT:    moe.pack %{{.*}} panels(<matmuls = 1, columns = 4, depth = 1>) outs(%{{.*}} : memref<1x1x4x4x1xf16>) : memref<1x4x4xf16, strided<[32, 8, 2]>>{{$}}
func.func @buffers(%w: memref<1x4x4xf16, strided<[32, 8, 2]>>, %o: memref<1x1x4x4x1xf16>) {
  moe.pack %w panels(<matmuls = 1, columns = 4, depth = 1>) outs(%o : memref<1x1x4x4x1xf16>) : memref<1x4x4xf16, strided<[32, 8, 2]>>
  return
}
