// RUN: moe-opt %s -moe-launches-to-calls -canonicalize -cse | FileCheck %s

// The layout is that of moe_rt/launcher.h, in words of eight bytes.

gpu.module @kernels {
  llvm.func @first(%y: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
  llvm.func @no_kernel(%x: f32) -> f32 {
    llvm.return %x : f32
  }
  llvm.func @scalars(%x: !llvm.ptr<1>, %y: !llvm.ptr<1>, %i: i64, %f: f32, %h: bf16, %c: i1, %d: f64) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
  gpu.func @memrefs(%x: memref<?x4xf32, strided<[?, 1], offset: ?>>, %n: index) kernel {
    gpu.return
  }
  llvm.func @map(%m: !llvm.ptr, %x: !llvm.ptr<1>, %y: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
  llvm.func @live(%y: !llvm.ptr<1>, %n: i64) attributes {gpu.kernel, moe.live_tokens, nvvm.kernel} {
    llvm.return
  }
}

// The launcher is the last argument: a number for the runtime, the number of
// multiprocessors, and the function that starts a kernel.
// CHECK-LABEL: func.func @launcher(
// CHECK-SAME:    %[[Y:.*]]: memref<8xf32>, %[[LAUNCHER:.*]]: !llvm.ptr)
// CHECK-DAG:     %[[ARGUMENTS:.*]] = llvm.alloca %c2_i64 x i64
// CHECK-DAG:     %[[P1:.*]] = llvm.getelementptr %[[LAUNCHER]][1] : (!llvm.ptr) -> !llvm.ptr, i64
// CHECK-DAG:     %[[COUNT:.*]] = llvm.load %[[P1]] : !llvm.ptr -> i64
// An argument is its bytes and its bits. A pointer has eight.
// CHECK:         %[[PLACE:.*]] = memref.extract_aligned_pointer_as_index %[[Y]]
// CHECK:         %[[BITS:.*]] = arith.index_cast %[[PLACE]] : index to i64
// CHECK:         llvm.store %c8_i64, %[[ARGUMENTS]]
// CHECK:         %[[A1:.*]] = llvm.getelementptr %[[ARGUMENTS]][1] : (!llvm.ptr) -> !llvm.ptr, i64
// CHECK:         llvm.store %[[BITS]], %[[A1]]
// CHECK-DAG:     %[[P2:.*]] = llvm.getelementptr %[[LAUNCHER]][2] : (!llvm.ptr) -> !llvm.ptr, i64
// CHECK-DAG:     %[[LAUNCH:.*]] = llvm.load %[[P2]] : !llvm.ptr -> !llvm.ptr
// CHECK-DAG:     %[[USER:.*]] = llvm.load %[[LAUNCHER]] : !llvm.ptr -> !llvm.ptr
// Kernel 0, a grid of [[COUNT]] by 1 by 1 blocks, one argument.
// CHECK:         llvm.call %[[LAUNCH]](%[[USER]], %c0_i64, %[[COUNT]], %c1_i64, %c1_i64, %[[ARGUMENTS]], %c1_i64) : !llvm.ptr, (!llvm.ptr, i64, i64, i64, i64, !llvm.ptr, i64) -> i32
// CHECK-NEXT:    return
func.func @launcher(%y: memref<8xf32>) {
  %n = moe_rt.multiprocessors
  moe_rt.launch @kernels::@first blocks(%n) outs(%y : memref<8xf32>)
  return
}

// Kernels are counted in their order, without other functions. A number has as many
// bytes as its type, and zeros behind them; an index is an i64.
// CHECK-LABEL: func.func @scalars(
// CHECK-SAME:    %[[N:[a-z0-9]+]]: index, %[[F:[a-z0-9]+]]: f32, %[[H:[a-z0-9]+]]: bf16, %[[C:[a-z0-9]+]]: i1, %[[D:[a-z0-9]+]]: f64, %{{[a-z0-9]+}}: !llvm.ptr)
// CHECK:         %[[M:.*]] = llvm.alloca %c14_i64 x i64
// CHECK-DAG:     %[[NB:.*]] = arith.index_cast %[[N]] : index to i64
// CHECK-DAG:     %[[FI:.*]] = arith.bitcast %[[F]] : f32 to i32
// CHECK-DAG:     %[[FB:.*]] = arith.extui %[[FI]] : i32 to i64
// CHECK-DAG:     %[[HI:.*]] = arith.bitcast %[[H]] : bf16 to i16
// CHECK-DAG:     %[[HB:.*]] = arith.extui %[[HI]] : i16 to i64
// CHECK-DAG:     %[[CB:.*]] = arith.extui %[[C]] : i1 to i64
// CHECK-DAG:     %[[DB:.*]] = arith.bitcast %[[D]] : f64 to i64
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[M]][4]
// CHECK-NEXT:    llvm.store %c8_i64, %[[W]]
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[M]][5]
// CHECK-NEXT:    llvm.store %[[NB]], %[[W]]
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[M]][6]
// CHECK-NEXT:    llvm.store %c4_i64, %[[W]]
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[M]][7]
// CHECK-NEXT:    llvm.store %[[FB]], %[[W]]
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[M]][8]
// CHECK-NEXT:    llvm.store %c2_i64, %[[W]]
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[M]][9]
// CHECK-NEXT:    llvm.store %[[HB]], %[[W]]
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[M]][10]
// CHECK-NEXT:    llvm.store %c1_i64, %[[W]]
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[M]][11]
// CHECK-NEXT:    llvm.store %[[CB]], %[[W]]
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[M]][12]
// CHECK-NEXT:    llvm.store %c8_i64, %[[W]]
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[M]][13]
// CHECK-NEXT:    llvm.store %[[DB]], %[[W]]
// CHECK:         llvm.call %{{.*}}(%{{.*}}, %c1_i64, %[[NB]], %c1_i64, %c1_i64, %[[M]], %c7_i64)
func.func @scalars(%x: memref<?xi8>, %y: memref<f32>, %n: index, %f: f32, %h: bf16, %c: i1, %d: f64) {
  moe_rt.launch @kernels::@scalars blocks(%n) ins(%x : memref<?xi8>) outs(%y : memref<f32>) scalars(%n, %f, %h, %c, %d : index, f32, bf16, i1, f64)
  return
}

// Where a view starts is where its elements are.
// CHECK-LABEL: func.func @view(
// CHECK-SAME:    %[[X:.*]]: memref<?x4xf32>, %[[I:.*]]: index, %{{.*}}: !llvm.ptr)
// CHECK-DAG:     %[[BASE:.*]] = arith.index_cast %{{.*}} : index to i64
// CHECK-DAG:     %[[OFFSET:.*]] = arith.index_cast %{{.*}} : index to i64
// CHECK-DAG:     %[[BYTES:.*]] = arith.muli %[[OFFSET]], %c4_i64
// CHECK:         %[[BITS:.*]] = arith.addi %{{.*}}, %[[BYTES]]
// CHECK:         llvm.store %[[BITS]]
func.func @view(%x: memref<?x4xf32>, %i: index) {
  %v = memref.subview %x[%i, 0] [2, 4] [1, 1] : memref<?x4xf32> to memref<2x4xf32, strided<[4, 1], offset: ?>>
  moe_rt.launch @kernels::@first blocks(%i) outs(%v : memref<2x4xf32, strided<[4, 1], offset: ?>>)
  return
}

// A kernel on memrefs takes what describes them: two pointers, the offset, sizes and
// strides, whatever they are.
// CHECK-LABEL: func.func @descriptor(
// CHECK:         %[[M:.*]] = llvm.alloca %c16_i64 x i64
// CHECK:         %{{.*}}, %[[O:.*]], %[[S:.*]]:2, %[[T:.*]]:2 = memref.extract_strided_metadata
// CHECK:         %[[P:.*]] = memref.extract_aligned_pointer_as_index
// CHECK:         %[[BASE:.*]] = arith.index_cast %[[P]]
// CHECK:         %[[OFFSET:.*]] = arith.index_cast %[[O]]
// CHECK:         %[[SIZE:.*]] = arith.index_cast %[[S]]#0
// CHECK:         %[[STRIDE:.*]] = arith.index_cast %[[T]]#0
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[M]][1]
// CHECK-NEXT:    llvm.store %[[BASE]], %[[W]]
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[M]][3]
// CHECK-NEXT:    llvm.store %[[BASE]], %[[W]]
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[M]][5]
// CHECK-NEXT:    llvm.store %[[OFFSET]], %[[W]]
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[M]][7]
// CHECK-NEXT:    llvm.store %[[SIZE]], %[[W]]
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[M]][9]
// CHECK-NEXT:    llvm.store %c4_i64, %[[W]]
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[M]][11]
// CHECK-NEXT:    llvm.store %[[STRIDE]], %[[W]]
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[M]][13]
// CHECK-NEXT:    llvm.store %c1_i64, %[[W]]
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[M]][15]
// CHECK-NEXT:    llvm.store %{{.*}}, %[[W]]
// CHECK:         llvm.call %{{.*}}(%{{.*}}, %c2_i64, %{{.*}}, %c1_i64, %c1_i64, %[[M]], %c8_i64)
func.func @descriptor(%x: memref<?x4xf32, strided<[?, 1], offset: ?>>, %n: index) {
  moe_rt.launch @kernels::@memrefs blocks(%n) outs(%x : memref<?x4xf32, strided<[?, 1], offset: ?>>) scalars(%n : index)
  return
}

// A tensor map: where it is, what of, and its dimensions, the innermost first: sizes
// in words 3 and on, strides in bytes in 8 and on, the box in 13 and on.
// CHECK-LABEL: func.func @tensor_map(
// CHECK:         %[[M:.*]] = llvm.alloca %c6_i64 x i64
// CHECK:         %[[MAP:.*]] = llvm.alloca %c19_i64 x i64
// CHECK:         %{{.*}}, %{{.*}}, %[[S:.*]]:3, %[[T:.*]]:3 = memref.extract_strided_metadata
// CHECK:         llvm.store %{{.*}}, %[[MAP]]
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[MAP]][1]
// CHECK-NEXT:    llvm.store %c2_i64, %[[W]]
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[MAP]][2]
// CHECK-NEXT:    llvm.store %c3_i64, %[[W]]
// 16 elements side by side.
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[MAP]][3]
// CHECK-NEXT:    llvm.store %c16_i64, %[[W]]
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[MAP]][8]
// CHECK-NEXT:    llvm.store %c2_i64, %[[W]]
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[MAP]][13]
// CHECK-NEXT:    llvm.store %c8_i64, %[[W]]
// CHECK:         %[[ROWS:.*]] = arith.index_cast %[[S]]#1
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[MAP]][4]
// CHECK-NEXT:    llvm.store %[[ROWS]], %[[W]]
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[MAP]][9]
// CHECK-NEXT:    llvm.store %c32_i64, %[[W]]
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[MAP]][14]
// CHECK-NEXT:    llvm.store %c64_i64, %[[W]]
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[MAP]][5]
// CHECK-NEXT:    llvm.store %c4_i64, %[[W]]
// CHECK:         %[[OUTER:.*]] = arith.index_cast %[[T]]#0
// CHECK:         %[[STRIDE:.*]] = arith.muli %[[OUTER]], %c2_i64
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[MAP]][10]
// CHECK-NEXT:    llvm.store %[[STRIDE]], %[[W]]
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[MAP]][15]
// CHECK-NEXT:    llvm.store %c1_i64, %[[W]]
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[MAP]][18]
// CHECK-NEXT:    llvm.store %c128_i64, %[[W]]
// It goes ahead of the pointers, with a size of 0.
// CHECK:         %[[BITS:.*]] = llvm.ptrtoint %[[MAP]]
// CHECK:         llvm.store %c0_i64, %[[M]]
// CHECK:         %[[W:.*]] = llvm.getelementptr %[[M]][1]
// CHECK-NEXT:    llvm.store %[[BITS]], %[[W]]
// CHECK:         llvm.call %{{.*}}(%{{.*}}, %c3_i64, %{{.*}}, %c1_i64, %c1_i64, %[[M]], %c3_i64)
func.func @tensor_map(%x: memref<4x?x16xbf16>, %y: memref<8xf32>, %n: index) {
  moe_rt.launch @kernels::@map blocks(%n) ins(%x : memref<4x?x16xbf16>) outs(%y : memref<8xf32>)
    maps([#moe_rt.tensor_map<input = 0, box = [1, 64, 8], swizzle = 128>])
  return
}

// What elements are called: bytes, f16, f32 and i32; bf16 is above.
// CHECK-LABEL: func.func @elements(
// CHECK:         %[[K:.*]] = llvm.getelementptr %[[M0:.*]][1]
// CHECK-NEXT:    llvm.store %c0_i64, %[[K]]
// CHECK:         llvm.call
// CHECK:         %[[K:.*]] = llvm.getelementptr %[[M1:.*]][1]
// CHECK-NEXT:    llvm.store %c1_i64, %[[K]]
// CHECK:         llvm.call
// CHECK:         %[[K:.*]] = llvm.getelementptr %[[M3:.*]][1]
// CHECK-NEXT:    llvm.store %c3_i64, %[[K]]
// CHECK:         llvm.call
// CHECK:         %[[K:.*]] = llvm.getelementptr %[[M4:.*]][1]
// CHECK-NEXT:    llvm.store %c4_i64, %[[K]]
// CHECK:         llvm.call
func.func @elements(%b: memref<16x16xf8E4M3FN>, %h: memref<16x16xf16>, %f: memref<16x16xf32>, %i: memref<16x16xi32>, %y: memref<8xf32>, %n: index) {
  moe_rt.launch @kernels::@map blocks(%n) ins(%b : memref<16x16xf8E4M3FN>) outs(%y : memref<8xf32>) maps([#moe_rt.tensor_map<input = 0, box = [8, 16], swizzle = 0>])
  moe_rt.launch @kernels::@map blocks(%n) ins(%h : memref<16x16xf16>) outs(%y : memref<8xf32>) maps([#moe_rt.tensor_map<input = 0, box = [8, 16], swizzle = 0>])
  moe_rt.launch @kernels::@map blocks(%n) ins(%f : memref<16x16xf32>) outs(%y : memref<8xf32>) maps([#moe_rt.tensor_map<input = 0, box = [8, 16], swizzle = 0>])
  moe_rt.launch @kernels::@map blocks(%n) ins(%i : memref<16x16xi32>) outs(%y : memref<8xf32>) maps([#moe_rt.tensor_map<input = 0, box = [8, 16], swizzle = 0>])
  return
}

// In a loop the memory for arguments is the same in each iteration.
// CHECK-LABEL: func.func @loop(
// CHECK:         %[[M:.*]] = llvm.alloca
// CHECK:         scf.for
// CHECK-NOT:       llvm.alloca
// CHECK:           llvm.call
func.func @loop(%y: memref<8xf32>, %n: index) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  scf.for %i = %c0 to %n step %c1 {
    moe_rt.launch @kernels::@first blocks(%n) outs(%y : memref<8xf32>)
  }
  return
}

// Who starts nothing takes no launcher.
// CHECK-LABEL: func.func @without(
// CHECK-SAME:    %{{.*}}: memref<8xf32>)
func.func @without(%y: memref<8xf32>) {
  return
}

// How many tokens are live is with the launcher, for kernels that ask.
// CHECK-LABEL: func.func @live(
// CHECK-SAME:    %{{.*}}: memref<8xf32>, %[[LAUNCHER:.*]]: !llvm.ptr)
// CHECK:         %[[P3:.*]] = llvm.getelementptr %[[LAUNCHER]][3] : (!llvm.ptr) -> !llvm.ptr, i64
// CHECK:         %[[LIVE:.*]] = llvm.load %[[P3]] : !llvm.ptr -> i64
// CHECK:         llvm.store %[[LIVE]],
// CHECK:         llvm.call %{{.*}}(%{{.*}}, %c4_i64, %c1_i64, %c1_i64, %c1_i64, %{{.*}}, %c2_i64)
func.func @live(%y: memref<8xf32>) {
  %c1 = arith.constant 1 : index
  moe_rt.launch @kernels::@live blocks(%c1) outs(%y : memref<8xf32>)
  return
}
