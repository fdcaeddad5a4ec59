// RUN: moe-opt %s --moe-compact-launches | FileCheck %s

// Eight of sixteen columns do not lie together: the kernel gets a copy.
// CHECK:      %[[A:.*]] = memref.alloc({{.*}}) {{.*}}: memref<?x8xf32>
// CHECK:      memref.copy %{{.*}}, %[[A]]
// CHECK:      moe_rt.launch @kernels::@k {{.*}} ins(%[[A]] : memref<?x8xf32>)
gpu.module @kernels {
  llvm.func @k(%x: !llvm.ptr<1>, %y: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
}
func.func @columns(%x: memref<?x16xf32>, %y: memref<8xf32>, %n: index) {
  %v = memref.subview %x[0, 8] [%n, 8] [1, 1] : memref<?x16xf32> to memref<?x8xf32, strided<[16, 1], offset: 8>>
  moe_rt.launch @kernels::@k blocks(%n) ins(%v : memref<?x8xf32, strided<[16, 1], offset: 8>>) outs(%y : memref<8xf32>)
  return
}
