// RUN: moe-opt %s --moe-overlap-launches | FileCheck %s

// The second kernel reads its weight while the first one ends, then waits.
// CHECK:       llvm.func @down({{.*}}moe.primaries = [@up, @down]
// CHECK:         llvm.load %arg1
// CHECK-NEXT:    llvm.inline_asm has_side_effects {{.*}}"griddepcontrol.wait;", "~{memory}"
// CHECK-NEXT:    llvm.inline_asm has_side_effects {{.*}}"griddepcontrol.launch_dependents;", "~{memory}"
// CHECK-NEXT:    llvm.load %arg0
gpu.module @kernels [#nvvm.target<chip = "sm_90a">] {
  llvm.func @up(%h: !llvm.ptr<1>, %v: f32) attributes {gpu.kernel, nvvm.kernel} {
    llvm.store %v, %h : f32, !llvm.ptr<1>
    llvm.return
  }
  llvm.func @down(%h: !llvm.ptr<1>, %w: !llvm.ptr<1>, %y: !llvm.ptr<1>) attributes {gpu.kernel, nvvm.kernel} {
    %weight = llvm.load %w : !llvm.ptr<1> -> f32
    %row = llvm.load %h : !llvm.ptr<1> -> f32
    %product = arith.mulf %weight, %row : f32
    llvm.store %product, %y : f32, !llvm.ptr<1>
    llvm.return
  }
}
func.func @layer(%w: memref<1xf32>, %y: memref<1xf32>, %v: f32, %n: index) {
  %h = memref.alloc() : memref<1xf32>
  moe_rt.launch @kernels::@up blocks(%n) outs(%h : memref<1xf32>) scalars(%v : f32)
  moe_rt.launch @kernels::@down blocks(%n) ins(%h, %w : memref<1xf32>, memref<1xf32>) outs(%y : memref<1xf32>)
  return
}
