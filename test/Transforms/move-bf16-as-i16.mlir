// RUN: moe-opt %s -moe-move-bf16-as-i16 | FileCheck %s

// CHECK: llvm.mlir.global internal constant @table(dense<[16256, 16384]> : tensor<2xi16>) {{.*}} : !llvm.array<2 x i16>
llvm.mlir.global internal constant @table(dense<[1.0, 2.0]> : tensor<2xbf16>) : !llvm.array<2 x bf16>

// CHECK-LABEL: llvm.func @moves(
// CHECK-SAME:    %[[C:.*]]: i1, %[[P:.*]]: !llvm.ptr, %{{.*}}: i16) -> !llvm.struct<(i16, vector<4xi16>)>
// CHECK:         llvm.mlir.constant(16256 : i16) : i16
// CHECK:         llvm.load %[[P]] : !llvm.ptr -> i16
// CHECK:       ^bb{{.*}}(%[[ARG:.*]]: i16):
// CHECK:         llvm.getelementptr %[[P]][1] : (!llvm.ptr) -> !llvm.ptr, i16
// CHECK:         llvm.store %[[ARG]], %{{.*}} : i16, !llvm.ptr
// CHECK-NOT:     bf16
// CHECK:         llvm.return
llvm.func @moves(%c: i1, %p: !llvm.ptr, %x: bf16) -> !llvm.struct<(bf16, vector<4xbf16>)> {
  %one = llvm.mlir.constant(1.0 : bf16) : bf16
  llvm.cond_br %c, ^load, ^join(%one : bf16)
^load:
  %y = llvm.load %p : !llvm.ptr -> bf16
  %z = llvm.select %c, %y, %x : i1, bf16
  llvm.br ^join(%z : bf16)
^join(%v: bf16):
  %q = llvm.getelementptr %p[1] : (!llvm.ptr) -> !llvm.ptr, bf16
  llvm.store %v, %q : bf16, !llvm.ptr
  %s = llvm.mlir.poison : !llvm.struct<(bf16, vector<4xbf16>)>
  %t = llvm.insertvalue %v, %s[0] : !llvm.struct<(bf16, vector<4xbf16>)>
  llvm.return %t : !llvm.struct<(bf16, vector<4xbf16>)>
}

// An instruction that takes bf16 gets it by a bitcast.
// CHECK-LABEL: llvm.func @dot(
// CHECK:         %[[X:.*]] = llvm.load %{{.*}} -> vector<32xi16>
// CHECK:         %[[B:.*]] = llvm.bitcast %[[X]] : vector<32xi16> to vector<32xbf16>
// CHECK:         llvm.call_intrinsic "llvm.x86.avx512bf16.dpbf16ps.512"(%{{.*}}, %[[B]], %{{.*}})
llvm.func @dot(%p: !llvm.ptr, %acc: vector<16xf32>) -> vector<16xf32> {
  %x = llvm.load %p : !llvm.ptr -> vector<32xbf16>
  %y = llvm.call_intrinsic "llvm.x86.avx512bf16.dpbf16ps.512"(%acc, %x, %x)
    : (vector<16xf32>, vector<32xbf16>, vector<32xbf16>) -> vector<16xf32>
  llvm.return %y : vector<16xf32>
}

// And what it returns is moved as i16.
// CHECK-LABEL: llvm.func @rounds(
// CHECK:         %[[R:.*]] = llvm.call_intrinsic "llvm.x86.avx512bf16.cvtneps2bf16.512"
// CHECK:         %[[I:.*]] = llvm.bitcast %[[R]] : vector<16xbf16> to vector<16xi16>
// CHECK:         llvm.store %[[I]]
llvm.func @rounds(%p: !llvm.ptr, %x: vector<16xf32>) {
  %y = llvm.call_intrinsic "llvm.x86.avx512bf16.cvtneps2bf16.512"(%x) : (vector<16xf32>) -> vector<16xbf16>
  llvm.store %y, %p : vector<16xbf16>, !llvm.ptr
  llvm.return
}

// Kernels stay.
// CHECK: gpu.module @kernels
// CHECK:   llvm.func @kernel(%{{.*}}: bf16)
gpu.module @kernels {
  llvm.func @kernel(%x: bf16) {
    llvm.return
  }
}
