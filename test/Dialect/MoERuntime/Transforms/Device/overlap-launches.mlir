// RUN: moe-opt %s -moe-overlap-launches -split-input-file | FileCheck %s

// The prologue of `down` reads what `route` wrote, and weights; it waits before
// it reads the rows that `up` writes. It may begin under `up`, not under `route`.
// `up` waits at its first read. `route` begins when all is done.

// CHECK-LABEL: llvm.func @route(
// CHECK-NOT:     moe.primaries
// CHECK:         llvm.inline_asm has_side_effects {{.*}}"griddepcontrol.launch_dependents;", "~{memory}"
// CHECK-NEXT:    llvm.load
// CHECK-NOT:     griddepcontrol
// CHECK-LABEL: llvm.func @up(
// CHECK-SAME:    moe.primaries = [@route, @up, @down, @sum]
// CHECK:         llvm.inline_asm has_side_effects {{.*}}"griddepcontrol.wait;", "~{memory}"
// CHECK-NEXT:    llvm.inline_asm has_side_effects {{.*}}"griddepcontrol.launch_dependents;", "~{memory}"
// CHECK-NEXT:    llvm.load
// CHECK-LABEL: llvm.func @down(
// CHECK-SAME:    moe.primaries = [@up, @down, @sum]
// CHECK:         llvm.load
// CHECK-NEXT:    llvm.getelementptr
// CHECK-NEXT:    llvm.load
// CHECK-NOT:     griddepcontrol
// CHECK:         scf.if
// CHECK-NEXT:      nvvm.cp.async.bulk.tensor.prefetch
// CHECK:         llvm.inline_asm has_side_effects {{.*}}"griddepcontrol.wait;", "~{memory}"
// CHECK-NEXT:    llvm.inline_asm has_side_effects {{.*}}"griddepcontrol.launch_dependents;", "~{memory}"
// CHECK-NEXT:    scf.if
// CHECK:           llvm.load
// Nothing of `sum` is behind its wait: the next kernel has nothing to hurry for.
// CHECK-LABEL: llvm.func @sum(
// CHECK-SAME:    moe.primaries = [@route, @up, @down, @sum]
// CHECK:         llvm.inline_asm has_side_effects {{.*}}"griddepcontrol.wait;", "~{memory}"
// CHECK-NOT:     griddepcontrol
// CHECK:         llvm.return
// CHECK-LABEL: func.func @layer(
gpu.module @kernels [#nvvm.target<chip = "sm_90a">] {
  llvm.func @route(%x: !llvm.ptr<1>, %offsets: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    %0 = llvm.load %x : !llvm.ptr<1> -> i32
    llvm.store %0, %offsets : i32, !llvm.ptr<1>
    llvm.return
  }
  llvm.func @up(%x: !llvm.ptr<1>, %offsets: !llvm.ptr<1>, %h: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    %c0 = arith.constant 0 : i32
    %0 = llvm.load %offsets : !llvm.ptr<1> -> i32
    llvm.store %0, %h : i32, !llvm.ptr<1>
    llvm.return
  }
  llvm.func @down(%map: !llvm.ptr {llvm.byval = !llvm.array<128 x i8>, nvvm.grid_constant}, %h: !llvm.ptr<1>, %offsets: !llvm.ptr<1>, %w: !llvm.ptr<1>, %out: !llvm.ptr<1>, %n: i32) attributes {gpu.kernel, nvvm.kernel} {
    %c0 = arith.constant 0 : i32
    %0 = llvm.load %offsets : !llvm.ptr<1> -> i32
    %p = llvm.getelementptr %w[%0] : (!llvm.ptr<1>, i32) -> !llvm.ptr<1>, i32
    %1 = llvm.load %p : !llvm.ptr<1> -> i32
    %some = arith.cmpi slt, %0, %n : i32
    scf.if %some {
      nvvm.cp.async.bulk.tensor.prefetch %map, box[%0, %0, %0] : !llvm.ptr
    }
    scf.if %some {
      %2 = llvm.load %h : !llvm.ptr<1> -> i32
      %3 = arith.addi %1, %2 : i32
      llvm.store %3, %out : i32, !llvm.ptr<1>
    }
    llvm.return
  }
  llvm.func @sum(%z: !llvm.ptr<1>, %n: i32) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
}
func.func @layer(%x: memref<?xi32>, %w: memref<4x8x8xi32>, %y: memref<?xi32>, %z: memref<1xi32>, %n: index, %m: i32) {
  %offsets = memref.alloc() : memref<5xi32>
  %h = memref.alloc(%n) : memref<?xi32>
  moe_rt.launch @kernels::@route blocks(%n) ins(%x : memref<?xi32>) outs(%offsets : memref<5xi32>)
  moe_rt.launch @kernels::@up blocks(%n) ins(%x, %offsets : memref<?xi32>, memref<5xi32>) outs(%h : memref<?xi32>)
  moe_rt.launch @kernels::@down blocks(%n) ins(%h, %offsets, %w : memref<?xi32>, memref<5xi32>, memref<4x8x8xi32>) outs(%y : memref<?xi32>)
    scalars(%m : i32) maps([#moe_rt.tensor_map<input = 2, box = [1, 8, 8], swizzle = 0>])
  moe_rt.launch @kernels::@sum blocks(%n) outs(%z : memref<1xi32>) scalars(%m : i32)
  return
}

// -----

// Both variants of `down`, and `up`, may be directly before: the prologue may
// read nothing that any of them writes. A view of the arena is a buffer, a part
// of an argument belongs to the argument: in a loop `last`, which writes it, may
// be directly before, too, but then the launch does not begin early.

// CHECK-LABEL: llvm.func @down_1(
// CHECK-SAME:    moe.primaries = [@up, @down, @down_1]
// CHECK:         llvm.load
// CHECK-NEXT:    llvm.inline_asm has_side_effects {{.*}}"griddepcontrol.wait;", "~{memory}"
// CHECK-NEXT:    llvm.inline_asm has_side_effects {{.*}}"griddepcontrol.launch_dependents;", "~{memory}"
// CHECK-NEXT:    llvm.load
// CHECK-LABEL: func.func @layer(
gpu.module @kernels [#nvvm.target<chip = "sm_100">] {
  llvm.func @up(%h: !llvm.ptr<1>, %b: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
  llvm.func @down(%h: !llvm.ptr<1>, %b: !llvm.ptr<1>, %y: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
  llvm.func @down_1(%h: !llvm.ptr<1>, %b: !llvm.ptr<1>, %y: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    %0 = llvm.load %b : !llvm.ptr<1> -> i32
    %1 = llvm.load %h : !llvm.ptr<1> -> i32
    llvm.store %1, %y : i32, !llvm.ptr<1>
    llvm.return
  }
  llvm.func @last(%b: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
}
func.func @layer(%arena: memref<?xi8>, %x: memref<16xi32>, %y: memref<?xi32>, %n: index) {
  %c0 = arith.constant 0 : index
  %h = memref.view %arena[%c0][] : memref<?xi8> to memref<8xi32>
  %b = memref.view %arena[%n][] : memref<?xi8> to memref<8xi32>
  %part = memref.subview %x[0] [8] [1] : memref<16xi32> to memref<8xi32, strided<[1]>>
  scf.for %i = %c0 to %n step %n {
    moe_rt.launch @kernels::@up blocks(%n) outs(%h, %b : memref<8xi32>, memref<8xi32>)
    moe_rt.launch @kernels::@down blocks(%n) ins(%h, %part : memref<8xi32>, memref<8xi32, strided<[1]>>) outs(%y : memref<?xi32>)
    moe_rt.launch @kernels::@down_1 blocks(%n) ins(%h, %part : memref<8xi32>, memref<8xi32, strided<[1]>>) outs(%y : memref<?xi32>)
    moe_rt.launch @kernels::@last blocks(%n) outs(%x : memref<16xi32>)
  }
  return
}

// -----

// A kernel on memrefs waits at its start, and so does one whose address comes
// from somewhere else. A kernel of two launches is left alone.

// CHECK-LABEL: llvm.func @twice(
// CHECK-NOT:     griddepcontrol
// CHECK-LABEL: llvm.func @unknown(
// CHECK:         llvm.inline_asm has_side_effects {{.*}}"griddepcontrol.wait;", "~{memory}"
// CHECK:         llvm.load
// CHECK-LABEL: gpu.func @loop(
// CHECK:         llvm.inline_asm has_side_effects {{.*}}"griddepcontrol.wait;", "~{memory}"
// CHECK-NEXT:    llvm.inline_asm has_side_effects {{.*}}"griddepcontrol.launch_dependents;", "~{memory}"
// CHECK-NEXT:    memref.store
gpu.module @kernels [#nvvm.target<chip = "sm_90">] {
  llvm.func @twice(%x: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    %0 = llvm.load %x : !llvm.ptr<1> -> i32
    llvm.store %0, %x : i32, !llvm.ptr<1>
    llvm.return
  }
  llvm.func @unknown(%z: !llvm.ptr<1>, %address: i64) attributes {gpu.kernel, nvvm.kernel} {
    %p = llvm.inttoptr %address : i64 to !llvm.ptr<1>
    %0 = llvm.load %p : !llvm.ptr<1> -> i32
    llvm.return
  }
  gpu.func @loop(%x: memref<4xi32>, %v: i32) kernel {
    %c0 = arith.constant 0 : index
    memref.store %v, %x[%c0] : memref<4xi32>
    gpu.return
  }
}
func.func @layer(%x: memref<4xi32>, %z: memref<1xi32>, %n: index, %v: i32, %address: i64) {
  moe_rt.launch @kernels::@twice blocks(%n) outs(%x : memref<4xi32>)
  moe_rt.launch @kernels::@twice blocks(%n) outs(%x : memref<4xi32>)
  moe_rt.launch @kernels::@unknown blocks(%n) outs(%z : memref<1xi32>) scalars(%address : i64)
  moe_rt.launch @kernels::@loop blocks(%n) outs(%x : memref<4xi32>) scalars(%v : i32)
  return
}

// -----

// Older GPUs have no such launches.

// CHECK-LABEL: gpu.module @kernels [#nvvm.target<chip = "sm_89">]
// CHECK-NOT:     griddepcontrol
// CHECK-NOT:     moe.primaries
gpu.module @kernels [#nvvm.target<chip = "sm_89">] {
  llvm.func @up(%x: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
  llvm.func @down(%x: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    llvm.return
  }
}
func.func @layer(%x: memref<4xi32>, %n: index) {
  moe_rt.launch @kernels::@up blocks(%n) outs(%x : memref<4xi32>)
  moe_rt.launch @kernels::@down blocks(%n) outs(%x : memref<4xi32>)
  return
}
