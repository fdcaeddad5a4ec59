// RUN: moe-opt %s -moe-cpu="vector-bits=256" | FileCheck %s
// RUN: moe-opt %s -moe-cpu="vector-bits=512 vector-registers=32 bf16-dot=true" | FileCheck %s --check-prefix=DOT
// RUN: moe-opt %s -moe-cpu="vector-bits=256" -o /dev/null --remarks-filter-passed=moe-fuse --remarks-filter-missed="moe-fuse|moe-pack-weights" 2>&1 | FileCheck %s --check-prefix=REMARK

// REMARK:     DenseGrouped
// REMARK:     EpilogueFused
// REMARK-NOT: Missed

// A kernel, a function for the tasks of the layer and one for those of the
// preparation, all of the module's own, and an entry for each.
// CHECK-DAG: llvm.func internal @moe_kernel_bf16_1x{{[0-9]+}}x8({{.*}}passthrough = ["noinline"
// CHECK-DAG: llvm.func internal @layer__matmul(%{{.*}}: !llvm.ptr, %{{.*}}: i64)
// CHECK-DAG: llvm.func internal @layer__prepare0__task{{[0-9]+}}(
// CHECK-DAG: llvm.func @moe_entry_layer(%{{.*}}: !llvm.ptr, %{{.*}}: !llvm.ptr) -> i32
// CHECK-DAG: llvm.func @moe_entry_layer__prepare0(%{{.*}}: !llvm.ptr, %{{.*}}: !llvm.ptr) -> i32
// CHECK-DAG: llvm.func @moe_workspace_layer(
// CHECK-NOT: moe.grouped_matmul
// CHECK-NOT: moe.pack
// CHECK-NOT: math.
// CHECK-NOT: builtin.unrealized_conversion_cast
// DOT-DAG:   llvm.func internal @moe_kernel_bf16_1x{{[0-9]+}}x16_dot(
// DOT-DAG:   llvm.call_intrinsic "llvm.x86.avx512bf16.dpbf16ps.512"
func.func @layer(%x: tensor<?x33xbf16>, %w: tensor<33x20xbf16> {moe.role = "weight", moe.name = "w"}) -> tensor<?x20xbf16> {
  %c0 = arith.constant 0 : index
  %z = arith.constant 0.0 : f32
  %n = tensor.dim %x, %c0 : tensor<?x33xbf16>
  %e = tensor.empty(%n) : tensor<?x20xf32>
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x20xf32>) -> tensor<?x20xf32>
  %y = linalg.matmul ins(%x, %w : tensor<?x33xbf16>, tensor<33x20xbf16>) outs(%f : tensor<?x20xf32>) -> tensor<?x20xf32>
  %o = tensor.empty(%n) : tensor<?x20xbf16>
  %r = linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i, j)>], iterator_types = ["parallel", "parallel"]}
    ins(%y : tensor<?x20xf32>) outs(%o : tensor<?x20xbf16>) {
  ^bb0(%a: f32, %b: bf16):
    %t = math.tanh %a : f32
    %k = arith.truncf %t : f32 to bf16
    linalg.yield %k : bf16
  } -> tensor<?x20xbf16>
  return %r : tensor<?x20xbf16>
}

// A moe operation, so that the dialect is there.
func.func private @load(%x: tensor<?x4xf32>, %p: tensor<?x2xi32>) -> tensor<?x4xf32> {
  %y = moe.combine %x, %p : tensor<?x4xf32>, tensor<?x2xi32>
  return %y : tensor<?x4xf32>
}
