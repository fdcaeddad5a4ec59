// REQUIRES: target-nvptx
// RUN: moe-opt %s -moe-serialize-kernels -split-input-file | FileCheck %s

// A module becomes its PTX, as text that ends with a zero. What the runtime has to
// know of kernels, in their order; other functions are none.
// CHECK:       module attributes {
// CHECK-NOT:     gpu.container_module
// CHECK-SAME:    moe.images = [{arch = "sm_90a", format = "ptx", size = [[SIZE:[0-9]+]] : i64, symbol = "moe_image_0"}]
// CHECK-SAME:    moe.kernels = [{cluster = 2 : i64, name = "write", primaries = [1], shared = 4096 : i64, threads = 128 : i64}, {cluster = 1 : i64, name = "plain", shared = 0 : i64, threads = 1 : i64}]}
// CHECK-NEXT:    llvm.mlir.global external constant @moe_image_0("
// CHECK-SAME:      .target sm_90a
// CHECK-SAME:      .visible .entry write(
// CHECK-SAME:      .maxntid 128, 1, 1
// CHECK-SAME:      .reqnctapercluster 2, 1, 1
// CHECK-SAME:      st.global.b32
// CHECK-SAME:      .visible .entry plain(
// CHECK-SAME:      \00") {addr_space = 0 : i32, alignment = 16 : i64}
// CHECK-NOT:   gpu.module
module attributes {gpu.container_module} {
  gpu.module @kernels [#nvvm.target<chip = "sm_90a">] {
    llvm.func internal @helper(%x: f32) -> f32 {
      llvm.return %x : f32
    }
    llvm.func @write(%y: !llvm.ptr<1>, %v: f32) attributes {
        gpu.kernel, nvvm.kernel, nvvm.maxntid = array<i32: 128, 1, 1>, nvvm.cluster_dim = array<i32: 2, 1, 1>, moe.shared_bytes = 4096 : i64, moe.primaries = [@plain]} {
      %w = llvm.call @helper(%v) : (f32) -> f32
      llvm.store %w, %y : f32, !llvm.ptr<1>
      llvm.return
    }
    llvm.func @plain(%y: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
      llvm.return
    }
  }
}

// -----

// A tensor map is an argument by value, which stays where it is.
// CHECK:         moe.images = [{arch = "sm_90a",
// CHECK:         .param .align 64 .b8 map_param_0[128]
// CHECK-NOT:     __local_depot
gpu.module @kernels [#nvvm.target<chip = "sm_90a">] {
  llvm.func @map(%m: !llvm.ptr {llvm.align = 64 : i64, llvm.byval = !llvm.array<128 x i8>, nvvm.grid_constant}, %bar: !llvm.ptr<3>, %to: !llvm.ptr<7>, %i: i32)
      attributes {gpu.kernel, nvvm.kernel} {
    nvvm.cp.async.bulk.tensor.shared.cluster.global %to, %m, %bar, box[%i, %i] : !llvm.ptr<7>, !llvm.ptr
    llvm.return
  }
}

// -----

// Without a target: what runs on all of them.
// CHECK:         moe.images = [{arch = "sm_80",
// CHECK:         .target sm_80
gpu.module @kernels {
  llvm.func @f(%y: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
}

// -----

// Without kernels nothing is recorded.
// CHECK:       module {
// CHECK-NEXT:    func.func @nothing
func.func @nothing() {
  return
}
